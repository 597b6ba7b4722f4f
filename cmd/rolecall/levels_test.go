package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"rolecall/internal/cli"
	"rolecall/internal/cli/term"
	"rolecall/internal/client"
)

// local is a shell that is signed in to a dev server, and uses its cluster.
func newLocal(t *testing.T) (s *shell, postgres map[string]string) {
	t.Helper()
	s = newShell(t)
	dir := preparedFolder(t)
	_, url := beginDev(t, dir)
	s.signIn(t, url, "admin", preparedPassword)
	t.Setenv(cli.ClusterVariable, "local")
	return s, variables(t, dir)
}

// said runs a command line that has to succeed and returns what it reports on standard error.
func (s *shell) said(t *testing.T, args ...string) string {
	t.Helper()
	code, _, errOut := s.run(t, "", args...)
	if code != 0 {
		t.Fatalf("rolecall %q: exit code %d: %s", args, code, errOut)
	}
	return errOut
}

// sql runs statements with a connection URL, and returns what psql prints, also an error.
func sql(uri, statements string) string {
	out, _ := exec.Command("psql", uri, "-XAtqc", statements).CombinedOutput()
	return strings.TrimSpace(string(out))
}

// TestLevels creates a database and its users as docs/databases.md says it, and tries what each user can do.
func TestLevels(t *testing.T) {
	s, postgres := newLocal(t)
	if said := s.said(t, "databases", "create", "shop", "--access-roles"); !strings.Contains(said,
		`Database "shop" was created in cluster "local". Its owner is "shop_owner". It has access roles.`) {
		t.Errorf("create says %s", said)
	}
	uri := func(name string, args ...string) string {
		t.Helper()
		return strings.TrimSpace(s.ok(t, "", append([]string{"users", "create", name, "--generate", "-o", "uri"}, args...)...))
	}
	// The URL leads to the only database in which the user has a level.
	migrate, app, report := uri("migrate", "--access", "shop=own"), uri("app", "--access", "shop=write"),
		uri("report", "--access", "shop=read", "--valid-until", "90d", "--connection-limit", "3")
	for _, step := range []struct{ uri, sql, want string }{
		{migrate, "SELECT current_user", "shop_owner"},
		{migrate, "CREATE TABLE items (id serial, name text)", ""},
		{app, "INSERT INTO items (name) VALUES ('a') RETURNING id", "1"},
		{report, "SELECT name FROM items", "a"},
		{report, "INSERT INTO items (name) VALUES ('b')", "ERROR:  permission denied for table items"},
		{app, "TRUNCATE items", "ERROR:  permission denied for table items"},
		{app, "CREATE SCHEMA mine", "ERROR:  permission denied for database shop"},
		{migrate, "DROP TABLE items", ""},
	} {
		if got := sql(step.uri, step.sql); got != step.want {
			t.Errorf("%s: %q, want %q", step.sql, got, step.want)
		}
	}
	s.has(t, []string{"expires 20.*", "connection limit 3", "member of shop_read"}, "users", "show", "report")
	s.has(t, []string{"NAME OWNER ACCESS ROLES SYSTEM CREATED BY CREATED", `shop shop_owner yes no admin \S+ \S+`,
		`postgres \S+ no yes.*`}, "databases", "ls")
	s.has(t, []string{"name shop", "owner shop_owner", "access roles yes", "schemas all", "new objects of members of own",
		"complete yes", "own shop_owner; members: migrate", "write shop_write; members: app", "read shop_read; members: report",
		"created .* by admin"}, "databases", "show", "shop")
	s.has(t, []string{"DATABASE LEVEL BY CONNECT", "shop write shop_write yes", "ROLE PATH ITS RIGHTS",
		"shop_write app > shop_write always"}, "users", "access", "app")

	sql(migrate, "CREATE TABLE granted (); GRANT SELECT, INSERT ON granted TO report")
	s.has(t, []string{"DATABASE GRANTED TO THE USER ITSELF", "shop INSERT on 1 table", "shop SELECT on 1 table"}, "users",
		"access", "report")
	sql(migrate, "DROP TABLE granted")
	if said := s.said(t, "users", "access", "app", "--set", "shop=read"); !strings.Contains(said, "level read") {
		t.Errorf("access says %s", said)
	}
	s.has(t, []string{"shop read shop_read yes"}, "users", "access", "app")
	s.ok(t, "", "users", "access", "app", "--remove", "shop")
	s.ok(t, "", "users", "access", "app", "--remove", "shop")
	if got := sql(app, "SELECT 1"); !strings.Contains(got, `permission denied for database "shop"`) {
		t.Errorf("without a level: %s", got)
	}
	var access client.EffectiveAccess
	out := s.ok(t, "", "users", "access", "app", "--set", "shop=own", "-o", "json")
	if err := json.Unmarshal([]byte(out), &access); err != nil || access.Username != "app" || len(access.Databases) == 0 ||
		len(access.Memberships) != 1 {
		t.Errorf("the access is %s: %v", out, err)
	}

	for args, words := range map[string]string{
		"users create x --generate --access shop":               "DATABASE=LEVEL",
		"users create x --generate --access shop=admin":         "own, write or read",
		"users create x --generate --access shop=own,shop=read": "twice",
		"users create x --generate --connection-limit many":     "--connection-limit",
		"users create x --generate --valid-until soon":          "--valid-until",
		"users create x --generate -o binding-dir":              "DIR is missing",
		"users create x":                                           "--password-stdin",
		"users access app --set shop=all":                          "own, write or read",
		"users access app --set shop=own --remove shop":            "both",
		"databases access-roles shop --reassign-to app":            "--delete",
		"databases access-roles shop --delete --plan":              "--plan",
		"databases access-roles shop --delete --schema public":     "--schema",
		"databases access-roles shop --delete --reassign-to admin": "--yes",
		"databases delete shop":                                    "--yes",
		"databases create":                                         "NAME is missing",
	} {
		s.fails(t, term.ExitUsage, words, "", strings.Fields(args)...)
	}
	for args, code := range map[string]int{
		"users create x --generate --access nowhere=read":                 term.ExitFailed,
		"users create x --generate --access postgres=read":                term.ExitFailed,
		"users create x --generate --access shop=read --role other":       term.ExitFailed,
		"users create app --generate --access shop=read":                  term.ExitFailed,
		"users access nobody":                                             term.ExitNotFound,
		"users access app --set nowhere=read":                             term.ExitNotFound,
		"users access nobody --set shop=read":                             term.ExitNotFound,
		"users disable nobody":                                            term.ExitNotFound,
		"databases show nowhere":                                          term.ExitNotFound,
		"databases access-roles nowhere":                                  term.ExitNotFound,
		"databases create shop":                                           term.ExitFailed,
		"databases create " + strings.Repeat("d", 58) + " --access-roles": term.ExitFailed,
		"databases access-roles shop --delete --yes":                      term.ExitFailed,
		"databases delete postgres --yes":                                 term.ExitDenied,
	} {
		s.fails(t, code, "", "", strings.Fields(args)...)
	}
	s.fails(t, term.ExitNotFound, "", "", "users", "show", "x")

	for args, want := range map[string]string{
		"users create x --access ":             "shop=\n:6\n", // 6: no file names, and no space after it
		"users create x --access shop=":        "shop=own\nshop=write\nshop=read\n:4\n",
		"users create x --access shop=own,":    "shop=own,shop=\n:6\n",
		"users access app --set shop=":         "shop=own\nshop=write\nshop=read\n:4\n",
		"users access app --remove ":           "postgres\nshop\n:4\n",
		"databases show ":                      "postgres\nshop\n:4\n",
		"databases access-roles shop --delete": "--delete\t",
		"leases create --for ":                 "shop_write\n",
		"psql --for shop_read -d ":             "shop\n",
	} {
		if out := s.ok(t, "", append([]string{"__complete"}, strings.Split(args, " ")...)...); !strings.Contains(out, want) {
			t.Errorf("completing %q offers %q, want %q", args, out, want)
		}
	}

	l := &leased{shell: s, url: postgres["ROLECALL_URL"], postgres: postgres}
	screen := l.terminal(t, "env", asProgram+"=1", executable(t), "databases", "delete", "shop", "-c", "local")
	screen.waits(t, "Users that lose their level, 3: app (own); migrate (own); report (read).")
	screen.waits(t, `Delete database "shop" of cluster "local", with everything in it? [y/N] `)
	screen.types(t, "n\n", "nothing was changed")

	for _, user := range []string{"migrate", "app", "report"} {
		s.ok(t, "", "users", "rm", user, "--yes")
	}
	s.fails(t, term.ExitFailed, "--reassign-to ROLE", "", "databases", "access-roles", "shop", "--delete", "--yes")
	s.ok(t, "", "users", "create", "heir", "--generate")
	s.ok(t, "", "databases", "access-roles", "shop", "--delete", "--reassign-to", "heir", "--yes")
	s.has(t, []string{"owner heir", "access roles no"}, "databases", "show", "shop")
	s.ok(t, "", "databases", "rm", "shop", "--yes")
	s.fails(t, term.ExitNotFound, "", "", "databases", "show", "shop")
}

