package uaa

import (
	"cmp"
	"net/http"
	"strconv"
	"strings"
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

func user(i *account.Profile) userResource {
	u := userResource{
		ID:        i.GUID,
		Meta:      meta{i.Version, date(i.IdentityCreated), date(i.IdentityUpdated)},
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

func writeUser(w http.ResponseWriter, status int, i *account.Profile) {
	w.Header().Set("ETag", strconv.Quote(strconv.Itoa(i.Version)))
	web.JSON(w, status, "application/json", user(i))
}

// A listing is what a list of identities shows, and what it is filtered and sorted by.
type listing[T any] struct {
	clients        bool
	fields, orders map[string]string
	present        func(*account.Profile) T
}

var users = listing[userResource]{
	fields: map[string]string{"id": "guid", "userName": "username", "origin": "origin"},
	orders: map[string]string{"id": "guid", "userName": "username", "origin": "origin", "active": "active", "created": "",
		"meta.created": "", "lastModified": "updated", "meta.lastModified": "updated"},
	present: user,
}

func (a *API) listUsers(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	return users.serve(a, w, r, p, account.Filter{})
}

// userID is a user in a list of ids.
type userID struct {
	ID       string `json:"id"`
	UserName string `json:"userName"`
	Origin   string `json:"origin"`
}

var userIDs = listing[userID]{
	fields:  map[string]string{"id": "guid", "userName": "username", "origin": "origin"},
	orders:  map[string]string{"id": "guid", "userName": "username", "origin": "origin"},
	present: func(i *account.Profile) userID { return userID{i.GUID, i.Username, i.Origin} },
}

// listIDs finds the ids of some users. Like the UAA it asks for a filter, and leaves out inactive users.
func (a *API) listIDs(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	values, err := query(r)
	if err != nil {
		return err
	}
	if values.Get("filter") == "" {
		return fault.New(fault.Malformed, "The parameter filter is missing.")
	}
	var active account.Filter
	switch inactive := values.Get("includeInactive"); inactive {
	case "true":
	case "", "false":
		active = account.Filter{Field: "active", Value: "true"}
	default:
		return fault.New(fault.Malformed, "The parameter includeInactive is true or false, not %.80q.", inactive)
	}
	return userIDs.serve(a, w, r, p, active)
}

// serve answers a list of people, or of OAuth clients: of those that both the filter of the request and also select.
func (l *listing[T]) serve(a *API, w http.ResponseWriter, r *http.Request, p *account.Principal, also account.Filter) error {
	values, err := query(r)
	if err != nil {
		return err
	}
	page, err := parsePage(values)
	if err != nil {
		return err
	}
	filter, err := parseFilter(values.Get("filter"), l.fields)
	if err != nil {
		return err
	}
	order, err := parseOrder(values, l.orders)
	if err != nil {
		return err
	}
	found, total, err := a.Accounts.Identities(r.Context(), p, l.clients, account.Filter{All: []account.Filter{filter, also}},
		order, page.start-1, page.count)
	if err != nil {
		return err
	}
	resources := make([]T, len(found))
	for n, i := range found {
		resources[n] = l.present(i)
	}
	return writeAttributes(w, page, total, resources, values.Get("attributes"))
}

func (a *API) createUser(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	o, err := object(w, r)
	if err != nil {
		return err
	}
	c, err := decodeUser(o)
	if err != nil {
		return err
	}
	var password string
	if err := field(o, "password", &password); err != nil {
		return err
	}
	made, err := a.Accounts.CreateUser(r.Context(), p, c, a.secret(password, errPassword))
	if err != nil {
		return err
	}
	writeUser(w, http.StatusCreated, made)
	return nil
}

// decodeUser reads what a client may set.
func decodeUser(o *web.Object) (c account.IdentityChange, err error) {
	var name *web.Object
	for _, err := range []error{
		optional(o, "userName", &c.Username),
		optional(o, "origin", &c.Origin),
		optional(o, "active", &c.Active),
		optional(o, "verified", &c.Verified),
		field(o, "name", &name),
		notKept(o, "phoneNumbers", "externalId"),
	} {
		if err != nil {
			return c, err
		}
	}
	if name != nil {
		if err := cmp.Or(optional(name, "givenName", &c.GivenName), optional(name, "familyName", &c.FamilyName)); err != nil {
			return c, err
		}
	}
	c.Emails, err = decodeEmails(o)
	return c, err
}

// decodeEmails returns nil when there are none.
func decodeEmails(o *web.Object) (*[]string, error) {
	var list []any
	if err := field(o, "emails", &list); err != nil || len(list) == 0 {
		return nil, err
	}
	emails, primary := make([]string, 0, len(list)), -1
	for n, entry := range list {
		e, ok := entry.(*web.Object)
		if !ok {
			return nil, fault.New(fault.Invalid, "The field emails holds objects, not %s.", web.TypeName(entry))
		}
		var value string
		var first bool
		if err := field(e, "value", &value); err != nil {
			return nil, err
		}
		if err := field(e, "primary", &first); err != nil {
			return nil, err
		}
		if first && primary < 0 {
			primary = n
		}
		emails = append(emails, value)
	}
	if primary > 0 {
		emails[0], emails[primary] = emails[primary], emails[0]
	}
	return &emails, nil
}

func (a *API) getUser(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	i, err := a.Accounts.Identity(r.Context(), p, false, r.PathValue("id"))
	if err != nil {
		return err
	}
	writeUser(w, http.StatusOK, i)
	return nil
}

// putUser changes the fields in the body. Absent fields keep their values (RFC 7644, 3.5.1 lets a server choose): a client
// that does not know `active` must not reactivate a user.
func (a *API) putUser(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	o, err := object(w, r)
	if err != nil {
		return err
	}
	if v, _ := o.Get("userName"); v == nil {
		return fault.New(fault.Invalid, "The field userName is missing.")
	}
	c, err := decodeUser(o)
	if err != nil {
		return err
	}
	// A name is replaced as a whole: Terraform removes a part of it by leaving it out.
	if v, _ := o.Get("name"); v != nil {
		for _, part := range []**string{&c.GivenName, &c.FamilyName} {
			if *part == nil {
				*part = new(string)
			}
		}
	}
	return a.updateUser(w, r, p, c)
}

func (a *API) patchUser(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	o, err := object(w, r)
	if err != nil {
		return err
	}
	c, err := decodeUser(o)
	if err != nil {
		return err
	}
	return a.updateUser(w, r, p, c)
}

func (a *API) updateUser(w http.ResponseWriter, r *http.Request, p *account.Principal, c account.IdentityChange) error {
	match, err := neededIfMatch(r)
	if err != nil {
		return err
	}
	i, err := a.Accounts.UpdateIdentity(r.Context(), p, false, r.PathValue("id"), match, c)
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

type lockStatus struct {
	Locked bool `json:"locked"`
}

// patchStatus unlocks a user: it need not wait any longer after failed sign-ins.
func (a *API) patchStatus(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	o, err := object(w, r)
	if err != nil {
		return err
	}
	locked := true
	if err := field(o, "locked", &locked); err != nil {
		return err
	}
	if _, given := o.Get("passwordChangeRequired"); given || locked {
		return fault.New(fault.Invalid, `The only change of a status is {"locked": false}. Users become locked by failed `+
			`sign-ins alone, and nobody can be made to change a password.`)
	}
	i, err := a.Accounts.Unlock(r.Context(), p, r.PathValue("id"))
	if err != nil {
		return err
	}
	if i.Origin == account.LocalOrigin {
		a.Identity.Unlock(i.Username)
	}
	web.JSON(w, http.StatusOK, "application/json", lockStatus{})
	return nil
}

// userInfo is what a token says of its user (OpenID Connect Core 1.0, 5.3).
type userInfo struct {
	UserID     string `json:"user_id"`
	Sub        string `json:"sub"`
	UserName   string `json:"user_name"`
	Name       string `json:"name"`
	GivenName  string `json:"given_name"`
	FamilyName string `json:"family_name"`
	Email      string `json:"email"`
	Origin     string `json:"origin"`
}

func (a *API) userInfo(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	i, err := a.Accounts.Identity(r.Context(), p, false, p.GUID)
	if fault.Is(err, fault.NotFound) {
		return fault.New(fault.Forbidden, "The token is not a user's.")
	}
	if err != nil {
		return err
	}
	u := user(i)
	web.JSON(w, http.StatusOK, "application/json", userInfo{
		UserID:     i.GUID,
		Sub:        i.GUID,
		UserName:   i.Username,
		Name:       cmp.Or(strings.TrimSpace(i.GivenName+" "+i.FamilyName), i.Username),
		GivenName:  i.GivenName,
		FamilyName: i.FamilyName,
		Email:      u.Emails[0].Value,
		Origin:     i.Origin,
	})
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
		var err error
		if proven, err = a.Identity.Proves(r.Context(), p, old); err != nil {
			return oldIsWrong(err)
		}
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
