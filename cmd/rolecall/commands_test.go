package main

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	neturl "net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.yaml.in/yaml/v3"

	"rolecall/internal/cli"
	"rolecall/internal/cli/term"
	"rolecall/internal/pgtest"
)

// shell is somebody's shell: a configuration folder of its own. Everything that was printed is kept, to look for secrets.
type shell struct {
	config  string
	printed *strings.Builder
}

// newShell is for tests that do not run in parallel: the environment is the process's.
func newShell(t *testing.T) *shell {
	t.Helper()
	for _, name := range []string{cli.URLVariable, cli.TokenVariable, cli.ClusterVariable, cli.ClusterIDVariable,
		term.OutputVariable} {
		t.Setenv(name, "")
		os.Unsetenv(name)
	}
	return &shell{config: t.TempDir(), printed: &strings.Builder{}}
}

func (s *shell) run(t *testing.T, stdin string, args ...string) (code int, out, errOut string) {
	t.Helper()
	t.Setenv("XDG_CONFIG_HOME", s.config)
	code, out, errOut = execute(t, stdin, args...)
	s.printed.WriteString(out + errOut)
	return code, out, errOut
}

// ok runs a command line that has to succeed and returns what it prints.
func (s *shell) ok(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	code, out, errOut := s.run(t, stdin, args...)
	if code != 0 {
		t.Fatalf("rolecall %q: exit code %d: %s", args, code, errOut)
	}
	return out
}

// fails runs a command line that has to fail with a code, in one sentence that holds the words.
func (s *shell) fails(t *testing.T, code int, words, stdin string, args ...string) {
	t.Helper()
	got, out, errOut := s.run(t, stdin, args...)
	if got != code || !isSentence(errOut) || !strings.Contains(errOut, words) || out != "" {
		t.Errorf("rolecall %q: exit code %d, printed %q and %q; want %d and one sentence with %q", args, got, out, errOut, code,
			words)
	}
}

// has runs a command line and looks for lines in what it prints. Runs of spaces count as one.
func (s *shell) has(t *testing.T, want []string, args ...string) {
	t.Helper()
	out := regexp.MustCompile(` +`).ReplaceAllString(s.ok(t, "", args...), " ")
	for _, line := range want {
		if !regexp.MustCompile(`(?m)^` + line + `$`).MatchString(out) {
			t.Errorf("rolecall %q printed\n%s\nwant a line %q", args, out, line)
		}
	}
}

func (s *shell) signIn(t *testing.T, url, username, password string) {
	t.Helper()
	s.ok(t, password+"\n", "login", url, "--username", username, "--password-stdin")
}

// loginFile is the file of the only sign-in.
func (s *shell) loginFile(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.config, "rolecall", "logins", "*.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("the stored sign-ins are %q: %v", files, err)
	}
	return files[0]
}

// login is the stored sign-in.
func (s *shell) login(t *testing.T) (l map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(read(t, s.loginFile(t))), &l); err != nil {
		t.Fatal(err)
	}
	return l
}

// value prints one field of a command's JSON.
func (s *shell) value(t *testing.T, path string, args ...string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(s.ok(t, "", append(args, "-o", "json")...)), &v); err != nil {
		t.Fatal(err)
	}
	for name := range strings.SplitSeq(path, ".") {
		object, ok := v.(map[string]any)
		if !ok {
			t.Fatalf("rolecall %q has no %s", args, path)
		}
		v = object[name]
	}
	return v
}

const uuidPattern = `[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`

