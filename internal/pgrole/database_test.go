package pgrole_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

func TestDatabases(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	s := superuser(t, c)
	s.ControlDatabase = "control"
	for _, name := range []string{"control", "b", `"B"`, `"é"`, "a", "tpl IS_TEMPLATE true"} {
		c.Exec(t, `CREATE DATABASE `+name)
	}
	all := []string{"B", "a", "b", "postgres", "é"}
	for _, page := range []pgrole.Page{{Limit: 100}, {Limit: 5}, {Limit: 2}, {Limit: 2, Offset: 2}, {Limit: 2, Offset: 4},
		{Limit: 1, Offset: 9}} {
		want := all[min(page.Offset, 5):min(page.Offset+page.Limit, 5)]
		databases, more, err := s.Databases(t.Context(), page)
		var got []string
		for _, d := range databases {
			got = append(got, d.Name)
			if d.System() != (d.Name == "postgres") || d.Owner != "postgres" {
				t.Errorf("got %+v", d)
			}
		}
		if err != nil || !slices.Equal(got, want) || more != (page.Offset+page.Limit < 5) {
			t.Errorf("Databases(%+v) = %q, %v, %v, want %q", page, got, more, err, want)
		}
	}
	for _, hidden := range []string{"control", "template0", "template1", "tpl"} {
		_, err := s.Database(t.Context(), hidden)
		refused(t, err, fault.NotFound)
		refused(t, s.DropDatabase(t.Context(), hidden, actor()), fault.NotFound)
	}
	refused(t, s.DropDatabase(t.Context(), "postgres", actor()), fault.Forbidden)
	refused(t, s.DropDatabase(t.Context(), "absent", actor()), fault.NotFound)
	if n := pgtest.Value[int](t, c, `SELECT count(*) FROM pg_database`); n != 9 {
		t.Errorf("%d databases", n)
	}
}

func TestCreateAndDropDatabase(t *testing.T) {
	asBoth(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, owner string) {
		mustCreate(t, s, owner)
		members := memberships(t, c)
		for i, name := range []string{owner + "_db", owner + ` "quoted'; \db`} {
			by := actor()
			d, err := s.CreateDatabase(t.Context(), pgrole.NewDatabase{Name: name, Owner: owner}, by)
			if err != nil {
				t.Fatal(err)
			}
			if d.Name != name || d.Owner != owner || d.System() || d.Provenance.Attempt != by.Attempt ||
				d.Provenance.CreatedBy != account || d.Provenance.Revision != 1 {
				t.Errorf("got %+v", d)
			}
			again, err := s.Database(t.Context(), name)
			if err != nil || *again != *d {
				t.Errorf("Database gives %+v, %v; Create gave %+v", again, err, d)
			}
			if got := pgtest.Value[string](t, c, `SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = $1`,
				name); !strings.HasPrefix(got, "rolecall:v1 {") {
				t.Errorf("the comment is %s", got)
			}
			_, err = s.CreateDatabase(t.Context(), pgrole.NewDatabase{Name: name, Owner: owner}, actor())
			refused(t, err, fault.Exists)
			session := c.Connect(t, owner, password, name)
			exec(t, session, `CREATE SCHEMA mine`, `CREATE TABLE mine.t ()`)
			refused(t, remove(t, s, owner, "", nil, actor()), fault.InUse, "database")
			if i == 0 { // PostgreSQL waits five seconds for sessions to end by themselves
				refused(t, s.DropDatabase(t.Context(), name, actor()), fault.InUse)
				if err := session.Ping(t.Context()); err != nil {
					t.Errorf("the session was ended: %v", err)
				}
				if d, err := s.Database(t.Context(), name); err != nil || d.Owner != owner {
					t.Errorf("after a refused drop: %+v, %v", d, err)
				}
			}
			session.Close(t.Context())
			if err := s.DropDatabase(t.Context(), name, actor()); err != nil {
				t.Fatal(err)
			}
			refused(t, s.DropDatabase(t.Context(), name, actor()), fault.NotFound)
		}
		noNewMembership(t, c, members, owner)
		mustDelete(t, s, owner)
	})
}

