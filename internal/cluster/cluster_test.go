package cluster_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/control"
	"rolecall/internal/fault"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

// eventually waits for what another replica does by itself: soon after a notification, which is well before the 30 seconds
// after which it also looks without one.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	start := time.Now()
	for !is() {
		if time.Since(start) > 20*time.Second {
			t.Fatalf("%s: not within 20 s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func get(t testing.TB, r *cluster.Registry, id string) *cluster.Cluster {
	t.Helper()
	c, err := r.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Another replica hears of every change at once, and goes on with the pools of the clusters that did not change.
func TestReplicas(t *testing.T) {
	t.Parallel()
	s := servicetest.New(t, pgtest.Shared(t))
	other, err := cluster.Open(t.Context(), s.DB, slog.New(slog.NewTextHandler(s.Log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { other.Run(ctx); close(ended) }()
	t.Cleanup(func() { stop(); <-ended; other.Close() })
	kept := get(t, other, s.ClusterID)
	pool, err := kept.Pool(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	listening := func() bool {
		return pgtest.Value[bool](t, s.PG, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query = 'LISTEN `+
			`rolecall_clusters' AND state = 'idle' AND datname = $1)`, s.DB.Identity.Database)
	}
	eventually(t, "it listens", listening)
	id := s.Register(t, "more", s.PG, s.PG.User, s.PG.Password)
	known := func() bool { _, err := other.Get(id); return err == nil }
	eventually(t, "a new cluster", known)
	more := get(t, other, id)
	s.Access(t, id, []string{"team=a"}, nil)
	eventually(t, "a changed cluster", func() bool { return len(get(t, other, id).Manage) == 1 })
	if get(t, other, id) == more {
		t.Error("the cluster that changed is the same object: requests would see it change under them")
	}
	// A request that holds the previous one goes on with it.
	if old, err := more.Pool(t.Context()); err != nil || old.Ping(t.Context()) != nil {
		t.Errorf("the pool of the cluster before its change: %v", err)
	}
	if now, err := get(t, other, s.ClusterID).Pool(t.Context()); err != nil || get(t, other, s.ClusterID) != kept ||
		now != pool {
		t.Errorf("a cluster that did not change has another pool; %v", err)
	}

	// The connection that listens is lost; what happened meanwhile is read again.
	s.PG.Exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'LISTEN rolecall_clusters' AND `+
		`datname = $1`, s.DB.Identity.Database)
	if _, err := s.DB.Pool.Exec(t.Context(), `DELETE FROM clusters WHERE id = $1`, id); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a removed cluster", func() bool { return !known() })
	if names := names(other); !slices.Equal(names, []string{"main"}) {
		t.Errorf("the clusters are %q", names)
	}
}

func names(r *cluster.Registry) (names []string) {
	for _, c := range r.All() {
		names = append(names, c.DisplayName)
	}
	return names
}

func TestEnsure(t *testing.T) {
	t.Parallel()
	s := servicetest.New(t, pgtest.Shared(t))
	c := get(t, s.Clusters, s.ClusterID)
	put := func(change func(*cluster.Cluster)) error {
		again := &cluster.Cluster{ID: c.ID, DisplayName: c.DisplayName, Connection: c.Connection,
			SystemIdentifier: c.SystemIdentifier}
		change(again)
		return s.Clusters.Ensure(t.Context(), again, audit.Entry{AccountGUID: "g", AccountName: "g", Target: "put"})
	}
	if err := put(func(*cluster.Cluster) {}); err != nil || get(t, s.Clusters, s.ClusterID) != c ||
		len(s.AuditRows(t, "put")) != 0 {
		t.Errorf("the same again: %v, recorded %+v", err, s.AuditRows(t, "put"))
	}
	if err := put(func(c *cluster.Cluster) { c.Connection.URL = "postgres://role:pw@h/db" }); !fault.Is(err, fault.Invalid) {
		t.Errorf("a URL with a password: %v", err)
	}
	const secret = "another-secret"
	if err := put(func(c *cluster.Cluster) { c.Connection.Password = secret }); err != nil {
		t.Fatal(err)
	}
	if now := get(t, s.Clusters, s.ClusterID); now.Connection.Password != secret || now.DisplayName != c.DisplayName {
		t.Errorf("got %+v", now)
	}
	if rows := s.AuditRows(t, "put"); len(rows) != 1 || rows[0].Action != audit.UpdateCluster || rows[0].Outcome != "done" {
		t.Errorf("recorded %+v", rows)
	}
	var row, sealed string
	err := s.DB.Pool.QueryRow(t.Context(), `SELECT to_jsonb(c)::text, encode(credential, 'escape') FROM clusters c`).Scan(&row,
		&sealed)
	if err != nil || strings.Contains(row+sealed, secret) {
		t.Errorf("the row holds the password: %s; %v", row, err)
	}

	// A credential that was copied to another row does not open there, nor does one under a foreign master key.
	other := uuid.New()
	_, err = s.DB.Pool.Exec(t.Context(), `INSERT INTO clusters (id, display_name, url, tls, credential, system_identifier) `+
		`SELECT $1, 'copy', url, tls, credential, system_identifier FROM clusters`, other)
	if err != nil {
		t.Fatal(err)
	}
	const altered = "/credential was altered, or moved"
	if _, err := cluster.Open(t.Context(), s.DB, slog.New(slog.NewTextHandler(s.Log, nil))); err == nil ||
		!strings.Contains(err.Error(), "clusters/"+other.String()+altered) {
		t.Errorf("a copied credential: %v", err)
	}
	keys, err := control.ParseKeyring(control.NewMasterKey())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cluster.Open(t.Context(), &control.DB{Pool: s.DB.Pool, Keys: keys},
		slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "which is missing") {
		t.Errorf("a foreign master key: %v", err)
	}
}

func TestGet(t *testing.T) {
	t.Parallel()
	s := servicetest.New(t, pgtest.Shared(t))
	for _, id := range []string{"", "x", uuid.NewString(), "{" + s.ClusterID + "}", "urn:uuid:" + s.ClusterID,
		strings.ReplaceAll(s.ClusterID, "-", ""), s.ClusterID + " "} {
		if _, err := s.Clusters.Get(id); !fault.Is(err, fault.NotFound) {
			t.Errorf("%q: %v", id, err)
		}
	}
	here := get(t, s.Clusters, s.ClusterID)
	if database, role := s.Clusters.Control(here.SystemIdentifier); database != s.DB.Identity.Database || role != s.PG.User {
		t.Errorf("the control database is %s of %s", database, role)
	}
	elsewhere := &cluster.Cluster{SystemIdentifier: "1"}
	if database, role := s.Clusters.Control(elsewhere.SystemIdentifier); database+role != "" {
		t.Errorf("in another cluster the control database is %s of %s", database, role)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	s := servicetest.New(t, pgtest.Shared(t))
	own := pgtest.New(t, nil)
	c := get(t, s.Clusters, s.Register(t, "own", own, own.User, own.Password))
	if h := c.LastHealth(); h.Reachable || !h.Checked.IsZero() {
		t.Errorf("before the first look: %+v", h)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	h := c.Health(gone)
	if !h.Reachable || h.Error != "" || !strings.HasPrefix(h.Version, own.Version) {
		t.Errorf("for a client that hung up: %+v", h)
	}
	sessions := func() int {
		return pgtest.Value[int](t, own, `SELECT count(*)::int FROM pg_stat_activity WHERE application_name = 'rolecall'`)
	}
	eventually(t, "the look leaves no connection behind", func() bool { return sessions() == 0 })
	own.Stop(t)
	if again := c.Health(t.Context()); again != h || c.LastHealth() != h {
		t.Errorf("a look a moment later: %+v, want %+v", again, h)
	}
	if _, err := replica(t, c); err == nil {
		t.Fatal("a cluster that was stopped answers")
	}
	if h := c.Health(t.Context()); h.Reachable {
		t.Errorf("right after a request has failed: %+v", h)
	}
	own.Start(t)
	if _, err := replica(t, c); err != nil {
		t.Fatal(err)
	}
	if h := c.Health(t.Context()); !h.Reachable {
		t.Errorf("right after a request was answered: %+v", h)
	}
	stopped := get(t, s.Clusters, s.Register(t, "stopped", pgtest.Shared(t), "nobody", "x"))
	if h := stopped.Health(t.Context()); h.Reachable || h.Error == "" || strings.Contains(h.Error, "password=") {
		t.Errorf("a role that cannot log in: %+v", h)
	}
	// Where there is a connection already, the look takes that.
	used := get(t, s.Clusters, s.Register(t, "used", pgtest.Shared(t), s.PG.User, s.PG.Password))
	pool, err := used.Pool(t.Context())
	if err != nil || pool.Ping(t.Context()) != nil {
		t.Fatal("the cluster does not answer")
	}
	before := pool.Stat().AcquireCount()
	if h := used.Health(t.Context()); !h.Reachable || !strings.HasPrefix(h.Version, s.PG.Version) ||
		pool.Stat().AcquireCount() == before {
		t.Errorf("over a pool that was acquired from %d times, now %d: %+v", before, pool.Stat().AcquireCount(), h)
	}
}

// Without a request, a cluster that dies or comes back is found out about.
func TestWatch(t *testing.T) {
	t.Parallel()
	s := servicetest.New(t, pgtest.Shared(t))
	own := pgtest.New(t, nil)
	c := get(t, s.Clusters, s.Register(t, "own", own, own.User, own.Password))
	s.Clusters.CheckEvery = 50 * time.Millisecond
	ctx, stop := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() { s.Clusters.Watch(ctx) })
	defer watching.Wait()
	defer stop()
	eventually(t, "it answers", func() bool { return c.LastHealth().Reachable })
	own.Stop(t)
	eventually(t, "it is dead", func() bool { return !c.LastHealth().Reachable })
	own.Start(t)
	eventually(t, "it is back", func() bool { return c.LastHealth().Reachable })
}

// Of many who ask at once whether a cluster that hangs is up, one looks.
func TestHealthAsksOnce(t *testing.T) {
	t.Parallel()
	s := servicetest.New(t, pgtest.Shared(t))
	pg := pgtest.Shared(t)
	p := pgtest.NewProxy(t, pg)
	p.Hang()
	c := put(t, s, fmt.Sprintf("127.0.0.1:%d", p.Port), "?connect_timeout=1", pg.User, pg.Password, "")
	var asking sync.WaitGroup
	for range 100 {
		asking.Go(func() {
			if h := c.Health(t.Context()); h.Reachable || h.Checked.IsZero() {
				t.Errorf("got %+v", h)
			}
		})
	}
	asking.Wait()
	if n := p.Taken(); n != 1 {
		t.Errorf("the cluster was asked %d times", n)
	}
}
