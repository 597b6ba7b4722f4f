package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/pgtest"
)

// The instants at which writes are broken: some in "make test-majors", more in "make test-all", and all in "make soak".
var (
	moreInstants = pgtest.Full()
	everyInstant = os.Getenv("SOAK_SECONDS") != ""
)

// TestKilledAtAnyInstant kills the program after a statement that a write has PostgreSQL execute, and starts it again. The
// change is wholly done or not at all, and the audit log knows which; the same request again ends well. A write that was
// answered is done, though the program is killed with its answer.
func TestKilledAtAnyInstant(t *testing.T) {
	t.Parallel()
	breakAll(t, func(t *testing.T, w *world, x *write) {
		switch {
		case everyInstant:
			w.breakEach(t, x, "kill", 1)
			w.breakEach(t, x, "send", 1)
		case moreInstants:
			w.breakEach(t, x, "kill", 3)
		case x.long:
			w.breakEach(t, x, "kill", 30)
		default:
			w.breakEach(t, x, "kill", 10)
		}
	})
}

// TestConnectionLostAtAnyInstant cuts the connection between the program and PostgreSQL, between a COMMIT and its answer. In
// "make soak" it does so at every statement, before and after PostgreSQL receives it.
func TestConnectionLostAtAnyInstant(t *testing.T) {
	t.Parallel()
	breakAll(t, func(t *testing.T, w *world, x *write) {
		switch {
		case everyInstant:
			w.breakEach(t, x, "cut", 1)
			w.breakEach(t, x, "lose", 1)
		case moreInstants:
			w.breakEach(t, x, "commit", 1)
		default:
			w.breakEach(t, x, "commit", 3)
		}
	})
}

// TestPostgreSQLKilledAtAnyInstant kills PostgreSQL, with the cluster and the control database, after one statement of a
// write, and starts it again. In "make soak" it does so after every statement.
func TestPostgreSQLKilledAtAnyInstant(t *testing.T) {
	t.Parallel()
	breakAll(t, func(t *testing.T, w *world, x *write) {
		n := slices.Index(writes, x)
		switch {
		case everyInstant:
			w.breakEach(t, x, "wait", 1)
		case moreInstants || n%3 == 0:
			// Each write has its own instant, so together they cover many.
			for at := 3 + n%8; at > 0 && !w.breakAt(t, x, "wait", at); at -= 2 {
			}
		}
	})
}

// breakAll breaks all writes, some at a time.
func breakAll(t *testing.T, f func(t *testing.T, w *world, x *write)) {
	t.Helper()
	began, work := time.Now(), make(chan *write)
	var worlds sync.WaitGroup
	var seen counts
	for range 3 {
		w := newWorld(t, &seen)
		worlds.Go(func() {
			for x := range work {
				t.Run(x.name, func(t *testing.T) { f(t, w, x) })
			}
			t.Run("in the end", w.agrees)
		})
	}
	for _, x := range writes {
		work <- x
	}
	close(work)
	worlds.Wait()
	fmt.Printf("%s: %d writes broken at %d instants in %s: %d changes found done, %d not; %d answered nevertheless\n",
		t.Name(), len(writes), seen.broken.Load(), time.Since(began).Round(time.Second), seen.done.Load(), seen.notDone.Load(),
		seen.answered.Load())
}

type counts struct{ broken, done, notDone, answered atomic.Int64 }

// world is one PostgreSQL that is a cluster and has the control database, and one rolecall serve in front of it, which can
// be broken.
type world struct {
	pg, other *pgtest.Cluster // other is a second cluster, that is not registered
	seen      *counts
	keys      []string // the master keys, the first one seals
	point     string   // the file that says where to break
	cluster   string
	token     string
	minted    time.Time
	conns     map[string]*pgx.Conn

	process *exec.Cmd
	began   time.Time
	ended   chan struct{}
	url     string
	log     *bytes.Buffer
}

// breakable is the program, built so that it can be broken.
var breakable = sync.OnceValues(func() (string, error) {
	path := rolecall + "-failpoint"
	build := exec.Command("go", "build", "-tags=failpoint", "-buildvcs=false", "-o", path, "./cmd/rolecall")
	build.Dir = ".."
	out, err := build.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return path, err
})

