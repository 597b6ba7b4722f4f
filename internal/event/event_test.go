package event_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/control"
	"rolecall/internal/event"
	"rolecall/internal/pgtest"
	"rolecall/internal/secret"
	"rolecall/internal/servicetest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// patience is how long anything may take before a test fails.
const patience = 60 * time.Second

var root = &account.Principal{GUID: "root-guid", Username: "root", Scopes: account.AdminScopes}

// fixture is a control database with a service that delivers.
type fixture struct {
	*event.Service
	db  *control.DB
	log *servicetest.Log
}

var databases atomic.Int64

// newFixture makes a service whose times are short. Nothing is delivered before run.
func newFixture(t *testing.T) *fixture {
	t.Helper()
	db := servicetest.Control(t, pgtest.Shared(t), fmt.Sprintf("events_%d", databases.Add(1)))
	log := &servicetest.Log{}
	return &fixture{db: db, log: log, Service: &event.Service{
		DB: db, Audit: &audit.Log{DB: db}, Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		AllowPrivate: true, FirstRetry: time.Millisecond, Poll: 20 * time.Millisecond,
	}}
}

// run delivers until the end of the test, or until the function that it returns is called.
func (f *fixture) run(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f.Run(ctx)
	}()
	stop = func() { cancel(); <-ended }
	t.Cleanup(stop)
	return stop
}

// record writes a row about a target and seals it.
func (f *fixture) record(t *testing.T, action string, targets ...string) {
	t.Helper()
	for _, target := range targets {
		must(t, f.db.Tx(t.Context(), func(tx pgx.Tx) error {
			return f.Audit.Record(t.Context(), tx, root.Entry(action, target, map[string]any{"note": "of " + target}))
		}))
	}
	f.seal(t)
}

func (f *fixture) seal(t *testing.T) {
	t.Helper()
	for {
		n, err := f.Audit.Seal(t.Context())
		must(t, err)
		if n == 0 {
			return
		}
	}
}

func (f *fixture) head(t *testing.T) int64 {
	t.Helper()
	head, err := f.Audit.ReadHead(t.Context())
	must(t, err)
	return head.Seq
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// message is what a receiver gets.
type message struct {
	ID, Sent, Signature string
	Raw                 []byte
	Type                string
	Data                struct {
		Seq            int64
		Phase, User    string
		Detail         map[string]any
		FromSeq, ToSeq int64
		Message        string
	}
}

// receiver is a webhook's server, which keeps the messages that it accepts. The last one may come again, if the answer to it
// was too late.
type receiver struct {
	*httptest.Server
	mu      sync.Mutex
	got     []message
	last    string           // id of the last one
	handler http.HandlerFunc // nil: it accepts
	tried   int
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(r.serve))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) serve(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(q.Body)
	m := message{ID: q.Header.Get("webhook-id"), Sent: q.Header.Get("webhook-timestamp"),
		Signature: q.Header.Get("webhook-signature"), Raw: body}
	if err == nil {
		err = json.Unmarshal(body, &m)
	}
	r.mu.Lock()
	r.tried++
	handler := r.handler
	if handler == nil && err == nil && m.ID != r.last {
		r.got, r.last = append(r.got, m), m.ID
	}
	r.mu.Unlock()
	if handler != nil {
		handler(w, q)
	}
}

// answers sets how the next messages are answered; nil: they are accepted.
func (r *receiver) answers(handler http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.handler, r.tried = handler, 0
}

func (r *receiver) messages() []message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

// gets waits until the receiver has accepted messages about these targets, and nothing else, and forgets them.
func (r *receiver) gets(t *testing.T, targets ...string) []message {
	t.Helper()
	eventually(t, fmt.Sprintf("the messages %v", targets), func() bool { return len(r.messages()) >= len(targets) })
	var got []string
	r.mu.Lock()
	defer r.mu.Unlock()
	messages := r.got
	for _, m := range messages {
		got = append(got, m.Data.User)
	}
	if !slices.Equal(got, targets) {
		t.Fatalf("the receiver got %q, want %q", got, targets)
	}
	r.got = nil
	return messages
}

func (r *receiver) attempts(t *testing.T, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d attempts", n), func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.tried >= n
	})
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// becomes waits for a state of a webhook.
func (f *fixture) becomes(t *testing.T, id uuid.UUID, what string, ok func(*event.Webhook) bool) *event.Webhook {
	t.Helper()
	var w *event.Webhook
	eventually(t, what, func() bool {
		var err error
		w, err = f.Webhook(t.Context(), root, id.String())
		must(t, err)
		return ok(w)
	})
	return w
}

