package dbuser_test

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
	"rolecall/internal/secret"
	"rolecall/internal/servicetest"
)

// tally counts how calls end, and lets a test wait for it.
type tally struct {
	mu                 sync.Mutex
	done, busy, others int
}

func (c *tally) add(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch f := fault.Of(err); {
	case err == nil:
		c.done++
	case f.Kind == fault.Unavailable && f.RetryAfter > 0:
		c.busy++
	default:
		c.others++
	}
}

func (c *tally) waitForBusy(t testing.TB, n int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		c.mu.Lock()
		busy := c.busy
		c.mu.Unlock()
		if busy >= n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d calls were refused, want %d", busy, n)
		}
	}
}

func waitFor(t testing.TB, pg *pgtest.Cluster, sql string, want int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); pgtest.Value[int](t, pg, sql) != want; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s is not %d", sql, want)
		}
	}
}

// A cluster that hangs holds up a bounded number of reads, and no other cluster.
func TestHungCluster(t *testing.T) {
	pg := pgtest.Shared(t)
	s := servicetest.New(t, pg)
	create(t, s, "hung_other")
	p := pgtest.NewProxy(t, pg)
	p.Hang()
	c := &cluster.Cluster{
		ID:          uuid.New(),
		DisplayName: "hung",
		Connection: cluster.Connection{
			URL:      "postgres://" + pg.User + "@127.0.0.1:" + strconv.Itoa(p.Port) + "/postgres?connect_timeout=2",
			TLS:      cluster.TLS{Mode: "disable"},
			Password: secret.Text(pg.Password),
		},
	}
	if err := s.Clusters.Ensure(t.Context(), c, audit.Entry{AccountGUID: "test", AccountName: "test"}); err != nil {
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var reads tally
	var load sync.WaitGroup
	const sent, places = 1000, 128
	for range sent {
		load.Go(func() {
			_, _, err := s.Users.User(ctx, admin, c.ID.String(), "anybody")
			reads.add(err)
		})
	}
	reads.waitForBusy(t, sent-places)
	if extra := runtime.NumGoroutine() - before; extra > 2*places {
		t.Errorf("%d goroutines more than before", extra)
	}
	for range 100 {
		if _, _, err := s.Users.User(t.Context(), admin, s.ClusterID, "hung_other"); err != nil {
			t.Fatalf("a read of another cluster: %v", err)
		}
	}
	cancel()
	load.Wait()
	if reads.busy != sent {
		t.Errorf("%d of %d reads ended as they should, %d were done", reads.busy, sent, reads.done)
	}
}

// However many changes of a cluster come, a few work at a time, some wait, the rest are refused, reads get through, and
// what the audit log says is what was done.
func TestChangesLeaveRoomForReads(t *testing.T) {
	t.Parallel()
	pg := pgtest.New(t, nil)
	s := servicetest.New(t, pg)
	create(t, s, "reader")
	blocker, err := pgx.Connect(t.Context(), pg.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer blocker.Close(context.WithoutCancel(t.Context()))
	exec(t, blocker, `BEGIN; LOCK TABLE pg_authid IN SHARE ROW EXCLUSIVE MODE`)
	const sent, working, places = 100, 4, 64
	var changes tally
	var load sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for i := range sent {
		load.Go(func() {
			_, _, err := s.Users.CreateUser(ctx, admin, s.ClusterID, fmt.Sprint("writer", i), password)
			changes.add(err)
		})
	}
	changes.waitForBusy(t, sent-places)
	const stuck = `SELECT count(*)::int FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'CREATE ROLE%'`
	waitFor(t, pg, stuck, working)
	for range 50 {
		if _, _, err := s.Users.User(t.Context(), admin, s.ClusterID, "reader"); err != nil {
			t.Fatalf("a read: %v", err)
		}
		if _, _, err := s.Users.Users(t.Context(), admin, s.ClusterID, pgrole.Page{Limit: 10}, false); err != nil {
			t.Fatalf("a list: %v", err)
		}
	}
	cancel() // who waits for the turn gives up; who works goes on
	changes.waitForBusy(t, sent-working)
	if n := pgtest.Value[int](t, pg, stuck); n != working {
		t.Errorf("%d changes work, want %d", n, working)
	}
	exec(t, blocker, `ROLLBACK`)
	load.Wait()
	if changes.done != working || changes.busy != sent-working {
		t.Errorf("%d changes done, %d refused, %d ended otherwise; want %d and %d", changes.done, changes.busy, changes.others,
			working, sent-working)
	}
	roles := pgtest.Value[int](t, pg, `SELECT count(*)::int FROM pg_roles WHERE rolname LIKE 'writer%'`)
	var attempts, done, notDone int
	err = s.DB.Pool.QueryRow(t.Context(), `
		SELECT count(*) FILTER (WHERE phase = 'attempt'), count(*) FILTER (WHERE outcome = 'done'), count(*) FILTER (WHERE
		  outcome = 'not_done')
		FROM audit WHERE target LIKE 'writer%'`).Scan(&attempts, &done, &notDone)
	if err != nil {
		t.Fatal(err)
	}
	if roles != working || done != working || attempts != done+notDone || attempts > places {
		t.Errorf("%d roles; recorded are %d attempts, %d done and %d not done", roles, attempts, done, notDone)
	}
}
