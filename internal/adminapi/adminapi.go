// Package adminapi is Rolecall's own dialect, /rolecall/v1: the registry of clusters, and what the other two dialects
// cannot say. A handler decodes, makes one call of a domain package, and presents; it decides nothing.
package adminapi

import (
	"net/http"

	"rolecall/internal/account"
	"rolecall/internal/dbuser"
	"rolecall/internal/fault"
	"rolecall/internal/identity"
	"rolecall/internal/web"
)

// Prefix is where the dialect is served.
const Prefix = "/rolecall/v1"

// API serves the dialect.
type API struct {
	Users    *dbuser.Service
	Identity *identity.Service
	// PublicURL is the base of absolute URLs, without a slash at the end.
	PublicURL string
	// PerPrincipal limits the requests of one account, PerAddress those of one address that are not known to be of one.
	PerPrincipal, PerAddress *web.Limiter

	followers followers
	router    *web.Router
}

// Init builds the routes. It is called once, before the first request.
func (a *API) Init() *API {
	a.router = web.NewRouter(
		a.route(http.MethodGet, "/whoami", a.whoami),
		a.route(http.MethodGet, "/clusters", a.listClusters),
		a.route(http.MethodPost, "/clusters", a.registerCluster),
		a.route(http.MethodGet, "/clusters/{clusterId}", a.getCluster),
		a.route(http.MethodPatch, "/clusters/{clusterId}", a.updateCluster),
		a.route(http.MethodDelete, "/clusters/{clusterId}", a.removeCluster),
		a.route(http.MethodPost, "/clusters/{clusterId}/probe", a.probeCluster),
		a.route(http.MethodPost, "/clusters/{clusterId}/rotate-credential", a.rotateCredential),
		a.route(http.MethodGet, "/clusters/{clusterId}/access", a.explainAccess),
		a.route(http.MethodGet, "/clusters/{clusterId}/users/{username}", a.getUser),
		a.route(http.MethodPatch, "/clusters/{clusterId}/users/{username}", a.updateUser),
		a.route(http.MethodPut, "/clusters/{clusterId}/users/{username}/roles", a.setRoles),
		a.route(http.MethodGet, "/clusters/{clusterId}/users/{username}/deletion-plan", a.planDeletion),
		a.route(http.MethodGet, "/clusters/{clusterId}/password-problems", a.listPasswordProblems),
		a.route(http.MethodGet, "/clusters/{clusterId}/pgbouncer/userlist", a.userlist),
		a.route(http.MethodGet, "/tokens", a.listTokens),
		a.route(http.MethodPost, "/tokens", a.createToken),
		a.route(http.MethodDelete, "/tokens/{tokenId}", a.revokeToken),
		a.route(http.MethodPost, "/keys/rotate", a.rotateKeys),
		a.route(http.MethodGet, "/audit", a.listAudit),
		a.route(http.MethodGet, "/audit/verify", a.verifyAudit),
		a.route(http.MethodGet, "/audit/failed-sign-ins", a.listFailedSignIns),
	)
	return a
}

// Routes returns the routes, for the test that compares them with the document.
func (a *API) Routes() []web.Route { return a.router.Routes() }

// handler answers a request of an authenticated principal.
type handler func(w http.ResponseWriter, r *http.Request, p *account.Principal) error

func (a *API) route(method, pattern string, h handler) web.Route {
	return web.Route{Method: method, Pattern: Prefix + pattern, Handle: func(w http.ResponseWriter, r *http.Request) error {
		return h(w, r, account.PrincipalOf(r.Context()))
	}}
}

// ServeHTTP authenticates before anything else, so that to a stranger every path and method looks the same.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	web.Handle(w, r, a.serve, func(w http.ResponseWriter, f *fault.Error) { fail(w, r, f) })
}

func (a *API) serve(w http.ResponseWriter, r *http.Request) error {
	web.InfoOf(r.Context()).Dialect = "rolecall"
	r, err := a.Identity.Enter(r, a.PerAddress, a.PerPrincipal)
	if err != nil {
		return err
	}
	route, err := a.router.Find(w, r)
	if err != nil {
		return err
	}
	return route.Handle(w, r)
}
