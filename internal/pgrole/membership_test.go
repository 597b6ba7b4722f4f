package pgrole_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

// groups are roles without LOGIN that the administering role has made.
func groups(t testing.TB, s *pgrole.Server, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := s.Pool.Exec(t.Context(), `CREATE ROLE `+name); err != nil {
			t.Fatal(err)
		}
	}
}

func mustSetRoles(t testing.TB, s *pgrole.Server, name string, roles,
	grantable []string) (d *pgrole.Details, kept []string) {
	t.Helper()
	d, kept, err := setRoles(t.Context(), s, name, roles, grantable, nil, actor())
	if err != nil {
		t.Fatalf("SetRoles(%q, %q): %v", name, roles, err)
	}
	return d, kept
}

// membershipsOf are the memberships that name a role, or one whose name begins with its.
func membershipsOf(t testing.TB, c *pgtest.Cluster, role string) []string {
	t.Helper()
	return slices.DeleteFunc(memberships(t, c), func(m string) bool { return !strings.Contains(m, role) })
}

func TestSetRoles(t *testing.T) {
	asBoth(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		mustCreate(t, s, name)
		a, b, third, outside := name+`_a`, name+`_b`, name+`_third`, name+"_outside"
		groups(t, s, a, b, third, outside)
		grantable := []string{a, b, third, "absent"}
		c.Exec(t, `GRANT `+outside+` TO `+name)
		before := membershipsOf(t, c, name)
		for i, want := range [][]string{{b, a, b}, {b, third}, {b, third}, {}, {third}} {
			d, kept := mustSetRoles(t, s, name, want, grantable)
			all := slices.Compact(slices.Sorted(slices.Values(append([]string{outside}, want...))))
			if !slices.Equal(d.MemberOf, all) || !slices.Equal(kept, []string{outside}) || d.Provenance.Revision != i+2 ||
				d.State != pgrole.StateActive {
				t.Errorf("SetRoles(%q) = %+v, kept %q", want, d, kept)
			}
			for _, role := range []string{a, b, third} {
				if has := pgtest.Value[bool](t, c, `SELECT pg_has_role($1, $2, 'USAGE') AND pg_has_role($1, $2, 'MEMBER')`, name,
					role); has != slices.Contains(want, role) {
					t.Errorf("after %q it has %s: %v", want, role, has)
				}
			}
			if pgtest.Value[bool](t, c, `SELECT bool_or(admin_option) FROM pg_auth_members WHERE member = $1::regrole`, name) {
				t.Error("it has ADMIN OPTION")
			}
		}
		mustSetRoles(t, s, name, nil, grantable)
		difference(t, before, membershipsOf(t, c, name))
		mayLogin(t, c, name, password)
		mustDelete(t, s, name)
	})
}

