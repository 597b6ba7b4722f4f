package pgrole_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

// The keys of our advisory locks are no secret, so a user could take its own and never be changed again. Whichever session
// is ended, the next in line has the lock, and one that asks again and again has it before who asks once.
func TestBlockerOnTheLock(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		s = impatient(t, s)
		mustCreate(t, s, name)
		lock := advisoryLock("role", name)
		sessions := make([]*pgx.Conn, 8)
		for i := range sessions {
			sessions[i] = c.Connect(t, name, password, "postgres")
			exec(t, sessions[i], `SET lock_timeout = 0`)
		}
		exec(t, sessions[0], fmt.Sprintf(`SELECT pg_advisory_lock(%d)`, lock))
		var waiting sync.WaitGroup
		for i, session := range sessions[1:] {
			sql := fmt.Sprintf(`SELECT pg_advisory_lock(%d)`, lock)
			if i%2 == 0 {
				sql = fmt.Sprintf(`DO $$ BEGIN WHILE NOT pg_try_advisory_lock(%d) LOOP PERFORM pg_sleep(0.001); END LOOP; PERFORM `+
					`pg_sleep(600); END $$`, lock)
			}
			waiting.Go(func() { _, _ = session.Exec(context.Background(), sql) })
		}
		waitFor(t, c,
			`SELECT count(*) = 3 FROM pg_locks l JOIN pg_stat_activity USING (pid) WHERE usename = '`+name+
				`' AND locktype = 'advisory' AND NOT granted`)
		if _, err := s.SetPassword(t.Context(), name, password2, nil, actor()); err != nil {
			t.Error(err)
		}
		mayLogin(t, c, name, password2)
		mustDelete(t, s, name)
		waiting.Wait()
	})
}

// A prepared transaction holds its locks without a session.
func TestPreparedBlocker(t *testing.T) {
	asEachAlone(t, map[string]string{"max_prepared_transactions": "2"}, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server,
		name string) {
		s = impatient(t, s)
		mustCreate(t, s, name)
		exec(t, c.Connect(t, name, password, "postgres"), `BEGIN`, fmt.Sprintf(`SELECT pg_advisory_xact_lock(%d)`,
			advisoryLock("role", name)), `PREPARE TRANSACTION 'it''s \ a trap'`)
		role := s.Pool.Config().ConnConfig.User
		if role != c.User {
			before := memberships(t, c)
			_, err := s.SetPassword(t.Context(), name, password2, nil, actor())
			refused(t, err, fault.Unavailable, `"it's \\ a trap"`, `role "`+name+`"`, "ROLLBACK PREPARED", "Nothing was changed")
			if !slices.Equal(memberships(t, c), before) {
				t.Error("memberships were changed")
			}
			mayLogin(t, c, name, password)
			grant := `GRANT ` + name + ` TO ` + role
			if c.Major >= 16 {
				grant += ` WITH SET TRUE`
			}
			c.Exec(t, grant)
		}
		if _, err := s.SetPassword(t.Context(), name, password2, nil, actor()); err != nil {
			t.Fatal(err)
		}
		mayLogin(t, c, name, password2)
		if n := pgtest.Value[int](t, c, `SELECT count(*)::int FROM pg_prepared_xacts`); n != 0 {
			t.Errorf("%d prepared transactions are left", n)
		}
		for _, conn := range s.Pool.AcquireAllIdle(t.Context()) {
			var now string
			if err := conn.QueryRow(t.Context(), `SELECT current_user::text`).Scan(&now); err != nil || now != role {
				t.Errorf("a connection is left as %q, %v", now, err)
			}
			conn.Release()
		}
	})
}

// A change that was decided on one role is never made on another of the same name: here a superuser takes the name of the
// user just before the first statement that would change it. Every change begins with the same one, which locks the row.
func TestSwappedRole(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	direct := superuser(t, c)
	c.Exec(t, `CREATE ROLE swap_super SUPERUSER LOGIN; CREATE ROLE swap_group`)
	for change, f := range map[string]func(s *pgrole.Server) error{
		"password": func(s *pgrole.Server) error {
			_, err := s.SetPassword(t.Context(), "swap", password2, nil, actor())
			return err
		},
		"limits": func(s *pgrole.Server) error {
			_, err := s.SetLimits(t.Context(), "swap", pgrole.Limits{ConnectionLimit: new(7)}, nil, actor())
			return err
		},
		"limits as they are": func(s *pgrole.Server) error {
			_, err := s.SetLimits(t.Context(), "swap", pgrole.Limits{ConnectionLimit: new(-1)}, nil, actor())
			return err
		},
		"membership": func(s *pgrole.Server) error {
			_, _, err := setRoles(t.Context(), s, "swap", []string{"swap_group"}, []string{"swap_group"}, nil, actor())
			return err
		},
		"deletion": func(s *pgrole.Server) error {
			_, err := s.Delete(t.Context(), "swap", "", nil, actor())
			return err
		},
		"disabling": func(s *pgrole.Server) error {
			_, _, err := s.DeleteOrDisable(t.Context(), "swap", "", nil, actor())
			return err
		},
	} {
		mustCreate(t, direct, "swap")
		before := state(t, c, "swap_super")
		var swapped atomic.Bool // the proxy serves several connections
		s := through(t, direct, listen(t, c, func(sql string, _ int) pgtest.Verdict {
			if strings.Contains(sql, `ALTER ROLE "swap"; SELECT 1 / (`) && swapped.CompareAndSwap(false, true) {
				c.Exec(t, `ALTER ROLE swap RENAME TO swap_away; ALTER ROLE swap_super RENAME TO swap`)
			}
			return pgtest.Pass
		}))
		err := f(s)
		if !swapped.Load() {
			t.Fatalf("%s: the row is not locked first", change)
		}
		refused(t, err, fault.Stale, "was dropped or renamed concurrently")
		c.Exec(t, `ALTER ROLE swap RENAME TO swap_super`)
		if after := state(t, c, "swap_super"); after != before {
			t.Errorf("%s: the superuser is %s, and was %s", change, after, before)
		}
		if n := pgtest.Value[int](t, c, `SELECT count(*)::int FROM pg_auth_members WHERE roleid = 'swap_group'::regrole`); n != 0 {
			t.Errorf("%s: somebody is a member of the group", change)
		}
		c.Exec(t, `DROP ROLE swap_away`)
	}
}

