package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"rolecall/internal/pgtest"
)

// TestReplicas runs three replicas behind a balancer, in front of a control database with a synchronous standby, under a
// load of both APIs that tries nothing twice. The primary of the control database dies and its standby is promoted; the
// replicas are replaced by a next release, which changes every table, and one goes back; one is killed. What was
// acknowledged is there in the end, and no request fails that need not.
func TestReplicas(t *testing.T) {
	// Not beside others: what it promises are times.
	f := newFleet(t)
	l := f.load(t)
	calm := f.calm(t)

	l.run(t, calm)
	f.failOver(t, l, func() { f.control.Kill(t) })
	l.run(t, calm)
	f.upgrade(t, l)
	l.run(t, calm)
	f.kill(t, l)
	l.run(t, calm)
	l.stop()
	l.judge(t)
	t.Parallel() // what was cut off is settled when its time is over, and others need not wait for that
	f.agrees(t, l)
}

// TestControlDatabaseVanishes is the failover of TestReplicas when the primary does not die but says nothing any more, and
// takes connections all the same.
func TestControlDatabaseVanishes(t *testing.T) {
	// Not beside others: what it promises are times.
	f := newFleet(t)
	l := f.load(t)
	l.run(t, time.Second)
	f.failOver(t, l, f.way.Hang)
	l.run(t, time.Second)
	l.stop()
	l.judge(t)
	t.Parallel() // what was cut off is settled when its time is over, and others need not wait for that
	f.agrees(t, l)
}

// fleet is three replicas and what they are in front of.
type fleet struct {
	control  *pgtest.Cluster // the primary
	standby  *pgtest.Cluster
	way      *pgtest.Proxy // to the control database's first primary
	managed  *pgtest.Cluster
	env      []string // of serve and bootstrap
	release  string   // the program
	next     string   // that of the next release
	building chan error
	replicas [3]*replicaProcess
	balancer *balancer
	cluster  string // id of the managed one
	token    string // personal ones of the admin: for what the test asks, and for the readers
	readOnly string
}

const controlPassword, fleetPassword = "password of the control database", "password of the fleet's admin"

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{release: rolecall, building: make(chan error, 1)}
	go func() { f.building <- f.buildNext(t) }()
	f.managed = pgtest.New(t, nil)
	f.control = pgtest.New(t, map[string]string{"synchronous_standby_names": pgtest.StandbyName})
	f.standby = f.control.Standby(t, map[string]string{"synchronous_standby_names": ""})
	f.control.Exec(t, `CREATE ROLE rolecall LOGIN PASSWORD '`+controlPassword+`'`)
	f.control.Exec(t, `CREATE DATABASE rolecall OWNER rolecall`)
	f.way = pgtest.NewProxy(t, f.control)
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword("rolecall", controlPassword), Path: "/rolecall", RawQuery: "sslmode=disable",
		Host: fmt.Sprintf("127.0.0.1:%d,127.0.0.1:%d", f.way.Port, f.standby.Port),
	}
	f.env = append(os.Environ(), "ROLECALL_DATABASE_URL="+u.String(),
		"ROLECALL_MASTER_KEY=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
		"ROLECALL_DRAIN_DELAY=2s")
	bootstrap := exec.Command(rolecall, "bootstrap", "--password-stdin")
	bootstrap.Env, bootstrap.Stdin = f.env, strings.NewReader(fleetPassword)
	if out, err := bootstrap.CombinedOutput(); err != nil {
		t.Fatalf("rolecall bootstrap: %v: %s", err, out)
	}

	f.balancer = newBalancer(t)
	for i := range f.replicas {
		f.replicas[i] = &replicaProcess{address: "127.0.0.1:" + freePort(t), log: filepath.Join(t.TempDir(), "log")}
		f.balancer.add(f.replicas[i].address)
		f.begin(t, i)
	}
	t.Cleanup(func() {
		for _, r := range f.replicas {
			_ = r.cmd.Process.Kill()
			<-r.ended
			if t.Failed() {
				t.Logf("%s: %s", r.address, r.complaints())
			}
		}
	})
	for i := range f.replicas {
		f.ready(t, i)
	}
	f.balancer.watch(t)

	f.token = f.grant(t)
	personal := func(what string) string {
		t.Helper()
		var made struct{ Secret string }
		f.must(t, f.balancer.URL, "POST", "/rolecall/v1/tokens", what, &made)
		return made.Secret
	}
	f.readOnly = personal(`{"name":"of the readers","readOnly":true}`)
	f.token = personal(`{"name":"of the test"}`)
	register := fmt.Sprintf(`{"displayName":"shop","connection":{"url":"postgres://%s@127.0.0.1:%d/postgres","password":%q,`+
		`"tls":{"mode":"disable"}}}`,
		f.managed.User, f.managed.Port, f.managed.Password)
	var registered struct{ ID string }
	f.must(t, f.balancer.URL, "POST", "/rolecall/v1/clusters", register, &registered)
	f.cluster = registered.ID
	for _, r := range f.replicas { // each notices it
		f.sees(t, r, "shop")
	}
	return f
}

