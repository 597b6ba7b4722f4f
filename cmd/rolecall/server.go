package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"rolecall/internal/account"
	"rolecall/internal/adminapi"
	"rolecall/internal/audit"
	"rolecall/internal/cfapi"
	"rolecall/internal/cluster"
	"rolecall/internal/control"
	"rolecall/internal/dbaas"
	"rolecall/internal/dbuser"
	"rolecall/internal/door"
	"rolecall/internal/identity"
	"rolecall/internal/secret"
	"rolecall/internal/uaa"
	"rolecall/internal/web"
)

// server is one Rolecall, as dev and serve run it.
type server struct {
	Listener        net.Listener
	MetricsListener net.Listener // nil: none
	PublicURL       string
	DatabaseURL     secret.Text // it has a password
	Keys            *control.Keyring
	TLS             *tls.Config // nil: plain HTTP
	TrustedProxies  []netip.Prefix
	RateLimit       float64
	AuditRetention  time.Duration // 0: for ever
	DrainDelay      time.Duration // how long requests are still taken when it stops
	OIDC            []identity.OIDCIssuer
	Log             *slog.Logger
	// Prepare, when set, is called once everything is open, before the first request is taken.
	Prepare func(ctx context.Context, db *control.DB, id *identity.Service, users *dbuser.Service) error
	// Ready, when set, is called when requests are taken.
	Ready func()
}

// Token issuer and the base of the identity endpoints.
func issuer(publicURL string) string { return publicURL + "/uaa/oauth/token" }

// drainTimeout is how long requests under way may take to end, once no more are taken; then they are cut off. With the
// default of DrainDelay and what comes after, it stays below the 30 s after which Kubernetes kills.
const drainTimeout = 20 * time.Second

// anonymousLimit is how many requests a second one address may send without a credential that was verified lately.
const anonymousLimit = 20

// How much may be under way at once, whoever asks and however slowly it goes: a request that waits for something costs
// some 30 KiB, an idle connection 20 KiB, and a large body up to 40 MiB until it is stored.
const (
	maxInFlight           = 4096
	maxInFlightPerAddress = 256
	maxInFlightPerAccount = 64
	maxLargeBodies        = 4
	maxConnections        = 10_000
)

// connections is how many there may be: of the files that the process may open, half are for everything else.
func connections() int {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil { // Go has raised it to what is allowed
		return maxConnections
	}
	return int(min(maxConnections, max(64, files.Cur/2)))
}

// run serves until ctx ends, then lets the requests under way end.
func (s *server) run(ctx context.Context) error {
	db, err := s.openControl(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil // stopped while it waited
		}
		return err
	}
	defer db.Close()
	id, err := identity.New(ctx, db, identity.Config{Issuer: issuer(s.PublicURL), OIDC: s.OIDC, PasswordCost: passwordCost, Log: s.Log})
	if err != nil {
		return err
	}
	clusters, err := cluster.Open(ctx, db, s.Log)
	if err != nil {
		return err
	}
	defer clusters.Close()
	if db.Unverified {
		s.Log.Warn("the URL of the control database does not have its server verified: whoever answers in its place may get the password and all that is stored; use sslmode=verify-full")
	}
	if db.Ahead > 0 {
		s.Log.Warn("a newer release has changed the schema of the control database; this one goes on beside it", "migrations", db.Ahead)
	}
	log := &audit.Log{DB: db}
	users := &dbuser.Service{Clusters: clusters, Audit: log, Accounts: &account.Store{DB: db}, Log: s.Log}
	if s.Prepare != nil {
		if err := s.Prepare(ctx, db, id, users); err != nil {
			return err
		}
	}
	metrics := newMetrics(db, users)
	site := &site{
		https: strings.HasPrefix(s.PublicURL, "https:"),
		ready: newReadiness(db, identity.FreshWhileAway),
		edge: &web.Edge{
			Handler:        s.surfaces(db, id, users),
			Log:            s.Log,
			TrustedProxies: s.TrustedProxies,
			InFlight: &web.InFlight{
				Total: maxInFlight, PerAddress: maxInFlightPerAddress, PerAccount: maxInFlightPerAccount, LargeBodies: maxLargeBodies,
			},
			Observe: metrics.observe,
		},
	}
	public := web.NewServer(site, s.Log, s.TLS)
	public.ConnState = (&web.Connections{Max: connections()}).Track
	operations := &http.Server{Handler: metrics.handler(site.ready), ReadHeaderTimeout: 10 * time.Second}

	// Background work ends after the last request: the settler and the registry serve those.
	background, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBackground()
	var group errgroup.Group
	group.Go(func() error { clusters.Run(background); return nil })
	group.Go(func() error { users.Settle(background); return nil })
	group.Go(func() error { users.Compare(background); return nil })
	group.Go(func() error { users.Audit.Run(background, s.AuditRetention, s.Log); return nil })
	collectLess()
	group.Go(func() error { giveBack(background); return nil })
	group.Go(func() error { id.Run(background); return nil })
	failed := make(chan error, 2)
	group.Go(func() error { failed <- serveHTTP(public, s.Listener); return nil })
	if s.MetricsListener != nil {
		group.Go(func() error { failed <- serveHTTP(operations, s.MetricsListener); return nil })
	}
	s.Log.Info("serving", "url", s.PublicURL, "address", s.Listener.Addr().String())
	if s.Ready != nil {
		s.Ready()
	}
	var failure error
	select {
	case <-ctx.Done():
	case failure = <-failed: // without a listener it is of no use to anybody
	}
	s.Log.Info("stopping")
	site.ready.stopping.Store(true)
	if failure == nil {
		select { // balancers look at /readyz now and then, and send requests until they have seen it
		case <-time.After(s.DrainDelay):
		case failure = <-failed:
		}
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	err = public.Shutdown(drain)
	if err != nil {
		err = fmt.Errorf("requests were cut off after %s: %w", drainTimeout, errors.Join(err, public.Close()))
	}
	_ = operations.Close()
	stopBackground()
	return errors.Join(failure, err, group.Wait())
}

