package pgrole_test

import (
	"context"
	"math"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

// until and never are what Limits.ValidUntil takes.
func until(at time.Time) **time.Time {
	p := &at
	return &p
}

var never = new(*time.Time)

func TestSetLimits(t *testing.T) {
	asBoth(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		mustCreate(t, s, name)
		c.LogStatements(t)
		set := func(l pgrole.Limits) *pgrole.Details {
			t.Helper()
			before := details(t, s, name)
			d, err := s.SetLimits(t.Context(), name, l, etag.Match{before.Revision()}, actor())
			if err != nil || d.Provenance.Revision != before.Provenance.Revision+1 || d.Provenance.ModifiedBy != account {
				t.Fatalf("SetLimits(%+v) = %+v, %v", l, d, err)
			}
			return d
		}
		// Both limits are those of PostgreSQL: the client feels them.
		if d := set(pgrole.Limits{ValidUntil: until(time.Now().Add(-time.Second))}); d.ConnectionLimit != -1 ||
			d.ValidUntil.After(time.Now()) {
			t.Errorf("got %+v", d)
		}
		mayNotLogin(t, c, name, password)
		at := time.Now().Add(time.Hour).In(time.FixedZone("", -3*3600))
		if d := set(pgrole.Limits{ValidUntil: until(at), ConnectionLimit: new(0)}); d.ConnectionLimit != 0 ||
			!d.ValidUntil.Equal(at.Truncate(time.Microsecond)) || d.ValidUntil.Location() != time.UTC {
			t.Errorf("got %+v, want until %v", d, at)
		}
		mayNotLogin(t, c, name, password)
		if d := set(pgrole.Limits{ConnectionLimit: new(1)}); d.ConnectionLimit != 1 || d.ValidUntil == nil {
			t.Errorf("got %+v", d)
		}
		err := c.Login(name, password)
		for end := time.Now().Add(time.Minute); err != nil && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			err = c.Login(name, password) // the one that was refused may still count
		}
		if err != nil {
			t.Error(err)
		}
		set(pgrole.Limits{ValidUntil: until(*details(t, s, name).ValidUntil), ConnectionLimit: new(1)})
		if d := set(pgrole.Limits{ValidUntil: never, ConnectionLimit: new(math.MaxInt32)}); d.ConnectionLimit != math.MaxInt32 ||
			d.ValidUntil != nil {
			t.Errorf("got %+v", d)
		}
		set(pgrole.Limits{ValidUntil: never})
		if d := set(pgrole.Limits{ConnectionLimit: new(-1)}); d.ConnectionLimit != -1 || d.ValidUntil != nil {
			t.Errorf("got %+v", d)
		}
		set(pgrole.Limits{})
		mayLogin(t, c, name, password)
		for _, at := range []time.Time{{}, time.Date(1, 2, 3, 0, 0, 0, 0, time.UTC), time.Date(9999, 12, 31, 23, 59, 59,
			999_999_999, time.UTC)} {
			if d := set(pgrole.Limits{ValidUntil: until(at)}); d.ValidUntil == nil || d.ValidUntil.Sub(at).Abs() > time.Second {
				t.Errorf("%v became %v", at, d.ValidUntil)
			}
		}
		// Only what changes is named.
		log := c.ReadLog(t)
		for part, want := range map[string]int{" CONNECTION LIMIT 1;": 1, " VALID UNTIL 'infinity'": 1,
			" CONNECTION LIMIT -1;": 1} {
			n := 0
			for line := range strings.Lines(log) {
				if strings.Contains(line, `statement: ALTER ROLE "`+name+`"`) && strings.Contains(line, part) {
					n++
				}
			}
			if n != want {
				t.Errorf("%q was sent %d times", part, n)
			}
		}
	})
}

