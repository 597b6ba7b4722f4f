// Package uaa is the UAA dialect: tokens (OAuth 2.0), identities (SCIM 1.1) and OAuth clients, as the clients of Cloud
// Foundry expect them. A handler decodes, makes one call of package identity or account, and presents; who may do what
// is decided there.
package uaa

import (
	"net/http"
	"net/url"
	"strings"

	"rolecall/internal/account"
	"rolecall/internal/fault"
	"rolecall/internal/identity"
	"rolecall/internal/web"
)

// Prefix is the path of this API: both the "login" and the "uaa" link of the discovery document point here.
const Prefix = "/uaa"

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
		public(http.MethodGet, "/login", a.info),
		public(http.MethodGet, "/info", a.info),
		public(http.MethodPost, "/oauth/token", a.token),
		public(http.MethodGet, "/token_keys", a.tokenKeys),
		public(http.MethodGet, "/token_key", a.tokenKey),
		public(http.MethodGet, "/.well-known/openid-configuration", a.discovery),
		// Below the issuer, where OpenID Connect Discovery 1.0, 4 looks.
		public(http.MethodGet, "/oauth/token/.well-known/openid-configuration", a.discovery),

		private(http.MethodGet, "/Users", a.listUsers),
		private(http.MethodPost, "/Users", a.createUser),
		private(http.MethodGet, "/Users/{id}", a.getUser),
		private(http.MethodPut, "/Users/{id}", a.putUser),
		private(http.MethodPatch, "/Users/{id}", a.patchUser),
		private(http.MethodDelete, "/Users/{id}", a.deleteUser),
		private(http.MethodPut, "/Users/{id}/password", a.putPassword),

		private(http.MethodGet, "/Groups", a.listGroups),
		private(http.MethodGet, "/Groups/{id}", a.getGroup),
		private(http.MethodGet, "/Groups/{id}/members", a.listMembers),
		private(http.MethodPost, "/Groups/{id}/members", a.addMember),
		private(http.MethodDelete, "/Groups/{id}/members/{memberId}", a.removeMember),

		private(http.MethodGet, clients, a.listClients),
		private(http.MethodPost, clients, a.createClient),
		private(http.MethodGet, clients+"/{id}", a.getClient),
		private(http.MethodPut, clients+"/{id}", a.putClient),
		private(http.MethodDelete, clients+"/{id}", a.deleteClient),
		private(http.MethodPut, clients+"/{id}/secret", a.putSecret),
	)
	return a
}

// clients is the path of OAuth clients, which have error words of their own.
const clients = "/oauth/clients"

// Routes returns the routes, for the test that compares them with the document.
func (a *API) Routes() []web.Route { return a.router.Routes() }

func public(method, pattern string, h web.HandlerFunc) web.Route {
	return web.Route{Method: method, Pattern: Prefix + pattern, Handle: h, Public: true}
}

// handler answers a request of an authenticated principal.
type handler func(w http.ResponseWriter, r *http.Request, p *account.Principal) error

func private(method, pattern string, h handler) web.Route {
	return web.Route{Method: method, Pattern: Prefix + pattern, Handle: func(w http.ResponseWriter, r *http.Request) error {
		return h(w, r, account.PrincipalOf(r.Context()))
	}}
}

// ServeHTTP answers one request. Routes are no secret here, so an unknown one is a 404 for everybody.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answers := &scimAnswers
	switch path := web.Trim(r.URL); {
	case strings.HasPrefix(path, Prefix+clients):
		answers = &clientAnswers
	case path == Prefix+"/oauth/token":
		answers = &tokenAnswers
	}
	web.Handle(w, r, a.serve, func(w http.ResponseWriter, f *fault.Error) { fail(w, f, answers) })
}

func (a *API) serve(w http.ResponseWriter, r *http.Request) error {
	info := web.InfoOf(r.Context())
	info.Dialect = "uaa"
	route, err := a.router.Find(w, r)
	if err != nil || route.Public {
		if limited := a.PerAddress.Take(identity.Network(info.Address)); limited != nil {
			return limited
		}
		if err != nil {
			return err
		}
		return route.Handle(w, r)
	}
	p, err := a.signIn(r, info)
	if err != nil {
		return err
	}
	if err := a.PerPrincipal.Take(p.GUID); err != nil {
		return err
	}
	return route.Handle(w, r.WithContext(account.WithPrincipal(r.Context(), p)))
}

// signIn takes bearer tokens only, as the UAA does: a browser that keeps a password for this host sends it along with
// requests that other sites make it send.
func (a *API) signIn(r *http.Request, info *web.Info) (*account.Principal, error) {
	authorization := r.Header.Get("Authorization")
	if scheme, _, _ := strings.Cut(authorization, " "); !strings.EqualFold(scheme, "bearer") {
		authorization = ""
	}
	if err := a.Identity.Admit(r.Context(), authorization, info.Address, a.PerAddress); err != nil {
		return nil, err
	}
	if authorization == "" {
		return nil, fault.New(fault.Unauthenticated, "Send a token in the Authorization header: Bearer and what /oauth/token answers.")
	}
	p, err := a.Identity.SignIn(r.Context(), authorization, info.Address)
	if fault.Is(err, fault.Unauthenticated) {
		return nil, fault.Of(err).Because(word("invalid_token")) // RFC 6750, 3.1
	}
	if err != nil {
		return nil, err
	}
	p.RequestID, p.Address = info.ID, info.Address
	return p, info.SignedIn(p.GUID)
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
