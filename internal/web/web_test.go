package web

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rolecall/internal/fault"
)

func TestIncomingID(t *testing.T) {
	for sent, want := range map[string]string{
		"": "", "abc-DEF_123": "abc-DEF_123", "a b\tc\"d": "abcd", "é": "", "<script>": "script", "a\x00\n": "a",
		strings.Repeat("x", 300): strings.Repeat("x", 255),
	} {
		if got := incomingID(http.Header{"X-Request-Id": {sent}}); got != want {
			t.Errorf("%q: got %q, want %q", sent, got, want)
		}
	}
	if got := incomingID(http.Header{"X-Request-Id": {"client"}, "X-Vcap-Request-Id": {"router"}}); got != "router" {
		t.Errorf("got %q, want the router's", got)
	}
}

// edge answers with h and returns the response and what was logged.
func edge(t testing.TB, h http.HandlerFunc, r *http.Request) (*httptest.ResponseRecorder, string) {
	t.Helper()
	var log strings.Builder
	w := httptest.NewRecorder()
	(&Edge{Handler: h, Log: slog.New(slog.NewTextHandler(&log, nil))}).ServeHTTP(w, r)
	return w, log.String()
}

func TestEdge(t *testing.T) {
	const secret = "hunter2secret"
	r := httptest.NewRequest("PATCH", "/users/a%2Fb?password="+secret, strings.NewReader(secret))
	r.Header.Set("Authorization", "Basic "+secret)
	r.Header.Set("X-Request-Id", "in\nid=1")
	r.Header.Set("User-Agent", secret)
	var info *Info
	w, log := edge(t, func(w http.ResponseWriter, r *http.Request) {
		info = InfoOf(r.Context())
		info.Account = "g-1"
		JSON(w, 422, "application/json", map[string]string{"a": "<&>"})
	}, r)
	if w.Code != 422 || w.Body.String() != "{\"a\":\"<&>\"}\n" || w.Header().Get("X-Request-Id") != info.ID ||
		len(info.ID) != 36 {
		t.Errorf("got %d %s %s", w.Code, w.Header(), w.Body)
	}
	for _, want := range []string{"level=INFO", "request=" + info.ID, "method=PATCH", "path=/users/a%2Fb ", "status=422",
		"bytes=12", "address=192.0.2.1", "account=g-1", "incoming=inid1"} {
		if !strings.Contains(log, want) {
			t.Errorf("the line lacks %q: %s", want, log)
		}
	}
	if !regexp.MustCompile(` seconds=[0-9.e-]+ `).MatchString(log) {
		t.Errorf("the line lacks the seconds that it took: %s", log)
	}
	if strings.Contains(log, secret) || strings.Count(log, "\n") != 1 {
		t.Errorf("logged: %s", log)
	}

	if _, log = edge(t, func(w http.ResponseWriter, _ *http.Request) {}, r); !strings.Contains(log, "status=200") {
		t.Errorf("without an answer: %s", log)
	}
	if _, log = edge(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("x")) }, r); !strings.Contains(log,
		"status=200 bytes=1") {
		t.Errorf("without a status: %s", log)
	}

	var observed string
	e := &Edge{Handler: http.NotFoundHandler(), Log: slog.New(slog.DiscardHandler),
		Observe: func(info *Info, method string, status int, took time.Duration) {
			observed = fmt.Sprint(info.Address, method, status, took > 0)
		}}
	e.ServeHTTP(httptest.NewRecorder(), r)
	if observed != "192.0.2.1PATCH404 true" {
		t.Errorf("observed %s", observed)
	}
}

func fail(w http.ResponseWriter, _ *http.Request, f *fault.Error) {
	RetryAfter(w, f)
	JSON(w, 500+int(f.Kind), "application/problem+json", f.Message)
}

func TestHandle(t *testing.T) {
	handle := func(h HandlerFunc) (*httptest.ResponseRecorder, string) {
		return edge(t, func(w http.ResponseWriter, r *http.Request) { Handle(w, r, h, fail) },
			httptest.NewRequest("GET", "/", nil))
	}
	w, log := handle(func(http.ResponseWriter, *http.Request) error { panic("the reason") })
	if w.Code != 500 || strings.Contains(w.Body.String(), "the reason") || !strings.Contains(log, "panic: the reason") ||
		!strings.Contains(log, "web_test.go") || !strings.Contains(log, "level=ERROR") {
		t.Errorf("a panic: %d %s, logged %s", w.Code, w.Body, log)
	}
	w, log = handle(func(http.ResponseWriter, *http.Request) error { return fmt.Errorf("open: %w", errors.New("the cause")) })
	if w.Code != 500 || strings.Contains(w.Body.String(), "cause") || !strings.Contains(log, "open: the cause") {
		t.Errorf("an error: %d %s, logged %s", w.Code, w.Body, log)
	}
	w, log = handle(func(http.ResponseWriter, *http.Request) error {
		return fault.New(fault.Unavailable, "later").After(1500 * time.Millisecond).Because(errors.New("the cause"))
	})
	if w.Code != 500+int(fault.Unavailable) || w.Header().Get("Retry-After") != "2" || w.Body.String() != "\"later\"\n" ||
		!strings.Contains(log, "later: the cause") {
		t.Errorf("a fault: %d %s %s, logged %s", w.Code, w.Header(), w.Body, log)
	}
	w, log = handle(func(w http.ResponseWriter, _ *http.Request) error { JSON(w, 200, "text/plain", 1); return nil })
	if w.Code != 200 || strings.Contains(log, "error") {
		t.Errorf("no error: %d, logged %s", w.Code, log)
	}

	defer func() {
		if p := recover(); p != http.ErrAbortHandler {
			t.Errorf("the server is not told to cut the connection: %v", p)
		}
	}()
	handle(func(http.ResponseWriter, *http.Request) error { panic(http.ErrAbortHandler) })
}

