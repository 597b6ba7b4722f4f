// Package notify reports the state of this process to the service manager that has started it, as systemd's sd_notify(3)
// does.
package notify

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// Manager is the service manager; nil: there is none, and nothing is reported.
type Manager struct {
	socket   net.UnixAddr
	watchdog time.Duration // it ends a process that it does not hear from for this long; 0: it does not
}

// FromEnvironment returns the service manager that NOTIFY_SOCKET names; nil if the variable is not set.
func FromEnvironment() (*Manager, error) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil, nil
	}
	// An @ stands for a null byte, the beginning of an abstract name. net does the same.
	if path[0] != '/' && path[0] != '@' {
		return nil, fmt.Errorf("NOTIFY_SOCKET is %q; it must be an absolute path or begin with @", path)
	}
	m := &Manager{socket: net.UnixAddr{Name: path, Net: "unixgram"}}
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return m, nil // the watchdog is for another process
	}
	text := os.Getenv("WATCHDOG_USEC")
	if text == "" {
		return m, nil
	}
	microseconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || microseconds <= 0 || microseconds > int64(24*time.Hour/time.Microsecond) {
		return nil, fmt.Errorf("WATCHDOG_USEC is %q; it must be a number of microseconds, at most a day", text)
	}
	m.watchdog = time.Duration(microseconds) * time.Microsecond
	return m, nil
}

// Waiting reports why the start takes longer, and that it may take as long again as within.
func (m *Manager) Waiting(why string, within time.Duration) error {
	return m.send("STATUS="+why, extend(within))
}

// Ready reports that the start is over.
func (m *Manager) Ready() error { return m.send("READY=1", "STATUS=") }

// Stopping reports that the process ends within a time.
func (m *Manager) Stopping(within time.Duration) error { return m.send("STOPPING=1", extend(within)) }

func extend(within time.Duration) string {
	return "EXTEND_TIMEOUT_USEC=" + strconv.FormatInt(within.Microseconds(), 10)
}

// Watch tells the watchdog that the process runs, twice in its interval and until ctx ends.
func (m *Manager) Watch(ctx context.Context) error {
	if m == nil || m.watchdog == 0 {
		return nil
	}
	ticker := time.NewTicker(m.watchdog / 2)
	defer ticker.Stop()
	for {
		if err := m.send("WATCHDOG=1"); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// send sends assignments in one datagram. A manager that reads too slowly must not stop the process.
func (m *Manager) send(assignments ...string) error {
	if m == nil {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &m.socket)
	if err == nil {
		defer conn.Close()
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second)) // a socket has deadlines
		_, err = conn.Write([]byte(strings.Join(assignments, "\n")))
	}
	if err != nil {
		return fmt.Errorf("the service manager was not notified: %w", err)
	}
	return nil
}
