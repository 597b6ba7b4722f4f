package pgrole_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

// dependency is one way in which something depends on a user: the statements that a superuser runs in a database to make
// it. In them "NAME" is the user, "HEIR" the role that may get what it owns, DBA an ordinary role with no tie to Rolecall,
// BASE the database.
type dependency struct {
	name  string
	since int // the PostgreSQL major that has it
	sql   []string
}

var dependencies = []dependency{
	{name: "table owned", sql: []string{`CREATE TABLE o (a int); ALTER TABLE o OWNER TO "NAME"`}},
	{name: "routine owned, heir may not create",
		sql: []string{`CREATE SCHEMA s; CREATE FUNCTION s.f() RETURNS int LANGUAGE sql ` +
			`AS 'SELECT 1'; ALTER FUNCTION s.f OWNER TO "NAME"`}},
	{name: "routine owned, heir may create",
		sql: []string{`CREATE SCHEMA s; GRANT CREATE ON SCHEMA s TO "HEIR"; CREATE FUNCTION ` +
			`s.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; ALTER FUNCTION s.f OWNER TO "NAME"`}},
	{name: "collation, statistics and dictionary",
		sql: []string{`CREATE SCHEMA s; CREATE COLLATION s.c FROM "C"; CREATE TABLE ` +
			`s.t (a int, b int); CREATE STATISTICS s.st ON a, b FROM s.t; CREATE TEXT SEARCH DICTIONARY s.d (TEMPLATE = simple)`,
			`ALTER COLLATION s.c OWNER TO "NAME"; ALTER STATISTICS s.st OWNER TO "NAME"`,
			`ALTER TEXT SEARCH DICTIONARY s.d OWNER TO "NAME"`}},
	{name: "schema owned", sql: []string{`CREATE SCHEMA s AUTHORIZATION "NAME"`}},
	{name: "schema owned with a routine",
		sql: []string{`CREATE SCHEMA s AUTHORIZATION "NAME"; CREATE FUNCTION s.f() RETURNS int ` +
			`LANGUAGE sql AS 'SELECT 1'; ALTER FUNCTION s.f OWNER TO "NAME"`}},
	{name: "schema owned, heir may create",
		sql: []string{`CREATE SCHEMA s AUTHORIZATION "NAME"; CREATE FUNCTION s.f() RETURNS ` +
			`int LANGUAGE sql AS 'SELECT 1'; ALTER FUNCTION s.f OWNER TO "NAME"`, `GRANT CREATE ON DATABASE "BASE" TO "HEIR"`}},
	{name: "database owned", sql: []string{`ALTER DATABASE "BASE" OWNER TO "NAME"; CREATE SCHEMA s AUTHORIZATION "NAME"`}},
	{name: "large object owned",
		sql: []string{`DO $$ BEGIN EXECUTE 'ALTER LARGE OBJECT ' || lo_create(0) || ' OWNER TO "NAME"'; ` +
			`END $$`}},
	{name: "type and sequence owned",
		sql: []string{`CREATE TYPE e AS ENUM ('a'); ALTER TYPE e OWNER TO "NAME"; CREATE SEQUENCE q; ` +
			`ALTER SEQUENCE q OWNER TO "NAME"`}},
	{name: "wrapper owned", sql: []string{`CREATE FOREIGN DATA WRAPPER w`, `ALTER ROLE "NAME" SUPERUSER`,
		`ALTER FOREIGN DATA WRAPPER w OWNER TO "NAME"`, `ALTER ROLE "NAME" NOSUPERUSER`}},
	{name: "event trigger owned",
		sql: []string{`CREATE FUNCTION public.ev() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN ` +
			`END'`, `CREATE EVENT TRIGGER et ON sql_drop EXECUTE FUNCTION public.ev()`, `ALTER ROLE "NAME" SUPERUSER`,
			`ALTER EVENT TRIGGER et OWNER TO "NAME"`, `ALTER ROLE "NAME" NOSUPERUSER`}},
	{name: "server owned", sql: []string{`CREATE FOREIGN DATA WRAPPER w; CREATE SERVER srv FOREIGN DATA WRAPPER w; ` +
		`GRANT USAGE ON FOREIGN DATA WRAPPER w TO "DBA"; ALTER SERVER srv OWNER TO "NAME"`}},
	{name: "server owned, heir may use the wrapper",
		sql: []string{`CREATE FOREIGN DATA WRAPPER w; CREATE SERVER srv FOREIGN DATA ` +
			`WRAPPER w; GRANT USAGE ON FOREIGN DATA WRAPPER w TO "HEIR"; ALTER SERVER srv OWNER TO "NAME"`}},
	{name: "publication owned", sql: []string{`CREATE TABLE pt (a int); CREATE PUBLICATION p FOR TABLE pt; ` +
		`ALTER PUBLICATION p OWNER TO "NAME"`}},
	{name: "publication owned, heir may create", sql: []string{`CREATE TABLE pt (a int); CREATE PUBLICATION p FOR TABLE pt; ` +
		`ALTER PUBLICATION p OWNER TO "NAME"; GRANT CREATE ON DATABASE "BASE" TO "HEIR"`}},
	{name: "publication of all tables", sql: []string{`CREATE PUBLICATION p FOR ALL TABLES`, `ALTER ROLE "NAME" SUPERUSER`,
		`ALTER PUBLICATION p OWNER TO "NAME"`, `ALTER ROLE "NAME" NOSUPERUSER`, `GRANT CREATE ON DATABASE "BASE" TO "HEIR"`}},
	{name: "publication of a schema", since: 15, sql: []string{`CREATE SCHEMA s; CREATE PUBLICATION p FOR TABLES IN SCHEMA s`,
		`ALTER ROLE "NAME" SUPERUSER`, `ALTER PUBLICATION p OWNER TO "NAME"`, `ALTER ROLE "NAME" NOSUPERUSER`,
		`GRANT CREATE ON DATABASE "BASE" TO "HEIR"`}},
	{name: "subscription owned",
		sql: []string{`CREATE SUBSCRIPTION sb CONNECTION 'dbname=nowhere password=x' PUBLICATION p WITH ` +
			`(connect = false, slot_name = NONE)`, `ALTER ROLE "NAME" SUPERUSER`, `ALTER SUBSCRIPTION sb OWNER TO "NAME"`,
			`ALTER ROLE "NAME" NOSUPERUSER`}},
	{name: "subscription owned, heir may create",
		sql: []string{`CREATE SUBSCRIPTION sb CONNECTION 'dbname=nowhere password=x' ` +
			`PUBLICATION p WITH (connect = false, slot_name = NONE)`, `ALTER ROLE "NAME" SUPERUSER`,
			`ALTER SUBSCRIPTION sb OWNER TO "NAME"`, `ALTER ROLE "NAME" NOSUPERUSER`, `GRANT CREATE ON DATABASE "BASE" TO "HEIR"`}},
	{name: "table granted", sql: []string{`CREATE TABLE g (a int); GRANT SELECT ON g TO "NAME"`}},
	{name: "column granted", sql: []string{`CREATE TABLE g (a int); GRANT SELECT (a) ON g TO "NAME"`}},
	{name: "three granted", sql: []string{`CREATE TABLE r (a int); CREATE TABLE r2 (a int); CREATE TABLE r3 (a int); ` +
		`GRANT SELECT ON r, r2, r3 TO "NAME"`}},
	{name: "schema granted", sql: []string{`CREATE SCHEMA g; GRANT USAGE ON SCHEMA g TO "NAME"`}},
	{name: "schema public granted", sql: []string{`GRANT USAGE ON SCHEMA public TO "NAME"`}},
	{name: "language granted", sql: []string{`GRANT USAGE ON LANGUAGE plpgsql TO "NAME"`}},
	{name: "wrapper granted", sql: []string{`CREATE FOREIGN DATA WRAPPER w; GRANT USAGE ON FOREIGN DATA WRAPPER w TO "NAME"`}},
	{name: "database granted", sql: []string{`GRANT CREATE ON DATABASE "BASE" TO "NAME"`}},
	{name: "tablespace granted", sql: []string{`GRANT CREATE ON TABLESPACE pg_default TO "NAME"`}},
	{name: "catalog granted", sql: []string{`GRANT SELECT ON pg_statistic TO "NAME"`}},
	{name: "parameter granted", since: 15, sql: []string{`GRANT SET ON PARAMETER work_mem TO "NAME"`}},
	{name: "default privileges", sql: []string{`ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO "NAME"`}},
	{name: "default privileges of its own",
		sql: []string{`ALTER DEFAULT PRIVILEGES FOR ROLE "NAME" GRANT SELECT ON TABLES TO ` +
			`"DBA"`}},
	{name: "large object granted",
		sql: []string{`DO $$ BEGIN EXECUTE 'GRANT SELECT ON LARGE OBJECT ' || lo_create(0) || ' TO ` +
			`"NAME"'; END $$`}},
	{name: "granted by a role of the DBA's",
		sql: []string{`CREATE TABLE d (a int); ALTER TABLE d OWNER TO "DBA"; SET ROLE "DBA"; ` +
			`GRANT SELECT ON d TO "NAME"; RESET ROLE`}},
	{name: "column granted by one who may grant no more",
		sql: []string{`CREATE TABLE d (a int, b int); GRANT SELECT (a) ON d TO ` +
			`"HEIR" WITH GRANT OPTION; SET ROLE "HEIR"; GRANT SELECT (a) ON d TO "NAME"; RESET ROLE`}},
	{name: "granted by a member of one who may grant more",
		sql: []string{`CREATE ROLE "NAME_k"; CREATE TABLE d (a int); GRANT ` +
			`SELECT, INSERT ON d TO "NAME_k" WITH GRANT OPTION; GRANT SELECT ON d TO "HEIR" WITH GRANT OPTION; SET ROLE "HEIR"; ` +
			`GRANT SELECT ON d TO "NAME"; RESET ROLE; GRANT "NAME_k" TO "HEIR"`}},
	{name: "granted by one who is a superuser now",
		sql: []string{`CREATE TABLE d (a int); GRANT SELECT ON d TO "DBA" WITH GRANT ` +
			`OPTION; SET ROLE "DBA"; GRANT SELECT ON d TO "NAME"; RESET ROLE`, `ALTER ROLE "DBA" SUPERUSER`}},
	{name: "granted by one who is a member of the owner now",
		sql: []string{`CREATE ROLE "NAME_o"; CREATE TABLE d (a int); ALTER ` +
			`TABLE d OWNER TO "NAME_o"; GRANT SELECT ON d TO "HEIR" WITH GRANT OPTION; SET ROLE "HEIR"; ` +
			`GRANT SELECT ON d TO "NAME"; RESET ROLE; GRANT "NAME_o" TO "HEIR"`}},
	{name: "publication of all sequences", since: 19, sql: []string{`CREATE PUBLICATION p FOR ALL SEQUENCES`,
		`ALTER ROLE "NAME" ` +
			`SUPERUSER`, `ALTER PUBLICATION p OWNER TO "NAME"`, `ALTER ROLE "NAME" NOSUPERUSER`,
		`GRANT CREATE ON DATABASE "BASE" TO ` +
			`"HEIR"`}},
	{name: "granted by a database user",
		sql: []string{`CREATE TABLE d (a int); ALTER TABLE d OWNER TO "HEIR"; SET ROLE "HEIR"; ` +
			`GRANT SELECT ON d TO "NAME"; RESET ROLE`}},
	{name: "granted onward", sql: []string{`CREATE TABLE d (a int); GRANT SELECT ON d TO "NAME" WITH GRANT OPTION; SET ROLE ` +
		`"NAME"; GRANT SELECT ON d TO "DBA"; RESET ROLE`}},
	{name: "user mapping",
		sql: []string{`CREATE FOREIGN DATA WRAPPER w; CREATE SERVER srv FOREIGN DATA WRAPPER w; CREATE USER ` +
			`MAPPING FOR "NAME" SERVER srv`}},
	{name: "policy", sql: []string{`CREATE TABLE pol (a int); CREATE POLICY po ON pol TO "NAME"`}},
	{name: "temporary table granted", sql: []string{`CREATE TEMP TABLE tt (a int); GRANT SELECT ON tt TO "NAME"`}},
	{name: "temporary routine granted", sql: []string{`CREATE FUNCTION pg_temp.tf() RETURNS int LANGUAGE sql AS 'SELECT 1'; ` +
		`GRANT EXECUTE ON FUNCTION pg_temp.tf TO "NAME"`}},
}

