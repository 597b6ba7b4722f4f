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

	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

// visits counts the connections that a Server opens to other databases, by database, and how many were open at once.
type visits struct {
	mu      sync.Mutex
	of      map[string]int
	opening int
	most    int
}

// watch has s count its visits. With meet, each waits until that many are under way. When a number of visits is made, end
// is called, and those after wait for the end of the caller's time.
func watch(s *pgrole.Server, meet, limit int, end func()) *visits {
	v := &visits{of: map[string]int{}}
	met := make(chan struct{})
	var before sync.WaitGroup // those before the end
	before.Add(limit)
	connect := s.Connect
	s.Connect = func(ctx context.Context, database, encoding string) (*pgx.Conn, error) {
		v.mu.Lock()
		v.of[database]++
		limit--
		late := limit < 0
		v.opening++
		if v.most = max(v.most, v.opening); v.opening == meet {
			close(met)
			meet = 0
		}
		wait := meet > 0
		v.mu.Unlock()
		defer func() {
			v.mu.Lock()
			v.opening--
			v.mu.Unlock()
		}()
		if wait {
			select {
			case <-met:
			case <-ctx.Done():
			}
		}
		if late {
			before.Wait()
			end()
			<-ctx.Done()
			return nil, ctx.Err()
		}
		defer before.Done()
		return connect(ctx, database, encoding)
	}
	return v
}

// fleet makes databases in which a user has something, and one more in which it has nothing.
func fleet(t testing.TB, c *pgtest.Cluster, s *pgrole.Server, n int, user string) {
	t.Helper()
	mustCreate(t, s, user, user+"_owner")
	for i := range n + 1 {
		db := database(t, c, fmt.Sprintf("%s_%02d", user, i), `OWNER `+user+`_owner`)
		if i < n {
			exec(t, db, `CREATE SCHEMA s AUTHORIZATION `+user+`_owner`, `SET ROLE `+user+`_owner`, `GRANT USAGE ON SCHEMA s TO `+user)
		}
		db.Close(context.Background())
	}
}

// A deletion goes through many databases a few at a time, and only through those where something depends on the user.
func TestVisits(t *testing.T) {
	asEachAlone(t, nil, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, prefix string) {
		const n = 14
		fleet(t, c, s, n, prefix)
		v := watch(s, 6, 1000, nil)
		p, err := s.Plan(t.Context(), prefix, "")
		if err != nil || len(p.Databases) != n || p.Unvisited != 0 || len(p.Blockers) != 0 {
			t.Fatalf("got %+v, %v", p, err)
		}
		if !slices.IsSortedFunc(p.Databases, func(a, b pgrole.DatabasePlan) int { return strings.Compare(a.Name, b.Name) }) {
			t.Error("the databases are in no order")
		}
		if len(v.of) != n || v.most != 6 {
			t.Errorf("visited %v, %d at once", v.of, v.most)
		}
		each := func(sql ...string) {
			for name := range v.of {
				db := c.Connect(t, c.User, c.Password, name)
				exec(t, db, sql...)
				db.Close(t.Context())
			}
		}
		each(`CREATE TABLE s.owned ()`, `ALTER TABLE s.owned OWNER TO `+prefix)
		refused(t, remove(t, s, prefix, "", nil, actor()), fault.InUse, "_00", "_09",
			"; and for 4 more reasons. Nothing was changed")
		each(`DROP TABLE s.owned`)
		mustDelete(t, s, prefix)
		for name, times := range v.of {
			if times != 4 { // for the plan, to be refused, to look and to clear
				t.Errorf("%d visits of %s", times, name)
			}
		}
		if len(v.of) != n || v.most > 6 {
			t.Errorf("visited %v, %d at once", v.of, v.most)
		}
	})
}

