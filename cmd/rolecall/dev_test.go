package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"rolecall/internal/cli/term"
	"rolecall/internal/dev"
	"rolecall/internal/localpg"
	"rolecall/internal/server"
)

// beginDev starts a local server in this process and waits until it is ready.
func beginDev(t *testing.T, dir string, args ...string) (p *program, url string) {
	t.Helper()
	p = begin(t, append([]string{"dev", "--listen", "127.0.0.1:0", "--data-dir", dir}, args...)...)
	return p, p.readyAt(t)
}

func beginDevProcess(t *testing.T, dir string, env ...string) (p *program, url string) {
	t.Helper()
	p = beginProcess(t, env, "dev", "--listen", "127.0.0.1:0", "--data-dir", dir)
	return p, p.readyAt(t)
}

// preparedPassword is the password of admin in every prepared folder.
const preparedPassword = "the admin's secret"

var prepared struct {
	once sync.Once
	dir  string
	err  error
}

// prepare makes a data folder as the first start leaves it, once for all tests of this process.
func prepare() {
	parent, err := os.MkdirTemp("", "rolecall-test-")
	if err != nil {
		prepared.err = err
		return
	}
	prepared.dir = filepath.Join(parent, "data")
	if prepared.err = os.Chmod(parent, 0o711); prepared.err != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	config := dev.Config{
		Server: server.Config{
			PublicURL:    "http://127.0.0.1",
			PasswordCost: passwordCost,
			Log:          slog.New(slog.DiscardHandler),
		},
		DataDir:       prepared.dir,
		AdminPassword: preparedPassword,
	}
	if config.Server.Listener, prepared.err = listen("listen", "127.0.0.1:0"); prepared.err == nil {
		prepared.err = dev.Run(ctx, config, writerFunc(cancel)) // it prints when it is ready
	}
	for _, name := range []string{"lock", "postgresql/pg.lock", "postgresql/pg.log", "postgresql/pg.port"} {
		prepared.err = errors.Join(prepared.err, os.Remove(filepath.Join(prepared.dir, name)))
	}
}

// writerFunc is called with every write.
type writerFunc func()

func (f writerFunc) Write(data []byte) (int, error) {
	f()
	return len(data), nil
}

func removePrepared() {
	if prepared.dir != "" {
		os.RemoveAll(filepath.Dir(prepared.dir))
	}
}

// preparedFolder returns a copy of a data folder whose first start is over.
func preparedFolder(t *testing.T) string {
	t.Helper()
	prepared.once.Do(prepare)
	if prepared.err != nil {
		t.Fatal(prepared.err)
	}
	dir := newFolder(t)
	if out, err := exec.Command("cp", "-a", "--reflink=auto", prepared.dir, dir).CombinedOutput(); err != nil {
		t.Fatalf("copy the prepared folder: %v: %s", err, out)
	}
	return dir
}

func (p *program) readyAt(t *testing.T) (url string) {
	t.Helper()
	_, line, _ := strings.Cut(p.awaits(t, p.out, "eval "), "Rolecall is ready at ")
	url, _, _ = strings.Cut(line, "\n")
	return url
}

// variables evaluates what rolecall env prints, with a real sh.
func variables(t *testing.T, dir string) map[string]string {
	t.Helper()
	code, out, errOut := execute(t, "", "env", "--data-dir", dir)
	if code != 0 {
		t.Fatalf("rolecall env: exit code %d: %s", code, errOut)
	}
	cmd := exec.Command("/bin/sh", "-euc", `eval "$1"; exec env -0`, "sh", out)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	evaluated, err := cmd.Output()
	if err != nil {
		t.Fatalf("sh cannot evaluate what rolecall env prints: %v", err)
	}
	values := map[string]string{}
	for entry := range strings.SplitSeq(string(evaluated), "\x00") {
		name, value, _ := strings.Cut(entry, "=")
		values[name] = value
	}
	return values
}