// What the plan says is what comes: where it names no blocker the deletion succeeds, and where it names one the same
// sentence refuses the deletion, before anything has changed and any session was ended.
func TestPlanIsPromise(t *testing.T) {
	asEachAlone(t, nil, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, prefix string) {
		c.Exec(t, `CREATE ROLE dba`)
		_, kind, _ := strings.Cut(t.Name(), "/")
		nth := slices.Index([]string{"superuser", "administrator", "rds"}, kind)
		for i, dep := range dependencies {
			if c.Major < dep.since {
				continue
			}
			for j, reassign := range []bool{false, true} {
				if !pgtest.Full() && (i%2 != nth%2 || (i/2)%2 != j) {
					continue // each is tried once, under one kind of administering role
				}
				t.Run(fmt.Sprintf("%s/reassign=%v", dep.name, reassign), func(t *testing.T) {
					name := fmt.Sprintf("%s_%d_%v", prefix, i, reassign)
					heir := name + "_heir"
					mustCreate(t, s, name, heir)
					conn := database(t, c, name+"_db")
					words := strings.NewReplacer(`"NAME"`, name, `"NAME_k"`, name+"_k", `"NAME_o"`, name+"_o", `"HEIR"`, heir, `"DBA"`,
						"dba", `"BASE"`, name+"_db")
					t.Cleanup(func() { undo(t, c, conn, name) })
					for _, sql := range dep.sql {
						exec(t, conn, words.Replace(sql))
					}
					to := ""
					if reassign {
						to = heir
					}
					checkPromise(t, c, s, conn, name, to)
				})
			}
		}
	})
}

