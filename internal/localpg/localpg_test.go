package localpg

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestMain also is the process that startElsewhere starts and kills.
func TestMain(m *testing.M) {
	dir, ok := os.LookupEnv("LOCALPG_TEST_DIR")
	if !ok {
		os.Exit(m.Run())
	}
	_, die := os.LookupEnv("LOCALPG_TEST_DIE")
	s, err := Start(context.Background(), Options{Dir: dir, NoSync: true, DieWithParent: die})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("postmaster", s.process.Pid)
	select {}
}

// startElsewhere starts the server of dir in another process, kills that process, and returns the postmaster's id.
func startElsewhere(t *testing.T, dir string, env ...string) (postmaster int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), "LOCALPG_TEST_DIR="+dir), env...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	cmd.Process.Kill()
	cmd.Wait()
	if _, err := fmt.Sscanf(line, "postmaster %d\n", &postmaster); err != nil {
		t.Fatalf("the other process says %q", line)
	}
	return postmaster
}

// newDir is the path of a folder that is not there yet, in one that PostgreSQL's OS user can reach.
func newDir(t *testing.T) string {
	t.Helper()
	parent, err := os.MkdirTemp("/tmp", "localpg-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(parent) })
	if err := os.Chmod(parent, 0o755); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(parent, "server")
}

func mustStart(t *testing.T, o Options) *Server {
	t.Helper()
	o.NoSync, o.DieWithParent = true, true
	s, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, s) })
	return s
}

func stop(t *testing.T, s *Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Error(err)
	}
}

func (s *Server) login(ctx context.Context, password string) (*pgx.Conn, error) {
	return pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=%s password=%s dbname=postgres sslmode=disable "+
		"require_auth=scram-sha-256",
		s.Host, s.Port, s.User, password))
}

// query runs sql in a session of its own.
func query(t *testing.T, s *Server, sql string) (answer string) {
	t.Helper()
	conn, err := s.login(t.Context(), s.Password)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.QueryRow(t.Context(), sql).Scan(&answer); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		t.Fatalf("%s: %v", sql, err)
	}
	return answer
}

func TestStart(t *testing.T) {
	for _, name := range []string{"PGDATA", "PGPORT", "PGOPTIONS", "LC_ALL", "LANG", "TZ"} {
		t.Setenv(name, "/nonsense")
	}
	dir := newDir(t)
	s := mustStart(t, Options{Dir: dir, Settings: map[string]string{"work_mem": "5MB"}})
	os.Unsetenv("PGPORT")
	os.Unsetenv("PGOPTIONS")

	if conn, err := s.login(t.Context(), "wrong"); err == nil {
		conn.Close(t.Context())
		t.Error("a wrong password is let in")
	}
	for sql, want := range map[string]string{
		"SELECT current_user": "postgres",
		"SELECT rolsuper::text FROM pg_roles WHERE rolname='postgres'": "true",
		"SHOW server_encoding":         "UTF8",
		"SHOW data_checksums":          "on",
		"SHOW password_encryption":     "scram-sha-256",
		"SHOW listen_addresses":        "127.0.0.1",
		"SHOW unix_socket_directories": "",
		"SHOW work_mem":                "5MB",
		"SHOW timezone":                "UTC",
		"SHOW server_version_num":      strconv.Itoa(s.Major),
	} {
		got := query(t, s, sql)
		if sql == "SHOW server_version_num" {
			got = got[:2]
		}
		if got != want {
			t.Errorf("%s is %q, want %q", sql, got, want)
		}
	}
	if group, err := syscall.Getpgid(s.process.Pid); err != nil || group == syscall.Getpgrp() {
		t.Errorf("the server is in process group %d, which Ctrl-C reaches (%v)", group, err)
	}
	for path, want := range map[string]os.FileMode{dir: 0o711, dir + "/pg.password": 0o600, dir + "/pg.log": 0o600,
		s.DataDir: 0o700} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if beyond := info.Mode().Perm() &^ want; beyond != 0 {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
	}
	if left, _ := filepath.Glob(dir + "/pg.new-*"); left != nil {
		t.Errorf("%s is left", left)
	}

	query(t, s, "CREATE TABLE kept AS SELECT 'still here' AS what")
	stop(t, s)
	select {
	case <-s.Done():
	default:
		t.Error("Done is open after Stop")
	}
	stop(t, s)

	begin := time.Now()
	again := mustStart(t, Options{Dir: dir})
	t.Logf("the second start took %v", time.Since(begin))
	if again.Port != s.Port || again.Password != s.Password || again.DataDir != s.DataDir {
		t.Errorf("the second start gives %+v, the first %+v", again, s)
	}
	if got := query(t, again, "SELECT what FROM kept"); got != "still here" {
		t.Errorf("the data are %q", got)
	}
	stop(t, again)

	l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", s.Port))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	moved := mustStart(t, Options{Dir: dir})
	if moved.Port == s.Port {
		t.Error("the server claims a port that another process has")
	}
	query(t, moved, "SELECT what FROM kept")
}

