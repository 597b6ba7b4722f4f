package pgrole_test

import (
	"strconv"
	"strings"
	"testing"

	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

// TestLongComment writes a long comment on a user. Little of it is read, and the user can be changed.
func TestLongComment(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		mustCreate(t, s, name)
		c.Exec(t, `DO $$ BEGIN EXECUTE 'COMMENT ON ROLE `+name+` IS ' || quote_literal('of the shop' || repeat('é', 20000) ||
			E'\n' || shobj_description('`+name+`'::regrole, 'pg_authid')); END $$`)
		d, err := s.Details(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(d.Comment, "of the shop") || len(d.Comment) > 8192 || !d.Provenance.Managed() {
			t.Errorf("%d bytes of the comment, %+v", len(d.Comment), d.Provenance)
		}
		list, _, err := s.DetailsList(t.Context(), false, "", 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range list {
			if u.Name == name && (len(u.Comment) > 4096 || !u.Provenance.Managed()) {
				t.Errorf("in a list: %d bytes of the comment, %+v", len(u.Comment), u.Provenance)
			}
		}
		if _, err := s.SetPassword(t.Context(), name, password2, nil, actor()); err != nil {
			t.Fatal(err)
		}
		if got := comment(t, c, name); !strings.HasPrefix(got, "of the shop") || len(got) > 2*8192 {
			t.Errorf("the comment has %d bytes", len(got))
		}

		// The server would have to hold all of a longer one, so that is not read.
		c.Exec(t, `DO $$ BEGIN EXECUTE 'COMMENT ON ROLE `+name+` IS ' || quote_literal(repeat('é', 50000)); END $$`)
		const unread = "This comment has 100000 bytes and is not read."
		if d, err = s.Details(t.Context(), name); err != nil || d.Comment != unread {
			t.Errorf("the comment is %.100q, %v", d.Comment, err)
		}
		if list, _, err = s.DetailsList(t.Context(), false, "", 1000); err != nil {
			t.Fatal(err)
		}
		for _, u := range list {
			if u.Name == name && u.Comment != unread {
				t.Errorf("in a list: %.100q", u.Comment)
			}
		}
		if _, err := s.SetPassword(t.Context(), name, password, nil, actor()); err != nil {
			t.Fatal(err)
		}
		if got := comment(t, c, name); !strings.HasPrefix(got, unread+"\nrolecall:v1 {") {
			t.Errorf("the comment is %.100q", got)
		}
		mustDelete(t, s, name)
	})
}

// TestForeignComment writes a comment as bytes of another encoding. It stops no change, and is still there after one.
func TestForeignComment(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	const name = "foreign_comment"
	mustCreate(t, s, name)
	c.Exec(t, `CREATE DATABASE foreign_comments ENCODING LATIN1 TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'`)
	exec(t, c.Connect(t, c.User, c.Password, "foreign_comments"), `COMMENT ON ROLE `+name+` IS 'Bücher'`)
	if _, err := s.SetPassword(t.Context(), name, password2, nil, actor()); err != nil {
		t.Fatal(err)
	}
	mayLogin(t, c, name, password2)
	if got := comment(t, c, name); !strings.HasPrefix(got, "Bücher\nrolecall:v1 {") {
		t.Errorf("the comment is %q", got)
	}
	if got := allUsers(t, s, name); len(got) == 0 {
		t.Error("it is not listed")
	}
	mustDelete(t, s, name)
}

// TestLongVerifier has a user give itself a verifier that is longer than any. It is no line of the userlist, and a problem.
func TestLongVerifier(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	const name = "long_verifier"
	mustCreate(t, s, name, "short_verifier")
	length := 200000
	if c.Major >= 18 {
		length = 300 // more is refused
	}
	c.Exec(t, `DO $$ BEGIN EXECUTE format('ALTER ROLE `+name+` PASSWORD %L',
		'SCRAM-SHA-256$4096:' || repeat('QUJD', `+strconv.Itoa(length/4)+`) ||
		'$' || encode(sha256('a'), 'base64') || ':' || encode(sha256('b'), 'base64')); END $$`)
	list, err := s.Userlist(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, u := range list {
		listed[u.Name] = true
	}
	if listed[name] || !listed["short_verifier"] {
		t.Errorf("listed: %v", listed)
	}
	problems, _, err := s.PasswordProblems(t.Context(), false, "long_verifie", 1)
	if err != nil || len(problems) != 1 || problems[0].Name != name || problems[0].Kind != pgrole.PasswordUnknown {
		t.Errorf("problems: %+v, %v", problems, err)
	}
	mustDelete(t, s, name)
}

// TestSettingsOfTheDatabase sets what the owner of the registered database may set. Rolecall works as before.
func TestSettingsOfTheDatabase(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	s := superuser(t, c)
	for _, sql := range []string{`CREATE ROLE weak`, `ALTER DATABASE postgres SET role = 'weak'`,
		`ALTER DATABASE postgres SET local_preload_libraries = 'nope'`, `ALTER DATABASE postgres SET search_path = 'nope'`,
		`ALTER DATABASE postgres SET lock_timeout = 1`, `ALTER DATABASE postgres SET statement_timeout = '1ms'`} {
		c.Exec(t, sql)
	}
	if c.Major >= 17 {
		c.Exec(t, `ALTER DATABASE postgres SET transaction_timeout = '10s'`)
	}
	s.Pool.Reset()
	if got, err := s.Pool.Acquire(t.Context()); err != nil {
		t.Error(err)
	} else {
		timeout := value[string](t, got.Conn(), `SELECT coalesce(current_setting('transaction_timeout', true), '0')`)
		if got.Release(); timeout != "0" {
			t.Errorf("transactions end after %s", timeout)
		}
	}
	mustCreate(t, s, "unmoved")
	if _, err := s.SetPassword(t.Context(), "unmoved", password2, nil, actor()); err != nil {
		t.Error(err)
	}
	if _, err := s.Details(t.Context(), "unmoved"); err != nil {
		t.Error(err)
	}
	mustDelete(t, s, "unmoved")
}
