package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	consolePassword = "password of the console"
	lookupPassword  = "password of the lookup"
)

// TestPgBouncerAuthFile logs in through a PgBouncer that has its passwords out of a file.
func TestPgBouncerAuthFile(t *testing.T) {
	t.Parallel()
	const name, first, second = `file "of" passwords`, "a first password", "a second password"
	b := shared.pgbouncer(t, "")
	refresh := func() {
		t.Helper()
		b.userlist(t, shared.cli(t, "", "clusters", "userlist", "local"))
		b.console(t, "RELOAD")
	}
	shared.cli(t, first, "users", "create", name, "-c", "local", "--password-stdin")
	b.refused(t, name, first)
	refresh()
	b.login(t, name, first)
	b.refused(t, name, second)

	shared.cli(t, second, "users", "passwd", name, "-c", "local", "--password-stdin")
	b.refused(t, name, second)
	refresh()
	b.login(t, name, second)
	b.refused(t, name, first)
	b.console(t, "RECONNECT")
	b.login(t, name, second)

	shared.cli(t, "", "users", "delete", name, "-c", "local", "--yes")
	refresh()
	b.refused(t, name, second)
	// The administering role may log in, and is in no list.
	if list := shared.cli(t, "", "clusters", "userlist", "local"); strings.Contains(list, "rolecall") ||
		strings.Contains(list, "postgres") {
		t.Errorf("the list has protected roles:\n%s", list)
	}
}

// TestPgBouncerAuthQuery logs in through a PgBouncer that asks for passwords, with the SQL and the settings that the
// documents give.
func TestPgBouncerAuthQuery(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	sql := documented(t, "sql")
	s.query(t, "postgres", strings.ReplaceAll(sql[0], "…", lookupPassword))
	s.query(t, "postgres", sql[1])
	var settings string
	for line := range strings.Lines(documented(t, "ini")[0]) {
		if !strings.HasPrefix(line, "auth_file") {
			settings += line
		}
	}
	b := s.pgbouncer(t, settings)
	b.userlist(t, fmt.Sprintf("%q %q\n", "pgbouncer", lookupPassword))
	b.console(t, "RELOAD")

	const name, first, second = `it's "quoted"`, "a first password", "a second password"
	b.refused(t, name, first)
	s.cli(t, first, "users", "create", name, "-c", "local", "--password-stdin")
	b.login(t, name, first)
	b.refused(t, name, second)
	s.cli(t, second, "users", "passwd", name, "-c", "local", "--password-stdin")
	b.login(t, name, second)
	b.refused(t, name, first)
	b.console(t, "RECONNECT")
	b.login(t, name, second)

	// A lease logs in at once, and no longer when it has ended.
	var lease struct{ ID, Username, Password string }
	out := s.cli(t, "", "leases", "create", "-c", "local", "--for", name, "-o", "json") // and a sentence for people
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&lease); err != nil {
		t.Fatal(err)
	}
	b.login(t, lease.Username, lease.Password)
	s.cli(t, "", "leases", "end", lease.ID)
	b.refused(t, lease.Username, lease.Password)

	s.cli(t, "", "users", "set", name, "-c", "local", "--valid-until", "2020-01-01T00:00:00Z")
	b.refused(t, name, second)
	s.cli(t, "", "users", "set", name, "-c", "local", "--valid-until", "never")
	b.login(t, name, second)
	s.query(t, "postgres", `CREATE SCHEMA owned AUTHORIZATION "it's ""quoted"""`)
	s.cli(t, "", "users", "delete", name, "-c", "local", "--yes", "--on-blocked", "disable")
	b.refused(t, name, second)
	s.cli(t, first, "users", "passwd", name, "-c", "local", "--password-stdin")
	b.login(t, name, first)
	s.query(t, "postgres", `DROP SCHEMA owned`)
	s.cli(t, "", "users", "delete", name, "-c", "local", "--yes")
	b.refused(t, name, first)

	// Protected roles do not come through it, by whatever makes them so, and nobody else asks it.
	s.query(t, "postgres", `CREATE ROLE plain LOGIN PASSWORD 'plain password'`)
	b.login(t, "plain", "plain password")
	b.refused(t, s.env["PGUSER"], s.env["PGPASSWORD"])
	for _, protected := range []string{s.env["PGUSER"], "pgbouncer", "rolecall", "rolecall_admin"} {
		if got := s.lookup(t, protected); got != "" {
			t.Errorf("the verifier of %s: %s", protected, got)
		}
	}
	for attribute, sql := range map[string]string{
		"CREATEROLE":  `ALTER ROLE plain %sCREATEROLE`,
		"BYPASSRLS":   `ALTER ROLE plain %sBYPASSRLS`,
		"REPLICATION": `ALTER ROLE plain %sREPLICATION`,
	} {
		s.query(t, "postgres", fmt.Sprintf(sql, ""))
		if got := s.lookup(t, "plain"); got != "" {
			t.Errorf("with %s: %s", attribute, got)
		}
		s.query(t, "postgres", fmt.Sprintf(sql, "NO"))
	}
	s.query(t, "postgres", `CREATE ROLE between NOINHERIT IN ROLE pg_read_server_files`)
	s.query(t, "postgres", `GRANT between TO plain`)
	if got := s.lookup(t, "plain"); got != "" {
		t.Errorf("a member of pg_read_server_files: %s", got)
	}
	s.query(t, "postgres", `REVOKE between FROM plain`)
	if got := s.lookup(t, "plain"); !strings.HasPrefix(got, "plain|SCRAM-SHA-256$") {
		t.Errorf("got %q", got)
	}
	if _, err := s.psql("plain", "plain password", "postgres", `SELECT * FROM pgbouncer.lookup('plain')`); err == nil {
		t.Error("anybody may look up verifiers")
	}
	for line := range strings.Lines(documented(t, "sh")[1]) {
		s.cli(t, "", strings.Fields(strings.ReplaceAll(line, " shop ", " local "))[1:]...)
	}
	if out, err := s.try("another password", "users", "passwd", "pgbouncer", "-c", "local", "--password-stdin"); err == nil ||
		!strings.Contains(out, "system user") {
		t.Errorf("the password of pgbouncer can be changed: %s", out)
	}
}

