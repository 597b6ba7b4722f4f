package pgrole_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

// unavailable fails t unless err tells to come again.
func unavailable(t testing.TB, err error) {
	t.Helper()
	refused(t, err, fault.Unavailable)
	if after := fault.Of(err).RetryAfter; after <= 0 {
		t.Errorf("no time to come again with %v", err)
	}
}

func TestRoleLockedByAnOpenTransaction(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := impatient(t, superuser(t, c))
	mustCreate(t, s, "row_locked", "row_locked2", "row_locked3", "row_locked4")
	conn := c.Connect(t, c.User, c.Password, "postgres")
	exec(t, conn, `BEGIN`, `ALTER ROLE row_locked CONNECTION LIMIT 5; ALTER ROLE row_locked2 CONNECTION LIMIT 5; ALTER ROLE `+
		`row_locked3 CONNECTION LIMIT 5`,
		`ALTER ROLE row_locked4 CONNECTION LIMIT 5`)
	states := func() (all []string) {
		for _, name := range []string{"row_locked", "row_locked2", "row_locked3", "row_locked4"} {
			all = append(all, state(t, c, name))
		}
		return all
	}
	before := states()
	start := time.Now()
	for i, err := range together(4, func(i int) (err error) {
		switch i {
		case 0:
			err = remove(t, s, "row_locked2", "", nil, actor())
		case 1:
			_, err = s.SetPassword(t.Context(), "row_locked", password2, nil, actor())
		case 2:
			_, err = s.SetLimits(t.Context(), "row_locked3", pgrole.Limits{ConnectionLimit: new(7)}, nil, actor())
		case 3:
			_, _, err = s.DeleteOrDisable(t.Context(), "row_locked4", "", nil, actor())
		}
		return err
	}) {
		unavailable(t, err)
		if took := time.Since(start); took >= 8*time.Second { // the lock_timeout of 2 s, twice
			t.Errorf("%d took %v", i, took)
		}
	}
	exec(t, conn, `ROLLBACK`)
	if !slices.Equal(states(), before) {
		t.Error("something was changed")
	}
	if _, err := s.SetPassword(t.Context(), "row_locked", password2, nil, actor()); err != nil {
		t.Error(err)
	}
	mustDelete(t, s, "row_locked2")
}

// calls are all that a Server can be asked for, of the user kept and the group kept_group.
func calls(t testing.TB, s *pgrole.Server) map[string]func() error {
	return map[string]func() error{
		"Users":       func() error { _, _, err := onPage(s.Users(t.Context(), pgrole.Page{Limit: 1}, false)); return err },
		"User":        func() error { _, err := s.User(t.Context(), "kept"); return err },
		"Create":      func() error { _, err := s.Create(t.Context(), "new", password, actor()); return err },
		"SetPassword": func() error { _, err := s.SetPassword(t.Context(), "kept", password2, nil, actor()); return err },
		"Details":     func() error { _, err := s.Details(t.Context(), "kept"); return err },
		"SetLimits": func() error {
			_, _, err := setLimitsAndEnd(t.Context(), s, "kept", pgrole.Limits{ConnectionLimit: new(5)}, nil, actor())
			return err
		},
		"SetRoles": func() error {
			_, _, err := setRoles(t.Context(), s, "kept", []string{"kept_group"}, []string{"kept_group"}, nil, actor())
			return err
		},
		"GrantRole": func() error {
			_, err := granting(s, "kept_group").GrantRole(t.Context(), "kept", "kept_group", nil, actor())
			return err
		},
		"RevokeRole": func() error {
			_, err := granting(s, "kept_group").RevokeRole(t.Context(), "kept", "kept_group", nil, actor())
			return err
		},
		"Plan":              func() error { _, err := s.Plan(t.Context(), "new", "kept"); return err },
		"Userlist":          func() error { _, err := s.Userlist(t.Context()); return err },
		"Delete or disable": func() error { _, _, err := s.DeleteOrDisable(t.Context(), "new", "", nil, actor()); return err },
		"Delete":            func() error { return remove(t, s, "new", "", nil, actor()) },
		"Inspect":           func() error { _, err := s.Inspect(t.Context(), "kept"); return err },
		"Databases":         func() error { _, _, err := s.Databases(t.Context(), pgrole.Page{Limit: 1}); return err },
		"Create database": func() error {
			_, err := s.CreateDatabase(t.Context(), pgrole.NewDatabase{Name: "new", Owner: "kept"}, actor())
			return err
		},
		"Drop database": func() error { return s.DropDatabase(t.Context(), "new", actor()) },
	}
}