// envNames are what rolecall env prints, in this order.
var envNames = []string{
	"ROLECALL_URL", "ROLECALL_TOKEN", "ROLECALL_CLUSTER_ID",
	"IONOS_API_URL", "IONOS_USERNAME", "IONOS_PASSWORD", "IONOS_TOKEN",
	"CF_API_URL", "CF_USERNAME", "CF_USER", "CF_PASSWORD",
	"PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE",
}

func TestDev(t *testing.T) {
	t.Parallel()
	dir := newFolder(t)
	first, url := beginDev(t, dir)
	if code, out, _ := execute(t, "", "env", "--data-dir", dir); code != 0 {
		t.Errorf("rolecall env: exit code %d", code)
	} else {
		line := regexp.MustCompile(`(?m)^export ([A-Z_]+)='[^']*'\n`)
		var names []string
		for _, m := range line.FindAllStringSubmatch(out, -1) {
			names = append(names, m[1])
		}
		if !slices.Equal(names, envNames) || line.ReplaceAllString(out, "") != "" {
			t.Errorf("rolecall env prints %q, want one export line each of %q", out, envNames)
		}
	}
	v := variables(t, dir)
	for name, want := range map[string]string{
		"ROLECALL_URL": url, "IONOS_API_URL": url, "CF_API_URL": url,
		"IONOS_USERNAME": "admin", "CF_USERNAME": "admin", "CF_USER": "admin", "CF_PASSWORD": v["IONOS_PASSWORD"],
		"PGHOST": "127.0.0.1", "PGUSER": "postgres", "PGDATABASE": "postgres",
	} {
		if v[name] != want {
			t.Errorf("%s is %q, want %q", name, v[name], want)
		}
	}
	if id := v["ROLECALL_CLUSTER_ID"]; !regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`).MatchString(id) {
		t.Errorf("ROLECALL_CLUSTER_ID is %q, want a lower-case UUID", id)
	}
	// What can be done in the local cluster is known from the first moment on.
	if r := get(t, url+"/rolecall/v1/clusters/"+v["ROLECALL_CLUSTER_ID"],
		"Bearer "+v["IONOS_TOKEN"]); !strings.Contains(r.body, `"superuser":true`) || !strings.Contains(r.body, `"problems":[]`) {
		t.Errorf("the local cluster: %d %s", r.status, r.body)
	}
	if again := variables(t, dir); again["IONOS_TOKEN"] == v["IONOS_TOKEN"] {
		t.Error("two calls of rolecall env print the same token")
	}

	// Beside a server of another release, rolecall env leaves the schema to that.
	control := maps.Clone(v)
	control["PGDATABASE"] = "rolecall"
	const migration = `FROM rolecall.migrations WHERE version = (SELECT max(version) FROM rolecall.migrations)`
	psql(t, control, `INSERT INTO rolecall.migrations (version, name) SELECT version + 1, 'newer' `+migration)
	if code, out, errOut := execute(t, "", "env", "--data-dir", dir); code != term.ExitFailed || out != "" ||
		!isSentence(errOut) || !strings.Contains(errOut, "its schema is of a newer release") {
		t.Errorf("rolecall env of another release: exit code %d, printed %q and %q", code, out, errOut)
	}
	psql(t, control, `DELETE `+migration)

	// Everything that was printed works.
	users := url + "/databases/postgresql/clusters/" + v["ROLECALL_CLUSTER_ID"] + "/users"
	bearer, basic := "Bearer "+v["IONOS_TOKEN"], basicAuth("admin", v["IONOS_PASSWORD"])
	created := request(t, http.DefaultClient, http.MethodPost, users, bearer,
		`{"properties":{"username":"kept","password":"correct horse"}}`)
	if created.status != http.StatusOK {
		t.Fatalf("POST users with the token: %d %s", created.status, created.body)
	}
	if r := get(t, users+"/kept", basic); r.status != http.StatusOK {
		t.Errorf("GET the user with the password: %d %s", r.status, r.body)
	}
	if super := psql(t, v, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"); super != "t" {
		t.Errorf("psql with the PG variables says superuser: %q, want t", super)
	}
	if r := get(t, url+"/docs", ""); r.status != http.StatusOK {
		t.Errorf("GET /docs: %d", r.status)
	}
	for _, path := range []string{"/metrics", "/debug/pprof/", "/debug/pprof/heap"} {
		if r := get(t, url+path, basic); r.status != http.StatusNotFound {
			t.Errorf("GET %s on the public listener: %d, want 404", path, r.status)
		}
	}

	checkModes(t, dir)
	if got := read(t, filepath.Join(dir, ".gitignore")); got != "*\n" {
		t.Errorf("a repository around the data folder ignores %q of it, want everything", got)
	}
	if code, _, errOut := execute(t, "", "dev", "--listen", "127.0.0.1:0", "--data-dir", dir); code != term.ExitFailed ||
		!isSentence(errOut) || !strings.Contains(errOut, "another rolecall dev is running on "+dir) ||
		!strings.Contains(errOut, "--data-dir") {
		t.Errorf("a second dev on the folder: exit code %d: %s", code, errOut)
	}
	if code := first.end(t); code != 0 {
		t.Errorf("exit code %d: %s", code, first.errOut)
	}
	if _, err := send(http.DefaultClient, http.MethodGet, url+"/healthz", "", nil); err == nil {
		t.Error("the server still answers after it ended")
	}
	if postmasterRuns(t, dir) {
		t.Error("PostgreSQL still runs after dev ended")
	}
	code, out, errOut := execute(t, "", "env", "--data-dir", dir)
	if code != term.ExitFailed || out != "" || !isSentence(errOut) ||
		!strings.Contains(errOut, "no local server runs on "+dir) {
		t.Errorf("rolecall env without a server: exit code %d, printed %q and %q", code, out, errOut)
	}

	// The second start finds everything, and does not take another password. libpq's variables do not lead the server
	// elsewhere.
	second, url := beginDevProcess(t, dir, "ROLECALL_ADMIN_PASSWORD=another", "PGOPTIONS=-c nonsense=1", "PGSERVICE=absent")
	w := variables(t, dir)
	for _, name := range []string{"ROLECALL_CLUSTER_ID", "IONOS_PASSWORD", "PGPORT", "PGPASSWORD"} {
		if w[name] != v[name] {
			t.Errorf("%s is %q after a restart, was %q", name, w[name], v[name])
		}
	}
	if !strings.Contains(second.errOut.String(), "ROLECALL_ADMIN_PASSWORD is used at the first start only") {
		t.Errorf("no warning that ROLECALL_ADMIN_PASSWORD was ignored:\n%s", second.errOut)
	}
	users = url + "/databases/postgresql/clusters/" + w["ROLECALL_CLUSTER_ID"] + "/users"
	if r := get(t, users+"/kept", basic); r.status != http.StatusOK {
		t.Errorf("GET the user after a restart: %d %s", r.status, r.body)
	}
	if r := get(t, users, basicAuth("admin", "another")); r.status != http.StatusUnauthorized {
		t.Errorf("the ignored password signs in: %d", r.status)
	}
	if n := psql(t, w, "SELECT count(*) FROM pg_database WHERE datname = 'rolecall'"); n != "1" {
		t.Errorf("there are %s control databases", n)
	}
	checkModes(t, dir)
	second.end(t)

	secrets := []string{v["IONOS_PASSWORD"], v["PGPASSWORD"], v["IONOS_TOKEN"], "correct horse", "another\n",
		strings.TrimSpace(read(t, filepath.Join(dir, "master.key")))}
	var state struct{ ControlPassword, AdministeringPassword string }
	if err := json.Unmarshal([]byte(read(t, filepath.Join(dir, "state.json"))), &state); err != nil {
		t.Fatal(err)
	}
	secrets = append(secrets, state.ControlPassword, state.AdministeringPassword)
	written := map[string]string{"PostgreSQL's log": read(t, filepath.Join(dir, "postgresql", "pg.log"))}
	for i, p := range []*program{first, second} {
		written[fmt.Sprintf("log %d", i+1)] = p.errOut.String()
		written[fmt.Sprintf("output %d", i+1)] = p.out.String()
	}
	for name, text := range written {
		for _, secret := range secrets {
			if secret == "" || strings.Contains(text, secret) {
				t.Errorf("%s holds the secret %q", name, secret)
			}
		}
	}
}

// checkModes makes sure that nobody else reads a file of the data folder, nor lists it.
func checkModes(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := info.Mode()
		switch {
		case mode&fs.ModeSymlink != 0:
		case d.IsDir() && mode.Perm()&0o066 != 0, !d.IsDir() && mode.Perm()&0o077 != 0 && d.Name() != "pg.port":
			t.Errorf("%s has the mode %s", path, mode)
		}
		if d.Name() == "pg" {
			return fs.SkipDir // PostgreSQL's own, 0700
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestDevRefusesAnAdminPassword(t *testing.T) {
	t.Parallel()
	dir := newFolder(t)
	t.Cleanup(func() { removeElsewhere(t, dir) })
	p := beginProcess(t, []string{"ROLECALL_ADMIN_PASSWORD=nine char"}, "dev", "--data-dir", dir, "--listen", "127.0.0.1:0")
	if code := p.wait(t); code == 0 ||
		!strings.Contains(p.errOut.String(), "ROLECALL_ADMIN_PASSWORD: A password has 10 to 255 characters") {
		t.Errorf("exit code %d: %s", code, p.errOut)
	}
}

func TestDevTakesAnAdminPassword(t *testing.T) {
	t.Parallel()
	const password = ` it's "$HOME" \ and ; ' `
	for name, dir := range map[string]string{
		// As root, PostgreSQL's OS user cannot reach a folder of t.TempDir, and its data go elsewhere.
		"closed folder": filepath.Join(t.TempDir(), "data"),
		"open folder":   newFolder(t) + " it's",
	} {
		t.Run(name, func(t *testing.T) {
			t.Cleanup(func() { removeElsewhere(t, dir) })
			p, url := beginDevProcess(t, dir, "ROLECALL_ADMIN_PASSWORD="+password)
			v := variables(t, dir)
			if v["IONOS_PASSWORD"] != password || v["CF_PASSWORD"] != password {
				t.Errorf("rolecall env says %q and %q, want %q", v["IONOS_PASSWORD"], v["CF_PASSWORD"], password)
			}
			if r := get(t, url+"/databases/postgresql/clusters", basicAuth("admin", password)); r.status != http.StatusOK {
				t.Errorf("sign in with the password: %d %s", r.status, r.body)
			}
			// The line that people are told to run is one that sh takes.
			_, line, _ := strings.Cut(p.out.String(), `eval "$(`)
			line, _, _ = strings.Cut(line, `)"`)
			cmd := exec.Command("/bin/sh", "-c", line)
			cmd.Env = append(os.Environ(), asProgram+"=1")
			if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "export ROLECALL_URL='"+url+"'") {
				t.Errorf("%s: %v: %s", line, err, out)
			}
			checkModes(t, dir)
			if strings.Contains(p.errOut.String(), "$HOME") {
				t.Errorf("the log holds the password:\n%s", p.errOut)
			}
			if code := p.end(t); code != 0 {
				t.Errorf("exit code %d: %s", code, p.errOut)
			}
		})
	}
}