func TestCommandLine(t *testing.T) {
	admin := newShell(t)
	alice := &shell{config: t.TempDir(), printed: admin.printed}
	dir := preparedFolder(t)
	const adminPassword = preparedPassword
	server, url := beginDev(t, dir)
	pg := pgtest.Shared(t)
	secrets := []string{adminPassword, pg.Password}

	t.Run("login", func(t *testing.T) {
		admin.fails(t, term.ExitDenied, "rolecall login", "", "users", "list", "-c", "local")
		admin.fails(t, term.ExitUsage, "the URL is missing", "", "login")
		admin.fails(t, term.ExitUsage, `"nonsense"`, "", "login", "nonsense")
		admin.fails(t, term.ExitUsage, `"localhost:18310"`, "", "login", "localhost:18310")
		admin.fails(t, term.ExitUsage, `no command "users remove" (did you mean delete or revoke?);`, "", "users", "remove",
			"-c", "shop")
		admin.fails(t, term.ExitUsage, `no command "users get" (did you mean set or show?);`, "", "users", "get", "x", "-c",
			"shop")
		admin.fails(t, term.ExitUsage, `no command "usres" (did you mean users?);`, "", "usres", "list", "-c", "shop")
		admin.fails(t, term.ExitUsage, "flag: --sytem (did you mean --system?);", "", "users", "list", "--sytem")
		admin.fails(t, term.ExitUsage, `--output is "jsno": use table, json, yaml, wide or name (did you mean json?);`, "",
			"users", "list", "-o", "jsno")
		admin.fails(t, term.ExitUsage, `--last is "x": use a number;`, "", "audit", "--last", "x")
		admin.fails(t, term.ExitUsage, `--system is "x": use true or false, or omit the value;`, "", "users", "list", "--system=x")
		admin.fails(t, term.ExitUsage, "did you mean never?", "", "users", "list", "--color", "nevr")
		admin.fails(t, term.ExitUsage, "--color=always does nothing", "", "users", "list", "--color", "always", "-o", "json")
		admin.fails(t, term.ExitUsage, "accepts no --quiet", "", "version", "-q")
		admin.fails(t, term.ExitUsage, `no command "nonsense"`, "", "nonsense", "-c", "shop")
		admin.fails(t, term.ExitUsage, "--username", "", "login", url)
		admin.fails(t, term.ExitUsage, "--password-stdin", "", "login", url, "-u", "admin")
		admin.fails(t, term.ExitDenied, "password is wrong", "wrong\n", "login", url, "-u", "admin", "--password-stdin")
		admin.fails(t, term.ExitFailed, "empty", "\n", "login", url, "-u", "admin", "--password-stdin")
		admin.fails(t, term.ExitFailed, "cannot be reached", "x\n", "login", "http://127.0.0.1:1", "-u", "admin",
			"--password-stdin")
		admin.signIn(t, url+"/", "admin", adminPassword)
		for path, mode := range map[string]fs.FileMode{
			filepath.Join(admin.config, "rolecall"): fs.ModeDir | 0o700, admin.loginFile(t): 0o600,
		} {
			if info, err := os.Stat(path); err != nil || info.Mode() != mode {
				t.Errorf("%s: %v, %v, want mode %v", path, info, err, mode)
			}
		}
		if text := read(t, admin.loginFile(t)); strings.Contains(text, adminPassword) {
			t.Error("the password is kept")
		}
		admin.has(t, []string{"server " + url, "user name admin", "may manage local", "may only view none"}, "whoami")

		// An access token that has expired, and one that the server no longer takes, are replaced without a word.
		for member, value := range map[string]any{"expires": time.Now().Add(-time.Hour), "accessToken": "stale"} {
			l := admin.login(t)
			l[member] = value
			text, err := json.Marshal(l)
			if err != nil {
				t.Fatal(err)
			}
			write(t, admin.loginFile(t), string(text))
			admin.ok(t, "", "whoami")
		}
		l := admin.login(t)
		if l["accessToken"] == "stale" {
			t.Error("the new token was not stored")
		}
		secrets = append(secrets, l["accessToken"].(string), l["refreshToken"].(string))

		// A token goes to no other server than its own.
		t.Setenv(cli.URLVariable, "http://127.0.0.1:1")
		admin.fails(t, term.ExitDenied, "not signed in to http://127.0.0.1:1", "", "whoami")
		t.Setenv(cli.URLVariable, url)
		admin.ok(t, "", "whoami")
		t.Setenv(cli.TokenVariable, "wrong-token")
		admin.fails(t, term.ExitDenied, "", "", "whoami")
		os.Unsetenv(cli.URLVariable)
		admin.fails(t, term.ExitUsage, cli.URLVariable, "", "whoami")
		os.Unsetenv(cli.TokenVariable)
	})

	t.Run("usage", func(t *testing.T) {
		for _, args := range [][]string{
			{"users", "nonsense"}, {"users", "create", "-c", "local"}, {"users", "show", "a", "b"}, {"users", "list", "-o", "xml"},
			{"users", "list"}, {"users", "list", "--nonsense"}, {"clusters", "register", "x"}, {"accounts", "label", "admin"},
			{"accounts", "label", "admin", "nonsense"}, {"users", "create", "x", "-c", "local", "--generate", "--password-stdin"},
			{"users", "set", "x", "-c", "local"}, {"users", "set", "x", "-c", "local", "--valid-until", "tomorrow"},
			{"users", "delete", "x", "-c", "local"}, {"users", "delete", "x", "-c", "local", "--on-blocked", "drop"},
			{"clusters", "access", "local"}, {"clusters", "update", "local"}, {"audit", "--since", "yesterday"},
			{"clusters", "register", "x", "--url", "postgres://r:in-the-url@db/postgres", "--password-stdin"},
			{"clusters", "register", "x", "--url", "postgres://r@db/postgres", "--tls-ca", "/nowhere"},
			{"clusters", "update", "local", "--lease-default-ttl", "soon"},
			{"clusters", "update", "local", "--lease-max-ttl", "24"},
			{"clusters", "update", "local", "--lease-max-per-account", "many"},
		} {
			admin.fails(t, term.ExitUsage, "", "", args...)
		}
		secrets = append(secrets, "in-the-url")
	})

	t.Run("users", func(t *testing.T) {
		generated := strings.TrimSuffix(admin.ok(t, "", "users", "create", "app", "-c", "local", "--generate"), "\n")
		if !regexp.MustCompile(`^[!-~]{20,63}$`).MatchString(generated) {
			t.Errorf("the generated password is %q", generated)
		}
		v := variables(t, dir)
		login := func(password string) error {
			v["PGUSER"], v["PGPASSWORD"] = "app", password
			return tryPsql(t, v)
		}
		if err := login(generated); err != nil {
			t.Errorf("the generated password does not sign in: %v", err)
		}
		admin.fails(t, term.ExitFailed, `role "app"`, "a long password\n", "users", "create", "app", "-c", "local",
			"--password-stdin")
		admin.ok(t, "another password\r\n", "users", "passwd", "app", "-c", "local", "--password-stdin")
		if err := login("another password"); err != nil {
			t.Errorf("the new password does not sign in: %v", err)
		}
		if login(generated) == nil {
			t.Error("the old password signs in")
		}
		secrets = append(secrets, "a long password", "another password")

		id, _ := admin.value(t, "id", "clusters", "show", "local").(string)
		for _, given := range []string{"local", id, strings.ToUpper(id)} {
			admin.has(t, []string{`NAME STATE EXPIRES ROLES CREATED BY CREATED CHANGED CHANGED BY`, `app active never admin .*`},
				"users", "ls", "-c", given)
		}
		t.Setenv(cli.ClusterIDVariable, id)
		admin.has(t, []string{`postgres yes active never`}, "users", "list", "--system")
		t.Setenv(cli.ClusterVariable, "nowhere")
		admin.fails(t, term.ExitNotFound, `"nowhere"`, "", "users", "list")
		admin.fails(t, term.ExitNotFound, "view (did you mean local?).", "", "users", "list", "-c", "locla")
		t.Setenv(cli.ClusterVariable, "local")
		if out := admin.ok(t, "", "users", "list", "--filter", "created-by=adm*", "-o", "name"); out != "app\n" {
			t.Errorf("the names of admin's users are %q", out)
		}
		out := admin.ok(t, "", "users", "list", "--system", "--sort", "-name", "--limit", "1", "--no-headers",
			"--filter", "name=p*")
		if !strings.HasPrefix(out, "postgres ") {
			t.Errorf("the last user is %q", out)
		}

		admin.has(t, []string{"name app", "cluster local", "state active", "expires never", "connection limit none",
			`created .* by admin`, `connect with postgresql://app@127\.0\.0\.1:\d+/postgres.*`}, "users", "show", "app")
		admin.ok(t, "", "users", "set", "app", "--valid-until", "2037-01-31T18:00:00Z", "--connection-limit", "7",
			"--end-sessions")
		if got := admin.value(t, "validUntil", "users", "show", "app"); got != "2037-01-31T18:00:00Z" {
			t.Errorf("validUntil is %v", got)
		}
		if got := admin.value(t, "connectionLimit", "users", "show", "app"); got != 7.0 {
			t.Errorf("connectionLimit is %v", got)
		}
		admin.ok(t, "", "users", "set", "app", "--valid-until", "never", "--connection-limit", "none")
		admin.has(t, []string{"expires never", "connection limit none"}, "users", "show", "app")

		// A password that some drivers prepare otherwise, and one that is a hash still.
		if code, out, errOut := admin.run(t, "a password \u2168 of note\n", "users", "passwd", "app",
			"--password-stdin"); code != 0 || out != "" ||
			!strings.Contains(errOut, "has a new password.\nWarning: The password has characters") {
			t.Errorf("passwd: exit code %d, printed %q and %q", code, out, errOut)
		}
		secrets = append(secrets, "a password \u2168", "a password IX")
		psql(t, variables(t, dir), "CREATE ROLE legacy LOGIN PASSWORD 'md5d41d8cd98f00b204e9800998ecf8427e'")
		admin.has(t, []string{"NAME SYSTEM PASSWORD PROBLEM", "legacy no md5 .*Set a new password."}, "users", "check-passwords")
		admin.ok(t, "another password\n", "users", "passwd", "legacy", "--password-stdin")
		if out := admin.ok(t, "", "users", "check-passwords", "-o", "json"); out != "[]\n" {
			t.Errorf("check-passwords printed %s", out)
		}
		admin.ok(t, "", "users", "delete", "legacy", "--yes")

		// The made-up password is in the JSON of the answer, too.
		var made struct {
			Password string
			Username string
		}
		if err := json.Unmarshal([]byte(admin.ok(t, "", "users", "create", "a/b", "--generate", "-o", "json")),
			&made); err != nil ||
			made.Password == "" || made.Username != "a/b" {
			t.Errorf("created %+v, %v", made, err)
		}
		admin.has(t, []string{"name a/b"}, "users", "show", "a/b")
		admin.fails(t, term.ExitUsage, `if "-x" is a name, write -- before it`, "", "users", "show", "-x")
		admin.fails(t, term.ExitUsage, `if "--x" is a name, write -- before it`, "", "users", "show", "--x=1", "a")
		admin.fails(t, term.ExitNotFound, "", "", "users", "show", "-c", "local", "--", "-x")
		admin.ok(t, "", "users", "rm", "a/b", "--yes")
		admin.fails(t, term.ExitNotFound, "", "", "users", "show", "a/b")
		admin.fails(t, term.ExitDenied, "", "a long password\n", "users", "passwd", "postgres", "--password-stdin")

		// What it owns stands in the way of a delete.
		psql(t, variables(t, dir), "CREATE ROLE readers; CREATE TABLE kept (i int); ALTER TABLE kept OWNER TO app")
		for _, format := range []string{"table", "json"} {
			code, out, errOut := admin.run(t, "", "users", "delete", "app", "--plan", "-o", format)
			if code != term.ExitFailed || !isSentence(errOut) || !strings.Contains(errOut, `"app" would not be deleted`) ||
				!strings.Contains(out, "public.kept") {
				t.Errorf("the plan ended with %d, printed %q and %q", code, out, errOut)
			}
		}
		admin.has(t, []string{"would be rejected no", "database postgres objects owned, 1: .*public.kept.*"}, "users", "delete",
			"app", "--plan", "--reassign-to", "readers")
		admin.fails(t, term.ExitFailed, "--reassign-to ROLE", "", "users", "delete", "app", "--yes")
		admin.ok(t, "", "users", "delete", "app", "--yes", "--on-blocked", "disable")
		admin.has(t, []string{"state disabled"}, "users", "show", "app")
		admin.ok(t, "", "users", "delete", "app", "--yes", "--reassign-to", "readers")
		admin.fails(t, term.ExitNotFound, "", "", "users", "show", "app")
		os.Unsetenv(cli.ClusterVariable)
		os.Unsetenv(cli.ClusterIDVariable)
	})

	t.Run("clusters", func(t *testing.T) {
		role := fmt.Sprintf("admin_%d", time.Now().UnixNano())
		pg.Exec(t, `CREATE ROLE `+role+` LOGIN SUPERUSER PASSWORD 'administering secret'`)
		pg.Exec(t, `CREATE ROLE `+role+`_readers`)
		secrets = append(secrets, "administering secret")
		connection := fmt.Sprintf("postgres://%s@127.0.0.1:%d/postgres", role, pg.Port)
		register := []string{"clusters", "register", "payments", "--url", connection, "--tls-mode", "disable", "--password-stdin"}
		admin.fails(t, term.ExitFailed, "", "not the password\n", register...)
		admin.fails(t, term.ExitFailed, "", "administering secret\n", append(slices.Clone(register), "--manage", "team in")...)
		admin.ok(t, "administering secret\n", append(register, "--location", "de/fra", "--manage", "team=payments", "--manage",
			"role=dba", "--view", "team=search", "--grantable", role+"_readers", "--system-role", "root*", "--system-role", role,
			"--lease-default-ttl", "30m", "--lease-max-ttl", "36h", "--lease-max-per-account", "7")...)
		admin.has(t, []string{`payments de/fra .* AVAILABLE team=payments or role=dba team=search ` + uuidPattern,
			`local local .*`}, "clusters", "list")
		admin.has(t, []string{"name payments", "role " + role, "TLS disable", "grantable " + role + "_readers",
			"leases 30m, at most 36h, 7 for each account"}, "clusters", "show", "payments")
		admin.ok(t, "", "clusters", "update", "payments", "--name", "money", "--view", "", "--tls-mode", "disable")
		admin.has(t, []string{"name money", "managed by team=payments or role=dba", "viewed by no further accounts",
			"not permitted .+", "problems none", "you may manage yes"}, "clusters", "show", "money")
		admin.fails(t, term.ExitNotFound, `"payments"`, "", "clusters", "show", "payments")
		admin.ok(t, "", "clusters", "update", "money", "--name", "payments", "--view", "team=search")
		admin.ok(t, "", "clusters", "update", "payments", "--synchronous-commit", "local")
		admin.has(t, []string{"state AVAILABLE", `identifier \d+`, "commits local"}, "clusters", "show", "payments")
		admin.ok(t, "", "clusters", "update", "payments", "--synchronous-commit", "")
		admin.has(t, []string{"commits -"}, "clusters", "show", "payments")
		for _, test := range []struct{ flag, value, leases string }{
			{"--lease-default-ttl", "2h", "2h, at most 36h, 7"}, {"--lease-max-ttl", "12h", "2h, at most 12h, 7"},
			{"--lease-max-per-account", "3", "2h, at most 12h, 3"}, {"--lease-default-ttl", "", "1h, at most 12h, 3"},
			{"--lease-max-ttl", "", "1h, at most 24h, 3"}, {"--lease-max-per-account", "", "1h, at most 24h, 100"},
		} {
			admin.ok(t, "", "clusters", "update", "payments", test.flag, test.value)
			admin.has(t, []string{"leases " + test.leases + " for each account"}, "clusters", "show", "payments")
		}
		admin.fails(t, term.ExitFailed, "defaultTtl", "", "clusters", "update", "payments", "--lease-default-ttl", "25h")
		admin.fails(t, term.ExitFailed, "not 12", "", "clusters", "update", "payments", "--system-identifier", "12")
		admin.fails(t, term.ExitFailed, "systemIdentifier is empty", "", "clusters", "update", "payments",
			"--system-identifier", "")
		admin.ok(t, "", "clusters", "probe", "payments")

		admin.ok(t, "", "users", "create", "reports", "-c", "payments", "--generate")
		admin.ok(t, "", "users", "grant", "reports", "-c", "payments", role+"_readers")
		admin.has(t, []string{"member of " + role + "_readers"}, "users", "show", "reports", "-c", "payments")
		admin.fails(t, term.ExitFailed, "postgres", "", "users", "grant", "reports", "-c", "payments", "--roles", "postgres")
		code, _, errOut := admin.run(t, "", "users", "grant", "reports", "-c", "payments", role+"_readers", "postgres")
		if code != term.ExitFailed || !strings.Contains(errOut, "Done before the error: "+role+"_readers.") ||
			!strings.Contains(errOut, `"postgres" is not among those that can be granted in this cluster: `+role) {
			t.Errorf("exit code %d: %s", code, errOut)
		}
		code, _, errOut = admin.run(t, "", "users", "revoke", "reports", "-c", "payments", role+"_readers")
		if code != 0 || !strings.Contains(errOut, "added: none; removed: "+role+"_readers; is now a member of: none.") {
			t.Errorf("exit code %d: %s", code, errOut)
		}
		admin.has(t, []string{"member of -"}, "users", "show", "reports", "-c", "payments")
		admin.ok(t, "", "users", "set-roles", "reports", "-c", "payments", "--roles", role+"_readers")
		admin.ok(t, "", "users", "grant", "reports", "-c", "payments", "--roles", role+"_readers")
		admin.fails(t, term.ExitFailed, "postgres", "", "users", "revoke", "reports", "-c", "payments", "postgres")
		admin.fails(t, term.ExitUsage, "no role is given", "", "users", "grant", "reports", "-c", "payments")
		admin.fails(t, term.ExitUsage, "set-roles reports", "", "users", "grant", "reports", "-c", "payments", "--roles", "")
		admin.ok(t, "", "users", "set-roles", "reports", "-c", "payments", "--roles", "")
		admin.has(t, []string{"member of -"}, "users", "show", "reports", "-c", "payments")
		admin.ok(t, "", "clusters", "update", "payments", "--system-role", "postgres,guarded")
		for args, want := range map[string][]string{
			"clusters register x --tls-mode":                 {"verify-full", "verify-ca", "require", "disable"},
			"clusters register x --grantable":                nil,
			"clusters update payments --grantable":           {role + "_readers"},
			"users delete reports -c payments --reassign-to": {"reports", role + "_readers"},
			"clusters update payments --system-role":         {"postgres", "guarded"},
			"clusters update payments --manage":              nil, "clusters update payments --member-of": nil,
		} {
			out := admin.ok(t, "", append(append([]string{"__complete"}, strings.Fields(args)...), "")...)
			if got := strings.Join(append(want, ":4", ""), "\n"); out != got { // 4: no file names
				t.Errorf("%s offers %q, want %q", args, out, got)
			}
		}
		// A user is the same JSON in a list and alone, with -1 for no limit of connections; users set takes that, too.
		admin.ok(t, "", "users", "set", "reports", "-c", "payments", "--connection-limit", "7")
		admin.ok(t, "", "users", "set", "reports", "-c", "payments", "--connection-limit", "-1")
		admin.has(t, []string{"connection limit none"}, "users", "show", "reports", "-c", "payments")
		admin.fails(t, term.ExitUsage, `"-2"`, "", "users", "set", "reports", "-c", "payments", "--connection-limit", "-2")
		var shown any
		eventually(t, func() error { // the user may be looked at between the two commands
			var listed []any
			if err := json.Unmarshal([]byte(admin.ok(t, "", "users", "list", "-c", "payments", "-o", "json")), &listed); err != nil {
				return err
			}
			if err := json.Unmarshal([]byte(admin.ok(t, "", "users", "show", "reports", "-c", "payments", "-o", "json")),
				&shown); err != nil {
				return err
			}
			if !slices.ContainsFunc(listed, func(u any) bool { return reflect.DeepEqual(u, shown) }) {
				return fmt.Errorf("listed are %v, without %v", listed, shown)
			}
			return nil
		})
		if limit := shown.(map[string]any)["connectionLimit"]; limit != -1.0 {
			t.Errorf("the connection limit is %v", limit)
		}
		if out := admin.ok(t, "", "clusters", "userlist", "payments"); !strings.Contains(out, `"reports" "SCRAM-SHA-256$`) {
			t.Errorf("the userlist is\n%s", out)
		}
		pg.Exec(t, `ALTER ROLE reports PASSWORD 'md5`+strings.Repeat("0a", 16)+`'`)
		if _, _, errOut := admin.run(t, "", "clusters", "userlist", "payments"); !strings.Contains(errOut, "auth_type = md5") {
			t.Errorf("of an md5 hash is said %q", errOut)
		}
		admin.ok(t, "", "users", "delete", "reports", "-c", "payments", "-y")

		admin.ok(t, "", "clusters", "rotate-credential", "payments")
		if pg.Login(role, "administering secret") == nil {
			t.Error("the old password of the administering role still signs in")
		}
		admin.ok(t, "", "users", "list", "-c", "payments")
	})

	t.Run("accounts", func(t *testing.T) {
		const password = "alice has a secret"
		secrets = append(secrets, password, "alice has another")
		admin.fails(t, term.ExitFailed, "", password+"\n", "accounts", "create", "alice", "--label", "team=not allowed",
			"--password-stdin")
		admin.fails(t, term.ExitNotFound, "alice", "", "accounts", "show", "alice") // nothing is left of it
		admin.fails(t, term.ExitNotFound, "nonsense", "", "accounts", "create", "alice", "--scope", "nonsense", "--generate")
		admin.ok(t, password+"\n", "accounts", "create", "alice", "--label", "team=search", "--label", "old=1", "--password-stdin")
		admin.fails(t, term.ExitFailed, "taken", password+"\n", "accounts", "create", "alice", "--password-stdin")
		guid, _ := admin.value(t, "guid", "accounts", "show", "alice").(string)
		admin.has(t, []string{`alice uaa yes old=1,team=search cloud_controller.read cloud_controller.write ` + guid,
			`admin uaa yes .*`}, "accounts", "list")
		admin.fails(t, term.ExitFailed, `at character 4, near "team in shop": not a requirement: write key`, "", "accounts",
			"list", "--selector", "a, team in shop")
		admin.fails(t, term.ExitFailed, "An example: team=payments,role in (dba,sre).", "", "accounts", "list", "-l", "a=b c")
		if out := admin.ok(t, "", "accounts", "list", "--selector", "team=search"); strings.Contains(out, "admin") ||
			!strings.Contains(out, "alice") {
			t.Errorf("the selected accounts are\n%s", out)
		}
		admin.has(t, []string{"user name alice", "labels old=1,team=search"}, "accounts", "show", guid)

		alice.signIn(t, url, "alice", password)
		alice.has(t, []string{"user name alice", "labels old=1,team=search", "may manage none",
			"may only view payments"}, "whoami")
		if out := alice.ok(t, "", "clusters", "list"); strings.Contains(out, "local") {
			t.Errorf("alice sees\n%s", out)
		}
		alice.has(t, []string{"user name alice", "active yes"}, "accounts", "show", "alice")
		alice.fails(t, term.ExitNotFound, "admin", "", "accounts", "show", "admin")
		alice.fails(t, term.ExitNotFound, "local", "", "users", "list", "-c", "local")
		alice.fails(t, term.ExitDenied, "view", "", "users", "create", "x", "-c", "payments", "--generate")
		alice.fails(t, term.ExitDenied, "", "", "clusters", "update", "payments", "--view", "")
		alice.fails(t, term.ExitDenied, "", "", "clusters", "userlist", "payments")
		alice.fails(t, term.ExitDenied, "", "", "accounts", "label", "alice", "team=payments")
		admin.has(t, []string{"may view yes: .*team=search.*", "may manage no: .*"}, "clusters", "access", "payments",
			"--account", "alice")
		admin.ok(t, "", "accounts", "label", "alice", "team=payments", "old-")
		admin.ok(t, "", "accounts", "annotate", "alice", "note=two words, and a comma")
		admin.has(t, []string{"labels team=payments", "annotations note=two words, and a comma"}, "accounts", "show", "alice")
		admin.has(t, []string{"may manage yes: .*team=payments.*"}, "clusters", "access", "payments", "--account", "alice")
		alice.signIn(t, url, "alice", password) // who she is was remembered for a moment with the old token
		alice.ok(t, "", "users", "create", "made_by_alice", "-c", "payments", "--generate")
		admin.has(t, []string{`made_by_alice active never alice .*`}, "users", "list", "-c", "payments")

		admin.ok(t, "", "accounts", "grant", "alice", "cloud_controller.global_auditor", "cloud_controller.write-",
			"cloud_controller.read")
		admin.has(t, []string{"scopes cloud_controller.global_auditor cloud_controller.read"}, "accounts", "show", "alice")
		admin.fails(t, term.ExitNotFound, "nonsense", "", "accounts", "grant", "alice", "nonsense")
		admin.ok(t, "", "accounts", "grant", "alice", "cloud_controller.global_auditor-", "cloud_controller.write")

		admin.ok(t, "", "accounts", "deactivate", "alice")
		admin.has(t, []string{"user name alice", "active no", "labels team=payments"}, "accounts", "show", "alice")
		alice.fails(t, term.ExitDenied, "", password+"\n", "login", "-u", "alice", "--password-stdin")
		eventually(t, func() error {
			if code, _, errOut := alice.run(t, "", "whoami"); code != term.ExitDenied {
				return fmt.Errorf("whoami has the exit code %d: %s", code, errOut)
			}
			return nil
		})
		admin.ok(t, "", "accounts", "activate", "alice")
		alice.signIn(t, url, "alice", password)

		// Your own password takes the current one, and the sign-in goes on.
		alice.fails(t, term.ExitDenied, "", "wrong\nalice has another\n", "accounts", "passwd", "--password-stdin")
		alice.ok(t, password+"\nalice has another\n", "accounts", "passwd", "--password-stdin")
		alice.ok(t, "", "whoami")
		generated := strings.TrimSpace(admin.ok(t, "", "accounts", "passwd", "alice", "--generate"))
		alice.signIn(t, url, "alice", generated)
	})

	t.Run("tokens", func(t *testing.T) {
		token := strings.TrimSuffix(alice.ok(t, "", "tokens", "create", "ci", "-c", "payments", "--read-only", "--expires",
			"1h"), "\n")
		alice.has(t, []string{`NAME READ-ONLY REACHES EXPIRES LAST USED ID`, `ci yes payments \S+ \S+ ` + uuidPattern},
			"tokens", "list")
		program := &shell{config: t.TempDir(), printed: &strings.Builder{}}
		t.Setenv(cli.URLVariable, url)
		t.Setenv(cli.TokenVariable, token)
		program.ok(t, "", "users", "list", "-c", "payments")
		program.fails(t, term.ExitDenied, "", "", "users", "create", "x", "-c", "payments", "--generate")
		if strings.Contains(program.printed.String(), token) {
			t.Error("the token was printed")
		}
		os.Unsetenv(cli.TokenVariable)
		os.Unsetenv(cli.URLVariable)
		alice.fails(t, term.ExitNotFound, "nonsense", "", "tokens", "revoke", "nonsense")
		alice.ok(t, "", "tokens", "revoke", "ci")
		if out := alice.ok(t, "", "tokens", "list", "-o", "json"); strings.TrimSpace(out) != "[]" {
			t.Errorf("the tokens are %s", out)
		}
	})

	t.Run("output", func(t *testing.T) {
		for _, args := range [][]string{
			{"whoami"}, {"clusters", "list"}, {"clusters", "show", "payments"}, {"users", "list", "-c", "payments"},
			{"users", "show", "made_by_alice", "-c", "payments"}, {"accounts", "list"}, {"accounts", "show", "alice"},
			{"clusters", "access", "payments", "--account", "alice"}, {"users", "delete", "made_by_alice", "-c", "payments",
				"--plan"},
		} {
			var fromJSON, fromYAML any
			if err := json.Unmarshal([]byte(admin.ok(t, "", append(args, "-o", "json")...)), &fromJSON); err != nil {
				t.Errorf("rolecall %q -o json: %v", args, err)
			}
			t.Setenv(term.OutputVariable, "yaml")
			if err := yaml.Unmarshal([]byte(admin.ok(t, "", args...)), &fromYAML); err != nil {
				t.Errorf("rolecall %q -o yaml: %v", args, err)
			}
			os.Unsetenv(term.OutputVariable)
			a, _ := json.Marshal(fromJSON)
			b, _ := json.Marshal(fromYAML)
			if withoutHealth(a) != withoutHealth(b) {
				t.Errorf("rolecall %q is as JSON\n%s\nand as YAML\n%s", args, a, b)
			}
		}
	})

	t.Run("completion", func(t *testing.T) {
		for want, args := range map[string][]string{
			"local\npayments\n": {"users", "list", "-c", ""},
			"made_by_alice\n":   {"users", "show", "-c", "payments", ""},
			"alice\n":           {"accounts", "show", "al"},
			"payments\n":        {"clusters", "show", ""},
			"table\njson\n":     {"users", "list", "-o", ""},
			"scim.read\n":       {"accounts", "grant", "alice", ""},
		} {
			if out := admin.ok(t, "", append([]string{"__complete"}, args...)...); !strings.Contains(out, want) {
				t.Errorf("completing %q offers\n%s\nwant %q", args, out, want)
			}
		}
		for _, shell := range []string{"bash", "zsh", "fish"} {
			if out := admin.ok(t, "", "completion", shell); !strings.Contains(out, "rolecall") {
				t.Errorf("completion %s: %s", shell, out)
			}
		}
		admin.fails(t, term.ExitUsage, `no command "completion bsh" (did you mean bash, fish or zsh?);`, "", "completion", "bsh")
		if !strings.Contains(admin.ok(t, "", "--help"), "completion") {
			t.Error("the help does not show the completion command")
		}
	})

	t.Run("audit", func(t *testing.T) {
		eventually(t, func() error { // rows are sealed within a second
			code, out, errOut := admin.run(t, "", "audit", "--user", "made_by_alice", "--last", "0")
			if lines := strings.Count(out, "user.create"); code != 0 || lines != 1 || !strings.Contains(out, "done") ||
				!strings.Contains(out, "alice") {
				return fmt.Errorf("exit code %d: %s%s", code, out, errOut)
			}
			return nil
		})
		if out := admin.ok(t, "", "audit", "-c", "payments", "--account", "alice", "--action", "user.create", "--outcome",
			"done", "--since", "1h", "-o", "jsonl", "-n", "1"); strings.Count(out, "\n") != 1 ||
			!strings.Contains(out, `"made_by_alice"`) {
			t.Errorf("the filtered row is %s", out)
		}
		admin.fails(t, term.ExitNotFound, "nowhere", "", "audit", "-c", "nowhere")
		admin.fails(t, term.ExitNotFound, `"nobody"`, "", "audit", "--account", "nobody")
		admin.fails(t, term.ExitNotFound, `"nobody"`, "", "audit", "--account", "nobody", "--follow")
		admin.fails(t, term.ExitFailed, "action must be one of: account.create, ", "", "audit", "--action", "user.creat")
		admin.fails(t, term.ExitFailed, "outcome must be done, ", "", "audit", "--outcome", "nonsense")
		if out := admin.ok(t, "", "audit", "--account", "alice", "--user", "nobody", "-o", "json"); out != "[]\n" {
			t.Errorf("an account without such rows: %s", out)
		}
		if _, _, errOut := admin.run(t, "", "audit", "--user", "nobody", "--since", "1h"); strings.Contains(errOut, "the last 0") {
			t.Errorf("without such rows: %s", errOut)
		}
		lines := strings.Split(strings.TrimSpace(admin.ok(t, "", "audit", "-o", "jsonl")), "\n")
		last := lines[len(lines)-1]
		var head struct {
			Head struct {
				Seq int64
				MAC string
			}
		}
		if err := json.Unmarshal([]byte(last), &head); err != nil || head.Head.Seq == 0 || len(lines) < 10 {
			t.Fatalf("the export has %d lines and ends with %s: %v", len(lines), last, err)
		}
		admin.has(t, []string{"intact yes"}, "audit", "verify", "--anchor", fmt.Sprintf("%d:%s", head.Head.Seq, head.Head.MAC))
		code, out, errOut := admin.run(t, "", "audit", "verify", "--anchor", fmt.Sprintf("%d:%s", head.Head.Seq,
			strings.Repeat("00", 32)))
		if code != term.ExitFailed || !strings.Contains(out, "intact") || !isSentence(errOut) {
			t.Errorf("verify with a wrong anchor: exit code %d: %s%s", code, out, errOut)
		}
		alice.fails(t, term.ExitDenied, "", "", "audit", "verify")
		admin.has(t, []string{`MINUTE ACCOUNT ADDRESS COUNT`, `\S+ \S+ admin 127\.0\.0\.1 \d+`}, "audit", "failed-sign-ins",
			"--since", "1h")

		follow := begin(t, "audit", "--follow", "-n", "1", "-o", "jsonl")
		eventually(t, func() error {
			if follow.out.String() == "" {
				return fmt.Errorf("nothing yet: %s", follow.errOut)
			}
			return nil
		})
		admin.ok(t, "", "users", "delete", "made_by_alice", "-c", "payments", "--yes")
		eventually(t, func() error {
			if n := strings.Count(follow.out.String(), `"user.delete"`); n < 2 {
				return fmt.Errorf("followed %d rows of the delete:\n%s%s", n, follow.out, follow.errOut)
			}
			return nil
		})
		if code := follow.end(t); code != term.ExitInterrupted || follow.errOut.String() != "" {
			t.Errorf("audit --follow ended with %d: %s", code, follow.errOut)
		}
	})

	t.Run("several servers", func(t *testing.T) {
		other := strings.Replace(url, "127.0.0.1", "localhost", 1)
		person := &shell{config: t.TempDir(), printed: admin.printed}
		person.signIn(t, url, "admin", adminPassword)
		person.signIn(t, other, "admin", adminPassword)
		person.has(t, []string{"server " + other}, "whoami")
		person.ok(t, "", "contexts", "use", url)
		person.has(t, []string{"server " + url}, "whoami")
		person.has(t, []string{"yes " + url + " " + url + " admin",
			"no " + other + " " + other + " admin"}, "contexts", "list")
		person.fails(t, term.ExitDenied, "not signed in to http://127.0.0.1:1", "", "contexts", "use", "http://127.0.0.1:1")
		t.Run("of the variable", func(t *testing.T) {
			t.Setenv(cli.URLVariable, "http://127.0.0.1:1")
			person.ok(t, "", "logout") // of a server without a login
			t.Setenv(cli.URLVariable, other)
			person.has(t, []string{"server " + other}, "whoami")
			person.ok(t, "", "logout")
			person.fails(t, term.ExitDenied, "not signed in to "+other, "", "whoami")
		})
		person.has(t, []string{"server " + url}, "whoami")
		person.ok(t, "", "logout")
		person.fails(t, term.ExitDenied, "not signed in", "", "whoami")
	})

	t.Run("contexts", func(t *testing.T) {
		other := strings.Replace(url, "127.0.0.1", "localhost", 1)
		person := &shell{config: t.TempDir(), printed: admin.printed}
		login := func(args ...string) {
			t.Helper()
			person.ok(t, adminPassword+"\n", append([]string{"login", "-u", "admin", "--password-stdin"}, args...)...)
		}
		contexts := func(want string) {
			t.Helper()
			var got any
			if err := json.Unmarshal([]byte(person.ok(t, "", "contexts", "list", "-o", "json")), &got); err != nil {
				t.Fatal(err)
			}
			if text, _ := json.Marshal(got); string(text) != want {
				t.Errorf("got %s, want %s", text, want)
			}
		}
		item := func(name, url string, current bool) string {
			return fmt.Sprintf(`{"current":%t,"name":%q,"url":%q,"username":"admin"}`, current, name, url)
		}
		contexts("[]")
		person.fails(t, term.ExitUsage, `"a/b"`, adminPassword, "login", url, "--name", "a/b", "-u", "admin", "--password-stdin")
		person.fails(t, term.ExitDenied, `"prod"`, "", "whoami", "--context", "prod")
		login(url, "--context", "prod")
		login(other, "--name", "second") // the older word
		login(other, "--name", "third")
		contexts("[" + item("prod", url, false) + "," + item("second", other, false) + "," + item("third", other, true) + "]")
		login("--name", "prod") // has a URL
		contexts("[" + item("prod", url, true) + "," + item("second", other, false) + "," + item("third", other, false) + "]")
		login(url) // is signed in to as prod
		contexts("[" + item("prod", url, true) + "," + item("second", other, false) + "," + item("third", other, false) + "]")

		person.has(t, []string{"server " + url}, "whoami")
		person.has(t, []string{"server " + other}, "--context", "second", "whoami")
		person.has(t, []string{"server " + url}, "whoami", "--server", url+"/")
		person.fails(t, term.ExitUsage, "second, third; choose one with --context", "", "whoami", "--server", other)
		person.fails(t, term.ExitDenied, "not signed in to http://127.0.0.1:1;", "", "whoami", "--server", "http://127.0.0.1:1")
		person.fails(t, term.ExitUsage, `--server is "nonsense"`, "", "whoami", "--server", "nonsense")
		person.fails(t, term.ExitUsage, "exclude", "", "whoami", "--server", url, "--context", "prod")
		person.fails(t, term.ExitUsage, "accepts no --server", "", "env", "--server", url)
		t.Run("and the variables", func(t *testing.T) {
			t.Setenv(cli.URLVariable, "http://127.0.0.1:1")
			t.Setenv(cli.TokenVariable, "token-of-another-server") // goes nowhere else
			person.has(t, []string{"server " + url}, "whoami", "--context", "prod")
			person.has(t, []string{"server " + url}, "whoami", "--server", url)
			person.fails(t, term.ExitFailed, "127.0.0.1:1 cannot be reached", "", "whoami")
		})
		person.ok(t, "", "contexts", "use", "second")
		person.has(t, []string{"server " + other}, "whoami", "--server", other)
		for args, want := range map[string][]string{"--context": {"prod", "second", "third"}, "--server": {url, other}} {
			out := person.ok(t, "", "__complete", "whoami", args, "")
			for _, offered := range want {
				if !strings.Contains(out, offered+"\n") {
					t.Errorf("%s offers %s, without %q", args, out, offered)
				}
			}
		}

		person.has(t, []string{"CURRENT NAME URL USER NAME", "yes second " + other + " admin"}, "contexts")
		if out := person.ok(t, "", "contexts", "--sort", "-name", "-o", "name"); out != "third\nsecond\nprod\n" {
			t.Errorf("the names are %q", out)
		}
		person.fails(t, term.ExitUsage, "are the same", "", "login", "--context", "prod", "--name", "prod")
		person.fails(t, term.ExitUsage, "given twice", "", "login", url, "--server", url)
		person.fails(t, term.ExitDenied, `"prdo" (did you mean prod?);`, "", "whoami", "--context", "prdo")
		person.fails(t, term.ExitDenied, `no login "nowhere";`, "", "contexts", "delete", "nowhere")
		for args, flags := range map[string]string{
			"contexts": "context server ca-file", "contexts list": "context server ca-file",
			"contexts use prod": "context server ca-file", "contexts delete prod": "context server",
		} {
			for flag := range strings.FieldsSeq(flags) {
				person.fails(t, term.ExitUsage, "accepts no --"+flag, "", append(strings.Fields(args), "--"+flag, url)...)
			}
		}

		person.ok(t, "", "contexts", "delete", "prod")
		contexts("[" + item("second", other, true) + "," + item("third", other, false) + "]")
		person.ok(t, "", "logout")
		contexts("[" + item("third", other, false) + "]")
		person.fails(t, term.ExitDenied, "not signed in", "", "whoami")
		person.has(t, []string{"server " + other}, "whoami", "--server", other)

		for _, remove := range []string{"contexts delete third", "logout --context third", "logout"} {
			login(other, "--context", "third")
			write(t, person.loginFile(t), "damaged")
			person.fails(t, term.ExitFailed, `login "third" is damaged; to remove it: rolecall contexts delete third`, "", "whoami")
			person.fails(t, term.ExitFailed, "damaged", "", "contexts", "use", "third")
			code, _, errOut := person.run(t, "", strings.Fields(remove)...)
			if code != 0 || !strings.Contains(errOut, `"third" was damaged`) {
				t.Errorf("%s: exit code %d: %s", remove, code, errOut)
			}
			person.fails(t, term.ExitDenied, `no login "third"`, "", "whoami", "--context", "third")
		}
	})

	t.Run("the login of an older version", func(t *testing.T) {
		person := &shell{config: t.TempDir(), printed: admin.printed}
		person.signIn(t, url, "admin", adminPassword)
		stored := read(t, person.loginFile(t))
		old := filepath.Join(person.config, "rolecall", "login.json")
		for _, text := range []string{strings.Replace(stored, `"name": "`+url+`",`, "", 1), stored} {
			if err := os.RemoveAll(filepath.Join(person.config, "rolecall", "logins")); err != nil {
				t.Fatal(err)
			}
			write(t, old, text)
			person.has(t, []string{"server " + url, "user name admin"}, "whoami")
			person.has(t, []string{"yes " + url + " .*"}, "contexts", "list")
			if _, err := os.Stat(old); err == nil {
				t.Error("the old file is still there")
			}
		}
		// It replaces no login that there is, and a damaged one is no obstacle.
		write(t, old, strings.ReplaceAll(stored, `"accessToken": "`, `"accessToken": "x`))
		person.ok(t, "", "whoami")
		write(t, old, "damaged")
		person.ok(t, "", "whoami")
		person.ok(t, "", "logout")
	})

	t.Run("removal", func(t *testing.T) {
		admin.fails(t, term.ExitUsage, "--yes", "", "clusters", "remove", "payments")
		admin.ok(t, "", "clusters", "remove", "payments", "--yes")
		admin.fails(t, term.ExitNotFound, "payments", "", "clusters", "show", "payments")
		admin.fails(t, term.ExitUsage, "--yes", "", "accounts", "delete", "alice")
		admin.ok(t, "", "accounts", "delete", "alice", "-y")
		admin.fails(t, term.ExitNotFound, "alice", "", "accounts", "show", "alice")
		alice.fails(t, term.ExitDenied, "password is wrong", "alice has another\n", "login", "-u", "alice", "--password-stdin")
		file := admin.loginFile(t)
		stored := read(t, file)
		admin.ok(t, "", "logout")
		// The tokens are no use to anybody who has copied the file.
		eventually(t, func() error {
			write(t, file, stored)
			if code, _, errOut := admin.run(t, "", "whoami", "--server", url); code != term.ExitDenied ||
				!strings.Contains(errOut, "has ended") {
				return fmt.Errorf("whoami has the exit code %d: %s", code, errOut)
			}
			return nil
		})
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		// Without the server they are removed all the same, and the command says that they are valid.
		gone := strings.Replace(file, neturl.PathEscape(url), neturl.PathEscape("http://127.0.0.1:1"), 1)
		write(t, gone, strings.ReplaceAll(stored, url, "http://127.0.0.1:1"))
		t.Run("of a server that is gone", func(t *testing.T) {
			t.Setenv(cli.URLVariable, "http://127.0.0.1:1")
			admin.fails(t, term.ExitFailed, "within 30 days", "", "logout")
		})
		if files, _ := filepath.Glob(filepath.Join(admin.config, "rolecall", "logins", "*.json")); len(files) > 0 {
			t.Errorf("the sign-in is still there after logout: %q", files)
		}
		admin.fails(t, term.ExitDenied, "rolecall login", "", "whoami")
		admin.ok(t, "", "logout")
	})

	server.end(t)
	for _, secret := range secrets {
		for name, text := range map[string]string{"a command": admin.printed.String(),
			"the server's log": server.errOut.String()} {
			if secret == "" || strings.Contains(text, secret) {
				t.Errorf("%s has written the secret %q", name, secret)
			}
		}
	}
}