func TestOutage(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	s := superuser(t, c)
	mustCreate(t, s, "kept")
	groups(t, s, "kept_group")
	warm := func() {
		t.Helper()
		for _, err := range together(8, func(int) error {
			_, err := s.Pool.Exec(t.Context(), `SELECT pg_sleep(0.05)`)
			return err
		}) {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	calls := calls(t, s)
	c.Stop(t)
	for name, call := range calls {
		start := time.Now()
		unavailable(t, call())
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%s took %v with the cluster down", name, took)
		}
	}
	c.Start(t)
	// Each call meets a pool full of connections that died a moment ago.
	for _, name := range []string{"Create", "Users", "SetPassword", "User", "Inspect", "Create database", "Databases",
		"Drop database", "Details", "SetLimits", "SetRoles",
		"RevokeRole", "GrantRole", "Plan", "Userlist", "Delete", "Create", "Delete or disable"} {
		warm()
		c.Exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = `+
			`'client backend'`)
		if err := calls[name](); err != nil {
			t.Errorf("%s after an outage: %v", name, err)
		}
	}
	if exists(t, c, "new") {
		t.Error("not deleted")
	}
	mayLogin(t, c, "kept", password2)
}

func TestTooManyConnections(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, map[string]string{"max_connections": "10", "superuser_reserved_connections": "1"})
	s, _ := administrator(t, c)
	mustCreate(t, s, "kept")
	s.Pool.Reset()
	c.Exec(t, `CREATE ROLE hog LOGIN PASSWORD 'hog'; SELECT pg_sleep(0.1)`)
	var hogs []*pgx.Conn
	for {
		conn, err := pgx.Connect(t.Context(), strings.Replace(c.URL("postgres"), "postgres:"+c.Password, "hog:hog", 1))
		if err != nil {
			break
		}
		defer conn.Close(context.Background())
		hogs = append(hogs, conn)
	}
	before := state(t, c, "kept")
	_, err := s.SetPassword(t.Context(), "kept", password2, nil, actor())
	unavailable(t, err)
	_, err = s.User(t.Context(), "kept")
	unavailable(t, err)
	unavailable(t, remove(t, s, "kept", "", nil, actor()))
	if state(t, c, "kept") != before {
		t.Error("something was changed")
	}
	for _, hog := range hogs {
		hog.Close(t.Context())
	}
	waitFor(t, c, `SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = 'hog'`)
	if _, err := s.SetPassword(t.Context(), "kept", password2, nil, actor()); err != nil {
		t.Error(err)
	}
}

// A session of ours that is ended while it waits for the role's lock has done nothing yet: the call goes on in another.
func TestTerminatedInTheMiddle(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	s := superuser(t, c)
	mustCreate(t, s, "terminated", "terminated2")
	c.Connect(t, "terminated2", password, "postgres")
	conn := c.Connect(t, c.User, c.Password, "postgres")
	exec(t, conn, `BEGIN`, `ALTER ROLE terminated CONNECTION LIMIT 5; ALTER ROLE terminated2 CONNECTION LIMIT 5`)
	results := make(chan []error)
	go func() {
		results <- together(2, func(i int) error {
			if i == 0 {
				return remove(t, s, "terminated2", "", nil, actor())
			}
			_, err := s.SetPassword(t.Context(), "terminated", password2, nil, actor())
			return err
		})
	}()
	const waiting = `FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'ALTER ROLE%'`
	waitFor(t, c, `SELECT count(*) = 2 `+waiting)
	c.Exec(t, `SELECT pg_terminate_backend(pid) `+waiting)
	exec(t, conn, `ROLLBACK`)
	errs := <-results
	unavailable(t, errs[0]) // a deletion is not begun again by itself
	if errs[1] != nil {
		t.Error(errs[1])
	}
	mayLogin(t, c, "terminated", password2)
	mustDelete(t, s, "terminated2")
}

// A primary that is set to read only answers reads as before and refuses changes. A change waits only if another host may be
// promoted.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	s := superuser(t, c)
	mustCreate(t, s, "kept")
	groups(t, s, "kept_group")
	before := pgtest.Value[string](t, c, `SELECT json_agg(a ORDER BY oid)::text FROM pg_authid a`)
	warm := *s
	warm.OneHost, warm.Waits.Failover = true, time.Hour
	c.Set(t, "default_transaction_read_only", "on")
	cold := impatient(t, s)
	cold.OneHost, cold.Waits.Failover = true, time.Hour
	reads := []string{"Users", "User", "Details", "Plan", "Userlist", "Databases"}
	for _, s := range []*pgrole.Server{&warm, cold} {
		for name, call := range calls(t, s) {
			for range 3 {
				err := call()
				if slices.Contains(reads, name) {
					if err != nil && !fault.Is(err, fault.NotFound) { // Plan is asked for a user that is not there
						t.Errorf("%s: %v", name, err)
					}
					continue
				}
				refused(t, err, fault.Unavailable, "set to read only: default_transaction_read_only")
				if fault.Of(err).RetryAfter >= 0 {
					t.Errorf("%s tells to come again after %s", name, fault.Of(err).RetryAfter)
				}
			}
		}
	}
	if u, err := warm.User(t.Context(), "kept"); err != nil || u.Name != "kept" {
		t.Errorf("got %+v, %v", u, err)
	}
	unavailable(t, calls(t, impatient(t, s))["SetPassword"]())
	if pgtest.Value[string](t, c, `SELECT json_agg(a ORDER BY oid)::text FROM pg_authid a`) != before {
		t.Error("something was changed")
	}
	waited := make(chan error)
	tries := func() int64 { return s.Pool.Stat().AcquireCount() + s.Pool.Stat().NewConnsCount() }
	tried := tries()
	go func() {
		_, err := s.SetPassword(t.Context(), "kept", password2, nil, actor())
		waited <- err
	}()
	for end := time.Now().Add(time.Minute); tries() < tried+2; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not try again")
		}
	}
	c.Set(t, "default_transaction_read_only", "off")
	if err := <-waited; err != nil {
		t.Error(err)
	}
	mayLogin(t, c, "kept", password2)
}

// A COMMIT that waits for a standby that is gone is done, but cannot be seen: the answer must not say otherwise.
func TestCommitWaitsForAStandby(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, map[string]string{"synchronous_standby_names": "gone"})
	s := superuser(t, c)
	c.Exec(t, `SET synchronous_commit = local`)
	c.Exec(t, `CREATE ROLE waits LOGIN`)
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
	defer cancel()
	_, err := s.SetPassword(ctx, "waits", password, nil, actor())
	unavailable(t, err)
	refused(t, err, fault.Unavailable, "see whether it was done")
	// It can be seen, but as long as no standby has it nothing says that it is done.
	ctx, cancel = context.WithTimeout(t.Context(), 6*time.Second)
	defer cancel()
	if u, err := s.Inspect(ctx, "waits"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("got %+v, %v, want to wait for the standby", u, err)
	}
	mayLogin(t, c, "waits", password)
	c.Exec(t, `SET synchronous_commit = local; ALTER ROLE `+c.User+` SET synchronous_commit = local`) // nobody waits any more
	u, err := superuser(t, c).Inspect(t.Context(), "waits")
	if err != nil || u.Provenance.Revision != 1 {
		t.Errorf("got %+v, %v, want what the COMMIT did", u, err)
	}
	mayLogin(t, c, "waits", password)
}

// cutter is a proxy that cuts a connection when a COMMIT goes by: before the server gets it, or before its answer gets
// back.
type cutter struct {
	mu      sync.Mutex
	before  bool
	skip    int // how many go by first
	commits int // how many are still cut
}

func (p *cutter) arm(before bool, skip, commits int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.before, p.skip, p.commits = before, skip, commits
}

func (p *cutter) cuts() (cut, before bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.skip--; p.skip >= 0 {
		return false, false
	}
	p.commits--
	return p.commits >= 0, p.before
}

func (p *cutter) listen(t testing.TB, c *pgtest.Cluster) (address string) {
	return listen(t, c, func(sql string, _ int) pgtest.Verdict {
		if strings.HasSuffix(sql, "COMMIT") {
			if cut, before := p.cuts(); cut && before {
				return pgtest.CutBefore
			} else if cut {
				return pgtest.CutAfter
			}
		}
		return pgtest.Pass
	})
}

func TestConnectionLostAtCommit(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	p := &cutter{}
	s := serverAt(t, p.listen(t, c), c.User, c.Password)
	for _, before := range []bool{true, false} {
		name := fmt.Sprintf("commit_lost_%v", before)
		p.arm(before, 0, 1)
		u, err := s.Create(t.Context(), name, password, actor())
		if err != nil || u.Provenance.Revision != 1 {
			t.Errorf("Create, cut before %v: %+v, %v", before, u, err)
		}
		mayLogin(t, c, name, password)
		p.arm(before, 0, 1)
		u2, err := s.SetPassword(t.Context(), name, password2, etag.Match{u.Revision()}, actor())
		if err != nil || u2.Provenance.Revision != 2 {
			t.Errorf("SetPassword, cut before %v: %+v, %v", before, u2, err)
		}
		mayLogin(t, c, name, password2)
		u, err = s.User(t.Context(), name)
		if err != nil || u.Revision() != u2.Revision() {
			t.Errorf("it is at %+v, %v, want %+v", u, err, u2)
		}
		// A deletion that is cut says so, and the same call goes on.
		c.Connect(t, name, password2, "postgres")
		for cut := range 3 {
			p.arm(before, cut, 1)
			err := remove(t, s, name, "", nil, actor())
			if done := cut == 2 || cut == 1 && !before; done && err == nil {
				break
			}
			unavailable(t, err)
		}
		mustCreate(t, s, name+"_alone")
		p.arm(before, 0, 1)
		mustDelete(t, s, name+"_alone")
		if exists(t, c, name) || exists(t, c, name+"_alone") {
			t.Errorf("%s is still there", name)
		}
	}
	// When every COMMIT is cut before the server gets it there is no end but an honest one.
	p.arm(true, 0, 1000)
	_, err := s.Create(t.Context(), "commit_never", password, actor())
	unavailable(t, err)
	if exists(t, c, "commit_never") {
		t.Error("it was made")
	}
	mustCreate(t, serverAs(t, c, c.User, c.Password), "commit_lost_owner")
	p.arm(false, 0, 1)
	n := pgrole.NewDatabase{Name: "commit_lost_db", Owner: "commit_lost_owner"}
	if d, err := s.CreateDatabase(t.Context(), n, actor()); err != nil || d.Owner != n.Owner {
		t.Errorf("got %+v, %v", d, err)
	}
	p.arm(false, 0, 0)
	if err := s.DropDatabase(t.Context(), "commit_lost_db", actor()); err != nil {
		t.Error(err)
	}
}
