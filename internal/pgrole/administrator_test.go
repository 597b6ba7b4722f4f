package pgrole_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

// What was granted by somebody whom the administering role may not become stays, and the user with it.
func TestGrantsByTheSuperuserStay(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil) // the superuser's default privileges would reach the tables of other tests
	s, role := administrator(t, c)
	conn := c.Connect(t, c.User, c.Password, "postgres")
	for name, setup := range map[string]string{
		"stay_table":   `CREATE TABLE stay (); GRANT SELECT ON stay TO stay_table`,
		"stay_default": `ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO stay_default`,
	} {
		mustCreate(t, s, name, name+"_owner")
		// This one it may revoke, and says so.
		exec(t, conn, `CREATE SCHEMA `+name+` AUTHORIZATION `+name+`_owner`, `SET ROLE `+name+`_owner`,
			`GRANT USAGE ON SCHEMA `+name+` TO `+name, `RESET ROLE`, setup)
		members, before := memberships(t, c), state(t, c, name)
		refused(t, remove(t, s, name, "", nil, actor()), fault.InUse, `as "postgres", a superuser: `, "Nothing was changed")
		if state(t, c, name) != before {
			t.Error("it was changed")
		}
		noNewMembership(t, c, members, role)
	}
	exec(t, conn, `DROP TABLE stay`, `ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM stay_default`)
	mustDelete(t, s, "stay_table")
	mustDelete(t, s, "stay_default")
}

// A database to which the administering role may not connect is named.
func TestDatabaseWithoutConnect(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s, _ := administrator(t, c)
	mustCreate(t, s, "no_connect")
	db := database(t, c, "no_connect_db")
	exec(t, db, `REVOKE CONNECT ON DATABASE no_connect_db FROM PUBLIC`, `CREATE TABLE t ()`, `GRANT SELECT ON t TO no_connect`)
	before := state(t, c, "no_connect")
	refused(t, remove(t, s, "no_connect", "", nil, actor()), fault.InUse, `"no_connect_db"`, "GRANT CONNECT",
		"Nothing was changed")
	if state(t, c, "no_connect") != before {
		t.Error("it was changed")
	}
}

// A grantor that is a member of the administering role cannot be joined: that would be a circle.
func TestGrantorIsMemberOfTheAdministrator(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s, role := administrator(t, c)
	mustCreate(t, s, "circle")
	c.Exec(t, `CREATE ROLE circle_owner LOGIN PASSWORD 'circle'; GRANT `+role+` TO circle_owner`)
	conn := c.Connect(t, c.User, c.Password, "postgres")
	exec(t, conn, `CREATE SCHEMA circle AUTHORIZATION circle_owner`, `SET ROLE circle_owner`,
		`GRANT USAGE ON SCHEMA circle TO circle`)
	before := state(t, c, "circle")
	refused(t, remove(t, s, "circle", "", nil, actor()), fault.InUse, "SCHEMA circle",
		`as "circle_owner", a member of the administering role: REVOKE USAGE ON SCHEMA circle FROM "circle"`,
		"Nothing was changed")
	if state(t, c, "circle") != before {
		t.Error("it was changed")
	}
}

// From PostgreSQL 16 on CREATEROLE reaches only roles that one has ADMIN OPTION on; before, every one that is no superuser.
func TestRoleOfAnotherAdministrator(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s, _ := administrator(t, c)
	c.Exec(t, `CREATE ROLE foreign_role LOGIN`)
	before := state(t, c, "foreign_role")
	_, err := s.SetPassword(t.Context(), "foreign_role", password, nil, actor())
	if c.Major < 16 {
		if err != nil {
			t.Fatal(err)
		}
		mayLogin(t, c, "foreign_role", password)
		mustDelete(t, s, "foreign_role")
		return
	}
	refused(t, err, fault.Forbidden, "ADMIN OPTION")
	refused(t, remove(t, s, "foreign_role", "", nil, actor()), fault.Forbidden, "ADMIN OPTION")
	if state(t, c, "foreign_role") != before {
		t.Error("it was changed")
	}
}

// The cause of 42501 is looked up: it is not always ADMIN OPTION, above all not for a role that does not exist.
func TestDenied(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s, role := administrator(t, c)
	mustCreate(t, s, "denied")
	c.Exec(t, `ALTER ROLE `+role+` NOCREATEROLE`)
	remedy := `It has no CREATEROLE: ALTER ROLE "` + role + `" CREATEROLE.`
	_, err := s.Create(t.Context(), "denied_new", password, actor())
	refused(t, err, fault.Forbidden, remedy)
	_, err = s.SetPassword(t.Context(), "denied", password2, nil, actor())
	refused(t, err, fault.Forbidden, remedy)
	_, err = s.SetLimits(t.Context(), "denied", pgrole.Limits{ConnectionLimit: new(1)}, nil, actor())
	refused(t, err, fault.Forbidden, remedy)
	refused(t, remove(t, s, "denied", "", nil, actor()), fault.Forbidden, remedy)
	c.Exec(t, `ALTER ROLE `+role+` CREATEROLE`)
	mayLogin(t, c, "denied", password)
	mustDelete(t, s, "denied")
}

