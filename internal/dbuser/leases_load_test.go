package dbuser_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/dbuser"
	"rolecall/internal/lease"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

// Many leases that expire together all end, and hold up no requests. With ROLECALL_TEST_FULL they are 10,000, and the test
// prints how long requests take with and without them.
func TestManyLeasesEnd(t *testing.T) {
	t.Parallel()
	count := 60
	if pgtest.Full() {
		count = 10_000
	}
	s, p := leaseService(t)
	execControl(t, s, `UPDATE clusters SET lease_max_per_account = 100000, updated_at = clock_timestamp()`)
	if err := s.Clusters.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	inParallel(4, count, func(int) { take(t, s, p, dbuser.NewLease{For: "app", TTL: time.Second}) })
	took := time.Since(began)
	kept, secret := take(t, s, p, dbuser.NewLease{For: "app"})

	var without []time.Duration
	if pgtest.Full() {
		without = requests(t, s, p, 300, "without")
	}
	w := worker(s)
	ctx, stop := context.WithCancel(t.Context())
	began = time.Now()
	var working sync.WaitGroup
	working.Go(func() { w.Run(ctx) })
	with := requests(t, s, p, 10, "with")
	for live(t, s) > 1 {
		with = append(with, requests(t, s, p, 10, fmt.Sprintf("with %d", len(with)))...)
	}
	ended := time.Since(began)
	stop()
	working.Wait()

	names := pgtest.Value[string](t, s.PG, `SELECT string_agg(rolname, ' ') FROM pg_roles
		WHERE shobj_description(oid, 'pg_authid') LIKE '%"lease":%'`)
	if names != kept.Username {
		t.Errorf("left are the roles %s, want %s", names, kept.Username)
	}
	if err := s.PG.Login(kept.Username, secret); err != nil {
		t.Error(err)
	}
	var expired int
	if err := s.DB.Pool.QueryRow(t.Context(), `SELECT count(*) FROM leases WHERE state = 'ended' AND end_reason = 'expired'`).
		Scan(&expired); err != nil || expired != count {
		t.Errorf("%d of %d leases have expired; %v", expired, count, err)
	}
	if pgtest.Full() {
		fmt.Printf("%d leases: made in %s, ended in %s; %d requests without: p50 %s, p99 %s; %d with: p50 %s, p99 %s\n", count,
			took.Round(time.Second), ended.Round(time.Second), len(without), quantile(without, 50), quantile(without, 99),
			len(with), quantile(with, 50), quantile(with, 99))
	}
}

// inParallel calls f n times, a few at a time.
func inParallel(at, n int, f func(i int)) {
	slots := make(chan struct{}, at)
	var group sync.WaitGroup
	for i := range n {
		slots <- struct{}{}
		group.Go(func() { f(i); <-slots })
	}
	group.Wait()
}

func live(t testing.TB, s *servicetest.Service) (n int) {
	t.Helper()
	if err := s.DB.Pool.QueryRow(t.Context(), `SELECT count(*) FROM leases WHERE state <> $1`,
		lease.Ended).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// requests makes, reads and deletes so many users, two at a time, and returns how long each request took.
func requests(t testing.TB, s *servicetest.Service, p *account.Principal, users int, prefix string) (took []time.Duration) {
	t.Helper()
	var mu sync.Mutex
	timed := func(f func() error) {
		began := time.Now()
		err := f()
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		took = append(took, time.Since(began))
	}
	ctx := context.Background()
	inParallel(2, users, func(i int) {
		name := fmt.Sprintf("%s %d", prefix, i)
		timed(func() error {
			_, _, err := s.Users.CreateUser(ctx, p, s.ClusterID, name, password)
			return err
		})
		timed(func() error {
			_, _, err := s.Users.User(ctx, p, s.ClusterID, name)
			return err
		})
		timed(func() error { return s.Users.DeleteUser(ctx, p, s.ClusterID, name, dbuser.Deletion{}, nil) })
	})
	return took
}

func quantile(of []time.Duration, percent int) time.Duration {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[(len(sorted)-1)*percent/100].Round(100 * time.Microsecond)
}