func serveHTTP(srv *http.Server, l net.Listener) error {
	var err error
	if srv.TLSConfig != nil {
		err = srv.ServeTLS(l, "", "")
	} else {
		err = srv.Serve(l)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// openControl waits for a control database that does not answer yet: servers are often started together.
func (s *server) openControl(ctx context.Context) (*control.DB, error) {
	for {
		db, err := control.Open(ctx, string(s.DatabaseURL), s.Keys)
		if err == nil || !control.Away(err) {
			return db, err
		}
		s.Log.Warn("waiting for the control database", "error", err)
		select {
		case <-time.After(2 * time.Second):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// surfaces is everything that the public listener serves, apart from probes.
func (s *server) surfaces(db *control.DB, id *identity.Service, users *dbuser.Service) http.Handler {
	accounts := &account.Store{DB: db}
	front := &door.Door{
		Identity:   id,
		PerAccount: &web.Limiter{PerSecond: s.RateLimit},
		PerAddress: &web.Limiter{PerSecond: anonymousLimit},
	}
	documents := adminapi.Documents(front)
	return door.Mounts{
		{Prefix: dbaas.Prefix, Handler: (&dbaas.API{Users: users, Door: front, PublicURL: s.PublicURL}).Handler()},
		{Prefix: uaa.Prefix, Handler: (&uaa.API{Accounts: accounts, Identity: id, Door: front, PublicURL: s.PublicURL}).Handler()},
		{Prefix: adminapi.Prefix, Handler: (&adminapi.API{Accounts: accounts, Users: users, Identity: id, Door: front, PublicURL: s.PublicURL}).Handler()},
		{Prefix: "/docs", Handler: documents},
		{Prefix: "/openapi", Handler: documents},
		// Its root is the root of the host, so a path that no other surface has is unknown to this one.
		{Prefix: "", Handler: (&cfapi.API{Accounts: accounts, Door: front, PublicURL: s.PublicURL}).Handler()},
	}
}

// site is the public listener.
type site struct {
	https bool // clients come over TLS, which a proxy may end
	edge  *web.Edge
	ready *readiness
}

// ServeHTTP answers the probes, which come every few seconds and stay out of the log, and hands on the rest.
func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.https {
		// Not for subdomains, and not for a list that browsers ship: the names below and above this one are others' business.
		w.Header().Set("Strict-Transport-Security", "max-age=31536000")
	}
	if s.ready.stopping.Load() {
		w.Header().Set("Connection", "close") // whoever keeps connections opens the next one to another replica
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

func healthz(w http.ResponseWriter, _ *http.Request) {
	web.JSON(w, http.StatusOK, "application/json", map[string]string{"status": "ok"})
}

// readiness says whether requests should come here: not while stopping, and not once the control database has been away
// for so long that nothing works any more. Until then reads go on, and a balancer that took every replica out would end
// them, because the control database is away from all replicas at once.
type readiness struct {
	db       *control.DB
	patience time.Duration
	stopping atomic.Bool

	mu       sync.Mutex // whoever has it looks, for all who wait for it
	looked   time.Time
	failed   bool
	answered time.Time // when the control database last did
}

func newReadiness(db *control.DB, patience time.Duration) *readiness {
	return &readiness{db: db, patience: patience, answered: time.Now()}
}

// readyTimeout is below the second for which Kubernetes waits, and a look counts for readyFor: anybody may ask, and no limit
// holds them up.
const (
	readyTimeout = 500 * time.Millisecond
	readyFor     = time.Second
)

// away reports that the control database has not answered for longer than patience.
func (rd *readiness) away() bool {
	rd.mu.Lock()
	defer rd.mu.Unlock()
	if time.Since(rd.looked) >= readyFor {
		ctx, cancel := context.WithTimeout(context.Background(), readyTimeout) // whoever asked first may hang up
		defer cancel()
		now, err := time.Now(), rd.db.SignIn.Ping(ctx)
		rd.looked = time.Now()
		if err == nil {
			rd.answered = now
		}
		rd.failed = err != nil
	}
	return rd.failed && time.Since(rd.answered) >= rd.patience
}

func (rd *readiness) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	problem := ""
	if rd.stopping.Load() {
		problem = "stopping"
	} else if rd.away() {
		problem = "the control database does not answer"
	}
	if problem != "" {
		web.JSON(w, http.StatusServiceUnavailable, "application/problem+json", map[string]any{
			"status": http.StatusServiceUnavailable, "title": "Service Unavailable", "detail": problem,
		})
		return
	}
	web.JSON(w, http.StatusOK, "application/json", map[string]string{"status": "ready"})
}