// buildNext builds the next release: this one and migrations that touch each table, the first of which takes its time.
func (f *fleet) buildNext(t *testing.T) error {
	folder, err := filepath.Abs("../internal/control/migrations")
	if err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.sql"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no migrations in %s: %w", folder, err)
	}
	changes := []string{`CREATE TABLE later AS SELECT pg_sleep(2)::text`}
	for _, file := range files {
		sql, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for _, m := range regexp.MustCompile(`(?m)^CREATE TABLE (\w+)`).FindAllStringSubmatch(string(sql), -1) {
			changes = append(changes, `ALTER TABLE `+m[1]+` ADD COLUMN later text NOT NULL DEFAULT 'later'`)
		}
	}
	dir := t.TempDir()
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for i, sql := range changes {
		name := fmt.Sprintf("%04d_later.sql", len(files)+1+i)
		overlay.Replace[filepath.Join(folder, name)] = filepath.Join(dir, name)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(sql), 0o600); err != nil {
			return err
		}
	}
	text, err := json.Marshal(overlay)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), text, 0o600); err != nil {
		return err
	}
	f.next = filepath.Join(dir, "rolecall")
	build := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-overlay",
		filepath.Join(dir, "overlay.json"), "-o", f.next, "./cmd/rolecall")
	build.Dir, build.Env = "..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the next release: %w: %s", err, out)
	}
	return nil
}

// replicaProcess is a rolecall serve.
type replicaProcess struct {
	address string
	log     string
	cmd     *exec.Cmd
	ended   chan struct{}
}

func (r *replicaProcess) url() string { return "http://" + r.address }

func (r *replicaProcess) logged(text string) bool {
	log, _ := os.ReadFile(r.log)
	return bytes.Contains(log, []byte(text))
}

// complaints are the last lines of the log that are not those of requests that went well.
func (r *replicaProcess) complaints() string {
	log, _ := os.ReadFile(r.log)
	var lines []string
	for line := range strings.Lines(string(log)) {
		if !strings.Contains(line, `"level":"INFO","msg":"request"`) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-40):], "")
}

// begin starts a replica with the program of the fleet's release.
func (f *fleet) begin(t *testing.T, i int) {
	t.Helper()
	r := f.replicas[i]
	log, err := os.OpenFile(r.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	r.cmd = exec.Command(f.release, "serve", "--listen="+r.address, "--metrics-listen=", "--public-url="+f.balancer.URL,
		"--rate-limit=0")
	r.cmd.Env, r.cmd.Stdout, r.cmd.Stderr = f.env, log, log
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cmd, ended := r.cmd, make(chan struct{})
	r.ended = ended
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
}

// ready waits until a replica says that it is.
func (f *fleet) ready(t *testing.T, i int) {
	t.Helper()
	waitUntil(t, "a replica is ready", func() bool {
		select {
		case <-f.replicas[i].ended:
			t.Fatalf("the replica has ended:\n%s", f.replicas[i].complaints())
		default:
		}
		return isReady(f.replicas[i].address)
	})
}

// end stops a replica as a rollout does.
func (f *fleet) end(t *testing.T, i int) {
	t.Helper()
	r := f.replicas[i]
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-r.ended:
	case <-time.After(patience):
		t.Fatal("a replica did not end")
	}
	if code := r.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("a replica ended with %d:\n%s", code, r.complaints())
	}
}

// waitUntil waits for a condition.
func waitUntil(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it has not come about that %s", what)
		}
	}
}

// calm is how long the load goes on undisturbed between two failures: SOAK_SECONDS for all of them together.
func (f *fleet) calm(t *testing.T) time.Duration {
	return pgtest.SoakTime(t, 4*time.Second) / 4
}

