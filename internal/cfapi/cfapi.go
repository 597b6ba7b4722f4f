// Package cfapi is the Cloud Foundry v3 dialect, the API by which existing clients manage the users of a platform: their
// labels and annotations, and what the clients need around that. A handler decodes, makes one call of package account,
// and presents; what a principal may see and change is decided there.
package cfapi

import (
	"net/http"
	"net/url"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/door"
	"rolecall/internal/fault"
	"rolecall/internal/identity"
	"rolecall/internal/web"
)

// Prefix is the path of this API. The dialect also serves the root of the host, whose document points clients here.
const Prefix = "/v3"

// API serves the dialect.
type API struct {
	Accounts *account.Store
	Door     *door.Door
	// PublicURL is the base of absolute URLs, without a slash at the end.
	PublicURL string
}

// Handler returns the handler of the dialect. It accepts tokens only: a client that sends a password has missed the token
// endpoint. It serves every path that no other surface has, because its root is the root of the host. Outside of the prefix
// an unknown path is 404 without a token, for a browser that asks for an icon or an old client that asks for /v2/info.
func (a *API) Handler() *door.Handler {
	return a.Door.Handler(door.Surface{
		Name: "cf", Schemes: []identity.Scheme{identity.Bearer}, Private: Prefix, NoMethods: true, RateHeaders: true,
		Headers: setHeaders, Fail: fail, Routes: []door.Route{
			public("/", a.root),
			public(Prefix, a.index),
			public(Prefix+"/info", a.info),
			read("/users", a.listUsers),
			a.change(http.MethodPost, "/users", audit.CreateAccount, a.createUser),
			read("/users/{guid}", a.getUser),
			a.change(http.MethodPatch, "/users/{guid}", audit.UpdateAccount, a.patchUser),
			{Method: http.MethodDelete, Pattern: Prefix + "/users/{guid}", Handle: a.deleteUser},
			read("/jobs/{guid}", a.getJob),
			read("/organizations", a.noResources),
			read("/organizations/{guid}/users", missing("Organization not found")),
			read("/spaces", a.noResources),
			read("/roles", a.noRoles),
			{Method: http.MethodPost, Pattern: Prefix + "/roles", Handle: a.createRole},
			read("/roles/{guid}", missing("Role not found")),
			read("/spaces/{guid}/users", missing("Space not found")),
		},
	})
}

func setHeaders(h http.Header, info *web.Info) {
	web.AsData(h)
	id := info.ID
	if info.Incoming != "" {
		id = info.Incoming + "::" + id
	}
	h["X-Vcap-Request-Id"] = []string{id}
}

func public(pattern string, h door.HandlerFunc) door.Route {
	return door.Route{Method: http.MethodGet, Pattern: pattern, Handle: h, Public: true}
}

// read is a route for principals with a scope to read. The scope is checked before anything else about the request, so a
// refusal says nothing about what exists.
func read(pattern string, h door.HandlerFunc) door.Route {
	return door.Route{Method: http.MethodGet, Pattern: Prefix + pattern,
		Handle: func(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
			if !p.Has(account.ScopeAdmin, account.ScopeAdminReadOnly, account.ScopeAuditor, account.ScopeRead) {
				return fault.New(fault.Forbidden, "The token has no scope for reading.")
			}
			return h(w, r, p)
		}}
}

// change is a route for admins. The body of any other account is not read, because it may be large.
func (a *API) change(method, pattern, action string, h door.HandlerFunc) door.Route {
	return door.Route{Method: method, Pattern: Prefix + pattern,
		Handle: func(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
			if !p.Has(account.ScopeAdmin) {
				return a.Accounts.RefusePlatform(r.Context(), p, action, r.PathValue("guid"))
			}
			return h(w, r, p)
		}}
}

// href is the absolute URL of a resource. Its guid may hold any character.
func (a *API) href(collection, guid string) string {
	return a.PublicURL + Prefix + collection + "/" + url.PathEscape(guid)
}

const jsonType = "application/json; charset=utf-8"
