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

// effective is what a user can do, by the name of the database.
func effective(t testing.TB, s *pgrole.Server, name string) (*pgrole.Effective, map[string]pgrole.EffectiveDatabase) {
	t.Helper()
	e, err := s.EffectiveAccess(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	databases := map[string]pgrole.EffectiveDatabase{}
	for _, d := range e.Databases {
		databases[d.Database] = d
	}
	return e, databases
}

func counts(d pgrole.EffectiveDatabase) string {
	var all []string
	for _, g := range d.Grants {
		all = append(all, fmt.Sprintf("%s %s %d", g.Kind, g.Privilege, g.Count))
	}
	return strings.Join(all, ", ")
}

// pathOf is a membership as text.
func pathOf(e *pgrole.Effective, role string) string {
	for _, m := range e.Memberships {
		if m.Role == role {
			return fmt.Sprintf("%s inherit %v set %v", strings.Join(m.Path, " > "), m.Inherit, m.Set)
		}
	}
	return "none"
}

func TestEffectiveAccess(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		direct, indirect, other := name+"_direct", name+"_indirect", name+"_other"
		for _, db := range []string{direct, indirect, other} {
			withAccess(t, c, s, db)
		}
		team, admins := name+"_team", name+"_admins"
		groups(t, s, team, admins)
		mustCreate(t, s, name)
		for _, a := range []pgrole.Access{{Database: direct, Level: pgrole.Own}, {Database: indirect, Level: pgrole.Read}} {
			if _, err := s.SetAccess(t.Context(), name, a, nil, actor()); err != nil {
				t.Fatal(err)
			}
		}
		c.Exec(t, `GRANT `+indirect+`_write TO `+admins+`; GRANT `+admins+` TO `+team+`; GRANT `+team+` TO `+name)
		otherLevel := pgrole.Level("")
		if c.Major >= 16 {
			c.Exec(t, `GRANT `+other+`_owner TO `+name+` WITH INHERIT FALSE, SET FALSE, ADMIN TRUE;
				GRANT `+other+`_read TO `+name+` WITH INHERIT FALSE, SET TRUE`)
			otherLevel = pgrole.Read
		}
		exec(t, c.Connect(t, c.User, c.Password, indirect), `GRANT SELECT, INSERT ON t TO `+name,
			`CREATE TABLE "TABLE T" (i int, j int)`, `GRANT SELECT ON "TABLE T" TO `+name,
			`GRANT UPDATE (i, j) ON "TABLE T" TO `+name, `CREATE SEQUENCE s`, `GRANT USAGE ON SEQUENCE s TO `+name,
			`CREATE SCHEMA a`, `CREATE SCHEMA b`, `GRANT USAGE ON SCHEMA a, b TO `+name,
			`CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'`, `GRANT EXECUTE ON FUNCTION f TO `+name,
			`CREATE TYPE e AS ENUM ('x')`, `GRANT USAGE ON TYPE e TO `+name, `GRANT USAGE ON LANGUAGE sql TO `+name,
			`CREATE FOREIGN DATA WRAPPER w`, `CREATE SERVER v FOREIGN DATA WRAPPER w`,
			`GRANT USAGE ON FOREIGN DATA WRAPPER w TO `+name, `GRANT USAGE ON FOREIGN SERVER v TO `+name,
			`SELECT lo_create(4711)`, `GRANT SELECT ON LARGE OBJECT 4711 TO `+name,
			`ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO `+name,
			`ALTER DEFAULT PRIVILEGES IN SCHEMA a GRANT SELECT ON TABLES TO `+name,
			`ALTER DEFAULT PRIVILEGES GRANT USAGE ON SCHEMAS TO `+name,
			`GRANT CREATE, TEMPORARY ON DATABASE `+indirect+` TO `+name, `CREATE TABLE mine ()`,
			`ALTER TABLE mine OWNER TO `+name, `GRANT SELECT ON mine TO `+team, `CREATE VIEW m2 AS SELECT`,
			`ALTER VIEW m2 OWNER TO `+name, `ALTER SCHEMA b OWNER TO `+name, `CREATE TABLE k ()`,
			// What others are granted is not counted; the second default is for k.
			`GRANT SELECT ON k TO `+team+`, PUBLIC`)
		e, databases := effective(t, s, name)
		if e.Username != name {
			t.Errorf("got %+v", e)
		}
		for role, want := range map[string]string{
			direct + "_owner":   direct + "_owner inherit true set true",
			indirect + "_read":  indirect + "_read inherit true set true",
			indirect + "_write": team + " > " + admins + " > " + indirect + "_write inherit true set true",
			team:                team + " inherit true set true",
			"absent":            "none",
		} {
			if got := pathOf(e, role); got != want {
				t.Errorf("%s: %s", role, got)
			}
		}
		if got, want := pathOf(e, other+"_read"), other+"_read inherit false set true"; c.Major >= 16 && got != want {
			t.Errorf("got %s", got)
		}
		if got, want := pathOf(e, other+"_owner"), other+"_owner inherit false set false"; c.Major >= 16 && got != want {
			t.Errorf("got %s", got)
		}
		if d := databases[direct]; d.Level != pgrole.Own || !slices.Equal(d.Via, []string{direct + "_owner"}) || !d.Connect ||
			d.Problem != "" || len(d.Grants) > 0 {
			t.Errorf("got %+v", d)
		}
		if d := databases[other]; d.Level != otherLevel || d.Connect || len(d.Grants) > 0 {
			t.Errorf("got %+v", d)
		}
		if d := databases["postgres"]; d.Level != "" || d.Via != nil || !d.Connect || d.Problem != "" || len(d.Grants) > 0 {
			t.Errorf("got %+v", d)
		}
		d := databases[indirect]
		if d.Level != pgrole.Write || !slices.Equal(d.Via, []string{team, admins, indirect + "_write"}) || !d.Connect ||
			d.Problem != "" {
			t.Errorf("got %+v", d)
		}
		if got, want := counts(d),
			"column UPDATE 2, database CREATE 1, database TEMPORARY 1, default privileges on schemas USAGE "+
				"1, default privileges on tables SELECT 2, foreign data wrapper USAGE 1, foreign server USAGE 1, function EXECUTE 1, "+
				"language USAGE 1, large object SELECT 1, schema OWNER 1, schema USAGE 1, sequence USAGE 1, table INSERT 1, table "+
				"OWNER 2, table SELECT 3, type USAGE 1"; got != want {
			t.Errorf("got %s", got)
		}
	})
}

