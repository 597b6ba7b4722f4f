package event

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/control"
	"rolecall/internal/task"
)

// Export is where the operator has the audit log exported to; "" in each: not there.
type Export struct {
	File      string // each replica writes one of its own
	Syslog    string // tls://host:port
	HTTPS     string // URL
	TokenFile string // with the bearer token for HTTPS
	CAFile    string // with the authorities for Syslog and HTTPS; "": those of the system
	Format    Format
}

// Check returns what is wrong with an export, by the name of its flag.
func (x *Export) Check() error {
	switch {
	case x.Format != JSON && x.Format != OCSF:
		return fmt.Errorf("--audit-format is %q; use json or ocsf", string(x.Format))
	case x.TokenFile != "" && x.HTTPS == "":
		return errors.New("--audit-https-token-file goes with --audit-https only")
	case x.CAFile != "" && x.HTTPS == "" && x.Syslog == "":
		return errors.New("--audit-ca-file goes with --audit-https or --audit-syslog only")
	}
	if x.Syslog != "" {
		if _, err := x.syslogAddress(); err != nil {
			return err
		}
	}
	if u, err := url.Parse(x.HTTPS); x.HTTPS != "" && (err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil) {
		return errors.New("--audit-https must be a URL that begins with https://, without a user name or password; for a token " +
			"use --audit-https-token-file")
	}
	if x.TokenFile != "" {
		if _, err := x.token(); err != nil {
			return err
		}
	}
	_, err := x.authorities()
	return err
}

// syslogAddress is the host and port of Syslog.
func (x *Export) syslogAddress() (string, error) {
	u, err := url.Parse(x.Syslog)
	if err != nil || u.Scheme != "tls" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" {
		return "", fmt.Errorf("--audit-syslog is %.200q; it has the form tls://host:6514", x.Syslog)
	}
	return net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "6514")), nil // RFC 5425
}

// authorities are those of CAFile; nil: those of the system.
func (x *Export) authorities() (*x509.CertPool, error) {
	if x.CAFile == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(x.CAFile)
	if err != nil {
		return nil, fmt.Errorf("--audit-ca-file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--audit-ca-file: %s has no certificate in PEM", x.CAFile)
	}
	return pool, nil
}

// token is the bearer token for HTTPS, "" if there is none.
func (x *Export) token() (string, error) {
	if x.TokenFile == "" {
		return "", nil
	}
	text, err := os.ReadFile(x.TokenFile)
	token := strings.TrimSpace(string(text))
	switch {
	case err != nil:
		return "", fmt.Errorf("--audit-https-token-file: %w", err)
	case token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", fmt.Errorf("--audit-https-token-file: %s must have one token on one line", x.TokenFile)
	}
	return token, nil
}

func (x *Export) tls() (*tls.Config, error) {
	pool, err := x.authorities()
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, err
}

// collector is a receiver of an export that all replicas share.
type collector struct{ kind, task string }

// id is that of the collector's row. There is one of each kind, wherever it is.
func (c collector) id() uuid.UUID { return uuid.NewSHA1(uuid.Nil, []byte("rolecall/"+c.kind)) }

func (x *Export) collectors() (list []collector) {
	if x.Syslog != "" {
		list = append(list, collector{"syslog", syslogTask})
	}
	if x.HTTPS != "" {
		list = append(list, collector{"https", httpsTask})
	}
	return list
}

// ensure makes the row and the task of a collector, which gets the whole log the first time.
func (s *Service) ensure(ctx context.Context, c collector) {
	for ctx.Err() == nil {
		err := s.DB.Tx(ctx, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `INSERT INTO followers (id, kind, seq, mac) VALUES ($1, $2, 0, '') ON CONFLICT DO NOTHING`, c.id(),
				c.kind)
			if err != nil {
				return err
			}
			return task.Ensure(ctx, tx, task.Task{Kind: c.task, Key: c.id()})
		})
		if err == nil {
			return
		}
		s.Log.Error("the export of the audit log cannot be prepared; retrying", "kind", c.kind, "error", err)
		select {
		case <-time.After(pauseAfterFailure):
		case <-ctx.Done():
		}
	}
}

// deliverCollector exports to a collector, as its task.
func (d *deliverer) deliverCollector(ctx context.Context, id uuid.UUID) (time.Duration, error) {
	return d.deliver(ctx, id, d.collectorOf)
}

func (s *Service) collectorOf(ctx context.Context, id uuid.UUID) (*receiver, error) {
	r := &receiver{ID: id}
	err := s.DB.Pool.QueryRow(ctx, `SELECT kind, seq, mac, failures, last_error FROM followers WHERE id = $1`, id).
		Scan(&r.Kind, &r.Cursor.Seq, &r.Cursor.MAC, &r.Failures, &r.LastErr)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, control.Fault(err)
	}
	if r.Kind == "syslog" {
		r.sender = &syslogSender{export: &s.Export, version: s.Version, timeout: cmp.Or(s.Timeout, requestTimeout)}
	} else {
		r.sender = &httpsSender{export: &s.Export, version: s.Version, timeout: cmp.Or(s.Timeout, requestTimeout),
			agent: s.agent()}
	}
	return r, nil
}

// exportBatch is how many events a collector gets together.
const exportBatch = 50

// all is for receivers of all events, forever.
type all struct{}

func (all) batch() int        { return exportBatch }
func (all) wants(*Event) bool { return true }
func (all) gaveUp(error) bool { return false }

// httpsSender sends lines of JSON to a collector, some in a request.
type httpsSender struct {
	all
	export         *Export
	version, agent string
	timeout        time.Duration
}

func (h *httpsSender) send(ctx context.Context, events []Event) error {
	body, err := h.export.Format.encode(events, h.version)
	if err != nil {
		return err
	}
	header := http.Header{"Content-Type": {"application/x-ndjson"}, "User-Agent": {h.agent}}
	token, err := h.export.token() // read each time, so that it can be replaced
	if err != nil {
		return err
	}
	if token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	config, err := h.export.tls()
	if err != nil {
		return err
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, TLSHandshakeTimeout: h.timeout,
		ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Timeout: h.timeout, Transport: transport, CheckRedirect: followNone}
	return post(ctx, client, h.export.HTTPS, body, header)
}
