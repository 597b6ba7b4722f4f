package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rolecall/internal/cli/term"
	"rolecall/internal/control"
	"rolecall/internal/pgtest"
)

var databases atomic.Int64

// controlDatabase makes an empty database, and returns the flags by which serve and bootstrap find it.
func controlDatabase(t *testing.T, pg *pgtest.Cluster) (flags []string, name string) {
	t.Helper()
	name = fmt.Sprintf("control_%d", databases.Add(1))
	pg.Exec(t, "CREATE DATABASE "+name)
	dir := t.TempDir()
	url, key := filepath.Join(dir, "url"), filepath.Join(dir, "master.key")
	write(t, url, pg.URL(name)+"\n")
	write(t, key, control.NewMasterKey()+"\n")
	return []string{"--database-url-file", url, "--master-key-file", key}, name
}

// beginServe starts a server, and returns it with the URLs of its two listeners as soon as it writes its log.
func beginServe(t *testing.T, flags ...string) (p *program, url string) {
	t.Helper()
	args := []string{"serve", "--public-url", "http://rolecall.example.org", "--listen", "127.0.0.1:0", "--metrics-listen",
		"127.0.0.1:0"}
	p = begin(t, append(args, flags...)...)
	return p, "http://" + p.servesAt(t)
}

// servesAt waits until the server is ready, and returns its address.
func (p *program) servesAt(t *testing.T) string {
	t.Helper()
	p.awaits(t, p.errOut, `"msg":"serving"`)
	return p.logged(t, "serving")["address"].(string)
}

// logged returns the last line of that message in a JSON log.
func (p *program) logged(t *testing.T, msg string) (line map[string]any) {
	t.Helper()
	for s := bufio.NewScanner(strings.NewReader(p.errOut.String())); s.Scan(); {
		var m map[string]any
		if err := json.Unmarshal(s.Bytes(), &m); err != nil {
			t.Fatalf("the log has a line that is no JSON: %s", s.Text())
		}
		if m["msg"] == msg {
			line = m
		}
	}
	if line == nil {
		t.Fatalf("the log has no line %q:\n%s", msg, p.errOut)
	}
	return line
}

func bootstrap(t *testing.T, flags []string, password string, args ...string) (code int, out, errOut string) {
	t.Helper()
	return execute(t, password, append(append([]string{"bootstrap", "--password-stdin"}, flags...), args...)...)
}

