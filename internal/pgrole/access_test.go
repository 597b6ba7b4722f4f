package pgrole_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

// withAccess makes a database with access roles, and a table of the access role of own. It connects to the database as the
// superuser.
func withAccess(t testing.TB, c *pgtest.Cluster, s *pgrole.Server, name string) *pgx.Conn {
	t.Helper()
	mustCreate(t, s, name+"_maker")
	if _, err := s.CreateDatabase(t.Context(), pgrole.NewDatabase{Name: name, Owner: name + "_maker"}, actor()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Exec(t, `DROP DATABASE IF EXISTS `+name+` WITH (FORCE)`) })
	if _, err := s.CompleteAccessRoles(t.Context(), pgrole.AccessRolesWish{Database: name}, actor()); err != nil {
		t.Fatal(err)
	}
	conn := c.Connect(t, c.User, c.Password, name)
	exec(t, conn, `SET ROLE `+name+`_owner`, `CREATE TABLE t (i int)`, `RESET ROLE`)
	return conn
}

// setting is the role with which sessions of a user begin in a database by a setting for just these.
func setting(t testing.TB, c *pgtest.Cluster, user, database string) string {
	t.Helper()
	return pgtest.Value[string](t, c, `
		SELECT coalesce((SELECT array_to_string(setconfig, ',') FROM pg_db_role_setting
		  WHERE setrole = $1::regrole AND setdatabase = (SELECT oid FROM pg_database WHERE datname = $2)), '')`, user, database)
}

// can says what a user can do with the table of withAccess, in a new session.
func can(t testing.TB, c *pgtest.Cluster, user, database string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), fmt.Sprintf("postgres://%s:%d/%s?user=%s&password=%s&sslmode=disable", c.Host, c.Port,
		database, user, strings.ReplaceAll(password, " ", "%20")))
	if err != nil {
		return "nothing"
	}
	defer conn.Close(t.Context())
	var can []string
	for _, step := range [][2]string{{"read", `SELECT FROM t`}, {"write", `INSERT INTO t VALUES (1)`},
		{"own", `ALTER TABLE t ADD j int`}} {
		exec(t, conn, `BEGIN`)
		if _, err := conn.Exec(t.Context(), step[1]); err == nil {
			can = append(can, step[0])
		}
		exec(t, conn, `ROLLBACK`)
	}
	return strings.Join(can, " ")
}

var rightsOf = map[pgrole.Level]string{pgrole.Own: "read write own", pgrole.Write: "read write", pgrole.Read: "read",
	"": "nothing"}

// A user has exactly one level, whatever it had before, and own makes what it creates belong to the access role.
func TestSetAccess(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		db, other := name+"_db", name+"_group"
		withAccess(t, c, s, db)
		mustCreate(t, s, name)
		groups(t, s, other)
		c.Exec(t, `GRANT `+other+` TO `+name)
		before := membershipsOf(t, c, name)
		if got := can(t, c, name, db); got != "nothing" {
			t.Errorf("before, it can %s", got)
		}
		revision := 1
		for _, level := range []pgrole.Level{pgrole.Read, pgrole.Read, pgrole.Own, pgrole.Own, pgrole.Write, "", "", pgrole.Own,
			"",
			pgrole.Write, pgrole.Read} {
			by := actor()
			var d *pgrole.Details
			var err error
			if level == "" {
				d, err = s.RemoveAccess(t.Context(), name, db, nil, by)
			} else {
				d, err = s.SetAccess(t.Context(), name, pgrole.Access{Database: db, Level: level}, nil, by)
			}
			if err != nil {
				t.Fatalf("%q: %v", level, err)
			}
			revision++
			want := []string{other}
			if level != "" {
				role, _ := pgrole.AccessRole(db, level)
				want = append(want, role)
			}
			slices.Sort(want)
			if !slices.Equal(d.MemberOf, want) || len(d.NotInherited) > 0 || d.Provenance.Attempt != by.Attempt ||
				d.Provenance.Revision != revision {
				t.Errorf("%q: got %+v", level, d)
			}
			if got := can(t, c, name, db); got != rightsOf[level] {
				t.Errorf("with %q it can %s", level, got)
			}
			wantSetting := ""
			if level == pgrole.Own {
				wantSetting = "role=" + db + "_owner"
			}
			if got := setting(t, c, name, db); got != wantSetting {
				t.Errorf("with %q it has the setting %q", level, got)
			}
			if pgtest.Value[bool](t, c, `SELECT bool_or(admin_option) FROM pg_auth_members WHERE member = $1::regrole`, name) {
				t.Error("it has ADMIN OPTION")
			}
		}
		if _, err := s.RemoveAccess(t.Context(), name, db, nil, actor()); err != nil {
			t.Fatal(err)
		}
		difference(t, before, membershipsOf(t, c, name))
		mustDelete(t, s, name)
	})
}

