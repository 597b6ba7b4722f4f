package trace

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	traceID = "4bf92f3577b34da6a3ce929d0e0e4736"
	spanID  = "00f067aa0ba902b7"
)

// https://www.w3.org/TR/trace-context/#traceparent-header
func TestTraceparent(t *testing.T) {
	t.Parallel()
	random := regexp.MustCompile(`^[0-9a-f]{32}$`)
	for _, test := range []struct {
		known bool
		sent  []string
	}{
		{true, []string{"00-" + traceID + "-" + spanID + "-01"}},
		{true, []string{"00-" + traceID + "-" + spanID + "-00"}},
		{true, []string{"cc-" + traceID + "-" + spanID + "-01-what-comes-later"}},
		{false, nil},
		{false, []string{""}},
		{false, []string{"00-" + traceID + "-" + spanID + "-01", "00-" + traceID + "-" + spanID + "-01"}},
		{false, []string{"00-" + traceID + "-" + spanID + "-01-more"}},
		{false, []string{"00-" + traceID + "-" + spanID}},
		{false, []string{"ff-" + traceID + "-" + spanID + "-01"}},
		{false, []string{"00-" + strings.ToUpper(traceID) + "-" + spanID + "-01"}},
		{false, []string{"00-" + strings.Repeat("0", 32) + "-" + spanID + "-01"}},
		{false, []string{"00-" + traceID + "-" + strings.Repeat("0", 16) + "-01"}},
		{false, []string{"00-" + traceID[1:] + "-" + spanID + "-01"}},
		{false, []string{"00-" + traceID + "-" + spanID + "-zz"}},
		{false, []string{"00-" + traceID[:31] + "\n-" + spanID + "-01"}},
		{false, []string{strings.Repeat("00-", 10_000)}},
	} {
		var off *Tracer
		_, r := off.Request(t.Context(), http.Header{"Traceparent": test.sent})
		if r.Known != test.known || (r.ID == traceID) != test.known || !random.MatchString(r.ID) {
			t.Errorf("%.80q: %+v", test.sent, r)
		}
		r.End("", http.MethodGet, "/", 200)
	}
}

func TestOperation(t *testing.T) {
	t.Parallel()
	for sql, want := range map[string]string{
		"SELECT 1": "SELECT", "\n\t\tUPDATE clusters SET": "UPDATE", "commit": "COMMIT", "begin;": "BEGIN", "": "statement",
		"ALTER ROLE x PASSWORD 'SCRAM-SHA-256$4096:…'": "ALTER", "-- secret\nSELECT": "statement", "'secret' ": "statement",
	} {
		if got := operation(sql); got != want {
			t.Errorf("%q is called %s, want %s", sql, got, want)
		}
	}
}

func TestReadConfig(t *testing.T) {
	for _, test := range []struct {
		endpoint  string
		variables map[string]string
		url, says string
	}{
		{"", nil, "", ""},
		{"http://c:4318", nil, "http://c:4318/v1/traces", ""},
		{"https://c/otlp/", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://other"}, "https://c/otlp/v1/traces", ""},
		{"", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/"}, "http://c:4318/v1/traces", ""},
		{"", map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/x", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://d"},
			"http://c/x", ""},
		{"http://c", map[string]string{"OTEL_SDK_DISABLED": "true"}, "", ""},
		{"c:4318", nil, "", "--otlp-endpoint is not a URL"},
		{"", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "grpc://c"}, "", "OTEL_EXPORTER_OTLP_ENDPOINT is not a URL"},
		{"http://user:secret@c", nil, "", "OTEL_EXPORTER_OTLP_HEADERS"},
		{"http://user:secret@[c", nil, "", "not a URL"},
		{"http://c?key=secret", nil, "", "not a URL"},
		{"http://c", map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "", `OTEL_EXPORTER_OTLP_PROTOCOL is "grpc"`},
		{"http://c", map[string]string{"OTEL_EXPORTER_OTLP_TIMEOUT": "10s"}, "", `OTEL_EXPORTER_OTLP_TIMEOUT is "10s"`},
		{"http://c", map[string]string{"OTEL_EXPORTER_OTLP_HEADERS": "a=1,secret"}, "", "entry 2 cannot be read"},
		{"http://c", map[string]string{"OTEL_EXPORTER_OTLP_HEADERS": "a=secret%0d%0ab: c"}, "", "entry 1 cannot be read"},
		{"http://c", map[string]string{"OTEL_EXPORTER_OTLP_TRACES_HEADERS": "=secret"}, "", "OTLP_TRACES_HEADERS is not like"},
	} {
		t.Run("", func(t *testing.T) {
			for name, value := range test.variables {
				t.Setenv(name, value)
			}
			c, err := ReadConfig(test.endpoint)
			if test.says == "" && (err != nil || c.URL != test.url) ||
				test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "secret")) {
				t.Errorf("%q, %v: %+v, %v", test.endpoint, test.variables, c, err)
			}
		})
	}
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20secret, x-scope = a ")
	t.Setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "250")
	c, err := ReadConfig("http://c")
	if err != nil || c.Headers.Get("Authorization") != "Bearer secret" || c.Headers.Get("X-Scope") != "a" ||
		c.Timeout != 250*time.Millisecond {
		t.Errorf("%+v, %v", c, err)
	}
}

