package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// newServer answers by path: /<status>/<bytes>; a long body comes in chunks.
func newServer(t *testing.T, seen *atomic.Int64) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var status, size int
		if _, err := fmt.Sscanf(r.URL.Path, "/%d/%d", &status, &size); err != nil {
			t.Errorf("path %s: %v", r.URL.Path, err)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method == http.MethodPost && string(body) != `{"a":1}` {
			t.Errorf("body %q, %v", body, err)
		}
		seen.Add(1)
		w.WriteHeader(status)
		if size > 0 {
			_, _ = io.WriteString(w, strings.Repeat("x", size))
		}
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func drive(t *testing.T, l *load, address string, n int, d time.Duration) *answers {
	t.Helper()
	defer l.close()
	if err := l.connect(address, n); err != nil {
		t.Fatal(err)
	}
	a, err := l.run(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestLoadCounts holds what the generator has counted against what the server has seen, over all ways to end a response.
func TestLoadCounts(t *testing.T) {
	t.Parallel()
	var seen atomic.Int64
	address := newServer(t, &seen)
	at := endpoint{address: address, headers: "X-Test: 1\r\n"}
	kinds := []func(buf []byte) []byte{
		func(buf []byte) []byte { return at.send(buf, "GET", "/200/10", "") },
		func(buf []byte) []byte { return at.send(buf, "GET", "/200/200000", "") }, // in chunks
		func(buf []byte) []byte { return at.send(buf, "DELETE", "/204/0", "") },
		func(buf []byte) []byte { return at.send(buf, "POST", "/422/100", `{"a":1}`) },
		func(buf []byte) []byte { return at.send(buf, "GET", "/503/0", "") },
	}
	const each, connections = 20, 4
	sent := make([]int, connections)
	a := drive(t, &load{request: func(buf []byte, c int) []byte {
		if sent[c] == each*len(kinds) {
			return nil
		}
		sent[c]++
		return kinds[sent[c]%len(kinds)](buf)
	}}, address, connections, time.Minute)
	for _, status := range []int{204, 422, 503} {
		if got := a.Statuses[status]; got != each*connections {
			t.Errorf("%d answers with %d, want %d", got, status, each*connections)
		}
	}
	if a.Statuses[200] != 2*each*connections || int64(len(a.times)) != seen.Load() {
		t.Errorf("got %v, %d times; the server has seen %d", a.Statuses, len(a.times), seen.Load())
	}
	if failed := a.failed(); len(failed) != 2 || failed["422"] != each*connections {
		t.Errorf("failed: %v", failed)
	}
}

// TestLoadEnds: a closed loop ends after its time, and a paced one sends as many as it was told.
func TestLoadEnds(t *testing.T) {
	t.Parallel()
	var seen atomic.Int64
	address := newServer(t, &seen)
	at := endpoint{address: address}
	get := func(buf []byte, _ int) []byte { return at.get(buf, "/200/%d", 10) }
	if a := drive(t, &load{request: get}, address, 2, 100*time.Millisecond); a.Took < 100*time.Millisecond || len(a.times) < 2 {
		t.Errorf("a closed loop of 0.1 s took %s for %d requests", a.Took, len(a.times))
	}
	if a := drive(t, &load{request: get, perSecond: 100}, address, 2, 500*time.Millisecond); len(a.times) != 50 {
		t.Errorf("100 a second for 0.5 s came to %d requests", len(a.times))
	}
}

// TestPacedTimes: a request that has to wait for a connection counts from when it fell due.
func TestPacedTimes(t *testing.T) {
	t.Parallel()
	const slow = 50 * time.Millisecond
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(slow) }))
	t.Cleanup(s.Close)
	at := endpoint{address: strings.TrimPrefix(s.URL, "http://")}
	a := drive(t, &load{request: func(buf []byte, _ int) []byte { return at.get(buf, "/") }, perSecond: 100}, at.address, 1,
		100*time.Millisecond)
	if last := a.times[len(a.times)-1]; len(a.times) != 10 || last < 6*slow {
		t.Errorf("the last of %d requests took %s, want at least %s", len(a.times), last, 6*slow)
	}
}