// What a user with own makes is read by one with read, in each new session.
func TestOwnMakesForAll(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		db := name + "_db"
		withAccess(t, c, s, db)
		for _, level := range []pgrole.Level{pgrole.Own, pgrole.Read} {
			user := name + "_" + string(level)
			mustCreate(t, s, user)
			if _, err := s.SetAccess(t.Context(), user, pgrole.Access{Database: db, Level: level}, nil, actor()); err != nil {
				t.Fatal(err)
			}
		}
		exec(t, c.Connect(t, name+"_own", password, db), `CREATE TABLE made ()`)
		conn := c.Connect(t, c.User, c.Password, db)
		if got := value[string](t, conn,
			`SELECT relowner::regrole::text FROM pg_class WHERE relname = 'made'`); got != db+"_owner" {
			t.Errorf("the table belongs to %s", got)
		}
		// In another database it runs as itself.
		exec(t, c.Connect(t, name+"_own", password, "postgres"), `SELECT 1 / (current_user = session_user)::int`)
	})
}

// What the owner of a database does to its access roles does not keep a level from being taken away.
func TestRemoveAccessOfIncompleteRoles(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		databaseWith(t, c, s, name)
		mustCreate(t, s, name+"_u")
		if _, err := s.SetAccess(t.Context(), name+"_u", pgrole.Access{Database: name, Level: pgrole.Own}, nil,
			actor()); err != nil {
			t.Fatal(err)
		}
		conn := c.Connect(t, name+"_u", password, name)
		exec(t, conn, `REVOKE CONNECT ON DATABASE `+name+` FROM `+name+`_owner, `+name+`_read`)
		conn.Close(t.Context())
		c.Exec(t, `ALTER ROLE `+name+`_write RENAME TO `+name+`_other`)
		d, err := s.RemoveAccess(t.Context(), name+"_u", name, nil, actor())
		if err != nil || len(d.MemberOf) > 0 || setting(t, c, name+"_u", name) != "" {
			t.Errorf("%+v, %v", d, err)
		}
	})
}

// Memberships by any grantor, and with ADMIN OPTION, are replaced.
func TestSetAccessTakesAllGrantors(t *testing.T) {
	asBoth(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		db := name + "_db"
		withAccess(t, c, s, db)
		mustCreate(t, s, name)
		if _, err := s.Pool.Exec(t.Context(), `GRANT `+db+`_write, `+db+`_read TO `+name+` WITH ADMIN OPTION`); err != nil {
			t.Fatal(err)
		}
		if _, err := s.SetAccess(t.Context(), name, pgrole.Access{Database: db, Level: pgrole.Read}, nil, actor()); err != nil {
			t.Fatal(err)
		}
		if got := can(t, c, name, db); got != "read" {
			t.Errorf("it can %s", got)
		}
		if pgtest.Value[bool](t, c, `SELECT bool_or(admin_option) FROM pg_auth_members WHERE member = $1::regrole`, name) {
			t.Error("it has ADMIN OPTION")
		}
	})
}

// A level takes effect at once in open sessions. One that runs as the access role of own would keep it, and is ended.
func TestLevelIsTakenFromOpenSessions(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		db := name + "_db"
		withAccess(t, c, s, db)
		mustCreate(t, s, name)
		set := func(level pgrole.Level) {
			t.Helper()
			if _, err := s.SetAccess(t.Context(), name, pgrole.Access{Database: db, Level: level}, nil, actor()); err != nil {
				t.Fatal(err)
			}
		}
		set(pgrole.Write)
		writing := c.Connect(t, name, password, db)
		exec(t, writing, `INSERT INTO t VALUES (1)`)
		set(pgrole.Read)
		exec(t, writing, `SELECT FROM t`)
		if _, err := writing.Exec(t.Context(), `INSERT INTO t VALUES (1)`); err == nil {
			t.Error("a session writes with the level that was taken away")
		}
		set(pgrole.Own)
		elsewhere, owning := c.Connect(t, name, password, "postgres"), c.Connect(t, name, password, db)
		exec(t, owning, `ALTER TABLE t ADD k int`)
		set(pgrole.Own)
		exec(t, owning, `ALTER TABLE t ADD l int`)
		set(pgrole.Write)
		if _, err := owning.Exec(t.Context(), `ALTER TABLE t ADD m int`); err == nil {
			t.Error("a session owns with the level that was taken away")
		}
		exec(t, elsewhere, `SELECT`)
		set(pgrole.Own)
		owning = c.Connect(t, name, password, db)
		if _, err := s.RemoveAccess(t.Context(), name, db, nil, actor()); err != nil {
			t.Fatal(err)
		}
		if err := owning.Ping(t.Context()); err == nil {
			t.Error("a session goes on with the level that was taken away")
		}
		exec(t, elsewhere, `SELECT`)
	})
}