// TestAccessRolesOfAnExistingDatabase: the plan can be run with psql, and changes nothing before; a second run does nothing.
func TestAccessRolesOfAnExistingDatabase(t *testing.T) {
	s, postgres := newLocal(t)
	s.ok(t, "", "users", "create", "crm_admin", "--generate")
	s.ok(t, "", "databases", "create", "crm", "--owner", "crm_admin")
	postgres["PGDATABASE"] = "crm"
	psql(t, postgres, "CREATE TABLE customers (name text); CREATE SCHEMA sales; CREATE TABLE sales.orders (item text);"+
		"ALTER TABLE customers OWNER TO crm_admin")
	plan := s.ok(t, "", "databases", "access-roles", "crm", "--adopt", "--plan")
	if !strings.HasPrefix(plan, "\\set ON_ERROR_STOP on\n\\connect \"crm\"\n") ||
		!strings.Contains(plan, `CREATE ROLE "crm_read"`) {
		t.Errorf("the plan is\n%s", plan)
	}
	s.has(t, []string{"owner crm_admin", "access roles no"}, "databases", "show", "crm")
	file := filepath.Join(t.TempDir(), "plan.sql")
	write(t, file, plan)
	cmd := exec.Command("psql", "-Xqf", file)
	cmd.Env = os.Environ()
	for name, value := range postgres {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("the plan in psql: %v: %s", err, out)
	}
	s.fails(t, term.ExitFailed, "crm_", "", "databases", "access-roles", "crm") // these roles are not Rolecall's
	s.has(t, []string{"new objects of all owners", "complete yes", "own crm_owner; members: none"}, "databases", "access-roles",
		"crm", "--adopt")
	if said := s.said(t, "databases", "access-roles", "crm"); !strings.Contains(said, "Statements run: 0.") {
		t.Errorf("the second run says %s", said)
	}
	report := strings.TrimSpace(s.ok(t, "", "users", "create", "report", "--access", "crm=read", "--generate", "-o", "uri"))
	if got := sql(report, "SELECT count(*) FROM customers, sales.orders"); got != "0" {
		t.Errorf("report reads %s", got)
	}
	psql(t, postgres, "CREATE ROLE newcomer; CREATE SCHEMA later AUTHORIZATION newcomer; CREATE TABLE later.t (i int)")
	if plan := s.ok(t, "", "databases", "access-roles", "crm", "--plan"); !strings.Contains(plan, "later") {
		t.Errorf("the schema of a new owner is not in the plan\n%s", plan)
	}
	if said := s.said(t, "databases", "access-roles", "crm"); !strings.Contains(said, "in crm: GRANT ") {
		t.Errorf("the third run says %s", said)
	}
	if got := sql(report, "SELECT count(*) FROM later.t"); got != "0" {
		t.Errorf("report reads %s", got)
	}
	s.has(t, []string{"schemas sales"}, "databases", "access-roles", "crm", "--schema", "sales", "--adopt=false")
	// The plan says who can no longer connect, and what it cannot do.
	psql(t, postgres, "GRANT CONNECT ON DATABASE crm TO PUBLIC; CREATE ROLE outsider LOGIN")
	psql(t, postgres, "GRANT CONNECT ON DATABASE crm TO newcomer WITH GRANT OPTION; SET ROLE newcomer; "+
		"GRANT CONNECT ON DATABASE crm TO PUBLIC")
	said := s.said(t, "databases", "access-roles", "crm", "--plan")
	for _, part := range []string{"PUBLIC loses CONNECT", `"outsider"`, "Problem: PUBLIC was granted CONNECT"} {
		if !strings.Contains(said, part) {
			t.Errorf("the plan does not say %q: %s", part, said)
		}
	}
}