// What a call that ran out of time has done is done: the next one goes on with the rest.
func TestOutOfTime(t *testing.T) {
	asBoth(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, prefix string) {
		const n = 12
		fleet(t, c, s, n, prefix)
		before := state(t, c, prefix)
		connect := s.Connect
		// The time is over when those before are done.
		over := func(cancel context.CancelFunc) func() {
			return func() {
				waitFor(t, c, `SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE starts_with(datname, $1))`, prefix+"_")
				cancel()
			}
		}

		// The plan shows what it has seen.
		watch(s, 0, 5, func() {})
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
		defer cancel()
		p, err := s.Plan(ctx, prefix, "")
		if err != nil || len(p.Databases) != 5 || p.Unvisited != n-5 {
			t.Errorf("got %+v, %v", p, err)
		}
		// Before anything was changed nothing is.
		s.Connect = connect
		ctx, cancel = context.WithCancel(t.Context())
		watch(s, 0, 5, over(cancel))
		_, err = deleteUser(ctx, s, prefix, "", nil, actor())
		unavailable(t, err)
		refused(t, err, fault.Unavailable, fmt.Sprintf("in %d databases", n), "read 5 of them", "Nothing was changed")
		if state(t, c, prefix) != before {
			t.Error("it was changed")
		}
		// Later it has come some way.
		s.Connect = connect
		ctx, cancel = context.WithCancel(t.Context())
		watch(s, 0, n+5, over(cancel))
		_, err = deleteUser(ctx, s, prefix, "", nil, actor())
		unavailable(t, err)
		refused(t, err, fault.Unavailable, fmt.Sprintf("Visited 5 of %d databases", n), "Delete it again")
		mayNotLogin(t, c, prefix, password)
		s.Connect = connect
		v := watch(s, 0, 1000, nil)
		if p, err := s.Plan(t.Context(), prefix, ""); err != nil || len(p.Databases) != n-5 {
			t.Errorf("the plan of the rest: %+v, %v", p, err)
		}
		if err := remove(t, s, prefix, "", nil, actor()); err != nil || exists(t, c, prefix) {
			t.Errorf("again: %v", err)
		}
		for name, times := range v.of {
			if times != 2 { // for the plan, and to clear
				t.Errorf("%d visits of %s", times, name)
			}
		}
		if len(v.of) != n-5 {
			t.Errorf("visited %v", v.of)
		}
	})
}

// A deletion takes no more than a part of the connections that are left, and waits when there is none.
func TestVisitsOfAFullCluster(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, map[string]string{"max_connections": "14", "superuser_reserved_connections": "1"})
	s, _ := administrator(t, c)
	s.Waits.Acquire = 0 // the test waits it out
	config := s.Pool.Config()
	config.MaxConns = 1 // or who looks at a statement that takes long, as on a busy machine, has the one that becomes free
	s.Pool = pool(t, config)
	fleet(t, c, s, 6, "full")
	v := watch(s, 0, 1000, nil)
	c.Exec(t, `CREATE ROLE hog LOGIN PASSWORD 'hog'`)
	var hogs []*pgx.Conn
	hog := func() bool {
		conn, err := pgx.Connect(t.Context(), strings.Replace(c.URL("postgres"), "postgres:"+c.Password, "hog:hog", 1))
		if err != nil {
			return false
		}
		t.Cleanup(func() { conn.Close(context.Background()) })
		hogs = append(hogs, conn)
		return true
	}
	for hog() {
	}
	// The pool has a connection, but nothing is left for a visit.
	before := state(t, c, "full")
	if _, err := s.User(t.Context(), "full"); err != nil {
		t.Fatal(err)
	}
	unavailable(t, remove(t, s, "full", "", nil, actor()))
	if state(t, c, "full") != before || v.most != 1 {
		t.Errorf("it was changed, or visited were %d at once", v.most)
	}
	// One that becomes free in time is enough.
	done := make(chan error)
	go func() { done <- remove(t, s, "full", "", nil, actor()) }()
	waitFor(t, c, `SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted)`)
	hogs[0].Close(t.Context())
	if err := <-done; err != nil || exists(t, c, "full") || v.most != 1 {
		t.Errorf("%v, visited were %d at once", err, v.most)
	}
}

