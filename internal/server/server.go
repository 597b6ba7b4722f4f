// Package server runs one Rolecall: the control database, the clusters, every surface of the HTTP API, probes and metrics.
package server

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
	"time"

	"golang.org/x/sync/errgroup"

	"rolecall/internal/cluster"
	"rolecall/internal/control"
	"rolecall/internal/dbuser"
	"rolecall/internal/event"
	"rolecall/internal/fleet"
	"rolecall/internal/idempotency"
	"rolecall/internal/identity"
	"rolecall/internal/jsonlog"
	"rolecall/internal/lease"
	"rolecall/internal/notify"
	"rolecall/internal/observe"
	"rolecall/internal/secret"
	"rolecall/internal/task"
	"rolecall/internal/trace"
	"rolecall/internal/web"
)

// Config is what a server needs. The caller opens the listeners, so that it learns first that an address is taken.
type Config struct {
	Listener        net.Listener
	MetricsListener net.Listener // nil: none
	PprofListener   net.Listener // nil: none
	PublicURL       string       // without a slash at the end
	DatabaseURL     secret.Text  // it has a password
	Keys            *control.Keyring
	TLS             *tls.Config // nil: plain HTTP
	TrustedProxies  []netip.Prefix
	RateLimit       float64       // requests per second of one account; 0: no limit
	AuditRetention  time.Duration // 0: rows are kept forever
	DrainDelay      time.Duration // how long requests are accepted after the server was told to stop
	Version         string        // of the program, for metrics
	OIDC            []identity.OIDCIssuer
	Export          event.Export          // of the audit log
	PrivateWebhooks bool                  // webhooks may be at private addresses, and without TLS
	PasswordCost    identity.PasswordCost // zero: that of production
	Log             *slog.Logger          // nil: nothing is logged
	Lines           *jsonlog.Writer       // that Log writes JSON to; nil: Log writes elsewhere
	Manager         *notify.Manager       // that has started the process; nil: none
	Trace           trace.Config
}

// CloseListeners closes the listeners, whether the server has used them or not.
func (c *Config) CloseListeners() {
	for _, l := range []net.Listener{c.Listener, c.MetricsListener, c.PprofListener} {
		if l != nil {
			_ = l.Close()
		}
	}
}

// Server is an open server, which does not accept requests yet.
type Server struct {
	Config
	DB       *control.DB
	Identity *identity.Service
	Users    *dbuser.Service
	Fleet    *fleet.Service
	// Idempotency is for requests of our own API that may be repeated.
	Idempotency *idempotency.Store
	Events      *event.Service

	tracer *trace.Tracer
}

// Issuer is the issuer of the tokens of the server with this public URL.
func Issuer(publicURL string) string { return publicURL + "/uaa/oauth/token" }

// Run serves until ctx ends, then lets the requests in progress end.
func Run(ctx context.Context, config Config) error {
	s, err := Open(ctx, config)
	if err != nil {
		if ctx.Err() != nil {
			return nil // stopped while it waited for the control database
		}
		return err
	}
	defer s.Close()
	return s.Serve(ctx)
}

// Open waits for the control database and opens everything that requests need. The caller closes the server.
func Open(ctx context.Context, config Config) (*Server, error) {
	db, id, err := waitForControl(ctx, config)
	if err != nil {
		return nil, err
	}
	tracer, err := trace.Open(ctx, config.Trace, config.Version, config.Log)
	if err != nil {
		db.Close()
		return nil, err
	}
	clusters, err := cluster.Open(ctx, db, config.Log)
	if err != nil {
		db.Close()
		return nil, err
	}
	if db.Unverified {
		config.Log.Warn("the URL of the control database does not have its server verified: an impostor could get the password" +
			" and all that is stored; use sslmode=verify-full")
	}
	if db.Ahead > 0 {
		config.Log.Warn("a newer release has changed the schema of the control database; this release can still use it",
			"migrations", db.Ahead)
	}
	users := &dbuser.Service{
		Clusters:   clusters,
		Audit:      id.Accounts().Audit,
		Accounts:   id.Accounts(),
		LeaseStore: &lease.Store{DB: db}, ObserveStore: &observe.Store{DB: db},
		Log: config.Log,
	}
	return &Server{
		Config:      config,
		DB:          db,
		Identity:    id,
		Users:       users,
		Fleet:       &fleet.Service{DB: db, Users: users, Log: config.Log},
		Idempotency: &idempotency.Store{DB: db, Accounts: users.Accounts, Log: config.Log},
		Events: &event.Service{DB: db, Audit: users.Audit, Log: config.Log, Version: config.Version,
			AllowPrivate: config.PrivateWebhooks, Export: config.Export},
		tracer: tracer,
	}, nil
}