// TestLoadFails: a server that is lost, or speaks no HTTP, is an error and no row.
func TestLoadFails(t *testing.T) {
	t.Parallel()
	for name, says := range map[string]string{"closes": "", "speaks no HTTP": "SSH-2.0-x\r\n\r\n",
		"gives no length": "HTTP/1.1 200 OK\r\n\r\n"} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		go func() {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			_, _ = c.Read(make([]byte, 1000))
			_, _ = io.WriteString(c, says)
		}()
		at := endpoint{address: listener.Addr().String()}
		l := &load{request: func(buf []byte, _ int) []byte { return at.get(buf, "/") }}
		if err := l.connect(at.address, 1); err != nil {
			t.Fatal(err)
		}
		if a, err := l.run(t.Context(), time.Second); err == nil {
			t.Errorf("a server that %s: %v", name, a.Statuses)
		}
		l.close()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var seen atomic.Int64
	at := endpoint{address: newServer(t, &seen)}
	l := &load{request: func(buf []byte, _ int) []byte { return at.get(buf, "/200/10") }}
	defer l.close()
	if err := l.connect(at.address, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := l.run(ctx, time.Minute); err != context.Canceled {
		t.Errorf("a canceled load ends with %v", err)
	}
}

// TestAnswered: an operation sees each answer before the connection's next request is made.
func TestAnswered(t *testing.T) {
	t.Parallel()
	var seen atomic.Int64
	at := endpoint{address: newServer(t, &seen)}
	sent, answered := 0, 0
	drive(t, &load{request: func(buf []byte, _ int) []byte {
		if sent++; sent != answered+1 {
			t.Errorf("request %d comes after %d answers", sent, answered)
		}
		if sent == 6 {
			return nil
		}
		return at.get(buf, "/200/%d", sent)
	}, answered: func(c int, answer []byte) {
		if answered++; c != 0 || !bytes.HasSuffix(answer, bytes.Repeat([]byte("x"), answered)) {
			t.Errorf("answer %d of connection %d: %q", answered, c, answer)
		}
	}}, at.address, 1, time.Minute)
	if answered != 5 {
		t.Errorf("%d answers", answered)
	}
}

// TestFollow goes from page to page by the links, and to the first page behind the last.
func TestFollow(t *testing.T) {
	t.Parallel()
	page := func(next string) []byte {
		return []byte(`{"items":[],"_links":{"self":"http://x/databases/u?limit=100"` + next + `}}`)
	}
	r := (&bench{target: target{users: "/databases/u"}}).newRun(1)
	request := r.follow("")
	for _, step := range []struct{ path, next string }{
		{"/databases/u?limit=100", `,"next":"http://x/databases/u?limit=100\u0026after=b"`},
		{"/databases/u?limit=100&after=b", ""},
		{"/databases/u?limit=100", ""},
	} {
		if got := string(request(nil, 0)); !strings.HasPrefix(got, "GET "+step.path+" HTTP/1.1") {
			t.Errorf("got %q, want a get of %s", got, step.path)
		}
		r.answered(0, page(step.next))
	}
	request = r.follow("/databases/u?limit=100&offset=900")
	for _, path := range []string{"/databases/u?limit=100&offset=900", "/databases/u?offset=1000", "/databases/u?offset=1000"} {
		if got := string(request(nil, 0)); !strings.HasPrefix(got, "GET "+path+" HTTP/1.1") {
			t.Errorf("got %q, want a get of %s", got, path)
		}
		r.answered(0, page(`,"next":"http://x/databases/u?offset=1000"`))
	}
}

// TestParseAnswer cuts responses at every byte: none is complete before its last.
func TestParseAnswer(t *testing.T) {
	t.Parallel()
	for _, whole := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
		"HTTP/1.1 404 Not Found\r\ncontent-length:0\r\nX: y\r\n\r\n",
		"HTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n",
	} {
		for n := range len(whole) {
			if status, size, err := parseAnswer([]byte(whole)[:n]); status != 0 || size != 0 || err != nil {
				t.Errorf("%d bytes of %q: %d, %d, %v", n, whole, status, size, err)
			}
		}
		status, size, err := parseAnswer(append([]byte(whole), "HTTP"...))
		if want := whole[9:12]; fmt.Sprint(status) != want || size != len(whole) || err != nil {
			t.Errorf("%q: %d, %d, %v", whole, status, size, err)
		}
	}
	if !bytes.Contains(endpoint{address: "h"}.send(nil, "POST", "/p", "body"), []byte("Content-Length: 4\r\n\r\nbody")) {
		t.Error("a request has no length")
	}
}