// Databases that cannot be looked into are named, each with what helps.
func TestClosedDatabases(t *testing.T) {
	asEachAlone(t, nil, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, _ string) {
		limited := !pgtest.Value[bool](t, c, `SELECT rolsuper FROM pg_roles WHERE rolname = $1`, s.Pool.Config().ConnConfig.User)
		for name, tt := range map[string]struct {
			sql  string
			want []string
			free bool
		}{
			"closed": {`ALTER DATABASE closed ALLOW_CONNECTIONS false`, []string{"takes no connections",
				`ALTER DATABASE "closed" ALLOW_CONNECTIONS true`}, false},
			"zero": {`ALTER DATABASE zero CONNECTION LIMIT 0`, []string{"takes no connections", "CONNECTION LIMIT -1"}, !limited},
			"cut_off": {`UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'cut_off'`,
				[]string{"removal was cut off", `DROP DATABASE "cut_off"`}, false},
			"unasked": {`REVOKE CONNECT ON DATABASE unasked FROM PUBLIC`, []string{"may not connect", "SQLSTATE 42501",
				`GRANT CONNECT ON DATABASE "unasked"`}, !limited},
			"bystands": {`SELECT 1`, nil, true},
		} {
			mustCreate(t, s, name, name+"_owner")
			db := database(t, c, name, `OWNER `+name+`_owner`)
			exec(t, db, `SET ROLE `+name+`_owner`, `CREATE SCHEMA s`, `GRANT USAGE ON SCHEMA s TO `+name, `RESET ROLE`)
			db.Close(t.Context())
			c.Exec(t, tt.sql)
			before := state(t, c, name)
			if tt.free {
				mustDelete(t, s, name)
				continue
			}
			refused(t, remove(t, s, name, "", nil, actor()), fault.InUse, append(tt.want, "Nothing was changed")...)
			if state(t, c, name) != before {
				t.Errorf("%s was changed", name)
			}
		}
	})
}

// What PostgreSQL refuses for a reason of its own, here an event trigger's, calls the deletion off: the same call would
// meet the same refusal for ever.
func TestRefusedInTheMiddle(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, prefix string) {
		fleet(t, c, s, 1, prefix)
		db := c.Connect(t, c.User, c.Password, prefix+"_00")
		exec(t, db, `CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'not here'; END$$`,
			`CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('REVOKE') EXECUTE FUNCTION refuse()`)
		refused(t, remove(t, s, prefix, "", nil, actor()), fault.InUse, prefix+"_00", "SQLSTATE P0001", "may log in again")
		mayLogin(t, c, prefix, password)
		if why, _, err := s.DeleteOrDisable(t.Context(), prefix, "", nil, actor()); err != nil || !strings.Contains(why, "P0001") {
			t.Errorf("got %q, %v", why, err)
		}
		isDisabled(t, c, s, prefix)
		exec(t, db, `DROP EVENT TRIGGER refuse`)
		db.Close(t.Context())
		mustDelete(t, s, prefix)
	})
}

// A database that is dropped while it is visited takes what was in it along.
func TestDatabaseDroppedDuringDelete(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, direct *pgrole.Server, prefix string) {
		mustCreate(t, direct, prefix+"_owner")
		for _, point := range []string{"pg_shdepend", "pg_describe_object", "REVOKE"} {
			mustCreate(t, direct, prefix)
			name := prefix + "_db"
			db := database(t, c, name)
			exec(t, db, `CREATE SCHEMA s AUTHORIZATION `+prefix+`_owner`, `SET ROLE `+prefix+`_owner`,
				`GRANT USAGE ON SCHEMA s TO `+prefix)
			var mu sync.Mutex // guards what follows
			dropped := false
			s := through(t, direct, listen(t, c, func(sql string, _ int) pgtest.Verdict {
				mu.Lock()
				defer mu.Unlock()
				if !dropped && strings.Contains(sql, point) {
					dropped = true
					c.Exec(t, `DROP DATABASE `+name+` WITH (FORCE)`)
				}
				return pgtest.Pass
			}))
			err := remove(t, s, prefix, "", nil, actor())
			if err != nil {
				unavailable(t, err)
				err = remove(t, s, prefix, "", nil, actor())
			}
			if err != nil || exists(t, c, prefix) {
				t.Errorf("at %s: %v", point, err)
			}
			s.Pool.Close()
			db.Close(t.Context())
		}
	})
}