func TestSetAccessRefusals(t *testing.T) {
	asBoth(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		db, bare, long := name+"_db", name+"_bare", name+strings.Repeat("x", 58-len(name))
		withAccess(t, c, s, db)
		database(t, c, bare)
		database(t, c, long)
		mustCreate(t, s, name, name+"_deleting", bare+"_read", name+"_super")
		groups(t, s, bare+"_owner", bare+"_write")
		c.Exec(t, fmt.Sprintf(`COMMENT ON ROLE %s_deleting IS 'rolecall:v1 {"revision":2,`+
			`"attempt":"0198f3a2-0000-7000-8000-000000000001","state":"deleting"}'`, name))
		c.Exec(t, `ALTER ROLE `+name+`_super CREATEROLE`)
		if _, err := s.CreateLease(t.Context(), pgrole.NewLease{ID: actor().Attempt, For: name, Name: name + "_lease",
			TTL: time.Hour}, password, actor()); err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			user, database string
			level          pgrole.Level
			match          etag.Match
			kind           fault.Kind
			part           string
		}{
			{name, db, "admin", nil, fault.Invalid, `"admin" is unknown`},
			{name, "absent_db", pgrole.Read, nil, fault.NotFound, `no database "absent_db"`},
			{name, "a\x00b", pgrole.Read, nil, fault.NotFound, ``},
			{name, "", pgrole.Read, nil, fault.NotFound, ``},
			{name, "template1", pgrole.Read, nil, fault.NotFound, ``},
			{name, bare, pgrole.Read, nil, fault.Invalid, `has no access roles`},
			{name, long, pgrole.Read, nil, fault.Invalid, `64 bytes`},
			{name, db, pgrole.Read, etag.Match{"x"}, fault.Stale, ``},
			{"absent_user", db, pgrole.Read, nil, fault.NotFound, `no user "absent_user"`},
			{name + "_deleting", db, pgrole.Read, nil, fault.InUse, ``},
			{name + "_lease", db, pgrole.Read, nil, fault.Invalid, `is a lease`},
			{name + "_super", db, pgrole.Read, nil, fault.Forbidden, ``},
			{"postgres", db, pgrole.Read, nil, fault.Forbidden, ``},
			{db + "_read", db, pgrole.Write, nil, fault.NotFound, ``},
		} {
			before := state(t, c, tt.user)
			_, err := s.SetAccess(t.Context(), tt.user, pgrole.Access{Database: tt.database, Level: tt.level}, tt.match, actor())
			refused(t, err, tt.kind, tt.part)
			if tt.level != "admin" {
				_, err = s.RemoveAccess(t.Context(), tt.user, tt.database, tt.match, actor())
				refused(t, err, tt.kind, tt.part)
			}
			if state(t, c, tt.user) != before {
				t.Errorf("%s was changed", tt.user)
			}
		}
		if _, err := s.SetAccess(t.Context(), name, pgrole.Access{Database: db, Level: pgrole.Read}, nil, actor()); err != nil {
			t.Fatal(err)
		}
		// A role of its own, there and everywhere.
		c.Exec(t, `ALTER ROLE `+name+` SET role = 'pg_monitor'; ALTER ROLE `+name+` IN DATABASE `+db+` SET role = '`+name+`'`)
		members, before := membershipsOf(t, c, name), state(t, c, name)
		_, err := s.SetAccess(t.Context(), name, pgrole.Access{Database: db, Level: pgrole.Own}, nil, actor())
		refused(t, err, fault.Invalid, `the default role "`+name+`"`, `ALTER ROLE "`+name+`" IN DATABASE "`+db+`" RESET role`)
		difference(t, members, membershipsOf(t, c, name))
		if state(t, c, name) != before {
			t.Error("it was changed")
		}
		for _, level := range []pgrole.Level{pgrole.Write, pgrole.Read} {
			if _, err := s.SetAccess(t.Context(), name, pgrole.Access{Database: db, Level: level}, nil, actor()); err != nil {
				t.Error(err)
			}
		}
		if got := setting(t, c, name, db); got != "role="+name {
			t.Errorf("its own setting has become %q", got)
		}
		c.Exec(t, `ALTER ROLE `+name+` IN DATABASE `+db+` RESET role`)
		if _, err := s.SetAccess(t.Context(), name, pgrole.Access{Database: db, Level: pgrole.Own}, nil, actor()); err != nil {
			t.Error(err)
		}
		if got := can(t, c, name, db); got != rightsOf[pgrole.Own] {
			t.Errorf("with a role for all databases it can %s", got)
		}
	})
}