// withoutHealth takes out what may differ between two looks at a cluster.
func withoutHealth(text []byte) string {
	return string(regexp.MustCompile(`"(updatedAt|lastUsedAt)":"[^"]*"`).ReplaceAll(text, nil))
}

// A server with TLS, and an authority that the system does not know.
func TestCommandLineWithTLS(t *testing.T) {
	s := newShell(t)
	flags, _ := controlDatabase(t, pgtest.Shared(t))
	if code, _, errOut := bootstrap(t, flags, "a good password"); code != 0 {
		t.Fatal(errOut)
	}
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		write(t, path, text)
		return path
	}
	authority := newAuthority(t)
	ca, _ := inPEM(t, authority)
	cert, key := inPEM(t, issue(t, authority, &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}))
	_, plain := beginServe(t, append(flags, "--public-url", "https://rolecall.example.org", "--tls-cert", file("cert", cert),
		"--tls-key", file("key", key))...)
	secure := strings.Replace(plain, "http:", "https:", 1)
	login := func(url string) []string { return []string{"login", url, "--username", "admin", "--password-stdin"} }

	s.fails(t, term.ExitFailed, "use a URL that begins with https://", "a good password\n", login(plain)...)
	t.Setenv(cli.URLVariable, plain)
	t.Setenv(cli.TokenVariable, "t")
	s.fails(t, term.ExitFailed, "use a URL that begins with https://", "", "whoami")
	t.Setenv(cli.TokenVariable, "")
	t.Setenv(cli.URLVariable, "")

	s.fails(t, term.ExitFailed, "--ca-file", "a good password\n", login(secure)...)
	for name, words := range map[string]string{filepath.Join(dir, "missing"): "no such file",
		file("text", "no PEM"): "no certificate"} {
		t.Setenv(cli.CAVariable, name)
		s.fails(t, term.ExitUsage, words, "a good password\n", login(secure)...)
	}
	other, _ := inPEM(t, newAuthority(t))
	t.Setenv(cli.CAVariable, file("other", other))
	s.fails(t, term.ExitFailed, "cannot be reached", "a good password\n", login(secure)...)
	t.Setenv(cli.CAVariable, file("ca", ca))
	s.ok(t, "a good password\n", login(secure)...)
	s.has(t, []string{"user name admin"}, "whoami")

	for _, alone := range []struct{ given, missing string }{
		{cli.ClientCertVariable, cli.ClientKeyVariable}, {cli.ClientKeyVariable, cli.ClientCertVariable},
	} {
		t.Setenv(alone.given, filepath.Join(dir, "cert"))
		t.Setenv(alone.missing, "")
		s.fails(t, term.ExitUsage, alone.missing, "", "whoami")
	}
}

