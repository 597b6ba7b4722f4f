package pgrole_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

// estate is a database where a user may be given something, and people who must not lose anything.
type estate struct {
	name, user, owner, heir, group string
	admin                          string // the administering role
	db, main                       *pgx.Conn
	members                        []string
}

func newEstate(t testing.TB, c *pgtest.Cluster, s *pgrole.Server, prefix string) *estate {
	t.Helper()
	e := &estate{name: prefix + "_db", user: prefix, owner: prefix + "_owner", heir: prefix + "_heir", group: prefix +
		"_group", admin: s.Pool.Config().ConnConfig.User}
	mustCreate(t, s, e.owner, e.heir)
	e.db = database(t, c, e.name, `OWNER `+e.owner)
	e.main = c.Connect(t, c.User, c.Password, "postgres")
	exec(t, e.db, `CREATE ROLE `+e.group, `CREATE SCHEMA s AUTHORIZATION `+e.owner, `SET ROLE `+e.owner,
		`CREATE TABLE s.kept AS SELECT 1 AS one`, `GRANT SELECT ON s.kept TO `+e.heir, `RESET ROLE`)
	e.members = memberships(t, c)
	return e
}

// furnish makes the user, and gives it something in the database and something that all databases share.
func (e *estate) furnish(t testing.TB, s *pgrole.Server) {
	t.Helper()
	mustCreate(t, s, e.user)
	exec(t, e.db, `SET ROLE `+e.owner,
		`GRANT CONNECT ON DATABASE `+e.name+` TO `+e.user, `GRANT USAGE ON SCHEMA s TO `+e.user,
		`GRANT SELECT ON s.kept TO `+e.user,
		`ALTER DEFAULT PRIVILEGES IN SCHEMA s GRANT SELECT ON TABLES TO `+e.user, `RESET ROLE`)
}

// intact fails t if others have lost something, or the administering role has kept a membership.
func (e *estate) intact(t testing.TB, c *pgtest.Cluster) {
	t.Helper()
	if value[int](t, e.db, `SELECT count(*) FROM s.kept`) != 1 ||
		!value[bool](t, e.db, `SELECT has_table_privilege($1, 's.kept', 'SELECT')`, e.heir) {
		t.Error("others have lost something")
	}
	for _, m := range memberships(t, c) {
		// From PostgreSQL 16 on the server itself makes who creates a role a member of it.
		if strings.Contains(m, " to "+e.admin+" ") && !slices.Contains(e.members, m) &&
			!(strings.HasPrefix(m, e.user) && strings.Contains(m, " by "+c.User+" ")) {
			t.Errorf("left: %s", m)
		}
	}
}

// wayToCut is how calls are cut off under a kind of administering role, the last letter of prefix. Pass: the session is
// ended. Unless Full, the seed turns them, because rds is left out.
func wayToCut(t testing.TB, prefix string) pgtest.Verdict {
	t.Helper()
	turn := strings.Index("sar", prefix[len(prefix)-1:])
	if !pgtest.Full() {
		turn += pgtest.Seed(t) / 9
	}
	return []pgtest.Verdict{pgtest.CutAfter, pgtest.CutBefore, pgtest.Pass}[turn%3]
}