// A database that got the name of another does not get its access roles, and neither does one whose roles have odd records.
func TestAccessRolesOfAnother(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	withAccess(t, c, s, "secret_db").Close(t.Context())
	database(t, c, "harmless_db").Close(t.Context())
	mustCreate(t, s, "access_of_another")
	set := func(database string) error {
		_, err := s.SetAccess(t.Context(), "access_of_another", pgrole.Access{Database: database, Level: pgrole.Read}, nil,
			actor())
		return err
	}
	c.Exec(t, `ALTER DATABASE secret_db RENAME TO secret_db_2`)
	c.Exec(t, `ALTER DATABASE harmless_db RENAME TO secret_db`)
	refused(t, set("secret_db"), fault.Invalid, `no access roles`)
	refused(t, set("secret_db_2"), fault.Invalid, `no access roles`)
	c.Exec(t, `ALTER DATABASE secret_db RENAME TO harmless_db`)
	c.Exec(t, `ALTER DATABASE secret_db_2 RENAME TO secret_db`)
	if err := set("secret_db"); err != nil {
		t.Error(err)
	}
	for _, comment := range []string{"", `{"revision":1,"attempt":"0198f3a2-0000-7000-8000-000000000001"}`,
		`{"revision":1,"attempt":"0198f3a2-0000-7000-8000-000000000001","access":{"database":"other","level":"read"}}`,
		`{"revision":1,"attempt":"0198f3a2-0000-7000-8000-000000000001","access":{"database":"secret_db","level":"own"}}`,
		`{"revision":1,"attempt":"0198f3a2-0000-7000-8000-000000000001","access":{"database":"secret_db"}}`,
		`{"revision":1,"attempt":"0198f3a2-0000-7000-8000-000000000001","access":[]}`} {
		c.Exec(t, `COMMENT ON ROLE secret_db_read IS 'rolecall:v1 `+comment+`'`)
		refused(t, set("secret_db"), fault.Invalid, `no access roles`)
	}
}

func TestCreateWith(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		first, second, third := name+"_b", name+"_a", name+"_c"
		for _, db := range []string{first, second, third} {
			withAccess(t, c, s, db)
		}
		groups(t, s, name+"_role", name+"_every")
		s = granting(s, name+"_role")
		s.MemberOf = []string{name + "_every"}
		until, limit, by := new(time.Date(2100, 1, 2, 3, 4, 5, 0, time.UTC)), 3, actor()
		d, err := s.CreateWith(t.Context(), pgrole.NewUser{Name: name, Password: password, Roles: []string{name + "_role"},
			Access: []pgrole.Access{{Database: first, Level: pgrole.Own}, {Database: second, Level: pgrole.Write}},
			Limits: pgrole.Limits{ValidUntil: &until, ConnectionLimit: &limit}}, by)
		if err != nil {
			t.Fatal(err)
		}
		if want := []string{second + "_write", first + "_owner", name + "_every", name + "_role"}; !slices.Equal(d.MemberOf,
			want) ||
			!d.ValidUntil.Equal(*until) || d.ConnectionLimit != 3 || d.State != pgrole.StateActive ||
			d.Provenance.CreatedBy != account || d.Provenance.Attempt != by.Attempt || d.Provenance.Revision != 1 {
			t.Errorf("got %+v", d)
		}
		for db, level := range map[string]pgrole.Level{first: pgrole.Own, second: pgrole.Write, third: ""} {
			if got := can(t, c, name, db); got != rightsOf[level] {
				t.Errorf("in %s it can %s", db, got)
			}
		}
		mustDelete(t, s, name)
		if _, err := s.CreateWith(t.Context(), pgrole.NewUser{Name: name, Password: password}, actor()); err != nil {
			t.Fatal(err)
		}
		mayLogin(t, c, name, password)
		_, err = s.CreateWith(t.Context(), pgrole.NewUser{Name: name, Password: password}, actor())
		refused(t, err, fault.Exists)
	})
}

