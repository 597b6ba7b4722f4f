package pgrole_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

func wishFor(database string, schemas ...string) pgrole.AccessRolesWish {
	return pgrole.AccessRolesWish{Database: database, Schemas: schemas}
}

func adopting(database string) pgrole.AccessRolesWish {
	return pgrole.AccessRolesWish{Database: database, Adopt: new(true)}
}

// accessRefused fails t unless both the plan and the call are refused.
func accessRefused(t testing.TB, s *pgrole.Server, wish pgrole.AccessRolesWish, kind fault.Kind, parts ...string) {
	t.Helper()
	_, err := s.PlanAccessRoles(t.Context(), wish)
	refused(t, err, kind, parts...)
	_, err = s.CompleteAccessRoles(t.Context(), wish, actor())
	refused(t, err, kind, parts...)
}

func TestAccessRolesRefusals(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		mustCreate(t, s, name)
		db := database(t, c, name, "OWNER "+name)
		exec(t, db, `CREATE SCHEMA app`)
		control := database(t, c, name+"_control", "OWNER "+name)
		control.Close(t.Context())
		withControl := *s
		withControl.ControlDatabase = name + "_control"
		accessRefused(t, &withControl, wishFor(name+"_control"), fault.NotFound)
		for _, absent := range []string{"absent", "template1", "template0"} {
			accessRefused(t, s, wishFor(absent), fault.NotFound)
			refused(t, s.RemoveAccessRoles(t.Context(), absent, "", actor()), fault.NotFound)
		}
		accessRefused(t, s, wishFor("postgres"), fault.Forbidden, "system database")
		for _, schemas := range [][]string{{"absent"}, {"pg_catalog"}, {"information_schema"}, {"*", "app"}, {""}} {
			accessRefused(t, s, wishFor(name, schemas...), fault.Invalid)
		}
		accessRefused(t, s, pgrole.AccessRolesWish{Database: name, Schemas: []string{}}, fault.Invalid)

		long := strings.Repeat("x", 58)
		accessRefused(t, s, wishFor(long), fault.Invalid, "64 bytes")
		_, err := s.CreateDatabase(t.Context(), pgrole.NewDatabase{Name: long, AccessRoles: true}, actor())
		refused(t, err, fault.Invalid, "64 bytes")

		read := name + "_read"
		c.Exec(t, `CREATE ROLE `+read+` LOGIN`)
		accessRefused(t, s, wishFor(name), fault.Invalid, read, "LOGIN")
		accessRefused(t, s, adopting(name), fault.Invalid, read, "LOGIN")
		c.Exec(t, `ALTER ROLE `+read+` NOLOGIN SUPERUSER`)
		accessRefused(t, s, adopting(name), fault.Forbidden, read, "system role")
		c.Exec(t, `ALTER ROLE `+read+` NOSUPERUSER`)
		accessRefused(t, s, wishFor(name), fault.Invalid, read, "Adopt")
		if exists(t, c, name+"_owner") || !pgtest.Value[bool](t, c, `SELECT datacl IS NULL FROM pg_database WHERE datname = $1`,
			name) {
			t.Error("a refused call has changed something")
		}
		if c.Major >= 16 && !isSuperuser(t, s) {
			accessRefused(t, s, adopting(name), fault.Forbidden, read, "WITH ADMIN OPTION")
			c.Exec(t, `GRANT `+read+` TO `+s.Pool.Config().ConnConfig.User+` WITH ADMIN OPTION`)
		}
		c.Exec(t, `COMMENT ON ROLE `+read+` IS 'of the readers'`)
		accessRoles(t, s, adopting(name))
		if got := comment(t, c, read); !strings.HasPrefix(got, "of the readers\n") {
			t.Errorf("the comment is %s", got)
		}
		exec(t, db, `RESET ROLE`)
		db.Close(t.Context())
		c.Exec(t, `ALTER DATABASE `+name+` ALLOW_CONNECTIONS false`)
		accessRefused(t, s, wishFor(name), fault.Invalid, "takes no connections", "ALLOW_CONNECTIONS true")
		all, err := s.AccessRoles(t.Context(), name)
		if err != nil || all.Complete || len(all.Roles) != 3 || !strings.Contains(all.Problems[0], "takes no connections") {
			t.Errorf("got %+v, %v", all, err)
		}
		_, err = s.AccessRoles(t.Context(), long)
		refused(t, err, fault.NotFound)
	})
}