// Nothing in the program that is shipped can break it.
func TestNoFailpointIsShipped(t *testing.T) {
	breakable, err := breakable()
	if err != nil {
		t.Fatal(err)
	}
	for program, want := range map[string]bool{rolecall: false, breakable: true} {
		data, err := os.ReadFile(program)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"ROLECALL_FAILPOINT", "rolecall/internal/failpoint"} {
			if bytes.Contains(data, []byte(text)) != want {
				t.Errorf("%s has %s: %v", program, text, !want)
			}
		}
	}
}

func masterKey() string {
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	return base64.StdEncoding.EncodeToString(key)
}

const adminPassword = "the admin's password"

func newWorld(t *testing.T, seen *counts) *world {
	t.Helper()
	w := &world{
		pg:    pgtest.New(t, nil),
		other: pgtest.New(t, nil),
		seen:  seen,
		keys:  []string{masterKey(), masterKey()},
		point: filepath.Join(t.TempDir(), "failpoint"),
		conns: map[string]*pgx.Conn{},
	}
	for _, pg := range []*pgtest.Cluster{w.pg, w.other} {
		pg.Exec(t, `CREATE ROLE rolecall_admin LOGIN CREATEROLE CREATEDB PASSWORD 'administrator';
			GRANT pg_signal_backend TO rolecall_admin; CREATE ROLE everybody; CREATE ROLE readers; CREATE ROLE heir;
			GRANT everybody, readers, heir TO rolecall_admin WITH ADMIN OPTION`)
		pg.Exec(t, `CREATE DATABASE elsewhere OWNER heir`)
	}
	w.pg.Exec(t, `CREATE DATABASE control`)
	t.Cleanup(w.kill)

	bootstrap := exec.Command(rolecall, "bootstrap", "admin", "--password-stdin")
	bootstrap.Env, bootstrap.Stdin = w.environment(), strings.NewReader(adminPassword)
	if out, err := bootstrap.CombinedOutput(); err != nil {
		t.Fatalf("bootstrap: %v: %s", err, out)
	}
	w.start(t)
	var made struct{ ID string }
	w.want(t, &made, 201, request{"POST", "/rolecall/v1/clusters", registration("main", w.pg), nil})
	w.cluster = made.ID
	return w
}

// registration is the body that registers a cluster.
func registration(name string, pg *pgtest.Cluster) string {
	return object(map[string]any{
		"displayName": name,
		"connection": map[string]any{
			"url":      fmt.Sprintf("postgres://rolecall_admin@127.0.0.1:%d/postgres", pg.Port),
			"password": "administrator",
			"tls":      map[string]any{"mode": "disable"},
		},
		"memberOf":  []string{"everybody"},
		"grantable": []string{"readers"},
	})
}

func object(fields map[string]any) string {
	text, err := json.Marshal(fields)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func (w *world) environment() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "ROLECALL_FAILPOINT=" + w.point, "ROLECALL_DATABASE_URL=" +
		w.pg.URL("control"),
		"ROLECALL_MASTER_KEY=" + strings.Join(w.keys, "\n")}
}

