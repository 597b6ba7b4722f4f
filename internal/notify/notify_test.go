package notify

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// manager listens as systemd does, and returns what is sent.
func manager(t *testing.T, name string) (next func() string) {
	t.Helper()
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	return func() string {
		t.Helper()
		b := make([]byte, 1000)
		_ = l.SetReadDeadline(time.Now().Add(time.Minute))
		n, err := l.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
}

func TestNotify(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "2000")
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), "@rolecall-" + strconv.Itoa(os.Getpid())} {
		next := manager(t, name)
		for _, pid := range []string{"", strconv.Itoa(os.Getpid())} {
			t.Setenv("WATCHDOG_PID", pid)
			m, err := FromEnvironment()
			if err != nil || m.watchdog != 2*time.Millisecond {
				t.Fatalf("for process %q: %v, %v", pid, m, err)
			}
		}
		m, _ := FromEnvironment()
		for _, c := range []struct {
			err  error
			want string
		}{
			{m.Waiting("waiting for the control database", 2*time.Second),
				"STATUS=waiting for the control database\nEXTEND_TIMEOUT_USEC=2000000"},
			{m.Ready(), "READY=1\nSTATUS="},
			{m.Stopping(25 * time.Second), "STOPPING=1\nEXTEND_TIMEOUT_USEC=25000000"},
		} {
			if got := next(); c.err != nil || got != c.want {
				t.Errorf("sent %q, %v; want %q", got, c.err, c.want)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- m.Watch(ctx) }()
		for range 3 {
			if got := next(); got != "WATCHDOG=1" {
				t.Errorf("to the watchdog: %q", got)
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the end of the watchdog: %v", err)
		}
	}
}

func TestNotifyBad(t *testing.T) {
	for name, c := range map[string]struct{ socket, pid, interval, want string }{
		"relative":        {"notify", "", "", `NOTIFY_SOCKET is "notify"`},
		"no number":       {"/notify", "", "30s", `WATCHDOG_USEC is "30s"`},
		"nothing":         {"/notify", "", "0", `WATCHDOG_USEC is "0"`},
		"negative":        {"/notify", "", "-5", `WATCHDOG_USEC is "-5"`},
		"too long":        {"/notify", "", "9223372036854775807", "at most a day"},
		"another process": {"/notify", "1", "30s", ""},
	} {
		t.Setenv("NOTIFY_SOCKET", c.socket)
		t.Setenv("WATCHDOG_PID", c.pid)
		t.Setenv("WATCHDOG_USEC", c.interval)
		m, err := FromEnvironment()
		if c.want == "" {
			if err != nil || m.watchdog != 0 || m.Watch(t.Context()) != nil {
				t.Errorf("%s: %v, %v", name, m, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	t.Setenv("WATCHDOG_PID", "")
	t.Setenv("WATCHDOG_USEC", "2000")
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	m, err := FromEnvironment()
	if err != nil || m.Ready() == nil || m.Watch(t.Context()) == nil {
		t.Errorf("nobody listens: %v, %v", m, err)
	}
	t.Setenv("NOTIFY_SOCKET", "")
	m, err = FromEnvironment()
	if m != nil || err != nil || m.Ready() != nil || m.Stopping(0) != nil || m.Waiting("", 0) != nil ||
		m.Watch(t.Context()) != nil {
		t.Errorf("without a manager: %v, %v", m, err)
	}
}