func TestRetryAfter(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "", time.Nanosecond: "1", time.Second: "1", 1001 * time.Millisecond: "2",
		time.Minute: "60"} {
		w := httptest.NewRecorder()
		RetryAfter(w, fault.New(fault.TooMany, "").After(d))
		if got := w.Header().Get("Retry-After"); got != want {
			t.Errorf("%s: got %q, want %q", d, got, want)
		}
	}
}

func TestLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &Limiter{PerSecond: 2}
		take := func(key string, want time.Duration) {
			t.Helper()
			err := l.Take(key)
			if want == 0 && err == nil {
				return
			}
			if f := fault.Of(err); err == nil || f.Kind != fault.TooMany || f.RetryAfter != want {
				t.Errorf("%s: got %v, want to wait %s", key, err, want)
			}
		}
		for range 4 {
			take("a", 0)
		}
		take("a", time.Second/2)
		take("a", time.Second/2) // asking costs nothing
		take("b", 0)
		for key, left := range map[string]int{"a": 0, "b": 3, "c": 4} {
			limit, remaining, full, ok := l.Standing(key)
			if missing := time.Duration(4-left) * time.Second / 2; limit != 4 || remaining != left ||
				!full.Equal(time.Now().Add(missing)) || !ok {
				t.Errorf("%s: %d of %d, full in %s, %t; want %d of 4", key, remaining, limit, time.Until(full), ok, left)
			}
		}
		time.Sleep(time.Second / 2)
		take("a", 0)
		take("a", time.Second/2)
		time.Sleep(time.Hour)
		for range 4 {
			take("a", 0)
		}
		take("a", time.Second/2)
		if len(l.buckets) != 1 {
			t.Errorf("%d buckets are kept after an hour, want that of a", len(l.buckets))
		}

		slow := &Limiter{PerSecond: 0.1}
		if err := slow.Take("x"); err != nil {
			t.Error(err)
		}
		if err := slow.Take("x"); fault.Of(err).RetryAfter != 10*time.Second || !strings.Contains(err.Error(), "in 10 s") {
			t.Errorf("got %v", err)
		}
		for range 1000 {
			if err := (&Limiter{}).Take("x"); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestLimiterAtOnce(t *testing.T) {
	l := &Limiter{PerSecond: 0.001}
	taken := make(chan error)
	for i := range 100 {
		go func() { taken <- l.Take(fmt.Sprint(i % 10)) }()
	}
	passed := 0
	for range 100 {
		if <-taken == nil {
			passed++
		}
	}
	if passed != 10 {
		t.Errorf("%d of 100 passed, want one a key", passed)
	}
}

// A flood from more addresses than can be told apart is limited as one, and forgotten when it is over.
func TestLimiterIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &Limiter{PerSecond: 1}
		passed := 0
		for i := range maxBuckets + 1000 {
			if l.Take(fmt.Sprint(i)) == nil {
				passed++
			}
		}
		if len(l.buckets) != maxBuckets+1 || passed != maxBuckets+2 {
			t.Errorf("%d buckets, %d passed; want %d, and 2 of the crowd", len(l.buckets), passed, maxBuckets+1)
		}
		if err := l.Take("0"); err != nil {
			t.Errorf("who came before the crowd: %v", err)
		}
		time.Sleep(3 * time.Second)
		if err := l.Take("late"); err != nil || len(l.buckets) != 1 {
			t.Errorf("%v; %d buckets are kept when the flood is over", err, len(l.buckets))
		}
	})
}

func TestNewServer(t *testing.T) {
	s := NewServer(http.NotFoundHandler(), slog.New(slog.DiscardHandler), nil)
	if s.ReadHeaderTimeout == 0 || s.ReadTimeout == 0 || s.WriteTimeout == 0 || s.IdleTimeout == 0 || s.MaxHeaderBytes == 0 ||
		s.HTTP2.MaxConcurrentStreams == 0 {
		t.Errorf("a limit is missing: %+v", s)
	}
}

// Handlers that add to, set and delete headers change none of another answer.
func TestSharedHeaders(t *testing.T) {
	shared := http.Header{}
	AsData(shared)
	before := shared.Clone()
	for name, values := range shared {
		if len(values) != cap(values) {
			t.Errorf("%s has room for a value of another answer", name)
		}
		h := http.Header{}
		AsData(h)
		h.Add(name, "more")
		h.Set(name, "other")
		h.Add(name, "more")
		h.Del(name)
		again := http.Header{}
		AsData(again)
		if got, want := again.Values(name), before.Values(name); len(got) != 1 || got[0] != want[0] {
			t.Errorf("%s is %q in the next answer, want %q", name, got, want)
		}
		if http.CanonicalHeaderKey(name) != name {
			t.Errorf("%s is not the canonical name", name)
		}
	}
}