// Nothing exists after a refusal.
func TestCreateWithRefusals(t *testing.T) {
	asBoth(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		db, bare, user := name+"_db", name+"_bare", name+"_user"
		withAccess(t, c, s, db)
		database(t, c, bare)
		groups(t, s, name+"_role", name+"_late", name+"_super")
		c.Exec(t, `ALTER ROLE `+name+`_super CREATEROLE`)
		s = granting(s, name+"_role", name+"_super", "absent", db+"_write")
		other := func(change func(n *pgrole.NewUser)) pgrole.NewUser {
			n := pgrole.NewUser{Name: user, Password: password, Roles: []string{name + "_role"},
				Access: []pgrole.Access{{Database: db, Level: pgrole.Own}}}
			change(&n)
			return n
		}
		much := -2
		before := membershipsOf(t, c, name)
		for _, tt := range []struct {
			n    pgrole.NewUser
			kind fault.Kind
			part string
		}{
			{other(func(n *pgrole.NewUser) { n.Name = "pg_x" }), fault.Invalid, "reserved"},
			{other(func(n *pgrole.NewUser) { n.Password = "short" }), fault.Invalid, "10 to 63"},
			{other(func(n *pgrole.NewUser) { n.Limits.ConnectionLimit = &much }), fault.Invalid, "limit"},
			{other(func(n *pgrole.NewUser) { n.Roles = append(n.Roles, name+"_late") }), fault.Invalid, name + "_late"},
			{other(func(n *pgrole.NewUser) { n.Roles = append(n.Roles, "absent") }), fault.Invalid, "absent"},
			{other(func(n *pgrole.NewUser) { n.Roles = append(n.Roles, name+"_super") }), fault.Forbidden, "system role"},
			{other(func(n *pgrole.NewUser) { n.Roles = append(n.Roles, db+"_write") }), fault.Invalid, "access to the database"},
			{other(func(n *pgrole.NewUser) { n.Roles = append(n.Roles, db+"_read") }), fault.Invalid, "access to the database"},
			{other(func(n *pgrole.NewUser) { n.Access[0].Level = "all" }), fault.Invalid, "unknown"},
			{other(func(n *pgrole.NewUser) { n.Access = append(n.Access, pgrole.Access{Database: bare, Level: "read"}) }),
				fault.Invalid, "no access roles"},
			{other(func(n *pgrole.NewUser) { n.Access = append(n.Access, pgrole.Access{Database: "absent", Level: "read"}) }),
				fault.Invalid, `no database "absent"`},
			{other(func(n *pgrole.NewUser) { n.Access = append(n.Access, pgrole.Access{Database: db, Level: "read"}) }),
				fault.Invalid, "two levels"},
			{other(func(n *pgrole.NewUser) { n.Name = db + "_owner" }), fault.Exists, ""},
		} {
			d, err := s.CreateWith(t.Context(), tt.n, actor())
			refused(t, err, tt.kind, tt.part)
			if d != nil || exists(t, c, user) {
				t.Errorf("%+v: there is %+v", tt.n, d)
			}
		}
		difference(t, before, membershipsOf(t, c, name))
	})
}