// failOver stops the primary of the control database, and promotes its standby after a while.
func (f *fleet) failOver(t *testing.T, l *load, goAway func()) {
	t.Helper()
	began := time.Now()
	outage := l.expect(window{name: "failover", from: began, allows: func(a answer) string {
		switch after, err := strconv.Atoi(a.retryAfter); {
		case a.read:
			return "a read of database users with a token that was verified before"
		case a.status != http.StatusServiceUnavailable || err != nil || after < 1:
			return "an answer that is not 503 with an integer Retry-After"
		}
		return ""
	}})
	goAway()
	// Longer than a credential counts without a look at its account, which is 5 s, and until both APIs have been asked.
	waitUntil(t, "the outage is felt", func() bool {
		return time.Since(began) > 7*time.Second && l.failed("failover") > 5
	})
	away := time.Since(began)
	reads, slowest := l.readsSince(began)
	promoted := time.Now()
	f.standby.Promote(t)
	f.control, f.standby = f.standby, nil
	// A write to the control database through each replica, and one to the cluster.
	for i, r := range f.replicas {
		name := fmt.Sprintf("recovered %d", i)
		waitUntil(t, "a replica writes again", func() bool {
			a := f.ask(t, r.url(), "POST", "/v3/users", fmt.Sprintf(`{"guid":%q}`, name))
			b := f.ask(t, r.url(), "POST", l.users(), fmt.Sprintf(`{"properties":{"username":%q,"password":"a good password"}}`,
				name))
			return (a.status == 201 || a.status == 422) && b.ok()
		})
	}
	l.end(outage)
	fmt.Printf("replicas: the control database was unreachable for %s, with %d reads, the slowest in %s; "+
		"%s after the promotion began all replicas wrote again\n",
		away.Round(time.Millisecond), reads, slowest.Round(time.Millisecond), time.Since(promoted).Round(time.Millisecond))
	if reads == 0 {
		t.Error("no reads went on while the control database was unreachable")
	}
	// They hear of changes again, before they would have looked of their own accord.
	f.must(t, f.replicas[0].url(), "PATCH", "/rolecall/v1/clusters/"+f.cluster, `{"displayName":"moved"}`, nil)
	for _, r := range f.replicas {
		f.sees(t, r, "moved")
	}
}

// sees waits until a replica knows the cluster by a name. Of itself it looks every 30 s.
func (f *fleet) sees(t *testing.T, r *replicaProcess, name string) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		a := f.ask(t, r.url(), "GET", "/rolecall/v1/clusters/"+f.cluster, "")
		if a.ok() && strings.Contains(a.body, fmt.Sprintf(`"displayName":%q`, name)) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("a replica was not told of the cluster %s: %d %s", name, a.status, a.body)
		}
	}
}

// upgrade replaces the replicas one after the other by the next release, and one by this one again.
func (f *fleet) upgrade(t *testing.T, l *load) {
	t.Helper()
	if err := <-f.building; err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	replace := func(i int, release string) {
		t.Helper()
		f.end(t, i)
		f.release = release
		f.begin(t, i)
		f.ready(t, i)
		f.balancer.sees(t, i, true)
	}
	for i := range f.replicas {
		replace(i, f.next)
		if i > 0 {
			continue
		}
		conn := f.control.Connect(t, "rolecall", controlPassword, "rolecall")
		var missing int
		err := conn.QueryRow(t.Context(), `
			SELECT count(*) FROM pg_class c
			WHERE relnamespace = 'rolecall'::regnamespace AND relkind = 'r' AND relname <> 'migrations'
			AND NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = c.oid AND attname IN ('later', 'pg_sleep'))`).Scan(&missing)
		if err != nil || missing > 0 {
			t.Errorf("the next release has left %d tables as they were: %v", missing, err)
		}
	}
	replace(2, rolecall)
	if !f.replicas[2].logged("a newer release has changed the schema") {
		t.Error("the previous release does not say that the schema is newer")
	}
	fmt.Printf("replicas: an upgrade of three and a step back took %s\n", time.Since(began).Round(time.Millisecond))
}