// removeElsewhere removes data that PostgreSQL keeps outside the folder.
func removeElsewhere(t *testing.T, dir string) {
	t.Helper()
	home, err := os.Readlink(filepath.Join(dir, "postgresql", "pg.elsewhere"))
	if err != nil {
		return
	}
	if err := os.RemoveAll(home); err != nil {
		t.Error(err)
	}
}

func TestDevAfterKill(t *testing.T) {
	t.Parallel()
	dir := preparedFolder(t)
	killed, url := beginDevProcess(t, dir)
	v := variables(t, dir)
	users := url + "/databases/postgresql/clusters/" + v["ROLECALL_CLUSTER_ID"] + "/users"
	basic := basicAuth("admin", v["IONOS_PASSWORD"])
	if r := request(t, http.DefaultClient, http.MethodPost, users, basic,
		`{"properties":{"username":"kept","password":"correct horse"}}`); r.status != http.StatusOK {
		t.Fatalf("POST users: %d %s", r.status, r.body)
	}
	t.Cleanup(func() { // should the test fail halfway
		if pid, ok := postmaster(dir); ok && postmasterRuns(t, dir) {
			_ = syscall.Kill(pid, syscall.SIGQUIT)
		}
	})
	if err := killed.process.Kill(); err != nil {
		t.Fatal(err)
	}
	killed.wait(t)
	if !postmasterRuns(t, dir) {
		t.Fatal("PostgreSQL ended with rolecall: the test proves nothing")
	}
	if code, _, errOut := execute(t, "", "env", "--data-dir", dir); code != term.ExitFailed ||
		!strings.Contains(errOut, "no local server runs") {
		t.Errorf("rolecall env after a kill: exit code %d: %s", code, errOut)
	}
	p, url := beginDev(t, dir)
	w := variables(t, dir)
	if w["ROLECALL_CLUSTER_ID"] != v["ROLECALL_CLUSTER_ID"] {
		t.Errorf("the cluster is %s after a kill, was %s", w["ROLECALL_CLUSTER_ID"], v["ROLECALL_CLUSTER_ID"])
	}
	users = url + "/databases/postgresql/clusters/" + v["ROLECALL_CLUSTER_ID"] + "/users"
	if r := get(t, users+"/kept", basic); r.status != http.StatusOK {
		t.Errorf("GET the user after a kill: %d %s", r.status, r.body)
	}
	if code := p.end(t); code != 0 {
		t.Errorf("exit code %d: %s", code, p.errOut)
	}
}