// A disabled user has nothing but its password, which Enable lets it use again.
func TestDisableAndEnable(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		mustCreate(t, s, name)
		disable := func(sessions int) *pgrole.Details {
			t.Helper()
			by := actor()
			d, ended, err := s.Disable(t.Context(), name, nil, by)
			if err != nil || ended < sessions || d.State != pgrole.StateDisabled || d.Provenance.Attempt != by.Attempt {
				t.Fatalf("got %+v, %d sessions, %v", d, ended, err)
			}
			mayNotLogin(t, c, name, password)
			return d
		}
		enable := func(password string) {
			t.Helper()
			d, err := s.Enable(t.Context(), name, nil, actor())
			if err != nil || d.State != pgrole.StateActive || d.Provenance.CreatedBy != account {
				t.Fatalf("got %+v, %v", d, err)
			}
			mayLogin(t, c, name, password)
		}
		first, second := c.Connect(t, name, password, "postgres"), c.Connect(t, name, password, "postgres")
		disable(2)
		for _, conn := range []*pgx.Conn{first, second} {
			if conn.Ping(t.Context()) == nil {
				t.Error("a session goes on")
			}
		}
		if got := allUsers(t, s, name); !slices.Contains(got, name) {
			t.Error("it is not listed")
		}
		disable(0)
		refused(t, s.CheckLeasable(t.Context(), name), fault.Invalid, "enable it")
		enable(password)
		enable(password)
		// A new password leaves it disabled.
		disable(0)
		u, err := s.SetPassword(t.Context(), name, password2, nil, actor())
		if err != nil || u.Provenance.State != pgrole.StateDisabled {
			t.Fatalf("got %+v, %v", u, err)
		}
		mayNotLogin(t, c, name, password2)
		enable(password2)
		// A deletion that is refused leaves it as it was, and one that disables takes the password.
		disable(0)
		c.Exec(t, `CREATE SCHEMA `+name+`; ALTER SCHEMA `+name+` OWNER TO `+name)
		refused(t, remove(t, s, name, "", nil, actor()), fault.InUse)
		enable(password2)
		disable(0)
		if why, _, err := s.DeleteOrDisable(t.Context(), name, "", nil, actor()); why == "" || err != nil {
			t.Fatalf("got %q, %v", why, err)
		}
		isDisabled(t, c, s, name)
		disable(0)
		_, err = s.Enable(t.Context(), name, nil, actor())
		refused(t, err, fault.Invalid, "Set a password")
		isDisabled(t, c, s, name)
		if _, err := s.SetPassword(t.Context(), name, password, nil, actor()); err != nil {
			t.Fatal(err)
		}
		mayLogin(t, c, name, password)
		disable(0)
		enable(password)
		c.Exec(t, `DROP SCHEMA `+name)
		disable(0)
		mustDelete(t, s, name)
	})
}

func TestDisableAndEnableRefusals(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	const name = "disable_enable_refused"
	mustCreate(t, s, name, name+"_deleting", name+"_super")
	c.Exec(t, `CREATE ROLE `+name+`_group; ALTER ROLE `+name+`_super CREATEROLE;
		COMMENT ON ROLE `+name+`_deleting IS
		  'rolecall:v1 {"revision":2,"attempt":"0198f3a2-0000-7000-8000-000000000001","state":"deleting"}'`)
	if _, err := s.CreateLease(t.Context(), pgrole.NewLease{ID: actor().Attempt, For: name, Name: name + "_lease",
		TTL: time.Hour}, password, actor()); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		user  string
		match etag.Match
		kind  fault.Kind
	}{
		{"absent", nil, fault.NotFound},
		{name + "_group", nil, fault.NotFound},
		{name + "_super", nil, fault.Forbidden},
		{"postgres", nil, fault.Forbidden},
		{name + "_deleting", nil, fault.InUse},
		{name + "_lease", nil, fault.Invalid},
		{name, etag.Match{"x"}, fault.Stale},
	} {
		before := state(t, c, tt.user)
		_, _, err := s.Disable(t.Context(), tt.user, tt.match, actor())
		refused(t, err, tt.kind)
		_, err = s.Enable(t.Context(), tt.user, tt.match, actor())
		refused(t, err, tt.kind)
		if state(t, c, tt.user) != before {
			t.Errorf("%s was changed", tt.user)
		}
	}
}