func isSuperuser(t testing.TB, s *pgrole.Server) (super bool) {
	t.Helper()
	err := s.Pool.QueryRow(t.Context(), `SELECT rolsuper FROM pg_roles WHERE rolname = current_user`).Scan(&super)
	if err != nil {
		t.Fatal(err)
	}
	return super
}

// A database of a superuser cannot be given access roles by a role that cannot act for it.
func TestAccessRolesOfSuperusersDatabase(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		database(t, c, name)
		if isSuperuser(t, s) {
			accessRoles(t, s, adopting(name))
			return
		}
		accessRefused(t, s, adopting(name), fault.Forbidden, `"postgres"`, "ALTER DATABASE")
		if exists(t, c, name+"_owner") {
			t.Error("a refused call has made a role")
		}
	})
}

func TestAccessRolesOfManyOwners(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		mustCreate(t, s, name, name+"_b")
		c.Exec(t, `CREATE ROLE `+name+`_foreign`)
		db := database(t, c, name, "OWNER "+name)
		exec(t, db, `CREATE SCHEMA app AUTHORIZATION `+name, `CREATE SCHEMA "a""b'c; \" AUTHORIZATION `+name,
			`GRANT ALL ON SCHEMA app TO PUBLIC`, `CREATE TABLE app.a ()`, `CREATE TABLE app."b""'; \" (id serial)`,
			`CREATE TABLE app.c ()`, `CREATE TABLE app.d ()`, `CREATE TABLE app.e ()`, `CREATE TABLE "a""b'c; \".t ()`,
			`ALTER EXTENSION plpgsql ADD TABLE app.e`, `ALTER TABLE app.a OWNER TO `+name,
			`ALTER TABLE app."b""'; \" OWNER TO `+name+`_b`, `ALTER TABLE app.c OWNER TO `+name+`_foreign`,
			`ALTER TABLE "a""b'c; \".t OWNER TO `+name)
		all := accessRoles(t, s, wishFor(name))
		if got := value[bool](t, db, `SELECT relacl IS NULL FROM pg_class WHERE oid = 'app.e'::regclass`); !got {
			t.Error("a table of an extension was granted")
		}
		reads := func(table string) bool {
			return value[bool](t, db, `SELECT has_table_privilege($1, $2, 'SELECT')`, name+"_read", table)
		}
		writes := func(table string) bool {
			return value[bool](t, db, `SELECT has_table_privilege($1, $2, 'DELETE')`, name+"_write", table)
		}
		for _, table := range []string{`app.a`, `app."b""'; \"`, `"a""b'c; \".t`} {
			if !reads(table) || !writes(table) {
				t.Errorf("%s was not granted", table)
			}
		}
		super := isSuperuser(t, s)
		if reads("app.d") != super || reads("app.c") != (super || c.Major < 16) {
			t.Error("app.c or app.d was granted wrongly, or not")
		}
		problems := strings.Join(all.Problems, "\n")
		if strings.Contains(problems, `"postgres"`) == super || strings.Contains(problems, name+`_foreign`) == (super ||
			c.Major < 16) {
			t.Errorf("the problems are %s", problems)
		}
		if super {
			return
		}
		exec(t, db, `ALTER TABLE app.d OWNER TO `+name, `GRANT `+name+`_foreign TO `+s.Pool.Config().ConnConfig.User+
			` WITH ADMIN OPTION`, `ALTER SCHEMA public OWNER TO pg_database_owner`)
		if all := accessRoles(t, s, wishFor(name)); !all.Complete || !reads("app.c") || !reads("app.d") {
			t.Errorf("it is not complete: %s", all.Problems)
		}
	})
}

