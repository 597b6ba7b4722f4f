package dbuser_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/dbuser"
	"rolecall/internal/fault"
	"rolecall/internal/lease"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
	"rolecall/internal/task"
)

// manager makes an account that may manage the cluster, and returns its principal.
func manager(t testing.TB, s *servicetest.Service, name string) *account.Principal {
	t.Helper()
	guid := s.Account(t, name, account.DefaultScopes, map[string]string{"team": "leases"})
	return &account.Principal{GUID: guid, Username: name, Origin: account.LocalOrigin, Scopes: account.DefaultScopes,
		Labels: map[string]string{"team": "leases"}}
}

// leaseService is a service whose cluster is managed by the team of leases, with a role that leases are for.
func leaseService(t testing.TB) (*servicetest.Service, *account.Principal) {
	return leaseServiceOn(t, nil)
}

// leaseServiceOn is leaseService on a cluster with these settings.
func leaseServiceOn(t testing.TB, settings map[string]string) (*servicetest.Service, *account.Principal) {
	t.Helper()
	s := servicetest.New(t, pgtest.New(t, settings))
	s.Access(t, s.ClusterID, []string{"team=leases"}, nil)
	p := manager(t, s, "eve")
	if _, _, err := s.Users.CreateUser(t.Context(), p, s.ClusterID, "app", password); err != nil {
		t.Fatal(err)
	}
	return s, p
}

func worker(s *servicetest.Service) *task.Worker {
	return &task.Worker{DB: s.DB, Log: slog.New(slog.NewTextHandler(s.Log, nil)), Kinds: s.Users.Tasks()}
}

// runDue does what is due.
func runDue(t testing.TB, s *servicetest.Service) {
	t.Helper()
	if _, err := worker(s).RunDue(t.Context()); err != nil {
		t.Error(err)
	}
}

// sweep has the cluster swept now.
func sweep(t testing.TB, s *servicetest.Service) {
	t.Helper()
	if err := s.Users.Sweep(t.Context(), s.ClusterID); err != nil {
		t.Error(err)
	}
}

func take(t testing.TB, s *servicetest.Service, p *account.Principal, n dbuser.NewLease) (*lease.Lease, string) {
	t.Helper()
	_, l, password, err := s.Users.CreateLease(t.Context(), p, s.ClusterID, n)
	if err != nil {
		t.Fatal(err)
	}
	return l, string(password)
}

