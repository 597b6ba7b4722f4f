package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"rolecall/internal/control"
	"rolecall/internal/pgtest"
	"rolecall/internal/secret"
	"rolecall/internal/servicetest"
	"rolecall/internal/trace"
)

// serves runs a server on the databases of a service until the end of the test, or until stop is called.
func serves(t *testing.T, s *servicetest.Service, traces trace.Config, log io.Writer) (url string, stop func()) {
	t.Helper()
	keys, err := control.ParseKeyring(s.MasterKey)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Config{Listener: l, PublicURL: servicetest.PublicURL, DatabaseURL: secret.Text(s.DatabaseURL), Keys: keys,
			PasswordCost: servicetest.PasswordCost, Log: slog.New(slog.NewJSONHandler(log, nil)), Trace: traces})
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return "http://" + l.Addr().String(), stop
}

func call(method, url, body, traceparent string) (status int, err error) {
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	r.SetBasicAuth("root", "root-password")
	if traceparent != "" {
		r.Header.Set("Traceparent", traceparent)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode, err
}

// TestTraces: of a thousand verifiers, none is in what a collector receives, nor is a password or a name of a user.
func TestTraces(t *testing.T) {
	t.Parallel()
	const users, rounds = 100, 10
	var mu sync.Mutex
	var received bytes.Buffer
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = io.Copy(&received, r.Body)
	}))
	defer collector.Close()
	pg := pgtest.New(t, nil)
	s := servicetest.New(t, pg)
	s.Admin(t, "root")
	url, stop := serves(t, s, trace.Config{URL: collector.URL, Timeout: 30 * time.Second}, io.Discard)
	path := url + "/databases/postgresql/clusters/" + s.ClusterID + "/users"
	var verifiers []string
	for round := range rounds {
		var group errgroup.Group
		group.SetLimit(8)
		for i := range users {
			group.Go(func() error {
				method, at, body := http.MethodPatch, fmt.Sprintf("%s/traced_%d", path, i), `{"properties":{"password":"hidden-%d-%d"}}`
				if round == 0 {
					method, at = http.MethodPost, path
					body = fmt.Sprintf(`{"properties":{"username":"traced_%d","password":"hidden-%%d-%%d"}}`, i)
				}
				status, err := call(method, at, fmt.Sprintf(body, round, i), "")
				if err == nil && status/100 != 2 {
					err = fmt.Errorf("%s %s: %d", method, at, status)
				}
				return err
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		verifiers = append(verifiers, pgtest.Value[[]string](t, pg,
			`SELECT array_agg(rolpassword) FROM pg_authid WHERE rolname ~ '^traced_'`)...)
	}
	if status, err := call(http.MethodDelete, path+"/traced_absent", "", ""); status != 404 || err != nil {
		t.Errorf("a user that does not exist: %d, %v", status, err)
	}
	stop()
	mu.Lock()
	defer mu.Unlock()
	text := received.String()
	if len(verifiers) != users*rounds {
		t.Fatalf("%d verifiers", len(verifiers))
	}
	for _, v := range verifiers {
		salt, keys, _ := strings.Cut(strings.TrimPrefix(v, "SCRAM-SHA-256$"), "$")
		_, salt, _ = strings.Cut(salt, ":")
		stored, server, _ := strings.Cut(keys, ":")
		for _, part := range []string{v, salt, stored, server} {
			if part == "" || strings.Contains(text, part) {
				t.Fatalf("the collector has received %q of the verifier %s", part, v)
			}
		}
	}
	for _, never := range []string{"SCRAM", "hidden-", "traced_", "root", "PASSWORD", "WHERE", "FROM "} {
		if strings.Contains(text, never) {
			t.Errorf("the collector has received %q", never)
		}
	}
	for _, span := range []string{"PATCH /databases/postgresql/clusters/{", "cluster ALTER",
		"control SELECT", "cluster SELECT", s.ClusterID, "http.response.status_code"} {
		if !strings.Contains(text, span) {
			t.Errorf("the collector has not received %q", span)
		}
	}
}

// TestTraceparent: the trace of a client is in the log line and in the audit row. A collector that is down changes no
// answer.
func TestTraceparent(t *testing.T) {
	t.Parallel()
	s := servicetest.New(t, pgtest.New(t, nil))
	s.Admin(t, "root")
	var log lockedBuffer
	down := httptest.NewServer(http.NotFoundHandler())
	down.Close()
	for name, traces := range map[string]trace.Config{
		"off": {}, "down": {URL: down.URL, Timeout: time.Second},
	} {
		url, stop := serves(t, s, traces, &log)
		path := url + "/databases/postgresql/clusters/" + s.ClusterID + "/users"
		id := fmt.Sprintf("%032x", len(name)<<8+7)
		sent := map[string]string{"known": "00-" + id + "-00f067aa0ba902b7-01", "wrong": "00-" + id + "-x-01", "without": ""}
		for kind, traceparent := range sent {
			user := name + "_" + kind
			body := fmt.Sprintf(`{"properties":{"username":%q,"password":"a good password"}}`, user)
			if status, err := call(http.MethodPost, path, body, traceparent); status/100 != 2 || err != nil {
				t.Fatalf("%s: %d, %v", user, status, err)
			}
			for _, row := range s.AuditRows(t, user) {
				if strings.Contains(row.Detail, `"trace": "`+id+`"`) != (kind == "known") ||
					strings.Contains(row.Detail, `"trace"`) != (kind == "known" || name == "down") {
					t.Errorf("%s: the detail of the %s is %s", user, row.Phase, row.Detail)
				}
			}
		}
		stop()
		if text := log.String(); strings.Count(text, `"traceId":"`+id+`"`) != 1 ||
			strings.Contains(text, "traces were not exported") != (name == "down") {
			t.Errorf("%s: the log is %s", name, text)
		}
		log.reset()
	}
}

// lockedBuffer is written and read at the same time.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *lockedBuffer) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf.Reset()
}