// TestDevKeepsPostgreSQL restarts PostgreSQL below a running server, and kills it, as people and the kernel do.
func TestDevKeepsPostgreSQL(t *testing.T) {
	t.Parallel()
	dir := preparedFolder(t)
	data := filepath.Join(dir, "postgresql", "pg")
	p, url := beginDevProcess(t, dir)
	v := variables(t, dir)
	users := url + "/databases/postgresql/clusters/" + v["ROLECALL_CLUSTER_ID"] + "/users/"
	works := func(name string) {
		t.Helper()
		before, _ := postmaster(dir)
		eventually(t, func() error {
			r := request(t, http.DefaultClient, http.MethodPost, strings.TrimSuffix(users, "/"), "Bearer "+v["ROLECALL_TOKEN"],
				`{"properties":{"username":"`+name+`","password":"correct horse"}}`)
			if r.status != http.StatusOK && !strings.Contains(r.body, "exists") {
				return fmt.Errorf("POST users: %d %s", r.status, r.body)
			}
			return nil
		})
		if after, ok := postmaster(dir); !ok || after != before && before != 0 && syscall.Kill(before, 0) == nil {
			t.Errorf("there are two servers: the processes %d and %d", before, after)
		}
		if port := psql(t, v, "SHOW port"); port != v["PGPORT"] {
			t.Errorf("PostgreSQL has the port %s, want %s", port, v["PGPORT"])
		}
	}
	bin, _, err := localpg.FindBinaries("", 0)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(data)
	if err != nil {
		t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	for _, restart := range []struct {
		name string
		args []string
	}{
		{"after_immediate", []string{"-m", "immediate"}},
		{"after_settings", []string{"-o", "-p " + v["PGPORT"] + " -k ''"}},
		{"after_fast", []string{"-m", "fast"}},
	} {
		old, _ := postmaster(dir)
		cmd := exec.Command(filepath.Join(bin, "pg_ctl"), append(restart.args, "restart", "-D", data, "-l",
			filepath.Join(data, "restart.log"))...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid,
			NoSetGroups: true}}
		cmd.Dir = "/"
		out, err := cmd.CombinedOutput() // on a busy machine dev may be quicker, and pg_ctl fails
		eventually(t, func() error {
			if now, ok := postmaster(dir); !ok || now == old {
				return fmt.Errorf("%s: pg_ctl left the process %d, which was %d before: %v: %s", restart.name, now, old, err, out)
			}
			return nil
		})
		works(restart.name)
	}
	// Nobody else starts one that was killed, and the server that pg_ctl has started is kept as well.
	for _, name := range []string{"after_kill", "after_second_kill"} {
		pid, _ := postmaster(dir)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error {
			if now, ok := postmaster(dir); !ok || now == pid {
				return errors.New("PostgreSQL was not started again")
			}
			return nil
		})
		works(name)
	}
	for _, name := range []string{"after_immediate", "after_fast", "after_settings", "after_kill",
		"after_second_kill"} {
		if r := get(t, users+name, "Bearer "+v["ROLECALL_TOKEN"]); r.status != http.StatusOK {
			t.Errorf("GET %s: %d %s", name, r.status, r.body)
		}
	}
	if again := variables(t, dir); again["PGPASSWORD"] != v["PGPASSWORD"] || again["PGPORT"] != v["PGPORT"] {
		t.Error("rolecall env says something else after the restarts")
	}

	// Only a server that does not start ends it.
	pid, _ := postmaster(dir)
	if err := os.Rename(filepath.Join(data, "global"), filepath.Join(data, "global-moved")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if code := p.wait(t); code != term.ExitFailed ||
		!strings.Contains(p.errOut.String(), "the local PostgreSQL ended and could not be started again") {
		t.Errorf("exit code %d: %s", code, p.errOut)
	}
	if err := os.Rename(filepath.Join(data, "global-moved"), filepath.Join(data, "global")); err != nil {
		t.Fatal(err)
	}
	last, _ := beginDevProcess(t, dir)
	if code := last.end(t); code != 0 || postmasterRuns(t, dir) {
		t.Errorf("exit code %d, PostgreSQL runs: %v: %s", code, postmasterRuns(t, dir), last.errOut)
	}
}