// undo removes what a dependency has left behind that a database cannot be dropped with.
func undo(t testing.TB, c *pgtest.Cluster, conn *pgx.Conn, name string) {
	t.Helper()
	exec(t, conn, `DROP SUBSCRIPTION IF EXISTS sb`, `ALTER ROLE dba NOSUPERUSER`)
	if exists(t, c, name) {
		exec(t, conn, `DROP OWNED BY "`+name+`" CASCADE`, `ALTER DATABASE "`+name+`_db" OWNER TO CURRENT_USER`)
	}
}

// checkPromise compares the plan for a user with its deletion.
func checkPromise(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, conn *pgx.Conn, name, to string) {
	t.Helper()
	session := c.Connect(t, name, password, "postgres")
	before, rightsBefore := state(t, c, name), rights(t, conn, "nobody")
	p, err := s.Plan(t.Context(), name, to)
	if err != nil {
		t.Fatal(err)
	}
	err = remove(t, s, name, to, nil, actor())
	if len(p.Blockers) == 0 {
		if err != nil {
			t.Errorf("nothing was in the way, and it is refused: %v", err)
		}
		return
	}
	if err == nil {
		t.Fatalf("it was deleted, in spite of %q", p.Blockers)
	}
	for _, blocker := range p.Blockers[:min(len(p.Blockers), 10)] {
		refused(t, err, fault.InUse, strings.TrimSuffix(blocker[1:], "."), "Nothing was changed")
	}
	if state(t, c, name) != before || session.Ping(t.Context()) != nil {
		t.Error("it was changed, or its session was ended")
	}
	difference(t, rightsBefore, rights(t, conn, "nobody"))
}