// Wherever a deletion is cut off, by a connection that is lost before or after a statement is done, or by the end of its
// session, its answer is true, and the same call again ends well.
func TestDeleteCutAnywhere(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, direct *pgrole.Server, prefix string) {
		e := newEstate(t, c, direct, prefix)
		var mu sync.Mutex // guards what follows
		var left int
		var statement string
		how := wayToCut(t, prefix)
		s := through(t, direct, listen(t, c, func(sql string, port int) pgtest.Verdict {
			mu.Lock()
			defer mu.Unlock()
			if left--; left != 0 {
				return pgtest.Pass
			}
			statement = sql
			if how == pgtest.Pass {
				c.Exec(t, `SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE client_port = $1`, port)
			}
			return how
		}))
		step := 9
		if pgtest.Full() {
			step = 3
		}
		n := 1 + pgtest.Seed(t)%step
		for ; ; n += step {
			e.furnish(t, direct)
			exec(t, e.db, `CREATE TABLE s.moves AS SELECT 1 AS one`, `ALTER TABLE s.moves OWNER TO `+e.user)
			mu.Lock()
			left, statement = n, ""
			mu.Unlock()
			err := remove(t, s, e.user, e.heir, nil, actor())
			mu.Lock()
			cut := left <= 0
			left = 0
			mu.Unlock()
			if err != nil {
				unavailable(t, err)
			}
			if gone := !exists(t, c, e.user); gone != (err == nil) {
				t.Errorf("cut at statement %d, %s: gone is %v, and the answer %v", n, statement, gone, err)
			}
			if err != nil {
				if err := remove(t, s, e.user, e.heir, nil, actor()); err != nil || exists(t, c, e.user) {
					t.Errorf("cut at statement %d, %s, and again: %v", n, statement, err)
				}
			}
			if owner := value[string](t, e.db,
				`SELECT relowner::regrole::text FROM pg_class WHERE oid = 's.moves'::regclass`); owner != e.heir {
				t.Errorf("cut at statement %d, %s: the heir got nothing; %s has it", n, statement, owner)
			}
			e.intact(t, c)
			exec(t, e.db, `DROP TABLE s.moves`)
			if !cut {
				break
			}
			if t.Failed() {
				t.FailNow()
			}
		}
	})
}

// meddling is what somebody else does in the middle of a deletion.
type meddling struct {
	name     string
	sql      []string // in the database
	reassign bool
	blocks   bool // the user is kept
	may      bool // or not, where it comes too late for DROP ROLE to see it
	then     func(t *testing.T, gone bool)
	undo     []string
}

