// Package adminapi is Rolecall's own dialect, /rolecall/v1: the registry of clusters, and what the other two dialects
// cannot say. A handler decodes, makes one call of a domain package, and presents; it decides nothing.
package adminapi

import (
	"net/http"

	"rolecall/api"
	"rolecall/internal/account"
	"rolecall/internal/dbuser"
	"rolecall/internal/door"
	"rolecall/internal/event"
	"rolecall/internal/fleet"
	"rolecall/internal/idempotency"
	"rolecall/internal/identity"
)

// Prefix is where the dialect is served.
const Prefix = "/rolecall/v1"

// API serves the dialect.
type API struct {
	Accounts *account.Store
	Users    *dbuser.Service
	Fleet    *fleet.Service
	Identity *identity.Service
	Events   *event.Service
	Door     *door.Door
	// Idempotency is for requests that may be repeated.
	Idempotency *idempotency.Store
	// PublicURL is the base of absolute URLs, without a slash at the end.
	PublicURL string
	// Version is that of the program.
	Version string
}

// Handler returns the handler of the dialect. To a stranger every path and method looks the same.
func (a *API) Handler() *door.Handler {
	return a.Door.Handler(door.Surface{
		Name: "rolecall", Schemes: []identity.Scheme{identity.Basic, identity.Bearer}, Private: Prefix, Fail: fail,
		Routes: a.repeatable([]door.Route{
			route(http.MethodGet, "/whoami", a.whoami),
			{Method: http.MethodGet, Pattern: Prefix + "/fleet.schema.json", Public: true, Handle: fleetSchema},
			paged(http.MethodGet, "/clusters", a.listClusters, "name"),
			route(http.MethodPost, "/clusters", a.registerCluster),
			route(http.MethodGet, "/clusters/{clusterId}", a.getCluster),
			route(http.MethodPatch, "/clusters/{clusterId}", a.updateCluster),
			queried(http.MethodDelete, "/clusters/{clusterId}", a.removeCluster, "endLeases"),
			route(http.MethodPost, "/clusters/{clusterId}/probe", a.probeCluster),
			route(http.MethodPost, "/clusters/{clusterId}/rotate-credential", a.rotateCredential),
			queried(http.MethodGet, "/clusters/{clusterId}/access", a.explainAccess, "account"),
			paged(http.MethodGet, "/clusters/{clusterId}/databases", a.listDatabases),
			route(http.MethodPost, "/clusters/{clusterId}/databases", a.createDatabase),
			route(http.MethodGet, "/clusters/{clusterId}/databases/{database}", a.getDatabase),
			route(http.MethodDelete, "/clusters/{clusterId}/databases/{database}", a.deleteDatabase),
			route(http.MethodGet, "/clusters/{clusterId}/databases/{database}/access-roles", a.getAccessRoles),
			queried(http.MethodPut, "/clusters/{clusterId}/databases/{database}/access-roles", a.putAccessRoles, "plan"),
			queried(http.MethodDelete, "/clusters/{clusterId}/databases/{database}/access-roles", a.deleteAccessRoles,
				"reassignTo"),
			paged(http.MethodGet, "/clusters/{clusterId}/users", a.listUsers, "system"),
			route(http.MethodPost, "/clusters/{clusterId}/users", a.createUser),
			route(http.MethodGet, "/clusters/{clusterId}/users/{username}", a.getUser),
			route(http.MethodPatch, "/clusters/{clusterId}/users/{username}", a.updateUser),
			queried(http.MethodDelete, "/clusters/{clusterId}/users/{username}", a.deleteUser, "reassignTo", "withMembers",
				"onBlocked"),
			route(http.MethodPost, "/clusters/{clusterId}/users/{username}/password", a.changePassword),
			route(http.MethodPost, "/clusters/{clusterId}/users/{username}/disable", a.disableUser),
			route(http.MethodPost, "/clusters/{clusterId}/users/{username}/enable", a.enableUser),
			route(http.MethodGet, "/clusters/{clusterId}/users/{username}/access", a.getUserAccess),
			route(http.MethodPut, "/clusters/{clusterId}/users/{username}/access/{database}", a.setAccess),
			route(http.MethodDelete, "/clusters/{clusterId}/users/{username}/access/{database}", a.removeAccess),
			route(http.MethodPut, "/clusters/{clusterId}/users/{username}/roles", a.setRoles),
			route(http.MethodPut, "/clusters/{clusterId}/users/{username}/roles/{role}", a.grantRole),
			route(http.MethodDelete, "/clusters/{clusterId}/users/{username}/roles/{role}", a.revokeRole),
			queried(http.MethodGet, "/clusters/{clusterId}/users/{username}/deletion-plan", a.planDeletion, "reassignTo",
				"withMembers"),
			paged(http.MethodGet, "/clusters/{clusterId}/password-problems", a.listPasswordProblems),
			route(http.MethodGet, "/clusters/{clusterId}/pgbouncer/userlist", a.userlist),
			paged(http.MethodGet, "/users", a.searchUsers, searchParameters...),
			route(http.MethodPost, "/clusters/{clusterId}/leases", a.createLease),
			paged(http.MethodGet, "/clusters/{clusterId}/leases", a.listClusterLeases, leaseFilters...),
			paged(http.MethodGet, "/clusters/{clusterId}/credentials", a.listCredentials),
			route(http.MethodPut, "/clusters/{clusterId}/credentials/{name}", a.putCredential),
			route(http.MethodGet, "/clusters/{clusterId}/credentials/{name}", a.getCredential),
			route(http.MethodDelete, "/clusters/{clusterId}/credentials/{name}", a.deleteCredential),
			forCredentials(route(http.MethodGet, "/clusters/{clusterId}/credentials/{name}/current", a.currentCredential)),
			route(http.MethodPost, "/clusters/{clusterId}/credentials/{name}/rotate", a.rotateStored),
			paged(http.MethodGet, "/leases", a.listLeases, leaseFilters...),
			route(http.MethodGet, "/leases/{leaseId}", a.getLease),
			route(http.MethodDelete, "/leases/{leaseId}", a.endLease),
			route(http.MethodPost, "/leases/{leaseId}/renew", a.renewLease),
			queried(http.MethodPost, "/operations", a.startOperation, "plan"),
			paged(http.MethodGet, "/operations", a.listOperations),
			route(http.MethodGet, "/operations/{operationId}", a.getOperation),
			paged(http.MethodGet, "/operations/{operationId}/results", a.listOperationResults, "state..."),
			route(http.MethodPost, "/operations/{operationId}/cancel", a.cancelOperation),
			paged(http.MethodGet, "/accounts", a.listAccounts, "name", "guid", "origin", "selector", "scope", "active"),
			route(http.MethodPost, "/accounts", a.createAccount),
			route(http.MethodGet, "/accounts/{guid}", a.getAccount),
			route(http.MethodPatch, "/accounts/{guid}", a.updateAccount),
			route(http.MethodDelete, "/accounts/{guid}", a.deleteAccount),
			route(http.MethodPost, "/accounts/{guid}/password", a.setAccountPassword),
			queried(http.MethodPost, "/accounts/{guid}/offboard", a.offboard, "plan"),
			paged(http.MethodGet, "/offboardings", a.listOffboardings, "account"),
			route(http.MethodGet, "/offboardings/{offboardingId}", a.getOffboarding),
			paged(http.MethodGet, "/tokens", a.listTokens),
			route(http.MethodPost, "/tokens", a.createToken),
			route(http.MethodDelete, "/tokens/{tokenId}", a.revokeToken),
			paged(http.MethodGet, "/sessions", a.listSessions, "account"),
			queried(http.MethodDelete, "/sessions/{sessionId}", a.endSession, "account"),
			paged(http.MethodGet, "/webhooks", a.listWebhooks),
			route(http.MethodPost, "/webhooks", a.createWebhook),
			route(http.MethodGet, "/webhooks/{webhookId}", a.getWebhook),
			route(http.MethodPatch, "/webhooks/{webhookId}", a.updateWebhook),
			route(http.MethodDelete, "/webhooks/{webhookId}", a.deleteWebhook),
			route(http.MethodPost, "/webhooks/{webhookId}/test", a.testWebhook),
			route(http.MethodPost, "/webhooks/{webhookId}/replay", a.replayWebhook),
			route(http.MethodPost, "/webhooks/{webhookId}/rotate-secret", a.rotateWebhookSecret),
			route(http.MethodPost, "/keys/rotate", a.rotateKeys),
			route(http.MethodGet, "/status", a.getStatus),
			paged(http.MethodGet, "/audit", a.listAudit, append([]string{"order", "wait"}, auditFilters...)...),
			queried(http.MethodGet, "/audit/verify", a.verifyAudit, "anchor"),
			paged(http.MethodGet, "/audit/failed-sign-ins", a.listFailedSignIns, "since"),
		}),
	})
}