// kill kills a replica, and starts it again.
func (f *fleet) kill(t *testing.T, l *load) {
	t.Helper()
	const victim = 1
	r := f.replicas[victim]
	f.balancer.goesOn.Store(true)
	defer f.balancer.goesOn.Store(false)
	under := int64(0)
	waitUntil(t, "a request is in flight", func() bool {
		under = f.balancer.backends[victim].underWay.Load()
		return under > 0
	})
	killed := l.expect(window{name: "kill", from: time.Now(), allows: func(a answer) string {
		if a.status != http.StatusBadGateway && a.status != 0 || a.replica != r.address {
			return "a request to another replica, or one that was answered in full"
		}
		return ""
	}})
	if err := r.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-r.ended
	f.balancer.sees(t, victim, false)
	l.end(killed)
	fmt.Printf("replicas: killed with %d requests in flight: %d failed\n", under, l.failed("kill"))
	// If it was the one that sealed the audit log, another one does now.
	head := f.head(t)
	l.run(t, time.Second)
	waitUntil(t, "another replica seals the audit log", func() bool { return f.head(t) > head })
	f.begin(t, victim)
	f.ready(t, victim)
	f.balancer.sees(t, victim, true)
}

func (f *fleet) head(t *testing.T) int {
	t.Helper()
	var verified struct{ Head struct{ Seq int } }
	f.must(t, f.balancer.URL, "GET", "/rolecall/v1/audit/verify", "", &verified)
	return verified.Head.Seq
}

// agrees holds what there is to what was acknowledged.
func (f *fleet) agrees(t *testing.T, l *load) {
	t.Helper()
	// What was cut off by the failover and the kill gets its outcome from one of the settlers.
	conn := f.control.Connect(t, "rolecall", controlPassword, "rolecall")
	value := func(sql string) (n int) {
		t.Helper()
		if err := conn.QueryRow(t.Context(), sql).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	const open = `FROM rolecall.audit a WHERE phase = 'attempt'
		AND NOT EXISTS (SELECT FROM rolecall.audit o WHERE o.attempt = a.attempt AND o.phase = 'outcome')`
	// A deletion may take 90 s before it counts as cut off, which is not waited for.
	const due = `SELECT count(*) ` + open + ` AND action <> 'user.delete'`
	cut := value(due)
	for end := time.Now().Add(settled); value(due) > 0 || value(`SELECT count(*)
		FROM rolecall.audit_unsealed`) > 0; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d attempts have no outcome", value(due))
		}
	}
	if wrong := value(`SELECT (SELECT max(seq) - count(*) FROM rolecall.audit_seals) + (SELECT count(*)
		FROM rolecall.audit) - (SELECT count(*) FROM rolecall.audit_seals)`); wrong != 0 {
		t.Errorf("the audit log and its seals differ by %d", wrong)
	}
	var verified struct {
		OK      bool
		Checked int
		Problem any
	}
	f.must(t, f.balancer.URL, "GET", "/rolecall/v1/audit/verify", "", &verified)
	if !verified.OK || verified.Checked == 0 {
		t.Errorf("the audit log: %+v", verified)
	}

	// Of each action and target the best outcome; an attempt without one is a deletion.
	outcomes := map[string]string{}
	rows, err := conn.Query(t.Context(), `
		SELECT action || ' ' || target, outcome FROM rolecall.audit WHERE phase = 'outcome'
		UNION ALL SELECT action || ' ' || target, 'done' `+open)
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var what, outcome string
		if err := rows.Scan(&what, &outcome); err != nil {
			t.Fatal(err)
		}
		if outcomes[what] != "done" {
			outcomes[what] = outcome
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	for _, done := range l.recorded {
		if outcomes[done] != "done" {
			t.Errorf("%s was acknowledged, and is %q in the audit log", done, outcomes[done])
		}
	}

	lost := 0
	roles := map[string]bool{}
	for name := range strings.Lines(pgtest.Value[string](t, f.managed,
		`SELECT coalesce(string_agg(rolname, chr(10)), '') FROM pg_roles`)) {
		roles[strings.TrimSpace(name)] = true
	}
	for name, passwords := range l.databaseUsers {
		works := func(password string) bool {
			return password == "" && !roles[name] || password != "" && f.managed.Login(name, password) == nil
		}
		if !slices.ContainsFunc(passwords, works) {
			lost++
			t.Errorf("the user %s is there: %t; one of these passwords was acknowledged last, or none was answered: %q", name,
				roles[name], passwords)
		}
	}
	labels := map[string]string{}
	var guid, label string
	rows, err = conn.Query(t.Context(),
		`SELECT guid, coalesce(labels->>'step', 'none') FROM rolecall.accounts WHERE platform_created_at IS NOT NULL`)
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		if err := rows.Scan(&guid, &label); err != nil {
			t.Fatal(err)
		}
		labels[guid] = label
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	for guid, want := range l.platformUsers {
		if !slices.Contains(want, labels[guid]) {
			lost++
			t.Errorf("the platform user %s has the label %q, acknowledged was one of %q", guid, labels[guid], want)
		}
	}
	fmt.Printf("replicas: %d database users and %d platform users, %d lost; %d audit rows verified; "+
		"%d attempts were cut off and settled\n",
		len(l.databaseUsers), len(l.platformUsers), lost, verified.Checked, cut)
}