// TestPgBouncerRefused registers a cluster by way of a PgBouncer, which is refused in words that name what is wrong.
func TestPgBouncerRefused(t *testing.T) {
	t.Parallel()
	const role, password = "through_a_pooler", "a password through a pooler"
	shared.query(t, "postgres", fmt.Sprintf(`CREATE ROLE %s LOGIN CREATEROLE PASSWORD '%s'`, role, password))
	for name, settings := range map[string]string{
		"as it is": "",
		"ignoring what it does not know": "ignore_startup_parameters = search_path, jit, lock_timeout, statement_timeout, " +
			"idle_in_transaction_session_timeout\n",
	} {
		for _, mode := range []string{"session", "transaction", "statement"} {
			t.Run(name+", "+mode, func(t *testing.T) {
				b := shared.pgbouncer(t, settings+"pool_mode = "+mode+"\n")
				b.userlist(t, fmt.Sprintf("%q %q\n", role, password))
				b.console(t, "RELOAD")
				b.login(t, role, password)
				for range 2 { // the second gets a session of the first
					out, err := shared.try(password, "clusters", "register", "pooled", "--password-stdin", "--tls-mode", "disable",
						"--url", fmt.Sprintf("postgres://%s@127.0.0.1:%s/postgres", role, b.env["PGPORT"]))
					if err == nil || !strings.Contains(out, "pooler, such as PgBouncer") ||
						!strings.Contains(out, "needs a direct connection") {
						t.Errorf("got %v: %s", err, out)
					}
				}
			})
		}
	}
}