// A member up to PostgreSQL 15 decides itself whether it inherits; from 16 on each membership does.
func TestEffectiveWithoutInherit(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	const name = "effective_noinherit"
	withAccess(t, c, s, name+"_db")
	c.Exec(t, `CREATE ROLE `+name+` LOGIN NOINHERIT IN ROLE `+name+`_db_write; CREATE ROLE `+name+`_a; CREATE ROLE `+name+`_b;
		GRANT `+name+`_a TO `+name+`; GRANT `+name+`_b TO `+name+`_a`)
	e, databases := effective(t, s, name)
	for _, role := range []string{name + "_db_write", name + "_a"} {
		if got, want := pathOf(e, role), role+" inherit false set true"; got != want {
			t.Errorf("%s: %s", role, got)
		}
	}
	if got, want := pathOf(e, name+"_b"), name+"_a > "+name+"_b inherit false set true"; got != want {
		t.Errorf("got %s", got)
	}
	if d := databases[name+"_db"]; d.Level != pgrole.Write || d.Connect {
		t.Errorf("got %+v", d)
	}
}

// A database that cannot be looked into has a problem, and the others are shown.
func TestEffectiveProblems(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	s, adm := administrator(t, c)
	withAccess(t, c, s, "fine_db")
	for _, db := range []string{"closed_db", "refusing_db", "limited_db", "broken_db"} {
		conn := database(t, c, db)
		exec(t, conn, `CREATE TABLE t ()`)
		if db == "closed_db" {
			mustCreate(t, s, "shown", "shown_super")
		}
		exec(t, conn, `GRANT SELECT ON t TO shown`)
		conn.Close(t.Context())
	}
	c.Exec(t, `ALTER DATABASE closed_db ALLOW_CONNECTIONS false; ALTER DATABASE limited_db CONNECTION LIMIT 0;
		REVOKE CONNECT ON DATABASE refusing_db FROM PUBLIC;
		ALTER DATABASE broken_db SET session_preload_libraries = 'absent_library'; ALTER ROLE shown_super CREATEROLE`)
	if _, err := s.SetAccess(t.Context(), "shown", pgrole.Access{Database: "fine_db", Level: pgrole.Read}, nil,
		actor()); err != nil {
		t.Fatal(err)
	}
	_, databases := effective(t, s, "shown")
	for db, part := range map[string]string{"closed_db": "no connections", "limited_db": "no connections",
		"refusing_db": "42501", "broken_db": "58P01"} {
		if d, ok := databases[db]; !ok || !strings.Contains(d.Problem, part) || len(d.Grants) > 0 {
			t.Errorf("%s: %+v", db, d)
		}
	}
	if d := databases["fine_db"]; d.Level != pgrole.Read || d.Problem != "" {
		t.Errorf("got %+v", d)
	}
	// Protected users are shown, what is no user is not.
	for _, user := range []string{c.User, adm, "shown_super"} {
		effective(t, s, user)
	}
	for _, role := range []string{"fine_db_read", "absent", "", "a\x00b"} {
		_, err := s.EffectiveAccess(t.Context(), role)
		refused(t, err, fault.NotFound)
	}
}

// BenchmarkEffective is a user with privileges on 5,000 tables of 40 schemas. The answer is to take less than a second.
func BenchmarkEffective(b *testing.B) {
	c := pgtest.New(b, nil)
	s := superuser(b, c)
	conn := database(b, c, "large_db")
	mustCreate(b, s, "large_user")
	exec(b, conn, `DO $$ BEGIN
		FOR s IN 1..40 LOOP EXECUTE format('CREATE SCHEMA s%s', s);
		  FOR t IN 1..125 LOOP EXECUTE format('CREATE TABLE s%s.t%s (i int)', s, t); END LOOP;
		  EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA s%s TO large_user', s);
		END LOOP; END $$`)
	for b.Loop() {
		e, err := s.EffectiveAccess(b.Context(), "large_user")
		if err != nil {
			b.Fatal(err)
		}
		if d := e.Databases[0]; d.Problem != "" || len(d.Grants) != 4 || d.Grants[0].Count != 5000 {
			b.Fatalf("got %+v", d)
		}
	}
}