// fleetSchema answers with the JSON Schema of the file that declares a fleet. It needs no credential, because editors have
// none.
func fleetSchema(w http.ResponseWriter, _ *http.Request, _ *account.Principal) error {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(api.FleetSchema) // a client that is gone
	return nil
}

// route is an operation without query parameters.
func route(method, pattern string, h door.HandlerFunc) door.Route {
	return queried(method, pattern, func(w http.ResponseWriter, r *http.Request, p *account.Principal, _ query) error {
		return h(w, r, p)
	})
}

// forCredentials opens an operation to tokens that are limited to stored credentials.
func forCredentials(r door.Route) door.Route {
	r.ForCredentials = true
	return r
}

type queryHandler func(w http.ResponseWriter, r *http.Request, p *account.Principal, q query) error

// queried is an operation with these query parameters and no others. One that ends in three dots may be sent repeatedly.
func queried(method, pattern string, h queryHandler, parameters ...string) door.Route {
	handle := func(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
		q, err := parseQuery(r)
		if err != nil {
			return err
		}
		if err := q.check(parameters); err != nil {
			return err
		}
		return h(w, r, p, q)
	}
	return door.Route{Method: method, Pattern: Prefix + pattern, Handle: handle}
}

type pageHandler func(w http.ResponseWriter, r *http.Request, p *account.Principal, q query, page page) error

// paged is a list with limit, cursor and these query parameters.
func paged(method, pattern string, h pageHandler, parameters ...string) door.Route {
	handle := func(w http.ResponseWriter, r *http.Request, p *account.Principal, q query) error {
		page, err := q.page()
		if err != nil {
			return err
		}
		return h(w, r, p, q, page)
	}
	return queried(method, pattern, handle, append([]string{"limit", "cursor"}, parameters...)...)
}
