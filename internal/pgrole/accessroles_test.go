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
		if _, err := s.CreateDatabase(t.Context(), name, name, actor()); err != nil {
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
