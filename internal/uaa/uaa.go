// Package uaa is the UAA dialect: tokens (OAuth 2.0), identities (SCIM 1.1) and OAuth clients, as the clients of Cloud
// Foundry expect them. A handler decodes, makes one call of package identity or account, and presents; who may do what
// is decided there.
package uaa

import (
	"net/http"
	"net/url"

	"rolecall/internal/account"
	"rolecall/internal/door"
	"rolecall/internal/fault"
	"rolecall/internal/identity"
)

// Prefix is the path of this API: both the "login" and the "uaa" link of the discovery document point here.
const Prefix = "/uaa"

// API serves the dialect.
type API struct {
	Accounts *account.Store
	Identity *identity.Service
	Door     *door.Door
	// PublicURL is the base of absolute URLs, without a slash at the end.
	PublicURL string
}

// Handler returns the handler of the dialect. It accepts tokens only, as the UAA does: a browser that remembers a password
// for this host sends it along with requests of other sites. An unknown path is 404 without a token, because the routes are
// no secret.
func (a *API) Handler() *door.Handler {
	return a.Door.Handler(door.Surface{
		Name: "uaa", Schemes: []identity.Scheme{identity.Bearer}, Fail: fail, Routes: []door.Route{
			public(http.MethodGet, "/login", a.info),
			public(http.MethodGet, "/info", a.info),
			public(http.MethodPost, "/oauth/token", a.token),
			public(http.MethodPost, "/oauth/device_authorization", a.authorizeDevice),
			public(http.MethodPost, "/oauth/revoke", a.revoke),
			public(http.MethodGet, "/token_keys", a.tokenKeys),
			public(http.MethodGet, "/token_key", a.tokenKey),
			public(http.MethodGet, "/.well-known/openid-configuration", a.discovery),
			// Below the issuer, where OpenID Connect Discovery 1.0, 4 looks.
			public(http.MethodGet, "/oauth/token/.well-known/openid-configuration", a.discovery),

			private(http.MethodGet, "/userinfo", a.userInfo),
			private(http.MethodGet, "/ids/Users", a.listIDs),

			private(http.MethodGet, "/Users", a.listUsers),
			private(http.MethodPost, "/Users", a.createUser),
			private(http.MethodGet, "/Users/{id}", a.getUser),
			private(http.MethodPut, "/Users/{id}", a.putUser),
			private(http.MethodPatch, "/Users/{id}", a.patchUser),
			private(http.MethodDelete, "/Users/{id}", a.deleteUser),
			private(http.MethodPut, "/Users/{id}/password", a.putPassword),
			private(http.MethodPatch, "/Users/{id}/status", a.patchStatus),

			private(http.MethodGet, "/Groups", a.listGroups),
			private(http.MethodGet, "/Groups/External", a.listExternalGroups),
			private(http.MethodGet, "/Groups/External/list", a.listExternalGroups),
			private(http.MethodGet, "/Groups/{id}", a.getGroup),
			private(http.MethodPut, "/Groups/{id}", a.putGroup),
			private(http.MethodGet, "/Groups/{id}/members", a.listMembers),
			private(http.MethodPost, "/Groups/{id}/members", a.addMember),
			private(http.MethodDelete, "/Groups/{id}/members/{memberId}", a.removeMember),

			private(http.MethodGet, clients, a.listClients),
			private(http.MethodPost, clients, a.createClient),
			private(http.MethodGet, clients+"/{id}", a.getClient),
			private(http.MethodPut, clients+"/{id}", a.putClient),
			private(http.MethodDelete, clients+"/{id}", a.deleteClient),
			private(http.MethodGet, clients+"/{id}/meta", a.getClientMeta),
			private(http.MethodPut, clients+"/{id}/secret", a.putSecret),
		},
	})
}

// clients is the path of OAuth clients, which have error words of their own.
const clients = "/oauth/clients"

func public(method, pattern string, h door.HandlerFunc) door.Route {
	return door.Route{Method: method, Pattern: Prefix + pattern, Handle: h, Public: true}
}

func private(method, pattern string, h door.HandlerFunc) door.Route {
	return door.Route{Method: method, Pattern: Prefix + pattern, Handle: h}
}

// href is the absolute URL of a place below the prefix.
func (a *API) href(path string) string { return a.PublicURL + Prefix + path }

// query reads the query string, each parameter at most once.
func query(r *http.Request) (url.Values, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fault.New(fault.Malformed, "The query string is not valid.").Because(err)
	}
	return values, once(values)
}

func once(values url.Values) error {
	for name, given := range values {
		if len(given) > 1 {
			return fault.New(fault.Malformed, "The parameter %.40q was given %d times.", name, len(given))
		}
	}
	return nil
}