func (f *fixture) create(t *testing.T, url string, events ...string) (*event.Webhook, secret.Text) {
	t.Helper()
	w, key, err := f.CreateWebhook(t.Context(), root, event.NewWebhook{Name: "hook-" + uuid.NewString()[:8], URL: url,
		Events: events})
	must(t, err)
	return w, key
}

// A receiver gets each row once, in order, whatever it does in between: it is down, fails, hangs, is slow, redirects, or
// asks to be left alone. Two replicas deliver.
func TestDelivery(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.Timeout = 3 * time.Second
	f.record(t, audit.CreateUser, "before") // before the webhook
	r := newReceiver(t)
	down := httptest.NewServer(nil)
	down.Close()
	w, key := f.create(t, down.URL+"/path-with-a-token", "user.*")
	f.run(t)
	f.run(t)
	f.record(t, audit.CreateUser, "one", "two")
	f.record(t, audit.CreateDatabase, "not for it")
	failing := f.becomes(t, w.ID, "failures while it is down", func(w *event.Webhook) bool { return !w.FailingSince.IsZero() })
	if !strings.Contains(failing.LastError, "refused") || strings.Contains(failing.LastError, "token") ||
		failing.State != event.Active || failing.Backlog < 3 {
		t.Errorf("while it is down: %+v", failing)
	}
	// A change is tried at once, not after the pause.
	_, err := f.db.Pool.Exec(t.Context(), `UPDATE followers SET failures = 20`)
	must(t, err)
	_, err = f.UpdateWebhook(t.Context(), root, w.ID.String(), event.WebhookChange{URL: &r.URL})
	must(t, err)
	messages := r.gets(t, "one", "two")
	for _, m := range messages {
		want, err := event.Signature([]secret.Text{key}, m.ID, m.Sent, m.Raw)
		must(t, err)
		if m.Signature != want || !strings.HasPrefix(m.ID, "evt_") || m.Type != audit.CreateUser || m.Data.Phase != "outcome" ||
			m.Data.Detail["note"] != "of "+m.Data.User {
			t.Errorf("the message is %+v, %s", m, m.Raw)
		}
	}
	if messages[0].ID == messages[1].ID || messages[0].Data.Seq >= messages[1].Data.Seq {
		t.Errorf("the messages are %+v", messages)
	}
	release := make(chan struct{})
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		why     string
	}{
		"500":       {status(500), "answered 500"},
		"404":       {status(404), "answered 404"},
		"redirects": {http.RedirectHandler(r.URL+"/elsewhere", http.StatusFound).ServeHTTP, "redirects are not followed"},
		"busy": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(429)
		}, "answered 429"},
		"hangs": {func(_ http.ResponseWriter, q *http.Request) {
			select {
			case <-q.Context().Done():
			case <-release:
			}
		}, "exceeded"},
		"cuts off": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
	} {
		r.answers(test.handler)
		f.record(t, audit.DeleteUser, name)
		r.attempts(t, 1)
		failing := f.becomes(t, w.ID, name, func(w *event.Webhook) bool { return strings.Contains(w.LastError, test.why) })
		if failing.State != event.Active || len(r.messages()) > 0 {
			t.Errorf("%s: %+v, %d messages", name, failing, len(r.messages()))
		}
		r.answers(nil)
		r.gets(t, name)
	}
	close(release)
	r.answers(func(w http.ResponseWriter, _ *http.Request) { // slow, but it accepts; the message is not counted
		time.Sleep(300 * time.Millisecond)
		w.WriteHeader(http.StatusAccepted)
	})
	f.record(t, audit.DeleteUser, "slow")
	f.becomes(t, w.ID, "the slow one", func(w *event.Webhook) bool { return w.Backlog == 0 && w.FailingSince.IsZero() })
	r.answers(nil)
	f.record(t, audit.DeleteUser, "last")
	r.gets(t, "last")
	if log := f.log.String(); strings.Contains(log, "path-with-a-token") || strings.Contains(log, string(key)) {
		t.Errorf("the log has a secret:\n%s", log)
	}
}