// start starts the program and waits until it serves, and its settler has done its first pass.
func (w *world) start(t *testing.T) {
	t.Helper()
	program, err := breakable()
	if err != nil {
		t.Fatal(err)
	}
	before := w.query(t, "control", `SELECT clock_timestamp()::text`)[0]
	w.process = exec.Command(program, "serve", "--public-url=http://rolecall.test", "--listen=127.0.0.1:0", "--metrics-listen=",
		"--rate-limit=0")
	w.process.Env = w.environment()
	stderr, err := w.process.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.process.Start(); err != nil {
		t.Fatal(err)
	}
	w.began, w.ended = time.Now(), make(chan struct{})
	log := &bytes.Buffer{}
	w.log = log
	serving := make(chan string, 1)
	go func(process *exec.Cmd, ended chan struct{}) {
		defer close(ended)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			var line struct{ Msg, Address string }
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "serving" {
				serving <- line.Address
			}
			log.Write(append(lines.Bytes(), '\n'))
		}
		_ = process.Wait()
	}(w.process, w.ended)
	select {
	case address := <-serving:
		w.url = "http://" + address
	case <-w.ended:
		t.Fatalf("rolecall serve ended before it was ready:\n%s", w.logged())
	case <-time.After(patience):
		t.Fatalf("rolecall serve is not ready:\n%s", w.logged())
	}
	for !w.is(t, "control", `EXISTS (SELECT FROM rolecall.watermarks WHERE name = 'audit settled'
		AND time > $1::text::timestamptz)`, before) {
		time.Sleep(2 * time.Millisecond)
		if time.Since(w.began) > patience {
			t.Fatalf("the settler does not settle:\n%s", w.logged())
		}
	}
}

// kill ends the program at once, if it runs.
func (w *world) kill() {
	if w.process != nil {
		_ = w.process.Process.Kill()
		<-w.ended
	}
}

// logged ends the program, and returns what it has logged.
func (w *world) logged() string {
	_ = w.process.Process.Signal(syscall.SIGTERM)
	<-w.ended
	return w.log.String()
}

func (w *world) restart(t *testing.T) {
	t.Helper()
	w.kill()
	w.start(t)
}

func (w *world) runs() bool {
	select {
	case <-w.ended:
		return false
	default:
		return true
	}
}

// request is one of HTTP. It is sent as the admin unless a header says otherwise.
type request struct {
	method, path, body string
	headers            []string // Name: value
}

var onceOnly = &http.Client{Timeout: patience,
	Transport: &http.Transport{DisableKeepAlives: true}} // which sends nothing twice