// TestUsersInOneCall: a generated password is printed once, in the format that is asked for, and the login is turned off
// and on without a new one.
func TestUsersInOneCall(t *testing.T) {
	s, postgres := newLocal(t)
	login := func(name, password string) error {
		postgres["PGUSER"], postgres["PGPASSWORD"] = name, password
		return tryPsql(t, postgres)
	}
	var made struct{ Username, Password string }
	if err := json.Unmarshal([]byte(s.ok(t, "", "users", "create", "app", "--generate", "-o", "json")), &made); err != nil ||
		made.Username != "app" || login("app", made.Password) != nil {
		t.Errorf("created %+v, %v", made, err)
	}
	said := s.said(t, "users", "disable", "app")
	if !regexp.MustCompile(`"app" of cluster "local" is disabled\. Sessions ended: \d+\.`).MatchString(said) {
		t.Errorf("disable says %s", said)
	}
	s.has(t, []string{"state disabled"}, "users", "show", "app")
	if login("app", made.Password) == nil {
		t.Error("a disabled user logs in")
	}
	s.ok(t, "", "users", "enable", "app")
	if err := login("app", made.Password); err != nil {
		t.Errorf("the password was not kept: %v", err)
	}
	generated := strings.TrimSpace(s.ok(t, "", "users", "passwd", "app", "--generate"))
	if login("app", made.Password) == nil || login("app", generated) != nil {
		t.Error("the new password does not replace the old one")
	}
	env := s.ok(t, "chosen by hand 1\n", "users", "passwd", "app", "--password-stdin", "-o", "env")
	if !strings.Contains(env, "export PGPASSWORD='chosen by hand 1'\n") || login("app", "chosen by hand 1") != nil {
		t.Errorf("the variables are %s", env)
	}
	folder := filepath.Join(t.TempDir(), "binding")
	s.ok(t, "", "users", "create", "bound", "--generate", "-o", "binding-dir", folder)
	if err := login("bound", read(t, filepath.Join(folder, "password"))); err != nil {
		t.Errorf("with the binding: %v", err)
	}
	// A name that looks like a flag follows after --.
	s.ok(t, "", "users", "create", "--generate", "--", "-x")
	s.has(t, []string{"name -x"}, "users", "show", "--", "-x")
	s.ok(t, "", "databases", "create", "--access-roles", "--", "--all")
	s.ok(t, "", "users", "access", "--set", "--all=read", "--", "-x")
	s.has(t, []string{"--all read --all_read yes"}, "users", "access", "--", "-x")
}
