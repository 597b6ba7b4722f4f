// Package vaultapi is the read side of Vault's API, for the programs that fetch database credentials today: agents, SDKs,
// External Secrets, Spring Cloud Vault. A mount is a cluster, and what Vault calls a role is the role that a lease acts for,
// or the name of a stored credential. A handler decodes, makes one call of package dbuser or identity, and presents.
package vaultapi

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/cluster"
	"rolecall/internal/dbuser"
	"rolecall/internal/door"
	"rolecall/internal/fault"
	"rolecall/internal/identity"
	"rolecall/internal/web"
)

// Prefix is the path of this API at the root of the host.
const Prefix = "/v1"

// tokenHeader is the header that clients of Vault send their token in.
const tokenHeader = "X-Vault-Token"

// API serves the dialect.
type API struct {
	Users    *dbuser.Service
	Identity *identity.Service
	Door     *door.Door
	Version  string // of the program
}

// Handler returns the handler of the dialect. To a stranger every path and method looks the same, apart from those that
// need no token.
func (a *API) Handler() *door.Handler {
	routes := []door.Route{
		public(http.MethodGet, "/sys/health", a.health),
		public(http.MethodGet, "/sys/seal-status", a.sealStatus),
		limited(http.MethodGet, "/auth/token/lookup-self", a.lookUpSelf),
		private(http.MethodGet, "/{mount}/creds/{role...}", a.newCredentials),
		limited(http.MethodGet, "/{mount}/static-creds/{name...}", a.staticCredentials),
	}
	// Clients of Vault write with either method.
	for _, method := range []string{http.MethodPut, http.MethodPost} {
		routes = append(routes,
			public(method, "/auth/userpass/login/{user}", a.logInWithPassword),
			public(method, "/auth/jwt/login", a.logInWithToken),
			public(method, "/auth/kubernetes/login", a.logInWithToken),
			limited(method, "/auth/token/lookup-self", a.lookUpSelf),
			private(method, "/auth/token/renew-self", a.renewSelf),
			private(method, "/auth/token/revoke-self", a.revokeSelf),
		)
		for _, prefix := range []string{"/sys/leases", "/sys"} { // the second is that of Vault before 0.8
			routes = append(routes,
				private(method, prefix+"/renew", a.renewLease),
				private(method, prefix+"/renew/{leaseId...}", a.renewLease),
				private(method, prefix+"/revoke", a.revokeLease),
				private(method, prefix+"/revoke/{leaseId...}", a.revokeLease),
			)
		}
		routes = append(routes,
			private(method, "/sys/leases/lookup", a.lookUpLease),
			private(method, "/sys/leases/lookup/{leaseId...}", a.lookUpLease),
		)
	}
	return a.Door.Handler(door.Surface{
		Name: "vault", Schemes: []identity.Scheme{identity.Bearer}, TokenHeader: tokenHeader, Private: Prefix, NoMethods: true,
		Routes: routes, Fail: fail,
	})
}

func private(method, pattern string, h door.HandlerFunc) door.Route {
	return door.Route{Method: method, Pattern: Prefix + pattern, Handle: plain(h)}
}

func public(method, pattern string, h door.HandlerFunc) door.Route {
	r := private(method, pattern, h)
	r.Public = true
	return r
}

// limited is private, also for a token that is limited to stored credentials.
func limited(method, pattern string, h door.HandlerFunc) door.Route {
	r := private(method, pattern, h)
	r.ForCredentials = true
	return r
}

// plain refuses wrapping, namespaces and lists, which Rolecall does not have. A client that asks for a wrapped response must
// not get the bare secret.
func plain(h door.HandlerFunc) door.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request, p *account.Principal) error {
		if r.Header.Get("X-Vault-Wrap-TTL") != "" {
			return fault.New(fault.Malformed, "Answers are not wrapped here: leave out the header X-Vault-Wrap-TTL.")
		}
		if space := r.Header.Get("X-Vault-Namespace"); !slices.Contains([]string{"", "/", "root", "root/"}, space) {
			return fault.New(fault.Malformed, "There is no namespace %.100q here: leave out the header X-Vault-Namespace.", space)
		}
		if list, _ := strconv.ParseBool(r.URL.Query().Get("list")); list {
			return fault.New(fault.UnknownRoute, "There is no list at %.200s.", r.URL.Path)
		}
		return h(w, r, p)
	}
}

// mount returns the cluster with this id or display name, if the principal may view it.
func (a *API) mount(p *account.Principal, name string) (*cluster.Cluster, error) {
	if _, err := uuid.Parse(name); err == nil {
		if c, err := a.Users.Cluster(p, name); !fault.Is(err, fault.NotFound) {
			return c, err
		}
	}
	// Vault has the first two itself, and no mount with a slash in it.
	if name != "sys" && name != "auth" && !strings.Contains(name, "/") {
		for _, c := range a.Users.ViewableClusters(p) {
			if c.DisplayName == name {
				return c, nil
			}
		}
	}
	return nil, fault.New(fault.NotFound,
		"There is no cluster %.100q that you may view. Begin the path with the name or the id of a cluster.", name)
}

// maxBody is far above any request that makes sense: a token in a body.
const maxBody = 64 << 10

// body reads the body as a JSON object, whatever its media type: clients of Vault send none, or that of a form. Without a
// body the object is empty.
func body(w http.ResponseWriter, r *http.Request) (*web.Object, error) {
	if !web.HasBody(r) {
		return &web.Object{}, nil
	}
	untyped := *r
	untyped.Header = http.Header{}
	return web.ObjectBody(w, &untyped, maxBody)
}

// text reads an optional text of a body.
func text(o *web.Object, key string) (string, error) {
	v, given := o.Get(key)
	value, ok := v.(string)
	if given && !ok {
		return "", fault.New(fault.Malformed, "The field %s must be a string, not %s.", key, web.TypeName(v))
	}
	return value, nil
}

// response is the envelope of every answer that is no error. Most of it is null, with one type or another.
type response[Data, Auth any] struct {
	RequestID     string    `json:"request_id"`
	LeaseID       string    `json:"lease_id"`
	Renewable     bool      `json:"renewable"`
	LeaseDuration int64     `json:"lease_duration"` // in seconds
	Data          Data      `json:"data"`
	WrapInfo      null      `json:"wrap_info"`
	Warnings      *[]string `json:"warnings"`
	Auth          Auth      `json:"auth"`
}

// null is always nil.
type null = *struct{}

func answer[Data, Auth any](w http.ResponseWriter, r *http.Request, res response[Data, Auth]) error {
	res.RequestID = web.InfoOf(r.Context()).ID
	web.JSON(w, http.StatusOK, "application/json", res)
	return nil
}
