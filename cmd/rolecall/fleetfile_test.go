package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	neturl "net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"rolecall/internal/cli/term"
	"rolecall/internal/pgtest"
)

// declared is a shell with a fleet: the cluster local of a dev server, and the folder of its files.
type declared struct {
	*shell
	postgres map[string]string
	dir      string
}

func newDeclared(t *testing.T) *declared {
	t.Helper()
	s, postgres := newLocal(t)
	return &declared{s, postgres, t.TempDir()}
}

// file writes a file and returns its path.
func (d *declared) file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(d.dir, name)
	write(t, path, text)
	return path
}

// ends runs a command line that has to end with a code, and returns what it prints.
func (d *declared) ends(t *testing.T, code int, args ...string) (out, errOut string) {
	t.Helper()
	got, out, errOut := d.run(t, "", args...)
	if got != code {
		t.Fatalf("rolecall %q: exit code %d, want %d:\n%s%s", args, got, code, out, errOut)
	}
	return out, errOut
}

// handedOut are the passwords in the output of apply, by cluster/user or account: the last one of each.
func handedOut(t *testing.T, out string) map[string]string {
	t.Helper()
	passwords := map[string]string{}
	for text := range strings.Lines(out) {
		var l struct {
			Cluster, Username, Account string
			Password                   *string
		}
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%v in the line %q", err, text)
		}
		key := l.Account
		if l.Account == "" {
			key = l.Cluster + "/" + l.Username
		}
		if _, has := passwords[key]; has && l.Password != nil {
			t.Errorf("two passwords of %s are printed", key)
		}
		if l.Password != nil {
			passwords[key] = *l.Password
		} else {
			delete(passwords, key)
		}
	}
	return passwords
}

// login logs in to the cluster local.
func (d *declared) login(t *testing.T, user, password string) error {
	t.Helper()
	return tryPsql(t, map[string]string{"PGHOST": d.postgres["PGHOST"], "PGPORT": d.postgres["PGPORT"], "PGUSER": user,
		"PGPASSWORD": password})
}

func TestFleetFile(t *testing.T) {
	d := newDeclared(t)
	psql(t, d.postgres, `CREATE ROLE readers; CREATE ROLE writers`)
	pg := pgtest.Shared(t)
	t.Setenv("OFF_PASSWORD", "a password of off")
	password := d.file(t, "admin-password", pg.Password+"\n")
	fleet := d.file(t, "fleet.yaml", fmt.Sprintf(`version: 1
accounts:
  - username: alice
    labels: {team: payments}
    annotations: {note: "on: call"}
  - username: robot
    active: false
    scopes: [cloud_controller.read]
  - username: carol
    origin: corp
clusters:
  - name: local
    location: de/fra
    access: {manage: [team=payments], view: ['role in (dba,sre)']}
    grantable: [readers, writers]
    synchronousCommit: local
    leases: {defaultTtl: 30m, maxTtl: 2d}
    databases:
      - {name: shop, accessRoles: {}}
      - {name: crm, accessRoles: {schemas: [public]}}
      - name: plain
    users:
      - {name: app, access: {shop: write, crm: own}}
      - {name: report, access: {shop: read}, roles: [readers], validUntil: 2030-01-31, connectionLimit: 5}
      - {name: "off", disabled: true, password: {env: OFF_PASSWORD}}
    credentials:
      - {name: shop, for: app, rotateEvery: 30d, overlap: 1h}
  - name: orders
    connection:
      url: postgres://postgres@127.0.0.1:%d/postgres
      password: {file: %s}
      tls: {mode: disable}
    users:
      - name: fleet_file_orders
`, pg.Port, password))
	t.Cleanup(func() { pg.Exec(t, "DROP ROLE IF EXISTS fleet_file_orders") })

	out, _ := d.ends(t, 2, "diff", "-f", fleet)
	for _, want := range []string{`+ account "alice"`, `    labels.team: payments`, `~ cluster "local"`, `+ cluster "orders"`,
		`+ database "shop" in "local"`, `+ user "app" in "local"`, `    access.crm: own`, `+ credential "shop" in "local"`,
		`    password: from the variable OFF_PASSWORD`, "To create: 12, to change: 1, to delete: 0. Conflicts: 0."} {
		if !strings.Contains(out, want) {
			t.Errorf("the plan has no %q:\n%s", want, out)
		}
	}
	d.ends(t, term.ExitUsage, "apply", "-f", fleet) // nobody can be asked
	d.ends(t, 2, "diff", "-f", fleet, "-q")
	out, _ = d.ends(t, 0, "apply", "-f", fleet, "--yes")
	passwords := handedOut(t, out)
	if len(passwords) != 5 {
		t.Errorf("passwords of %v were printed", passwords)
	}
	for _, user := range []string{"app", "report"} {
		if err := d.login(t, user, passwords["local/"+user]); err != nil {
			t.Errorf("%s: %v", user, err)
		}
	}
	if err := pg.Login("fleet_file_orders", passwords["orders/fleet_file_orders"]); err != nil {
		t.Error(err)
	}
	if out, errOut := d.ends(t, 0, "diff", "-f", fleet); out != "Nothing differs.\n" {
		t.Errorf("afterwards: %s%s", out, errOut)
	}
	if out, _ := d.ends(t, 0, "apply", "-f", fleet, "--yes"); out != "" {
		t.Errorf("a second run prints %s", out)
	}
	export := filepath.Join(d.dir, "export.yaml")
	d.ok(t, "", "export", "-f", export)
	if out, errOut := d.ends(t, 0, "diff", "-f", export); out != "Nothing differs.\n" {
		t.Errorf("the export differs: %s%s", out, errOut)
	}
}

