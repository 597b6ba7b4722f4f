package pgrole_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
)

// accessRoles makes the access roles of a database, or completes them.
func accessRoles(t testing.TB, s *pgrole.Server, wish pgrole.AccessRolesWish) *pgrole.AccessRoles {
	t.Helper()
	planned, err := s.PlanAccessRoles(t.Context(), wish)
	if err != nil {
		t.Fatalf("plan: %v", err)
	}
	all, err := s.CompleteAccessRoles(t.Context(), wish, actor())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(planned.Statements, all.Statements) || !slices.Equal(planned.Problems, all.Problems) {
		t.Errorf("planned\n%s\n%s\nrun\n%s\n%s", planned.Statements, planned.Problems, all.Statements, all.Problems)
	}
	again, err := s.CompleteAccessRoles(t.Context(), wish, actor())
	if err != nil || len(again.Statements) > 0 {
		t.Errorf("a second call: %v, %v", again, err)
	}
	shown, err := s.AccessRoles(t.Context(), wish.Database)
	if err != nil || shown.Complete != all.Complete || !slices.Equal(shown.Schemas, all.Schemas) || shown.Adopt != all.Adopt {
		t.Errorf("shown are %+v, %v; made were %+v", shown, err, all)
	}
	return all
}

// withLevels makes users of all levels in a database, and connects as them. A user of own acts as the access role.
func withLevels(t testing.TB, c *pgtest.Cluster, s *pgrole.Server, database string) (own, write, read *pgx.Conn) {
	t.Helper()
	session := func(level pgrole.Level) *pgx.Conn {
		role, err := pgrole.AccessRole(database, level)
		if err != nil {
			t.Fatal(err)
		}
		user := role + "_u"
		mustCreate(t, s, user)
		c.Exec(t, `GRANT "`+role+`" TO "`+user+`"`)
		conn := c.Connect(t, user, password, database)
		if level == pgrole.Own {
			exec(t, conn, `SET ROLE "`+role+`"`)
		}
		return conn
	}
	return session(pgrole.Own), session(pgrole.Write), session(pgrole.Read)
}

// denied fails t unless PostgreSQL denies each statement for lack of a privilege.
func denied(t testing.TB, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		if _, err := conn.Exec(context.Background(), sql); err == nil || !strings.Contains(err.Error(), "42501") {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

func TestAccessRoles(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		mustCreate(t, s, name)
		if _, err := s.CreateDatabase(t.Context(), pgrole.NewDatabase{Name: name, Owner: name}, actor()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Exec(t, `DROP DATABASE IF EXISTS `+name+` WITH (FORCE)`) })
		before := c.Connect(t, name, password, name)
		exec(t, before, `CREATE SCHEMA app`, `CREATE TABLE app.old (id serial, n int)`, `CREATE VIEW app.v AS SELECT 1`)
		_, err := s.AccessRoles(t.Context(), name)
		refused(t, err, fault.NotFound)
		all := accessRoles(t, s, pgrole.AccessRolesWish{Database: name})
		own, write, read := withLevels(t, c, s, name)
		exec(t, own, `CREATE SCHEMA later`)
		for _, schema := range []string{"app", "later"} {
			exec(t, own, `CREATE TABLE `+schema+`.new (id serial, n int)`)
			for _, table := range []string{schema + ".new", "app.old"} {
				exec(t, own, `INSERT INTO `+table+` (n) VALUES (1)`)
				exec(t, write, `INSERT INTO `+table+` (n) VALUES (1)`, `UPDATE `+table+` SET n = n`, `DELETE FROM `+table)
				denied(t, write, `TRUNCATE `+table, `CREATE TABLE `+schema+`.mine ()`, `CREATE SCHEMA mine`)
				exec(t, read, `SELECT n FROM `+table)
				denied(t, read, `INSERT INTO `+table+` (n) VALUES (1)`, `UPDATE `+table+` SET n = n`, `DELETE FROM `+table,
					`CREATE TABLE `+schema+`.mine ()`, `CREATE SCHEMA mine`)
			}
			exec(t, write, `SELECT nextval('`+schema+`.new_id_seq')`)
			denied(t, read, `SELECT nextval('`+schema+`.new_id_seq')`)
		}
		if all.Complete {
			denied(t, write, `CREATE TABLE public.mine ()`)
			denied(t, read, `CREATE TABLE public.mine ()`)
		}
		mustCreate(t, s, name+"_none")
		if conn, err := pgx.Connect(t.Context(), strings.Replace(c.URL(name), c.User+":"+c.Password, name+"_none:first%20password",
			1)); err == nil {
			conn.Close(t.Context())
			t.Error("a user without a level may connect")
		}
		err = s.RemoveAccessRoles(t.Context(), name, "", actor())
		refused(t, err, fault.Invalid, "has members", fmt.Sprintf("%s_read_u", name))
	})
}

