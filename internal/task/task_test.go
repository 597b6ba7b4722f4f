package task_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/control"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
	"rolecall/internal/task"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// open returns a control database of the test's own.
func open(t *testing.T) *control.DB {
	t.Helper()
	return servicetest.Control(t, pgtest.Shared(t), strings.ToLower(t.Name()))
}

func exec(t *testing.T, db *control.DB, sql string, args ...any) {
	t.Helper()
	if _, err := db.Pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

func cluster(t *testing.T, db *control.DB, name string) uuid.UUID {
	t.Helper()
	id := uuid.New()
	exec(t, db, `INSERT INTO clusters (id, display_name, url, tls, credential, system_identifier)
		VALUES ($1, $2, '', '{}', '', '')`, id, name)
	return id
}

func set(t *testing.T, db *control.DB, tasks ...task.Task) {
	t.Helper()
	if err := db.Tx(t.Context(), func(tx pgx.Tx) error {
		for _, one := range tasks {
			if err := task.Set(t.Context(), tx, one); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func count(t *testing.T, db *control.DB) (n int) {
	t.Helper()
	if err := db.Pool.QueryRow(t.Context(), `SELECT count(*) FROM tasks`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func worker(db *control.DB, do func(context.Context, uuid.UUID) (time.Duration, error)) *task.Worker {
	return &task.Worker{DB: db, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Every: 5 * time.Millisecond,
		Kinds: []task.Kind{{Name: "test", Do: do}}}
}

// run runs workers until done returns true.
func run(t *testing.T, done <-chan struct{}, workers ...*task.Worker) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for _, w := range workers {
		group.Go(func() { w.Run(ctx) })
	}
	<-done
	stop()
	group.Wait()
}

// ledger records what handlers do.
type ledger struct {
	mu      sync.Mutex
	now     map[uuid.UUID]int
	most    int // at a time
	total   int // at the moment
	done    map[uuid.UUID]int
	order   []uuid.UUID
	twice   []uuid.UUID // those that ran twice at a time
	expect  int
	reached chan struct{}
}

func newLedger(expect int) *ledger {
	return &ledger{now: map[uuid.UUID]int{}, done: map[uuid.UUID]int{}, expect: expect, reached: make(chan struct{})}
}

func (l *ledger) begin(key uuid.UUID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.order = append(l.order, key)
	if l.now[key]++; l.now[key] > 1 {
		l.twice = append(l.twice, key)
	}
	l.total++
	l.most = max(l.most, l.total)
}

func (l *ledger) end(key uuid.UUID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now[key]--
	l.total--
	l.done[key]++
	if l.expect--; l.expect == 0 {
		close(l.reached)
	}
}

// Two replicas do 2,000 tasks of one cluster, each once, and no more than 8 at a time each.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	db := open(t)
	c := cluster(t, db, "main")
	const n = 2_000
	exec(t, db, `INSERT INTO tasks (kind, key, cluster_id, due)
		SELECT 'test', gen_random_uuid(), $1, now() FROM generate_series(1, $2)`, c, n)
	all := newLedger(n)
	var workers []*task.Worker
	each := []*ledger{newLedger(0), newLedger(0)}
	for _, own := range each {
		workers = append(workers, worker(db, func(_ context.Context, key uuid.UUID) (time.Duration, error) {
			all.begin(key)
			own.begin(key)
			own.end(key)
			all.end(key)
			return -1, nil
		}))
	}
	run(t, all.reached, workers...)
	if len(all.done) != n || len(all.twice) > 0 || len(all.order) != n {
		t.Errorf("%d tasks were done in %d calls, %d of them twice at a time", len(all.done), len(all.order), len(all.twice))
	}
	for i, own := range each {
		if own.most > 8 || len(own.done) == 0 {
			t.Errorf("replica %d has done %d tasks, %d at a time", i, len(own.done), own.most)
		}
	}
	if left := count(t, db); left != 0 {
		t.Errorf("%d tasks are left", left)
	}
}

// A cluster with many tasks does not keep those of others waiting, nor those of no cluster.
func TestShares(t *testing.T) {
	t.Parallel()
	db := open(t)
	flooded, other := cluster(t, db, "flooded"), cluster(t, db, "other")
	exec(t, db, `INSERT INTO tasks (kind, key, cluster_id, due)
		SELECT 'test', gen_random_uuid(), $1, now() - interval '1 hour' FROM generate_series(1, 1000)`, flooded)
	inOther, inNone := uuid.New(), uuid.New()
	set(t, db, task.Task{Kind: "test", Key: inOther, Cluster: other}, task.Task{Kind: "test", Key: inNone})
	l := newLedger(2)
	hold := make(chan struct{})
	w := worker(db, func(_ context.Context, key uuid.UUID) (time.Duration, error) {
		l.begin(key)
		if key == inOther || key == inNone {
			l.end(key)
			return -1, nil
		}
		<-hold
		return -1, nil
	})
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { w.Run(ctx) })
	<-l.reached
	stop()
	close(hold)
	group.Wait()
	if len(l.order) != 10 {
		t.Errorf("%d tasks were begun, not 8 of the one cluster and 2 others", len(l.order))
	}
}

// With more clusters than fit, each gets something, and no more than 32 tasks run.
func TestBounds(t *testing.T) {
	t.Parallel()
	db := open(t)
	of := map[uuid.UUID]uuid.UUID{}
	for i := range 6 {
		c := cluster(t, db, fmt.Sprint(i))
		for range 20 {
			key := uuid.New()
			of[key] = c
			set(t, db, task.Task{Kind: "test", Key: key, Cluster: c})
		}
	}
	hold, begun := make(chan struct{}), make(chan uuid.UUID, 120)
	w := worker(db, func(_ context.Context, key uuid.UUID) (time.Duration, error) {
		begun <- key
		<-hold
		return -1, nil
	})
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { w.Run(ctx) })
	per := map[uuid.UUID]int{}
	for range 32 {
		per[of[<-begun]]++
	}
	stop()
	close(hold)
	group.Wait()
	if len(begun) > 0 {
		t.Errorf("%d more tasks were begun", len(begun))
	}
	for c, n := range per {
		if n < 5 || n > 6 {
			t.Errorf("%d tasks ran in the cluster %s", n, c)
		}
	}
	if len(per) != 6 {
		t.Errorf("tasks ran in %d clusters", len(per))
	}
}

// What is due in a cluster that does not answer waits.
func TestAway(t *testing.T) {
	t.Parallel()
	db := open(t)
	here, away := cluster(t, db, "here"), cluster(t, db, "away")
	a, b := uuid.New(), uuid.New()
	set(t, db, task.Task{Kind: "test", Key: a, Cluster: here}, task.Task{Kind: "test", Key: b, Cluster: away})
	var done []uuid.UUID
	w := worker(db, func(_ context.Context, key uuid.UUID) (time.Duration, error) {
		done = append(done, key)
		return -1, nil
	})
	w.Away = func() []uuid.UUID { return []uuid.UUID{away} }
	if n, err := w.RunDue(t.Context()); n != 1 || err != nil || !slices.Equal(done, []uuid.UUID{a}) {
		t.Errorf("%d tasks were done, %v: %v", n, done, err)
	}
	counts, err := task.Counts(t.Context(), db)
	if err != nil || len(counts) != 1 || counts[0] != (task.Count{Kind: "test", Cluster: away, Due: 1}) {
		t.Errorf("the counts are %+v: %v", counts, err)
	}
	exec(t, db, `UPDATE tasks SET due = due - interval '2 minutes'`)
	if counts, err = task.Counts(t.Context(), db); err != nil || len(counts) != 1 || counts[0].Late != 1 {
		t.Errorf("the counts are %+v: %v", counts, err)
	}
	// How tasks are claimed does not change how other statements are planned.
	for _, conn := range db.Pool.AcquireAllIdle(t.Context()) {
		var setting string
		if err := conn.QueryRow(t.Context(), `SHOW enable_seqscan`).Scan(&setting); err != nil || setting != "on" {
			t.Errorf("enable_seqscan is %s: %v", setting, err)
		}
		conn.Release()
	}
	w.Away = nil
	if n, err := w.RunDue(t.Context()); n != 1 || err != nil || count(t, db) != 0 {
		t.Errorf("%d tasks were done afterwards: %v", n, err)
	}
}

// What is set while a task is done counts, and is not done before that has ended.
func TestSetInTheMeantime(t *testing.T) {
	t.Parallel()
	db := open(t)
	key := uuid.New()
	set(t, db, task.Task{Kind: "test", Key: key})
	calls := 0
	other := worker(db, func(context.Context, uuid.UUID) (time.Duration, error) {
		t.Error("another replica does it at the same time")
		return -1, nil
	})
	w := worker(db, func(ctx context.Context, key uuid.UUID) (time.Duration, error) {
		calls++
		if calls == 1 {
			set(t, db, task.Task{Kind: "test", Key: key})
			if n, err := other.RunDue(ctx); n != 0 || err != nil {
				t.Errorf("another replica: %d, %v", n, err)
			}
		}
		return -1, nil
	})
	if n, err := w.RunDue(t.Context()); n != 2 || err != nil || calls != 2 || count(t, db) != 0 {
		t.Errorf("it was done %d times: %v; %d are left", calls, err, count(t, db))
	}
	// The same for one that says when it is due again.
	set(t, db, task.Task{Kind: "test", Key: key})
	w.Kinds[0].Do = func(context.Context, uuid.UUID) (time.Duration, error) {
		set(t, db, task.Task{Kind: "test", Key: key, In: time.Hour})
		return 0, nil
	}
	if n, err := w.RunDue(t.Context()); n != 1 || err != nil || count(t, db) != 1 {
		t.Errorf("it was done %d times: %v", n, err)
	}
	// One that was removed in the meantime does not come back.
	set(t, db, task.Task{Kind: "test", Key: key})
	w.Kinds[0].Do = func(ctx context.Context, _ uuid.UUID) (time.Duration, error) {
		return 0, db.Tx(ctx, func(tx pgx.Tx) error { return task.Remove(ctx, tx, "test", key) })
	}
	if n, err := w.RunDue(t.Context()); n != 1 || err != nil || count(t, db) != 0 {
		t.Errorf("it was done %d times: %v; %d are left", n, err, count(t, db))
	}
}

// After a kill others do the task, once the claim is over.
func TestKilled(t *testing.T) {
	t.Parallel()
	db := open(t)
	key := uuid.New()
	set(t, db, task.Task{Kind: "test", Key: key})
	l := newLedger(1)
	w := worker(db, func(_ context.Context, key uuid.UUID) (time.Duration, error) {
		l.begin(key)
		l.end(key)
		return -1, nil
	})
	killed := worker(db, nil)
	killed.Claim = 200 * time.Millisecond
	if n, err := killed.Take(t.Context()); n != 1 || err != nil {
		t.Fatalf("%d were taken: %v", n, err)
	}
	if n, err := w.RunDue(t.Context()); n != 0 || err != nil {
		t.Errorf("%d were done while another replica had it: %v", n, err)
	}
	run(t, l.reached, w)
	if count(t, db) != 0 {
		t.Error("it is left")
	}
}

// A task that fails or panics is tried again, later and later. It is logged once, and again when the error is another.
func TestFailures(t *testing.T) {
	t.Parallel()
	db := open(t)
	var log strings.Builder
	key := uuid.New()
	fails := errors.New("it is broken")
	w := worker(db, func(context.Context, uuid.UUID) (time.Duration, error) {
		return -1, fails
	})
	w.Log = slog.New(slog.NewTextHandler(&log, nil))
	set(t, db, task.Task{Kind: "test", Key: key})
	for i, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		if n, err := w.RunDue(t.Context()); n != 1 || !errors.Is(err, fails) {
			t.Fatalf("%d: %v", n, err)
		}
		var in time.Duration
		var failures int
		if err := db.Pool.QueryRow(t.Context(), `SELECT due - now(), failures FROM tasks`).Scan(&in, &failures); err != nil {
			t.Fatal(err)
		}
		if in > want*time.Second || in < (want/2)*time.Second || failures != i+1 {
			t.Errorf("after failure %d it is due in %s, not %d s", failures, in, want)
		}
		exec(t, db, `UPDATE tasks SET due = now()`)
	}
	if n := strings.Count(log.String(), "it is broken"); n != 1 {
		t.Errorf("it was logged %d times", n)
	}
	// What the handler has scheduled in case of a kill does not delay it.
	w.Kinds[0].Do = func(context.Context, uuid.UUID) (time.Duration, error) {
		set(t, db, task.Task{Kind: "test", Key: key, In: time.Hour})
		return 0, fails
	}
	if n, err := w.RunDue(t.Context()); n != 1 || !errors.Is(err, fails) {
		t.Errorf("%d: %v", n, err)
	}
	var soon bool
	if err := db.Pool.QueryRow(t.Context(), `SELECT due < now() + interval '1 minute' FROM tasks`).Scan(&soon); err != nil ||
		!soon {
		t.Errorf("it is not due soon after the handler has failed: %v", err)
	}
	exec(t, db, `UPDATE tasks SET due = now()`)
	w.Kinds[0].Do = func(context.Context, uuid.UUID) (time.Duration, error) { panic("a fault of ours") }
	if n, err := w.RunDue(t.Context()); n != 1 || err == nil {
		t.Errorf("%d: %v", n, err)
	}
	if !strings.Contains(log.String(), "a fault of ours") {
		t.Error("the panic is not in the log")
	}
	set(t, db, task.Task{Kind: "test", Key: key})
	var failures int
	if err := db.Pool.QueryRow(t.Context(), `SELECT failures FROM tasks`).Scan(&failures); err != nil || failures != 0 {
		t.Errorf("after Set it has %d failures: %v", failures, err)
	}
}

// A handler that runs when the worker stops has a moment, then its context ends. That is no failure.
func TestStop(t *testing.T) {
	t.Parallel()
	db := open(t)
	set(t, db, task.Task{Kind: "test", Key: uuid.New()})
	begun := make(chan struct{})
	w := worker(db, func(ctx context.Context, _ uuid.UUID) (time.Duration, error) {
		close(begun)
		<-ctx.Done()
		return 0, ctx.Err()
	})
	run(t, begun, w)
	l := newLedger(1)
	var failures int
	if err := db.Pool.QueryRow(t.Context(), `SELECT failures FROM tasks`).Scan(&failures); err != nil || failures != 0 {
		t.Errorf("it has %d failures: %v", failures, err)
	}
	next := worker(db, func(_ context.Context, key uuid.UUID) (time.Duration, error) {
		l.begin(key)
		l.end(key)
		return -1, nil
	})
	if n, err := next.RunDue(t.Context()); n != 1 || err != nil {
		t.Errorf("%d were done by the next replica: %v", n, err)
	}
}

// The tasks of a cluster end with its registration.
func TestRemovedCluster(t *testing.T) {
	t.Parallel()
	db := open(t)
	c := cluster(t, db, "main")
	set(t, db, task.Task{Kind: "test", Key: uuid.New(), Cluster: c})
	exec(t, db, `DELETE FROM clusters`)
	if n := count(t, db); n != 0 {
		t.Errorf("%d are left", n)
	}
}
