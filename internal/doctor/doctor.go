// Package doctor examines what a server needs, on the machine and with the configuration of that server. It changes nothing.
package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"rolecall/internal/cluster"
	"rolecall/internal/control"
	"rolecall/internal/fault"
	"rolecall/internal/server"
)

// Level is how bad a finding is.
type Level string

// The levels. Nothing works as it should until an error is fixed.
const (
	OK      Level = "ok"
	Warning Level = "warning"
	Error   Level = "error"
)

// Finding is what one check has found. Text contains the remedy.
type Finding struct {
	Level Level  `json:"level"`
	Check string `json:"check"`
	Text  string `json:"text"`
}

// Examine examines everything that a configuration names. A check whose condition is missing is left out.
func Examine(ctx context.Context, c server.Config) []Finding {
	findings := certificate(c, time.Now())
	return append(findings, controlDatabase(ctx, c)...)
}

// soon is how long before its end a certificate is a finding.
const soon = 21 * 24 * time.Hour

// certificate examines the certificate of the server.
func certificate(c server.Config, now time.Time) []Finding {
	const check = "TLS"
	if c.TLS == nil {
		return []Finding{{OK, check, "The server itself speaks plain HTTP."}}
	}
	leaf, err := leafOf(c.TLS)
	if err != nil {
		return []Finding{{Error, check, fmt.Sprintf("The certificate cannot be read: %v. Replace the file of --tls-cert.", err)}}
	}
	until := leaf.NotAfter.UTC().Format("2006-01-02 15:04 MST")
	public, _ := url.Parse(c.PublicURL) // the settings were checked
	switch {
	case now.After(leaf.NotAfter):
		return []Finding{{Error, check, fmt.Sprintf("The certificate has expired at %s. Replace the files of --tls-cert and "+
			"--tls-key; the server reads them again by itself.", until)}}
	case now.Before(leaf.NotBefore):
		return []Finding{{Error, check, fmt.Sprintf("The certificate is not valid before %s. Check the clock of this machine, "+
			"or replace the certificate.", leaf.NotBefore.UTC().Format("2006-01-02 15:04 MST"))}}
	case leaf.VerifyHostname(public.Hostname()) != nil:
		return []Finding{{Warning, check, fmt.Sprintf("The certificate is not for %s, the host of --public-url. Clients refuse "+
			"it, unless a proxy in front has another one.", public.Hostname())}}
	case leaf.NotAfter.Sub(now) < soon:
		return []Finding{{Warning, check, fmt.Sprintf("The certificate expires at %s. Replace it before that.", until)}}
	}
	return []Finding{{OK, check, fmt.Sprintf("The certificate is valid until %s.", until)}}
}

func leafOf(config *tls.Config) (*x509.Certificate, error) {
	if len(config.Certificates) == 0 || len(config.Certificates[0].Certificate) == 0 {
		return nil, errors.New("it is empty")
	}
	return x509.ParseCertificate(config.Certificates[0].Certificate[0])
}

// controlDatabase examines the control database and, if it can be used, the clusters that are registered in it.
func controlDatabase(ctx context.Context, c server.Config) []Finding {
	const check = "control database"
	db, err := control.OpenAsItIs(ctx, string(c.DatabaseURL), c.Keys)
	if err != nil {
		return []Finding{{Error, check, sentence(err)}}
	}
	defer db.Close()
	findings := []Finding{{OK, check, "It answers, at the primary and without a pooler."}}
	if db.Unverified {
		findings[0] = Finding{Warning, check, "Its URL does not have the server verified, so an impostor could read everything. " +
			"Use sslmode=verify-full."}
	}
	findings = append(findings, clock(db.Skew(ctx)))
	version, known, err := db.Schema(ctx)
	switch {
	case err != nil:
		return append(findings, Finding{Error, "schema", sentence(err)})
	case version == 0:
		return append(findings, Finding{Warning, "schema", "The database is empty. serve and bootstrap create the schema."})
	case version < known:
		return append(findings, Finding{Warning, "schema", fmt.Sprintf("The schema is of an older release: %d of %d migrations. "+
			"serve migrates it at its start. The clusters were not examined.", version, known)})
	case version > known:
		return append(findings, Finding{Warning, "schema", fmt.Sprintf("The schema is of a newer release: %d migrations, and "+
			"this one knows %d. Upgrade this replica. The clusters were not examined.", version, known)})
	}
	findings = append(findings, Finding{OK, "schema", fmt.Sprintf("All %d migrations are applied.", version)})
	return append(findings, registered(ctx, c)...)
}

// registered examines the keys and the clusters of a control database whose schema is that of this release.
func registered(ctx context.Context, c server.Config) []Finding {
	db, err := control.OpenUnchanged(ctx, string(c.DatabaseURL), c.Keys)
	if err != nil {
		return []Finding{{Error, "master key", sentence(err)}}
	}
	defer db.Close()
	findings := []Finding{{OK, "master key", "It decrypts the stored secrets."}}
	clusters, err := cluster.Open(ctx, db, slog.New(slog.DiscardHandler))
	if err != nil {
		return append(findings, Finding{Error, "clusters", sentence(err)})
	}
	defer clusters.Close()
	for _, cl := range clusters.All() {
		findings = append(findings, oneCluster(ctx, cl))
	}
	return findings
}

func oneCluster(ctx context.Context, c *cluster.Cluster) Finding {
	check := "cluster " + c.DisplayName
	facts, err := c.Check(ctx)
	if err != nil {
		return Finding{Error, check, sentence(err)}
	}
	problems := append([]string{facts.StandbyProblem, c.Connection.PlaintextProblem()}, c.Capabilities.Problems...)
	for _, problem := range problems {
		if problem != "" {
			return Finding{Warning, check, problem}
		}
	}
	return Finding{OK, check, "PostgreSQL " + facts.Version + " answers, at the primary and without a pooler."}
}

// The differences of clocks at which something goes wrong: rows of the audit log are out of order, and tokens are refused.
const (
	skewWarning = 2 * time.Second
	skewError   = 30 * time.Second
)

// clock compares the clock of this machine with that of the control database.
func clock(skew time.Duration, err error) Finding {
	const check = "clock"
	if err != nil {
		return Finding{Error, check, sentence(err)}
	}
	away := skew.Abs().Round(time.Millisecond)
	if away < skewWarning {
		return Finding{OK, check, fmt.Sprintf("It differs by %s from that of the control database.", away)}
	}
	level := Warning
	if away >= skewError {
		level = Error
	}
	direction := "ahead of"
	if skew < 0 {
		direction = "behind"
	}
	return Finding{level, check, fmt.Sprintf("The clock of this machine is %s %s that of the control database. Synchronize "+
		"both with NTP: tokens and expiry dates depend on them.", away, direction)}
}

// sentence is the text of an error for a person.
func sentence(err error) string {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f.Message
	}
	return strings.Join(strings.Fields(err.Error()), " ") // one line
}