// waitForControl waits for a control database that does not answer yet: servers are often started together.
func waitForControl(ctx context.Context, config Config) (*control.DB, *identity.Service, error) {
	for {
		db, id, err := OpenIdentity(ctx, config)
		if err == nil || !control.Away(err) {
			return db, id, err
		}
		config.Log.Warn("waiting for the control database", "error", err)
		config.notified(config.Manager.Waiting("waiting for the control database", controlWait))
		select {
		case <-time.After(controlRetry):
		case <-ctx.Done():
			return nil, nil, err
		}
	}
}

// Close exports the last spans, closes the connections to the clusters and to the control database, and writes the last
// lines of the log.
func (s *Server) Close() {
	s.tracer.Close()
	s.Users.Clusters.Close()
	s.DB.Close()
	s.Lines.Flush()
}

// Serve accepts requests until ctx ends, then lets those in progress end.
func (s *Server) Serve(ctx context.Context) error {
	metrics := newMetrics(&state{db: s.DB, users: s.Users, fleet: s.Fleet, identity: s.Identity, events: s.Events,
		tls: s.TLS, age: stateAge}, s.Version)
	ready := newReadiness(s.DB, identity.FreshWhileAway)
	public := web.NewServer(s.site(ready, metrics), s.Log, s.TLS)
	public.ConnState = connections().Track
	operations := &http.Server{Handler: ownName(s.MetricsListener, metrics.handler(ready)), ReadHeaderTimeout: 10 * time.Second}
	profiles := &http.Server{Handler: ownName(s.PprofListener, pprofHandler()), ReadHeaderTimeout: 10 * time.Second}

	// Background work ends after the last request, because requests depend on it.
	background, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBackground()
	var group errgroup.Group
	s.work(background, &group)
	failed := make(chan error, 3)
	group.Go(func() error { failed <- serveHTTP(public, s.Listener); return nil })
	if s.MetricsListener != nil {
		group.Go(func() error { failed <- serveHTTP(operations, s.MetricsListener); return nil })
	}
	if s.PprofListener != nil {
		group.Go(func() error { failed <- serveHTTP(profiles, s.PprofListener); return nil })
	}
	group.Go(func() error { s.notified(s.Manager.Watch(background)); return nil })
	s.notified(s.Manager.Ready())
	s.Log.Info("serving", "url", s.PublicURL, "address", s.Listener.Addr().String())

	var failure error
	select {
	case <-ctx.Done():
	case failure = <-failed: // a server without a listener is of no use
	}
	s.notified(s.Manager.Stopping(s.DrainDelay + drainTimeout + stopReserve))
	s.Log.Info("stopping")
	ready.stopping.Store(true)
	if failure == nil {
		select { // balancers read /readyz now and then, and send requests until they have noticed
		case <-time.After(s.DrainDelay):
		case failure = <-failed:
		}
	}
	err := drain(ctx, public)
	_ = operations.Close()
	_ = profiles.Close()
	stopBackground()
	return errors.Join(failure, err, group.Wait())
}

// notified logs that the service manager could not be notified: it may then end the process, but that is no reason to stop.
func (c *Config) notified(err error) {
	if err != nil {
		c.Log.Warn(err.Error())
	}
}

// work starts the background work, which ends with ctx.
func (s *Server) work(ctx context.Context, group *errgroup.Group) {
	tasks := &task.Worker{DB: s.DB, Log: s.Log, Kinds: append(s.Users.Tasks(), s.Fleet.Tasks()...),
		Away: s.Users.Clusters.Away}
	for _, run := range []func(context.Context){
		s.Users.Clusters.Run,
		s.Users.Clusters.Watch,
		s.Users.Settle,
		s.Users.Compare,
		s.Users.KeepSweeping,
		tasks.Run,
		s.Identity.Run,
		s.Idempotency.Run,
		s.Events.Run,
		func(ctx context.Context) { s.Users.Audit.Run(ctx, s.AuditRetention, s.Log) },
		tendMemory,
	} {
		group.Go(func() error { run(ctx); return nil })
	}
}

// drain lets the requests in progress end, and cuts off those that take too long.
func drain(ctx context.Context, public *http.Server) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	err := public.Shutdown(ctx)
	if err != nil {
		return fmt.Errorf("requests were cut off after %s: %w", drainTimeout, errors.Join(err, public.Close()))
	}
	return nil
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

// site is the public listener: probes, and the surfaces behind the checks that hold for all of them.
func (s *Server) site(ready *readiness, metrics *metrics) *site {
	return &site{
		https: strings.HasPrefix(s.PublicURL, "https:"),
		ready: ready,
		edge: &web.Edge{
			Handler:        s.surfaces(),
			Log:            s.Log,
			Lines:          s.Lines,
			TrustedProxies: s.TrustedProxies,
			InFlight:       inFlight(),
			Tracer:         s.tracer,
			Observe:        metrics.observe,
		},
	}
}