// stored is the lease as it is stored.
func stored(t testing.TB, s *servicetest.Service, l *lease.Lease) *lease.Lease {
	t.Helper()
	l, err := (&lease.Store{DB: s.DB}).Get(t.Context(), l.ID)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func wantState(t testing.TB, s *servicetest.Service, l *lease.Lease, state lease.State, reason lease.Reason) {
	t.Helper()
	if now := stored(t, s, l); now.State != state || now.Reason != reason {
		t.Errorf("the lease %s is %s because of %q, want %s because of %q", l.Username, now.State, now.Reason, state, reason)
	}
	if is := hasRole(t, s, l.Username); is != (state != lease.Ended) {
		t.Errorf("the lease %s is %s, its role is there: %v", l.Username, state, is)
	}
}

func hasRole(t testing.TB, s *servicetest.Service, name string) bool {
	t.Helper()
	conn := s.PG.Connect(t, s.PG.User, s.PG.Password, "postgres")
	defer conn.Close(context.Background())
	var is bool
	if err := conn.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)`,
		name).Scan(&is); err != nil {
		t.Fatal(err)
	}
	return is
}

func TestLease(t *testing.T) {
	t.Parallel()
	s, p := leaseService(t)
	l, secret := take(t, s, p, dbuser.NewLease{For: "app", Note: "for a look"})
	if !strings.HasPrefix(l.Username, "app_") || len(l.Username) != len("app_")+8 {
		t.Errorf("the name is %q", l.Username)
	}
	if err := s.PG.Login(l.Username, secret); err != nil {
		t.Error(err)
	}
	if got := l.ExpiresAt.Sub(l.CreatedAt); got != lease.DefaultLimits.DefaultTTL {
		t.Errorf("it lasts %s", got)
	}
	if got := l.MaxExpiresAt.Sub(l.CreatedAt); got != lease.DefaultLimits.MaxTTL {
		t.Errorf("it lasts at most %s", got)
	}
	if !slices.Contains(l.Databases, "postgres") {
		t.Errorf("it connects to %q", l.Databases)
	}
	_, shown, err := s.Users.Lease(t.Context(), p, l.ID.String())
	if err != nil || shown.Note != "for a look" || shown.Account != p.GUID || !shown.ExpiresAt.Equal(l.ExpiresAt) {
		t.Errorf("%+v, %v", shown, err)
	}
	list, more, err := s.Users.Leases(t.Context(), p, "", lease.Filter{Limit: 10})
	if err != nil || more || len(list) != 1 || list[0].ID != l.ID {
		t.Errorf("%v, %v, %v", list, more, err)
	}
	_, renewed, cut, err := s.Users.RenewLease(t.Context(), p, l.ID.String(), 2*time.Hour)
	if err != nil || cut || !renewed.ExpiresAt.After(l.ExpiresAt.Add(59*time.Minute)) {
		t.Errorf("%+v, %v, %v", renewed, cut, err)
	}
	runDue(t, s)
	wantState(t, s, l, lease.Active, "")
	if _, ended, err := s.Users.EndLease(t.Context(), p, l.ID.String()); err != nil || ended.State != lease.Ended {
		t.Errorf("%+v, %v", ended, err)
	}
	wantState(t, s, l, lease.Ended, lease.Deleted)
	if _, _, err := s.Users.EndLease(t.Context(), p, l.ID.String()); err != nil {
		t.Error(err)
	}
	if _, _, _, err := s.Users.RenewLease(t.Context(), p, l.ID.String(), 0); !fault.Is(err, fault.Invalid) {
		t.Errorf("renewed after its end: %v", err)
	}
	var tasks int
	if err := s.DB.Pool.QueryRow(t.Context(), `SELECT count(*) FROM tasks WHERE key = $1`, l.ID).Scan(&tasks); err != nil ||
		tasks != 0 {
		t.Errorf("%d tasks are left; %v", tasks, err)
	}
	expect(t, recorded(t, s, l.Username), "attempt lease.create "+p.GUID, "done lease.create "+p.GUID,
		"attempt lease.renew "+p.GUID, "done lease.renew "+p.GUID, "attempt lease.end "+p.GUID, "done lease.end "+p.GUID)
}

// A lease that expires ends by itself.
func TestLeaseExpires(t *testing.T) {
	t.Parallel()
	s, p := leaseService(t)
	l, _ := take(t, s, p, dbuser.NewLease{For: "app", TTL: time.Second})
	w := worker(s)
	w.Every = 20 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { w.Run(ctx); close(done) }()
	for stored(t, s, l).State != lease.Ended {
		time.Sleep(20 * time.Millisecond)
	}
	cancel()
	<-done
	wantState(t, s, l, lease.Ended, lease.Expired)
	rows := recorded(t, s, l.Username)
	expect(t, rows[len(rows)-2:], "attempt lease.end rolecall", "done lease.end rolecall")
}

func execControl(t testing.TB, s *servicetest.Service, sql string, args ...any) {
	t.Helper()
	if _, err := s.DB.Pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// A sweep ends the leases of accounts that may no longer have them, and finds leases again that have no row.
func TestLeaseSweep(t *testing.T) {
	t.Parallel()
	s, p := leaseService(t)
	other := manager(t, s, "mallory")
	kept, _ := take(t, s, p, dbuser.NewLease{For: "app"})
	deactivated, _ := take(t, s, other, dbuser.NewLease{For: "app"})
	execControl(t, s, `UPDATE accounts SET active = false WHERE guid = $1`, other.GUID)
	sweep(t, s)
	runDue(t, s)
	wantState(t, s, kept, lease.Active, "")
	wantState(t, s, deactivated, lease.Ended, lease.AccountEnded)
	if _, _, _, err := s.Users.CreateLease(t.Context(), other, s.ClusterID, dbuser.NewLease{For: "app"}); !fault.Is(err,
		fault.Forbidden) {
		t.Errorf("a deactivated account takes a lease: %v", err)
	}

	// Of a restored control database: the lease is found by its role.
	execControl(t, s, `DELETE FROM leases WHERE id = $1`, kept.ID)
	execControl(t, s, `DELETE FROM tasks WHERE key = $1`, kept.ID)
	sweep(t, s)
	found := stored(t, s, kept)
	if found.Account != p.GUID || found.AccountName != "eve" || found.For != "app" || !found.ExpiresAt.Equal(kept.ExpiresAt) ||
		!found.CreatedAt.Equal(kept.CreatedAt) || !found.MaxExpiresAt.Equal(kept.MaxExpiresAt) {
		t.Errorf("found %+v, was %+v", found, kept)
	}
	s.Access(t, s.ClusterID, nil, []string{"team=leases"})
	sweep(t, s)
	runDue(t, s)
	wantState(t, s, kept, lease.Ended, lease.AccessEnded)
}

// The clock of the cluster decides, whatever the row and the task say.
func TestLeaseClock(t *testing.T) {
	t.Parallel()
	s, p := leaseService(t)
	l, secret := take(t, s, p, dbuser.NewLease{For: "app"})
	// The clock of the control database is an hour and more ahead.
	execControl(t, s, `UPDATE tasks SET due = now() WHERE key = $1`, l.ID)
	execControl(t, s, `UPDATE leases SET expires_at = now() - interval '1 minute' WHERE id = $1`, l.ID)
	runDue(t, s)
	wantState(t, s, l, lease.Active, "")
	if err := s.PG.Login(l.Username, secret); err != nil {
		t.Error(err)
	}
	var left time.Duration
	if err := s.DB.Pool.QueryRow(t.Context(), `SELECT due - now() FROM tasks WHERE key = $1`, l.ID).Scan(&left); err != nil ||
		left < 50*time.Minute || left > time.Hour {
		t.Errorf("it is looked at again in %s; %v", left, err)
	}
	rows := recorded(t, s, l.Username)
	expect(t, rows[len(rows)-2:], "attempt lease.end rolecall",
		"not_done lease.end rolecall By the clock of the cluster it has not expired yet.")
	sweep(t, s)
	if now := stored(t, s, l); !now.ExpiresAt.Equal(l.ExpiresAt) {
		t.Errorf("the row says %s, the role %s", now.ExpiresAt, l.ExpiresAt)
	}
}

// A role that comes back after its lease has ended is dropped again, and one that SQL has renamed ends under its new name.
func TestLeaseRoleComesBack(t *testing.T) {
	t.Parallel()
	s, p := leaseService(t)
	l, secret := take(t, s, p, dbuser.NewLease{For: "app"})
	execControl(t, s, `UPDATE leases SET state = 'ended', end_reason = 'expired', ended_at = now() - interval '1 h'
		WHERE id = $1`, l.ID)
	execControl(t, s, `DELETE FROM tasks WHERE key = $1`, l.ID)
	sweep(t, s)
	runDue(t, s)
	wantState(t, s, l, lease.Ended, lease.Expired)
	if s.PG.Login(l.Username, secret) == nil {
		t.Error("it logs in after its end")
	}

	l, _ = take(t, s, p, dbuser.NewLease{For: "app"})
	s.PG.Exec(t, `ALTER ROLE `+l.Username+` RENAME TO renamed`)
	sweep(t, s)
	if _, _, err := s.Users.EndLease(t.Context(), p, l.ID.String()); err != nil {
		t.Error(err)
	}
	if hasRole(t, s, "renamed") {
		t.Error("the renamed role is there after the end of its lease")
	}
	wantState(t, s, l, lease.Ended, lease.Deleted)
}

// Each cluster has one sweep, also one that was registered later, and it sets right what it finds.
func TestSweepsAreScheduled(t *testing.T) {
	t.Parallel()
	s, p := leaseService(t)
	l, _ := take(t, s, p, dbuser.NewLease{For: "app"})
	execControl(t, s, `UPDATE accounts SET active = false WHERE guid = $1`, p.GUID)
	w := worker(s)
	w.Every = 10 * time.Millisecond
	ctx, stop := context.WithCancel(t.Context())
	var working sync.WaitGroup
	for range 2 {
		working.Go(func() { s.Users.KeepSweeping(ctx) })
	}
	working.Go(func() { w.Run(ctx) })
	for stored(t, s, l).State != lease.Ended {
		time.Sleep(10 * time.Millisecond)
	}
	stop()
	working.Wait()
	wantState(t, s, l, lease.Ended, lease.AccountEnded)
	var sweeps int
	err := s.DB.Pool.QueryRow(t.Context(), `SELECT count(*) FROM tasks WHERE kind = 'lease.sweep'`).Scan(&sweeps)
	if err != nil || sweeps != 1 {
		t.Errorf("%d sweeps; %v", sweeps, err)
	}
}
