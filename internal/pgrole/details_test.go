package pgrole_test

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

func details(t testing.TB, s *pgrole.Server, name string) *pgrole.Details {
	t.Helper()
	d, err := s.Details(t.Context(), name)
	if err != nil {
		t.Fatalf("Details(%q): %v", name, err)
	}
	return d
}

func TestDetails(t *testing.T) {
	asBoth(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		u, err := s.Create(t.Context(), name, password, actor())
		if err != nil {
			t.Fatal(err)
		}
		readable := details(t, s, c.User).PasswordKind == pgrole.PasswordSCRAM
		kind := func(kind string) string {
			if readable {
				return kind
			}
			return pgrole.PasswordUnknown
		}
		d := details(t, s, name)
		if d.Name != name || d.State != pgrole.StateActive || d.ValidUntil != nil || d.ConnectionLimit != -1 ||
			len(d.MemberOf) > 0 || d.Comment != "" ||
			d.PasswordKind != kind(pgrole.PasswordSCRAM) || d.System() || d.Provenance != u.Provenance ||
			d.Revision() != u.Revision() {
			t.Errorf("got %+v", d)
		}
		if super := pgtest.Value[bool](t, c, `SELECT rolsuper FROM pg_roles WHERE rolname = $1`,
			s.Pool.Config().ConnConfig.User); super != readable {
			t.Errorf("a superuser: %v; reads kinds of passwords: %v", super, readable)
		}
		if !slices.Contains(d.Databases, "postgres") || slices.Contains(d.Databases, "template1") ||
			!slices.IsSorted(d.Databases) {
			t.Errorf("databases are %q", d.Databases)
		}

		s.ControlDatabase = name + "_control"
		for _, db := range []string{"_open", "_closed", "_off", "_template", "_control", "_granted"} {
			database(t, c, name+db).Close(t.Context())
		}
		c.Exec(t, `CREATE ROLE `+name+`_b; CREATE ROLE "`+name+`_A";
			CREATE ROLE `+name+`_in_b IN ROLE `+name+`_b; GRANT `+name+`_in_b, "`+name+`_A" TO `+name+`;
			GRANT pg_monitor TO `+name+`; CREATE ROLE `+name+`_db; GRANT `+name+`_db TO `+name+`_in_b;
			REVOKE CONNECT ON DATABASE `+name+`_closed, `+name+`_granted FROM PUBLIC;
			GRANT CONNECT ON DATABASE `+name+`_granted TO `+name+`_db;
			ALTER DATABASE `+name+`_off ALLOW_CONNECTIONS false; ALTER DATABASE `+name+`_template IS_TEMPLATE true;
			ALTER ROLE `+name+` CONNECTION LIMIT 7 VALID UNTIL '2040-02-03 04:05:06.000007+02'`)
		t.Cleanup(func() { c.Exec(t, `ALTER DATABASE `+name+`_template IS_TEMPLATE false`) })
		d = details(t, s, name)
		if want := []string{"pg_monitor", name + "_A", name + "_in_b"}; !slices.Equal(d.MemberOf, want) {
			t.Errorf("it is a member of %q, want %q", d.MemberOf, want)
		}
		if want := time.Date(2040, 2, 3, 2, 5, 6, 7000, time.UTC); d.ValidUntil == nil || *d.ValidUntil != want ||
			d.ConnectionLimit != 7 {
			t.Errorf("got %v and %d", d.ValidUntil, d.ConnectionLimit)
		}
		for db, want := range map[string]bool{"_open": true, "_closed": false, "_off": false, "_template": false,
			"_control": false, "_granted": true} {
			if slices.Contains(d.Databases, name+db) != want {
				t.Errorf("%s is in %q, want it: %v", db, d.Databases, want)
			}
		}

		for sql, want := range map[string]string{
			`PASSWORD NULL`: pgrole.PasswordNone,
			`PASSWORD 'md5d41d8cd98f00b204e9800998ecf8427e'`: pgrole.PasswordMD5,
		} {
			c.Exec(t, `ALTER ROLE `+name+` `+sql)
			if got := details(t, s, name).PasswordKind; got != kind(want) {
				t.Errorf("%s: the kind is %s", sql, got)
			}
		}
		for until, never := range map[string]bool{"infinity": true, "-infinity": false, "20000-01-01": false,
			"0044-03-15 BC": false, "9999-12-31 23:59:59Z": false} {
			c.Exec(t, `ALTER ROLE `+name+` VALID UNTIL '`+until+`'`)
			d := details(t, s, name)
			if _, err := json.Marshal(d.ValidUntil); err != nil || never != (d.ValidUntil == nil) || !never &&
				(d.ValidUntil.IsZero() || d.ValidUntil.Before(time.Now()) != (until < "1")) {
				t.Errorf("until %s is %v, %v", until, d.ValidUntil, err)
			}
		}
		comment := comment(t, c, name)
		c.Exec(t, `COMMENT ON ROLE `+name+` IS 'of the shop, `+"\n"+comment+`'`)
		if d := details(t, s, name); d.Comment != "of the shop, " || d.Provenance != u.Provenance {
			t.Errorf("got %+v", d)
		}
	})
}

func TestDetailsOfOthers(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	if d := details(t, s, "postgres"); !d.System() || d.State != pgrole.StateActive || d.Provenance.Managed() {
		t.Errorf("got %+v", d)
	}
	c.Exec(t, `CREATE ROLE details_nologin; CREATE ROLE details_disabled; COMMENT ON ROLE details_disabled IS 'rolecall:v1 `+
		`{"revision":2,"attempt":"0198f3a2-0000-7000-8000-000000000001","state":"disabled"}'`)
	for _, name := range []string{"details_nologin", "absent", "", "a\x00b"} {
		_, err := s.Details(t.Context(), name)
		refused(t, err, fault.NotFound)
	}
	if d := details(t, s, "details_disabled"); d.State != pgrole.StateDisabled || d.PasswordKind != pgrole.PasswordNone ||
		d.System() {
		t.Errorf("got %+v", d)
	}
}