// answer is the result of a request.
type answer struct {
	what         string
	read         bool // of database users, with a token that was verified before
	began, ended time.Time
	status       int // 0: there was none
	retryAfter   string
	replica      string
	body         string
}

func (a answer) ok() bool { return a.status >= 200 && a.status < 300 }

var noRetries = &http.Client{Timeout: patience, Transport: &http.Transport{MaxIdleConnsPerHost: 32}}

func ask(base, method, path, authorization, body string) (a answer) {
	a.what, a.began = method+" "+path, time.Now()
	defer func() { a.ended = time.Now() }()
	req, err := http.NewRequest(method, base+path, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	req.Header.Set("Authorization", authorization)
	switch {
	case strings.HasSuffix(path, "/oauth/token"):
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	case body != "":
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := noRetries.Do(req)
	if err != nil {
		a.body = err.Error()
		return a
	}
	defer resp.Body.Close()
	a.replica = resp.Header.Get(replicaHeader)
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		a.body = err.Error()
		return a
	}
	a.status, a.retryAfter, a.body = resp.StatusCode, resp.Header.Get("Retry-After"), string(text)
	return a
}

func (f *fleet) ask(t *testing.T, base, method, path, body string) answer {
	t.Helper()
	return ask(base, method, path, "Bearer "+f.token, body)
}

func (f *fleet) must(t *testing.T, base, method, path, body string, v any) {
	t.Helper()
	a := f.ask(t, base, method, path, body)
	if !a.ok() {
		t.Fatalf("%s: %d %s", a.what, a.status, a.body)
	}
	if v != nil {
		if err := json.Unmarshal([]byte(a.body), v); err != nil {
			t.Fatalf("%s: %s: %v", a.what, a.body, err)
		}
	}
}

// signIn asks for a token of admin.
func (f *fleet) signIn() (a answer, token string) {
	form := url.Values{"grant_type": {"password"}, "username": {"admin"}, "password": {fleetPassword}}
	a = ask(f.balancer.URL, "POST", "/uaa/oauth/token", basic("cf", ""), form.Encode())
	var granted struct {
		AccessToken string `json:"access_token"`
	}
	if a.ok() {
		_ = json.Unmarshal([]byte(a.body), &granted)
		a.body = "[tokens]"
	}
	return a, granted.AccessToken
}

func (f *fleet) grant(t *testing.T) string {
	t.Helper()
	a, token := f.signIn()
	if token == "" {
		t.Fatalf("sign in: %d %s", a.status, a.body)
	}
	return token
}

// window is the time of a failure: requests may fail that began in it, or were in flight at its beginning.
type window struct {
	name     string
	from, to time.Time
	allows   func(answer) (why string) // says of a failure why it must not be; "": it may
}

// load is clients that send requests, and what they were answered.
type load struct {
	*fleet
	ctx     context.Context
	cancel  context.CancelFunc
	clients sync.WaitGroup
	bearer  atomic.Pointer[string]

	mu       sync.Mutex
	total    int
	reads    []answer // that went well
	failures []answer
	windows  []*window
	// What there may be: one value when the last change was acknowledged, more when it was not. "" is that there is none.
	databaseUsers, platformUsers map[string][]string
	recorded                     []string // what the audit log must have as done
}

func (f *fleet) load(t *testing.T) *load {
	t.Helper()
	l := &load{fleet: f, databaseUsers: map[string][]string{}, platformUsers: map[string][]string{}}
	l.ctx, l.cancel = context.WithCancel(t.Context())
	bearer := "Bearer " + f.grant(t)
	l.bearer.Store(&bearer)
	for _, authorization := range []string{bearer, "Bearer " + f.readOnly} {
		if a := l.verified(authorization); !a.ok() {
			t.Fatalf("%s: %d %s", a.what, a.status, a.body)
		}
	}
	for w := range 2 {
		l.clients.Go(func() { l.manageDatabaseUsers(w) })
	}
	l.clients.Go(l.managePlatformUsers)
	l.clients.Go(func() { l.readDatabaseUsers(func() string { return "Bearer " + l.readOnly }) })
	l.clients.Go(func() { l.readDatabaseUsers(func() string { return *l.bearer.Load() }) })
	l.clients.Go(l.signInAgain)
	t.Cleanup(l.stop)
	return l
}

func (l *load) stop() {
	l.cancel()
	l.clients.Wait()
}

// run lets the load go on for a while.
func (l *load) run(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

func (l *load) users() string { return "/databases/postgresql/clusters/" + l.cluster + "/users" }

// every does f with 0, 1, 2 …, at most once in each pause, until the load ends.
func (l *load) every(pause time.Duration, f func(i int)) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-l.ctx.Done():
			return
		case <-tick.C:
			f(i)
		}
	}
}

