package uaa

import (
	"net/http"
	"strconv"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/fault"
	"rolecall/internal/web"
)

type userResource struct {
	ID                   string     `json:"id"`
	Meta                 meta       `json:"meta"`
	UserName             string     `json:"userName"`
	Name                 name       `json:"name"` // always, like emails: clients look into both without asking
	Emails               []email    `json:"emails"`
	Groups               []groupRef `json:"groups"`
	Approvals            []struct{} `json:"approvals"` // nothing is ever approved here
	Active               bool       `json:"active"`
	Verified             bool       `json:"verified"`
	Origin               string     `json:"origin"`
	ZoneID               string     `json:"zoneId"`
	PasswordLastModified string     `json:"passwordLastModified,omitempty"`
	Schemas              []string   `json:"schemas"`
}

type meta struct {
	Version      int    `json:"version"`
	Created      string `json:"created"`
	LastModified string `json:"lastModified"`
}

type name struct {
	FamilyName string `json:"familyName"`
	GivenName  string `json:"givenName"`
}

type email struct {
	Value   string `json:"value"`
	Primary bool   `json:"primary"`
}

type groupRef struct {
	Value   string `json:"value"`
	Display string `json:"display"`
	Type    string `json:"type"`
}

// date writes a time as the UAA does, in milliseconds.
func date(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

func user(i *account.Identity) userResource {
	u := userResource{
		ID:        i.GUID,
		Meta:      meta{i.Version, date(i.Created), date(i.Updated)},
		UserName:  i.Username,
		Name:      name{i.FamilyName, i.GivenName},
		Emails:    []email{},
		Groups:    []groupRef{},
		Approvals: []struct{}{},
		Active:    i.Active,
		Verified:  i.Verified,
		Origin:    i.Origin,
		ZoneID:    account.LocalOrigin,
		Schemas:   scimSchemas,
	}
	for n, value := range i.Emails {
		u.Emails = append(u.Emails, email{value, n == 0})
	}
	if len(u.Emails) == 0 {
		u.Emails = []email{{i.Username, true}}
	}
	for _, scope := range i.Scopes {
		u.Groups = append(u.Groups, groupRef{groupID(scope), scope, "DIRECT"})
	}
	if !i.SecretChanged.IsZero() {
		u.PasswordLastModified = date(i.SecretChanged)
	}
	return u
}

func writeUser(w http.ResponseWriter, status int, i *account.Identity) {
	w.Header().Set("ETag", strconv.Quote(strconv.Itoa(i.Version)))
	web.JSON(w, status, "application/json", user(i))
}

var userFields = map[string]string{"id": "guid", "userName": "username", "origin": "origin"}

func (a *API) listUsers(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	return listIdentities(a, w, r, p, false, userFields, user)
}

// listIdentities answers a list of people, or of OAuth clients.
func listIdentities[T any](a *API, w http.ResponseWriter, r *http.Request, p *account.Principal, programs bool,
	fields map[string]string,
	present func(*account.Identity) T) error {
	values, err := query(r)
	if err != nil {
		return err
	}
	page, err := parsePage(values)
	if err != nil {
		return err
	}
	filter, err := parseFilter(values.Get("filter"), fields)
	if err != nil {
		return err
	}
	found, total, err := a.Accounts.Identities(r.Context(), p, programs, filter, page.start-1, page.count)
	if err != nil {
		return err
	}
	resources := make([]T, len(found))
	for n, i := range found {
		resources[n] = present(i)
	}
	writeList(w, page, total, resources)
	return nil
}

func (a *API) createUser(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	o, err := object(w, r)
	if err != nil {
		return err
	}
	n := account.Identity{Active: true, Verified: true}
	if err := decodeUser(o, &n); err != nil {
		return err
	}
	if n.Origin == "" {
		n.Origin = account.LocalOrigin
	}
	if n.Emails == nil {
		n.Emails = []string{n.Username}
	}
	var password string
	if err := field(o, "password", &password); err != nil {
		return err
	}
	if password != "" && n.Origin != account.LocalOrigin {
		return fault.New(fault.Invalid, "A user of the origin %q has no password here.", n.Origin)
	}
	made, err := a.Accounts.CreateIdentity(r.Context(), p, n, a.secret(password, errPassword))
	if err != nil {
		return err
	}
	writeUser(w, http.StatusCreated, made)
	return nil
}

// decodeUser reads the fields of a user into i, which keeps those that are absent.
func decodeUser(o *web.Object, i *account.Identity) error {
	var name *web.Object
	for _, err := range []error{
		field(o, "userName", &i.Username),
		field(o, "origin", &i.Origin),
		field(o, "active", &i.Active),
		field(o, "verified", &i.Verified),
		field(o, "name", &name),
	} {
		if err != nil {
			return err
		}
	}
	if name != nil {
		if err := field(name, "givenName", &i.GivenName); err != nil {
			return err
		}
		if err := field(name, "familyName", &i.FamilyName); err != nil {
			return err
		}
	}
	return decodeEmails(o, i)
}

func decodeEmails(o *web.Object, i *account.Identity) error {
	var list []any
	if err := field(o, "emails", &list); err != nil || len(list) == 0 {
		return err
	}
	emails, primary := make([]string, 0, len(list)), -1
	for n, entry := range list {
		e, ok := entry.(*web.Object)
		if !ok {
			return fault.New(fault.Invalid, "The field emails holds objects, not %s.", web.TypeName(entry))
		}
		var value string
		var first bool
		if err := field(e, "value", &value); err != nil {
			return err
		}
		if err := field(e, "primary", &first); err != nil {
			return err
		}
		if first && primary < 0 {
			primary = n
		}
		emails = append(emails, value)
	}
	if primary > 0 {
		emails[0], emails[primary] = emails[primary], emails[0]
	}
	i.Emails = emails
	return nil
}

func (a *API) getUser(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	i, err := a.Accounts.Identity(r.Context(), p, false, r.PathValue("id"))
	if err != nil {
		return err
	}
	writeUser(w, http.StatusOK, i)
	return nil
}

func (a *API) putUser(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	return a.updateUser(w, r, p, func(o *web.Object, i *account.Identity) error {
		if v, _ := o.Get("userName"); v == nil {
			return fault.New(fault.Invalid, "The field userName is missing.")
		}
		// A name is replaced as a whole: Terraform removes a part of it by leaving it out.
		if v, _ := o.Get("name"); v != nil {
			i.GivenName, i.FamilyName = "", ""
		}
		return nil
	})
}

func (a *API) patchUser(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	return a.updateUser(w, r, p, func(*web.Object, *account.Identity) error { return nil })
}

// updateUser changes the fields in the body. Even with PUT absent fields keep their values (RFC 7644, 3.5.1 lets a server
// choose): a client that does not know `active` must not reactivate a user.
func (a *API) updateUser(w http.ResponseWriter, r *http.Request, p *account.Principal,
	prepare func(*web.Object, *account.Identity) error) error {
	o, err := object(w, r)
	if err != nil {
		return err
	}
	match, err := neededIfMatch(r)
	if err != nil {
		return err
	}
	i, err := a.Accounts.UpdateIdentity(r.Context(), p, false, r.PathValue("id"), match, func(i *account.Identity) error {
		origin := i.Origin
		if err := prepare(o, i); err != nil {
			return err
		}
		if err := decodeUser(o, i); err != nil {
			return err
		}
		if i.Origin == "" {
			i.Origin = origin
		}
		return nil
	})
	if err != nil {
		return err
	}
	writeUser(w, http.StatusOK, i)
	return nil
}

func (a *API) deleteUser(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	i, err := a.Accounts.DeleteIdentity(r.Context(), p, false, r.PathValue("id"), ifMatch(r))
	if err != nil {
		return err
	}
	writeUser(w, http.StatusOK, i)
	return nil
}

type statusResponse struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

func (a *API) putPassword(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	o, err := object(w, r)
	if err != nil {
		return err
	}
	var password, old string
	if err := field(o, "password", &password); err != nil {
		return err
	}
	if err := field(o, "oldPassword", &old); err != nil {
		return err
	}
	if password == "" {
		return fault.New(fault.Invalid, "The field password is missing or empty.").Because(errPassword)
	}
	proven := false
	if p.GUID == r.PathValue("id") && old != "" {
		own, err := a.Identity.VerifyPassword(r.Context(), p.Username, old, p.Address)
		if err != nil {
			return oldIsWrong(err)
		}
		proven = own.GUID == p.GUID // somebody of another origin may have the same name
	}
	if err := a.Accounts.SetSecret(r.Context(), p, false, r.PathValue("id"), proven,
		a.secret(password, errPassword)); err != nil {
		return err
	}
	web.JSON(w, http.StatusOK, "application/json", statusResponse{"ok", "password updated"})
	return nil
}

// oldIsWrong answers a wrong old password with the UAA's status, which cf passwd checks for.
func oldIsWrong(err error) error {
	if fault.Is(err, fault.Unauthenticated) {
		return fault.New(fault.Unauthenticated, "The old password or secret is wrong.")
	}
	return err
}
