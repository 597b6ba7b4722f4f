package dbaas

import (
	"net/http"
	"slices"
	"strconv"

	"rolecall/internal/account"
	"rolecall/internal/cluster"
	"rolecall/internal/dbuser"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/web"
)

type userProperties struct {
	Username string `json:"username"`
	System   bool   `json:"system"`
}

func presentUser(col *collection, u *pgrole.User) resource[userProperties] {
	return present(col, u.Name, &u.Provenance, u.System(), userProperties{u.Name, u.System()})
}

func (a *API) writeUser(w http.ResponseWriter, c *cluster.Cluster, u *pgrole.User) {
	w.Header().Set("ETag", strconv.Quote(u.Revision()))
	web.JSON(w, http.StatusOK, "application/json", presentUser(a.collection(c, "users"), u))
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
	if page.After, err = q.after(); err != nil {
		return err
	}
	system, err := q.boolean("system")
	if err != nil {
		return err
	}
	c, users, err := a.Users.Users(r.Context(), p, r.PathValue("clusterId"), page, system)
	if err != nil {
		return err
	}
	col := a.collection(c, "users")
	l := presentList[userProperties](col, page, pageLinks(col.href, page, users.More, endOf(users), q, "system"))
	l.encoded = users.Encoded(func(users []*pgrole.User) []byte { return encodeUsers(col, users) })
	web.JSON(w, http.StatusOK, "application/json", l)
	return nil
}

// endOf is the name behind which the next page begins. It is "" behind a name that is too long for that: in a database of
// one byte a character a name can take more bytes in UTF-8 than a name may have. Then the next page begins at its offset.
func endOf(users *pgrole.Listed) string {
	if !users.More {
		return ""
	}
	if last := users.Users[len(users.Users)-1].Name; pgrole.CheckAfter(last) == nil {
		return last
	}
	return ""
}

// encodeUsers encodes the items of a page of users.
func encodeUsers(col *collection, users []*pgrole.User) []byte {
	return appendItems(make([]byte, 0, 512*(len(users)+1)), presentItems(col, users, presentUser))
}

func (a *API) createUser(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	props, err := readProperties(w, r)
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
	web.Warn(w, u.LoginProblem(), pgrole.PortabilityProblem(password))
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
	props, err := readProperties(w, r)
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
	if given {
		web.Warn(w, u.LoginProblem(), pgrole.PortabilityProblem(password))
	} else if slices.ContainsFunc(props.Keys, unknownOfUser) {
		web.Warn(w, "Nothing was changed: properties has a field that is not known, and no password.")
	}
	a.writeUser(w, c, u)
	return nil
}

// unknownOfUser reports whether users have no property of that name. The contract has such fields ignored; without a word, a
// misspelled password would look as if it were set.
func unknownOfUser(key string) bool { return key != "username" && key != "password" && key != "system" }

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
		return fault.New(fault.Invalid, "The query parameter reassignTo is empty; give the name of a role.")
	}
	withMembers, err := q.boolean("withMembers")
	if err != nil {
		return err
	}
	how := dbuser.Deletion{ReassignTo: reassignTo, WithMembers: withMembers}
	onBlocked, given, err := q.one("onBlocked")
	if err != nil {
		return err
	}
	if given && onBlocked != "disable" {
		return fault.New(fault.Invalid, "The query parameter onBlocked must be \"disable\".")
	}
	if given {
		c, disabled, err := a.Users.DeleteOrDisableUser(r.Context(), p, r.PathValue("clusterId"), r.PathValue("username"),
			how, web.IfMatch(r))
		if err != nil {
			return err
		}
		if disabled != nil {
			a.writeUser(w, c, disabled)
			return nil
		}
	} else if err := a.Users.DeleteUser(r.Context(), p, r.PathValue("clusterId"), r.PathValue("username"), how,
		web.IfMatch(r)); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