// A webhook that answers 410, or accepts nothing for too long, fails and gets nothing until an admin resumes it. A paused
// one gets nothing either. None of them loses a row, and a row that is replayed has the same id.
func TestFailedPausedReplayed(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.RetryFor = 300 * time.Millisecond
	r := newReceiver(t)
	w, _ := f.create(t, r.URL)
	id := w.ID.String()
	f.run(t)
	f.record(t, audit.CreateUser, "first")
	f.seal(t)
	messages := r.gets(t, w.Name, "first") // the row of its creation is younger than it
	set := func(state event.State) {
		t.Helper()
		_, err := f.UpdateWebhook(t.Context(), root, id, event.WebhookChange{State: &state})
		must(t, err)
		f.seal(t)
	}
	for _, code := range []int{410, 503} {
		r.answers(status(code))
		f.record(t, audit.CreateUser, "kept")
		failed := f.becomes(t, w.ID, "FAILED", func(w *event.Webhook) bool { return w.State == event.Failed })
		if !strings.Contains(failed.LastError, fmt.Sprint(code)) || failed.FailingSince.IsZero() {
			t.Errorf("failed: %+v", failed)
		}
		r.answers(nil)
		f.record(t, audit.CreateUser, "in the meantime")
		set(event.Active)
		r.gets(t, "kept", "in the meantime", w.Name)
	}
	set(event.Paused)
	f.record(t, audit.CreateUser, "while paused")
	if paused := f.becomes(t, w.ID, "", always); paused.State != event.Paused || paused.Backlog == 0 {
		t.Errorf("paused: %+v", paused)
	}
	if late := r.messages(); len(late) > 1 { // the row of the pause itself may have been on its way
		t.Errorf("a paused webhook got %+v", late)
	}
	set(event.Active)
	eventually(t, "the rest", func() bool { return f.becomes(t, w.ID, "", always).Backlog == 0 })
	r.mu.Lock()
	r.got = nil
	r.mu.Unlock()
	_, err := f.Replay(t.Context(), root, id, messages[0].Data.Seq)
	must(t, err)
	eventually(t, "the replay", func() bool { return f.becomes(t, w.ID, "", always).Backlog == 0 })
	again := r.messages()
	if len(again) < 2 || again[0].ID != messages[0].ID || again[1].ID != messages[1].ID {
		t.Errorf("the replay is %+v, want first %+v", again, messages)
	}
	ids := map[string]bool{}
	for i, m := range again {
		if ids[m.ID] || i > 0 && m.Data.Seq != again[i-1].Data.Seq+1 {
			t.Errorf("message %d of the replay: %+v", i, m)
		}
		ids[m.ID] = true
	}
	for _, seq := range []int64{0, -1, f.head(t) + 2} {
		if _, err := f.Replay(t.Context(), root, id, seq); err == nil {
			t.Errorf("a replay from %d was accepted", seq)
		}
	}
	must(t, f.DeleteWebhook(t.Context(), root, id))
	var tasks int
	must(t, f.db.Pool.QueryRow(t.Context(), `SELECT count(*) FROM tasks WHERE due > 'epoch'`).Scan(&tasks))
	if tasks != 0 {
		t.Errorf("%d tasks are left", tasks)
	}
}

func always(*event.Webhook) bool { return true }

// Rows that the retention removes before they are delivered are reported, to the receiver and in the state. So is a log that
// was restored: the receiver is further than its head, or has other rows.
func TestGapAndRestore(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	r := newReceiver(t)
	w, _ := f.create(t, r.URL, "user.create")
	paused := event.Paused
	_, err := f.UpdateWebhook(t.Context(), root, w.ID.String(), event.WebhookChange{State: &paused})
	must(t, err)
	f.record(t, audit.CreateUser, "removed", "kept")
	last := f.head(t)
	if n, err := f.Audit.Remove(t.Context(), 0); err != nil || int64(n) != last-1 {
		t.Fatalf("%d rows were removed: %v", n, err)
	}
	f.run(t)
	resume := func() {
		t.Helper()
		active := event.Active
		_, err := f.UpdateWebhook(t.Context(), root, w.ID.String(), event.WebhookChange{State: &active})
		must(t, err)
	}
	resume()
	gap := r.gets(t, "", "kept")[0]
	if gap.Type != event.Gap || gap.Data.FromSeq != 1 || gap.Data.ToSeq != last-1 ||
		!strings.Contains(gap.Data.Message, "retention") {
		t.Errorf("the notice is %s", gap.Raw)
	}
	if w := f.becomes(t, w.ID, "", always); w.GapFrom != 1 || w.GapTo != last-1 {
		t.Errorf("the state is %+v", w)
	}
	if _, err := f.Replay(t.Context(), root, w.ID.String(), 1); err == nil ||
		!strings.Contains(err.Error(), fmt.Sprint(last)) {
		t.Errorf("a replay of removed rows: %v", err)
	}
	// The log is restored to before what the receiver has: its cursor is beyond the head, or at a row of another log.
	for _, ahead := range []int64{100, 0} {
		f.seal(t)
		head := f.head(t)
		_, err = f.db.Pool.Exec(t.Context(), `UPDATE followers SET seq = $1, mac = 'another'`, head+ahead)
		must(t, err)
		restored := r.gets(t, "")[0]
		if restored.Type != event.Restored || restored.Data.FromSeq != head+1 || restored.Data.ToSeq != head+ahead {
			t.Errorf("the notice is %s", restored.Raw)
		}
		f.record(t, audit.CreateUser, "after the restore")
		r.gets(t, "after the restore")
	}
	// `rolecall recover` has recorded the restore: the rows from there on are delivered.
	f.record(t, audit.Restore, "control")
	f.record(t, audit.CreateUser, "new one")
	r.gets(t, "new one")
	_, err = f.db.Pool.Exec(t.Context(), `UPDATE followers SET seq = $1, mac = 'another'`, f.head(t)+7)
	must(t, err)
	if again := r.gets(t, "", "new one"); again[0].Type != event.Restored || again[0].Data.FromSeq != f.head(t)-1 {
		t.Errorf("the notice is %s", again[0].Raw)
	}
	if log := f.log.String(); !strings.Contains(log, "removed by its retention") ||
		!strings.Contains(log, "restored from a backup") {
		t.Errorf("the log does not report the gaps:\n%s", log)
	}
}