func TestDatabasesThatAreRefused(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s, role := administrator(t, c)
	s.ControlDatabase = "db_ref_control"
	mustCreate(t, s, "db_ref_owner")
	c.Exec(t, `CREATE ROLE db_ref_replicator LOGIN REPLICATION; CREATE ROLE db_ref_member LOGIN IN ROLE db_ref_replicator`)
	for _, name := range []string{"", ".", "..", "postgres", "template0", "template1", "rdsadmin", "db_ref_control",
		"rolecall_unfinished_", strings.Repeat("x", 64), strings.Repeat("é", 32), "a\nb", "a\x00", "\xff"} {
		_, err := s.CreateDatabase(t.Context(), pgrole.NewDatabase{Name: name, Owner: "db_ref_owner"}, actor())
		refused(t, err, fault.Invalid)
	}
	for owner, kind := range map[string]fault.Kind{
		"absent": fault.Invalid, strings.Repeat("x", 64): fault.Invalid,
		"postgres": fault.Forbidden, role: fault.Forbidden, "db_ref_member": fault.Forbidden, "pg_monitor": fault.Forbidden,
	} {
		_, err := s.CreateDatabase(t.Context(), pgrole.NewDatabase{Name: "db_ref", Owner: owner}, actor())
		refused(t, err, kind)
	}
	if c.Major >= 16 {
		c.Exec(t, `CREATE ROLE db_ref_foreign LOGIN`)
		_, err := s.CreateDatabase(t.Context(), pgrole.NewDatabase{Name: "db_ref", Owner: "db_ref_foreign"}, actor())
		refused(t, err, fault.Forbidden)
	}
	if n := pgtest.Value[int](t, c, `SELECT count(*) FROM pg_database WHERE datname LIKE 'db\_ref%'`); n != 0 {
		t.Errorf("%d databases were made", n)
	}
	// Another's database, which it cannot take over.
	c.Exec(t, `CREATE DATABASE db_ref_super`)
	refused(t, s.DropDatabase(t.Context(), "db_ref_super", actor()), fault.Forbidden)
	c.Exec(t, `DROP DATABASE db_ref_super`)
	c.Exec(t, `ALTER ROLE `+role+` NOCREATEDB`)
	_, err := s.CreateDatabase(t.Context(), pgrole.NewDatabase{Name: "db_ref", Owner: "db_ref_owner"}, actor())
	refused(t, err, fault.Forbidden, "CREATEDB")
}

// What a CREATE DATABASE that was cut off has left is nobody's to see, and dropped when its attempt is judged.
func TestUnfinishedDatabase(t *testing.T) {
	asBoth(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, owner string) {
		mustCreate(t, s, owner)
		by := actor()
		unfinished := "rolecall_unfinished_" + by.Attempt.String()
		if _, err := s.Pool.Exec(t.Context(), `CREATE DATABASE "`+unfinished+`"`); err != nil {
			t.Fatal(err)
		}
		_, err := s.Database(t.Context(), unfinished)
		refused(t, err, fault.NotFound)
		refused(t, s.DropDatabase(t.Context(), unfinished, actor()), fault.NotFound)
		if d, err := s.InspectDatabase(t.Context(), owner, by.Attempt); err != nil || d != nil {
			t.Errorf("got %+v, %v", d, err)
		}
		if pgtest.Value[bool](t, c, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, unfinished) {
			t.Error("it is still there")
		}
		if _, err := s.CreateDatabase(t.Context(), pgrole.NewDatabase{Name: owner, Owner: owner}, by); err != nil {
			t.Fatal(err)
		}
		if d, err := s.InspectDatabase(t.Context(), owner, by.Attempt); err != nil || d == nil ||
			d.Provenance.Attempt != by.Attempt {
			t.Errorf("got %+v, %v", d, err)
		}
		if err := s.DropDatabase(t.Context(), owner, actor()); err != nil {
			t.Error(err)
		}
	})
}

func TestConcurrentCreateDatabase(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	mustCreate(t, s, "concurrent_db")
	won := 0
	for _, err := range together(4, func(int) error {
		_, err := s.CreateDatabase(t.Context(), pgrole.NewDatabase{Name: "concurrent_db", Owner: "concurrent_db"}, actor())
		return err
	}) {
		if err == nil {
			won++
		} else {
			refused(t, err, fault.Exists)
		}
	}
	if won != 1 {
		t.Errorf("%d made it", won)
	}
	if err := s.DropDatabase(t.Context(), "concurrent_db", actor()); err != nil {
		t.Error(err)
	}
}

func TestInstall(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	conn := c.Connect(t, c.User, c.Password, "postgres")
	for i, super := range []bool{false, true} {
		name := fmt.Sprintf("install_%d", i)
		for _, password := range []string{password, password2} {
			if err := pgrole.Install(t.Context(), conn, name, password, super); err != nil {
				t.Fatal(err)
			}
			mayLogin(t, c, name, password)
			if err := pgrole.InstallDatabase(t.Context(), conn, name, name); err != nil {
				t.Fatal(err)
			}
		}
		if got := pgtest.Value[bool](t, c, `SELECT rolsuper FROM pg_roles WHERE rolname = $1`, name); got != super {
			t.Errorf("superuser is %v", got)
		}
		if pgtest.Value[bool](t, c, `SELECT has_database_privilege('pg_monitor', $1, 'CONNECT')`, name) {
			t.Error("everybody may connect")
		}
		c.Exec(t, `DROP DATABASE `+name)
	}
}

