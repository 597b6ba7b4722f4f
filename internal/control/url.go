package control

import (
	"net/netip"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

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
	isURL := strings.HasPrefix(text, "postgres://") || strings.HasPrefix(text, "postgresql://")
	for key, value := range defaults {
		switch {
		case regexp.MustCompile(`(^|[?&\s])` + key + `\s*=`).MatchString(text):
		case !isURL:
			text += " " + key + "=" + value
		case strings.Contains(text, "?"):
			text += "&" + key + "=" + value
		default:
			text += "?" + key + "=" + value
		}
	}
	return pgxpool.ParseConfig(text)
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