func (w *world) send(r request) (status int, body string, err error) {
	req, err := http.NewRequest(r.method, w.url+r.path, strings.NewReader(r.body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+w.token)
	for _, h := range r.headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := onceOnly.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if after, wrong := strconv.Atoi(resp.Header.Get("Retry-After")); resp.StatusCode == http.StatusServiceUnavailable &&
		(wrong != nil || after < 1) {
		err = errNoRetryAfter
	}
	return resp.StatusCode, string(data), err
}

var errNoRetryAfter = errors.New("503 without an integer Retry-After")

// want sends a request that has to be answered with the status, and decodes the answer into v unless that is nil.
func (w *world) want(t *testing.T, v any, status int, r request) {
	t.Helper()
	w.signIn(t)
	got, body, err := w.send(r)
	if err == nil && v != nil {
		err = json.Unmarshal([]byte(body), v)
	}
	if err != nil || got != status {
		t.Fatalf("%s %s: %d %s, %v; want %d", r.method, r.path, got, body, err, status)
	}
}

// signIn gets a new token if the present one expires soon.
func (w *world) signIn(t *testing.T) {
	t.Helper()
	if time.Since(w.minted) < 5*time.Minute {
		return
	}
	w.minted = time.Now()
	var granted struct {
		Token string `json:"access_token"`
	}
	w.want(t, &granted, 200, tokenRequest("cf", "", url.Values{"grant_type": {"password"}, "username": {"admin"},
		"password": {adminPassword}}))
	w.token = granted.Token
}

// tokenRequest asks for tokens as a client.
func tokenRequest(client, secret string, form url.Values) request {
	return request{"POST", "/uaa/oauth/token", form.Encode(), []string{"Content-Type: application/x-www-form-urlencoded",
		"Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(client+":"+secret))}}
}

// query returns what a query selects, a text a row, from a database of the cluster.
func (w *world) query(t *testing.T, database, sql string, args ...any) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn := w.conns[database]
	if conn == nil || conn.IsClosed() {
		var err error
		if conn, err = pgx.Connect(ctx, w.pg.URL(database)); err != nil {
			t.Fatal(err)
		}
		w.conns[database] = conn
	}
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	texts, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return texts
}

// is returns what a query selects, which is true or false.
func (w *world) is(t *testing.T, database, sql string, args ...any) bool {
	t.Helper()
	return slices.Equal(w.query(t, database, `SELECT (`+sql+`)::text`, args...), []string{"true"})
}

// write is a change by one request.
type write struct {
	name, action string // action is what the audit log calls it; "": it is not recorded
	// answer is the status when it is done, and again that of the same request once more.
	answer, again int
	// lost is what may be answered instead of 503 when PostgreSQL cannot be reached, because the request named it.
	lost int
	// unknowable is set when nothing in the cluster tells that it was done.
	unknowable bool
	// long is set when it takes many statements, of which "make test-majors" breaks fewer.
	long bool
	// arrange makes what the write works on, under a name that nothing else has. It returns the request, and what says
	// whether the change is done, and fails the test if half of it is done.
	arrange func(t *testing.T, w *world, name string) (request, func(t *testing.T) bool)
}

// breakEach breaks a write at its statements, of which it may be every so many that is counted, until there is no such
// statement any more.
func (w *world) breakEach(t *testing.T, x *write, word string, every int) {
	t.Helper()
	for at := 1 + slices.Index(writes, x)%every; w.breakAt(t, x, word, at); at += every {
	}
}

// breakAt breaks a write at a statement and checks the result. It reports whether the write reached that statement.
func (w *world) breakAt(t *testing.T, x *write, word string, at int) (broken bool) {
	t.Helper()
	name := fmt.Sprintf("%s %s %d", x.name, word, at)
	// Attempts that are to be broken count as cut off at once. The settler of their own process must not see them: it works
	// at the start, and then every five seconds.
	if w.process == nil || !w.runs() || time.Since(w.began) > 2*time.Second || word == "wait" {
		w.restart(t)
	}
	r, isDone := x.arrange(t, w, name)
	w.signIn(t)
	mark := w.query(t, "control", `SELECT coalesce(max(id), 0)::text FROM rolecall.audit`)[0]
	defer os.Remove(w.point + ".reached")
	if err := os.WriteFile(w.point+".new", fmt.Appendf(nil, "%d %s", at, word), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(w.point+".new", w.point); err != nil {
		t.Fatal(err)
	}
	status, body, err := w.sendBroken(t, r, word)
	broken = os.Remove(w.point) != nil // or else it was reached, and has another name
	acknowledged := err == nil && status == x.answer
	switch {
	case errors.Is(err, errNoRetryAfter):
		t.Errorf("%s: %s: %v", name, body, err)
	case !broken && !acknowledged:
		t.Errorf("%s: %d %s, %v; want %d", name, status, body, err, x.answer)
	case broken && (word == "kill" || word == "send"):
		select {
		case <-w.ended:
		case <-time.After(patience):
			t.Fatalf("%s: the program lives: %d %s, %v\n%s", name, status, body, err, w.logged())
		}
	case broken && !acknowledged && status != 503 && status != x.lost:
		t.Errorf("%s: %d %s, %v; want %d or 503", name, status, body, err, x.answer)
	}
	if !broken {
		w.kill() // with the answer
	}
	if broken {
		w.seen.broken.Add(1)
		if acknowledged {
			w.seen.answered.Add(1)
		}
	}

	// What Rolecall does by itself is not counted: it may end other leases in the meantime.
	const unsettled = `SELECT a.action || ' ' || a.target FROM rolecall.audit a
		WHERE a.id > $1::text::bigint AND a.phase = 'attempt' AND a.account_guid <> 'rolecall'
		AND NOT EXISTS (SELECT FROM rolecall.audit o WHERE o.attempt = a.attempt AND o.phase = 'outcome')`
	if !w.runs() || len(w.query(t, "control", unsettled, mark)) > 0 {
		w.restart(t)
	}
	for end := time.Now().Add(patience); len(w.query(t, "control", unsettled, mark)) > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not settled: %s\n%s", name, w.query(t, "control", unsettled, mark), w.logged())
		}
	}

	done := isDone(t)
	if broken && done {
		w.seen.done.Add(1)
	} else if broken {
		w.seen.notDone.Add(1)
	}
	if acknowledged && !done {
		t.Errorf("%s: answered as done, and lost", name)
	}
	if x.action != "" {
		outcomes := w.query(t, "control", `SELECT outcome || coalesce(': ' || (detail->>'settled'), '') FROM rolecall.audit
			WHERE id > $1::text::bigint AND phase = 'outcome' AND action = $2 AND account_guid <> 'rolecall'`, mark, x.action)
		recorded := slices.ContainsFunc(outcomes, func(o string) bool { return strings.HasPrefix(o, "done") })
		unknown := slices.ContainsFunc(outcomes, func(o string) bool { return strings.HasPrefix(o, "unknown") })
		if recorded != done && !(unknown && x.unknowable) || unknown && !x.unknowable || len(outcomes) > 1 {
			t.Errorf("%s: done is %v, the audit log says %q", name, done, outcomes)
		}
	}

	want := x.answer
	if done {
		want = x.again
	}
	status, body, err = w.send(r)
	for end := time.Now().Add(10 * time.Second); word == "wait" && (status == 503 || status == x.lost) &&
		time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		status, body, err = w.send(r)
	}
	if err != nil || status != want {
		t.Fatalf("%s: the same again (done is %v): %d %s, %v; want %d\n%s", name, done, status, body, err, want, w.logged())
	} else if !isDone(t) {
		t.Errorf("%s: the same again was answered with %d, and not done", name, status)
	}
	return broken
}

