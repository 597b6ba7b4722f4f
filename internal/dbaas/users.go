package dbaas

import (
	"net/http"
	"strconv"

	"rolecall/internal/account"
	"rolecall/internal/cluster"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/web"
)

type userResource struct {
	Type       string         `json:"type"`
	ID         string         `json:"id"`
	Href       string         `json:"href"`
	Metadata   metadata       `json:"metadata"`
	Properties userProperties `json:"properties"`
}

type userProperties struct {
	Username string `json:"username"`
	System   bool   `json:"system"`
}

type userList struct {
	Type   string         `json:"type"`
	ID     string         `json:"id"`
	Href   string         `json:"href"`
	Items  []userResource `json:"items"`
	Offset int            `json:"offset"`
	Limit  int            `json:"limit"`
	Links  links          `json:"_links"`
}

func (col *collection) user(u *pgrole.User) userResource {
	id, href := col.place(u.Name)
	return userResource{
		Type:       "user",
		ID:         id,
		Href:       href,
		Metadata:   col.metadata(&u.Provenance, u.System(), u.Name),
		Properties: userProperties{u.Name, u.System()},
	}
}

func (a *API) writeUser(w http.ResponseWriter, c *cluster.Cluster, u *pgrole.User) {
	w.Header().Set("ETag", strconv.Quote(u.Revision()))
	web.JSON(w, http.StatusOK, "application/json", a.collection(c, "users").user(u))
}

// warnOfPassword says together with a success what would otherwise show at the first login through some driver.
func warnOfPassword(w http.ResponseWriter, password string) {
	if !pgrole.Portable(password) {
		w.Header().Set("Rolecall-Warning", "The password has characters that PostgreSQL drivers prepare in different ways: with some of them the user cannot log in. Printable ASCII is safe.")
	}
}

func (a *API) listUsers(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	page, err := q.page()
	if err != nil {
		return err
	}
	system, err := q.boolean("system")
	if err != nil {
		return err
	}
	c, users, more, err := a.Users.Users(r.Context(), p, r.PathValue("clusterId"), page, system)
	if err != nil {
		return err
	}
	all := a.collection(c, "users")
	list := userList{
		Type:   "collection",
		ID:     resourceID(c.ID, "users"),
		Href:   all.href,
		Items:  make([]userResource, len(users)),
		Offset: page.Offset,
		Limit:  page.Limit,
		Links:  pageLinks(all.href, page, more, q, "system"),
	}
	for i, u := range users {
		list.Items[i] = all.user(u)
	}
	web.JSON(w, http.StatusOK, "application/json", list)
	return nil
}

func (a *API) createUser(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	props, err := properties(w, r)
	if err != nil {
		return err
	}
	name, err := required(props, "username")
	if err != nil {
		return err
	}
	password, err := required(props, "password")
	if err != nil {
		return err
	}
	c, u, err := a.Users.CreateUser(r.Context(), p, r.PathValue("clusterId"), name, password)
	if err != nil {
		return err
	}
	warnOfPassword(w, password)
	a.writeUser(w, c, u)
	return nil
}

func (a *API) getUser(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	c, u, err := a.Users.User(r.Context(), p, r.PathValue("clusterId"), r.PathValue("username"))
	if err != nil {
		return err
	}
	a.writeUser(w, c, u)
	return nil
}

func (a *API) patchUser(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	props, err := properties(w, r)
	if err != nil {
		return err
	}
	name := r.PathValue("username")
	if renamed, given, err := text(props, "username"); err != nil {
		return err
	} else if given && renamed != name {
		return fault.New(fault.Invalid, "A user cannot be renamed: the path says %q, properties.username %q.", name, renamed)
	}
	password, given, err := text(props, "password")
	if err != nil {
		return err
	}
	var c *cluster.Cluster
	var u *pgrole.User
	if given {
		c, u, err = a.Users.SetPassword(r.Context(), p, r.PathValue("clusterId"), name, password, web.IfMatch(r))
	} else {
		c, u, err = a.Users.KeepUser(r.Context(), p, r.PathValue("clusterId"), name, web.IfMatch(r))
	}
	if err != nil {
		return err
	}
	warnOfPassword(w, password) // the empty one, of a call that changes nothing, is portable
	a.writeUser(w, c, u)
	return nil
}

func (a *API) deleteUser(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	reassignTo, given, err := q.one("reassignTo")
	if err != nil {
		return err
	}
	if given && reassignTo == "" {
		return fault.New(fault.Invalid, "The query parameter reassignTo is empty; it takes the name of a role.")
	}
	onBlocked, given, err := q.one("onBlocked")
	if err != nil {
		return err
	}
	if given && onBlocked != "disable" {
		return fault.New(fault.Invalid, "The query parameter onBlocked takes the value disable, and no other.")
	}
	if given {
		c, disabled, err := a.Users.DeleteOrDisableUser(r.Context(), p, r.PathValue("clusterId"), r.PathValue("username"), reassignTo, web.IfMatch(r))
		if err != nil {
			return err
		}
		if disabled != nil {
			a.writeUser(w, c, disabled)
			return nil
		}
	} else if err := a.Users.DeleteUser(r.Context(), p, r.PathValue("clusterId"), r.PathValue("username"), reassignTo, web.IfMatch(r)); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
