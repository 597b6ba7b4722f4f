package pgrole

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"rolecall/internal/pgtest"
	"rolecall/internal/primary"
)

// quickRole is a role for TestQuickly.
type quickRole struct {
	name string
	by   string // the role that makes it protected; "": it is not protected
	left bool   // selectRolesQuickly does not tell
	sql  string // that makes it, after its name
}

func quickRoles(major int) []quickRole {
	roles := []quickRole{
		{name: "control", by: "control", sql: `LOGIN`},
		{name: "super", by: "super", sql: `LOGIN SUPERUSER`},
		{name: "in_super", by: "super", left: true, sql: `LOGIN NOINHERIT IN ROLE super`},
		{name: "supers", by: "super", left: true, sql: `NOLOGIN IN ROLE super`},
		{name: "by_group", by: "super", left: true, sql: `LOGIN NOINHERIT IN ROLE supers`},
		{name: "replicator", by: "replicator", sql: `LOGIN REPLICATION`},
		{name: "in_replicator", by: "replicator", left: true, sql: `LOGIN IN ROLE replicator`},
		{name: "bypass", by: "bypass", sql: `LOGIN BYPASSRLS`},
		{name: "creator", by: "creator", sql: `LOGIN CREATEROLE`},
		{name: "in_creator", by: "creator", left: true, sql: `LOGIN IN ROLE creator`},
		{name: "super_in_creator", by: "super_in_creator", sql: `LOGIN SUPERUSER IN ROLE creator`},
		{name: "star_in_creator", by: "creator", left: true, sql: `LOGIN IN ROLE creator`},
		{name: "system_in_creator.system", by: "system_in_creator.system", sql: `LOGIN IN ROLE creator`},
		{name: "executes", by: "pg_execute_server_program", left: true, sql: `LOGIN IN ROLE pg_execute_server_program`},
		{name: "rds_superuser", by: "rds_superuser", sql: `NOLOGIN`},
		{name: "of_cloud", by: "rds_superuser", left: true, sql: `LOGIN IN ROLE rds_superuser`},
		{name: "in_control", by: "control", left: true, sql: `LOGIN IN ROLE control`},
		{name: "in_system", left: true, sql: `LOGIN IN ROLE star`}, // a system role is not dangerous
		{name: "plain", left: true, sql: `LOGIN IN ROLE pg_monitor, pg_read_all_data`},
		{name: "in_plain", left: true, sql: `LOGIN IN ROLE plain`},
		{name: "makes_databases", sql: `LOGIN CREATEDB`},
		{name: "group_only", sql: `NOLOGIN`},
		{name: "stair", sql: `LOGIN`},
		{name: "app-", by: "app-", sql: `LOGIN`},
		{name: "app-x/y", by: "app-x/y", sql: `LOGIN`},
		{name: "app-\tx", by: "app-\tx", sql: `LOGIN`},
		{name: "appx", sql: `LOGIN`},
		{name: ".system", by: ".system", sql: `LOGIN`},
		{name: "systems", sql: `LOGIN`},
		{name: "50%", by: "50%", sql: `LOGIN`},
		{name: "501", sql: `LOGIN`},
		{name: "a_b", by: "a_b", sql: `LOGIN`},
		{name: "axb", sql: `LOGIN`},
		{name: `back\slash`, by: `back\slash`, sql: `LOGIN`},
		{name: "back*", sql: `LOGIN`},
		{name: "éé", by: "éé", left: true, sql: `LOGIN`},
		{name: "é", left: true, sql: `LOGIN`},
		{name: "[x]", by: "[x]", sql: `LOGIN`},
		{name: "x", sql: `LOGIN`},
		{name: "X", sql: `LOGIN`},
		{name: "STAR", sql: `LOGIN`},
		{name: `a "quoted" \name`, sql: `LOGIN`},
		{name: "a\tname\x7f", sql: `LOGIN`},
		{name: strings.Repeat("n", MaxName), sql: `LOGIN`},
		{name: strings.Repeat("é", MaxName/2), left: true, sql: `LOGIN`},
		{name: "limited", sql: `LOGIN CONNECTION LIMIT 0 VALID UNTIL '2001-02-03 04:05:06+00'`},
		{name: "unlimited", sql: `LOGIN VALID UNTIL 'infinity'`},
		{name: "reads_files", by: "reads_files", left: true, sql: `LOGIN`},
		{name: "in_reads_files", by: "reads_files", left: true, sql: `LOGIN IN ROLE reads_files`},
		{name: "lists_files", left: true, sql: `LOGIN`},
		{name: "sets", sql: `LOGIN`},
		{name: "owner", sql: `LOGIN`},
		{name: "postgres", by: "postgres"},
		{name: "pg_execute_server_program", by: "pg_execute_server_program"},
		{name: "pg_read_all_settings", by: "pg_read_all_settings"},
		{name: "pg_monitor", by: "pg_monitor", left: true}, // it is a member of others
		{name: "star", by: "star", sql: `LOGIN`},
	}
	if i := slices.IndexFunc(roles, func(r quickRole) bool { return r.name == "sets" }); major >= 15 {
		roles[i].by, roles[i].left = "sets", true
	}
	return roles
}