// A superuser's session is ended by a superuser only; to others it is named.
func TestSuperuserOnTheLock(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		s = impatient(t, s)
		mustCreate(t, s, name)
		c.Exec(t, `CREATE ROLE `+name+`_dba SUPERUSER LOGIN PASSWORD 'dba'`)
		dba := c.Connect(t, name+"_dba", "dba", "postgres")
		exec(t, dba, fmt.Sprintf(`SELECT pg_advisory_lock(%d)`, advisoryLock("role", name)))
		_, err := s.SetPassword(t.Context(), name, password2, nil, actor())
		if s.Pool.Config().ConnConfig.User == c.User {
			if err != nil {
				t.Fatal(err)
			}
			mayLogin(t, c, name, password2)
			return
		}
		refused(t, err, fault.Unavailable, `role "`+name+`_dba"`, "pg_terminate_backend", "Nothing was changed")
		if err := dba.Ping(t.Context()); err != nil {
			t.Errorf("its session was ended: %v", err)
		}
		mayLogin(t, c, name, password)
	})
}

// The lock of a database, under which a deletion revokes privileges there, lies in that database.
func TestBlockerOnTheLockOfDatabase(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := impatient(t, superuser(t, c))
	mustCreate(t, s, "squat_owner", "squat_victim")
	conn := database(t, c, "squat_db", "OWNER squat_owner")
	exec(t, conn, `CREATE TABLE t ()`, `GRANT SELECT ON t TO squat_victim`)
	exec(t, c.Connect(t, "squat_owner", password, "squat_db"), fmt.Sprintf(`SELECT pg_advisory_lock(%d)`,
		advisoryLock("database", "squat_db")))
	mustDelete(t, s, "squat_victim")
}

// Whoever holds the locks of several databases holds up neither the deletions that come there nor, by them, others: a
// deletion that waits takes no more connections than one that does not.
func TestBlockerOnTheLocksOfDatabases(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	wide := superuser(t, c)
	names := []string{"squat_first", "squat_second"}
	mustCreate(t, wide, "squatter", names[0], names[1])
	for i := range 6 {
		db := fmt.Sprintf("squatted_%d", i)
		exec(t, database(t, c, db), `CREATE TABLE t ()`, `GRANT SELECT ON t TO squat_first, squat_second`)
		exec(t, c.Connect(t, "squatter", password, db), fmt.Sprintf(`SELECT pg_advisory_lock(%d)`, advisoryLock("database", db)))
	}
	config := wide.Pool.Config()
	config.MaxConns = 3 // one for each deletion, and one
	s := *wide
	s.Pool, s.Waits = pool(t, config), pgrole.Waits{Lock: 15 * time.Second, Holders: -1}
	var deletions sync.WaitGroup
	for _, name := range names {
		deletions.Go(func() {
			if _, err := s.Delete(t.Context(), name, "", nil, actor()); err != nil {
				t.Error(err)
			}
		})
	}
	deletions.Wait()
}

// A call that changes nothing ends nobody's session: one for a role that cannot be granted, and one for a user that there is
// not.
func TestRefusedEndsNoSession(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		s = impatient(t, s)
		mustCreate(t, s, name, name+"_other")
		own := c.Connect(t, name, password, "postgres")
		exec(t, own, `BEGIN`, `ALTER ROLE CURRENT_USER PASSWORD 'its own password'`)
		_, _, err := setRoles(t.Context(), s, name, []string{name + "_absent"}, []string{name + "_absent"}, nil, actor())
		refused(t, err, fault.Invalid, "_absent")
		exec(t, own, `ROLLBACK`)
		other := c.Connect(t, name+"_other", password, "postgres")
		exec(t, other, fmt.Sprintf(`SELECT pg_advisory_lock(%d)`, advisoryLock("role", name+"_absent")))
		if err := remove(t, s, name+"_absent", "", nil, actor()); err == nil {
			t.Error("an absent user was deleted")
		}
		exec(t, other, `SELECT 1`)
	})
}