// Memberships in access roles are no business of SetRoles, GrantRole and RevokeRole, whatever may be granted.
func TestRolesKeepAccess(t *testing.T) {
	asBoth(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		db := name + "_db"
		withAccess(t, c, s, db)
		groups(t, s, name+"_role")
		mustCreate(t, s, name)
		if _, err := s.SetAccess(t.Context(), name, pgrole.Access{Database: db, Level: pgrole.Write}, nil, actor()); err != nil {
			t.Fatal(err)
		}
		for _, grantable := range [][]string{{name + "_role"}, {name + "_role", db + "_write", db + "_owner"}} {
			s := granting(s, grantable...)
			d, kept := mustSetRoles(t, s, name, []string{name + "_role"}, grantable)
			if want := []string{db + "_write"}; !slices.Equal(kept, want) || !slices.Contains(d.MemberOf, want[0]) {
				t.Errorf("kept %q, got %+v", kept, d)
			}
			before := state(t, c, name)
			for _, role := range []string{db + "_write", db + "_owner"} {
				_, _, err := s.SetRoles(t.Context(), name, []string{role}, nil, actor())
				refused(t, err, fault.Invalid, "access to the database", db)
				_, err = s.GrantRole(t.Context(), name, role, nil, actor())
				refused(t, err, fault.Invalid, "access to the database", db)
				_, err = s.RevokeRole(t.Context(), name, role, nil, actor())
				refused(t, err, fault.Invalid, "access to the database", db)
			}
			if state(t, c, name) != before || can(t, c, name, db) != "read write" {
				t.Error("it was changed")
			}
		}
	})
}

// A lease for an access role needs nothing to be grantable, and what it makes belongs to the access role.
func TestLeaseForAccessRole(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		db := name + "_db"
		admin := withAccess(t, c, s, db)
		for _, level := range pgrole.Levels {
			role, _ := pgrole.AccessRole(db, level)
			lease := pgrole.NewLease{ID: actor().Attempt, For: role, Name: name + "_" + string(level), TTL: time.Hour}
			if l, err := s.CreateLease(t.Context(), lease, password, actor()); err != nil || !slices.Contains(l.Databases, db) {
				t.Fatalf("got %+v, %v", l, err)
			}
			if got := can(t, c, lease.Name, db); got != rightsOf[level] {
				t.Errorf("with %q it can %s", level, got)
			}
			if level == pgrole.Own {
				exec(t, c.Connect(t, lease.Name, password, db), `CREATE TABLE made ()`)
			}
			if _, err := s.EndLease(t.Context(), pgrole.LeaseKey{Name: lease.Name, ID: lease.ID}, false, actor()); err != nil {
				t.Fatal(err)
			}
			if exists(t, c, lease.Name) {
				t.Errorf("%s is left", lease.Name)
			}
		}
		if got := value[string](t, admin,
			`SELECT relowner::regrole::text FROM pg_class WHERE relname = 'made'`); got != db+"_owner" {
			t.Errorf("the table belongs to %s", got)
		}
	})
}

// What a lease for a user with the level own makes belongs to the access role, as what the user makes does. It follows a
// change of the user's level.
func TestLeaseForOwner(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		db := name + "_db"
		admin := withAccess(t, c, s, db)
		mustCreate(t, s, name)
		level := func(l pgrole.Level) {
			t.Helper()
			if _, err := s.SetAccess(t.Context(), name, pgrole.Access{Database: db, Level: l}, nil, actor()); err != nil {
				t.Fatal(err)
			}
		}
		level(pgrole.Own)
		take := func(as string) *pgrole.LeaseRole {
			t.Helper()
			l, err := s.CreateLease(t.Context(), pgrole.NewLease{ID: actor().Attempt, For: name, Name: as, TTL: time.Hour}, password,
				actor())
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		before := take(name + "_before")
		exec(t, c.Connect(t, before.Name, password, db), `CREATE TABLE made_before ()`)
		level(pgrole.Write)
		if got := can(t, c, before.Name, db); got != rightsOf[pgrole.Write] {
			t.Errorf("a lease for a writer can %s", got)
		}
		after := take(name + "_after")
		level(pgrole.Own)
		for _, l := range []*pgrole.LeaseRole{before, after} {
			if got := can(t, c, l.Name, db); got != rightsOf[pgrole.Own] {
				t.Errorf("a lease for an owner can %s", got)
			}
			exec(t, c.Connect(t, l.Name, password, db), `CREATE TABLE made_by_`+l.Name+` ()`)
		}
		session := c.Connect(t, after.Name, password, db)
		level(pgrole.Read)
		if session.Ping(t.Context()) == nil {
			t.Error("a session that acts as the access role of own goes on")
		}
		for _, l := range []*pgrole.LeaseRole{before, after} {
			if setting := setting(t, c, l.Name, db); setting != "" {
				t.Errorf("the lease of a reader has the setting %s", setting)
			}
			if _, err := s.EndLease(t.Context(), pgrole.LeaseKey{Name: l.Name, ID: l.ID}, false, actor()); err != nil {
				t.Fatal(err)
			}
		}
		if others := value[int](t, admin, `SELECT count(*) FROM pg_class WHERE relname LIKE 'made_%'
			AND relowner <> ($1 || '_owner')::regrole`, db); others != 0 {
			t.Errorf("%d tables belong to others", others)
		}
	})
}

