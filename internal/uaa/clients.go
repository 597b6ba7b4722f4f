package uaa

import (
	"net/http"
	"slices"

	"rolecall/internal/account"
	"rolecall/internal/fault"
	"rolecall/internal/identity"
	"rolecall/internal/web"
)

// clientResource is an OAuth client. Its authorities are the scopes of its account; its scope lists the scopes that a user's
// token may have through it.
type clientResource struct {
	ClientID             string   `json:"client_id"`
	AuthorizedGrantTypes []string `json:"authorized_grant_types"`
	Scope                []string `json:"scope"`
	Authorities          []string `json:"authorities"`
	ResourceIDs          []string `json:"resource_ids"`
	AutoApprove          []string `json:"autoapprove"`
	Name                 string   `json:"name,omitempty"`
	AccessTokenValidity  int      `json:"access_token_validity,omitempty"` // seconds
	RefreshTokenValidity int      `json:"refresh_token_validity,omitempty"`
	LastModified         int64    `json:"lastModified"` // milliseconds
}

// clientMeta is what is known about an OAuth client's registration.
type clientMeta struct {
	ClientID       string  `json:"clientId"`
	ClientName     string  `json:"clientName,omitempty"`
	CreatedBy      *string `json:"createdBy"` // the audit log knows; nil here
	ShowOnHomePage bool    `json:"showOnHomePage"`
	LastModified   int64   `json:"lastModified"` // milliseconds
}

func (a *API) getClientMeta(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	i, err := a.Accounts.Identity(r.Context(), p, true, r.PathValue("id"))
	if err != nil {
		return err
	}
	web.JSON(w, http.StatusOK, "application/json", clientMeta{
		ClientID:     i.GUID,
		ClientName:   i.Client.Name,
		LastModified: i.IdentityUpdated.UnixMilli(),
	})
	return nil
}

func client(i *account.Profile) clientResource {
	return clientResource{
		ClientID:             i.GUID,
		AuthorizedGrantTypes: i.GrantTypes,
		Scope:                i.UserScopes,
		Authorities:          i.Scopes,
		ResourceIDs:          []string{"none"},
		AutoApprove:          []string{},
		Name:                 i.Client.Name,
		AccessTokenValidity:  i.Client.AccessValidity,
		RefreshTokenValidity: i.Client.RefreshValidity,
		LastModified:         i.IdentityUpdated.UnixMilli(),
	}
}

var clientList = listing[clientResource]{
	clients: true,
	fields:  map[string]string{"client_id": "guid"},
	orders:  map[string]string{"client_id": "guid", "lastModified": "updated"},
	present: client,
}

func (a *API) listClients(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	return clientList.serve(a, w, r, p, account.Filter{})
}

func (a *API) createClient(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	o, err := object(w, r)
	if err != nil {
		return err
	}
	var id string
	if err := field(o, "client_id", &id); err != nil {
		return err
	}
	c, err := decodeClient(o)
	if err == nil && c.GrantTypes == nil {
		err = errNoGrantTypes
	}
	if err != nil {
		return err
	}
	var secret string
	if err := field(o, "client_secret", &secret); err != nil {
		return err
	}
	if secret == "" {
		return fault.New(fault.Invalid, "The field client_secret is missing or empty.")
	}
	if slices.Contains(identity.PublicClients, id) {
		return fault.New(fault.Exists, "The client id %q is that of a public client. Choose another.", id)
	}
	made, err := a.Accounts.CreateClient(r.Context(), p, id, c, a.secret(secret, nil))
	if err != nil {
		return err
	}
	web.JSON(w, http.StatusCreated, "application/json", client(made))
	return nil
}

var errNoGrantTypes = fault.New(fault.Invalid, "The field authorized_grant_types is missing or empty.")