func TestStartAfterKill(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	postmaster := startElsewhere(t, dir)
	if !(pidFile{pid: postmaster}).runs(dir + "/pg") {
		t.Fatal("the server ended with the process that started it")
	}
	link := dir + "-link"
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	s := mustStart(t, Options{Dir: link})
	if (pidFile{pid: postmaster}).runs(dir + "/pg") {
		t.Error("the old server still runs")
	}
	query(t, s, "CREATE TABLE kept AS SELECT 'still here' AS what")
	stop(t, s)

	// One that is just shutting down.
	postmaster = startElsewhere(t, dir)
	if err := syscall.Kill(postmaster, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	s = mustStart(t, Options{Dir: dir})
	if got := query(t, s, "SELECT what FROM kept"); got != "still here" {
		t.Errorf("the data are %q", got)
	}
}

func TestStartAfterKilledPostmaster(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	s := mustStart(t, Options{Dir: dir})
	query(t, s, "CREATE TABLE kept AS SELECT 'still here' AS what")
	for range 3 {
		conn, err := s.login(t.Context(), s.Password)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
	}
	s.process.Kill()
	<-s.Done()
	s = mustStart(t, Options{Dir: dir})
	if got := query(t, s, "SELECT what FROM kept"); got != "still here" {
		t.Errorf("the data are %q", got)
	}
	stop(t, s)

	// The number in a stale pid file may by now be another process's.
	other := exec.Command("sleep", "60")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()
	defer other.Process.Kill()
	pidfile := fmt.Sprintf("%d\n%s\n", other.Process.Pid, s.DataDir)
	if err := os.WriteFile(s.DataDir+"/postmaster.pid", []byte(pidfile), 0o600); err != nil {
		t.Fatal(err)
	}
	mustStart(t, Options{Dir: dir})
	if err := other.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the other process: %v", err)
	}
}

// pgCtl runs pg_ctl as the owner of the data.
func pgCtl(t *testing.T, s *Server, args ...string) {
	t.Helper()
	cmd := s.folder.account.command(t.Context(), filepath.Join(s.BinDir, "pg_ctl"),
		append(args, "-D", s.DataDir, "-l", filepath.Join(s.DataDir, "pg_ctl.log"))...)
	cmd.Dir = s.DataDir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("pg_ctl %q: %v: %s", args, err, out)
	}
}

// restart restarts a server that has ended. started is the process of another server that runs on the data, or 0.
func restart(t *testing.T, s *Server, started int) *Server {
	t.Helper()
	again, err := s.Restart(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, again) })
	if again.Port != s.Port || again.Password != s.Password {
		t.Errorf("the server has the port %d, want %d", again.Port, s.Port)
	}
	if kept := again.process.Pid == started; kept != (started != 0) {
		t.Errorf("the server is the process %d; the other one was %d", again.process.Pid, started)
	}
	if got := query(t, again, "SELECT what FROM kept"); got != "still here" {
		t.Errorf("the data are %q", got)
	}
	return again
}