// sendBroken sends a request at one of whose statements PostgreSQL is perhaps killed.
func (w *world) sendBroken(t *testing.T, r request, word string) (status int, body string, err error) {
	t.Helper()
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		status, body, err = w.send(r)
	}()
	for word == "wait" {
		select {
		case <-answered:
			return status, body, err
		case <-time.After(time.Millisecond):
		}
		if _, missing := os.Stat(w.point + ".reached"); missing == nil {
			break
		}
	}
	if word == "wait" {
		w.pg.Kill(t)
		clear(w.conns)
		w.pg.Start(t)
		if err := os.Remove(w.point + ".reached"); err != nil {
			t.Error(err)
		}
	}
	<-answered
	return status, body, err
}

// agrees holds all that is left in the end against the audit log: who has changed a role or database last is recorded, and
// the chain is whole.
func (w *world) agrees(t *testing.T) {
	w.restart(t)
	comments := w.query(t, "postgres", `
		SELECT rolname || E'\n' || shobj_description(oid, 'pg_authid') FROM pg_roles
		WHERE shobj_description(oid, 'pg_authid') LIKE '%rolecall:v1%' UNION ALL
		SELECT datname || E'\n' || shobj_description(oid, 'pg_database') FROM pg_database
		WHERE shobj_description(oid, 'pg_database') LIKE '%rolecall:v1%'`)
	for _, c := range comments {
		name, comment, _ := strings.Cut(c, "\n")
		var p struct{ Attempt, State string }
		if err := json.Unmarshal([]byte(strings.TrimPrefix(comment, "rolecall:v1 ")), &p); err != nil {
			t.Errorf("%s: %v: %s", name, err, comment)
			continue
		}
		outcome := strings.Join(w.query(t, "control",
			`SELECT outcome FROM rolecall.audit WHERE attempt = $1::text::uuid AND phase = 'outcome'`, p.Attempt), " ")
		unknowable := strings.HasPrefix(name, "limits") || strings.HasPrefix(name, "forbid login")
		if outcome != "done" && !(outcome == "unknown" && unknowable) {
			t.Errorf("%s was last changed by an attempt whose outcome is %q: %s", name, outcome, comment)
		}
	}
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		var verified struct {
			OK       bool
			Checked  int
			Unsealed struct{ Count int }
		}
		w.want(t, &verified, 200, request{"GET", "/rolecall/v1/audit/verify", "", nil})
		if verified.OK && verified.Checked > 0 && verified.Unsealed.Count == 0 {
			break
		}
		if !verified.OK || time.Now().After(end) {
			t.Fatalf("the audit log: %+v", verified)
		}
	}
}