// do sends a request to the balancer, once, and records the answer.
func (l *load) do(read bool, authorization, method, path, body string) answer {
	a := ask(l.balancer.URL, method, path, authorization, body)
	a.read = read
	l.note(a)
	return a
}

func (l *load) note(a answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total++
	switch {
	case !a.ok():
		l.failures = append(l.failures, a)
	case a.read:
		a.body = ""
		l.reads = append(l.reads, a)
	}
}

// change sends a change of what has a name, and notes what there may be now.
func (l *load) change(all map[string][]string, name, value, record, method, path, body string) bool {
	a := l.do(false, *l.bearer.Load(), method, path, body)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !a.ok() {
		if all[name] == nil {
			all[name] = []string{""}
		}
		all[name] = append(all[name], value)
		return false
	}
	all[name] = []string{value}
	l.recorded = append(l.recorded, record+" "+name)
	return true
}

func (l *load) manageDatabaseUsers(w int) {
	l.every(100*time.Millisecond, func(i int) {
		name := fmt.Sprintf("replicas %d-%d", w, i)
		path := l.users() + "/" + url.PathEscape(name)
		first, second := "the first of "+name, "the second of "+name
		_ = l.change(l.databaseUsers, name, first, "user.create", "POST", l.users(),
			fmt.Sprintf(`{"properties":{"username":%q,"password":%q}}`, name, first)) &&
			l.do(true, *l.bearer.Load(), "GET", path, "").ok() &&
			l.change(l.databaseUsers, name, second, "user.password", "PATCH", path,
				fmt.Sprintf(`{"properties":{"password":%q}}`, second)) &&
			i%10 != 0 &&
			l.change(l.databaseUsers, name, "", "user.delete", "DELETE", path, "")
	})
}

func (l *load) managePlatformUsers() {
	l.every(100*time.Millisecond, func(i int) {
		guid := fmt.Sprintf("replicas-%d", i)
		path := "/v3/users/" + guid
		_ = l.change(l.platformUsers, guid, "none", "account.create", "POST", "/v3/users", fmt.Sprintf(`{"guid":%q}`, guid)) &&
			l.do(false, *l.bearer.Load(), "GET", path, "").ok() &&
			l.change(l.platformUsers, guid, "two", "account.update", "PATCH", path, `{"metadata":{"labels":{"step":"two"}}}`) &&
			i%10 != 0 &&
			l.change(l.platformUsers, guid, "", "account.delete", "DELETE", path, "")
	})
}

func (l *load) readDatabaseUsers(authorization func() string) {
	l.every(50*time.Millisecond, func(i int) {
		path := l.users() + "?limit=10"
		if i%2 == 0 {
			path = "/databases/postgresql/clusters"
		}
		l.do(true, authorization(), "GET", path, "")
	})
}

// verified has each replica verify a token. It returns the last answer, or the first that is not a success.
func (l *load) verified(authorization string) (a answer) {
	for _, r := range l.replicas {
		a = ask(r.url(), "GET", l.users()+"?limit=1", authorization, "")
		if !a.ok() {
			return a
		}
	}
	return a
}

// signInAgain gets a token now and then. A token is valid for 20 minutes, and is used until the next one.
func (l *load) signInAgain() {
	l.every(500*time.Millisecond, func(i int) {
		a, token := l.signIn()
		l.note(a)
		if a.ok() && i%100 == 99 {
			if bearer := "Bearer " + token; l.verified(bearer).ok() {
				l.bearer.Store(&bearer)
			}
		}
	})
}