// Whatever others do in whichever phase of a deletion: nobody loses anything, and it ends with a user that is gone, or as
// it was.
func TestMeddling(t *testing.T) {
	asEachAlone(t, map[string]string{"max_prepared_transactions": "5"}, func(t *testing.T, c *pgtest.Cluster,
		direct *pgrole.Server, prefix string) {
		e := newEstate(t, c, direct, prefix)
		is := func(want, sql string, args ...any) func(*testing.T, bool) {
			return func(t *testing.T, _ bool) {
				t.Helper()
				if got := value[string](t, e.db, sql, args...); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
			}
		}
		was := e.user + "_was"
		const mayRead = `SELECT has_table_privilege($1, 's.kept', 'SELECT')::text`
		for i, m := range []meddling{
			{name: "object", blocks: true, sql: []string{`CREATE TABLE s.new AS SELECT 1 AS one`, `ALTER TABLE s.new OWNER TO ` +
				e.user},
				then: is("1 "+e.user, `SELECT (SELECT one FROM s.new) || ' ' || relowner::regrole FROM pg_class WHERE relname = 'new'`),
				undo: []string{`DROP TABLE s.new`}},
			{name: "object, reassigned", reassign: true, sql: []string{`CREATE TABLE s.new AS SELECT 1 AS one`,
				`ALTER TABLE s.new OWNER TO ` + e.user},
				then: is("1 "+e.heir, `SELECT (SELECT one FROM s.new) || ' ' || relowner::regrole FROM pg_class WHERE relname = 'new'`),
				undo: []string{`DROP TABLE s.new`}},
			{name: "grant", sql: []string{`SET ROLE ` + e.owner, `GRANT INSERT ON s.kept TO ` + e.user, `RESET ROLE`}},
			{name: "grant on a database", sql: []string{`SET ROLE ` + e.owner, `GRANT TEMPORARY ON DATABASE ` + e.name + ` TO ` +
				e.user, `RESET ROLE`}},
			{name: "grant of its own", blocks: true, sql: []string{`SET ROLE ` + e.owner, `GRANT INSERT ON s.kept TO ` + e.user +
				` WITH GRANT OPTION`, `SET ROLE ` + e.user,
				`GRANT INSERT ON s.kept TO ` + e.group, `RESET ROLE`}, then: is("true",
				`SELECT has_table_privilege($1, 's.kept', 'INSERT')::text`, e.group),
				undo: []string{`SET ROLE ` + e.owner, `REVOKE INSERT ON s.kept FROM ` + e.user + ` CASCADE`, `RESET ROLE`}},
			{name: "default privileges", sql: []string{`ALTER DEFAULT PRIVILEGES FOR ROLE ` + e.owner +
				` GRANT SELECT ON SEQUENCES TO ` + e.user}},
			{name: "membership that it grants", blocks: true, may: c.Major < 16, sql: []string{`GRANT ` + e.group + ` TO ` + e.user +
				` WITH ADMIN OPTION`, `SET ROLE ` + e.user,
				`GRANT ` + e.group + ` TO ` + e.heir, `RESET ROLE`}, then: is("true", `SELECT pg_has_role($1, $2, 'MEMBER')::text`,
				e.heir, e.group),
				undo: []string{`REVOKE ` + e.group + ` FROM ` + e.user + ` CASCADE`, `REVOKE ` + e.group + ` FROM ` + e.heir}},
			{name: "membership", sql: []string{`GRANT ` + e.group + ` TO ` + e.user}},
			{name: "member", blocks: true, may: true, sql: []string{`GRANT ` + e.user + ` TO ` + e.heir},
				undo: []string{`REVOKE ` + e.user + ` FROM ` + e.heir}},
			{name: "policy", blocks: true, sql: []string{`CREATE POLICY p ON s.kept TO ` + e.user},
				then: is("p", `SELECT polname::text FROM pg_policy`), undo: []string{`DROP POLICY p ON s.kept`}},
			{name: "prepared transaction", blocks: true, may: true, sql: []string{`SET ROLE ` + e.user, `BEGIN`, `SELECT 1`,
				`PREPARE TRANSACTION 'p'`, `RESET ROLE`},
				then: is("p", `SELECT gid FROM pg_prepared_xacts`), undo: []string{`ROLLBACK PREPARED 'p'`}},
			{name: "login", sql: []string{`ALTER ROLE ` + e.user + ` LOGIN`}},
			{name: "protected", blocks: true, may: true, sql: []string{`GRANT ` + c.User + ` TO ` + e.user},
				undo: []string{`REVOKE ` + c.User + ` FROM ` + e.user}},
			{name: "renamed", blocks: true, sql: []string{`ALTER ROLE ` + e.user + ` RENAME TO ` + was},
				then: is("1", `SELECT count(*)::text FROM pg_roles WHERE rolname = $1`, was),
				undo: []string{`ALTER ROLE ` + was + ` RENAME TO ` + e.user}},
			{name: "another of the name", blocks: true,
				sql: []string{`ALTER ROLE ` + e.user + ` RENAME TO ` + was, `CREATE ROLE ` + e.user + ` LOGIN`, `SET ROLE ` + e.owner,
					`GRANT SELECT ON s.kept TO ` + e.user, `RESET ROLE`},
				then: func(t *testing.T, gone bool) {
					is("true", mayRead, e.user)(t, gone)
					is("true", `SELECT rolcanlogin::text FROM pg_roles WHERE rolname = $1`, e.user)(t, gone)
					is("1", `SELECT count(*)::text FROM pg_roles WHERE rolname = $1`, was)(t, gone)
				},
				undo: []string{`REVOKE ALL ON s.kept FROM ` + e.user, `DROP ROLE ` + e.user, `ALTER ROLE ` + was + ` RENAME TO ` +
					e.user}},
			{name: "drop", sql: []string{`DROP ROLE ` + e.user}},
		} {
			// One of the points, which depends on the seed and the administering role, or all of them.
			points := []string{"array(SELECT gid", "NOLOGIN", "pg_terminate_backend", "pg_advisory_xact_lock", "REVOKE ALL",
				"DROP ROLE"}
			if !pgtest.Full() {
				at := (i + pgtest.Seed(t) + 2*strings.Index("sar", prefix[len(prefix)-1:])) % len(points)
				points = points[at : at+1]
			}
			for _, point := range points {
				t.Run(m.name+" at "+point, func(t *testing.T) { e.meddle(t, c, direct, &m, point) })
			}
		}
	})
}