// collector answers with the statuses, one after the other, and keeps what it gets.
type collector struct {
	mu       sync.Mutex
	statuses []int
	got      []*http.Request
	bodies   [][]byte
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	c.got, c.bodies = append(c.got, r), append(c.bodies, body)
	status := 200
	if len(c.statuses) > 0 {
		status, c.statuses = c.statuses[0], c.statuses[1:]
	}
	w.Header().Set("Location", "/elsewhere")
	w.WriteHeader(status)
}

// exportOne exports the span of one request, and returns what was logged.
func exportOne(t *testing.T, url string) (logged string) {
	t.Helper()
	var log bytes.Buffer
	tracer, err := Open(t.Context(), Config{URL: url + "/v1/traces", Timeout: 5 * time.Second,
		Headers: http.Header{"Authorization": {"secret"}}}, "1.2.3", slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	_, r := tracer.Request(t.Context(), http.Header{"Traceparent": {"00-" + traceID + "-" + spanID + "-01"},
		"Tracestate": {"x=client-value"}})
	if r.ID != traceID || !r.Known {
		t.Errorf("the request is %+v", r)
	}
	r.End("the-request", http.MethodGet, "/things/{id}", 500)
	tracer.Close()
	return log.String()
}

func TestExport(t *testing.T) {
	c := &collector{statuses: []int{503, 200}}
	server := httptest.NewServer(c)
	defer server.Close()
	if logged := exportOne(t, server.URL); logged != "" {
		t.Errorf("logged: %s", logged)
	}
	if len(c.got) != 2 || c.got[1].URL.Path != "/v1/traces" || c.got[1].Header.Get("Authorization") != "secret" ||
		c.got[1].Header.Get("Content-Type") != "application/x-protobuf" {
		t.Fatalf("received %v", c.got)
	}
	for _, part := range []string{"GET /things/{id}", "the-request", "service.version", "1.2.3", "rolecall"} {
		if !bytes.Contains(c.bodies[1], []byte(part)) {
			t.Errorf("%q was not exported", part)
		}
	}
	if bytes.Contains(c.bodies[1], []byte("client-value")) {
		t.Error("the tracestate of the client was exported")
	}
	// A collector that refuses, redirects or is down loses spans, and nothing else.
	c.statuses = []int{400}
	if logged := exportOne(t, server.URL); !strings.Contains(logged, "the collector answered 400 Bad Request") {
		t.Errorf("logged: %s", logged)
	}
	c.statuses, c.got = []int{307}, nil
	if logged := exportOne(t, server.URL); !strings.Contains(logged, "307") || len(c.got) != 1 {
		t.Errorf("logged: %s; %d requests", logged, len(c.got))
	}
	server.Close()
	if logged := exportOne(t, server.URL); !strings.Contains(logged, "traces were not exported") ||
		strings.Contains(logged, "secret") {
		t.Errorf("logged: %s", logged)
	}
	// Warnings do not fill the log.
	e := &exporter{log: slog.New(slog.DiscardHandler)}
	for range 5 {
		e.warn(context.DeadlineExceeded)
	}
	if e.lost != 4 {
		t.Errorf("%d exports are counted for the next warning, want 4", e.lost)
	}
	// Without a configuration there is no tracer.
	if tracer, err := Open(t.Context(), Config{}, "", nil); tracer != nil || err != nil {
		t.Errorf("without a URL: %v, %v", tracer, err)
	}
}