// expect opens a window, and end closes it.
func (l *load) expect(w window) *window {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.windows = append(l.windows, &w)
	return &w
}

func (l *load) end(w *window) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w.to = time.Now()
}

// of is the window in which a request failed.
func (l *load) of(a answer) *window {
	for _, w := range l.windows {
		if !a.ended.Before(w.from) && (w.to.IsZero() || a.began.Before(w.to)) {
			return w
		}
	}
	return nil
}

func (l *load) failed(name string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.failures {
		if w := l.of(a); w != nil && w.name == name {
			n++
		}
	}
	return n
}

// readsSince counts the reads that went well, and finds how long the slowest took.
func (l *load) readsSince(since time.Time) (n int, slowest time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.reads {
		if a.ended.After(since) {
			n, slowest = n+1, max(slowest, a.ended.Sub(a.began))
		}
	}
	return n, slowest
}

// judge fails t for each request that failed and should not have.
func (l *load) judge(t *testing.T) {
	t.Helper()
	wrong, counts := 0, map[string]int{}
	for _, a := range l.failures {
		why, name := "a request when all was well", "calm"
		if w := l.of(a); w != nil {
			why, name = w.allows(a), w.name
		}
		counts[name]++
		if why != "" {
			if wrong++; wrong <= 20 {
				t.Errorf("%s has failed, %s: %s by %s: %d, Retry-After %q, %.300s", why, name, a.what, a.replica, a.status, a.retryAfter,
					a.body)
			}
		}
	}
	fmt.Printf("replicas: %d requests, failed %v, of which %d should not have\n", l.total, counts, wrong)
	if n := l.balancer.nowhere.Load(); n > 0 {
		t.Errorf("%d requests came when no replica was ready", n)
	}
}

// balancer hands requests on to replicas that are ready: it looks at /readyz, keeps connections, and sends nothing twice.
type balancer struct {
	*httptest.Server
	transport http.Transport
	backends  []*backend
	next      atomic.Int64
	nowhere   atomic.Int64 // requests for which no replica was ready
	// goesOn has it try another replica when one does not take the connection, as most balancers do.
	goesOn atomic.Bool
}

type backend struct {
	address  string
	isReady  atomic.Bool
	underWay atomic.Int64
}

const (
	lookEvery     = 100 * time.Millisecond
	replicaHeader = "X-Replica"
)

func newBalancer(t *testing.T) *balancer {
	b := &balancer{}
	b.transport.MaxIdleConnsPerHost = 32
	b.Server = httptest.NewServer(b)
	t.Cleanup(b.Close)
	return b
}

func (b *balancer) add(address string) { b.backends = append(b.backends, &backend{address: address}) }

// watch looks at the replicas until t ends.
func (b *balancer) watch(t *testing.T) {
	for _, one := range b.backends {
		one.isReady.Store(isReady(one.address))
		go func() {
			for tick := time.NewTicker(lookEvery); ; {
				select {
				case <-tick.C:
					one.isReady.Store(isReady(one.address))
				case <-t.Context().Done():
					tick.Stop()
					return
				}
			}
		}()
	}
}

// isReady looks over a connection of its own.
func isReady(address string) bool {
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + address + "/readyz")
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func (b *balancer) sees(t *testing.T, i int, ready bool) {
	t.Helper()
	waitUntil(t, fmt.Sprintf("the balancer sees that a replica is ready: %t", ready),
		func() bool { return b.backends[i].isReady.Load() == ready })
}

func (b *balancer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client hung up
	}
	first := int(b.next.Add(1))
	for n := range b.backends {
		one := b.backends[(first+n)%len(b.backends)]
		if !one.isReady.Load() {
			continue
		}
		out := r.Clone(r.Context())
		out.RequestURI, out.URL.Scheme, out.URL.Host = "", "http", one.address
		out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		if len(body) == 0 {
			out.Body = http.NoBody
		}
		out.Header.Del("Connection")
		one.underWay.Add(1)
		resp, err := b.transport.RoundTrip(out)
		one.underWay.Add(-1)
		if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" && b.goesOn.Load() {
			one.isReady.Store(false)
			continue
		}
		w.Header().Set(replicaHeader, one.address)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		resp.Header.Del("Connection")
		maps.Copy(w.Header(), resp.Header)
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, resp.Body)
		return
	}
	b.nowhere.Add(1)
	http.Error(w, "no replica is ready", http.StatusServiceUnavailable)
}