// databaseWith makes a database with access roles, which own it.
func databaseWith(t testing.TB, c *pgtest.Cluster, s *pgrole.Server, name string) {
	t.Helper()
	if _, err := s.CreateDatabase(t.Context(), pgrole.NewDatabase{Name: name, AccessRoles: true}, actor()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Exec(t, `DROP DATABASE IF EXISTS "`+name+`" WITH (FORCE)`) })
}

func TestDatabaseWithAccessRoles(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		databaseWith(t, c, s, name)
		for _, m := range membershipsOf(t, c, name) {
			if !strings.HasSuffix(m, " t false false") { // what comes with making a role: neither inherited nor to SET ROLE
				t.Errorf("left: %s", m)
			}
		}
		d, err := s.Database(t.Context(), name)
		if err != nil || d.Owner != name+"_owner" || !d.AccessRoles || d.Provenance.CreatedBy != account {
			t.Errorf("got %+v, %v", d, err)
		}
		all := accessRoles(t, s, pgrole.AccessRolesWish{Database: name})
		if len(all.Statements) > 0 || len(all.Roles) != 3 {
			t.Errorf("it is not complete: %+v", all)
		}
		own, write, read := withLevels(t, c, s, name)
		exec(t, own, `CREATE TABLE t (id serial, n int)`)
		exec(t, write, `INSERT INTO t (n) VALUES (1)`)
		exec(t, read, `SELECT n FROM t`)
		denied(t, read, `DELETE FROM t`)
		denied(t, write, `CREATE SCHEMA mine`)

		_, err = s.CreateDatabase(t.Context(), pgrole.NewDatabase{Name: name, AccessRoles: true}, actor())
		refused(t, err, fault.Exists)
		for _, conn := range []*pgx.Conn{own, write, read} {
			conn.Close(t.Context())
		}
		if err := s.DropDatabase(t.Context(), name, actor()); err != nil {
			t.Fatal(err)
		}
		for _, suffix := range []string{"_owner", "_write", "_read"} {
			if exists(t, c, name+suffix) {
				t.Errorf("%s is still there", name+suffix)
			}
		}
		// The administering role itself owns a database for which nobody is named.
		d, err = s.CreateDatabase(t.Context(), pgrole.NewDatabase{Name: name}, actor())
		if err != nil || d.Owner != s.Pool.Config().ConnConfig.User || d.AccessRoles {
			t.Errorf("got %+v, %v", d, err)
		}
	})
}

// grants is all that is granted in a database, on it and by default, and who owns it.
func grants(t testing.TB, c *pgtest.Cluster, database string) string {
	t.Helper()
	conn := c.Connect(t, c.User, c.Password, database)
	defer conn.Close(context.Background())
	return value[string](t, conn, `
		SELECT string_agg(concat_ws(' ', what, grantee::regrole, privilege_type, grantor::regrole, is_grantable), E'\n'
		  ORDER BY what, grantee::regrole::text, privilege_type, grantor::regrole::text) FROM (
		  SELECT 'database', coalesce(datacl, acldefault('d', datdba)) FROM pg_database WHERE datname = current_database()
		  UNION ALL SELECT nspname, coalesce(nspacl, acldefault('n', nspowner)) FROM pg_namespace
		  UNION ALL SELECT relname, coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner))
		    FROM pg_class WHERE oid >= 16384 AND relkind IN ('r', 'S', 'v')
		  UNION ALL SELECT 'default', defaclacl FROM pg_default_acl) granted (what, acl), aclexplode(acl)`)
}