// While the administering role of a cluster is replaced there are two: one is no blocker to the other.
func TestTwoAdministrators(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		s = impatient(t, s)
		mustCreate(t, s, name)
		c.Exec(t, `CREATE ROLE `+name+`_admin CREATEROLE LOGIN PASSWORD 'admin'`)
		other := c.Connect(t, name+"_admin", "admin", "postgres")
		exec(t, other, `SET application_name = 'rolecall'`, fmt.Sprintf(`SELECT pg_advisory_lock(%d)`, advisoryLock("role", name)))
		_, err := s.SetPassword(t.Context(), name, password2, nil, actor())
		refused(t, err, fault.Unavailable, "busy", "Nothing was changed")
		exec(t, other, `SELECT 1`)
		c.Exec(t, `ALTER ROLE `+name+`_admin NOCREATEROLE`) // whoever may not create roles is nobody that Rolecall works as
		if user := s.Pool.Config().ConnConfig.User; user != c.User {
			c.Exec(t, `GRANT `+name+`_admin TO `+user+` WITH ADMIN OPTION`) // may end its sessions
		}
		if _, err := s.SetPassword(t.Context(), name, password2, nil, actor()); err != nil {
			t.Error(err)
		}
	})
}

func advisoryLock(kind, name string) int64 {
	sum := sha256.Sum256([]byte("rolecall " + kind + " " + name))
	return int64(binary.BigEndian.Uint64(sum[:]))
}

// The owner of a database writes its comment, and its settings for whoever connects.
func TestHostileOwnerOfDatabase(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	mustCreate(t, s, "hostile", "hostile_victim")
	conn := database(t, c, "hostile_db", "OWNER hostile")
	exec(t, conn, `CREATE SCHEMA s`, `GRANT USAGE ON SCHEMA s TO hostile_victim`)
	for _, comment := range []string{
		`rolecall:v1 {"created":"9999-12-31T23:59:59-23:59","createdBy":"x","revision":1,` +
			`"attempt":"0198f3a2-0000-7000-8000-000000000001"}`,
		`rolecall:v1 {"createdBy":"` + strings.Repeat("x", 201) +
			`","revision":1,"attempt":"0198f3a2-0000-7000-8000-000000000001"}`,
		strings.Repeat("long ", 1_000_000),
	} {
		c.Exec(t, `COMMENT ON DATABASE hostile_db IS '`+comment+`'`)
		d, err := s.Database(t.Context(), "hostile_db")
		if err != nil || d.Provenance.Managed() {
			t.Errorf("%.60s: %+v, %v", comment, d, err)
		}
		if _, _, err := s.Databases(t.Context(), pgrole.Page{Limit: 1000}); err != nil {
			t.Errorf("%.60s: %v", comment, err)
		}
	}
	c.Exec(t, `ALTER DATABASE hostile_db SET default_transaction_read_only = on`)
	c.Exec(t, `ALTER DATABASE hostile_db SET role = 'hostile'`)
	if err := remove(t, s, "hostile_victim", "", nil, actor()); err != nil {
		t.Error(err)
	}
}

// What belongs to a system role cannot have been given to it here, and is not dropped here.
func TestDropDatabaseOfSystemRole(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	c.Exec(t, `CREATE ROLE other_super SUPERUSER`)
	database(t, c, "of_other_super", "OWNER other_super")
	refused(t, superuser(t, c).DropDatabase(t.Context(), "of_other_super", actor()), fault.Forbidden, "other_super")
}

// A role that becomes protected while it gets a new password keeps its old one, and the answer says why.
func TestProtectedDuringAChange(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	direct := superuser(t, c)
	for how, sql := range map[string]string{
		"itself": `ALTER ROLE rising SUPERUSER`,
		"by membership": `CREATE ROLE rising_group CREATEROLE; CREATE ROLE rising_between IN ROLE rising_group;
			GRANT rising_between TO rising`,
	} {
		mustCreate(t, direct, "rising")
		var risen atomic.Bool
		s := through(t, direct, listen(t, c, func(sent string, _ int) pgtest.Verdict {
			if strings.Contains(sent, `ALTER ROLE "rising"; SELECT 1 / (`) && risen.CompareAndSwap(false, true) {
				c.Exec(t, sql)
			}
			return pgtest.Pass
		}))
		_, err := s.SetPassword(t.Context(), "rising", password2, nil, actor())
		if !risen.Load() {
			t.Fatalf("%s: the row is not locked first", how)
		}
		refused(t, err, fault.Forbidden, "is a system user")
		mayLogin(t, c, "rising", password)
		c.Exec(t, `DROP ROLE rising; DROP ROLE IF EXISTS rising_group, rising_between`)
	}
}
