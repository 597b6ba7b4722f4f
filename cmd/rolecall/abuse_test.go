package main

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"rolecall/internal/pgtest"
)

// abused is a server in a process of its own, behind a proxy which says whose the requests are.
type abused struct {
	*program
	address, metrics string
	tls              *tls.Config // nil: plain HTTP
}

func beginAbused(t *testing.T, flags ...string) *abused {
	t.Helper()
	database, _ := controlDatabase(t, pgtest.Shared(t))
	for _, account := range abusers {
		if code, _, errOut := bootstrap(t, database, "a password", account); code != 0 {
			t.Fatal(errOut)
		}
	}
	a := &abused{metrics: freeAddress(t)}
	args := append([]string{"serve", "--public-url", "https://rolecall.example.org", "--listen", "127.0.0.1:0",
		"--metrics-listen", a.metrics, "--trusted-proxies", "127.0.0.0/8", "--log-level", "info"}, database...)
	a.program = beginProcess(t, nil, append(args, flags...)...)
	a.address = a.servesAt(t)
	return a
}

// abusers are accounts that share what one of them alone may not have.
var abusers = []string{"admin", "abuser1", "abuser2", "abuser3", "abuser4"}

// connect opens a connection, for at most the patience of a test.
func (a *abused) connect(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", a.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if a.tls != nil {
		return tls.Client(conn, a.tls)
	}
	return conn
}

// says sends text, and returns the status line of the answer.
func (a *abused) says(t *testing.T, conn net.Conn, text string) string {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		t.Fatalf("no answer to %.100q: %v", text, err)
	}
	return strings.TrimSpace(line)
}

// from is a request of admin from an address, without the empty line at its end.
func from(address, method, path string) string { return fromAccount("admin", address, method, path) }

func fromAccount(account, address, method, path string) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: %s\r\nAuthorization: %s\r\n", method, path, address,
		basicAuth(account, "a password"))
}

// signIn has all the accounts be known.
func (a *abused) signIn(t *testing.T) {
	t.Helper()
	for _, account := range abusers {
		if line := a.says(t, a.connect(t), fromAccount(account, "192.0.2.1", "GET",
			"/rolecall/v1/whoami")+"\r\n"); line != "HTTP/1.1 200 OK" {
			t.Fatalf("%s: %s", account, line)
		}
	}
}

// holds is one of the numbers that the server publishes of itself.
func (a *abused) holds(t *testing.T, name string) int {
	t.Helper()
	for line := range strings.Lines(get(t, "http://"+a.metrics+"/metrics", "").body) {
		if text, ok := strings.CutPrefix(line, name+" "); ok {
			value, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
			if err != nil {
				t.Fatal(err)
			}
			return int(value)
		}
	}
	t.Fatalf("/metrics lacks %s", name)
	return 0
}

func (a *abused) answers(t *testing.T, address string) {
	t.Helper()
	if line := a.says(t, a.connect(t), from(address, "GET", "/rolecall/v1/whoami")+"\r\n"); line != "HTTP/1.1 200 OK" {
		t.Errorf("from %s: %s", address, line)
	}
}

func TestAbuse(t *testing.T) {
	t.Parallel()
	a := beginAbused(t)
	a.answers(t, "192.0.2.1")
	t.Run("nonsense", a.nonsense)
	t.Run("idle connections", a.idleConnections)
	t.Run("slow clients", a.slowClients)
}

const clusters = "/databases/postgresql/clusters"