// TestEveryCommandExplainsItself holds the help to having an example, and the server's commands to the exit codes.
func TestEveryCommandExplainsItself(t *testing.T) {
	var look func(path string, args []string)
	look = func(path string, args []string) {
		cmd, _, err := rootCommand().Find(args)
		if err != nil {
			t.Fatal(err)
		}
		if cmd.Name() == "help" || cmd.Name() == "completion" {
			return
		}
		if cmd.Short == "" || cmd.Example == "" && !cmd.HasSubCommands() {
			t.Errorf("%s has no example, or no short description", path)
		}
		for _, sub := range cmd.Commands() {
			look(path+" "+sub.Name(), append(slices.Clone(args), sub.Name()))
		}
	}
	for _, cmd := range rootCommand().Commands() {
		look(cmd.Name(), []string{cmd.Name()})
	}
}

func TestOtherServer(t *testing.T) {
	s := newShell(t)
	t.Setenv(cli.TokenVariable, "t")
	for answer, want := range map[string]string{"<html>": "check the URL",
		`{"items":[7]}`: "this version of rolecall cannot read"} {
		url := serveText(t, answer)
		t.Setenv(cli.URLVariable, url)
		s.fails(t, term.ExitFailed, want, "", "users", "list", "-c", "x")
	}
}

// serveText serves a text at every path.
func serveText(t *testing.T, text string) (url string) {
	t.Helper()
	l, err := listen("listen", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_,
			_ = w.Write([]byte(text))
	})}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	return "http://" + l.Addr().String()
}

// tryPsql signs in as the PG variables say.
func tryPsql(t *testing.T, v map[string]string) error {
	t.Helper()
	config, err := pgx.ParseConfig("postgres://" + v["PGHOST"] + ":" + v["PGPORT"] + "/postgres?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	config.User, config.Password = v["PGUSER"], v["PGPASSWORD"]
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		return err
	}
	return conn.Close(t.Context())
}
