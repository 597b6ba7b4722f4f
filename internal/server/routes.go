package server

import (
	"net"
	"net/http"
	"net/url"

	"rolecall/internal/adminapi"
	"rolecall/internal/cfapi"
	"rolecall/internal/console"
	"rolecall/internal/dbaas"
	"rolecall/internal/door"
	"rolecall/internal/uaa"
	"rolecall/internal/vaultapi"
	"rolecall/internal/web"
)

// surfaces is everything that the public listener serves, apart from probes.
func (s *Server) surfaces() http.Handler {
	front := &door.Door{
		Identity:   s.Identity,
		PerAccount: &web.Limiter{PerSecond: s.RateLimit},
		PerAddress: &web.Limiter{PerSecond: unverifiedPerSecond},

		StrangerBody: strangerBody,
		Origin:       origin(s.PublicURL),
	}
	users, accounts, id, base := s.Users, s.Users.Accounts, s.Identity, s.PublicURL
	documents := adminapi.Documents(front)
	pages := (&console.Console{Accounts: accounts, Users: users, Fleet: s.Fleet, Identity: id, Events: s.Events, Door: front,
		PublicURL: base, Idempotency: s.Idempotency, Version: s.Version, Metrics: addressOf(s.MetricsListener),
		AuditRetention: s.AuditRetention}).Handler()
	return door.Mounts{
		{Prefix: console.Prefix, Handler: pages},
		{Prefix: console.AuthorizePath, Handler: pages},
		{Prefix: console.CallbackPath, Handler: pages},
		{Prefix: console.PasscodePath, Handler: pages},
		{Prefix: dbaas.Prefix, Handler: (&dbaas.API{Users: users, Door: front, PublicURL: base}).Handler()},
		{Prefix: uaa.Prefix, Handler: (&uaa.API{Accounts: accounts, Identity: id, Door: front, PublicURL: base}).Handler()},
		{Prefix: adminapi.Prefix, Handler: (&adminapi.API{
			Accounts: accounts, Users: users, Fleet: s.Fleet, Identity: id, Door: front, PublicURL: base,
			Idempotency: s.Idempotency, Events: s.Events, Version: s.Version,
		}).Handler()},
		{Prefix: vaultapi.Prefix, Handler: (&vaultapi.API{Users: users, Identity: id, Door: front, Version: s.Version}).Handler()},
		{Prefix: "/docs", Handler: documents},
		{Prefix: "/openapi", Handler: documents},
		// The root of the Cloud Foundry API is the root of the host, so it answers every path that no other surface has.
		{Prefix: "", Handler: (&cfapi.API{Accounts: accounts, Door: front, PublicURL: base}).Handler()},
	}
}

// addressOf is the address of a listener; "": there is none.
func addressOf(l net.Listener) string {
	if l == nil {
		return ""
	}
	return l.Addr().String()
}

// origin is the scheme and host of a URL, as a browser names the origin of a page.
func origin(publicURL string) string {
	u, err := url.Parse(publicURL)
	if err != nil {
		return "" // the settings were checked
	}
	return u.Scheme + "://" + u.Host
}

// site is the public listener.
type site struct {
	https bool // clients come over TLS, which a proxy may end
	edge  *web.Edge
	ready *readiness
}

// ServeHTTP answers the probes, which come every few seconds and stay out of the log, and passes on everything else.
func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.https {
		// Neither for subdomains nor for the preload list of browsers: hosts beside this one may need plain HTTP.
		w.Header().Set("Strict-Transport-Security", "max-age=31536000")
	}
	if s.ready.stopping.Load() {
		w.Header().Set("Connection", "close") // so that the client's next connection goes to another replica
	}
	switch r.URL.Path {
	case "/healthz":
		web.AsData(w.Header())
		healthz(w, r)
	case "/readyz":
		web.AsData(w.Header())
		s.ready.ServeHTTP(w, r)
	default:
		s.edge.ServeHTTP(w, r)
	}
}