// With adopt, what other owners make later is covered; without it, by the next call.
func TestAccessRolesAdopt(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		mustCreate(t, s, name)
		db := database(t, c, name, "OWNER "+name)
		exec(t, db, `SET ROLE `+name, `CREATE SCHEMA app`, `CREATE TABLE app.a ()`)
		reads := func(table string) bool {
			return value[bool](t, db, `SELECT has_schema_privilege($1, split_part($2, '.', 1), 'USAGE')
				AND has_table_privilege($1, $2, 'SELECT')`, name+"_read", table)
		}
		accessRoles(t, s, wishFor(name))
		exec(t, db, `CREATE TABLE app.b ()`, `CREATE SCHEMA more`, `CREATE TABLE more.a ()`)
		if !reads("app.a") || reads("app.b") || reads("more.a") {
			t.Error("without adopt: app.a is to be readable, app.b and more.a are not")
		}
		accessRoles(t, s, adopting(name))
		exec(t, db, `CREATE TABLE app.c ()`, `CREATE SCHEMA late`, `CREATE TABLE late.a ()`)
		for _, table := range []string{"app.b", "more.a", "app.c", "late.a"} {
			if !reads(table) {
				t.Errorf("with adopt %s is not readable", table)
			}
		}
		exec(t, db, `RESET ROLE`)
		if err := s.RemoveAccessRoles(t.Context(), name, "", actor()); err != nil {
			t.Fatal(err)
		}
		if value[bool](t, db, `SELECT EXISTS (SELECT FROM pg_default_acl)`) {
			t.Error("default privileges are left")
		}
	})
}

func TestAccessRolesOfSomeSchemas(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		mustCreate(t, s, name)
		db := database(t, c, name, "OWNER "+name)
		exec(t, db, `SET ROLE `+name, `CREATE SCHEMA "größe"`, `CREATE SCHEMA other`, `CREATE TABLE other.t ()`, `RESET ROLE`)
		accessRoles(t, s, wishFor(name, "größe"))
		accessRoles(t, s, pgrole.AccessRolesWish{Database: name})
		own, write, read := withLevels(t, c, s, name)
		exec(t, own, `CREATE TABLE "größe".t (id serial)`)
		denied(t, own, `CREATE TABLE other.mine ()`)
		exec(t, write, `INSERT INTO "größe".t DEFAULT VALUES`)
		exec(t, read, `SELECT * FROM "größe".t`)
		denied(t, read, `SELECT * FROM other.t`)
		denied(t, write, `SELECT * FROM other.t`)
		accessRoles(t, s, wishFor(name, "*"))
		exec(t, read, `SELECT * FROM other.t`)
	})
}

// CREATE on the schema public, which PUBLIC has on PostgreSQL 14, is taken and comes back.
func TestAccessRolesTakeCreate(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		mustCreate(t, s, name)
		db := database(t, c, name, "OWNER "+name)
		exec(t, db, `ALTER SCHEMA public OWNER TO pg_database_owner`, `GRANT CREATE ON SCHEMA public TO PUBLIC`)
		may := func() bool { return value[bool](t, db, `SELECT has_schema_privilege('public', 'public', 'CREATE')`) }
		if all := accessRoles(t, s, wishFor(name)); !all.Complete || may() {
			t.Errorf("PUBLIC may create: %v, %s", may(), all.Problems)
		}
		if err := s.RemoveAccessRoles(t.Context(), name, "", actor()); err != nil || !may() {
			t.Errorf("PUBLIC may create: %v, %v", may(), err)
		}
		if isSuperuser(t, s) {
			return
		}
		exec(t, db, `ALTER SCHEMA public OWNER TO postgres`)
		if all := accessRoles(t, s, wishFor(name)); all.Complete || !strings.Contains(strings.Join(all.Problems, " "),
			"REVOKE CREATE ON SCHEMA") {
			t.Errorf("the problems are %q", all.Problems)
		}
	})
}

