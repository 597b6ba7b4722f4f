// Package e2e runs the built program and drives it as its users do: with the real Go SDK of the DBaaS API, with the
// exchanges of the other clients, with psql, with Chromium, and with kill -9.
//
// It is a module of its own, so that the clients' dependencies are not the program's. Of the program only the parser of
// label selectors is imported, to compare it with that of Kubernetes, and what starts PostgreSQL for tests.
package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	ionoscloud "github.com/ionos-cloud/sdk-go-dbaas-postgres"
	"github.com/jackc/pgx/v5/pgconn"
)

// rolecall is the path of the program. prepared is the data folder of a server that has run once: a copy of it starts
// without making a new PostgreSQL, which takes seconds. Tests that do not stop their server use shared.
var (
	rolecall string
	prepared string
	shared   *server
)

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) (code int) {
	os.Setenv("GOWORK", "off")                            // the program is built with the versions of its own go.mod
	for _, name := range []string{"GOGC", "GOMEMLIMIT"} { // of the tests, not of the program
		os.Unsetenv(name)
	}
	dir, err := os.MkdirTemp("", "rolecall-e2e-")
	if err == nil {
		defer os.RemoveAll(dir)
		// As root, PostgreSQL runs as another user, which has to pass through.
		err = os.Chmod(dir, 0o711)
	}
	if err == nil {
		rolecall = filepath.Join(dir, "rolecall")
		build := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-o", rolecall, "./cmd/rolecall")
		build.Dir = ".."
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		err = build.Run()
	}
	if err == nil {
		prepared = filepath.Join(dir, "prepared")
		var first *server
		if first, err = start(prepared); err == nil {
			err = first.stop()
		}
	}
	if err == nil {
		shared, err = startCopy(filepath.Join(dir, "data"))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer func() {
		if err := shared.stop(); err != nil {
			fmt.Fprintf(os.Stderr, "e2e: %v\n%s", err, shared.log())
			code = 1
		}
	}()
	defer stopChromium()
	return m.Run()
}

// patience is how long one step may take.
const patience = 60 * time.Second

// server is a rolecall dev that runs.
type server struct {
	dir     string
	env     map[string]string // what rolecall env prints
	process *exec.Cmd
	ended   chan struct{}
	output  *os.File
}

// start starts a server on a folder, and returns when it is ready.
func start(dir string, flags ...string) (*server, error) {
	output, err := os.OpenFile(dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	s := &server{dir: dir, ended: make(chan struct{}), output: output}
	s.process = exec.Command(rolecall, append([]string{"dev", "--listen=127.0.0.1:0", "--data-dir=" + dir, "--rate-limit=0"},
		flags...)...)
	s.process.Stdout, s.process.Stderr = output, output
	if err := s.process.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(s.ended)
		_ = s.process.Wait()
	}()
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if s.env, err = environment(dir); err == nil {
			return s, nil
		}
		select {
		case <-s.ended:
			return nil, fmt.Errorf("rolecall dev ended before it was ready:\n%s", s.log())
		default:
		}
		if time.Now().After(end) {
			return nil, errors.Join(err, s.stop())
		}
	}
}

// startCopy starts a server on a copy of prepared.
func startCopy(dir string, flags ...string) (*server, error) {
	if out, err := exec.Command("cp", "-a", prepared, dir).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("copy %s: %w: %s", prepared, err, out)
	}
	return start(dir, flags...)
}

// newServer starts a server of its own for t, and stops it when t ends.
func newServer(t *testing.T, flags ...string) *server {
	t.Helper()
	s, err := startCopy(filepath.Join(serverFolder(t), "data"), flags...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.stopFor(t) })
	return s
}

// serverFolder is a folder for the data of servers, until t ends. PostgreSQL's OS user passes through it, as through none
// that t.TempDir makes.
func serverFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "rolecall-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

// stopFor stops a server unless it has ended.
func (s *server) stopFor(t *testing.T) {
	select {
	case <-s.ended:
		return
	default:
	}
	if err := s.stop(); err != nil {
		t.Errorf("%v\n%s", err, s.log())
	}
}

