package event

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"rolecall/internal/audit"
)

// syslogSender sends messages of RFC 5424 over TLS, as RFC 5425 says. Syslog has no confirmations. So each batch has a
// connection of its own, which is closed in both directions: a receiver that answers close_notify has read all before it.
type syslogSender struct {
	all
	export  *Export
	version string
	timeout time.Duration
}

// The facility "log audit", and the severities, of RFC 5424.
const (
	facility      = 13
	informational = 6
	warning       = 4
)

func (s *syslogSender) send(ctx context.Context, events []Event) error {
	var frames bytes.Buffer
	host, err := os.Hostname()
	if err != nil || strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r > '~' }) {
		host = "-"
	}
	for i := range events {
		line, err := s.export.Format.encode(events[i:i+1], s.version)
		if err != nil {
			return err
		}
		e := &events[i]
		severity := informational
		if e.Row == nil || e.Row.Outcome == audit.Denied || e.Row.Outcome == audit.Unknown {
			severity = warning
		}
		// Without the byte order mark, with which RFC 5424 marks text as UTF-8: JSON has none, and parsers refuse it.
		m := fmt.Sprintf("<%d>1 %s %s rolecall %d %s - %s", facility*8+severity,
			e.Time.Format("2006-01-02T15:04:05.000000Z"), host, os.Getpid(), e.Type, bytes.TrimSuffix(line, []byte("\n")))
		fmt.Fprintf(&frames, "%d %s", len(m), m)
	}
	return s.write(ctx, frames.Bytes())
}

// write sends frames over a connection, and waits until the receiver has read them.
func (s *syslogSender) write(ctx context.Context, frames []byte) error {
	address, err := s.export.syslogAddress()
	if err != nil {
		return err
	}
	config, err := s.export.tls()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	connection, err := (&tls.Dialer{Config: config, NetDialer: &net.Dialer{}}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer connection.Close()
	stop := context.AfterFunc(ctx, func() { _ = connection.SetDeadline(time.Now()) })
	defer stop()
	if _, err := connection.Write(frames); err != nil {
		return err
	}
	if err := connection.(*tls.Conn).CloseWrite(); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, connection); err != nil {
		return fmt.Errorf("the receiver did not close the connection, as RFC 5425 requires, so it may not have read the rows: %w",
			err)
	}
	return nil
}
