package web

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rolecall/internal/fault"
)

// A request over a bound is refused at once, in its dialect, and gives no slot back when it ends.
func TestInFlight(t *testing.T) {
	hold, holding := make(chan struct{}), make(chan struct{}, 10)
	e := &Edge{
		Log:      slog.New(slog.DiscardHandler),
		InFlight: &InFlight{Total: 3, PerAddress: 2},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			Handle(w, r, func(http.ResponseWriter, *http.Request) error {
				holding <- struct{}{}
				<-hold
				return nil
			}, fail)
		}),
	}
	send := func(address string) *httptest.ResponseRecorder {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = net.JoinHostPort(address, "1")
		e.ServeHTTP(w, r)
		return w
	}
	var load sync.WaitGroup
	for _, address := range []string{"2001:db8::1", "2001:db8::2", "198.51.100.1"} {
		load.Go(func() {
			if w := send(address); w.Code != http.StatusOK {
				t.Errorf("from %s: %d", address, w.Code)
			}
		})
		<-holding
	}
	for range 3 {
		for address, kind := range map[string]fault.Kind{"2001:db8::3": fault.TooMany, "203.0.113.1": fault.Unavailable} {
			if w := send(address); w.Code != 500+int(kind) || w.Header().Get("Retry-After") != "1" {
				t.Errorf("from %s: %d %s, want kind %d", address, w.Code, w.Header(), kind)
			}
		}
	}
	close(hold)
	load.Wait()
	if send("2001:db8::3").Code != http.StatusOK || e.InFlight.total != 0 || len(e.InFlight.strangers) != 0 {
		t.Errorf("%d requests are under way, %v", e.InFlight.total, e.InFlight.strangers)
	}
}

// Only so many large bodies are in memory; small ones do not wait for them.
func TestLargeBodies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		e := &Edge{Log: slog.New(slog.DiscardHandler), InFlight: &InFlight{LargeBodies: 2, LargeBodyWait: 5 * time.Second}}
		e.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			Handle(w, r, func(w http.ResponseWriter, r *http.Request) error {
				body, err := Body(w, r, 1<<20)
				if s, ok := body.(string); ok && len(s) > small {
					<-hold
				}
				return err
			}, fail)
		})
		send := func(length int) int {
			w := httptest.NewRecorder()
			e.ServeHTTP(w, httptest.NewRequest("POST", "/", strings.NewReader(`"`+strings.Repeat("x", length)+`"`)))
			return w.Code
		}
		var load sync.WaitGroup
		for range 2 {
			load.Go(func() {
				if code := send(100_000); code != http.StatusOK {
					t.Errorf("a large body: %d", code)
				}
			})
		}
		synctest.Wait()
		began := time.Now()
		if code := send(1000); code != http.StatusOK || time.Since(began) != 0 {
			t.Errorf("a small body: %d after %s", code, time.Since(began))
		}
		if code := send(100_000); code != 500+int(fault.Unavailable) || time.Since(began) != e.InFlight.LargeBodyWait {
			t.Errorf("one large body too many: %d after %s", code, time.Since(began))
		}
		close(hold)
		load.Wait()
		if code := send(100_000); code != http.StatusOK || len(e.InFlight.large) != 0 {
			t.Errorf("a large body afterwards: %d; %d places are taken", code, len(e.InFlight.large))
		}
	})
}

// A client may not read a long answer as slowly as it likes.
func TestSlowReaders(t *testing.T) {
	for length, limited := range map[int]bool{100: false, 100_000: true} {
		w := &deadlined{ResponseRecorder: httptest.NewRecorder()}
		JSON(w, 200, "application/json", strings.Repeat("x", length))
		if until := time.Until(w.deadline); w.deadline.IsZero() == limited || limited && until > maxReadTime {
			t.Errorf("%d bytes may be read until %s", length, w.deadline)
		}
	}

	// While others read much, less time is left for the next one.
	body := make([]byte, maxUnread/2)
	busy := &deadlined{ResponseRecorder: httptest.NewRecorder()}
	next := &deadlined{ResponseRecorder: httptest.NewRecorder()}
	last := &deadlined{ResponseRecorder: httptest.NewRecorder()}
	busy.meanwhile = func() {
		Write(next, 200, "text/plain", body)
		Write(last, 200, "text/plain", append(body, 'x'))
	}
	Write(busy, 200, "text/plain", body)
	if next.deadline.Before(busy.deadline) || !last.deadline.Before(next.deadline) {
		t.Errorf("the answers may be read until %s, %s and %s", busy.deadline, next.deadline, last.deadline)
	}
	if unread.Load() != 0 {
		t.Errorf("%d bytes are still unread", unread.Load())
	}
}

type deadlined struct {
	*httptest.ResponseRecorder
	deadline  time.Time
	meanwhile func() // called by Write
}