const shortRecord = "\n" + `rolecall:v1 {"revision":1,"attempt":"0199d9a0-0000-7000-8000-000000000001"}`

// quickComments are comments of roles that are named after them.
var quickComments = map[string]string{
	"managed":  `rolecall:v1 {"created":"2026-11-11T11:11:11Z","revision":3,"attempt":"0199d9a0-0000-7000-8000-000000000001"}`,
	"deleting": "a note\n" + `rolecall:v1 {"revision":3,"attempt":"0199d9a0-0000-7000-8000-000000000001","state":"deleting"}`,
	"disabled": `rolecall:v1 {"revision":3,"attempt":"0199d9a0-0000-7000-8000-000000000001","state":"disabled",` +
		`"password":"kept"}`,
	"lease": `rolecall:v1 {"revision":1,"attempt":"0199d9a0-0000-7000-8000-000000000001","lease":` +
		`"0199d9a0-0000-7000-8000-000000000002","for":"app","ends":"2026-11-11T11:11:11Z"}`,
	"broken":   `rolecall:v1 {"revision":`,
	"human":    "made by hand\nfor Bücher",
	"long":     strings.Repeat("long ", 1000) + shortRecord,
	"longer":   strings.Repeat("long ", 5000) + shortRecord,
	"too long": strings.Repeat("long ", 20000),
}

// What protects a role stands in SQL, and for most lookups partly in Go. Both say the same of every role, as the
// administering role, as a superuser, and as a role that has become another, and only roles that may be protected by others
// are left to the slower query.
func TestQuickly(t *testing.T) {
	t.Parallel()
	c := pgtest.New(t, nil)
	s := &Server{SystemRoles: []string{"postgres", "admin", "st?r", "app-*", "*.system", `50%`, `a_b`, `back\*`, "é?", "[x]",
		"", strings.Repeat("n", MaxName+1)}, ControlRole: "control", Batcher: NewBatcher(0)}
	for _, database := range []string{"latin1", "ascii"} {
		encoding := map[string]string{"latin1": "LATIN1", "ascii": "SQL_ASCII"}[database]
		c.Exec(t, `CREATE DATABASE `+database+` ENCODING '`+encoding+`' LOCALE 'C' TEMPLATE template0`)
	}
	latin1 := c.Connect(t, c.User, c.Password, "latin1")
	roles := quickRoles(c.Major)
	order := slices.Clone(roles) // what others are members of comes first
	slices.SortStableFunc(order, func(a, b quickRole) int {
		return strings.Count(a.sql, "IN ROLE") - strings.Count(b.sql, "IN ROLE")
	})
	for _, r := range order {
		if r.sql != "" {
			c.Exec(t, `CREATE ROLE `+ident(r.name)+` `+r.sql)
		}
	}
	for name, comment := range quickComments {
		c.Exec(t, `CREATE ROLE `+ident(name)+` LOGIN; COMMENT ON ROLE `+ident(name)+` IS `+literal(comment))
	}
	statements := []string{`SET client_encoding = 'UTF8'`, `CREATE ROLE "josé" LOGIN`, `COMMENT ON ROLE "josé" IS 'Bücher'`,
		`COMMENT ON ROLE owner IS 'Bücher'`, `GRANT EXECUTE ON FUNCTION pg_read_file(text) TO reads_files`,
		`GRANT EXECUTE ON FUNCTION pg_ls_waldir() TO lists_files`, `CREATE TABLE owned ()`, `ALTER TABLE owned OWNER TO owner`,
		`GRANT CREATE ON DATABASE latin1 TO owner`}
	if c.Major >= 15 {
		statements = append(statements, `GRANT SET ON PARAMETER session_preload_libraries TO sets`)
	}
	for _, sql := range statements {
		if _, err := latin1.Exec(t.Context(), sql); err != nil {
			t.Fatal(sql, err)
		}
	}
	c.Exec(t, `CREATE ROLE adm LOGIN CREATEROLE PASSWORD 'administrator'; CREATE ROLE in_adm LOGIN IN ROLE adm;
		CREATE ROLE weak LOGIN PASSWORD 'administrator'; CREATE ROLE became NOLOGIN; GRANT became TO adm, weak`)
	for _, as := range []struct{ user, password, database, role string }{
		{"adm", "administrator", "postgres", "none"},
		{"adm", "administrator", "postgres", "became"},
		{"weak", "administrator", "postgres", "became"},
		{"adm", "administrator", "ascii", "none"},
		{c.User, c.Password, "postgres", "none"},
	} {
		t.Run(fmt.Sprint(as), func(t *testing.T) { testQuickly(t, c, s, roles, as.user, as.password, as.database, as.role) })
	}
}

