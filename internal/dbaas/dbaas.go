// Package dbaas is the DBaaS dialect, the API by which existing clients manage the users and databases of PostgreSQL
// clusters. A handler decodes, makes one call of package dbuser, and presents; it decides nothing about roles.
package dbaas

import (
	"net/http"
	"net/url"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/dbuser"
	"rolecall/internal/identity"
	"rolecall/internal/web"
)

// Prefix is where clients of this API look for it, at the root of the host.
const Prefix = "/databases/postgresql"

// API serves the dialect.
type API struct {
	Users    *dbuser.Service
	Identity *identity.Service
	// PublicURL is the base of absolute URLs, without a slash at the end.
	PublicURL string
	// PerPrincipal limits the requests of one account, PerAddress those of one address that are not known to be of one.
	PerPrincipal, PerAddress *web.Limiter

	router *web.Router
}

// Init builds the routes. It is called once, before the first request.
func (a *API) Init() *API {
	a.router = web.NewRouter(
		// The names of the versions lists stand where a cluster's id would, so they come first.
		a.route(http.MethodGet, "/clusters/postgresversions", a.allVersions),
		a.route(http.MethodGet, "/versions", a.allVersions),
		a.route(http.MethodGet, "/clusters/{clusterId}/postgresversions", a.clusterVersions),
		a.route(http.MethodGet, "/clusters/{clusterId}/versions", a.clusterVersions),
		a.route(http.MethodGet, "/infos/version", a.apiVersion),
		a.route(http.MethodGet, "/infos/versions", a.apiVersions),
		a.route(http.MethodGet, "/clusters", a.listClusters),
		a.route(http.MethodGet, "/clusters/{clusterId}", a.getCluster),
		a.route(http.MethodGet, "/clusters/{clusterId}/users", a.listUsers),
		a.route(http.MethodPost, "/clusters/{clusterId}/users", a.createUser),
		// One client in the field leaves a slash in a user name as it is, so a name takes the rest of the path.
		a.route(http.MethodGet, "/clusters/{clusterId}/users/{username...}", a.getUser),
		a.route(http.MethodPatch, "/clusters/{clusterId}/users/{username...}", a.patchUser),
		a.route(http.MethodDelete, "/clusters/{clusterId}/users/{username...}", a.deleteUser),
		a.route(http.MethodGet, "/clusters/{clusterId}/databases", a.listDatabases),
		a.route(http.MethodPost, "/clusters/{clusterId}/databases", a.createDatabase),
		a.route(http.MethodGet, "/clusters/{clusterId}/databases/{databaseName...}", a.getDatabase),
		a.route(http.MethodDelete, "/clusters/{clusterId}/databases/{databaseName...}", a.deleteDatabase),
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
	web.Handle(w, r, a.serve, fail)
}

func (a *API) serve(w http.ResponseWriter, r *http.Request) error {
	web.InfoOf(r.Context()).Dialect = "dbaas"
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

// resourceID is the stable id of a user, database or list: a version 5 UUID (RFC 9562) of its place in the cluster.
func resourceID(cluster uuid.UUID, place string) string {
	return uuid.NewSHA1(cluster, []byte(place)).String()
}

// href is the absolute URL of a place below the prefix, of segments that are escaped here.
func (a *API) href(segments ...string) string {
	u := a.PublicURL + Prefix
	for _, s := range segments {
		u += "/" + url.PathEscape(s)
	}
	return u
}