// The settings of a database and its search path do not change what is done in it, and two calls at the same time both
// succeed.
func TestAccessRolesConcurrently(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		mustCreate(t, s, name)
		db := database(t, c, name, "OWNER "+name)
		exec(t, db, `SET ROLE `+name, `CREATE SCHEMA evil`, `CREATE TABLE evil.pg_class (oid oid)`,
			`CREATE FUNCTION evil.aclexplode(aclitem[]) RETURNS int LANGUAGE sql AS 'SELECT 1 / 0'`, `RESET ROLE`)
		for _, setting := range []string{`search_path = evil, pg_catalog`, `role = '` + name + `'`, `row_security = off`,
			`statement_timeout = 1`, `default_transaction_read_only = on`, `default_transaction_isolation = serializable`} {
			c.Exec(t, `ALTER DATABASE `+name+` SET `+setting)
		}
		var calls sync.WaitGroup
		results := make([]*pgrole.AccessRoles, 3)
		for i := range results {
			calls.Go(func() {
				all, err := s.CompleteAccessRoles(t.Context(), wishFor(name), actor())
				if err != nil {
					t.Error(err)
				}
				results[i] = all
			})
		}
		calls.Wait()
		ran := 0
		for _, all := range results {
			if all != nil && len(all.Statements) > 0 {
				ran++
			}
		}
		if ran != 1 {
			t.Errorf("%d calls have run statements", ran)
		}
		accessRoles(t, s, wishFor(name))
	})
}