func TestBootstrap(t *testing.T) {
	t.Parallel()
	flags, _ := controlDatabase(t, pgtest.Shared(t))
	guid := regexp.MustCompile(`\(([0-9a-f-]{36})\)`)
	code, out, errOut := bootstrap(t, flags, "first password\r\nnot this line\n")
	if code != 1 || out != "" || !strings.Contains(errOut, "nothing was changed") {
		t.Errorf("a second line: exit code %d, printed %q and %q", code, out, errOut)
	}
	code, out, errOut = bootstrap(t, flags, "first password\r\n")
	if code != 0 || errOut != "" || !strings.HasPrefix(out, "The admin account admin (") ||
		!strings.HasSuffix(out, ") was created.\n") {
		t.Fatalf("bootstrap: exit code %d, printed %q and %q", code, out, errOut)
	}
	_, url := beginServe(t, flags...)
	clusters := url + "/databases/postgresql/clusters"
	if r := get(t, clusters, basicAuth("admin", "first password")); r.status != http.StatusOK {
		t.Errorf("sign in after bootstrap: %d %s", r.status, r.body)
	}
	code, again, errOut := bootstrap(t, flags, "second password", "admin")
	if code != 0 || !strings.HasSuffix(again, ") was reset.\n") || guid.FindString(again) != guid.FindString(out) {
		t.Errorf("second bootstrap: exit code %d, printed %q and %q", code, again, errOut)
	}
	if r := get(t, clusters, basicAuth("admin", "second password")); r.status != http.StatusOK {
		t.Errorf("sign in with the new password: %d %s", r.status, r.body)
	}
	// The old one was remembered as verified, and is forgotten within five seconds.
	eventually(t, func() error {
		if r := get(t, clusters, basicAuth("admin", "first password")); r.status != http.StatusUnauthorized {
			return fmt.Errorf("the old password signs in: %d", r.status)
		}
		return nil
	})
	if code, out, errOut := bootstrap(t, flags, "third password\n", "Alice B"); code != 0 ||
		!strings.Contains(out, "account Alice B (") {
		t.Errorf("bootstrap of another account: exit code %d, printed %q and %q", code, out, errOut)
	}
	for _, password := range []string{"", "\n", "nine char\n", "a\tpassword\n", strings.Repeat("x", 256)} {
		if code, _, errOut := bootstrap(t, flags, password); code != term.ExitFailed || !isSentence(errOut) ||
			strings.Contains(errOut, "xxx") {
			t.Errorf("bootstrap with a password of %d bytes: exit code %d: %s", len(password), code, errOut)
		}
	}
	// A file with a secret is nobody else's.
	key := flags[3]
	for mode, warned := range map[os.FileMode]bool{0o600: false, 0o640: false, 0o644: true, 0o604: true} {
		if err := os.Chmod(key, mode); err != nil {
			t.Fatal(err)
		}
		server, _ := beginServe(t, flags...)
		server.end(t)
		_, _, errOut := bootstrap(t, flags, "third password\n", "Alice B")
		code, _, recovered := execute(t, "", append([]string{"recover"}, flags...)...)
		for name, text := range map[string]string{"serve": server.errOut.String(), "bootstrap": errOut, "recover": recovered} {
			if strings.Contains(text, "--master-key-file; to end that: chmod 600 "+key) != warned || code != 0 ||
				strings.Contains(text, "--database-url-file") {
				t.Errorf("%s with a key of mode %o: %s", name, mode, text)
			}
		}
	}
	if err := os.Chmod(flags[1], 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, errOut := bootstrap(t, flags, "third password\n", "Alice B"); !strings.Contains(errOut,
		"--database-url-file; to end that: chmod 600 "+flags[1]) {
		t.Errorf("bootstrap with a URL that everybody can read: %s", errOut)
	}
	if err := errors.Join(os.Chmod(flags[1], 0o600), os.Chmod(key, 0o600)); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "other.key")
	write(t, other, control.NewMasterKey())
	if code, _, errOut := bootstrap(t, append(slices.Clone(flags), "--master-key-file", other),
		"x"); code != term.ExitFailed || !isSentence(errOut) || !strings.Contains(errOut, "master key") {
		t.Errorf("bootstrap with another master key: exit code %d: %s", code, errOut)
	}
	missing := filepath.Join(t.TempDir(), "url")
	write(t, missing, strings.Replace(pgtest.Shared(t).URL("nowhere"), "postgres:", "postgresql:", 1))
	if code, _, errOut := bootstrap(t, append(slices.Clone(flags), "--database-url-file", missing),
		"x"); code != term.ExitFailed || strings.Contains(errOut, pgtest.Shared(t).Password) {
		t.Errorf("bootstrap without a database: exit code %d: %s", code, errOut)
	}
}