// decodeClient reads what a client may be given.
func decodeClient(o *web.Object) (c account.IdentityChange, err error) {
	for key, v := range map[string]**[]string{
		"authorized_grant_types": &c.GrantTypes, "scope": &c.UserScopes, "authorities": &c.Scopes,
	} {
		if *v, err = texts(o, key); err != nil {
			return c, err
		}
	}
	if err := optional(o, "name", &c.ClientName); err != nil {
		return c, err
	}
	for key, v := range map[string]**int{
		"access_token_validity": &c.AccessValidity, "refresh_token_validity": &c.RefreshValidity,
	} {
		if *v, err = whole(o, key); err != nil {
			return c, err
		}
	}
	if err := clientNotKept(o); err != nil {
		return c, err
	}
	for _, scopes := range []*[]string{c.Scopes, c.UserScopes} {
		if scopes != nil { // uaa.none is the UAA's word for no scope
			*scopes = slices.DeleteFunc(*scopes, func(scope string) bool { return scope == "uaa.none" })
		}
	}
	if c.GrantTypes == nil {
		return c, nil
	}
	if len(*c.GrantTypes) == 0 {
		return c, errNoGrantTypes
	}
	for _, grant := range *c.GrantTypes {
		if !slices.Contains(clientGrants, grant) {
			return c, fault.New(fault.Invalid, "The grant type %.80q is not offered; offered: %q.", grant, clientGrants)
		}
	}
	return c, nil
}

// clientNotKept refuses settings of the UAA that would have no effect. What was read can be sent back.
func clientNotKept(o *web.Object) error {
	resources, err := texts(o, "resource_ids")
	if err != nil {
		return err
	}
	if resources != nil && slices.ContainsFunc(*resources, func(id string) bool { return id != "none" }) {
		return errNotKept("resource_ids")
	}
	return notKept(o, "redirect_uri", "allowedproviders", "required_user_groups", "token_salt", "allowpublic",
		"jwks", "jwks_uri", "signup_redirect_url")
}

func (a *API) getClient(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	i, err := a.Accounts.Identity(r.Context(), p, true, r.PathValue("id"))
	if err != nil {
		return err
	}
	web.JSON(w, http.StatusOK, "application/json", client(i))
	return nil
}

// putClient changes the fields in the body, and keeps the others. A secret is ignored: it has a path of its own.
func (a *API) putClient(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	o, err := object(w, r)
	if err != nil {
		return err
	}
	id := r.PathValue("id")
	if err := field(o, "client_id", &id); err != nil {
		return err
	}
	if id != r.PathValue("id") {
		return fault.New(fault.Invalid, "A client's id cannot be changed.")
	}
	c, err := decodeClient(o)
	if err != nil {
		return err
	}
	i, err := a.Accounts.UpdateIdentity(r.Context(), p, true, id, nil, c)
	if err != nil {
		return err
	}
	web.JSON(w, http.StatusOK, "application/json", client(i))
	return nil
}

func (a *API) deleteClient(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	i, err := a.Accounts.DeleteIdentity(r.Context(), p, true, r.PathValue("id"), nil)
	if err != nil {
		return err
	}
	web.JSON(w, http.StatusOK, "application/json", client(i))
	return nil
}

func (a *API) putSecret(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
	o, err := object(w, r)
	if err != nil {
		return err
	}
	var secret, old, mode string
	if err := field(o, "secret", &secret); err != nil {
		return err
	}
	if err := field(o, "oldSecret", &old); err != nil {
		return err
	}
	if err := field(o, "changeMode", &mode); err != nil {
		return err
	}
	if secret == "" || mode != "" && mode != "UPDATE" {
		return fault.New(fault.Invalid, "Send the new secret in the field secret. It replaces the old one: a client has "+
			"one secret.")
	}
	id := r.PathValue("id")
	proven := false
	if p.GUID == id && old != "" {
		if _, err := a.Identity.VerifySecret(r.Context(), id, p.Address, old); err != nil {
			return oldIsWrong(err)
		}
		proven = true
	}
	if err := a.Accounts.SetSecret(r.Context(), p, true, id, proven, a.secret(secret, nil)); err != nil {
		return err
	}
	web.JSON(w, http.StatusOK, "application/json", statusResponse{"ok", "Secret is updated"})
	return nil
}
