package pgtest

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
)

// Proxy is an address under which a cluster is reached, and the failures on the way there.
type Proxy struct {
	Port int

	mu    sync.Mutex
	to    string
	hung  bool
	watch func(sql string, port int) Verdict
	open  []net.Conn
	taken int
}

// Verdict is what a proxy does with a statement.
type Verdict int

// The verdicts.
const (
	Pass      Verdict = iota
	CutBefore         // cut the connection before the server gets it
	CutAfter          // cut the connection when the server has done it, and before its answer gets back
)

// NewProxy returns a proxy to a cluster, until t ends.
func NewProxy(t testing.TB, to *Cluster) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Port: l.Addr().(*net.TCPAddr).Port, watch: func(string, int) Verdict { return Pass }}
	p.Point(to)
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, conn := range p.open {
			conn.Close()
		}
	})
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(client)
		}
	}()
	return p
}

// Point has new connections lead to another cluster. Those that are open stay where they are.
func (p *Proxy) Point(to *Cluster) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.to, p.hung = net.JoinHostPort(to.Host, strconv.Itoa(to.Port)), false
}

// Hang has it swallow all that is sent either way, over connections that it goes on to take, until Point is called. What
// was swallowed stays so.
func (p *Proxy) Hang() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hung = true
}

// Taken is how many connections it has taken.
func (p *Proxy) Taken() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken
}

// Watch has watch decide on each statement, once for each time that it is executed, before the server gets it. The port is
// the one that pg_stat_activity shows of the session as client_port.
func (p *Proxy) Watch(watch func(sql string, port int) Verdict) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watch = watch
}

func (p *Proxy) hangs() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hung
}

func (p *Proxy) verdict(sql string, server net.Conn) Verdict {
	p.mu.Lock()
	watch := p.watch
	p.mu.Unlock()
	return watch(sql, server.LocalAddr().(*net.TCPAddr).Port)
}

// keep holds a connection open until it is dropped, or t ends.
func (p *Proxy) keep(conn net.Conn) (drop func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = append(p.open, conn)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if i := slices.Index(p.open, conn); i >= 0 {
			p.open = slices.Delete(p.open, i, i+1)
		}
		conn.Close()
	}
}

func (p *Proxy) serve(client net.Conn) {
	defer p.keep(client)()
	p.mu.Lock()
	to, hung := p.to, p.hung
	p.taken++
	p.mu.Unlock()
	if hung {
		_, _ = io.Copy(io.Discard, client)
		return
	}
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer p.keep(server)()
	var silent atomic.Bool // the client gets no answer any more
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.answer(client, server, &silent)
	}()
	p.forward(client, server, &silent, done)
}

// answer carries what the server says to the client.
func (p *Proxy) answer(client, server net.Conn, silent *atomic.Bool) {
	buf := make([]byte, 4096)
	for {
		n, err := server.Read(buf)
		if p.hangs() {
			_, _ = io.Copy(io.Discard, server)
			return // the client hears nothing, not even of the end
		}
		if err == nil && !silent.Load() {
			_, err = client.Write(buf[:n])
		}
		if err != nil {
			_, _ = io.Copy(io.Discard, server) // until the server has done what was asked for, and closes
			client.Close()
			return
		}
	}
}

// forward carries what the client says to the server, message by message.
// https://www.postgresql.org/docs/current/protocol-message-formats.html
func (p *Proxy) forward(client, server net.Conn, silent *atomic.Bool, done <-chan struct{}) {
	prepared := map[string]string{}
	header := 4 // the first message has no type
	for cutting := false; ; header = 5 {
		head := make([]byte, header)
		if _, err := io.ReadFull(client, head); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(head[header-4:])-4)
		if _, err := io.ReadFull(client, body); err != nil {
			return
		}
		if p.hangs() {
			_, _ = io.Copy(io.Discard, client)
			return
		}
		verdict := Pass
		if header == 5 {
			switch part := bytes.Split(body, []byte{0}); head[0] {
			case 'Q': // the text
				verdict = p.verdict(string(part[0]), server)
			case 'P': // the name, the text
				prepared[string(part[0])] = string(part[1])
			case 'B': // the portal, the name
				verdict = p.verdict(prepared[string(part[1])], server)
			}
		}
		switch verdict {
		case CutBefore:
			return
		case CutAfter:
			cutting = true
			silent.Store(true)
		}
		_, err := server.Write(append(head, body...))
		if cutting && (err != nil || head[0] == 'Q' || head[0] == 'S') {
			// The server closes when it has done it. A client that lost its connection before that would have it cancelled.
			_, _ = server.Write([]byte{'X', 0, 0, 0, 4})
			<-done
			return
		}
		if err != nil {
			return
		}
	}
}