func TestRestart(t *testing.T) {
	t.Parallel()
	s := mustStart(t, Options{Dir: newDir(t)})
	query(t, s, "CREATE TABLE kept AS SELECT 'still here' AS what")
	running := func() pidFile {
		t.Helper()
		p, err := readPIDFile(s.DataDir)
		if err != nil || !p.runs(s.DataDir) {
			t.Fatalf("no server runs: %v", err)
		}
		return p
	}

	s.process.Kill()
	<-s.Done()
	s = restart(t, s, 0)

	// Another process has started one: in time, once more, and with settings of its own, which then has no -D.
	for _, args := range [][]string{{"restart"}, {"restart"}, {"restart", "-o", fmt.Sprintf("-p %d -k ''", s.Port)},
		{"restart"}} {
		pgCtl(t, s, "stop", "-m", "immediate")
		<-s.Done()
		pgCtl(t, s, args...)
		s = restart(t, s, running().pid)
	}
	stop(t, s)
	if _, err := readPIDFile(s.DataDir); err == nil {
		t.Error("the server of the other process runs after Stop")
	}

	// One at another port is not the server that clients know.
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	pgCtl(t, s, "restart", "-o", fmt.Sprintf("-p %d -k ''", port))
	elsewhere := running()
	s = restart(t, s, 0)
	if elsewhere.runs(s.DataDir) {
		t.Error("the server at another port still runs")
	}

	// Without its port there is no server.
	stop(t, s)
	taken, err := net.Listen("tcp4", net.JoinHostPort(s.Host, fmt.Sprint(s.Port)))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if again, err := s.Restart(t.Context()); err == nil {
		stop(t, again)
		t.Error("a server without its port was restarted")
	}
}

// A server without -D is that of the folder that its pid file is about, and has started when the file says so.
func TestServerOfAPIDFile(t *testing.T) {
	t.Parallel()
	s := mustStart(t, Options{Dir: newDir(t)})
	other := mustStart(t, Options{Dir: newDir(t)})
	query(t, s, "CREATE TABLE kept AS SELECT 'still here' AS what")
	stop(t, s)
	pgCtl(t, s, "restart", "-o", fmt.Sprintf("-p %d -k ''", s.Port))
	p, err := readPIDFile(s.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	restart(t, s, p.pid)
	if p.runs(other.DataDir) {
		t.Error("the server is recognized from a copy of its folder")
	}
	for _, by := range []time.Duration{-time.Minute, time.Minute} {
		old := p
		old.started = old.started.Add(by)
		if old.runs(s.DataDir) {
			t.Errorf("a server is recognized that has started %s earlier than the file says", by)
		}
	}
}

func TestDieWithParent(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	postmaster := startElsewhere(t, dir, "LOCALPG_TEST_DIE=1")
	p := pidFile{pid: postmaster}
	if err := wait(t.Context(), 10*time.Second, func() bool { return !p.runs(dir + "/pg") }); err != nil {
		t.Fatal(err)
	}
	if p.runs(dir + "/pg") {
		syscall.Kill(postmaster, syscall.SIGKILL)
		t.Error("the server outlives the process that started it")
	}
}

func TestStartedTwice(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	s := mustStart(t, Options{Dir: dir})
	if _, err := Start(t.Context(), Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), dir+" is in use") {
		t.Errorf("the second start says %v", err)
	}
	query(t, s, "SELECT ''")
	go s.Stop(context.Background())
	mustStart(t, Options{Dir: dir})
}

func TestStopAtOnce(t *testing.T) {
	t.Parallel()
	s := mustStart(t, Options{Dir: newDir(t)})
	now, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Stop(now); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-s.Done()
}