// interrupter passes requests on to a server. At one of the changes, by number, it stops: it tells that it is reached, and
// goes on when it is released.
type interrupter struct {
	proxy             *httputil.ReverseProxy
	mu                sync.Mutex
	at                int  // 0: at none
	after             bool // whether the server has made the change by that time
	reached, released chan struct{}
}

func newInterrupter(t *testing.T, server string) (i *interrupter, url string) {
	t.Helper()
	target, err := neturl.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	i = &interrupter{proxy: httputil.NewSingleHostReverseProxy(target)}
	i.proxy.ErrorLog = log.New(io.Discard, "", 0) // a client that was killed
	s := httptest.NewServer(i)
	t.Cleanup(s.Close)
	return i, s.URL
}

// arm makes it stop at the change of that number from now on.
func (i *interrupter) arm(at int, after bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.at, i.after, i.reached, i.released = at, after, make(chan struct{}), make(chan struct{})
}

func (i *interrupter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	if r.Method != http.MethodGet {
		i.at--
	}
	stop, after, reached, released := r.Method != http.MethodGet && i.at == 0, i.after, i.reached, i.released
	i.mu.Unlock()
	if stop && !after {
		close(reached)
		<-released
	}
	if !stop || !after {
		i.proxy.ServeHTTP(w, r)
		return
	}
	answer := httptest.NewRecorder()
	i.proxy.ServeHTTP(answer, r)
	close(reached)
	<-released
	maps.Copy(w.Header(), answer.Header())
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

// killed runs a command line as a process, which is killed when the interrupter is reached. It reports whether it was.
func (d *declared) killed(t *testing.T, i *interrupter, url string, args ...string) (out string, killed bool) {
	t.Helper()
	p := beginProcess(t, []string{"ROLECALL_URL=" + url, "ROLECALL_TOKEN=" + d.postgres["ROLECALL_TOKEN"]}, args...)
	select {
	case <-i.reached:
		if err := p.process.Kill(); err != nil {
			t.Fatal(err)
		}
		p.wait(t)
		close(i.released)
		return p.out.String(), true
	case <-p.done:
		if p.code != 0 {
			t.Fatalf("exit code %d: %s", p.code, p.errOut)
		}
	}
	return p.out.String(), false
}

const killedFile = `version: 1
accounts: [{username: %[1]s-account}]
clusters:
  - name: local
    databases: [{name: %[1]s_db, accessRoles: {}}]
    users:
      - {name: %[1]s_a, access: {%[1]s_db: own}}
      - {name: %[1]s_b, access: {%[1]s_db: read}, disabled: false}
    credentials: [{name: %[1]s, for: %[1]s_a, rotateEvery: 30d}]
`

// TestFleetFileKill: apply is killed before and after each change. A second run completes it, no password is lost, and none
// is handed out twice.
func TestFleetFileKill(t *testing.T) {
	d := newDeclared(t)
	i, url := newInterrupter(t, d.postgres["ROLECALL_URL"])
	const changes = 5

	after := d.file(t, "after.yaml", fmt.Sprintf(killedFile, "after"))
	printed := ""
	for range changes { // each run makes one change
		i.arm(1, true)
		out, killed := d.killed(t, i, url, "apply", "-f", after, "--yes")
		if printed += out; !killed {
			t.Fatal("apply was not killed")
		}
	}
	d.ends(t, 0, "diff", "-f", after)
	passwords := handedOut(t, printed) // which fails on a second one of a user
	for _, user := range []string{"after_a", "after_b"} {
		if err := d.login(t, user, passwords["local/"+user]); err != nil {
			t.Errorf("%s: %v", user, err)
		}
	}
	d.signsIn(t, "after-account", passwords["after-account"])

	before, folder := d.file(t, "before.yaml", fmt.Sprintf(killedFile, "before")), filepath.Join(d.dir, "secrets")
	for at := 1; ; at++ {
		i.arm(at, false)
		if out, killed := d.killed(t, i, url, "apply", "-f", before, "--yes", "--passwords-to", folder); out != "" {
			t.Errorf("with --passwords-to it prints %s", out)
		} else if !killed {
			break
		}
	}
	d.ends(t, 0, "diff", "-f", before)
	for _, user := range []string{"before_a", "before_b"} {
		path := filepath.Join(folder, "clusters", "local", user)
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s has the mode %v, %v", path, info, err)
		}
		if err := d.login(t, user, read(t, path)); err != nil {
			t.Errorf("%s: %v", user, err)
		}
	}
	d.signsIn(t, "before-account", read(t, filepath.Join(folder, "accounts", "uaa", "before-account")))
	d.noSecrets(t, passwords["local/after_a"])
}

