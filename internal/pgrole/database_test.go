package pgrole_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

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
		refused(t, s.DropDatabase(t.Context(), hidden), fault.NotFound)
	}
	refused(t, s.DropDatabase(t.Context(), "postgres"), fault.Forbidden)
	refused(t, s.DropDatabase(t.Context(), "absent"), fault.NotFound)
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
			d, err := s.CreateDatabase(t.Context(), name, owner, by)
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
			_, err = s.CreateDatabase(t.Context(), name, owner, actor())
			refused(t, err, fault.Exists)
			session := c.Connect(t, owner, password, name)
			exec(t, session, `CREATE SCHEMA mine`, `CREATE TABLE mine.t ()`)
			refused(t, remove(t, s, owner, "", nil, actor()), fault.InUse, "database")
			if i == 0 { // PostgreSQL waits five seconds for sessions to end by themselves
				refused(t, s.DropDatabase(t.Context(), name), fault.InUse)
				if err := session.Ping(t.Context()); err != nil {
					t.Errorf("the session was ended: %v", err)
				}
				if d, err := s.Database(t.Context(), name); err != nil || d.Owner != owner {
					t.Errorf("after a refused drop: %+v, %v", d, err)
				}
			}
			session.Close(t.Context())
			if err := s.DropDatabase(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			refused(t, s.DropDatabase(t.Context(), name), fault.NotFound)
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
		_, err := s.CreateDatabase(t.Context(), name, "db_ref_owner", actor())
		refused(t, err, fault.Invalid)
	}
	for owner, kind := range map[string]fault.Kind{
		"absent": fault.Invalid, "": fault.Invalid, strings.Repeat("x", 64): fault.Invalid,
		"postgres": fault.Forbidden, role: fault.Forbidden, "db_ref_member": fault.Forbidden, "pg_monitor": fault.Forbidden,
	} {
		_, err := s.CreateDatabase(t.Context(), "db_ref", owner, actor())
		refused(t, err, kind)
	}
	if c.Major >= 16 {
		c.Exec(t, `CREATE ROLE db_ref_foreign LOGIN`)
		_, err := s.CreateDatabase(t.Context(), "db_ref", "db_ref_foreign", actor())
		refused(t, err, fault.Forbidden)
	}
	if n := pgtest.Value[int](t, c, `SELECT count(*) FROM pg_database WHERE datname LIKE 'db\_ref%'`); n != 0 {
		t.Errorf("%d databases were made", n)
	}
	// Another's database, which it cannot take over.
	c.Exec(t, `CREATE DATABASE db_ref_super`)
	refused(t, s.DropDatabase(t.Context(), "db_ref_super"), fault.Forbidden)
	c.Exec(t, `DROP DATABASE db_ref_super`)
	c.Exec(t, `ALTER ROLE `+role+` NOCREATEDB`)
	_, err := s.CreateDatabase(t.Context(), "db_ref", "db_ref_owner", actor())
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
		refused(t, s.DropDatabase(t.Context(), unfinished), fault.NotFound)
		if d, err := s.InspectDatabase(t.Context(), owner, by.Attempt); err != nil || d != nil {
			t.Errorf("got %+v, %v", d, err)
		}
		if pgtest.Value[bool](t, c, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, unfinished) {
			t.Error("it is still there")
		}
		if _, err := s.CreateDatabase(t.Context(), owner, owner, by); err != nil {
			t.Fatal(err)
		}
		if d, err := s.InspectDatabase(t.Context(), owner, by.Attempt); err != nil || d == nil ||
			d.Provenance.Attempt != by.Attempt {
			t.Errorf("got %+v, %v", d, err)
		}
		if err := s.DropDatabase(t.Context(), owner); err != nil {
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
		_, err := s.CreateDatabase(t.Context(), "concurrent_db", "concurrent_db", actor())
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
	if err := s.DropDatabase(t.Context(), "concurrent_db"); err != nil {
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
