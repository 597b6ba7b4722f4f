package pgrole_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

// isDisabled fails t unless the user is there, can do nothing, and has no session.
func isDisabled(t testing.TB, c *pgtest.Cluster, s *pgrole.Server, name string, sessions ...*pgx.Conn) {
	t.Helper()
	mayNotLogin(t, c, name, password)
	if got := pgtest.Value[string](t, c,
		`SELECT rolcanlogin || coalesce(rolpassword, ' none') FROM pg_authid WHERE rolname = $1`, name); got != "false none" {
		t.Errorf("it has LOGIN and password %s", got)
	}
	for _, session := range sessions {
		if session.Ping(t.Context()) == nil {
			t.Error("a session is left")
		}
	}
	u, err := s.User(t.Context(), name)
	if err != nil || u.Provenance.State != pgrole.StateDisabled || u.Provenance.FormerState != "" ||
		u.Provenance.CreatedBy != account {
		t.Errorf("got %+v, %v", u, err)
	}
	if d := details(t, s, name); d.State != pgrole.StateDisabled || d.PasswordKind == pgrole.PasswordSCRAM {
		t.Errorf("got %+v", d)
	}
	if got := allUsers(t, s, name); !slices.Contains(got, name) {
		t.Error("it is not listed")
	}
}

// disable leaves the user disabled, and nothing that depends on it.
func disable(t testing.TB, c *pgtest.Cluster, s *pgrole.Server, name string) {
	t.Helper()
	c.Exec(t, `CREATE SCHEMA blocks; ALTER SCHEMA blocks OWNER TO `+name)
	if why, _, err := s.DeleteOrDisable(t.Context(), name, "", nil, actor()); why == "" || err != nil {
		t.Fatalf("got %q, %v", why, err)
	}
	c.Exec(t, `DROP SCHEMA blocks`)
}

func TestDisableRefusals(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	mustCreate(t, s, "disable_refused")
	c.Exec(t, `CREATE ROLE disable_nologin; CREATE TABLE disable_refused_t (); ALTER TABLE disable_refused_t OWNER TO `+
		`disable_refused`)
	for _, tt := range []struct {
		name  string
		match etag.Match
		kind  fault.Kind
	}{
		{"disable_refused", etag.Match{"x"}, fault.Stale},
		{"postgres", nil, fault.Forbidden},
		{"disable_nologin", nil, fault.NotFound},
		{"absent", nil, fault.NotFound},
	} {
		before := state(t, c, tt.name)
		why, _, err := s.DeleteOrDisable(t.Context(), tt.name, "", tt.match, actor())
		refused(t, err, tt.kind)
		if why != "" {
			t.Errorf("%s was disabled: %s", tt.name, why)
		}
		if state(t, c, tt.name) != before {
			t.Errorf("%s was changed", tt.name)
		}
	}
	before := state(t, c, "disable_refused")
	for to, kind := range map[string]fault.Kind{"disable_refused": fault.Invalid, "absent": fault.Invalid,
		"postgres": fault.Forbidden} {
		_, _, err := s.DeleteOrDisable(t.Context(), "disable_refused", to, nil, actor())
		refused(t, err, kind)
	}
	if state(t, c, "disable_refused") != before {
		t.Error("it was changed")
	}
}

func TestDeleteOrDisable(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		mustCreate(t, s, name, name+"_free", name+"_to")
		if why, _, err := s.DeleteOrDisable(t.Context(), name+"_free", "", nil, actor()); why != "" || err != nil ||
			exists(t, c, name+"_free") {
			t.Errorf("got %q, %v", why, err)
		}
		c.Exec(t, `CREATE SCHEMA `+name+`; CREATE TABLE `+name+`.t AS SELECT 1 AS one; GRANT USAGE ON SCHEMA `+name+` TO `+name)
		c.Exec(t, `ALTER TABLE `+name+`.t OWNER TO `+name)
		session := c.Connect(t, name, password, "postgres")
		members := memberships(t, c)
		u, err := s.User(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		match := etag.Match{u.Revision()}
		for range 2 { // the second time it is disabled already
			by := actor()
			why, _, err := s.DeleteOrDisable(t.Context(), name, "", match, by)
			if err != nil {
				t.Fatal(err)
			}
			for _, part := range []string{`"` + name + `"`, "table " + name + ".t", "It was disabled instead."} {
				if !strings.Contains(why, part) {
					t.Errorf("%q does not say %q", why, part)
				}
			}
			isDisabled(t, c, s, name, session)
			if u, err = s.User(t.Context(), name); err != nil || u.Provenance.Attempt != by.Attempt {
				t.Errorf("got %+v, %v", u, err)
			}
			match = etag.Match{u.Revision()}
		}
		if !pgtest.Value[bool](t, c, `SELECT has_schema_privilege($1::name, $1::text, 'USAGE')`, name) ||
			pgtest.Value[int](t, c, `SELECT one FROM `+name+`.t`) != 1 {
			t.Error("it has lost something")
		}
		noNewMembership(t, c, members, name)
		refused(t, remove(t, s, name, "", match, actor()), fault.InUse, "Nothing was changed")
		isDisabled(t, c, s, name)
		if _, err := s.SetPassword(t.Context(), name, password2, nil, actor()); err != nil {
			t.Fatal(err)
		}
		mayLogin(t, c, name, password2)
		d := details(t, s, name)
		if d.State != pgrole.StateActive {
			t.Errorf("got %+v", d)
		}
		match = etag.Match{d.User.Revision()}
		c.Exec(t, `ALTER TABLE `+name+`.t OWNER TO postgres; REVOKE ALL ON SCHEMA `+name+` FROM `+name)
		if why, _, err := s.DeleteOrDisable(t.Context(), name, name+"_to", match, actor()); why != "" || err != nil ||
			exists(t, c, name) {
			t.Errorf("got %q, %v", why, err)
		}
	})
}