// meddle deletes the user while something is done as soon as it can be from a statement of the deletion on.
func (e *estate) meddle(t *testing.T, c *pgtest.Cluster, direct *pgrole.Server, m *meddling, point string) {
	e.furnish(t, direct)
	session := c.Connect(t, e.user, password, "postgres")
	meddler := c.Connect(t, c.User, c.Password, e.name)
	defer meddler.Close(t.Context())
	exec(t, meddler, `SET lock_timeout = '20ms'`)
	var mu sync.Mutex // guards what follows
	var reached, done bool
	var mode string
	s := through(t, direct, listen(t, c, func(sql string, _ int) pgtest.Verdict {
		mu.Lock()
		defer mu.Unlock()
		alone := strings.HasPrefix(sql, "WITH l AS") // the transaction before, in which it was found that there are dependencies
		reached = reached || strings.Contains(sql, point) && !alone
		if !reached || done {
			return pgtest.Pass
		}
		prepares := m.name == "prepared transaction"
		if !prepares {
			_, _ = meddler.Exec(t.Context(), `BEGIN`)
		}
		var err error
		for _, statement := range m.sql {
			if _, err = meddler.Exec(t.Context(), statement); err != nil {
				mode = err.Error()
				break
			}
		}
		if err == nil && !prepares {
			_, err = meddler.Exec(t.Context(), `COMMIT`)
		}
		if err != nil {
			_, _ = meddler.Exec(t.Context(), `ROLLBACK`)
		}
		done = err == nil
		return pgtest.Pass
	}))
	to := ""
	if m.reassign {
		to = e.heir
	}
	var err error
	for range 3 {
		if err = remove(t, s, e.user, to, nil, actor()); !fault.Is(err, fault.Unavailable) {
			break
		}
	}
	s.Pool.Close()
	mu.Lock()
	defer mu.Unlock()
	gone := !exists(t, c, e.user)
	switch {
	case err != nil && !fault.Is(err, fault.InUse) && !fault.Is(err, fault.Stale) && !fault.Is(err, fault.Forbidden) &&
		!fault.Is(err, fault.NotFound):
		t.Errorf("the answer is %v", err)
	case err == nil && !gone:
		t.Error("it is still there")
	case done && m.blocks && !m.may && err == nil:
		t.Error("it was deleted")
	case (!done || !m.blocks) && err != nil && m.name != "drop":
		t.Errorf("it was not deleted, with %v", err)
	case !done && !gone:
		t.Errorf("nobody meddled, for %s", mode)
	}
	if fault.Is(err, fault.InUse) {
		mayLogin(t, c, e.user, password)
	}
	if pgtest.Value[bool](t, c, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE usename = $1)`, e.user) && err == nil {
		t.Error("it has a session")
	}
	session.Close(t.Context())
	if done && m.then != nil {
		m.then(t, gone)
	}
	if done {
		for _, sql := range m.undo {
			if _, err := e.db.Exec(t.Context(), sql); err != nil && !gone {
				t.Errorf("%s: %v", sql, err)
			}
		}
		exec(t, e.db, `RESET ROLE`)
	}
	e.intact(t, c)
	if exists(t, c, e.user) {
		if err := remove(t, direct, e.user, "", nil, actor()); err != nil {
			t.Errorf("at the end: %v", errors.Join(err, fmt.Errorf("after %v", err)))
		}
	}
}
