package pgrole_test

import (
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"

	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
	"rolecall/internal/sqlstate"
)

// Here is what docs/internals/pitfalls.md names and no other test has a reason to show.

// TestDocumentedGroups makes the roles for users that docs/clusters.md gives, and does with them what it promises.
func TestDocumentedGroups(t *testing.T) {
	t.Parallel()
	documented := documentedSQL(t, "## Roles for users")
	setup, inShop, found := strings.Cut(documented[0], "\\connect shop\n")
	if len(documented) != 2 || !found {
		t.Fatalf("the documents have %q", documented)
	}
	pgtest.EachMajor(t, []int{14, 15, 18}, func(t *testing.T, major int) {
		c := pgtest.NewMajor(t, major, nil)
		c.Exec(t, `CREATE ROLE rolecall_admin LOGIN CREATEROLE PASSWORD 'administrator'`)
		exec(t, c.Connect(t, c.User, c.Password, "postgres"), strings.SplitAfter(strings.TrimSpace(setup), ";\n")...)
		shop := c.Connect(t, c.User, c.Password, "shop")
		exec(t, shop, inShop, `RESET ROLE`)
		groups := []string{"shop_owner", "shop_write", "shop_read"}
		if c.Major >= 16 {
			c.Exec(t, `GRANT `+strings.Join(groups, ", ")+` TO rolecall_admin WITH ADMIN TRUE, INHERIT FALSE, SET FALSE`)
		}
		s := serverAs(t, c, "rolecall_admin", "administrator")
		for user, group := range map[string]string{"migrate": "shop_owner", "app": "shop_write", "report": "shop_read"} {
			mustCreate(t, s, user)
			mustSetRoles(t, s, user, []string{group}, groups)
		}
		exec(t, c.Connect(t, "migrate", password, "shop"), documented[1])
		exec(t, c.Connect(t, "migrate", password, "shop"), `CREATE TABLE items (id serial, name text)`)
		app, report := c.Connect(t, "app", password, "shop"), c.Connect(t, "report", password, "shop")
		exec(t, app, `INSERT INTO items (name) VALUES ('of app')`)
		if n := value[int](t, report, `SELECT count(*) FROM items`); n != 1 {
			t.Errorf("report sees %d rows", n)
		}
		for name, err := range map[string]error{
			"app makes a table":    second(app.Exec(t.Context(), `CREATE TABLE mine ()`)),
			"report writes":        second(report.Exec(t.Context(), `INSERT INTO items (name) VALUES ('of report')`)),
			"report reads secrets": second(report.Exec(t.Context(), `SELECT rolpassword FROM pg_authid`)),
		} {
			if !sqlstate.Is(err, sqlstate.InsufficientPrivilege) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, user := range []string{"migrate", "app", "report"} {
			mustDelete(t, s, user)
		}
		if owner := value[string](t, shop,
			`SELECT relowner::regrole::text FROM pg_class WHERE oid = 'items'::regclass`); owner != "shop_owner" {
			t.Errorf("the table belongs to %s", owner)
		}
		// Whoever is in no group: up to PostgreSQL 14 the schema public is everybody's.
		mustCreate(t, s, "nobody_yet")
		plain := c.Connect(t, "nobody_yet", password, "postgres")
		if _, err := plain.Exec(t.Context(), `CREATE TABLE in_public ()`); (err == nil) != (c.Major == 14) {
			t.Errorf("CREATE TABLE in the schema public: %v", err)
		}
	})
}

func second[T any](_ T, err error) error { return err }

// Tablespaces are owned by roles, as databases are, and DROP OWNED would leave both.
func TestTablespaceIsReassigned(t *testing.T) {
	asBoth(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		to := name + "_to"
		mustCreate(t, s, name, to)
		// An empty folder that belongs to the server's OS user: a copy of one that the server has made.
		dir := c.DataDir + "-" + name
		if out, err := osexec.Command("cp", "-a", filepath.Join(c.DataDir, "pg_twophase"), dir).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		c.Exec(t, `CREATE TABLESPACE `+name+` OWNER `+name+` LOCATION '`+dir+`'`)
		t.Cleanup(func() { c.Exec(t, `DROP TABLESPACE `+name) })
		refused(t, remove(t, s, name, "", nil, actor()), fault.InUse, "tablespace "+name)
		if err := remove(t, s, name, to, nil, actor()); err != nil {
			t.Fatal(err)
		}
		if owner := pgtest.Value[string](t, c, `SELECT pg_get_userbyid(spcowner)::text FROM pg_tablespace WHERE spcname = $1`,
			name); owner != to {
			t.Errorf("it belongs to %s", owner)
		}
	})
}

// A restored cluster has its roles and what is known of them as they were: there is nothing beside them to disagree.
func TestRestored(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	mustCreate(t, s, "restored")
	first, err := s.User(t.Context(), "restored")
	if err != nil {
		t.Fatal(err)
	}
	verifier, commented := pgtest.Value[string](t, c, `SELECT rolpassword FROM pg_authid WHERE rolname = 'restored'`),
		comment(t, c, "restored")
	later, err := s.SetPassword(t.Context(), "restored", password2, nil, actor())
	if err != nil {
		t.Fatal(err)
	}
	c.Exec(t, `DROP ROLE restored; CREATE ROLE restored LOGIN PASSWORD '`+verifier+`'; COMMENT ON ROLE restored IS '`+commented+
		`'`) // as pg_dumpall writes it
	if now, err := s.User(t.Context(), "restored"); err != nil || now.Revision() != first.Revision() ||
		now.Provenance != first.Provenance {
		t.Errorf("got %+v, %v, want %+v", now, err, first)
	}
	mayLogin(t, c, "restored", password)
	// Who has seen what came after the backup is told that it is gone.
	_, err = s.SetPassword(t.Context(), "restored", password2, etag.Match{later.Revision()}, actor())
	refused(t, err, fault.Stale)
	if _, err := s.SetPassword(t.Context(), "restored", password2, etag.Match{first.Revision()}, actor()); err != nil {
		t.Error(err)
	}
}

// A name that was dropped and made again is another user to whoever has seen the first.
func TestNameIsUsedAgain(t *testing.T) {
	asBoth(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		first, err := s.Create(t.Context(), name, password, actor())
		if err != nil {
			t.Fatal(err)
		}
		mustDelete(t, s, name)
		mustCreate(t, s, name)
		before := state(t, c, name)
		_, err = s.SetPassword(t.Context(), name, password2, etag.Match{first.Revision()}, actor())
		refused(t, err, fault.Stale)
		refused(t, remove(t, s, name, "", etag.Match{first.Revision()}, actor()), fault.Stale)
		if state(t, c, name) != before {
			t.Error("it was changed")
		}
	})
}

// What an extension has against a password, or whatever else, is a refusal of the cluster, and not a failure of Rolecall.
func TestRefusedByAnExtension(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, map[string]string{"shared_preload_libraries": "passwordcheck"})
	s := superuser(t, c)
	mustCreate(t, s, "refused_by_one")
	_, err := s.SetPassword(t.Context(), "refused_by_one", "refused_by_one", nil, actor())
	refused(t, err, fault.Invalid, "an extension in it", "password must not equal user name", "SQLSTATE 22023")
	if pgrole.Uncertain(err) {
		t.Errorf("%v may have been done", err)
	}
}