func (d *deadlined) Write(b []byte) (int, error) {
	if d.meanwhile != nil {
		d.meanwhile()
	}
	return d.ResponseRecorder.Write(b)
}

func (d *deadlined) SetWriteDeadline(at time.Time) error {
	d.deadline = at
	return nil
}

// At the bound new connections are taken, and those go that have been without a request for longest.
func TestConnections(t *testing.T) {
	const bound = 20
	hold, holding := make(chan struct{}), make(chan struct{}, 1)
	s := NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hold" {
			holding <- struct{}{}
			<-hold
		}
	}), slog.New(slog.DiscardHandler), nil)
	connections := &Connections{Max: bound}
	s.ConnState = connections.Track
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
	dial := func() net.Conn {
		t.Helper()
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	ask := func(conn net.Conn, path string) (string, error) {
		if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return "", err
		}
		return bufio.NewReader(conn).ReadString('\n')
	}
	busy := dial()
	answer := make(chan string, 1)
	go func() { line, _ := ask(busy, "/hold"); answer <- line }()
	<-holding
	var all []net.Conn
	for i := range 5 * bound {
		conn := dial()
		all = append(all, conn)
		if i%2 == 0 { // the others send nothing at all
			if line, err := ask(conn, "/"); !strings.Contains(line, "200") {
				t.Fatalf("connection %d: %q, %v", i, line, err)
			}
		}
	}
	for i, conn := range all[:3*bound] {
		if n, err := conn.Read(make([]byte, 100)); n == 0 && err != io.EOF && !strings.Contains(err.Error(), "reset") {
			t.Errorf("connection %d is still there: %v", i, err)
		}
	}
	connections.mu.Lock()
	if n := len(connections.open); n > bound {
		t.Errorf("%d connections are open, want at most %d", n, bound)
	}
	connections.mu.Unlock()
	close(hold)
	if line := <-answer; !strings.Contains(line, "200") {
		t.Errorf("the request that was under way: %q", line)
	}
	busy.Close()
	for _, conn := range all {
		conn.Close()
	}
	// Those that were never told of an end would be counted for ever.
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		connections.mu.Lock()
		open, waiting := len(connections.open), connections.waiting.Len()
		connections.mu.Unlock()
		if open == 0 && waiting == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d connections are known, %d waiting, after the end", open, waiting)
		}
	}
}

// A body that nobody reads holds up neither the answer nor the connection, and one that was sent whole costs it nothing.
func TestUnreadBodies(t *testing.T) {
	s := httptest.NewServer(&Edge{Log: slog.New(slog.DiscardHandler),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			JSON(w, 401, "application/json", "no")
		})})
	t.Cleanup(s.Close)
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(conn)
	for _, x := range []struct {
		body string
		ends bool
	}{{strings.Repeat("x", 1000), false}, {"x", true}} {
		if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"+x.body); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(reader, nil)
		if err != nil || resp.StatusCode != 401 || resp.Close != x.ends {
			t.Fatalf("a body of %d bytes of 1000: %+v, %v", len(x.body), resp, err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
	}
	if _, err := reader.ReadByte(); err != io.EOF {
		t.Errorf("the connection goes on: %v", err)
	}
}

// One account has slots of its own, from whichever address it comes.
func TestInFlightOfAccount(t *testing.T) {
	hold, holding := make(chan struct{}), make(chan struct{}, 10)
	e := &Edge{
		Log:      slog.New(slog.DiscardHandler),
		InFlight: &InFlight{PerAccount: 2},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			Handle(w, r, func(_ http.ResponseWriter, r *http.Request) error {
				if err := InfoOf(r.Context()).TakeAccountSlot(r.Header.Get("Account")); err != nil {
					return err
				}
				holding <- struct{}{}
				<-hold
				return nil
			}, fail)
		}),
	}
	send := func(account, address string) *httptest.ResponseRecorder {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = address + ":1"
		r.Header.Set("Account", account)
		e.ServeHTTP(w, r)
		return w
	}
	var load sync.WaitGroup
	for i, account := range []string{"a", "a", "b"} {
		load.Go(func() {
			if w := send(account, fmt.Sprintf("192.0.2.%d", i)); w.Code != http.StatusOK {
				t.Errorf("%s: %d", account, w.Code)
			}
		})
		<-holding
	}
	if w := send("a", "198.51.100.1"); w.Code != 500+int(fault.TooMany) || w.Header().Get("Retry-After") != "1" {
		t.Errorf("got %d %s", w.Code, w.Header())
	}
	close(hold)
	load.Wait()
	if send("a", "198.51.100.1").Code != http.StatusOK || len(e.InFlight.byAccount) != 0 {
		t.Errorf("under way are %v", e.InFlight.byAccount)
	}
}