// An access role that was given LOGIN by SQL does not become a user to be changed.
func TestAccessRoleIsNoUser(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s := superuser(t, c)
	withAccess(t, c, s, "no_user_db")
	c.Exec(t, `ALTER ROLE no_user_db_owner LOGIN PASSWORD '`+password+`'`)
	before := state(t, c, "no_user_db_owner")
	_, err := s.SetPassword(t.Context(), "no_user_db_owner", password2, nil, actor())
	refused(t, err, fault.Invalid, "access role", "NOLOGIN")
	_, _, err = s.Disable(t.Context(), "no_user_db_owner", nil, actor())
	refused(t, err, fault.Invalid, "access role")
	_, err = s.SetAccess(t.Context(), "no_user_db_owner", pgrole.Access{Database: "no_user_db", Level: pgrole.Read}, nil,
		actor())
	refused(t, err, fault.Invalid, "access role")
	refused(t, remove(t, s, "no_user_db_owner", "", nil, actor()), fault.Invalid, "access role")
	if state(t, c, "no_user_db_owner") != before {
		t.Error("it was changed")
	}
}

// Who may not grant a role does not get it by the name of a database: neither by adopting it, nor by a user of that name.
func TestAdoptingTakesAnAdmin(t *testing.T) {
	asBoth(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		db, adopt := name+"_db", true
		groups(t, s, db+"_owner")
		mustCreate(t, s, name)
		if _, err := s.CreateDatabase(t.Context(), pgrole.NewDatabase{Name: db, Owner: name}, actor()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Exec(t, `DROP DATABASE IF EXISTS `+db+` WITH (FORCE)`) })
		wish := pgrole.AccessRolesWish{Database: db, Adopt: &adopt}
		manager := *s
		manager.Reassignable = []string{name}
		_, err := manager.CompleteAccessRoles(t.Context(), wish, actor())
		refused(t, err, fault.Forbidden, "only an admin adopts it")
		if exists(t, c, db+"_read") {
			t.Error("access roles were made")
		}
		_, err = manager.SetAccess(t.Context(), name, pgrole.Access{Database: db, Level: pgrole.Own}, nil, actor())
		refused(t, err, fault.Invalid, "no access roles")
		// A user that was given the name, and was disabled to have no LOGIN, is not adopted either.
		mustCreate(t, s, db+"_write")
		if _, _, err := s.Disable(t.Context(), db+"_write", nil, actor()); err != nil {
			t.Fatal(err)
		}
		_, err = s.CompleteAccessRoles(t.Context(), wish, actor())
		refused(t, err, fault.Invalid, "is a user")
		mustDelete(t, s, db+"_write")
		manager.Reassignable = []string{db + "_owner"}
		if _, err := manager.CompleteAccessRoles(t.Context(), wish, actor()); err != nil {
			t.Error(err)
		}
	})
}

// Of levels that are set at the same time one is left, and a COMMIT without an answer is found out about.
func TestLevelsConcurrentAndCut(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	p := &cutter{}
	s := serverAt(t, p.listen(t, c), c.User, c.Password)
	const name, db = "levels_cut", "levels_cut_db"
	withAccess(t, c, s, db)
	for _, before := range []bool{true, false} {
		p.arm(before, 0, 1)
		d, err := s.CreateWith(t.Context(), pgrole.NewUser{Name: name, Password: password,
			Access: []pgrole.Access{{Database: db, Level: pgrole.Own}}}, actor())
		p.arm(before, 0, 0)
		if err != nil || !slices.Equal(d.MemberOf, []string{db + "_owner"}) {
			t.Fatalf("before the server gets it %v: %+v, %v", before, d, err)
		}
		for _, err := range together(6, func(i int) error {
			_, err := s.SetAccess(t.Context(), name, pgrole.Access{Database: db, Level: pgrole.Levels[i%3]}, nil, actor())
			return err
		}) {
			if err != nil {
				t.Error(err)
			}
		}
		d = details(t, s, name)
		owns := setting(t, c, name, db) != ""
		if len(d.MemberOf) != 1 || owns != (d.MemberOf[0] == db+"_owner") {
			t.Errorf("got %+v, with the role of own %v", d, owns)
		}
		mustDelete(t, s, name)
	}
}