// If the row of `rolecall recover` is the first of the log, all rows are delivered.
func TestRestoredToTheBeginning(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	r := newReceiver(t)
	f.record(t, audit.Restore, "control")
	f.seal(t)
	f.create(t, r.URL, "user.create")
	_, err := f.db.Pool.Exec(t.Context(), `UPDATE followers SET seq = $1, mac = 'another'`, f.head(t))
	must(t, err)
	f.run(t)
	f.record(t, audit.CreateUser, "new one")
	f.seal(t)
	if got := r.gets(t, "", "new one"); got[0].Type != event.Restored || got[0].Data.FromSeq != 1 {
		t.Errorf("the notice is %s", got[0].Raw)
	}
}

// After a rotation both secrets sign, until the time is over. No secret is stored, logged or recorded in the clear.
func TestRotateSecret(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	r := newReceiver(t)
	w, first := f.create(t, r.URL+"/path-with-a-token?key=in-the-query", "user.create")
	_, second, err := f.RotateSecret(t.Context(), root, w.ID.String())
	must(t, err)
	f.run(t)
	signed := func(keys ...secret.Text) {
		t.Helper()
		f.record(t, audit.CreateUser, "someone")
		m := r.gets(t, "someone")[0]
		want, err := event.Signature(keys, m.ID, m.Sent, m.Raw)
		must(t, err)
		if m.Signature != want {
			t.Errorf("the signatures are %q, want %q", m.Signature, want)
		}
	}
	signed(second, first)
	// An hour before the end of the day it still signs, and then no more.
	var left bool
	must(t, f.db.Pool.QueryRow(t.Context(), `SELECT previous_until > now() + interval '23 hours' FROM webhooks`).Scan(&left))
	if !left {
		t.Error("the previous secret ends within 23 hours")
	}
	_, err = f.db.Pool.Exec(t.Context(), `UPDATE webhooks SET previous_until = now(), revision = revision + 1`)
	must(t, err)
	signed(second)
	if refused, err := f.SendTest(t.Context(), root, w.ID.String()); refused != nil || err != nil {
		t.Errorf("the test: %v, %v", refused, err)
	}
	if test := r.gets(t, "")[0]; test.Type != event.Test {
		t.Errorf("the test is %s", test.Raw)
	}
	var dump string
	must(t, f.db.Pool.QueryRow(t.Context(), `
		SELECT (SELECT string_agg(w::text, E'\n') FROM webhooks w) || (SELECT string_agg(a::text, E'\n') FROM audit a) ||
		  (SELECT string_agg(encode(secret, 'escape'), '') FROM webhooks)`).Scan(&dump))
	dump = strings.ReplaceAll(dump, w.URL, "") // the table has the URL; the log of changes only its host
	for _, text := range []string{string(first), string(second), strings.TrimPrefix(string(first), "whsec_"),
		"path-with-a-token", "in-the-query"} {
		if strings.Contains(dump, text) || strings.Contains(f.log.String(), text) {
			t.Errorf("the control database or the log has %q", text)
		}
	}
	if !strings.Contains(dump, r.URL) {
		t.Error("the audit log does not name the host")
	}
}