// What blocks a deletion that has begun disables the user as well, and what was revoked by then is said.
func TestDisabledInTheMiddle(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		mustCreate(t, s, name, name+"_owner")
		conn, granted := c.Connect(t, c.User, c.Password, "postgres"), c.Connect(t, c.User, c.Password, "postgres")
		exec(t, granted, `CREATE SCHEMA `+name+`_granted AUTHORIZATION `+name+`_owner`, `SET ROLE `+name+`_owner`,
			`GRANT USAGE ON SCHEMA `+name+`_granted TO `+name)
		exec(t, conn, `BEGIN`, `CREATE TABLE `+name+`_t AS SELECT 1 AS one`, `ALTER TABLE `+name+`_t OWNER TO `+name)
		s.Waits.Holders = -1
		var why string
		done := make(chan error)
		go func() {
			var err error
			why, _, err = s.DeleteOrDisable(t.Context(), name, "", nil, actor())
			done <- err
		}()
		waitForDrop(t, c, name)
		exec(t, conn, `COMMIT`)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{"table public." + name + "_t", "disabled instead", "Already done: ", "SCHEMA " + name +
			"_granted"} {
			if !strings.Contains(why, part) {
				t.Errorf("%q does not say %q", why, part)
			}
		}
		isDisabled(t, c, s, name)
		c.Exec(t, `DROP TABLE `+name+`_t`)
		mustDelete(t, s, name)
	})
}

func TestCutOffAndBlockedIsDisabled(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	mustCreate(t, s, "cut_off_disabled")
	u, err := s.User(t.Context(), "cut_off_disabled")
	if err != nil {
		t.Fatal(err)
	}
	c.Exec(t, `ALTER ROLE cut_off_disabled NOLOGIN; CREATE TABLE cut_off_disabled_t ();
		ALTER TABLE cut_off_disabled_t OWNER TO cut_off_disabled;
		COMMENT ON ROLE cut_off_disabled IS 'rolecall:v1 {"revision":2,`+
		`"attempt":"0198f3a2-0000-7000-8000-000000000001","createdBy":"`+u.Provenance.CreatedBy+
		`","state":"deleting","was":"disabled"}'`)
	if why, _, err := s.DeleteOrDisable(t.Context(), "cut_off_disabled", "", nil, actor()); err != nil ||
		!strings.Contains(why, "cut_off_disabled_t") {
		t.Errorf("got %q, %v", why, err)
	}
	isDisabled(t, c, s, "cut_off_disabled")
}

// One that becomes protected in the middle gets its LOGIN back, and keeps its password.
func TestProtectedInTheMiddleIsNotDisabled(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	const name = "protected_in_the_middle"
	mustCreate(t, s, name)
	c.Connect(t, name, password, "postgres")
	conn := c.Connect(t, c.User, c.Password, "postgres")
	exec(t, conn, `CREATE TABLE `+name+` ()`, `BEGIN`, `GRANT SELECT ON `+name+` TO `+name)
	s.Waits.Holders = -1
	done := make(chan error)
	go func() {
		why, _, err := s.DeleteOrDisable(t.Context(), name, "", nil, actor())
		if why != "" {
			t.Errorf("it was disabled: %s", why)
		}
		done <- err
	}()
	waitForDrop(t, c, name)
	c.Exec(t, `GRANT postgres TO `+name)
	exec(t, conn, `COMMIT`)
	refused(t, <-done, fault.InUse, "may log in again")
	mayLogin(t, c, name, password)
	c.Exec(t, `REVOKE postgres FROM `+name)
	mustDelete(t, s, name)
}

// Cut at any COMMIT, the same call ends with a disabled user, and the answer is true.
func TestDisablingIsCut(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	p := &cutter{}
	s := serverAt(t, p.listen(t, c), c.User, c.Password)
	const name = "disabling_is_cut"
	c.Exec(t, `CREATE TABLE `+name+` ()`)
	for _, before := range []bool{true, false} {
		for cut := range 3 {
			mustCreate(t, s, name)
			c.Exec(t, `ALTER TABLE `+name+` OWNER TO `+name)
			p.arm(before, cut, 1)
			why, _, err := s.DeleteOrDisable(t.Context(), name, "", nil, actor())
			if done := cut == 2 || cut == 1 && !before; done != (err == nil) || done != (why != "") {
				t.Errorf("cut %d, before the server gets it %v: %q, %v", cut, before, why, err)
			}
			if err != nil {
				unavailable(t, err)
			}
			p.arm(before, 0, 0)
			if why, _, err := s.DeleteOrDisable(t.Context(), name, "", nil, actor()); why == "" || err != nil {
				t.Errorf("again: %q, %v", why, err)
			}
			isDisabled(t, c, s, name)
			c.Exec(t, `ALTER TABLE `+name+` OWNER TO postgres`)
			mustDelete(t, s, name)
		}
	}
}