// Each blocker names the database, the object and the statement after which it blocks no more.
func TestBlockersNameTheirRemedy(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	s, role := administrator(t, c)
	const name, heir = "remedy", "remedy_heir"
	mustCreate(t, s, name, heir)
	conn := database(t, c, "remedy_db")
	c.Exec(t, `CREATE ROLE remedy_dba; GRANT remedy_dba TO `+role+` WITH ADMIN OPTION`)
	for _, tt := range []struct {
		setup, remedy string
		to            string
	}{
		{setup: `CREATE TABLE a (x int); GRANT SELECT ON a TO remedy`,
			remedy: `REVOKE SELECT ON TABLE public.a FROM "remedy"`},
		{setup: `CREATE TABLE b (x int); GRANT SELECT ON b TO remedy_dba WITH GRANT OPTION; SET ROLE remedy_dba; ` +
			`GRANT SELECT ON b TO remedy; RESET ROLE; ALTER ROLE remedy_dba SUPERUSER`,
			remedy: `ALTER ROLE "remedy_dba" NOSUPERUSER`},
		{setup: `ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO remedy`, remedy: `ALTER DEFAULT PRIVILEGES ` +
			`FOR ROLE "postgres" IN SCHEMA public REVOKE ALL PRIVILEGES ON TABLES FROM "remedy"`},
		{setup: `CREATE FOREIGN DATA WRAPPER w; CREATE SERVER srv FOREIGN DATA WRAPPER w; ` +
			`CREATE USER MAPPING FOR remedy SERVER srv`,
			remedy: `DROP USER MAPPING FOR remedy SERVER srv`},
		{setup: `CREATE POLICY p ON a TO remedy`, remedy: `DROP POLICY p ON public.a`},
		{setup: `CREATE SCHEMA s AUTHORIZATION remedy`, remedy: `GRANT CREATE ON DATABASE remedy_db TO ` + role, to: heir},
		{setup: `CREATE SCHEMA s2; CREATE FUNCTION s2.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; ALTER FUNCTION s2.f OWNER TO ` +
			`remedy`, remedy: `GRANT CREATE ON SCHEMA s2 TO remedy_heir`, to: heir},
		{setup: `CREATE SERVER srv2 FOREIGN DATA WRAPPER w; ALTER SERVER srv2 OWNER TO remedy`,
			remedy: `GRANT USAGE ON FOREIGN DATA WRAPPER w TO remedy_heir`, to: heir},
	} {
		exec(t, conn, tt.setup)
		p, err := s.Plan(t.Context(), name, tt.to)
		if err != nil || len(p.Blockers) != 1 || !strings.Contains(p.Blockers[0], tt.remedy) {
			t.Errorf("after %s: %+v, %v", tt.setup, p, err)
			continue
		}
		exec(t, conn, tt.remedy)
		if p, err := s.Plan(t.Context(), name, tt.to); err != nil || len(p.Blockers) != 0 {
			t.Errorf("after %s: %+v, %v", tt.remedy, p, err)
		}
	}
	if err := remove(t, s, name, heir, nil, actor()); err != nil {
		t.Error(err)
	}
}