// --if-missing creates one admin, however often it runs, and asks for a password only then.
func TestBootstrapIfMissing(t *testing.T) {
	t.Parallel()
	flags, name := controlDatabase(t, pgtest.Shared(t))
	var wg sync.WaitGroup
	var created atomic.Int64
	for range 3 {
		wg.Go(func() {
			code, out, errOut := bootstrap(t, flags, "first password\n", "--if-missing")
			if strings.HasSuffix(out, ") was created.\n") {
				created.Add(1)
			} else if code != 0 || out != "An active admin exists. Nothing was changed.\n" {
				t.Errorf("bootstrap beside others: exit code %d, printed %q and %q", code, out, errOut)
			}
		})
	}
	wg.Wait()
	if created.Load() != 1 {
		t.Errorf("%d of three have created the admin", created.Load())
	}
	for _, args := range [][]string{{"--if-missing"}, {"--if-missing", "alice"}} {
		code, out, errOut := execute(t, "", append(append([]string{"bootstrap"}, flags...), args...)...)
		if code != 0 || out != "An active admin exists. Nothing was changed.\n" || errOut != "" {
			t.Errorf("%v without a password: exit code %d, printed %q and %q", args, code, out, errOut)
		}
	}
	// Neither an account that is not active, nor an OAuth client, nor a person who is no admin.
	pg := pgtest.Shared(t)
	db := pg.Connect(t, pg.User, pg.Password, name)
	for _, change := range []string{"active = false", "active = true, program = true", "program = false, scopes = '{}'"} {
		if _, err := db.Exec(t.Context(), "UPDATE rolecall.accounts SET "+change); err != nil {
			t.Fatal(err)
		}
		if code, out, errOut := bootstrap(t, flags, "short\n", "--if-missing"); code != term.ExitFailed || out != "" {
			t.Errorf("after %s and with a short password: exit code %d, printed %q and %q", change, code, out, errOut)
		}
	}
	// As the image does it, which has no shell to redirect standard input. The file is read only if it is needed.
	file := filepath.Join(t.TempDir(), "password")
	args := append([]string{"bootstrap", "--if-missing", "--password-file", file}, flags...)
	if code, _, errOut := execute(t, "", args...); code != term.ExitUsage ||
		!strings.Contains(errOut, "--password-file: open") {
		t.Errorf("without the file: exit code %d, printed %q", code, errOut)
	}
	if code, _, errOut := execute(t, "third password\n", append(args, "--password-stdin")...); code != term.ExitUsage ||
		!strings.Contains(errOut, "--password-stdin and --password-file cannot be combined") {
		t.Errorf("two sources of the password: exit code %d, printed %q", code, errOut)
	}
	if err := os.WriteFile(file, []byte("second password\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, errOut := execute(t, "", args...); code != 0 || !strings.HasSuffix(out, ") was reset.\n") {
		t.Errorf("an admin that is none: exit code %d, printed %q and %q", code, out, errOut)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if code, out, errOut := execute(t, "", args...); code != 0 || out != "An active admin exists. Nothing was changed.\n" {
		t.Errorf("once an admin exists, without the file: exit code %d, printed %q and %q", code, out, errOut)
	}
}

// The service manager learns that the server waits, is ready and stops.
func TestNotify(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	await := func(want string) {
		t.Helper()
		_ = l.SetReadDeadline(time.Now().Add(patience))
		for b := make([]byte, 1000); ; {
			n, err := l.Read(b)
			if err != nil {
				t.Fatalf("%q was not sent: %v", want, err)
			}
			if strings.HasPrefix(string(b[:n]), want) {
				return
			}
		}
	}
	flags, _ := controlDatabase(t, pgtest.Shared(t))
	args := append([]string{"serve", "--public-url", "http://rolecall.example.org", "--listen", "127.0.0.1:0",
		"--metrics-listen", "", "--drain-delay", "0s"}, flags...)
	env := []string{"NOTIFY_SOCKET=" + socket, "WATCHDOG_USEC=20000"}
	p := beginProcess(t, env, args...)
	await("READY=1\n")
	await("WATCHDOG=1")
	p.stop()
	await("STOPPING=1\nEXTEND_TIMEOUT_USEC=30000000")
	if code := p.wait(t); code != 0 {
		t.Errorf("exit code %d: %s", code, p.errOut)
	}
	nowhere := filepath.Join(t.TempDir(), "url")
	write(t, nowhere, "postgres://rolecall:secret@127.0.0.1:1/rolecall")
	p = beginProcess(t, env, append(args, "--database-url-file", nowhere)...)
	await("STATUS=waiting for the control database\nEXTEND_TIMEOUT_USEC=60000000")
	p.end(t)
	// A manager that does not listen is logged, and a wrong setting is an error.
	p = beginProcess(t, []string{"NOTIFY_SOCKET=" + socket + "-none"}, args...)
	p.servesAt(t)
	if line := p.logged(t, "serving"); line == nil || !strings.Contains(p.errOut.String(), "was not notified") {
		t.Errorf("without a manager at the socket: %s", p.errOut)
	}
	p.end(t)
	p = beginProcess(t, []string{"NOTIFY_SOCKET=notify"}, args...)
	if code := p.wait(t); code != term.ExitUsage || !strings.Contains(p.errOut.String(), `NOTIFY_SOCKET is "notify"`) {
		t.Errorf("with a relative socket: exit code %d: %s", code, p.errOut)
	}
}

func TestServe(t *testing.T) {
	t.Parallel()
	flags, name := controlDatabase(t, pgtest.Shared(t))
	p, url := beginServe(t, append(flags, "--trusted-proxies", "127.0.0.0/8,192.0.2.7")...)
	if n := pgtest.Value[int](t, pgtest.Shared(t),
		"SELECT count(*) FROM pg_database WHERE datname = $1 AND NOT has_database_privilege('pg_monitor', oid, 'CONNECT')",
		name); n != 1 {
		t.Error("everybody may connect to the control database")
	}
	for path, want := range map[string]response{
		"/healthz":                        {status: http.StatusOK, body: `{"status":"ok"}` + "\n"},
		"/readyz":                         {status: http.StatusOK, body: `{"status":"ready"}` + "\n"},
		"/openapi/dbaas.yaml":             {status: http.StatusOK},
		"/docs":                           {status: http.StatusOK},
		"//docs":                          {status: http.StatusOK},
		"/openapi/none.yaml":              {status: http.StatusNotFound},
		"//openapi/uaa.yaml":              {status: http.StatusOK},
		"/metrics":                        {status: http.StatusNotFound},
		"/debug/pprof/":                   {status: http.StatusNotFound},
		"/databases/postgresql/clusters":  {status: http.StatusUnauthorized},
		"//databases/postgresql/nonsense": {status: http.StatusUnauthorized},
		"/nonsense":                       {status: http.StatusNotFound},
	} {
		got := get(t, url+path, "")
		if got.status != want.status || want.body != "" && got.body != want.body {
			t.Errorf("GET %s: %d %.200s, want %d %s", path, got.status, got.body, want.status, want.body)
		}
		if strings.Contains(got.header.Get("Content-Type"), "json") != json.Valid([]byte(got.body)) {
			t.Errorf("GET %s: %s, but %.200s", path, got.header.Get("Content-Type"), got.body)
		}
	}

	// A log line is JSON and has the id that the client was told, and the address that the proxies tell.
	for forwarded, want := range map[string]string{
		"":                                  "127.0.0.1",
		"198.51.100.9":                      "198.51.100.9",
		"203.0.113.1, 198.51.100.9":         "198.51.100.9",
		"198.51.100.9, 192.0.2.7":           "198.51.100.9",
		"198.51.100.9, nonsense, 192.0.2.7": "192.0.2.7",
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
			url+"/databases/postgresql/clusters?token=opensesame", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Forwarded-For", forwarded)
		req.Header.Set("X-Request-Id", "mine\n\"")
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			t.Fatal("Go sent a header with a line break", resp.Status)
		}
		req.Header.Set("X-Request-Id", `mine "1"`)
		if resp, err = http.DefaultClient.Do(req); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		p.awaits(t, p.errOut, resp.Header.Get("X-Request-Id"))
		line := p.logged(t, "request")
		if line["request"] != resp.Header.Get("X-Request-Id") || line["address"] != want || line["incoming"] != "mine1" ||
			line["status"] != 401.0 {
			t.Errorf("X-Forwarded-For %q: logged %v, want the address %s and the id %s", forwarded, line, want,
				resp.Header.Get("X-Request-Id"))
		}
	}
	if strings.Contains(p.errOut.String(), "opensesame") {
		t.Error("the log holds a query string")
	}
	if code := p.end(t); code != 0 {
		t.Errorf("exit code %d: %s", code, p.errOut)
	}
	p.logged(t, "stopping")
}

