package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// errURL does not quote the URL: pgx redacts what it takes for the password, but a malformed URL hides one anywhere.
var errURL = errors.New("the URL of the control database cannot be read; it has the form " +
	"postgres://user:password@host:5432/database?sslmode=verify-full")

// CheckURL says what is wrong with the URL of a control database, without connecting.
func CheckURL(url string) error {
	_, err := parse(url)
	return explainURL(err)
}

// explainURL says what is wrong with a URL that was not parsed.
func explainURL(err error) error {
	if file, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("the URL of the control database names a file that cannot be read: %w", file)
	}
	if err != nil {
		return errURL
	}
	return nil
}

// defaults apply beyond loopback unless the URL says otherwise. Access to the control database is access to everything, and
// PostgreSQL's defaults send the password in clear to any server that asks for it.
// https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-PROTECTION
var defaults = map[string]string{"sslmode": "verify-full", "require_auth": "scram-sha-256"}

// parse reads the URL of the control database, or PostgreSQL's other form of it, `host=… user=…`.
func parse(text string) (*pgxpool.Config, error) {
	config, err := pgxpool.ParseConfig(text)
	if err != nil || local(config.ConnConfig) {
		return config, err
	}
	// A password may look like a parameter, so the text is not searched for one.
	if !strings.HasPrefix(text, "postgres://") && !strings.HasPrefix(text, "postgresql://") {
		for key, value := range defaults {
			text = key + "=" + value + " " + text // the last one applies
		}
		return pgxpool.ParseConfig(text)
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, err
	}
	query := u.Query()
	for key, value := range defaults {
		if !query.Has(key) {
			query.Set(key, value)
		}
	}
	u.RawQuery = query.Encode()
	return pgxpool.ParseConfig(u.String())
}

// local reports whether all hosts are this one.
func local(config *pgx.ConnConfig) bool {
	hosts := []string{config.Host}
	for _, f := range config.Fallbacks {
		hosts = append(hosts, f.Host)
	}
	for _, host := range hosts {
		address, err := netip.ParseAddr(host)
		if !strings.HasPrefix(host, "/") && host != "localhost" && (err != nil || !address.IsLoopback()) {
			return false
		}
	}
	return true
}

// unverified reports whether a server beyond loopback may be another than the one that is meant, without TLS or without a
// look at its certificate.
func unverified(config *pgx.ConnConfig) bool {
	if local(config) {
		return false
	}
	weak := config.TLSConfig == nil || config.TLSConfig.InsecureSkipVerify && config.TLSConfig.VerifyPeerCertificate == nil
	for _, f := range config.Fallbacks {
		weak = weak || f.TLSConfig == nil || f.TLSConfig.InsecureSkipVerify && f.TLSConfig.VerifyPeerCertificate == nil
	}
	return weak
}