func TestSetLimitsRefusals(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	mustCreate(t, s, "limits")
	c.Exec(t, `CREATE ROLE limits_nologin; CREATE ROLE limits_super LOGIN SUPERUSER;
		CREATE ROLE limits_deleting; COMMENT ON ROLE limits_deleting IS
		  'rolecall:v1 {"revision":2,"attempt":"0198f3a2-0000-7000-8000-000000000001","state":"deleting"}';
		CREATE ROLE limits_disabled; COMMENT ON ROLE limits_disabled IS
		  'rolecall:v1 {"revision":2,"attempt":"0198f3a2-0000-7000-8000-000000000001","state":"disabled"}'`)
	session := c.Connect(t, "limits", password, "postgres")
	limits := pgrole.Limits{ConnectionLimit: new(3)}
	for _, tt := range []struct {
		name   string
		limits pgrole.Limits
		match  etag.Match
		kind   fault.Kind
	}{
		{"limits", limits, etag.Match{"x"}, fault.Stale},
		{"limits", pgrole.Limits{ConnectionLimit: new(-2)}, nil, fault.Invalid},
		{"limits", pgrole.Limits{ConnectionLimit: new(math.MaxInt32 + 1)}, nil, fault.Invalid},
		{"limits", pgrole.Limits{ValidUntil: until(time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC))}, nil, fault.Invalid},
		{"limits", pgrole.Limits{ValidUntil: until(time.Date(9999, 12, 31, 23, 0, 0, 0, time.FixedZone("", -3600)))}, nil,
			fault.Invalid},
		{"limits", pgrole.Limits{ValidUntil: until(time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC))}, nil, fault.Invalid},
		{"limits_super", limits, nil, fault.Forbidden},
		{"postgres", limits, nil, fault.Forbidden},
		{"limits_nologin", limits, nil, fault.NotFound},
		{"absent", limits, nil, fault.NotFound},
		{"limits_deleting", limits, nil, fault.InUse},
	} {
		before := state(t, c, tt.name)
		d, ended, err := setLimitsAndEnd(t.Context(), s, tt.name, tt.limits, tt.match, actor())
		refused(t, err, tt.kind)
		if state(t, c, tt.name) != before || d != nil || ended != 0 {
			t.Errorf("%s, %+v: got %v, %d", tt.name, tt.limits, d, ended)
		}
	}
	if err := session.Ping(t.Context()); err != nil {
		t.Errorf("a refused change ended a session: %v", err)
	}
	// A disabled user keeps its state.
	if d, _, err := setLimitsAndEnd(t.Context(), s, "limits_disabled", limits, nil, actor()); err != nil ||
		d.State != pgrole.StateDisabled || d.ConnectionLimit != 3 {
		t.Errorf("got %+v, %v", d, err)
	}
}

func TestEndSessions(t *testing.T) {
	asBoth(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		mustCreate(t, s, name, name+"_kept")
		kept := c.Connect(t, name+"_kept", password, "postgres")
		var sessions []*pgx.Conn
		for range 3 {
			sessions = append(sessions, c.Connect(t, name, password, "postgres"))
		}
		exec(t, sessions[0], `BEGIN`, `SELECT 1`)
		members := memberships(t, c)
		d, ended, err := setLimitsAndEnd(t.Context(), s, name, pgrole.Limits{}, nil, actor())
		if err != nil || ended != 3 || d.Provenance.Revision != 2 {
			t.Errorf("got %+v, %d, %v", d, ended, err)
		}
		for _, session := range sessions {
			if session.Ping(t.Context()) == nil {
				t.Error("a session is left")
			}
		}
		if err := kept.Ping(t.Context()); err != nil {
			t.Errorf("another user's session was ended: %v", err)
		}
		noNewMembership(t, c, members, name)
		mayLogin(t, c, name, password)
	})
}

// A user that comes back at once, again and again, has its sessions ended once.
func TestEndSessionsOfOneWhoComesBack(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	const name = "comes_back"
	mustCreate(t, s, name)
	ctx, cancel := context.WithCancel(t.Context())
	const clients = 3
	done := make(chan bool)
	url := strings.Replace(c.URL("postgres"), "postgres:"+c.Password, name+":first%20password", 1)
	for range clients {
		go func() {
			for ctx.Err() == nil {
				if conn, err := pgx.Connect(ctx, url); err == nil {
					_, _ = conn.Exec(ctx, `SELECT pg_sleep(60)`)
					conn.Close(context.Background())
				}
			}
			done <- true
		}()
	}
	const all = `SELECT count(*) = $1 FROM pg_stat_activity WHERE usename = 'comes_back' AND query LIKE '%pg_sleep%'`
	for range 3 {
		waitFor(t, c, all, clients)
		start := time.Now()
		if _, ended, err := setLimitsAndEnd(t.Context(), s, name, pgrole.Limits{}, nil, actor()); err != nil || ended < clients ||
			ended > 2*clients || time.Since(start) > 30*time.Second {
			t.Errorf("%d ended in %v, %v", ended, time.Since(start), err)
		}
	}
	cancel()
	for range clients {
		<-done
	}
}

