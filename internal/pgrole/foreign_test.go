package pgrole_test

import (
	"slices"
	"strings"
	"testing"

	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

// foreignRoles makes roles and a database in a database of another encoding: their names are bytes that no statement in the
// registered database may have.
func foreignRoles(t *testing.T, c *pgtest.Cluster) {
	t.Helper()
	latin1 := database(t, c, "foreign_latin1", "ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
	exec(t, latin1, `SET client_encoding = 'UTF8'`, `CREATE ROLE "josé" LOGIN PASSWORD 'correct horse'`,
		`COMMENT ON ROLE "josé" IS 'Bücher'`, `CREATE ROLE "joså" LOGIN`, `CREATE DATABASE "lät" OWNER "joså" TEMPLATE template0`)
}

const jose, josa, lat = "jos\xe9", "jos\xe5", "l\xe4t"

// A role whose name is not text is read by the bytes that are listed of it, and can be deleted when nothing depends on it.
func TestForeignName(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	s := superuser(t, c)
	foreignRoles(t, c)
	if got := allUsers(t, s, "jos"); !slices.Equal(got, []string{josa, jose}) {
		t.Errorf("listed: %q", got)
	}
	if u, err := s.User(t.Context(), jose); err != nil || u.Name != jose {
		t.Errorf("got %+v, %v", u, err)
	}
	if d, err := s.Details(t.Context(), jose); err != nil || d.Name != jose || d.Comment != "Bücher" {
		t.Errorf("got %+v, %v", d, err)
	}
	for _, name := range []string{"josé", "jos\xe8", "jos\x00\xe9", strings.Repeat("\xe9", 64)} {
		_, err := s.User(t.Context(), name)
		refused(t, err, fault.NotFound)
		_, err = s.DropUnused(t.Context(), name, nil)
		refused(t, err, fault.NotFound)
	}
	// Concurrent lookups are batched: one such name spoils no other.
	mustCreate(t, s, "josef")
	for _, err := range together(20, func(i int) error {
		_, err := s.User(t.Context(), []string{jose, "josef"}[i%2])
		return err
	}) {
		if err != nil {
			t.Error(err)
		}
	}
	if _, err := s.DropUnused(t.Context(), jose, nil); err != nil {
		t.Fatal(err)
	}
	_, err := s.User(t.Context(), jose)
	refused(t, err, fault.NotFound)
	if got := allUsers(t, s, "jos"); !slices.Equal(got, []string{"josef", josa}) {
		t.Errorf("listed: %q", got)
	}
}

// Lists go on behind a name that is not text.
func TestForeignNameInPages(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	s := superuser(t, c)
	foreignRoles(t, c)
	for _, system := range []bool{false, true} {
		var listed, problems []string
		for more, after := true, ""; more; after = listed[len(listed)-1] {
			var page []*pgrole.Details
			var err error
			if page, more, err = s.DetailsList(t.Context(), system, after, 1); err != nil || len(page) != 1 {
				t.Fatalf("after %q: %d, %v", after, len(page), err)
			}
			listed = append(listed, page[0].Name)
		}
		for more, after := true, ""; more; after = problems[len(problems)-1] {
			var page []pgrole.PasswordProblem
			var err error
			if page, more, err = s.PasswordProblems(t.Context(), system, after, 1); err != nil {
				t.Fatalf("after %q: %v", after, err)
			}
			if len(page) == 0 {
				break
			}
			problems = append(problems, page[0].Name)
		}
		if !slices.Contains(listed, josa) || !slices.Contains(listed, jose) || !slices.IsSorted(listed) {
			t.Errorf("listed: %q", listed)
		}
		if !slices.Contains(problems, josa) {
			t.Errorf("problems: %q", problems)
		}
	}
}

// Other changes, and a deletion that takes more than DROP ROLE, are refused with SQL that gives the role another name.
func TestForeignNameRefused(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	s := superuser(t, c)
	foreignRoles(t, c)
	_, err := s.SetPassword(t.Context(), jose, password, nil, actor())
	refused(t, err, fault.Invalid, "not valid UTF-8", "ALTER ROLE %I RENAME TO")
	_, err = s.SetLimits(t.Context(), jose, pgrole.Limits{}, nil, actor())
	refused(t, err, fault.Invalid, "not valid UTF-8")
	_, _, err = s.SetRoles(t.Context(), jose, nil, nil, actor())
	refused(t, err, fault.Invalid, "not valid UTF-8")
	_, err = s.Plan(t.Context(), jose, "")
	refused(t, err, fault.Invalid, "not valid UTF-8")
	_, err = s.Delete(t.Context(), jose, "", nil, actor())
	refused(t, err, fault.Invalid, "not valid UTF-8")
	_, err = s.DropUnused(t.Context(), josa, nil) // it owns a database
	refused(t, err, fault.Invalid, "not valid UTF-8")
	c.Exec(t, strings.ReplaceAll(remedy(t, err), "new_name", "renamed"))
	if _, err := s.SetPassword(t.Context(), "renamed", password, nil, actor()); err != nil {
		t.Error(err)
	}
}

// remedy is the SQL in a refusal.
func remedy(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		t.Fatal("it was not refused")
	}
	return fault.Of(err).Message[strings.Index(fault.Of(err).Message, "DO $$"):]
}

// The same for a database; and a database whose owner has such a name can be deleted.
func TestForeignDatabase(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	s := superuser(t, c)
	foreignRoles(t, c)
	d, err := s.Database(t.Context(), lat)
	if err != nil || d.Name != lat || d.Owner != josa {
		t.Fatalf("got %+v, %v", d, err)
	}
	_, err = s.Database(t.Context(), "l\xe5t")
	refused(t, err, fault.NotFound)
	err = d.CheckName()
	refused(t, err, fault.Invalid, "not valid UTF-8", "ALTER DATABASE %I RENAME TO")
	c.Exec(t, strings.ReplaceAll(remedy(t, err), "new_name", "foreign_renamed"))
	if err := s.DropDatabase(t.Context(), "foreign_renamed", actor()); err != nil {
		t.Error(err)
	}
}

// What people write around our record survives changes, wherever it stands, and does not hide the record.
func TestNotesAroundTheRecord(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	const name = "notes_around"
	mustCreate(t, s, name)
	c.Exec(t, `DO $$ BEGIN EXECUTE format('COMMENT ON ROLE `+name+` IS %L', E'above\n' ||
		shobj_description('`+name+`'::regrole, 'pg_authid') || E'\nbelow\n\nlast'); END $$`)
	u, err := s.SetPassword(t.Context(), name, password2, nil, actor())
	if err != nil || u.Provenance.Revision != 2 {
		t.Fatalf("%+v, %v", u, err)
	}
	if got := comment(t, c, name); !strings.HasPrefix(got, "above\nbelow\n\nlast\nrolecall:v1 {") {
		t.Errorf("the comment is %q", got)
	}
	// A user that was disabled is still found by its record.
	c.Exec(t, `CREATE DATABASE notes_around_db OWNER `+name)
	if why, _, err := s.DeleteOrDisable(t.Context(), name, "", nil, actor()); err != nil || why == "" {
		t.Fatalf("%q, %v", why, err)
	}
	c.Exec(t, `DO $$ BEGIN EXECUTE format('COMMENT ON ROLE `+name+` IS %L',
		shobj_description('`+name+`'::regrole, 'pg_authid') || E'\nleft the company'); END $$`)
	d, err := s.Details(t.Context(), name)
	if err != nil || d.State != pgrole.StateDisabled || d.Comment != "above\nbelow\n\nlast\nleft the company" {
		t.Errorf("got %+v, %v", d, err)
	}
	if got := allUsers(t, s, name); len(got) != 1 {
		t.Errorf("listed: %q", got)
	}
	c.Exec(t, `DROP DATABASE notes_around_db`)
	mustDelete(t, s, name)
}