// TestPgBouncerBeforeTheControlDatabase starts a server whose control database is behind a PgBouncer. It ends at once, says
// why, and leaves the database alone.
func TestPgBouncerBeforeTheControlDatabase(t *testing.T) {
	t.Parallel()
	const role, password = "control_through_a_pooler", "control-through-a-pooler"
	shared.query(t, "postgres", fmt.Sprintf(`CREATE ROLE %s LOGIN PASSWORD '%s'`, role, password))
	shared.query(t, "postgres", `CREATE DATABASE pooled_control OWNER `+role)
	key := filepath.Join(t.TempDir(), "master.key")
	if err := os.WriteFile(key, []byte(strings.Repeat("A", 43)+"=\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, settings := range map[string]string{
		"as it is": "",
		"ignoring what it does not know": "ignore_startup_parameters = search_path, lock_timeout, statement_timeout, " +
			"idle_in_transaction_session_timeout, idle_session_timeout, default_transaction_isolation, tcp_keepalives_idle, " +
			"tcp_keepalives_interval, tcp_keepalives_count\n",
	} {
		for _, mode := range []string{"session", "transaction", "statement"} {
			t.Run(name+", "+mode, func(t *testing.T) {
				b := shared.pgbouncer(t, settings+"pool_mode = "+mode+"\n")
				b.userlist(t, fmt.Sprintf("%q %q\n", role, password))
				b.console(t, "RELOAD")
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				cmd := exec.CommandContext(ctx, rolecall, "serve", "--listen=127.0.0.1:0", "--metrics-listen=",
					"--public-url=http://127.0.0.1:1", "--master-key-file="+key)
				cmd.Env = []string{"PATH=" + os.Getenv("PATH"), fmt.Sprintf(
					"ROLECALL_DATABASE_URL=postgres://%s:%s@127.0.0.1:%s/pooled_control", role, password, b.env["PGPORT"])}
				out, err := cmd.CombinedOutput()
				if err == nil || ctx.Err() != nil || !strings.Contains(string(out), "pooler, such as PgBouncer") ||
					!strings.Contains(string(out), "needs a direct connection") || strings.Contains(string(out), password) {
					t.Errorf("got %v: %s", err, out)
				}
			})
		}
	}
	if made := shared.query(t, "pooled_control", `SELECT count(*) FROM pg_namespace WHERE nspname = 'rolecall'`); made != "0" {
		t.Errorf("%s schemas were created", made)
	}
}

// documented returns the code of a language in docs/pgbouncer.md.
func documented(t *testing.T, language string) (blocks []string) {
	t.Helper()
	text, err := os.ReadFile("../docs/pgbouncer.md")
	if err != nil {
		t.Fatal(err)
	}
	section := string(text)
	for {
		_, rest, found := strings.Cut(section, "```"+language+"\n")
		if !found {
			break
		}
		var code string
		code, section, _ = strings.Cut(rest, "```")
		blocks = append(blocks, code)
	}
	if len(blocks) == 0 {
		t.Fatalf("there is no %s", language)
	}
	return blocks
}

// lookup asks the documented function as PgBouncer does.
func (s *server) lookup(t *testing.T, name string) string {
	t.Helper()
	got, err := s.psql("pgbouncer", lookupPassword, "postgres", `SELECT username, verifier FROM pgbouncer.lookup('`+name+`')`)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// try runs the command line against the server.
func (s *server) try(stdin string, args ...string) (out string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, rolecall, args...)
	cmd.Env = []string{"ROLECALL_URL=" + s.env["ROLECALL_URL"], "ROLECALL_TOKEN=" + s.env["IONOS_TOKEN"]}
	cmd.Stdin = strings.NewReader(stdin)
	text, err := cmd.CombinedOutput()
	return string(text), err
}

// cli runs a command that has to succeed, and returns what it prints.
func (s *server) cli(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	out, err := s.try(stdin, args...)
	if err != nil {
		t.Fatalf("rolecall %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

// bouncer is a PgBouncer before a server's PostgreSQL. Logins of the embedded server go through it.
type bouncer struct {
	*server
	file string // the auth_file
}

// pgbouncer starts a PgBouncer, with further settings, for the length of t.
func (s *server) pgbouncer(t *testing.T, settings string) *bouncer {
	t.Helper()
	dir, err := os.MkdirTemp("", "rolecall-pgbouncer-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	through := *s
	through.env = maps.Clone(s.env)
	b := &bouncer{&through, filepath.Join(dir, "userlist.txt")}
	b.userlist(t, "")
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		program = "/usr/sbin/pgbouncer" // where Debian has it, and only root's PATH leads
	}
	// It refuses to run as root.
	attributes := &syscall.SysProcAttr{}
	if os.Geteuid() == 0 {
		attributes.Credential = nobody(t)
	}
	// Between the look for a free port and PgBouncer's bind somebody else may have taken it.
	var log bytes.Buffer
	for range 5 {
		b.env["PGPORT"] = freePort(t)
		b.write(t, filepath.Join(dir, "pgbouncer.ini"),
			fmt.Sprintf("[databases]\n* = host=127.0.0.1 port=%s\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %s\n"+
				"unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = %s\nadmin_users = console\n%s", s.env["PGPORT"],
				b.env["PGPORT"], b.file, settings))
		log.Reset()
		cmd := exec.Command(program, filepath.Join(dir, "pgbouncer.ini"))
		cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = &log, &log, attributes
		if err := cmd.Start(); err != nil {
			t.Fatalf("%v; run scripts/install-pgbouncer", err)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = cmd.Wait()
		}()
		stop := func() {
			_ = cmd.Process.Kill()
			<-ended
		}
		for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if _, err := b.psql("console", consolePassword, "pgbouncer", "SHOW VERSION"); err == nil {
				t.Cleanup(func() {
					stop()
					if t.Failed() {
						t.Logf("PgBouncer's log:\n%s", &log)
					}
				})
				return b
			}
			select {
			case <-ended:
				end = time.Now()
			default:
			}
		}
		stop()
	}
	t.Fatalf("PgBouncer does not start:\n%s", &log)
	return nil
}

// userlist replaces the auth_file. PgBouncer takes a file for the one that it knows when its inode, its size and the
// second of its last change are the same, and verifiers are all of one length.
func (b *bouncer) userlist(t *testing.T, lines string) {
	t.Helper()
	b.write(t, b.file+".new", fmt.Sprintf("%q %q\n%s", "console", consolePassword, lines))
	if err := os.Rename(b.file+".new", b.file); err != nil {
		t.Fatal(err)
	}
}

// write writes a file for PgBouncer's eyes only.
func (b *bouncer) write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		return
	}
	for _, p := range []string{filepath.Dir(path), path} {
		if err := os.Chown(p, int(nobody(t).Uid), int(nobody(t).Gid)); err != nil {
			t.Fatal(err)
		}
	}
}

// console runs a command in PgBouncer's own console.
func (b *bouncer) console(t *testing.T, command string) {
	t.Helper()
	if _, err := b.psql("console", consolePassword, "pgbouncer", command); err != nil {
		t.Fatal(err)
	}
}

func nobody(t *testing.T) *syscall.Credential {
	t.Helper()
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
	if uidErr != nil || gidErr != nil {
		t.Fatal(uidErr, gidErr)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}