func TestSetRolesRefusals(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	s.SystemRoles = append(s.SystemRoles, "refused_sys*")
	mustCreate(t, s, "refused", "refused_had")
	c.Exec(t, `CREATE ROLE refused_a; CREATE ROLE refused_super SUPERUSER; CREATE ROLE refused_in_super IN ROLE refused_super;
		CREATE ROLE refused_in_in NOINHERIT IN ROLE refused_in_super;
		CREATE ROLE refused_creates CREATEROLE; CREATE ROLE refused_system; CREATE ROLE refused_circle IN ROLE refused; CREATE
		  ROLE refused_files IN ROLE pg_read_server_files;
		CREATE ROLE refused_was; GRANT refused_was TO refused;
		CREATE ROLE refused_protected LOGIN IN ROLE refused_super; CREATE ROLE refused_nologin;
		CREATE ROLE refused_deleting; COMMENT ON ROLE refused_deleting IS
		  'rolecall:v1 {"revision":2,"attempt":"0198f3a2-0000-7000-8000-000000000001","state":"deleting"}'`)
	grantable := []string{"refused", "refused_a", "refused_super", "refused_in_super", "refused_in_in", "refused_creates",
		"refused_system", "refused_circle", "refused_files",
		"refused_was", "absent", "", "a\x00b", "pg_execute_server_program", "pg_database_owner"}
	members := membershipsOf(t, c, "refused")
	for _, tt := range []struct {
		name  string
		role  string
		match etag.Match
		kind  fault.Kind
		part  string
	}{
		{"refused", "refused_had", nil, fault.Invalid, `"refused_had"`},
		{"refused", "pg_monitor", nil, fault.Invalid, `"pg_monitor"`},
		{"refused", "absent", nil, fault.Invalid, `"absent"`},
		{"refused", "", nil, fault.Invalid, `""`},
		{"refused", "a\x00b", nil, fault.Invalid, ""},
		{"refused", "refused_super", nil, fault.Forbidden, `"refused_super" is a system role`},
		{"refused", "refused_in_super", nil, fault.Forbidden, `"refused_in_super" is a member of the system role "refused_super"`},
		{"refused", "refused_in_in", nil, fault.Forbidden, `"refused_super"`},
		{"refused", "refused_creates", nil, fault.Forbidden, `"refused_creates"`},
		{"refused", "refused_system", nil, fault.Forbidden, `"refused_system"`},
		{"refused", "refused_files", nil, fault.Forbidden, `"pg_read_server_files"`},
		{"refused", "pg_execute_server_program", nil, fault.Forbidden, ""},
		{"refused", "refused_circle", nil, fault.Invalid, `"refused_circle"`},
		{"refused", "refused", nil, fault.Invalid, `"refused"`},
		{"refused", "pg_database_owner", nil, fault.Invalid, `"pg_database_owner"`},
		{"refused", "refused_a", etag.Match{"x"}, fault.Stale, ""},
		{"refused_protected", "refused_a", nil, fault.Forbidden, ""},
		{"refused_nologin", "refused_a", nil, fault.NotFound, ""},
		{"absent", "refused_a", nil, fault.NotFound, ""},
		{"refused_deleting", "refused_a", nil, fault.InUse, ""},
	} {
		before := state(t, c, tt.name)
		// What comes before the refused role is not done either.
		d, kept, err := setRoles(t.Context(), s, tt.name, []string{"refused_a", tt.role}, grantable, tt.match, actor())
		refused(t, err, tt.kind, tt.part)
		granted, err := granting(s, grantable...).GrantRole(t.Context(), tt.name, tt.role, tt.match, actor())
		refused(t, err, tt.kind, tt.part)
		if state(t, c, tt.name) != before || d != nil || kept != nil || granted != nil {
			t.Errorf("%s, %s: got %v, %q, %v", tt.name, tt.role, d, kept, granted)
		}
	}
	difference(t, members, membershipsOf(t, c, "refused"))
	// Of PostgreSQL's own roles those may be granted that make nobody dangerous, where an administrator allows it.
	if d, kept := mustSetRoles(t, s, "refused", []string{"pg_monitor", "refused_was"},
		[]string{"pg_monitor", "refused_was"}); !slices.Equal(d.MemberOf, []string{"pg_monitor", "refused_was"}) || d.System() ||
		len(kept) > 0 {
		t.Errorf("got %+v, kept %q", d, kept)
	}
}