// A login that is refused is no cluster that does not answer, and no reason to try again.
func TestLoginRefused(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	for sql, why := range map[string]string{`PASSWORD 'another one'`: "rejects the password of Rolecall's administering role " +
		"(SQLSTATE 28P01). It was changed since", `NOLOGIN`: "does not let Rolecall's administering role in (SQLSTATE 28"} {
		s, role := administrator(t, c)
		c.Exec(t, `ALTER ROLE `+role+` `+sql)
		_, _, err := onPage(s.Users(t.Context(), pgrole.Page{Limit: 1}, false))
		refused(t, err, fault.Unavailable, why)
		_, createErr := s.Create(t.Context(), "login_refused", password, actor())
		refused(t, createErr, fault.Unavailable, why)
		if f := fault.Of(err); f.RetryAfter >= 0 || !f.Outage {
			t.Errorf("%s: try again after %s; it lasts: %t", sql, f.RetryAfter, f.Outage)
		}
	}
}

// TestDocumentedAdministrator does on every major what docs/clusters.md says, as a superuser and as the role that a cloud
// gives in its place, and holds the documents to their promises.
func TestDocumentedAdministrator(t *testing.T) {
	t.Parallel()
	sql := documentedSQL(t, "## The administering role")
	if len(sql) != 4 {
		t.Fatalf("the documents have %d pieces of SQL, want two for each kind of administrator", len(sql))
	}
	pgtest.EachMajor(t, pgtest.Majors, func(t *testing.T, major int) {
		t.Run("superuser", func(t *testing.T) {
			t.Parallel()
			c := pgtest.NewMajor(t, major, nil)
			c.Exec(t, `REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC`)
			documentedAdministrator(t, c, c.Connect(t, c.User, c.Password, "postgres"), sql[0], sql[1])
		})
		t.Run("cloud", func(t *testing.T) {
			t.Parallel()
			c := pgtest.NewMajor(t, major, nil)
			c.Exec(t, `CREATE ROLE rds_superuser; GRANT pg_signal_backend, pg_monitor TO rds_superuser WITH ADMIN OPTION;
					CREATE ROLE master LOGIN CREATEROLE CREATEDB PASSWORD 'master'; GRANT rds_superuser TO master WITH ADMIN OPTION`)
			documentedAdministrator(t, c, c.Connect(t, "master", "master", "postgres"), sql[2], sql[3])
		})
	})
}