// A lock that others hold is waited for briefly, again and again; a call that is cut off has changed nothing.
func TestAccessRolesCutOff(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		mustCreate(t, s, name)
		db := database(t, c, name, "OWNER "+name)
		exec(t, db, `CREATE SCHEMA app AUTHORIZATION `+name, `CREATE TABLE app.t ()`, `ALTER TABLE app.t OWNER TO `+name)
		by := actor()
		waiting := func(conn *pgx.Conn) {
			t.Helper()
			const blocked = `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
				AND wait_event_type = 'Lock')`
			for !value[bool](t, conn, blocked) {
				if t.Context().Err() != nil {
					t.Fatal("nothing waits")
				}
			}
		}
		exec(t, db, `BEGIN`, `GRANT SELECT ON app.t TO pg_monitor`)
		look := c.Connect(t, c.User, c.Password, name)
		brief := impatient(t, s)
		brief.Waits.LockTry = 50 * time.Millisecond
		_, err := brief.CompleteAccessRoles(t.Context(), wishFor(name), by)
		refused(t, err, fault.Unavailable, "locked by", "Nothing was changed")
		if exists(t, c, name+"_owner") {
			t.Error("the roles are there")
		}
		done := make(chan error)
		go func() {
			_, err := s.CompleteAccessRoles(t.Context(), wishFor(name), by)
			done <- err
		}()
		waiting(look)
		exec(t, look, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()
			AND wait_event_type = 'Lock'`)
		if err := <-done; err == nil {
			t.Error("a call whose session was terminated has succeeded")
		}
		if exists(t, c, name+"_owner") {
			t.Error("the roles are there")
		}
		if own, err := s.InspectAccessRoles(t.Context(), name); own != nil || err != nil {
			t.Errorf("InspectAccessRoles: %v, %v", own, err)
		}
		go func() {
			_, err := s.CompleteAccessRoles(t.Context(), wishFor(name), by)
			done <- err
		}()
		waiting(look)
		exec(t, db, `COMMIT`)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if own, err := s.InspectAccessRoles(t.Context(), name); err != nil || own == nil || own.Provenance.Attempt != by.Attempt {
			t.Errorf("InspectAccessRoles: %+v, %v", own, err)
		}
	})
}

// What is left of a database that was being made is dropped, with the access roles that were made for it.
func TestUnfinishedDatabaseWithAccessRoles(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		by := actor()
		if _, err := s.CreateDatabase(t.Context(), pgrole.NewDatabase{Name: name, AccessRoles: true}, by); err != nil {
			t.Fatal(err)
		}
		unfinished := "rolecall_unfinished_" + by.Attempt.String()
		c.Exec(t, `ALTER DATABASE `+name+` RENAME TO "`+unfinished+`"`)
		c.Exec(t, `ALTER DATABASE "`+unfinished+`" OWNER TO `+s.Pool.Config().ConnConfig.User)
		d, err := s.InspectDatabase(t.Context(), name, by.Attempt)
		if d != nil || err != nil || exists(t, c, name+"_owner") || exists(t, c, name+"_read") {
			t.Errorf("got %+v, %v; the roles are still there: %v", d, err, exists(t, c, name+"_owner"))
		}
		// Roles of a former database that have members give nobody access to a new one.
		databaseWith(t, c, s, name)
		mustCreate(t, s, name+"_m")
		c.Exec(t, `GRANT `+name+`_write TO `+name+`_m`)
		c.Exec(t, `DROP DATABASE `+name)
		_, err = s.CreateDatabase(t.Context(), pgrole.NewDatabase{Name: name, AccessRoles: true}, actor())
		refused(t, err, fault.Invalid, name+"_m")
		c.Exec(t, `REVOKE `+name+`_write FROM `+name+`_m`)
		databaseWith(t, c, s, name)
		c.Exec(t, `DROP DATABASE `+name)
		if err := s.RemoveAccessRoles(context.Background(), name, "", actor()); err != nil || exists(t, c, name+"_owner") {
			t.Errorf("the roles of a database that is gone: %v", err)
		}
	})
}

// A connection that is lost at any statement leaves all of the access roles or none, and the same call finishes them.
func TestAccessRolesAtEachStatement(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	direct, _ := administrator(t, c)
	var mu sync.Mutex
	statements, cutAt, verdict := 0, 0, pgtest.Pass
	s := through(t, direct, listen(t, c, func(string, int) pgtest.Verdict {
		mu.Lock()
		defer mu.Unlock()
		if statements++; statements == cutAt {
			return verdict
		}
		return pgtest.Pass
	}))
	mustCreate(t, direct, "cut")
	if _, err := direct.CreateDatabase(t.Context(), pgrole.NewDatabase{Name: "cut", Owner: "cut"}, actor()); err != nil {
		t.Fatal(err)
	}
	lost, first, step := 0, 1, 1
	if !pgtest.Full() {
		step = 5 // an odd one, so that both verdicts are tried
		first += pgtest.Seed(t) % step
	}
	for n := first; ; n += step {
		mu.Lock()
		statements, cutAt, verdict = 0, n, pgtest.CutBefore+pgtest.Verdict(n%2)
		mu.Unlock()
		all, err := s.CompleteAccessRoles(t.Context(), wishFor("cut"), actor())
		mu.Lock()
		reached := statements >= n
		cutAt = 0
		mu.Unlock()
		if err != nil {
			lost++
		} else if len(all.Statements) == 0 || len(all.Roles) != 3 {
			t.Errorf("cut at statement %d it has succeeded with %+v", n, all)
		}
		count := pgtest.Value[int](t, c, `SELECT count(*) FROM pg_roles WHERE rolname IN ('cut_owner', 'cut_write', 'cut_read')`)
		if count != 0 && count != 3 {
			t.Fatalf("cut at statement %d: %d roles", n, count)
		}
		again, err := direct.CompleteAccessRoles(t.Context(), wishFor("cut"), actor())
		if err != nil || count == 3 && len(again.Statements) > 0 {
			t.Fatalf("cut at statement %d: %d roles, then %v, %v", n, count, again, err)
		}
		if err := direct.RemoveAccessRoles(t.Context(), "cut", "", actor()); err != nil {
			t.Fatal(err)
		}
		if !reached {
			break
		}
	}
	if lost == 0 {
		t.Error("no call was cut off")
	}
}

// The access roles of a database that has another name now do not become those of a new database, whose users would have
// the rights of both. An admin may adopt them.
func TestAccessRolesOfFormerDatabase(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		ctx := t.Context()
		databaseWith(t, c, s, name)
		mustCreate(t, s, name+"_u")
		t.Cleanup(func() { c.Exec(t, `DROP DATABASE IF EXISTS `+name+`_was WITH (FORCE)`) })
		c.Exec(t, `ALTER DATABASE `+name+` RENAME TO `+name+`_was`)
		withRoles := pgrole.NewDatabase{Name: name, AccessRoles: true}
		_, err := s.CreateDatabase(ctx, withRoles, actor())
		refused(t, err, fault.Invalid, "former database", name+"_owner")
		if !exists(t, c, name+"_owner") {
			t.Error("an access role of the renamed database is gone")
		}
		c.Exec(t, `ALTER DATABASE `+name+`_was RENAME TO `+name)
		if _, err := s.SetAccess(ctx, name+"_u", pgrole.Access{Database: name, Level: pgrole.Read}, nil, actor()); err != nil {
			t.Fatal(err)
		}
		c.Exec(t, `ALTER DATABASE `+name+` RENAME TO `+name+`_was`)
		_, err = s.CreateDatabase(ctx, withRoles, actor())
		refused(t, err, fault.Invalid, "has members")
		c.Exec(t, `CREATE DATABASE `+name)
		t.Cleanup(func() { c.Exec(t, `DROP DATABASE IF EXISTS `+name+` WITH (FORCE)`) })
		c.Exec(t, `ALTER DATABASE `+name+` OWNER TO `+name+`_u`)
		wish := pgrole.AccessRolesWish{Database: name}
		accessRefused(t, s, wish, fault.Invalid, "former database", name+"_owner")
		_, err = s.AccessRoles(ctx, name)
		refused(t, err, fault.NotFound)
		manager := *s
		manager.Reassignable = []string{}
		_, err = manager.CompleteAccessRoles(ctx, adopting(name), actor())
		refused(t, err, fault.Forbidden, "only an admin adopts it")
		accessRoles(t, s, adopting(name))
		if _, err := s.RemoveAccess(ctx, name+"_u", name, nil, actor()); err != nil {
			t.Error(err)
		}
	})
}

// A view runs with the rights of its owner: nobody changes or reads the catalogs, or the server's files, by a superuser's.
func TestAccessRolesLeaveViewsOfCatalogs(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		databaseWith(t, c, s, name)
		super := c.Connect(t, c.User, c.Password, name)
		exec(t, super, `CREATE VIEW roles AS SELECT * FROM pg_authid`, `CREATE SCHEMA apart`,
			`CREATE MATERIALIZED VIEW apart.again AS SELECT * FROM roles`, `CREATE VIEW apart.third AS SELECT * FROM roles`,
			`CREATE FOREIGN DATA WRAPPER file_fdw`, `CREATE SERVER files FOREIGN DATA WRAPPER file_fdw`,
			`CREATE FOREIGN TABLE log (line text) SERVER files`, `CREATE VIEW apart.lines AS SELECT * FROM log`,
			`CREATE TABLE t (i int)`, `CREATE VIEW harmless AS SELECT * FROM t`)
		all := accessRoles(t, s, pgrole.AccessRolesWish{Database: name})
		if super := isSuperuser(t, s); super != all.Complete || super != value[bool](t, c.Connect(t, c.User, c.Password, name),
			`SELECT has_table_privilege($1, 'harmless', 'UPDATE')`, name+"_write") {
			t.Errorf("complete: %v, of %v", all.Complete, all.Statements)
		}
		for _, view := range []string{"roles", "apart.again", "apart.third", "log", "apart.lines"} {
			if value[bool](t, super, `SELECT bool_or(has_table_privilege(r.oid, $1, 'SELECT, UPDATE')) FROM pg_roles r
				WHERE r.rolname = ANY ($2)`, view, []string{name + "_owner", name + "_write", name + "_read"}) {
				t.Errorf("there are rights on %s", view)
			}
		}
	})
}

// The plan and the call name the users that can connect only because PUBLIC can.
func TestAccessRolesNameLosers(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		mustCreate(t, s, name+"_maker", name+"_granted", name+"_uses")
		if _, err := s.CreateDatabase(t.Context(), pgrole.NewDatabase{Name: name, Owner: name + "_maker"},
			actor()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Exec(t, `DROP DATABASE IF EXISTS `+name+` WITH (FORCE)`) })
		c.Exec(t, `GRANT CONNECT ON DATABASE `+name+` TO `+name+`_granted`)
		c.Connect(t, name+"_uses", password, name)
		wish := pgrole.AccessRolesWish{Database: name}
		planned, err := s.PlanAccessRoles(t.Context(), wish)
		if err != nil {
			t.Fatal(err)
		}
		all, err := s.CompleteAccessRoles(t.Context(), wish, actor())
		if err != nil {
			t.Fatal(err)
		}
		for _, warning := range []string{planned.Warning, all.Warning} {
			if !strings.Contains(warning, `cannot connect: "`+name+`_uses" (has sessions now)`) ||
				strings.Contains(warning, name+"_maker") || strings.Contains(warning, name+"_granted") {
				t.Errorf("the warning is %q", warning)
			}
		}
		if again := accessRoles(t, s, wish); again.Warning != "" {
			t.Errorf("a second call warns: %q", again.Warning)
		}
	})
}

// A removal that meets a lock says whether something was changed. Which of the two it is depends on when it meets the lock.
func TestRemoveAccessRolesMeetsLock(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		databaseWith(t, c, s, name)
		mustCreate(t, s, name+"_heir")
		locking := c.Connect(t, c.User, c.Password, name)
		exec(t, locking, `SET ROLE `+name+`_owner`, `CREATE TABLE t (i int)`, `RESET ROLE`, `BEGIN`,
			`GRANT SELECT ON t TO PUBLIC`)
		err := impatient(t, s).RemoveAccessRoles(t.Context(), name, name+"_heir", actor())
		refused(t, err, fault.Unavailable, "locked by process")
		changed := strings.Contains(err.Error(), "removed only in part")
		if public := value[bool](t, c.Connect(t, c.User, c.Password, "postgres"), `SELECT EXISTS (SELECT FROM pg_database d,
			aclexplode(d.datacl) x WHERE d.datname = $1 AND x.grantee = 0 AND x.privilege_type = 'CONNECT')`,
			name); public != changed {
			t.Errorf("PUBLIC may connect: %v, and the error is %v", public, err)
		}
		exec(t, locking, `COMMIT`)
		if err := s.RemoveAccessRoles(t.Context(), name, name+"_heir", actor()); err != nil {
			t.Error(err)
		}
	})
}

// Only the database of the access roles gets back what PUBLIC had.
func TestRemoveAccessRolesOfFormerDatabase(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		databaseWith(t, c, s, name)
		mustCreate(t, s, name+"_heir")
		c.Exec(t, `ALTER DATABASE `+name+` RENAME TO `+name+`_was`)
		t.Cleanup(func() { c.Exec(t, `DROP DATABASE IF EXISTS `+name+`_was WITH (FORCE)`) })
		c.Exec(t, `CREATE DATABASE `+name)
		c.Exec(t, `REVOKE CONNECT ON DATABASE `+name+` FROM PUBLIC`)
		if err := s.RemoveAccessRoles(t.Context(), name, name+"_heir", actor()); err != nil {
			t.Fatal(err)
		}
		if value[bool](t, c.Connect(t, c.User, c.Password, "postgres"), `SELECT has_database_privilege($1, $2, 'CONNECT')`,
			name+"_heir", name) {
			t.Error("PUBLIC may connect to a database from which it was kept")
		}
	})
}