// Each of the two is idempotent, and touches no other membership.
func TestGrantAndRevokeRole(t *testing.T) {
	asBoth(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		mustCreate(t, s, name)
		a, b, outside := name+"_a", name+"_b", name+"_outside"
		groups(t, s, a, b, outside)
		c.Exec(t, `GRANT `+outside+` TO `+name)
		before := membershipsOf(t, c, name)
		s = granting(s, a, b, name+"_absent")
		for i, step := range []struct {
			change func(context.Context, string, string, etag.Match, pgrole.Actor) (*pgrole.Details, error)
			role   string
			want   []string
		}{
			{s.GrantRole, a, []string{a, outside}}, {s.GrantRole, a, []string{a, outside}}, {s.GrantRole, b, []string{a, b, outside}},
			{s.RevokeRole, a, []string{b, outside}}, {s.RevokeRole, a, []string{b, outside}},
			{s.RevokeRole, name + "_absent", []string{b, outside}}, {s.RevokeRole, b, []string{outside}},
		} {
			d, err := step.change(t.Context(), name, step.role, nil, actor())
			if err != nil || !slices.Equal(d.MemberOf, step.want) || d.Provenance.Revision != i+2 {
				t.Fatalf("step %d: got %+v, %v, want %q", i, d, err, step.want)
			}
			if i == 2 {
				for _, role := range []string{a, b} {
					if !pgtest.Value[bool](t, c, `SELECT pg_has_role($1, $2, 'USAGE') AND pg_has_role($1, $2, 'MEMBER')`, name, role) {
						t.Errorf("it does not have the privileges of %s", role)
					}
				}
				if pgtest.Value[bool](t, c, `SELECT bool_or(admin_option) FROM pg_auth_members WHERE member = $1::regrole`, name) {
					t.Error("it has ADMIN OPTION")
				}
			}
		}
		difference(t, before, membershipsOf(t, c, name))

		// A membership that does not inherit is granted again, where that helps.
		if c.Major >= 16 {
			if conn := s.Pool.Config().ConnConfig.User; conn != c.User {
				c.Exec(t, `GRANT `+a+` TO `+conn+` WITH ADMIN OPTION`)
			}
			c.Exec(t, `GRANT `+a+` TO `+name+` WITH INHERIT FALSE, SET FALSE`)
			if d, err := s.GrantRole(t.Context(), name, a, nil, actor()); err != nil || len(d.NotInherited) > 0 {
				t.Errorf("got %+v, %v", d, err)
			}
			c.Exec(t, `REVOKE `+a+` FROM `+name)
		}
		if _, err := s.RevokeRole(t.Context(), name, a, nil, actor()); err != nil {
			t.Error(err)
		}
		difference(t, before, membershipsOf(t, c, name))
		mustDelete(t, s, name)
	})
}

func TestRevokeRoleRefusals(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	mustCreate(t, s, "norevoke", "norevoke_other")
	c.Exec(t, `CREATE ROLE norevoke_a; CREATE ROLE norevoke_super SUPERUSER; CREATE ROLE norevoke_was;
		GRANT norevoke_a, norevoke_was TO norevoke; CREATE ROLE norevoke_protected LOGIN IN ROLE norevoke_super`)
	s = granting(s, "norevoke_a", "norevoke_super")
	members := membershipsOf(t, c, "norevoke")
	for _, tt := range []struct {
		name, role string
		match      etag.Match
		kind       fault.Kind
		part       string
	}{
		{"norevoke", "norevoke_was", nil, fault.Invalid, `"norevoke_was" is not among`},
		{"norevoke", "", nil, fault.Invalid, "norevoke_a, norevoke_super"},
		{"norevoke", "norevoke_super", nil, fault.Forbidden, `"norevoke_super" is a system role`},
		{"norevoke_protected", "norevoke_super", nil, fault.Forbidden, ""},
		{"norevoke_absent", "norevoke_a", nil, fault.NotFound, ""},
		{"norevoke", "norevoke_a", etag.Match{"x"}, fault.Stale, ""},
	} {
		before := state(t, c, tt.name)
		d, err := s.RevokeRole(t.Context(), tt.name, tt.role, tt.match, actor())
		refused(t, err, tt.kind, tt.part)
		if state(t, c, tt.name) != before || d != nil {
			t.Errorf("%s, %s: got %v", tt.name, tt.role, d)
		}
	}
	difference(t, members, membershipsOf(t, c, "norevoke"))
}

