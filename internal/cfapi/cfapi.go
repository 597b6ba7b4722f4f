// Package cfapi is the Cloud Foundry v3 dialect, the API by which existing clients manage the users of a platform: their
// labels and annotations, and what the clients need around that. A handler decodes, makes one call of package account,
// and presents; what a principal may see and change is decided there.
package cfapi

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/fault"
	"rolecall/internal/identity"
	"rolecall/internal/web"
)

// Prefix is where clients of this API look for it. The document at the root of the host, which tells them, is served as
// well.
const Prefix = "/v3"

// API serves the dialect.
type API struct {
	Accounts *account.Store
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
		public("/", a.root),
		public(Prefix, a.index),
		public(Prefix+"/info", a.info),
		read("/users", a.listUsers),
		a.change(http.MethodPost, "/users", audit.CreateAccount, a.createUser),
		read("/users/{guid}", a.getUser),
		a.change(http.MethodPatch, "/users/{guid}", audit.UpdateAccount, a.patchUser),
		a.change(http.MethodDelete, "/users/{guid}", audit.DeleteAccount, a.deleteUser),
		read("/jobs/{guid}", a.getJob),
		read("/organizations", a.noResources),
		read("/organizations/{guid}/users", missing("Organization not found")),
		read("/spaces", a.noResources),
		read("/spaces/{guid}/users", missing("Space not found")),
	)
	return a
}

// Routes returns the routes, for the test that compares them with the document.
func (a *API) Routes() []web.Route { return a.router.Routes() }

// handler answers a request of an authenticated principal.
type handler func(w http.ResponseWriter, r *http.Request, p *account.Principal) error

func public(pattern string, h web.HandlerFunc) web.Route {
	return web.Route{Method: http.MethodGet, Pattern: pattern, Handle: h, Public: true}
}

// read is a route for principals with a scope to read, change one for those with a scope to write. That comes before
// anything else about the request, and so says nothing about what exists.
func read(pattern string, h handler) web.Route {
	return web.Route{Method: http.MethodGet, Pattern: Prefix + pattern, Handle: func(w http.ResponseWriter, r *http.Request) error {
		p := account.PrincipalOf(r.Context())
		if !p.Has(account.ScopeAdmin, account.ScopeAdminReadOnly, account.ScopeAuditor, account.ScopeRead) {
			return fault.New(fault.Forbidden, "The token has no scope to read with.")
		}
		return h(w, r, p)
	}}
}

func (a *API) change(method, pattern, action string, h handler) web.Route {
	return web.Route{Method: method, Pattern: Prefix + pattern, Handle: func(w http.ResponseWriter, r *http.Request) error {
		p := account.PrincipalOf(r.Context())
		if !p.Has(account.ScopeAdmin, account.ScopeWrite) {
			return a.Accounts.RefusePlatform(r.Context(), p, action, r.PathValue("guid"))
		}
		return h(w, r, p)
	}}
}

// ServeHTTP serves the dialect's paths, and says of any other in this dialect that it is unknown.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Vcap-Request-Id", requestID(web.InfoOf(r.Context())))
	web.Handle(w, r, a.serve, fail)
}

// serve asks for a token before it says whether a path below the prefix exists. Elsewhere there is nothing to keep, and a
// browser that looks for an icon, or an old client that looks for /v2/info, is better off with a plain no.
func (a *API) serve(w http.ResponseWriter, r *http.Request) error {
	info := web.InfoOf(r.Context())
	info.Dialect = "cf"
	route, unknown := a.router.Find(w, r)
	w.Header().Del("Allow") // belongs to a 405, which this dialect does not have
	if unknown == nil && route.Public {
		return route.Handle(w, r)
	}
	if path := web.Trim(r.URL); path != Prefix && !strings.HasPrefix(path, Prefix+"/") {
		return unknown
	}
	p, err := a.signIn(w, r, info)
	if err != nil {
		return err
	}
	if unknown != nil {
		return unknown
	}
	return route.Handle(w, r.WithContext(account.WithPrincipal(r.Context(), p)))
}

func requestID(info *web.Info) string {
	if info.Incoming == "" {
		return info.ID
	}
	return info.Incoming + "::" + info.ID
}

// signIn takes bearer tokens only: a client that gets here with a password has missed the token endpoint.
func (a *API) signIn(w http.ResponseWriter, r *http.Request, info *web.Info) (*account.Principal, error) {
	authorization := r.Header.Get("Authorization")
	scheme, token, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "bearer") || strings.TrimSpace(token) == "" {
		authorization = ""
	}
	if err := a.Identity.Admit(r.Context(), authorization, info.Address, a.PerAddress); err != nil {
		return nil, fault.Of(err).Because(errAnonymous)
	}
	if authorization == "" {
		return nil, fault.New(fault.Unauthenticated, "No bearer token.").Because(errNoToken)
	}
	p, err := a.Identity.SignIn(r.Context(), authorization, info.Address)
	if err != nil {
		return nil, err
	}
	p.RequestID, p.Address = info.ID, info.Address
	if err := info.SignedIn(p.GUID); err != nil {
		return nil, err
	}
	err = a.PerPrincipal.Take(p.GUID)
	if limit, remaining, full, ok := a.PerPrincipal.Standing(p.GUID); ok {
		w.Header().Set("X-RateLimit-Limit", strconv.Itoa(limit))
		w.Header().Set("X-RateLimit-Remaining", strconv.Itoa(remaining))
		w.Header().Set("X-RateLimit-Reset", strconv.FormatInt(full.Unix()+1, 10))
	}
	return p, err
}

// href is the absolute URL of a resource. Its guid may hold any character.
func (a *API) href(collection, guid string) string {
	return a.PublicURL + Prefix + collection + "/" + url.PathEscape(guid)
}

const jsonType = "application/json; charset=utf-8"