// A grantor who is no superuser can be become, from PostgreSQL 16 on with the ADMIN OPTION that the blocker names.
func TestGrantorThatCanBeBecome(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	s, role := administrator(t, c)
	mustCreate(t, s, "become")
	c.Exec(t, `CREATE ROLE become_dba; CREATE TABLE become_t (); ALTER TABLE become_t OWNER TO become_dba; SET ROLE become_dba;
		GRANT SELECT ON become_t TO become; RESET ROLE`)
	if c.Major >= 16 {
		remedy := `GRANT "become_dba" TO <administering role> WITH ADMIN OPTION`
		refused(t, remove(t, s, "become", "", nil, actor()), fault.InUse, remedy)
		c.Exec(t, strings.Replace(remedy, "<administering role>", role, 1)+`, INHERIT FALSE, SET FALSE`)
	}
	mustDelete(t, s, "become")
}

// Temporary objects of the user's sessions go with them, whether it owns them or not, and never block.
func TestTemporaryObjectsOfItsSessions(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		mustCreate(t, s, name, name+"_heir", name+"_other")
		conn := database(t, c, name+"_db")
		exec(t, conn, `GRANT ALL ON DATABASE `+name+`_db TO PUBLIC`)
		for _, to := range []string{"", name + "_heir"} {
			session := c.Connect(t, name, password, name+"_db")
			if to != "" {
				exec(t, conn, `CREATE TABLE kept ()`, `ALTER TABLE kept OWNER TO `+name)
			}
			exec(t, session, `CREATE TEMP TABLE tt (a text, b int PRIMARY KEY)`, `CREATE TEMP VIEW tv AS SELECT 1 AS one`,
				`CREATE FUNCTION pg_temp.tf() RETURNS int LANGUAGE sql AS 'SELECT 1'`, `CREATE TEMP SEQUENCE ts`,
				`GRANT SELECT ON tt TO `+name+`_other`)
			if p, err := s.Plan(t.Context(), name, to); err != nil || len(p.Blockers) != 0 {
				t.Errorf("got %+v, %v", p, err)
			}
			if err := remove(t, s, name, to, nil, actor()); err != nil {
				t.Error(err)
			}
			mustCreate(t, s, name)
		}
	})
}

// What a crash has left behind in a temporary schema blocks, as what it is.
func TestTemporaryObjectsOfCrashedSessions(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, map[string]string{"autovacuum": "off"})
	s := superuser(t, c)
	mustCreate(t, s, "crashed")
	conn := c.Connect(t, c.User, c.Password, "postgres")
	// As after a crash: it lies in a temporary schema, and its owner has no session.
	exec(t, conn, `CREATE TEMP TABLE left_behind ()`, `ALTER TABLE left_behind OWNER TO crashed`)
	refused(t, remove(t, s, "crashed", "", nil, actor()), fault.InUse, ".left_behind")
	exec(t, conn, `DROP TABLE left_behind`)
	mustDelete(t, s, "crashed")
}