// From PostgreSQL 16 on a membership belongs to the role that granted it, and there may be one for each of them.
func TestRevokeWhatOthersGranted(t *testing.T) {
	asBoth(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		role, grantor, grantor2 := name+"_role", name+"_grantor", name+"_grantor2"
		mustCreate(t, s, name, grantor, grantor2)
		groups(t, s, role)
		conn := c.Connect(t, c.User, c.Password, "postgres")
		exec(t, conn, `GRANT `+role+` TO `+grantor+`, `+grantor2+` WITH ADMIN OPTION`)
		without := membershipsOf(t, c, name)
		exec(t, conn, `SET ROLE `+grantor, `GRANT `+role+` TO `+name, `SET ROLE `+grantor2, `GRANT `+role+` TO `+name,
			`RESET ROLE`)
		for range 2 {
			if d, _ := mustSetRoles(t, s, name, nil, []string{role}); len(d.MemberOf) > 0 {
				t.Errorf("it is a member of %q", d.MemberOf)
			}
			difference(t, without, membershipsOf(t, c, name))
			mustSetRoles(t, s, name, []string{role}, []string{role})
		}
		mustSetRoles(t, s, name, nil, []string{role})

		// What the superuser granted only the superuser revokes.
		exec(t, conn, `GRANT `+role+` TO `+name)
		before := state(t, c, name)
		_, _, err := setRoles(t.Context(), s, name, nil, []string{role}, nil, actor())
		if c.Major >= 16 && s.Pool.Config().ConnConfig.User != c.User {
			refused(t, err, fault.Forbidden, `"`+role+`"`, `"postgres"`)
			if state(t, c, name) != before {
				t.Error("it was changed")
			}
			exec(t, conn, `REVOKE `+role+` FROM `+name)
		} else if err != nil {
			t.Error(err)
		}

		// What it has passed on is not taken from others on the way.
		exec(t, conn, `GRANT `+role+` TO `+name+` WITH ADMIN OPTION`, `SET ROLE `+name, `GRANT `+role+` TO pg_monitor`,
			`RESET ROLE`)
		given := membershipsOf(t, c, name)
		_, _, err = setRoles(t.Context(), s, name, nil, []string{role}, nil, actor())
		switch {
		case c.Major < 16: // there a grantor is not missed
			if err != nil {
				t.Error(err)
			}
		case s.Pool.Config().ConnConfig.User != c.User:
			refused(t, err, fault.Forbidden)
			difference(t, given, membershipsOf(t, c, name))
		default:
			refused(t, err, fault.InUse, `"`+role+`"`)
		}
		if !pgtest.Value[bool](t, c, `SELECT pg_has_role('pg_monitor', $1, 'MEMBER')`, role) {
			t.Error("a membership of another role is gone")
		}
		exec(t, conn, `REVOKE `+role+` FROM pg_monitor `+map[bool]string{true: `GRANTED BY ` + name}[c.Major >= 16])
	})
}

// A role that the administering role may not grant is one of others, from PostgreSQL 16 on.
func TestGrantOfAForeignRole(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s, role := administrator(t, c)
	mustCreate(t, s, "gets_foreign")
	c.Exec(t, `CREATE ROLE foreign_group`)
	s.MemberOf = []string{"foreign_group"}
	_, createErr := s.Create(t.Context(), "made_foreign", password, actor())
	_, _, err := setRoles(t.Context(), s, "gets_foreign", []string{"foreign_group"}, []string{"foreign_group"}, nil, actor())
	if c.Major >= 16 {
		refused(t, createErr, fault.Forbidden, `GRANT "foreign_group" TO`)
		refused(t, err, fault.Forbidden, `GRANT "foreign_group" TO`)
		if exists(t, c, "made_foreign") {
			t.Error("it was made")
		}
		c.Exec(t, `GRANT foreign_group TO `+role+` WITH ADMIN OPTION`)
		mustCreate(t, s, "made_foreign")
	} else if createErr != nil || err != nil {
		t.Error(createErr, err)
	}
	mustSetRoles(t, s, "gets_foreign", []string{"foreign_group"}, []string{"foreign_group"})
	if d := details(t, s, "made_foreign"); !slices.Equal(d.MemberOf, s.MemberOf) {
		t.Errorf("got %+v", d)
	}
}

