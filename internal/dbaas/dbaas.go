// Package dbaas is the DBaaS dialect, the API by which existing clients manage the users and databases of PostgreSQL
// clusters. A handler decodes, makes one call of package dbuser, and presents; it decides nothing about roles.
package dbaas

import (
	"net/http"
	"net/url"

	"github.com/google/uuid"

	"rolecall/internal/dbuser"
	"rolecall/internal/door"
	"rolecall/internal/identity"
)

// Prefix is the path of this API at the root of the host.
const Prefix = "/databases/postgresql"

// API serves the dialect.
type API struct {
	Users *dbuser.Service
	Door  *door.Door
	// PublicURL is the base of absolute URLs, without a slash at the end.
	PublicURL string
}

// Handler returns the handler of the dialect. To a stranger every path and method looks the same.
func (a *API) Handler() *door.Handler {
	return a.Door.Handler(door.Surface{
		Name: "dbaas", Schemes: []identity.Scheme{identity.Basic, identity.Bearer}, Private: Prefix, Fail: fail,
		Routes: []door.Route{
			// These lists have names where the others have the id of a cluster, so they come first.
			route(http.MethodGet, "/clusters/postgresversions", a.allVersions),
			route(http.MethodGet, "/clusters/backups", a.allBackups),
			route(http.MethodGet, "/versions", a.allVersions),
			route(http.MethodGet, "/clusters/{clusterId}/postgresversions", a.clusterVersions),
			route(http.MethodGet, "/clusters/{clusterId}/versions", a.clusterVersions),
			route(http.MethodGet, "/infos/version", a.apiVersion),
			route(http.MethodGet, "/infos/versions", a.apiVersions),
			route(http.MethodGet, "/clusters", a.listClusters),
			route(http.MethodGet, "/clusters/{clusterId}", a.getCluster),
			route(http.MethodGet, "/clusters/{clusterId}/backups", a.clusterBackups),
			route(http.MethodGet, "/clusters/{clusterId}/logs", a.logs),
			route(http.MethodGet, "/clusters/{clusterId}/users", a.listUsers),
			route(http.MethodPost, "/clusters/{clusterId}/users", a.createUser),
			// One client does not escape a slash in a user name, so a name is the rest of the path.
			route(http.MethodGet, "/clusters/{clusterId}/users/{username...}", a.getUser),
			route(http.MethodPatch, "/clusters/{clusterId}/users/{username...}", a.patchUser),
			route(http.MethodDelete, "/clusters/{clusterId}/users/{username...}", a.deleteUser),
			route(http.MethodGet, "/clusters/{clusterId}/databases", a.listDatabases),
			route(http.MethodPost, "/clusters/{clusterId}/databases", a.createDatabase),
			route(http.MethodGet, "/clusters/{clusterId}/databases/{databaseName...}", a.getDatabase),
			route(http.MethodDelete, "/clusters/{clusterId}/databases/{databaseName...}", a.deleteDatabase),
		},
	})
}

func route(method, pattern string, h door.HandlerFunc) door.Route {
	return door.Route{Method: method, Pattern: Prefix + pattern, Handle: h}
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