// signsIn signs in with another configuration.
func (d *declared) signsIn(t *testing.T, username, password string) *shell {
	t.Helper()
	s := &shell{config: t.TempDir(), printed: d.printed}
	s.signIn(t, d.postgres["ROLECALL_URL"], username, password)
	return s
}

// noSecrets looks for secrets in what was printed by commands in this process.
func (d *declared) noSecrets(t *testing.T, secrets ...string) {
	t.Helper()
	for _, secret := range secrets {
		if strings.Contains(d.printed.String(), secret) {
			t.Errorf("a secret was printed")
		}
	}
}

// TestFleetFileFailures: conflicts, a cluster that does not answer, a plan that is out of date, two runs at a time, missing
// rights, and what is retired.
func TestFleetFileFailures(t *testing.T) {
	d := newDeclared(t)
	file := func(text string) string { return d.file(t, "fleet.yaml", "version: 1\n"+text) }
	has := func(text string, words ...string) {
		t.Helper()
		for _, w := range words {
			if !strings.Contains(text, w) {
				t.Errorf("there is no %q in\n%s", w, text)
			}
		}
	}
	psql(t, d.postgres, "CREATE ROLE by_sql LOGIN; CREATE ROLE \"OWNER\" LOGIN; CREATE TABLE t (); ALTER TABLE t "+
		"OWNER TO \"OWNER\"")

	// What is wrong with the command line or the file is never 2 for diff.
	for _, args := range [][]string{{}, {"-f", "/nowhere"}, {"--nonsense"}, {"-f", "x", "--mode", "all"},
		{"-o", "xml"}, {"extra"}} {
		d.ends(t, term.ExitFailed, append([]string{"diff"}, args...)...)
		d.ends(t, term.ExitUsage, append([]string{"apply"}, args...)...)
	}
	f := file("clusters:\n- name: local\n  usres: []\n")
	_, errOut := d.ends(t, term.ExitFailed, "diff", "-f", f)
	has(errOut, f+`:4:3: there is no key "usres" here`)
	d.ends(t, term.ExitUsage, "apply", "--plan", f)
	d.ends(t, term.ExitUsage, "apply", "--plan", f, "-f", f)
	has(d.ok(t, "", "diff", "--schema"), `"$schema": "https://json-schema.org/draft/2020-12/schema"`)

	// A user made by SQL is a conflict; the rest is done. With adopt it is taken over.
	f = file("clusters:\n- name: local\n  users: [{name: by_sql, connectionLimit: 3}, {name: app}]\n")
	out, _ := d.ends(t, term.ExitFailed, "diff", "-f", f)
	has(out, `+ user "app" in "local"`, `! user "by_sql" in "local" (line 4): it differs, and was not created by Rolecall`)
	d.ends(t, term.ExitUsage, "apply", "-f", f, "--yes", "-o", "json") // it has no place for passwords
	out, errOut = d.ends(t, term.ExitFailed, "apply", "-f", f, "--yes", "-o", "jsonl")
	has(out, `"username":"app","password":"`, `"action":"create","outcome":"done"`,
		`{"result":{"done":1,"failed":0,"skipped":0}}`)
	has(errOut, "conflicts: 1")
	d.ends(t, 2, "diff", "-f", f, "--mode", "adopt")
	d.ends(t, 0, "apply", "-f", f, "--mode", "adopt", "--yes")
	d.ends(t, 0, "diff", "-f", f)

	// A plan is carried out only as long as nothing has moved.
	plan := filepath.Join(d.dir, "plan.json")
	f = file("clusters:\n- name: local\n  users: [{name: app, connectionLimit: 7}]\n")
	d.ends(t, 2, "diff", "-f", f, "--out", plan)
	d.ok(t, "", "users", "set", "app", "--connection-limit", "8")
	_, errOut = d.ends(t, term.ExitMoved, "apply", "--plan", plan, "--yes")
	has(errOut, "these have changed since the plan was made: user local/app; nothing was changed")
	out, _ = d.ends(t, 2, "diff", "-f", f, "-o", "json")
	write(t, plan, out)
	write(t, f, "version: 1\n") // the plan has the text of the file
	d.ends(t, 0, "apply", "--plan", plan, "--yes")
	if got := d.value(t, "connectionLimit", "users", "show", "app"); got != 7.0 {
		t.Errorf("the limit is %v", got)
	}
	d.ends(t, term.ExitMoved, "apply", "--plan", plan, "--yes")

	// Another change in the middle of a run makes one fail, and a second run completes it.
	i, url := newInterrupter(t, d.postgres["ROLECALL_URL"])
	f = file("clusters:\n- name: local\n  users: [{name: app, connectionLimit: 9}, {name: by_sql, connectionLimit: 9}]\n")
	i.arm(1, false)
	p := beginProcess(t, []string{"ROLECALL_URL=" + url, "ROLECALL_TOKEN=" + d.postgres["ROLECALL_TOKEN"]}, "apply", "-f", f,
		"--yes", "--mode", "adopt")
	<-i.reached
	d.ok(t, "", "users", "set", "app", "--connection-limit", "1")
	close(i.released)
	if code := p.wait(t); code != term.ExitMoved {
		t.Errorf("exit code %d: %s", code, p.errOut)
	}
	has(p.errOut.String(), `user "app" in "local": not changed: The user "app" has `+
		`changed`, `user "by_sql" in "local": changed.`)
	d.ends(t, 0, "apply", "-f", f, "--mode", "adopt", "--yes")
	d.ends(t, 0, "diff", "-f", f, "--mode", "adopt")

	// A cluster that does not answer is an error of its part only.
	pg := pgtest.New(t, nil)
	password := d.file(t, "password", pg.Password)
	away := fmt.Sprintf("- name: away\n  connection: {url: 'postgres://postgres@127.0.0.1:%d/postgres', tls: {mode: "+
		"disable}, "+
		"password: {file: %s}}\n", pg.Port, password)
	d.ends(t, 0, "apply", "-f", file("clusters:\n"+away), "--yes")
	pg.Stop(t)
	f = file("clusters:\n" + away + "  users: [{name: there}]\n- name: local\n  users: [{name: here}]\n")
	eventually(t, func() error {
		code, out, errOut := d.run(t, "", "diff", "-f", f)
		if code != term.ExitFailed || !strings.Contains(out, `! cluster "away" (line 3): it could not be read`) {
			return fmt.Errorf("exit code %d: %s%s", code, out, errOut)
		}
		return nil
	})
	out, _ = d.ends(t, term.ExitFailed, "apply", "-f", f, "--yes")
	if passwords := handedOut(t, out); d.login(t, "here", passwords["local/here"]) != nil {
		t.Error("the user of the other cluster cannot log in")
	}
	_, errOut = d.ends(t, term.ExitFailed, "export", "-f", filepath.Join(d.dir, "export.yaml"))
	has(errOut, `Cluster "away" could not be read`)

	// Each call needs its right. What depends on a step that failed is skipped.
	f = file("accounts: [{username: alice, labels: {team: a}}]\nclusters:\n- {name: local, access: {manage: [team=a]}}\n")
	out, _ = d.ends(t, 0, "apply", "-f", f, "--yes")
	alice := &declared{d.signsIn(t, "alice", handedOut(t, out)["alice"]), d.postgres, d.dir}
	f = file("accounts: [{username: alice, labels: {team: b}}]\nclusters:\n- name: local\n  users: [{name: " +
		"made_by_alice}, " +
		"{name: no_level, access: {missing: read}}]\n  credentials: [{name: none, for: no_level, rotateEvery: 1d}]\n")
	_, errOut = alice.ends(t, term.ExitFailed, "apply", "-f", f, "--yes", "--passwords-to", filepath.Join(d.dir, "alice"))
	has(errOut, `account "alice": not changed: `, "HTTP 403", `user "made_by_alice" in "local": created.`,
		`user "no_level" in "local": not created: `, `credential "none" in "local": not created: it needs the user `+
			`local/no_level`,
		"steps done: 1, failed: 2, skipped: 1")
	if _, err := os.Stat(filepath.Join(d.dir, "alice", "clusters", "local", "no_level")); err == nil {
		t.Error("the password of a user that was refused is kept")
	}
	out, _ = alice.ends(t, term.ExitFailed, "apply", "-f", f, "--yes")
	has(out, `"username":"no_level","password":null`)

	// Only what is retired is deleted, and only in one mode.
	f = file("mode: authoritative\nclusters:\n- name: local\n  users: [{name: app}, {name: here}]\n  databases: []\n" +
		"retired:\n- {cluster: local, user: OWNER}\n- {cluster: local, user: by_sql}\n- {account: alice}\n")
	out, _ = d.ends(t, 2, "diff", "-f", f)
	has(out, `- user "OWNER" in "local"`, "blocked: It owns 1 object", `- user "by_sql" in "local"`, `- account "alice"`,
		`? user "made_by_alice" in "local" is not in the file, and stays`)
	_, errOut = d.ends(t, term.ExitFailed, "apply", "-f", f, "--yes")
	has(errOut, `user "OWNER" in "local": not deleted: `, `user "by_sql" in "local": not deleted: nothing is deleted `+
		`after`)
	write(t, f, strings.Replace(read(t, f), "user: OWNER", "user: OWNER, reassignTo: app", 1))
	d.ends(t, 0, "apply", "-f", f, "--yes")
	out, _ = d.ends(t, 2, "diff", "-f", f)
	has(out, "To create: 0, to change: 0, to delete: 0. Conflicts: 0. Not in the file: 1.")
	if got := psql(t, d.postgres, "SELECT tableowner FROM pg_tables WHERE tablename = 't'"); got != "app" {
		t.Errorf("the table belongs to %q", got)
	}
}