func TestRemoveAccessRoles(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		mustCreate(t, s, name, name+"_heir", name+"_m")
		db := database(t, c, name, "OWNER "+name)
		exec(t, db, `CREATE SCHEMA app AUTHORIZATION `+name, `SET ROLE `+name, `CREATE TABLE app.t (id serial)`,
			`GRANT SELECT ON app.t TO PUBLIC`, `GRANT CONNECT ON DATABASE `+name+` TO `+name+`_heir`, `RESET ROLE`)
		before := grants(t, c, name)
		refused(t, s.RemoveAccessRoles(t.Context(), name, "", actor()), fault.NotFound)
		accessRoles(t, s, pgrole.AccessRolesWish{Database: name})
		c.Exec(t, `GRANT `+name+`_write TO `+name+`_m`)
		refused(t, s.RemoveAccessRoles(t.Context(), name, "", actor()), fault.Invalid, name+"_m", name+"_write")
		c.Exec(t, `REVOKE `+name+`_write FROM `+name+`_m`)
		exec(t, db, `SET ROLE `+name+`_owner`, `CREATE TABLE app.made ()`, `RESET ROLE`)
		err := s.RemoveAccessRoles(t.Context(), name, "", actor())
		refused(t, err, fault.Invalid, "app.made", name+"_owner")
		if fault.Of(err).Hint != fault.Reassign {
			t.Errorf("the hint is %q", fault.Of(err).Hint)
		}
		for to, kind := range map[string]fault.Kind{name + "_write": fault.Invalid, "absent": fault.Invalid,
			"postgres": fault.Forbidden} {
			refused(t, s.RemoveAccessRoles(t.Context(), name, to, actor()), kind, to)
		}
		if all, err := s.AccessRoles(t.Context(), name); err != nil || len(all.Roles) != 3 || !all.Complete && c.Major > 14 {
			t.Errorf("after the refusals: %+v, %v", all, err)
		}
		if err := s.RemoveAccessRoles(t.Context(), name, name+"_heir", actor()); err != nil {
			t.Fatal(err)
		}
		if !value[bool](t, db, `SELECT tableowner = $1 FROM pg_tables WHERE tablename = 'made'`, name+"_heir") {
			t.Error("app.made did not go to the heir")
		}
		exec(t, db, `DROP TABLE app.made`)
		if after := grants(t, c, name); after != before {
			t.Errorf("the grants are\n%s\nthey were\n%s", after, before)
		}
		for _, suffix := range []string{"_owner", "_write", "_read"} {
			if exists(t, c, name+suffix) {
				t.Errorf("%s is still there", name+suffix)
			}
		}
		refused(t, s.RemoveAccessRoles(t.Context(), name, "", actor()), fault.NotFound)
	})
}

// What PUBLIC did not have before it does not get, and a database that its access role owns goes to another.
func TestRemoveAccessRolesOfOwner(t *testing.T) {
	asEach(t, func(t *testing.T, c *pgtest.Cluster, s *pgrole.Server, name string) {
		mustCreate(t, s, name+"_heir")
		databaseWith(t, c, s, name)
		refused(t, s.RemoveAccessRoles(t.Context(), name, "", actor()), fault.Invalid, "database "+name)
		if err := s.RemoveAccessRoles(t.Context(), name, name+"_heir", actor()); err != nil {
			t.Fatal(err)
		}
		d, err := s.Database(t.Context(), name)
		if err != nil || d.Owner != name+"_heir" || d.AccessRoles {
			t.Errorf("got %+v, %v", d, err)
		}
		may := `SELECT has_database_privilege('public', '` + name + `', 'CONNECT')`
		if !pgtest.Value[bool](t, c, may) {
			t.Error("PUBLIC did not get CONNECT back")
		}
		c.Exec(t, `REVOKE CONNECT ON DATABASE `+name+` FROM PUBLIC; GRANT CONNECT ON DATABASE `+name+` TO `+
			s.Pool.Config().ConnConfig.User)
		accessRoles(t, s, pgrole.AccessRolesWish{Database: name})
		if err := s.RemoveAccessRoles(t.Context(), name, "", actor()); err != nil {
			t.Fatal(err)
		}
		if pgtest.Value[bool](t, c, may) {
			t.Error("PUBLIC got CONNECT, which it did not have")
		}
	})
}