// A drop that is refused takes nothing away: neither what the administering role had been granted on the database, nor its
// owner, nor its comment.
func TestRefusedDropKeepsGrants(t *testing.T) {
	asBoth(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		mustCreate(t, s, name)
		if _, err := s.CreateDatabase(t.Context(), pgrole.NewDatabase{Name: name, Owner: name}, actor()); err != nil {
			t.Fatal(err)
		}
		role := s.Pool.Config().ConnConfig.User
		owner := c.Connect(t, name, password, name)
		exec(t, owner, `REVOKE ALL ON DATABASE `+name+` FROM PUBLIC`, `GRANT CONNECT ON DATABASE `+name+` TO `+role,
			`GRANT CREATE ON DATABASE `+name+` TO `+role+` WITH GRANT OPTION`)
		described := func() string {
			return pgtest.Value[string](t, c, `SELECT concat_ws(' ', pg_get_userbyid(datdba), shobj_description(oid, 'pg_database'),
				(SELECT string_agg(x::text, ' ' ORDER BY x::text) FROM aclexplode(datacl) x WHERE x.grantee <> datdba))
				FROM pg_database WHERE datname = $1`, name)
		}
		before := described()
		refused(t, s.DropDatabase(t.Context(), name, actor()), fault.InUse, `in use, by 1 session (process `, `of "`+name+`"`)
		if after := described(); after != before {
			t.Errorf("after a refused drop: %s\nbefore: %s", after, before)
		}
		exec(t, owner, `SET application_name = 'a job'`)
		refused(t, s.DropDatabase(t.Context(), name, actor()), fault.InUse, `of "`+name+`" (a job)). End these first.`)
		owner.Close(t.Context())
		// A session that comes after the look makes the drop itself fail.
		direct := s
		if role != c.User {
			var late *pgx.Conn
			s = through(t, s, listen(t, c, func(sql string, _ int) pgtest.Verdict {
				if late == nil && strings.Contains(sql, `DROP DATABASE "`+name) {
					late = c.Connect(t, c.User, c.Password, name)
				}
				return pgtest.Pass
			}))
			refused(t, s.DropDatabase(t.Context(), name, actor()), fault.InUse)
			if late == nil {
				t.Fatal("there was no DROP DATABASE")
			}
			if after := described(); after != before {
				t.Errorf("after a failed drop: %s\nbefore: %s", after, before)
			}
			late.Close(t.Context())
		}
		if err := direct.DropDatabase(t.Context(), name, actor()); err != nil {
			t.Error(err)
		}
		mustDelete(t, direct, name)
	})
}

// What keeps a database from being dropped is named.
func TestDatabaseInUse(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, map[string]string{"max_prepared_transactions": "2", "wal_level": "logical"})
	s, _ := administrator(t, c)
	mustCreate(t, s, "busy")
	if _, err := s.CreateDatabase(t.Context(), pgrole.NewDatabase{Name: "busy", Owner: "busy"}, actor()); err != nil {
		t.Fatal(err)
	}
	owner := c.Connect(t, "busy", password, "busy")
	exec(t, owner, `BEGIN`, `CREATE TABLE t ()`, `PREPARE TRANSACTION 'half'`)
	owner.Close(t.Context())
	super := c.Connect(t, c.User, c.Password, "busy")
	exec(t, super, `CREATE SUBSCRIPTION sub CONNECTION 'host=192.0.2.1' PUBLICATION p WITH (connect = false, slot_name = NONE)`)
	refused(t, s.DropDatabase(t.Context(), "busy", actor()), fault.InUse, `1 prepared transaction ("half" of "busy")`,
		`session`, `1 subscription ("sub" of "`+c.User+`")`)
	exec(t, super, `DROP SUBSCRIPTION sub`, `ROLLBACK PREPARED 'half'`)
	super.Close(t.Context())
	if err := s.DropDatabase(t.Context(), "busy", actor()); err != nil {
		t.Error(err)
	}
}