func TestDevDrains(t *testing.T) {
	t.Parallel()
	dir := preparedFolder(t)
	p, url := beginDevProcess(t, dir)
	v := variables(t, dir)
	users := url + "/databases/postgresql/clusters/" + v["ROLECALL_CLUSTER_ID"] + "/users"
	r := inFlight(t, users, basicAuth("admin", v["IONOS_PASSWORD"]),
		`{"properties":{"username":"late","password":"correct horse"}}`, func() {
			p.stop()
			p.awaits(t, p.errOut, "stopping")
		})
	if r.status != http.StatusOK {
		t.Errorf("a request in flight at SIGTERM: %d %s", r.status, r.body)
	}
	if code := p.wait(t); code != 0 {
		t.Errorf("exit code %d: %s", code, p.errOut)
	}
	if postmasterRuns(t, dir) {
		t.Error("PostgreSQL still runs after dev ended")
	}
	if log := p.errOut.String(); strings.Contains(log, "level=ERROR") || strings.Contains(log, "level=WARN") {
		t.Errorf("the log has errors:\n%s", log)
	}
}

// postmaster is the process that the folder's pid file names.
func postmaster(dir string) (pid int, ok bool) {
	text, err := os.ReadFile(filepath.Join(dir, "postgresql", "pg", "postmaster.pid"))
	if err != nil {
		return 0, false
	}
	_, err = fmt.Sscan(string(text), &pid)
	return pid, err == nil
}