// TestFleetFileExport: the export of a cluster with everything that there is changes nothing, in any mode.
func TestFleetFileExport(t *testing.T) {
	d := newDeclared(t)
	odd := []string{"no", "1e3", "2027-01-31", "a: b", "# x", "- y", "*z", "it's", `"q"`, "ü😀", "line\nbreak", "~", "<<",
		"%2F/..", "Case", "case", "\x01", " lead", "trail ", "null", "\u202e", "\u2028", "0x10", "{{.}}"}
	for i, name := range odd {
		quoted := `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
		comment := strings.ReplaceAll(name, "'", "''")
		group := fmt.Sprintf(`"group %d %s`, i, quoted[1:])
		psql(t, d.postgres, fmt.Sprintf(`CREATE ROLE %[1]s LOGIN CONNECTION LIMIT %[2]d; COMMENT ON ROLE %[1]s IS '%[3]s';
			CREATE ROLE %[4]s; GRANT %[4]s TO %[1]s`, quoted, i, comment, group))
		if i < 4 {
			psql(t, d.postgres, "CREATE DATABASE "+quoted+" OWNER "+quoted)
			d.ok(t, "", "databases", "access-roles", name, "--schema", "public")
		}
	}
	psql(t, d.postgres, `CREATE ROLE readers; CREATE ROLE ends LOGIN VALID UNTIL 'infinity';
		CREATE ROLE ended LOGIN PASSWORD 'x' VALID UNTIL '2001-02-03 04:05:06.789012+02';
		CREATE ROLE long_ago LOGIN VALID UNTIL '-infinity'; CREATE ROLE far LOGIN VALID UNTIL '20000-01-01';
		CREATE ROLE powerful LOGIN CREATEROLE; CREATE ROLE no_login; CREATE ROLE via LOGIN; CREATE ROLE odd_group;
		GRANT odd_group TO via`)
	d.ok(t, "", "clusters", "update", "local", "--grantable", "readers", "--member-of", "readers", "--view", "a in (b,c),!d",
		"--location", "no", "--synchronous-commit", "remote_apply", "--lease-max-ttl", "1d12h")
	d.ok(t, "", "databases", "create", "shop", "--access-roles")
	d.ok(t, "", "users", "create", "app", "--access", "shop=write", "--access", "no=own", "--generate")
	d.ok(t, "", "users", "create", "idle", "--role", "readers", "--generate", "--valid-until", "2031-01-01T00:00:00.5+01:00")
	d.ok(t, "", "users", "disable", "idle")
	d.ok(t, "", "leases", "create", "--for", "app")
	d.ok(t, "", "credentials", "put", "stored", "--for", "shop_read", "--rotate-every", "30d", "--overlap", "1d12h", "--window",
		"sun,sat 02:00-04:00 Europe/Berlin")
	d.ok(t, "", "credentials", "put", "other", "--for", "app", "--rotate-every", "90m", "--overlap", "0s")
	d.ok(t, "", "accounts", "create", "on", "--generate")
	d.ok(t, "", "accounts", "label", "on", "team=no", "example.org/x=1e3", "empty=")

	export := filepath.Join(d.dir, "export.yaml")
	d.ok(t, "", "export", "-f", export)
	text := read(t, export)
	for _, mode := range []string{"additive", "adopt", "authoritative"} {
		if code, out, errOut := d.run(t, "", "diff", "-f", export, "--mode", mode); code != 0 {
			t.Errorf("%s: exit code %d: %s%s\nof\n%s", mode, code, out, errOut, text)
		}
	}
	for _, want := range []string{"# not created by Rolecall\n", "# created by admin\n", `"2001-02-03T02:05:06.789012Z"`,
		"validUntil: never", "disabled: true", "# also a member of roles that are not grantable: odd_group\n", `name: "1e3"`,
		"name: stored", `access:`, `no: own`} {
		if !strings.Contains(strings.ReplaceAll(text, `"no": own`, "no: own"), want) {
			t.Errorf("the export has no %s:\n%s", want, text)
		}
	}
	for _, without := range []string{"powerful", "name: postgres", "no_login", "app_", "password: "} {
		if strings.Contains(text, without) {
			t.Errorf("the export has %s:\n%s", without, text)
		}
	}
	if out, _ := d.ends(t, 0, "export", "-f", "-"); out != text {
		t.Errorf("export -f - prints\n%s\nand not\n%s", out, text)
	}
	d.ends(t, term.ExitUsage, "export", "-f", export) // it exists, and nobody can be asked
	d.ok(t, "", "export", "-f", export, "--yes", "--only", "local")
	if text := read(t, export); strings.Contains(text, "accounts:") || !strings.Contains(text, "name: stored") {
		t.Errorf("the export of one cluster is\n%s", text)
	}
}