// What cannot be ended in time is said, and so is that the change is done.
func TestSessionsThatCannotBeEnded(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	s := superuser(t, c)
	mustCreate(t, s, "stuck")
	session := c.Connect(t, "stuck", password, "postgres")
	pid := session.PgConn().PID()
	signal := func(sig syscall.Signal) {
		if err := syscall.Kill(int(pid), sig); err != nil {
			t.Error(err)
		}
	}
	signal(syscall.SIGSTOP)
	defer signal(syscall.SIGCONT)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
	defer cancel()
	d, _, err := setLimitsAndEnd(ctx, s, "stuck", pgrole.Limits{ConnectionLimit: new(4)}, nil, actor())
	unavailable(t, err)
	refused(t, err, fault.Unavailable, "was changed", "sessions")
	if d == nil || details(t, s, "stuck").ConnectionLimit != 4 {
		t.Error("it was not changed")
	}
}

// Limits and memberships whose COMMIT is cut are done once.
func TestLimitsAndRolesAreCut(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	p := &cutter{}
	s := serverAt(t, p.listen(t, c), c.User, c.Password)
	const name = "limits_are_cut"
	mustCreate(t, s, name)
	groups(t, s, name+"_a", name+"_b")
	for i, before := range []bool{true, false} {
		session := c.Connect(t, name, password, "postgres")
		p.arm(before, 0, 1)
		d, ended, err := setLimitsAndEnd(t.Context(), s, name, pgrole.Limits{ConnectionLimit: new(10 + i)}, nil, actor())
		if err != nil || ended != 1 || session.Ping(t.Context()) == nil || d.Provenance.Revision != 2+2*i ||
			details(t, s, name).ConnectionLimit != 10+i {
			t.Errorf("cut before %v: %+v, %d, %v", before, d, ended, err)
		}
		p.arm(before, 0, 1)
		want := []string{name + "_a", name + "_b"}[i:]
		d, _, err = setRoles(t.Context(), s, name, want, []string{name + "_a", name + "_b"}, nil, actor())
		if now := details(t, s, name); err != nil || !slices.Equal(d.MemberOf, want) || !slices.Equal(now.MemberOf, want) ||
			now.Revision() != d.Revision() || d.Provenance.Revision != 3+2*i {
			t.Errorf("cut before %v: %+v, %v", before, d, err)
		}
	}
}

// A user that cannot log in, whatever its password is, is told apart from one that can.
func TestLoginProblem(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	mustCreate(t, s, "login_problem")
	for sql, want := range map[string]string{
		`VALID UNTIL '2020-01-02 03:04:05Z'`: "valid until 2020-01-02 03:04:05 UTC",
		`VALID UNTIL '-infinity'`:            "no longer valid",
		`VALID UNTIL '0044-03-15 BC'`:        "valid until ",
		`VALID UNTIL '294000-01-01'`:         "",
		`VALID UNTIL 'infinity'`:             "",
		`CONNECTION LIMIT 0`:                 "connection limit 0",
		`CONNECTION LIMIT 1`:                 "",
		`CONNECTION LIMIT -1 NOLOGIN`:        "no LOGIN",
	} {
		c.Exec(t, `ALTER ROLE login_problem LOGIN VALID UNTIL 'infinity' CONNECTION LIMIT -1; ALTER ROLE login_problem `+sql)
		users, _, err := onPage(s.Users(t.Context(), pgrole.Page{Limit: 1000}, false))
		u, roleErr := s.Inspect(t.Context(), "login_problem")
		if err != nil || roleErr != nil {
			t.Fatal(err, roleErr)
		}
		for _, u := range append(users, u) {
			if got := u.LoginProblem(); u.Name == "login_problem" && (!strings.Contains(got, want) || (got == "") != (want == "")) {
				t.Errorf("%s: %q", sql, got)
			}
		}
	}
}