// A receiver that is stopped in the middle of a request is no failure of the receiver, and the next replica goes on at once.
func TestStop(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	r := newReceiver(t)
	w, _ := f.create(t, r.URL, "user.create")
	stop := f.run(t)
	r.answers(func(_ http.ResponseWriter, q *http.Request) { <-q.Context().Done() })
	f.record(t, audit.CreateUser, "one")
	r.attempts(t, 1)
	stop()
	if stopped := f.becomes(t, w.ID, "", always); stopped.LastError != "" {
		t.Errorf("the stop is a failure: %s", stopped.LastError)
	}
	r.answers(nil)
	f.run(t)
	r.gets(t, "one")
}

// A receiver has a say in the text of an error, such as by the names in its certificate. The failure is stored whatever
// they are.
func TestHostileError(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"a\x00b\x1b[2J" + strings.Repeat("x", 1000)}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	server := httptest.NewUnstartedServer(nil)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}}}
	server.StartTLS()
	defer server.Close()
	w, _ := f.create(t, strings.Replace(server.URL, "127.0.0.1", "localhost", 1))
	refused, err := f.SendTest(t.Context(), root, w.ID.String())
	must(t, err)
	if text := fmt.Sprint(refused); !strings.Contains(text, `a\x00b\x1b[2J`) || len(text) > 600 {
		t.Errorf("the test says %q", text)
	}
	f.run(t)
	f.record(t, audit.CreateUser, "one")
	f.becomes(t, w.ID, "failing", func(w *event.Webhook) bool { return strings.Contains(w.LastError, `a\x00b`) })
}

// A webhook with http:// that was created while the operator allowed it gets nothing when that has ended.
func TestPlainHTTPEnds(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	w, _ := f.create(t, "http://8.8.8.8:9/")
	later := &event.Service{DB: f.db, Audit: f.Audit, Log: f.Log, Timeout: 100 * time.Millisecond}
	refused, err := later.SendTest(t.Context(), root, w.ID.String())
	must(t, err)
	if refused == nil || !strings.Contains(refused.Error(), "begins with http://") {
		t.Errorf("it is sent: %v", refused)
	}
}

// Who may not see the whole log neither sees nor changes webhooks.
func TestRights(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	w, _ := f.create(t, "http://127.0.0.1:1")
	id := w.ID.String()
	limited := *root
	limited.Limit(uuid.New(), false, []uuid.UUID{uuid.New()})
	readOnly := *root
	readOnly.Limit(uuid.New(), true, nil)
	for name, p := range map[string]*account.Principal{
		"limited":   &limited,
		"read-only": &readOnly,
		"auditor":   {GUID: "auditor", Scopes: []string{account.ScopeAuditor}},
		"user":      {GUID: "user", Scopes: account.DefaultScopes},
	} {
		sees := name == "auditor" || name == "read-only"
		_, err := f.Webhooks(t.Context(), p)
		_, one := f.Webhook(t.Context(), p, id)
		if (err == nil) != sees || (one == nil) != sees {
			t.Errorf("%s: %v, %v", name, err, one)
		}
		_, _, created := f.CreateWebhook(t.Context(), p, event.NewWebhook{Name: "x", URL: "http://127.0.0.1"})
		_, updated := f.UpdateWebhook(t.Context(), p, id, event.WebhookChange{})
		_, replayed := f.Replay(t.Context(), p, id, 1)
		_, _, rotated := f.RotateSecret(t.Context(), p, id)
		_, tested := f.SendTest(t.Context(), p, id)
		for i, err := range []error{created, updated, replayed, rotated, tested, f.DeleteWebhook(t.Context(), p, id)} {
			if err == nil || !strings.Contains(err.Error(), account.ScopeAdmin) {
				t.Errorf("%s, change %d: %v", name, i, err)
			}
		}
	}
	// The limits.
	for _, n := range []event.NewWebhook{
		{Name: "", URL: "http://127.0.0.1"}, {Name: strings.Repeat("x", 101), URL: "http://127.0.0.1"},
		{Name: "a\u200bb", URL: "http://127.0.0.1"}, {Name: w.Name, URL: "http://127.0.0.1"},
		{Name: "x", URL: "http://127.0.0.1", Events: []string{}}, {Name: "x", URL: "http://127.0.0.1", Events: []string{"user"}},
		{Name: "x", URL: "http://127.0.0.1", Events: []string{"*.create"}}, {Name: "x", URL: ""},
	} {
		if _, _, err := f.CreateWebhook(t.Context(), root, n); err == nil {
			t.Errorf("%+v was created", n)
		}
	}
	for range 19 {
		f.create(t, "http://127.0.0.1:1")
	}
	_, _, err := f.CreateWebhook(t.Context(), root, event.NewWebhook{Name: "one more", URL: "http://127.0.0.1"})
	if err == nil {
		t.Error("there is no limit")
	}
}