func postmasterRuns(t *testing.T, dir string) bool {
	t.Helper()
	pid, ok := postmaster(dir)
	return ok && syscall.Kill(pid, 0) == nil
}

func TestDevStoppedAtStart(t *testing.T) {
	t.Parallel()
	dir := newFolder(t)
	p := begin(t, "dev", "--listen", "127.0.0.1:0", "--data-dir", dir)
	eventually(t, func() error {
		_, err := os.Stat(filepath.Join(dir, "postgresql"))
		return err
	})
	if code := p.end(t); code != term.ExitFailed || p.errOut.String() != "rolecall: stopped before it was ready\n" {
		t.Errorf("exit code %d: %s", code, p.errOut)
	}
	if postmasterRuns(t, dir) {
		t.Error("PostgreSQL runs")
	}
	_, url := beginDev(t, dir)
	if r := get(t, url+"/readyz", ""); r.status != http.StatusOK {
		t.Errorf("the next start: /readyz: %d %s", r.status, r.body)
	}
}

func TestDevAddresses(t *testing.T) {
	t.Parallel()
	taken, err := listen("listen", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	address := taken.Addr().String()
	dir := newFolder(t)
	for _, test := range []struct {
		args []string
		code int
		says []string
	}{
		{[]string{"--listen", address}, term.ExitFailed, []string{address, "in use", "--listen"}},
		{[]string{"--metrics-listen", address}, term.ExitFailed, []string{address, "in use", "--metrics-listen"}},
		{[]string{"--listen", ":0"}, term.ExitUsage, []string{"--allow-remote"}},
		{[]string{"--listen", "0.0.0.0:0"}, term.ExitUsage, []string{"--allow-remote"}},
		{[]string{"--listen", "[::]:0"}, term.ExitUsage, []string{"--allow-remote"}},
		{[]string{"--listen", "192.0.2.1:0"}, term.ExitUsage, []string{"--allow-remote"}},
		{[]string{"--listen", "rolecall.example.org:0"}, term.ExitUsage, []string{"--allow-remote"}},
		{[]string{"--metrics-listen", ":0"}, term.ExitUsage, []string{"--metrics-listen", "--allow-remote"}},
		{[]string{"--metrics-listen", "0.0.0.0:0"}, term.ExitUsage, []string{"--metrics-listen", "--allow-remote"}},
		{[]string{"--metrics-listen", "192.0.2.1:0"}, term.ExitUsage, []string{"--metrics-listen", "--allow-remote"}},
	} {
		// The last flag of a name counts.
		args := append([]string{"dev", "--data-dir", dir, "--listen", "127.0.0.1:0"}, test.args...)
		code, _, errOut := execute(t, "", args...)
		if code != test.code || !isSentence(errOut) {
			t.Errorf("%q: exit code %d: %s", test.args, code, errOut)
		}
		for _, part := range test.says {
			if !strings.Contains(errOut, part) {
				t.Errorf("%q: %q does not mention %q", test.args, errOut, part)
			}
		}
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("a dev that was refused has made its data folder")
	}

	p := begin(t, "dev", "--data-dir", preparedFolder(t), "--listen", "0.0.0.0:0", "--allow-remote", "--metrics-listen",
		"127.0.0.1:0")
	url := p.readyAt(t)
	if !strings.HasPrefix(url, "http://127.0.0.1:") {
		t.Errorf("on every address the server says that it is at %s, want one that clients can use", url)
	}
	if r := get(t, url+"/readyz", ""); r.status != http.StatusOK {
		t.Errorf("/readyz: %d %s", r.status, r.body)
	}
}

// psql runs one statement with the PG variables that rolecall env has printed.
func psql(t *testing.T, v map[string]string, sql string) string {
	t.Helper()
	bin, _, err := localpg.FindBinaries("", 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(bin, "psql"), "-XAtqw", "-c", sql)
	cmd.Env = []string{"PATH=" + bin + ":" + os.Getenv("PATH")}
	for _, name := range []string{"PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE"} {
		cmd.Env = append(cmd.Env, name+"="+v[name])
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("psql: %v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// isSentence reports whether an error is one line that says who speaks.
func isSentence(errOut string) bool {
	return strings.HasPrefix(errOut, "rolecall: ") && strings.Count(errOut, "\n") == 1 && strings.HasSuffix(errOut, "\n")
}