func testQuickly(t *testing.T, c *pgtest.Cluster, s *Server, roles []quickRole, user, password, database, role string) {
	config, err := pgxpool.ParseConfig(c.URL(database))
	if err != nil {
		t.Fatal(err)
	}
	config.ConnConfig.User, config.ConnConfig.Password = user, password
	config.ConnConfig.RuntimeParams = SessionSettings()
	config.ConnConfig.RuntimeParams["role"] = role
	config.ConnConfig.ValidateConnect = primary.Require
	as := *s
	if as.Pool, err = pgxpool.NewWithConfig(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	defer as.Pool.Close()
	conn, err := as.Pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()

	rows, err := conn.Query(t.Context(), `SELECT namesend(rolname) FROM pg_roles`)
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	if err != nil {
		t.Fatal(err)
	}
	names, want := []string{"nobody", "NOBODY", "niemånd"}, map[string]*User{}
	for _, name := range all {
		names = append(names, string(name))
	}
	for _, name := range names {
		if want[name], err = as.role(t.Context(), conn, name); err != nil {
			t.Fatalf("%q: %v", name, err)
		}
	}
	got, err := as.roles(t.Context(), names)
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		if !reflect.DeepEqual(got[i], want[name]) {
			t.Errorf("%q: looked up %+v, want %+v", name, got[i], want[name])
		}
	}
	found := map[string]*User{}
	left, err := as.rolesQuickly(t.Context(), conn.Conn(), names, found)
	if err != nil {
		t.Fatal(err)
	}
	for name, u := range found {
		if slices.Contains(left, name) || !reflect.DeepEqual(u, want[name]) {
			t.Errorf("%q: found quickly %+v, want %+v", name, u, want[name])
		}
	}
	if n := len(found) + len(left); n != len(names)-2 {
		t.Errorf("of %d names there are answers to %d", len(names), n)
	}
	roles = append(slices.Clone(roles), quickRole{name: user, by: user}, quickRole{name: "adm", by: "adm"},
		quickRole{name: "in_adm", by: "adm", left: true}, quickRole{name: "jos\xe9", left: true})
	if role != "none" {
		roles = append(roles, quickRole{name: role, by: role})
	}
	for name := range quickComments {
		roles = append(roles, quickRole{name: name})
	}
	for _, r := range roles {
		if r.name == "éé" && database == "ascii" {
			r.by = "" // there a question mark of a glob is one byte
		}
		u := want[r.name]
		if u == nil || u.protectedBy != r.by || slices.Contains(left, r.name) != r.left {
			t.Errorf("%q: %+v, left %t, want %+v", r.name, u, slices.Contains(left, r.name), r)
		}
	}
}

// Where every role is a member of another, the quick query is hardly tried; where the next one is not, it is back at once.
func TestBackoff(t *testing.T) {
	var b backoff
	tries := 0
	for range 1000 {
		if b.try() {
			tries++
			b.note(true)
		}
	}
	if tries < 10 || tries > 25 {
		t.Errorf("%d of 1000 tries in vain", tries)
	}
	for !b.try() {
	}
	b.note(false)
	for i := range 10 {
		if !b.try() {
			t.Errorf("try %d is skipped", i)
		}
		b.note(false)
	}
	b.note(true)
	if b.try() || !b.try() {
		t.Error("after the first try in vain, not one is skipped")
	}
}