func TestFolderOutOfReach(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Log("only root runs PostgreSQL as somebody else, who may not reach the folder")
		return
	}
	dir := filepath.Join(t.TempDir(), "server") // below a folder that only root can pass
	s := mustStart(t, Options{Dir: dir})
	home := filepath.Dir(s.DataDir)
	t.Cleanup(func() {
		os.RemoveAll(home)
		os.Remove(elsewhereRoot) // when it is empty
	})
	if !strings.HasPrefix(home, elsewhereRoot+"/") {
		t.Errorf("the data are in %s", s.DataDir)
	}
	stop(t, s)
	again := mustStart(t, Options{Dir: dir})
	if again.DataDir != s.DataDir || again.Port != s.Port {
		t.Errorf("the second start gives %+v, the first %+v", again, s)
	}
	query(t, again, "SELECT ''")
	stop(t, again)
	os.RemoveAll(home)
	if s, err := Start(t.Context(), Options{Dir: dir}); err == nil {
		stop(t, s)
		t.Error("the data is missing, and a new server silently replaces it")
	}
}

func TestCanceledStartDecidesNothing(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	now, cancel := context.WithCancel(t.Context())
	cancel()
	s, err := Start(now, Options{Dir: dir})
	if err == nil {
		stop(t, s)
		t.Fatal("Start took no notice of its context")
	}
	if strings.Contains(err.Error(), "root") {
		t.Errorf("a canceled start blames the rights of an OS user: %v", err)
	}
	if link, err := os.Readlink(filepath.Join(dir, "pg.elsewhere")); err == nil {
		os.RemoveAll(link)
		t.Errorf("a canceled start has put the data of a folder that can be reached into %s", link)
	}
}

func TestInterruptedInitdb(t *testing.T) {
	t.Parallel()
	dir := newDir(t)
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	if s, err := Start(ctx, Options{Dir: dir}); err == nil {
		stop(t, s)
		t.Fatal("150 ms were enough to make a cluster: the test needs a shorter time")
	}
	for _, pattern := range []string{"/pg", "/pg.new-*"} {
		if left, _ := filepath.Glob(dir + pattern); left != nil {
			t.Errorf("%s is left", left)
		}
	}
	// What kill -9 leaves.
	if err := os.MkdirAll(dir+"/pg.new-1/data/base", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/pg.password", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	query(t, mustStart(t, Options{Dir: dir}), "SELECT ''")
	if left, _ := filepath.Glob(dir + "/pg.new-*"); left != nil {
		t.Errorf("%s is left", left)
	}
}

func TestStartFailures(t *testing.T) {
	t.Parallel()
	file := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	old, foreign, empty, wrong := newDir(t), newDir(t), newDir(t), newDir(t)
	file(old+"/pg/PG_VERSION", "11\n")
	file(foreign+"/pg/letter.txt", "Dear reader")
	for name, tc := range map[string]struct {
		o    Options
		want []string
	}{
		"data of a major that is not installed": {Options{Dir: old},
			[]string{old + "/pg was created by PostgreSQL 11", "apt-get install postgresql-11"}},
		"a folder of something else": {Options{Dir: foreign}, []string{foreign + "/pg contains no PostgreSQL data"}},
		"no server in --pg-bin": {Options{Dir: empty, BinDir: "/etc"},
			[]string{"/etc does not contain PostgreSQL's server"}},
		"a setting that PostgreSQL refuses": {Options{Dir: wrong, NoSync: true,
			Settings: map[string]string{"shared_preload_libraries": "nonsense"}},
			[]string{wrong + "/pg.log", `could not access file "nonsense"`}},
	} {
		s, err := Start(t.Context(), tc.o)
		if err == nil {
			stop(t, s)
			t.Errorf("%s: the server starts", name)
			continue
		}
		for _, want := range tc.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: the error lacks %q: %v", name, want, err)
			}
		}
	}
	if _, err := os.Stat(empty); err == nil {
		t.Error("a start without a server leaves a folder")
	}
}