// What owns nothing but is locked out of a database by the database's own settings is told so, and stays as it is.
func TestDatabaseSettingsKeepOut(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	mustCreate(t, s, "kept_out")
	conn := database(t, c, "kept_out_db")
	exec(t, conn, `CREATE TABLE t ()`, `GRANT SELECT ON t TO kept_out`,
		`ALTER DATABASE kept_out_db SET session_preload_libraries = 'no_such_library'`)
	before := state(t, c, "kept_out")
	refused(t, remove(t, s, "kept_out", "", nil, actor()), fault.InUse, `"kept_out_db"`, "no_such_library",
		"RESET session_preload_libraries", "Nothing was changed")
	if state(t, c, "kept_out") != before {
		t.Error("it was changed")
	}
	exec(t, conn, `ALTER DATABASE kept_out_db RESET session_preload_libraries`)
	mustDelete(t, s, "kept_out")
}

// A database that is being dropped is waited for: in the end nothing in it depends on the user.
func TestDeleteWhileDatabaseIsDropped(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	s := superuser(t, c)
	mustCreate(t, s, "dropped_db_user")
	conn := database(t, c, "dropped_db")
	exec(t, conn, `CREATE TABLE t ()`, `ALTER TABLE t OWNER TO dropped_db_user`)
	conn.Close(t.Context())
	// The mark and the lock of a DROP DATABASE in progress.
	c.Exec(t, `UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'dropped_db'`)
	refused(t, remove(t, s, "dropped_db_user", "", nil, actor()), fault.InUse, "cut off", "DROP DATABASE")
	locker := c.Connect(t, c.User, c.Password, "postgres")
	exec(t, locker, `BEGIN`, `ALTER DATABASE dropped_db RENAME TO dropped_db_`)
	s.Waits.Holders = 100 * time.Millisecond
	err := remove(t, s, "dropped_db_user", "", nil, actor())
	unavailable(t, err)
	refused(t, err, fault.Unavailable, `"dropped_db"`, "is being dropped")
	s.Waits.Holders = time.Minute
	done := make(chan error)
	go func() { done <- remove(t, s, "dropped_db_user", "", nil, actor()) }()
	waitFor(t, c, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE state = 'idle' AND query LIKE '%pg_shdepend%' AND
		query_start > $1)`, time.Now())
	// It waits for the lock already when that is free, so that there is no moment in which it is not being dropped.
	dropper, dropped := c.Connect(t, c.User, c.Password, "postgres"), make(chan error)
	go func() {
		_, err := dropper.Exec(t.Context(), `DROP DATABASE dropped_db`)
		dropped <- err
	}()
	waitFor(t, c, `SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid = $1)`, dropper.PgConn().PID())
	exec(t, locker, `ROLLBACK`)
	if err := errors.Join(<-dropped, <-done); err != nil {
		t.Error(err)
	}
}

// One transaction cannot move more tables than the server has locks for: the plan says so, and nothing has changed.
func TestReassignMoreThanTheLocks(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, map[string]string{"max_locks_per_transaction": "10", "max_connections": "20"})
	s := superuser(t, c)
	mustCreate(t, s, "many_tables", "many_tables_heir")
	c.Exec(t, `CREATE SCHEMA many AUTHORIZATION many_tables`)
	conn := c.Connect(t, c.User, c.Password, "postgres")
	for i := range 10 { // in several transactions, for they lock, too
		exec(t, conn, fmt.Sprintf(`DO $$ BEGIN FOR i IN 1..50 LOOP EXECUTE
			'SET LOCAL ROLE many_tables; CREATE TABLE many.t' || %d +
			i || ' (a int)'; END LOOP; END $$`, i*50))
	}
	before, session := state(t, c, "many_tables"), c.Connect(t, "many_tables", password, "postgres")
	refused(t, remove(t, s, "many_tables", "many_tables_heir", nil, actor()), fault.InUse, "500 tables",
		"max_locks_per_transaction", "Nothing was changed")
	if state(t, c, "many_tables") != before || session.Ping(t.Context()) != nil {
		t.Error("it was changed, or its session was ended")
	}
}

// Of two deletions that would give each other what they delete, at most one is done, and nothing is lost.
func TestCrossingDeletions(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	for range 5 {
		names := []string{"crossing_a", "crossing_b"}
		mustCreate(t, s, names...)
		for _, name := range names {
			c.Exec(t, `CREATE TABLE `+name+`_t (); ALTER TABLE `+name+`_t OWNER TO `+name)
		}
		errs := together(2, func(i int) error { return remove(t, s, names[i], names[1-i], nil, actor()) })
		var left []string
		for i, err := range errs {
			if err == nil {
				continue
			}
			left = append(left, names[i])
			mayLogin(t, c, names[i], password)
		}
		if len(left) == 0 {
			t.Fatal("both were deleted")
		}
		owners := pgtest.Value[[]string](t, c, `SELECT array_agg(DISTINCT relowner::regrole::text) FROM pg_class WHERE relname IN
			('crossing_a_t', 'crossing_b_t')`)
		for _, owner := range owners {
			if !slices.Contains(left, owner) {
				t.Errorf("%q owns a table, and %q are left", owner, left)
			}
		}
		c.Exec(t, `DROP TABLE crossing_a_t, crossing_b_t`)
		for _, name := range left {
			mustDelete(t, s, name)
		}
	}
}

// A user whose deletion has begun gets nothing any more.
func TestReassignToOneBeingDeleted(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	mustCreate(t, s, "heirless", "heirless_heir")
	c.Exec(t, `CREATE TABLE heirless_t (); ALTER TABLE heirless_t OWNER TO heirless; ALTER ROLE heirless_heir NOLOGIN;
		COMMENT ON ROLE heirless_heir IS `+
		`'rolecall:v1 {"revision":2,"attempt":"0198f3a2-0000-7000-8000-000000000001","state":"deleting"}'`)
	refused(t, remove(t, s, "heirless", "heirless_heir", nil, actor()), fault.Invalid, "being deleted itself")
}

// A deletion that meets a lock in the last of several databases has moved nothing in the first, and the user is as before.
func TestReassignMeetsLockInTheLastDatabase(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		mustCreate(t, s, name, name+"_heir")
		s.Waits = pgrole.Waits{Holders: -1, Lock: time.Millisecond, LockTry: 3 * time.Second}
		first, last := database(t, c, name+"_a"), database(t, c, name+"_b")
		for _, conn := range []*pgx.Conn{first, last} {
			exec(t, conn, `CREATE TABLE t (); ALTER TABLE t OWNER TO `+name)
		}
		exec(t, last, `SET application_name = 'dump'`, `BEGIN`, `LOCK TABLE t IN ACCESS SHARE MODE`)
		err := remove(t, s, name, name+"_heir", nil, actor())
		unavailable(t, err)
		refused(t, err, fault.Unavailable, fmt.Sprintf(`table public.t in database "%s_b" is locked by process %d`, name,
			last.PgConn().PID()),
			`application "dump"`, "Nothing was changed")
		mayLogin(t, c, name, password)
		if owner := value[string](t, first, `SELECT relowner::regrole::text FROM pg_class WHERE relname = 't'`); owner != name {
			t.Errorf("the table went to %s", owner)
		}
		exec(t, last, `ROLLBACK`)
		if err := remove(t, s, name, name+"_heir", nil, actor()); err != nil {
			t.Error(err)
		}
	})
}

// Privileges in any number are revoked in portions, each in one round trip.
func TestDeleteWithManyGrants(t *testing.T) {
	asBoth(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		mustCreate(t, s, name, name+"_owner")
		conn := database(t, c, name+"_db")
		// In portions, because each transaction locks what it makes.
		exec(t, conn, `SET ROLE `+name+`_owner`, `DO $$ BEGIN FOR i IN 1..11000 LOOP
			EXECUTE 'GRANT SELECT ON LARGE OBJECT ' || lo_create(0) || ' TO `+name+`';
			IF i % 500 = 0 THEN COMMIT; END IF; END LOOP; END $$`, `RESET ROLE`)
		if p, err := s.Plan(t.Context(), name, ""); err != nil || len(p.Blockers) != 0 ||
			p.Databases[0].Privileges.Count != 11000 {
			t.Errorf("got %+v, %v", p, err)
		}
		mustDelete(t, s, name)
	})
}
