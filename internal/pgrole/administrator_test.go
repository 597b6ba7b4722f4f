package pgrole_test

import (
	"testing"

	"rolecall/internal/fault"
	"rolecall/internal/pgtest"
)

// What was granted by somebody whom the administering role may not become stays, and the user with it.
func TestGrantsByTheSuperuserStay(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s, role := administrator(t, c)
	conn := c.Connect(t, c.User, c.Password, "postgres")
	for name, setup := range map[string]string{
		"stay_table":   `CREATE TABLE stay (); GRANT SELECT ON stay TO stay_table`,
		"stay_default": `ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO stay_default`,
	} {
		mustCreate(t, s, name, name+"_owner")
		// This one it may revoke, and says so.
		exec(t, conn, `CREATE SCHEMA `+name+` AUTHORIZATION `+name+`_owner`, `SET ROLE `+name+`_owner`, `GRANT USAGE ON SCHEMA `+name+` TO `+name, `RESET ROLE`, setup)
		members := memberships(t, c)
		refused(t, s.Delete(t.Context(), name, "", nil, stamp()), fault.InUse, `postgres`, "may log in again")
		mayLogin(t, c, name, password)
		if u, err := s.User(t.Context(), name); err != nil || u.Provenance.State != "" {
			t.Errorf("got %+v, %v", u, err)
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
	refused(t, s.Delete(t.Context(), "no_connect", "", nil, stamp()), fault.InUse, `"no_connect_db"`, "GRANT CONNECT", "Nothing was changed")
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
	exec(t, conn, `CREATE SCHEMA circle AUTHORIZATION circle_owner`, `SET ROLE circle_owner`, `GRANT USAGE ON SCHEMA circle TO circle`)
	refused(t, s.Delete(t.Context(), "circle", "", nil, stamp()), fault.InUse, "SCHEMA circle", "may log in again")
	mayLogin(t, c, "circle", password)
}

// From PostgreSQL 16 on CREATEROLE reaches only roles that one has ADMIN OPTION on; before, every one that is no superuser.
func TestRoleOfAnotherAdministrator(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s, _ := administrator(t, c)
	c.Exec(t, `CREATE ROLE foreign_role LOGIN`)
	before := state(t, c, "foreign_role")
	_, err := s.SetPassword(t.Context(), "foreign_role", password, nil, stamp())
	if c.Major < 16 {
		if err != nil {
			t.Fatal(err)
		}
		mayLogin(t, c, "foreign_role", password)
		mustDelete(t, s, "foreign_role")
		return
	}
	refused(t, err, fault.Forbidden, "ADMIN OPTION")
	refused(t, s.Delete(t.Context(), "foreign_role", "", nil, stamp()), fault.Forbidden, "ADMIN OPTION")
	if state(t, c, "foreign_role") != before {
		t.Error("it was changed")
	}
}

// A new owner who could not have made the objects does not get them, and what other databases gave is said.
func TestReassignToOneWhoMayNotCreate(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	s, role := administrator(t, c)
	const name, to = "may_not_create", "may_not_create_to"
	mustCreate(t, s, name, to)
	first, second := database(t, c, "may_not_create_a"), database(t, c, "may_not_create_b")
	exec(t, first, `CREATE TABLE t ()`, `ALTER TABLE t OWNER TO `+name)
	exec(t, second, `CREATE SCHEMA s`, `CREATE FUNCTION s.f() RETURNS int LANGUAGE sql AS 'SELECT 1'`, `ALTER FUNCTION s.f OWNER TO `+name)
	members := memberships(t, c)
	refused(t, s.Delete(t.Context(), name, to, nil, stamp()), fault.InUse, `"may_not_create_b"`, "CREATE on the schemas", "may log in again",
		`what it owned in database "may_not_create_a" went to "may_not_create_to"`)
	mayLogin(t, c, name, password)
	noNewMembership(t, c, members, role)
	exec(t, second, `GRANT CREATE ON SCHEMA s TO `+to)
	if err := s.Delete(t.Context(), name, to, nil, stamp()); err != nil {
		t.Error(err)
	}
}
