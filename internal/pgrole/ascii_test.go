package pgrole_test

import (
	"slices"
	"strings"
	"testing"

	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

// A database in SQL_ASCII stores any bytes as they come. Registered over one, Rolecall works as over one in UTF8, also
// beside names and comments that are not UTF-8.
func TestRegisteredDatabaseInSQLASCII(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	database(t, c, "ascii", "ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
	foreignRoles(t, c)
	s := superuser(t, c)
	config := s.Pool.Config()
	config.ConnConfig.Database = "ascii"
	s.Pool = pool(t, config)

	const name = "jürgen 🙂"
	mustCreate(t, s, name, "heir ñ")
	c.Exec(t, `DO $$ BEGIN EXECUTE format('COMMENT ON ROLE "`+name+`" IS %L', repeat('é', 1500) || E'\n' ||
		shobj_description('"`+name+`"'::regrole, 'pg_authid')); END $$`)
	if u, err := s.SetPassword(t.Context(), name, password2, nil, actor()); err != nil || u.Provenance.Revision != 2 {
		t.Errorf("got %+v, %v", u, err)
	}
	mayLogin(t, c, name, password2)
	if got := comment(t, c, name); !strings.HasPrefix(got, strings.Repeat("é", 1500)+"\nrolecall:v1 {") {
		t.Errorf("the comment is %q", got)
	}
	if d, err := s.Details(t.Context(), name); err != nil || d.Comment != strings.Repeat("é", 1500) {
		t.Errorf("got %+v, %v", d, err)
	}
	if got := allUsers(t, s, "j"); !slices.Equal(got, []string{josa, jose, name}) {
		t.Errorf("listed: %q", got)
	}
	if d, err := s.Details(t.Context(), jose); err != nil || d.Name != jose || d.Comment != "Bücher" {
		t.Errorf("got %+v, %v", d, err)
	}
	if list, _, err := s.DetailsList(t.Context(), true, "", 100); err != nil || len(list) < 4 {
		t.Errorf("listed: %d, %v", len(list), err)
	}
	if list, _, err := s.PasswordProblems(t.Context(), true, "", 100); err != nil || len(list) == 0 {
		t.Errorf("listed: %d, %v", len(list), err)
	}
	if _, err := s.Userlist(t.Context()); err != nil {
		t.Error(err)
	}
	_, err := s.SetPassword(t.Context(), jose, password, nil, actor())
	refused(t, err, fault.Invalid, "not valid UTF-8", "ALTER ROLE %I RENAME TO")
	if _, err := s.DropUnused(t.Context(), jose, nil); err != nil {
		t.Error(err)
	}
	exec(t, c.Connect(t, c.User, c.Password, "ascii"), `CREATE SCHEMA "schön" AUTHORIZATION "`+name+`"`)
	refused(t, remove(t, s, name, "", nil, actor()), fault.InUse, "schön")
	if err := remove(t, s, name, "heir ñ", nil, actor()); err != nil {
		t.Error(err)
	}
	if _, err := s.CreateDatabase(t.Context(), pgrole.NewDatabase{Name: "größe", Owner: "heir ñ"}, actor()); err != nil {
		t.Error(err)
	}
	databases, _, err := s.Databases(t.Context(), pgrole.Page{Limit: 100})
	if err != nil || len(databases) < 4 {
		t.Errorf("databases: %+v, %v", databases, err)
	}
	if err := s.DropDatabase(t.Context(), "größe", actor()); err != nil {
		t.Error(err)
	}
	exec(t, c.Connect(t, c.User, c.Password, "ascii"), `DROP SCHEMA "schön"`)
	mustDelete(t, s, "heir ñ")
	if _, err := pgrole.Probe(t.Context(), c.Connect(t, c.User, c.Password, "ascii"), pgrole.Purpose{}); err != nil {
		t.Error(err)
	}
}