// Sessions that change the same rows without our locks all the time get no error of theirs through to a caller.
func TestHostileLoops(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	s := superuser(t, c)
	mustCreate(t, s, "hostile", "hostile_owner")
	groups(t, s, "hostile_group")
	db := database(t, c, "hostile_db", `OWNER hostile_owner`)
	exec(t, db, `CREATE TABLE t ()`, `ALTER TABLE t OWNER TO hostile_owner`, `CREATE ROLE hostile_other`)
	stop := make(chan struct{})
	var loops sync.WaitGroup
	for i := range 2 {
		conn := c.Connect(t, c.User, c.Password, "hostile_db")
		loops.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				// They fail as well, which is nobody's business.
				for _, sql := range []string{
					fmt.Sprintf(`ALTER ROLE hostile CONNECTION LIMIT %d`, 10+i+n%10),
					`GRANT CONNECT ON DATABASE hostile_db TO hostile_other`, `GRANT SELECT ON t TO hostile_other`,
					`COMMENT ON ROLE hostile IS NULL`, `ALTER DEFAULT PRIVILEGES FOR ROLE hostile_owner GRANT SELECT ON TABLES TO ` +
						`hostile_other`,
					`REVOKE CONNECT ON DATABASE hostile_db FROM hostile_other`, `REVOKE SELECT ON t FROM hostile_other`,
					`ALTER DEFAULT PRIVILEGES FOR ROLE hostile_owner REVOKE SELECT ON TABLES FROM hostile_other`,
				} {
					_, _ = conn.Exec(context.Background(), sql)
				}
			}
		})
	}
	conn := c.Connect(t, c.User, c.Password, "hostile_db")
	given := func(name string) {
		for _, sql := range []string{`GRANT CONNECT ON DATABASE hostile_db TO ` + name, `GRANT SELECT ON t TO ` + name,
			`ALTER DEFAULT PRIVILEGES FOR ROLE hostile_owner GRANT SELECT ON TABLES TO ` + name} {
			for _, err := conn.Exec(t.Context(), sql); err != nil; _, err = conn.Exec(t.Context(), sql) {
			}
		}
	}
	done := 0
	for n := range 8 {
		name := fmt.Sprintf("hostile_%d", n)
		for what, call := range []func() error{
			func() error { _, err := s.SetPassword(t.Context(), "hostile", password2, nil, actor()); return err },
			func() error {
				_, err := s.SetLimits(t.Context(), "hostile", pgrole.Limits{ConnectionLimit: new(5)}, nil, actor())
				return err
			},
			func() error {
				_, _, err := setRoles(t.Context(), s, "hostile", []string{"hostile_group"}[:n%2], []string{"hostile_group"}, nil,
					actor())
				return err
			},
			func() error { _, err := s.Create(t.Context(), name, password, actor()); return err },
			func() error { given(name); return remove(t, s, name, "", nil, actor()) },
		} {
			err := call()
			if err == nil {
				done++
			} else if unavailable(t, err); t.Failed() {
				t.Fatalf("call %d of round %d", what, n)
			}
		}
	}
	close(stop)
	loops.Wait()
	if done < 20 {
		t.Errorf("%d of 40 calls were done", done)
	}
	for n := range 8 {
		if name := fmt.Sprintf("hostile_%d", n); exists(t, c, name) {
			mustDelete(t, s, name)
		}
	}
}
