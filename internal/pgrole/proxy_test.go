package pgrole_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"rolecall/internal/pgtest"
)

// verdict is what a proxy does with a statement.
type verdict int

const (
	pass      verdict = iota
	cutBefore         // cut the connection before the server gets it
	cutAfter          // cut the connection when the server has done it, and before its answer gets back
)

// listen is a proxy before a cluster. It shows each statement, once for each time that it is executed, before the server
// gets it; port is the one that pg_stat_activity shows of the session as client_port.
func listen(t testing.TB, c *pgtest.Cluster, at func(sql string, port int) verdict) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", net.JoinHostPort(c.Host, strconv.Itoa(c.Port)))
			if err != nil {
				client.Close()
				continue
			}
			go forward(client, server, at)
		}
	}()
	return l.Addr().String()
}

func forward(client, server net.Conn, at func(sql string, port int) verdict) {
	defer client.Close()
	defer server.Close()
	var silent sync.Mutex // held while the server's answer is kept back
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		defer client.Close()
		buf := make([]byte, 4096)
		for {
			n, err := server.Read(buf)
			if err != nil {
				return
			}
			silent.Lock()
			_, err = client.Write(buf[:n])
			silent.Unlock()
			if err != nil {
				_, _ = io.Copy(io.Discard, server) // until the server has done what was asked for, and closes
				return
			}
		}
	}()
	port := server.LocalAddr().(*net.TCPAddr).Port
	prepared := map[string]string{}
	header := 4 // the first message has no type
	cutting := false
	for {
		head := make([]byte, header)
		if _, err := io.ReadFull(client, head); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(head[header-4:])-4)
		if _, err := io.ReadFull(client, body); err != nil {
			return
		}
		if header == 5 {
			do := pass
			part := bytes.Split(body, []byte{0})
			switch head[0] {
			case 'Q': // the text
				do = at(string(part[0]), port)
			case 'P': // the name, the text
				prepared[string(part[0])] = string(part[1])
			case 'B': // the portal, the name
				do = at(prepared[string(part[1])], port)
			}
			if do == cutBefore {
				return
			}
			if do == cutAfter {
				cutting = true
				silent.Lock()
			}
		}
		if _, err := server.Write(append(head, body...)); err != nil {
			if cutting {
				silent.Unlock()
			}
			return
		}
		if cutting && (head[0] == 'Q' || head[0] == 'S') {
			_, _ = server.Write([]byte{'X', 0, 0, 0, 4}) // the server closes when it has done it
			client.Close()
			silent.Unlock()
			select {
			case <-answered:
			case <-time.After(10 * time.Second):
			}
			return
		}
		header = 5
	}
}