// documentedAdministrator makes the administering role over dba, and grants it what was there before where that is needed.
func documentedAdministrator(t *testing.T, c *pgtest.Cluster, dba *pgx.Conn, create, grant string) {
	exec(t, dba, `CREATE ROLE shop_write`, `CREATE ROLE other`,
		`CREATE ROLE alice LOGIN NOINHERIT CONNECTION LIMIT 7 VALID UNTIL '2100-01-01' PASSWORD 'old password'`,
		`GRANT other TO alice WITH ADMIN OPTION`, `ALTER ROLE alice SET work_mem = '1MB'`, `COMMENT ON ROLE alice IS 'of sales'`,
		strings.ReplaceAll(create, "…", "administrator"))
	const role = "rolecall_admin"
	s := serverAs(t, c, role, "administrator")
	conn := c.Connect(t, role, "administrator", "postgres")
	purpose := pgrole.Purpose{Grantable: []string{"shop_write"}}
	p := probeFor(t, conn, purpose)
	if p.Superuser || !p.ManageUsers || !p.CreateDB || !p.SignalBackend || p.ReadVerifiers ||
		p.ForeignRoles != (c.Major < 16) {
		t.Errorf("got %+v", p)
	}
	if c.Major >= 16 {
		if len(p.Problems) != 2 {
			t.Errorf("the problems are %q", p.Problems)
		}
		before := state(t, c, "alice")
		_, err := s.SetPassword(t.Context(), "alice", password, nil, actor())
		refused(t, err, fault.Forbidden, `GRANT "alice" TO`)
		refused(t, remove(t, s, "alice", "", nil, actor()), fault.Forbidden, `GRANT "alice" TO`)
		if u, err := s.User(t.Context(), "alice"); err != nil || u.System() || state(t, c, "alice") != before {
			t.Errorf("got %+v, %v", u, err)
		}
		exec(t, dba, grant)
	}
	problems(t, probeFor(t, conn, purpose))

	// Older users are taken over by what is changed of them, and nothing else is.
	rest := func() string {
		return pgtest.Value[string](t, c, `SELECT (to_jsonb(r) - 'rolpassword')::text || ' ' || (SELECT to_jsonb(d)::text FROM `+
			`pg_db_role_setting d WHERE setrole = r.oid) FROM pg_authid r WHERE rolname = 'alice'`)
	}
	before, members := rest(), memberships(t, c)
	if _, err := s.SetPassword(t.Context(), "alice", password, nil, actor()); err != nil {
		t.Fatal(err)
	}
	mayLogin(t, c, "alice", password)
	if after := rest(); after != before {
		t.Errorf("alice was\n%s, is\n%s", before, after)
	}
	if !strings.HasPrefix(comment(t, c, "alice"), "of sales\n") {
		t.Errorf("the comment is %s", comment(t, c, "alice"))
	}
	// Nor is what PostgreSQL 16 gave of itself, whatever becomes of a user.
	mustCreate(t, s, "made")
	made := slices.DeleteFunc(memberships(t, c), func(m string) bool { return slices.Contains(members, m) })
	if (c.Major >= 16) != slices.Equal(made, []string{"made to rolecall_admin by " + c.User + " t false false"}) ||
		c.Major < 16 && len(made) > 0 {
		t.Errorf("making a user made the memberships %q", made)
	}
	members = memberships(t, c)
	for _, name := range []string{"alice", "made"} {
		if _, _, err := setRoles(t.Context(), s, name, []string{"shop_write"}, purpose.Grantable, nil, actor()); err != nil {
			t.Error(err)
		}
		if _, err := s.SetPassword(t.Context(), name, password2, nil, actor()); err != nil {
			t.Error(err)
		}
		// The session of a login from above may still be ending.
		waitFor(t, c, `SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE usename = $1)`, name)
		session := c.Connect(t, name, password2, "postgres")
		if _, ended, err := setLimitsAndEnd(t.Context(), s, name, pgrole.Limits{}, nil, actor()); err != nil || ended != 1 ||
			session.Ping(t.Context()) == nil {
			t.Errorf("%d sessions of %s ended, %v", ended, name, err)
		}
		if _, _, err := setRoles(t.Context(), s, name, nil, purpose.Grantable, nil, actor()); err != nil {
			t.Error(err)
		}
		if c.Major >= 16 && pgtest.Value[bool](t, c, `SELECT pg_has_role($1, $2, 'USAGE') OR pg_has_role($1, $2, 'SET')`, role,
			name) {
			t.Errorf("it has the rights of %s", name)
		}
	}
	if now := memberships(t, c); !slices.Equal(now, members) {
		t.Errorf("the memberships were\n%q, are\n%q", members, now)
	}

	// Databases, and the deletion of who has something in them.
	if _, err := s.CreateDatabase(t.Context(), pgrole.NewDatabase{Name: "of_made", Owner: "made"}, actor()); err != nil {
		t.Fatal(err)
	}
	if err := remove(t, s, "made", "alice", nil, actor()); err != nil {
		t.Error(err)
	}
	if err := s.DropDatabase(t.Context(), "of_made", actor()); err != nil {
		t.Error(err)
	}
	mustDelete(t, s, "alice")
	if _, err := s.Userlist(t.Context()); !fault.Is(err, fault.Forbidden) {
		t.Errorf("got %v", err)
	}
}

// documentedSQL returns the pieces of SQL in a section of the documents on clusters.
func documentedSQL(t *testing.T, heading string) (pieces []string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/clusters.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n"+heading+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for _, code := range strings.Split(section, "```sql\n")[1:] {
		code, _, _ = strings.Cut(code, "```")
		pieces = append(pieces, code)
	}
	return pieces
}

// A new owner who could not have made the objects does not get them, and nothing has changed then.
func TestReassignToOneWhoMayNotCreate(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s, role := administrator(t, c)
	const name, to = "may_not_create", "may_not_create_to"
	mustCreate(t, s, name, to)
	first, second := database(t, c, "may_not_create_a"), database(t, c, "may_not_create_b")
	exec(t, first, `CREATE TABLE t ()`, `ALTER TABLE t OWNER TO `+name)
	exec(t, second, `CREATE SCHEMA s`, `CREATE FUNCTION s.f() RETURNS int LANGUAGE sql AS 'SELECT 1'`,
		`ALTER FUNCTION s.f OWNER TO `+name)
	members, before, session := memberships(t, c), state(t, c, name), c.Connect(t, name, password, "postgres")
	refused(t, remove(t, s, name, to, nil, actor()), fault.InUse, `function s.f() in database "may_not_create_b"`,
		"GRANT CREATE ON SCHEMA s TO may_not_create_to", "Nothing was changed")
	if state(t, c, name) != before || value[string](t, first,
		`SELECT relowner::regrole::text FROM pg_class WHERE relname = 't'`) !=
		name || session.Ping(t.Context()) != nil {
		t.Error("it was changed, or its session was ended")
	}
	noNewMembership(t, c, members, role)
	exec(t, second, `GRANT CREATE ON SCHEMA s TO `+to)
	if err := remove(t, s, name, to, nil, actor()); err != nil {
		t.Error(err)
	}
}