// Clients that send slowly, or nothing, take what they are known to take and hold up nobody else.
func (a *abused) slowClients(t *testing.T) {
	goroutines, memory := a.holds(t, "go_goroutines"), a.holds(t, "process_resident_memory_bytes")

	// Of one account, and of one address, so many requests are under way, and the others are told to wait.
	a.signIn(t)
	const own = 64
	var held []net.Conn
	for range own + 16 { // on a busy machine, some are refused for other reasons
		conn := a.connect(t)
		if _, err := io.WriteString(conn, from("203.0.113.1", "POST",
			"/rolecall/v1/tokens")+"Content-Length: 1000\r\n\r\n{"); err != nil {
			t.Fatal(err)
		}
		held = append(held, conn)
	}
	eventually(t, func() error {
		if line := a.says(t, a.connect(t), from("203.0.113.2", "GET",
			"/rolecall/v1/whoami")+"\r\n"); line != "HTTP/1.1 429 Too Many Requests" {
			return fmt.Errorf("the account has %d requests under way, and one more is answered with %s", own, line)
		}
		return nil
	})
	for _, conn := range held {
		conn.Close()
	}
	eventually(t, func() error {
		if line := a.says(t, a.connect(t), from("203.0.113.2", "GET", "/rolecall/v1/whoami")+"\r\n"); line != "HTTP/1.1 200 OK" {
			return errors.New(line)
		}
		return nil
	})
	a.signIn(t)
	const bodies, places = 300, 256
	var mu sync.Mutex
	var lines []string
	for i := range bodies {
		conn := a.connect(t)
		if _, err := io.WriteString(conn, fromAccount(abusers[i%len(abusers)], "198.51.100.1", "POST",
			"/rolecall/v1/tokens")+"Content-Length: 1000\r\n\r\n{"); err != nil {
			t.Fatal(err)
		}
		go func() {
			if line, err := bufio.NewReader(conn).ReadString('\n'); err == nil {
				mu.Lock()
				defer mu.Unlock()
				lines = append(lines, strings.TrimSpace(line))
			}
		}()
	}
	refused := func() int {
		mu.Lock()
		defer mu.Unlock()
		for _, line := range lines {
			if line != "HTTP/1.1 429 Too Many Requests" {
				t.Fatalf("a slow body: %s", line)
			}
		}
		return len(lines)
	}
	eventually(t, func() error {
		if n := refused(); n < bodies-places {
			return fmt.Errorf("%d of %d slow bodies were refused", n, bodies)
		}
		return nil
	})
	a.answers(t, "192.0.2.1")
	if line := a.says(t, a.connect(t),
		"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 198.51.100.1\r\n\r\n"); line != "HTTP/1.1 200 OK" {
		t.Errorf("a probe: %s", line)
	}

	// Headers that never end, and nothing at all.
	const silent = 1000
	for i := range silent {
		conn := a.connect(t)
		if i%2 == 0 {
			if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "); err != nil {
				t.Fatal(err)
			}
		}
	}
	a.answers(t, "192.0.2.1")
	if n := refused(); n != bodies-places {
		t.Errorf("%d slow bodies were refused, want %d", n, bodies-places)
	}
	if extra := a.holds(t, "go_goroutines") - goroutines; extra > 2*(silent+bodies)+100 {
		t.Errorf("%d goroutines more", extra)
	}
	if extra := a.holds(t, "process_resident_memory_bytes") - memory; extra > 256<<20 { // the race detector takes most of it
		t.Errorf("%d MiB more", extra>>20)
	}
}