func TestServeAddressWithoutProxies(t *testing.T) {
	t.Parallel()
	flags, _ := controlDatabase(t, pgtest.Shared(t))
	p, url := beginServe(t, flags...)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/databases/postgresql/clusters", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Forwarded-For", "198.51.100.9")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	p.awaits(t, p.errOut, resp.Header.Get("X-Request-Id"))
	if line := p.logged(t, "request"); line["address"] != "127.0.0.1" {
		t.Errorf("the log believes a client's X-Forwarded-For: %v", line)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	flags, _ := controlDatabase(t, pgtest.Shared(t))
	metricsAddress, pprofAddress := freeAddress(t), freeAddress(t)
	p, url := beginServe(t, append(flags, "--metrics-listen", metricsAddress, "--pprof-listen", pprofAddress)...)
	for _, path := range []string{"/databases/postgresql/clusters", "/opensesame", "/docs",
		"/databases/postgresql/clusters/opensesame/users/opensesame"} {
		get(t, url+path, "")
		request(t, http.DefaultClient, "OPENSESAME", url+path, basicAuth("opensesame", "opensesame"),
			`{"properties":{"password":"opensesame"}}`)
	}
	metrics := get(t, "http://"+metricsAddress+"/metrics", "")
	if metrics.status != http.StatusOK {
		t.Fatalf("GET /metrics: %d", metrics.status)
	}
	for _, want := range []string{
		`rolecall_http_requests_total{method="GET",route="/databases/postgresql/clusters",status="401"} 1`,
		`rolecall_http_requests_total{method="GET",route="unknown",status="404"} 1`,
		`rolecall_http_requests_total{method="GET",route="/docs",status="200"} 1`,
		`rolecall_http_requests_total{method="other",route="unknown",status="405"} 1`,
		`rolecall_http_request_duration_seconds_count{method="GET",route="/docs"} 1`,
		`rolecall_control_connections{state="idle"}`,
		`rolecall_control_connections{state="used"}`,
		"rolecall_clusters 0",
		"go_goroutines ",
		"process_resident_memory_bytes ",
	} {
		if !strings.Contains(metrics.body, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	if strings.Contains(strings.ToLower(metrics.body), "opensesame") {
		t.Error("/metrics has a label that a client made up")
	}
	if t.Failed() {
		t.Log(metrics.body)
	}
	for path, want := range map[string]string{"goroutine?debug=1": "goroutine profile", "goroutine?debug=2": "goroutine 1 [",
		"heap?debug=1": "heap profile"} {
		if r := get(t, "http://"+pprofAddress+"/debug/pprof/"+path, ""); r.status != http.StatusOK ||
			!strings.Contains(r.body, want) || strings.Contains(r.body, "opensesame") {
			t.Errorf("GET /debug/pprof/%s: %d %.100s", path, r.status, r.body)
		}
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if r := get(t, "http://"+metricsAddress+path, ""); r.status != http.StatusOK {
			t.Errorf("GET %s on the listener of the metrics: %d", path, r.status)
		}
	}
	for _, url := range []string{
		metricsAddress + "/debug/pprof/", metricsAddress + "/debug/pprof/heap", metricsAddress + "/databases/postgresql/clusters",
		pprofAddress + "/debug/pprof/cmdline", pprofAddress + "/metrics", pprofAddress + "/databases/postgresql/clusters",
	} {
		if r := get(t, "http://"+url, ""); r.status != http.StatusNotFound {
			t.Errorf("GET %s: %d, want 404", url, r.status)
		}
	}
	p.end(t)
	if _, err := send(http.DefaultClient, http.MethodGet, "http://"+metricsAddress+"/metrics", "", nil); err == nil {
		t.Error("/metrics still answers after the server ended")
	}
}

func TestClusterMetrics(t *testing.T) {
	t.Parallel()
	metricsAddress := freeAddress(t)
	dir := preparedFolder(t)
	_, url := beginDev(t, dir, "--metrics-listen", metricsAddress)
	v := variables(t, dir)
	get(t, url+"/databases/postgresql/clusters/"+v["ROLECALL_CLUSTER_ID"]+"/users", "Bearer "+v["IONOS_TOKEN"])
	metrics := get(t, "http://"+metricsAddress+"/metrics", "").body
	for _, want := range []string{
		`rolecall_clusters 1`,
		`rolecall_cluster_up\{cluster="local"\} 1`,
		// The comparison with the audit log may have opened more than the one of the request.
		`rolecall_cluster_connections\{cluster="local",state="(idle|used)"\} [1-9]`,
		`rolecall_http_requests_total\{method="GET",route="/databases/postgresql/clusters/\{clusterId\}/users",status="200"\} 1`,
	} {
		if !regexp.MustCompile(want).MatchString(metrics) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestServeWaitsAndRecovers(t *testing.T) {
	t.Parallel()
	pg := pgtest.New(t, nil)
	flags, _ := controlDatabase(t, pg)
	pg.Stop(t)
	address := freeAddress(t)
	p := begin(t, append([]string{"serve", "--public-url", "http://x", "--listen", address, "--metrics-listen="}, flags...)...)
	p.awaits(t, p.errOut, "waiting for the control database")
	if strings.Contains(p.errOut.String(), pg.Password) {
		t.Errorf("the log holds the password of the control database:\n%s", p.errOut)
	}
	pg.Start(t)
	p.servesAt(t)
	ready := func(want int) {
		t.Helper()
		eventually(t, func() error {
			if r := get(t, "http://"+address+"/readyz", ""); r.status != want {
				return fmt.Errorf("/readyz: %d %s, want %d", r.status, r.body, want)
			}
			return nil
		})
	}
	ready(http.StatusOK)
	pg.Stop(t)
	if r := get(t, "http://"+address+"/readyz", ""); r.status != http.StatusOK {
		t.Errorf("/readyz just after the control database went away: %d, want 200: a balancer would end the reads that go on",
			r.status)
	}
	if r := get(t, "http://"+address+"/healthz", ""); r.status != http.StatusOK {
		t.Errorf("/healthz without the control database: %d, want 200: a restart would not help", r.status)
	}
	r := get(t, "http://"+address+"/databases/postgresql/clusters", basicAuth("admin", "a password"))
	if r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" {
		t.Errorf("a request without the control database: %d %s, Retry-After %q; want 503 and when to come again", r.status,
			r.body, r.header.Get("Retry-After"))
	}
	pg.Start(t)
	ready(http.StatusOK)
	if code := p.end(t); code != 0 {
		t.Errorf("exit code %d: %s", code, p.errOut)
	}
}

func TestServeStopsWhileItWaits(t *testing.T) {
	t.Parallel()
	key := filepath.Join(t.TempDir(), "key")
	write(t, key, control.NewMasterKey())
	p := begin(t, "serve", "--public-url", "http://x", "--listen", "127.0.0.1:0", "--metrics-listen=",
		"--database-url", "postgres://rolecall@"+freeAddress(t)+"/rolecall", "--master-key-file", key)
	p.awaits(t, p.errOut, "waiting for the control database")
	if code := p.end(t); code != 0 {
		t.Errorf("exit code %d: %s", code, p.errOut)
	}
}

func TestServeDrains(t *testing.T) {
	t.Parallel()
	flags, _ := controlDatabase(t, pgtest.Shared(t))
	bootstrap(t, flags, "a password")
	p, url := beginServe(t, append(flags, "--drain-delay=5s")...)
	// The cluster does not exist, which is what a whole request is told.
	users := url + "/databases/postgresql/clusters/00000000-0000-4000-8000-000000000000/users"
	r := inFlight(t, users, basicAuth("admin", "a password"), `{"properties":{"username":"u","password":"correct horse"}}`,
		func() {
			p.stop()
			p.awaits(t, p.errOut, "stopping")
			// Until its balancers know, it takes requests, and asks for the next one to come over another connection.
			for path, want := range map[string]int{"/readyz": http.StatusServiceUnavailable, "/healthz": http.StatusOK,
				"/openapi/dbaas.yaml": http.StatusOK} {
				resp, err := http.Get(url + path)
				if err != nil {
					t.Error(err)
					continue
				}
				resp.Body.Close()
				if resp.StatusCode != want || !resp.Close {
					t.Errorf("GET %s of a stopping server: %d, closed %t; want %d and closed", path, resp.StatusCode, resp.Close, want)
				}
			}
			eventually(t, func() error {
				if _, err := send(&http.Client{Transport: &http.Transport{}}, http.MethodGet, url+"/readyz", "", nil); err == nil {
					return errors.New("a stopping server takes new connections")
				}
				return nil
			})
		})
	if r.status != http.StatusNotFound || !strings.Contains(r.body, "paas-notfound-1") {
		t.Errorf("a request in flight: %d %s, want 404 and the reason", r.status, r.body)
	}
	if code := p.wait(t); code != 0 {
		t.Errorf("exit code %d: %s", code, p.errOut)
	}
}

// lazy is a reader of the log that becomes slow.
type lazy struct {
	buffer
	slow atomic.Bool
}

func (l *lazy) Write(b []byte) (int, error) {
	if l.slow.Load() {
		time.Sleep(3 * time.Second)
	}
	return l.buffer.Write(b)
}

// A server that is stopped writes the lines of its last requests before it ends, although no request waits for its line.
func TestLastLinesAreLogged(t *testing.T) {
	t.Parallel()
	flags, _ := controlDatabase(t, pgtest.Shared(t))
	ctx, stop := context.WithCancel(t.Context())
	log := &lazy{}
	p := &program{out: &buffer{}, errOut: &log.buffer, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.code = run(ctx, append([]string{"serve", "--public-url", "http://rolecall.example.org", "--listen", "127.0.0.1:0",
			"--metrics-listen", "127.0.0.1:0", "--drain-delay=1s"}, flags...), strings.NewReader(""), p.out, log)
	}()
	t.Cleanup(func() { p.end(t) })
	url := "http://" + p.servesAt(t)
	p.awaits(t, p.errOut, "head of the audit chain") // the last line that is not about a request, apart from the next
	p.stop()
	p.awaits(t, p.errOut, "stopping")
	log.slow.Store(true)
	const many = 10
	for range many {
		get(t, url+"/openapi/dbaas.yaml", "")
	}
	if n := strings.Count(log.String(), `"msg":"request"`); n == many {
		t.Errorf("the requests waited for their lines")
	}
	if code := p.wait(t); code != 0 {
		t.Errorf("exit code %d: %s", code, p.errOut)
	}
	if n := strings.Count(log.String(), `"msg":"request"`); n != many {
		t.Errorf("%d of %d requests were logged: %s", n, many, p.errOut)
	}
}

func TestReplicasStartAtOnce(t *testing.T) {
	t.Parallel()
	pg := pgtest.Shared(t)
	flags, name := controlDatabase(t, pg)
	const replicas = 3
	var all [replicas]*program
	for i := range all {
		all[i] = begin(t, append([]string{"serve", "--public-url", "http://x", "--listen", "127.0.0.1:0", "--metrics-listen="},
			flags...)...)
	}
	var urls [replicas]string
	for i, p := range all {
		urls[i] = "http://" + p.servesAt(t) + "/databases/postgresql/clusters"
	}
	conn := pg.Connect(t, pg.User, pg.Password, name)
	var keys, repeated int
	err := conn.QueryRow(t.Context(),
		`SELECT (SELECT count(*) FROM rolecall.signing_keys),
		  (SELECT count(*) - max(version) FROM rolecall.migrations)`).Scan(&keys, &repeated)
	if err != nil || keys != 1 || repeated != 0 {
		t.Errorf("%d signing keys, %d migrations too many (%v); want 1 and 0", keys, repeated, err)
	}
	if code, _, errOut := bootstrap(t, flags, "a password"); code != 0 {
		t.Fatalf("bootstrap: exit code %d: %s", code, errOut)
	}
	for i, url := range urls {
		if r := get(t, url, basicAuth("admin", "a password")); r.status != http.StatusOK {
			t.Errorf("replica %d: %d %s", i, r.status, r.body)
		}
	}
	for i, p := range all {
		if code := p.end(t); code != 0 {
			t.Errorf("replica %d: exit code %d: %s", i, code, p.errOut)
		}
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	flags, _ := controlDatabase(t, pgtest.Shared(t))
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	renew := func(serial int64) {
		t.Helper()
		certPEM, keyPEM := certificate(t, serial)
		write(t, cert+".new", certPEM)
		write(t, key+".new", keyPEM)
		for _, file := range []string{cert, key} {
			if err := os.Rename(file+".new", file); err != nil {
				t.Fatal(err)
			}
		}
	}
	renew(1)
	p, url := beginServe(t, append(flags, "--public-url", "https://rolecall.example.org", "--tls-cert", cert, "--tls-key",
		key)...)
	address := strings.TrimPrefix(url, "http://")
	shows := func(want int64) error {
		conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			return err
		}
		defer conn.Close()
		if got := conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64(); got != want {
			return fmt.Errorf("the server shows certificate %d, want %d", got, want)
		}
		return nil
	}
	if err := shows(1); err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		ForceAttemptHTTP2: true}}
	if r := request(t, client, http.MethodGet, "https://"+address+"/readyz", "", ""); r.status != http.StatusOK {
		t.Errorf("/readyz over TLS: %d", r.status)
	}
	old := &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11}
	if conn, err := tls.Dial("tcp", address, old); err == nil {
		conn.Close()
		t.Error("the server takes TLS 1.1")
	}
	renew(2)
	eventually(t, func() error { return shows(2) })

	write(t, cert, "nonsense")
	eventually(t, func() error {
		if err := shows(2); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(p.errOut.String(), "could not be read again") {
			return errors.New("no word in the log about the broken certificate")
		}
		return nil
	})
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	if err := shows(2); err != nil {
		t.Error(err)
	}
	renew(3)
	eventually(t, func() error { return shows(3) })
	if code := p.end(t); code != 0 {
		t.Errorf("exit code %d: %s", code, p.errOut)
	}
}

// certificate makes a self-signed certificate and its key, in PEM.
func certificate(t *testing.T, serial int64) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		Subject:      pkix.Name{CommonName: "localhost"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}

// TestServeInTheClear: a listener beyond this machine that speaks plain HTTP is warned of, unless a proxy has the TLS.
func TestServeInTheClear(t *testing.T) {
	t.Parallel()
	flags, _ := controlDatabase(t, pgtest.Shared(t))
	const warning = "cross the network in the clear"
	for _, test := range []struct {
		listen, url string
		warned      bool
	}{
		{"0.0.0.0:0", "http://rolecall.example.org", true},
		{":0", "http://rolecall.example.org", true},
		{"0.0.0.0:0", "https://rolecall.example.org", false},
		{"127.0.0.1:0", "http://rolecall.example.org", false},
		{"localhost:0", "http://rolecall.example.org", false},
	} {
		p := begin(t, append([]string{"serve", "--metrics-listen", "", "--listen", test.listen, "--public-url", test.url},
			flags...)...)
		p.servesAt(t)
		if got := strings.Contains(p.errOut.String(), warning); got != test.warned {
			t.Errorf("%s as %s: warned %t\n%s", test.listen, test.url, got, p.errOut)
		}
		p.end(t)
	}
}
