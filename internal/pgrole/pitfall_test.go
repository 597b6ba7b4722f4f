package pgrole_test

import (
	"os"
	osexec "os/exec"
	"path/filepath"
	"testing"

	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

// Here is what docs/internals/pitfalls.md names and no other test has a reason to show.

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