func TestMemberOf(t *testing.T) {
	asBoth(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		a, b := name+`_a`, name+`_b`
		groups(t, s, a, b)
		c.Exec(t, `CREATE ROLE `+name+`_super SUPERUSER; CREATE ROLE `+name+`_in_super IN ROLE `+name+`_super`)
		s.MemberOf = []string{b, a}
		u, err := s.Create(t.Context(), name, password, actor())
		if d := details(t, s, name); err != nil || !slices.Equal(d.MemberOf, []string{a, b}) || u.System() ||
			d.Revision() != u.Revision() {
			t.Errorf("got %+v, %+v, %v", d, u, err)
		}
		mayLogin(t, c, name, password)
		for role, kind := range map[string]fault.Kind{"absent": fault.Invalid, name + "_super": fault.Forbidden, name +
			"_in_super": fault.Forbidden, "pg_read_server_files": fault.Forbidden, name + "_new": fault.Invalid} {
			s.MemberOf = []string{a, role}
			_, err := s.Create(t.Context(), name+"_new", password, actor())
			refused(t, err, kind, `"`+role+`"`)
			if exists(t, c, name+"_new") {
				t.Errorf("%s: it was made", role)
			}
		}
		mustDelete(t, s, name)
	})
}

func TestConcurrentSetRoles(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	replicas := []*pgrole.Server{superuser(t, c), superuser(t, c)}
	users := []string{"roles_at_once_0", "roles_at_once_1", "roles_at_once_2"}
	mustCreate(t, replicas[0], users...)
	all := []string{"roles_at_once_a", "roles_at_once_b", "roles_at_once_c"}
	groups(t, replicas[0], all...)
	for i, err := range together(18, func(i int) error {
		_, _, err := setRoles(t.Context(), replicas[i%2], users[i%3], all[i%4:], all, nil, actor())
		return err
	}) {
		if err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
	for _, name := range users {
		if d, _ := mustSetRoles(t, replicas[0], name, all[1:], all); !slices.Equal(d.MemberOf, all[1:]) ||
			d.Provenance.Revision != 8 {
			t.Errorf("got %+v", d)
		}
	}
}

// Replicas that grant different roles to one user at the same time lose none of them.
func TestConcurrentGrantRole(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	all := []string{"grants_at_once_a", "grants_at_once_b", "grants_at_once_c", "grants_at_once_d"}
	replicas := []*pgrole.Server{granting(superuser(t, c), all...), granting(superuser(t, c), all...)}
	mustCreate(t, replicas[0], "grants_at_once")
	groups(t, replicas[0], all...)
	for i, err := range together(12, func(i int) error {
		_, err := replicas[i%2].GrantRole(t.Context(), "grants_at_once", all[i%4], nil, actor())
		return err
	}) {
		if err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
	if d := details(t, replicas[0], "grants_at_once"); !slices.Equal(d.MemberOf, all) || d.Provenance.Revision != 13 {
		t.Errorf("got %+v", d)
	}
}

// A membership gives the user what the role may: one that does not inherit is granted again, and shown where only the user
// itself can change that.
func TestMembershipInherits(t *testing.T) {
	asBoth(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		role := name + "_read"
		c.Exec(t, `CREATE ROLE `+role+`; CREATE TABLE `+name+`_t (); GRANT SELECT ON `+name+`_t TO `+role)
		if user := s.Pool.Config().ConnConfig.User; user != c.User {
			c.Exec(t, `GRANT `+role+` TO `+user+` WITH ADMIN OPTION`)
		}
		for _, grant := range []string{``, `GRANT ` + role + ` TO ` + name} {
			mustCreate(t, s, name)
			c.Exec(t, `ALTER ROLE `+name+` NOINHERIT; `+grant)
			if d, err := s.Details(t.Context(), name); grant != "" && (err != nil || !slices.Equal(d.NotInherited, []string{role})) {
				t.Errorf("before: %+v, %v", d, err)
			}
			d, _, err := setRoles(t.Context(), s, name, []string{role}, []string{role}, nil, actor())
			if err != nil || !slices.Equal(d.MemberOf, []string{role}) {
				t.Fatalf("got %+v, %v", d, err)
			}
			_, readErr := c.Connect(t, name, password, "postgres").Exec(t.Context(), `TABLE `+name+`_t`)
			if works := c.Major >= 16; (readErr == nil) != works || (len(d.NotInherited) == 0) != works {
				t.Errorf("not inherited: %q; reading: %v", d.NotInherited, readErr)
			}
			mustDelete(t, s, name)
		}
		c.Exec(t, `DROP OWNED BY `+role+`; DROP TABLE `+name+`_t; DROP ROLE `+role)
	})
}
