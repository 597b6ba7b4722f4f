// Package adminapi is Rolecall's own dialect, /rolecall/v1: the registry of clusters, and what the other two dialects
// cannot say. A handler decodes, makes one call of a domain package, and presents; it decides nothing.
package adminapi

import (
	"net/http"

	"rolecall/internal/account"
	"rolecall/internal/dbuser"
	"rolecall/internal/door"
	"rolecall/internal/identity"
)

// Prefix is where the dialect is served.
const Prefix = "/rolecall/v1"

// API serves the dialect.
type API struct {
	Accounts *account.Store
	Users    *dbuser.Service
	Identity *identity.Service
	Door     *door.Door
	// PublicURL is the base of absolute URLs, without a slash at the end.
	PublicURL string

	followers followers
}

// Handler returns the handler of the dialect. To a stranger every path and method looks the same.
func (a *API) Handler() *door.Handler {
	return a.Door.Handler(door.Surface{
		Name: "rolecall", Schemes: []identity.Scheme{identity.Basic, identity.Bearer}, Private: Prefix, Fail: fail, Routes: []door.Route{
			route(http.MethodGet, "/whoami", a.whoami),
			route(http.MethodGet, "/clusters", a.listClusters),
			route(http.MethodPost, "/clusters", a.registerCluster),
			route(http.MethodGet, "/clusters/{clusterId}", a.getCluster),
			route(http.MethodPatch, "/clusters/{clusterId}", a.updateCluster),
			route(http.MethodDelete, "/clusters/{clusterId}", a.removeCluster),
			route(http.MethodPost, "/clusters/{clusterId}/probe", a.probeCluster),
			route(http.MethodPost, "/clusters/{clusterId}/rotate-credential", a.rotateCredential),
			route(http.MethodGet, "/clusters/{clusterId}/access", a.explainAccess),
			route(http.MethodGet, "/clusters/{clusterId}/users/{username}", a.getUser),
			route(http.MethodPatch, "/clusters/{clusterId}/users/{username}", a.updateUser),
			route(http.MethodPut, "/clusters/{clusterId}/users/{username}/roles", a.setRoles),
			route(http.MethodGet, "/clusters/{clusterId}/users/{username}/deletion-plan", a.planDeletion),
			route(http.MethodGet, "/clusters/{clusterId}/password-problems", a.listPasswordProblems),
			route(http.MethodGet, "/clusters/{clusterId}/pgbouncer/userlist", a.userlist),
			route(http.MethodGet, "/accounts", a.listAccounts),
			route(http.MethodPost, "/accounts", a.createAccount),
			route(http.MethodGet, "/accounts/{guid}", a.getAccount),
			route(http.MethodPatch, "/accounts/{guid}", a.updateAccount),
			route(http.MethodDelete, "/accounts/{guid}", a.deleteAccount),
			route(http.MethodPost, "/accounts/{guid}/password", a.setAccountPassword),
			route(http.MethodGet, "/tokens", a.listTokens),
			route(http.MethodPost, "/tokens", a.createToken),
			route(http.MethodDelete, "/tokens/{tokenId}", a.revokeToken),
			route(http.MethodPost, "/keys/rotate", a.rotateKeys),
			route(http.MethodGet, "/audit", a.listAudit),
			route(http.MethodGet, "/audit/verify", a.verifyAudit),
			route(http.MethodGet, "/audit/failed-sign-ins", a.listFailedSignIns),
		},
	})
}

func route(method, pattern string, h door.HandlerFunc) door.Route {
	return door.Route{Method: method, Pattern: Prefix + pattern, Handle: h}
}