// What belongs to the administering role is not Rolecall's to drop, unless a drop that was cut off has taken it over.
func TestDropDatabaseOfTheAdministrator(t *testing.T) {
	asBoth(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		role := s.Pool.Config().ConnConfig.User
		precious := database(t, c, name+"_precious", "OWNER", role)
		exec(t, precious, `CREATE TABLE t ()`, `COMMENT ON DATABASE `+name+`_precious IS 'ours'`)
		precious.Close(t.Context())
		refused(t, s.DropDatabase(t.Context(), name+"_precious", actor()), fault.Forbidden,
			`belongs to the system role "`+role+`"`)
		if role == c.User {
			return // a superuser takes nothing over
		}
		mustCreate(t, s, name)
		if _, err := s.CreateDatabase(t.Context(), pgrole.NewDatabase{Name: name, Owner: name}, actor()); err != nil {
			t.Fatal(err)
		}
		c.Exec(t, `COMMENT ON DATABASE `+name+` IS 'of the shop'`)
		cut := through(t, s, listen(t, c, func(sql string, _ int) pgtest.Verdict {
			if strings.Contains(sql, `DROP DATABASE "`+name) {
				return pgtest.CutBefore
			}
			return pgtest.Pass
		}))
		if err := cut.DropDatabase(t.Context(), name, actor()); err == nil {
			t.Error("it is said to be dropped")
		}
		if d, err := s.Database(t.Context(), name); err != nil || d.Owner != role {
			t.Errorf("after the cut: %+v, %v", d, err)
		}
		if err := s.DropDatabase(t.Context(), name, actor()); err != nil {
			t.Error(err)
		}
		mustDelete(t, s, name)
	})
}

// An owner that was dropped after it was looked at is no reason to speak of a user of the database's name.
func TestOwnerVanishes(t *testing.T) {
	asBoth(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		mustCreate(t, s, name)
		through := through(t, s, listen(t, c, func(sql string, _ int) pgtest.Verdict {
			if strings.Contains(sql, `RENAME TO "`+name) {
				c.Exec(t, `DROP ROLE IF EXISTS `+name)
			}
			return pgtest.Pass
		}))
		_, err := through.CreateDatabase(t.Context(), pgrole.NewDatabase{Name: name, Owner: name}, actor())
		refused(t, err, fault.Invalid, `no role "`+name+`" to own the database`)
		if n := pgtest.Value[int](t, c, `SELECT count(*)::int FROM pg_database WHERE starts_with(datname::text, 'rolecall_unf')
			AND pg_get_userbyid(datdba) = $1`, s.Pool.Config().ConnConfig.User); n != 0 && s.Pool.Config().ConnConfig.User != c.User {
			t.Errorf("%d databases are left", n)
		}
	})
}

// The template may keep databases from being made: its collations have changed with the operating system, or somebody
// has a session in it.
func TestTemplateKeepsDatabasesFromBeingMade(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	s := superuser(t, c)
	mustCreate(t, s, "template_owner")
	create := func() error {
		_, err := s.CreateDatabase(t.Context(), pgrole.NewDatabase{Name: "of_template", Owner: "template_owner"}, actor())
		return err
	}
	sitting := c.Connect(t, c.User, c.Password, "template1")
	exec(t, sitting, `SET application_name = 'sits'`)
	refused(t, create(), fault.Unavailable, "template database is in use, by 1 session (process ", `of "`+c.User+`" (sits)).`)
	problems(t, probe(t, c.Connect(t, c.User, c.Password, "postgres")),
		"while the database template1 is in use, by 1 session (process ")
	sitting.Close(t.Context())
	if c.Major >= 15 {
		c.Exec(t, `UPDATE pg_database SET datcollversion = '1.0' WHERE datname = 'template1'`)
		err := create()
		refused(t, err, fault.Invalid, "collation version mismatch", "ALTER DATABASE template1 REFRESH COLLATION VERSION")
		if wait := fault.Of(err).RetryAfter; wait != 0 {
			t.Errorf("try again after %s", wait)
		}
		problems(t, probe(t, c.Connect(t, c.User, c.Password, "postgres")), "collation version mismatch")
		c.Exec(t, `UPDATE pg_database SET datcollversion = NULL WHERE datname = 'template1'`)
	}
	if err := create(); err != nil {
		t.Error(err)
	}
}

// A database whose name begins as those that are not finished, but that somebody else has made, is shown.
func TestUnfinishedOfOthers(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s, role := administrator(t, c)
	mustCreate(t, s, "unfinished_owner")
	database(t, c, "rolecall_unfinished_hidden", "OWNER", "unfinished_owner").Close(t.Context())
	database(t, c, "rolecall_unfinished_own", "OWNER", role).Close(t.Context())
	if d, err := s.Database(t.Context(), "rolecall_unfinished_hidden"); err != nil || d.Owner != "unfinished_owner" {
		t.Errorf("got %+v, %v", d, err)
	}
	_, err := s.Database(t.Context(), "rolecall_unfinished_own")
	refused(t, err, fault.NotFound)
	if err := s.DropDatabase(t.Context(), "rolecall_unfinished_hidden", actor()); err != nil {
		t.Error(err)
	}
}
