package cluster

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/fault"
	"rolecall/internal/secret"
)

// The metadata services of clouds are not connected to, by whatever name they go.
func TestLinkLocal(t *testing.T) {
	t.Parallel()
	for _, host := range []string{
		"169.254.169.254", "169.254.169.254:80", "169.254.170.2", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]:80",
		"[fe80::1%25lo]", "[fd00:ec2::254]:80", "[fd00:ec2::254%25lo]", "127.0.0.1,169.254.169.254:1",
		"100.100.100.200", "[::ffff:168.63.129.16]:80",
	} {
		c := Connection{URL: "postgres://role@" + host + "/app", Password: "hunter2secret"}
		if _, _, err := c.Open(t.Context()); !fault.Is(err, fault.Unavailable) ||
			!strings.Contains(fault.Of(err).Message, "link-local") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", host, err)
		}
	}
	c := Connection{URL: "postgres://role@metadata.example.test/app", Password: "x"}
	config, err := c.config()
	if err != nil {
		t.Fatal(err)
	}
	config.ConnConfig.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"169.254.169.254"}, nil }
	if _, err := pgx.ConnectConfig(t.Context(), config.ConnConfig); err == nil || !strings.Contains(err.Error(), "link-local") {
		t.Errorf("a name: %v", err)
	}
}

// A server that has vanished without a word is noticed: a delete must not wait for it until its deadline.
func TestVanishedServerIsNoticed(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	config, err := (&Connection{URL: "postgres://role@" + listener.Addr().String() + "/app", Password: "x"}).config()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := config.ConnConfig.DialFunc(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	const tcpUserTimeout = 18 // TCP_USER_TIMEOUT, in milliseconds: tcp(7)
	var got int
	var getErr error
	if err := raw.Control(func(fd uintptr) {
		got,
			getErr = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout)
	}); err != nil || getErr != nil ||
		got != 10_000 {
		t.Errorf("it is given up after %d ms, %v, %v", got, err, getErr)
	}
}

// A service that is no PostgreSQL is sent eight bytes that are always the same, and what it answers is not passed on.
func TestAnyServiceSeesNothing(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{"N", "E", "HTTP/1.1 200 OK\r\n\r\nthe-secret-of-the-service",
		"220 the-secret-of-the-service\r\n", ""} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		seen := make(chan []byte, 10)
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					close(seen)
					return
				}
				_ = conn.SetDeadline(time.Now().Add(time.Minute))
				first := make([]byte, 8)
				n, _ := io.ReadFull(conn, first)
				_, _ = io.WriteString(conn, answer)
				_ = conn.(*net.TCPConn).CloseWrite()
				rest, _ := io.ReadAll(conn)
				conn.Close()
				seen <- append(first[:n], rest...)
			}
		}()
		commands := Connection{URL: fmt.Sprintf("postgres://x%%0d%%0aFLUSHALL%%0d%%0a@%s/app", listener.Addr()),
			Password: "hunter2secret", TLS: TLS{Mode: "disable"}}
		if _, _, err := commands.Open(t.Context()); !fault.Is(err, fault.Invalid) {
			t.Errorf("with commands in the name of the role: %v", err)
		}
		c := Connection{URL: fmt.Sprintf("postgres://role@%s/app", listener.Addr()), Password: secret.Text("hunter2secret"),
			TLS: TLS{Mode: "require"}}
		_, _, err = c.Open(t.Context())
		listener.Close()
		if !fault.Is(err, fault.Unavailable) && !fault.Is(err, fault.Invalid) || strings.Contains(err.Error(), "the-secret") {
			t.Errorf("%q: %v", answer, err)
		}
		times := 0
		for sent := range seen {
			times++
			if !bytes.Equal(sent, []byte{0, 0, 0, 8, 4, 210, 22, 47}) { // SSLRequest
				t.Errorf("%q: it was sent %q", answer, sent)
			}
		}
		if times == 0 {
			t.Errorf("%q: it was not connected to", answer)
		}
	}
}