// environment evaluates what rolecall env prints, as people do.
func environment(dir string) (map[string]string, error) {
	cmd := exec.Command("/bin/sh", "-euc", `settings=$("$0" env --data-dir "$1"); eval "$settings"; exec env -0`, rolecall, dir)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("rolecall env: %w: %s", err, &errOut)
	}
	env := map[string]string{}
	for entry := range strings.SplitSeq(string(out), "\x00") {
		name, value, _ := strings.Cut(entry, "=")
		env[name] = value
	}
	return env, nil
}

func (s *server) log() string {
	text, err := os.ReadFile(s.output.Name())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (s *server) signal(sig os.Signal) error {
	defer s.output.Close()
	_ = s.process.Process.Signal(sig)
	select {
	case <-s.ended:
		return nil
	case <-time.After(patience):
		return errors.New("rolecall dev did not end")
	}
}

func (s *server) stop() error {
	if err := s.signal(syscall.SIGTERM); err != nil {
		return err
	}
	if code := s.process.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("rolecall dev ended with %d", code)
	}
	return nil
}

// memory is a value of the process in /proc/PID/status, in kB.
func (s *server) memory(t *testing.T, name string) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.process.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); fields[0] == name+":" {
			kB, err := strconv.Atoi(fields[1])
			if err != nil {
				t.Fatal(err)
			}
			return kB
		}
	}
	t.Fatalf("the process has no %s", name)
	return 0
}

func (s *server) cluster() string { return s.env["ROLECALL_CLUSTER_ID"] }

// configuring is held while the SDK reads the environment of this process.
var configuring sync.Mutex

// sdk returns the SDK's client, configured by the variables of these names alone, and perhaps another URL.
func (s *server) sdk(t *testing.T, url string, names ...string) *ionoscloud.APIClient {
	t.Helper()
	configuring.Lock()
	defer configuring.Unlock()
	for _, name := range []string{"IONOS_API_URL", "IONOS_TOKEN", "IONOS_USERNAME", "IONOS_PASSWORD"} {
		os.Unsetenv(name)
	}
	os.Setenv("IONOS_API_URL", url)
	for _, name := range names {
		os.Setenv(name, s.env[name])
	}
	return ionoscloud.NewAPIClient(ionoscloud.NewConfigurationFromEnv())
}

// psql runs one statement, as the superuser unless user is given.
func (s *server) psql(user, password, database, sql string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "psql", "-XAtqw", "-v", "ON_ERROR_STOP=1", "-c", sql)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "PGCLIENTENCODING=UTF8", "PGPASSFILE=/dev/null",
		"PGHOST=" + s.env["PGHOST"], "PGPORT=" + s.env["PGPORT"], "PGUSER=" + user, "PGPASSWORD=" + password, "PGDATABASE=" +
			database}
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("psql as %s: %w: %s", user, err, &errOut)
	}
	return strings.TrimSpace(string(out)), nil
}

// query runs one statement as the superuser, and returns the rows as psql prints them.
func (s *server) query(t *testing.T, database, sql string) string {
	t.Helper()
	conn := s.connect(t, database)
	defer conn.Close(context.Background())
	return rows(t, conn, sql)
}

// connect connects as the superuser.
func (s *server) connect(t *testing.T, database string) *pgconn.PgConn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgconn.Connect(ctx, fmt.Sprintf("host=%s port=%s user=%s password=%s dbname=%s sslmode=disable",
		s.env["PGHOST"], s.env["PGPORT"], s.env["PGUSER"], s.env["PGPASSWORD"], database))
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func rows(t *testing.T, conn *pgconn.PgConn, sql string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	var lines []string
	for _, result := range results {
		for _, row := range result.Rows {
			lines = append(lines, string(bytes.Join(row, []byte("|"))))
		}
	}
	return strings.TrimSpace(strings.Join(lines, "\n"))
}

// login fails t unless the user logs in with the password, and is who it says.
func (s *server) login(t *testing.T, user, password string) {
	t.Helper()
	if got, err := s.psql(user, password, "postgres", "SELECT session_user"); err != nil || got != strings.TrimSpace(user) {
		t.Errorf("log in as %q: %q, %v", user, got, err)
	}
}

// refused fails t if the user logs in with the password.
func (s *server) refused(t *testing.T, user, password string) {
	t.Helper()
	if got, err := s.psql(user, password, "postgres", "SELECT current_user"); err == nil {
		t.Errorf("%q logs in with a password that should not work, as %q", user, got)
	}
}