// What is too long, too deep or cannot be read is refused, and the connection, or the next one, goes on.
func (a *abused) nonsense(t *testing.T) {
	body := func(text string) string {
		return from("192.0.2.1", "POST", "/rolecall/v1/accounts") + "Content-Type: application/json\r\nContent-Length: " +
			strconv.Itoa(len(text)) + "\r\n\r\n" + text
	}
	many := func(format string, n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	for name, x := range map[string]struct{ text, want string }{
		"many headers":      {"GET / HTTP/1.1\r\nHost: x\r\n" + many("X-%d: x\r\n", 5000) + "\r\n", "431"},
		"a long header":     {"GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 100_000) + "\r\n\r\n", "431"},
		"a long URL":        {"GET /" + strings.Repeat("x", 100_000) + " HTTP/1.1\r\nHost: x\r\n\r\n", "431"},
		"a long URL, still": {"GET /" + strings.Repeat("x", 20_000) + " HTTP/1.1\r\nHost: x\r\n\r\n", "404"},
		"many forwarders": {"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: " + strings.Repeat("127.0.0.1,", 3000) +
			"\r\n\r\n", "200"},
		"a huge body":    {body(`{"name":"` + strings.Repeat("x", 300_000) + `"}`), "413"},
		"a nested body":  {body(strings.Repeat("[", 200_000)), "400"},
		"nested objects": {body(strings.Repeat(`{"a":`, 30_000)), "400"},
		"many values":    {body("[" + strings.Repeat("1,", 100_000) + "1]"), "400"},
		"two lengths":    {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n12", "400"},
		"a length and parts": {"POST " + clusters +
			" HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "401"},
		"no HTTP": {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", "400"},
		"no host": {"GET / HTTP/1.1\r\n\r\n", "400"},
	} {
		conn := a.connect(t)
		go func() { _, _ = io.WriteString(conn, x.text) }() // it may be answered before it was sent
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || !strings.HasPrefix(line, "HTTP/1.1 "+x.want) {
			t.Errorf("%s: %q, %v; want %s", name, line, err, x.want)
		}
	}

	// Requests that are sent at once are answered one after the other.
	const pipelined = 500
	conn := a.connect(t)
	go func() {
		_, _ = io.WriteString(conn, strings.Repeat("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", pipelined))
	}()
	reader := bufio.NewReader(conn)
	for i := range pipelined {
		resp, err := http.ReadResponse(reader, nil)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("answer %d: %+v, %v", i, resp, err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
	}
	a.answers(t, "192.0.2.1")
}

// A client of HTTP/2 has a bounded number of requests under way, and gains nothing by calling them off.
func TestHTTP2Abuse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certPEM, keyPEM := certificate(t, 1)
	write(t, cert, certPEM)
	write(t, key, keyPEM)
	a := beginAbused(t, "--tls-cert", cert, "--tls-key", key)
	a.tls = &tls.Config{InsecureSkipVerify: true}
	a.answers(t, "192.0.2.1")
	goroutines := a.holds(t, "go_goroutines")
	a.tls = &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}

	const streams = 100
	a.tls.NextProtos = nil
	a.signIn(t)
	a.tls.NextProtos = []string{"h2"}
	c := speakHTTP2(t, a.connect(t))
	if c.settings[3] != streams { // SETTINGS_MAX_CONCURRENT_STREAMS (RFC 9113, 6.5.2)
		t.Errorf("the server says %v, want %d streams at once", c.settings, streams)
	}
	// Bodies that do not come.
	const sent = 150
	for i := range sent {
		c.write(t, frameHeaders, endHeaders, uint32(2*i+1), headers("POST", "/rolecall/v1/tokens", "198.51.100.1",
			abusers[i%len(abusers)]))
	}
	refused := 0
	for refused < sent-streams {
		kind, _ := c.read(t)
		switch kind {
		case frameReset:
			refused++
		case frameHeaders:
			t.Fatal("a request without its body was answered")
		}
	}
	for i := range streams {
		c.write(t, frameReset, 0, uint32(2*i+1), binary.BigEndian.AppendUint32(nil, cancelled))
	}
	c.write(t, framePing, 0, 0, make([]byte, 8))
	for kind := byte(0); kind != framePing; {
		kind, _ = c.read(t) // then it has seen all of them
	}

	// Requests that are called off as soon as they were sent, one after the other.
	c = speakHTTP2(t, a.connect(t))
	done := make(chan int)
	go func() {
		n := 0
		for {
			if _, _, err := c.next(); err != nil {
				done <- n
				return
			}
			n++
		}
	}()
	for i := range 5000 {
		err := errors.Join(c.send(frameHeaders, endStream|endHeaders, uint32(2*i+1), headers("GET", clusters, "198.51.100.2",
			"abuser1")),
			c.send(frameReset, 0, uint32(2*i+1), binary.BigEndian.AppendUint32(nil, cancelled)))
		if err == nil && i%100 == 0 {
			err = c.out.Flush()
		}
		if err != nil {
			break // the server has had enough
		}
	}
	_ = c.out.Flush()
	c.conn.Close()
	<-done
	a.tls = &tls.Config{InsecureSkipVerify: true}
	a.answers(t, "192.0.2.1")
	eventually(t, func() error {
		if extra := a.holds(t, "go_goroutines") - goroutines; extra > 50 {
			return fmt.Errorf("%d goroutines more", extra)
		}
		return nil
	})
}

// Frames of HTTP/2 (RFC 9113, 6), as far as an abuser needs them.
const (
	frameHeaders  = 1
	frameReset    = 3
	frameSettings = 4
	framePing     = 6

	endStream, endHeaders = 1, 4
	cancelled             = 8
)

type http2 struct {
	conn     net.Conn
	in       *bufio.Reader
	out      *bufio.Writer
	settings map[uint16]uint32
}

func speakHTTP2(t *testing.T, conn net.Conn) *http2 {
	t.Helper()
	c := &http2{conn, bufio.NewReader(conn), bufio.NewWriter(conn), map[uint16]uint32{}}
	if _, err := c.out.WriteString("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	c.write(t, frameSettings, 0, 0, nil)
	kind, payload := c.read(t)
	if kind != frameSettings {
		t.Fatalf("the server begins with a frame of type %d", kind)
	}
	for ; len(payload) >= 6; payload = payload[6:] {
		c.settings[binary.BigEndian.Uint16(payload)] = binary.BigEndian.Uint32(payload[2:])
	}
	c.write(t, frameSettings, 1, 0, nil) // seen
	return c
}

func (c *http2) send(kind, flags byte, stream uint32, payload []byte) error {
	head := binary.BigEndian.AppendUint32(nil, uint32(len(payload))<<8|uint32(kind))
	head = binary.BigEndian.AppendUint32(append(head, flags), stream)
	_, err := c.out.Write(append(head, payload...))
	return err
}

func (c *http2) write(t *testing.T, kind, flags byte, stream uint32, payload []byte) {
	t.Helper()
	if err := errors.Join(c.send(kind, flags, stream, payload), c.out.Flush()); err != nil {
		t.Fatal(err)
	}
}

func (c *http2) next() (kind byte, payload []byte, err error) {
	head := make([]byte, 9)
	if _, err := io.ReadFull(c.in, head); err != nil {
		return 0, nil, err
	}
	payload = make([]byte, binary.BigEndian.Uint32(head)>>8)
	_, err = io.ReadFull(c.in, payload)
	return head[3], payload, err
}

func (c *http2) read(t *testing.T) (kind byte, payload []byte) {
	t.Helper()
	kind, payload, err := c.next()
	if err != nil {
		t.Fatal(err)
	}
	return kind, payload
}

// headers are those of a request of admin, as literals without a table (RFC 7541, 6.2.2).
func headers(method, path, address, account string) (b []byte) {
	for _, h := range [][2]string{{":method", method}, {":scheme", "https"}, {":authority", "x"}, {":path", path},
		{"x-forwarded-for", address}, {"authorization", basicAuth(account, "a password")}} {
		b = append(b, 0, byte(len(h[0])))
		b = append(append(b, h[0]...), byte(len(h[1])))
		b = append(b, h[1]...)
	}
	return b
}

// An idle connection costs little.
func (a *abused) idleConnections(t *testing.T) {
	memory, files := a.holds(t, "process_resident_memory_bytes"), a.holds(t, "process_open_fds")
	const idle = 1000
	for range idle {
		if line := a.says(t, a.connect(t), "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"); line != "HTTP/1.1 200 OK" {
			t.Fatal(line)
		}
	}
	a.answers(t, "192.0.2.1")
	each := (a.holds(t, "process_resident_memory_bytes") - memory) / idle
	fmt.Printf("%d idle connections: %d bytes each\n", idle, each)
	if each > 256<<10 { // the race detector takes most of it
		t.Errorf("an idle connection takes %d bytes", each)
	}
	if open := a.holds(t, "process_open_fds") - files; open < idle-50 { // some others have ended meanwhile
		t.Errorf("%d files are open, want %d connections", open, idle)
	}
}
