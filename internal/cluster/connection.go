package cluster

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgwire"
	"rolecall/internal/primary"
	"rolecall/internal/secret"
)

// Connection is how a cluster is reached. Everything is said here: nothing is read from the environment or from files.
type Connection struct {
	// URL is postgres://role@host:5432,other:5432/database, without a password. Roles are managed over this database.
	URL string
	TLS TLS
	// Password and Key, the private key of TLS.Cert in PEM, are secrets of the administering role.
	Password, Key secret.Text
	// SynchronousCommit is the setting synchronous_commit of Rolecall's sessions; "": the server's. It is one of Settings.
	SynchronousCommit string
}

// TLS says how the connection is protected. Mode is one of libpq's verify-full (the default), verify-ca, require and
// disable. CA and Cert are PEM; without CA the system's certificate authorities apply.
type TLS struct {
	Mode string `json:"mode"`
	CA   string `json:"ca,omitempty"`
	Cert string `json:"cert,omitempty"`
	// AllowPlaintext lets a connection with the mode disable leave this machine: an admin confirms that the network is
	// private.
	AllowPlaintext bool `json:"allowPlaintext,omitempty"`
}

// urlKeys are the parameters that a cluster's URL may have. require_auth lets an operator allow what SCRAM-less servers
// do; every key that would make pgx read a file or a service definition stays out.
var urlKeys = []string{"target_session_attrs", "connect_timeout", "channel_binding", "require_auth"}

// tlsField is the field of TLS with what libpq reads from a parameter of the URL, or "".
func tlsField(parameter string) string {
	switch parameter {
	case "sslmode":
		return "mode"
	case "sslrootcert":
		return "ca"
	case "sslcert":
		return "cert"
	case "sslkey":
		return "key"
	}
	return ""
}

// connectTimeout is how long it takes at most to connect to one host, unless the URL says less.
const connectTimeout = 4 * time.Second

// maxConns is how many sessions one Rolecall holds in one cluster at most, not counting those to other databases.
const maxConns = 9

// config makes the one configuration from which every connection to the cluster is opened.
func (c *Connection) config() (*pgxpool.Config, error) {
	u, err := url.Parse(c.URL)
	if err != nil && strings.Contains(strings.ToLower(c.URL), "@%2f") {
		return nil, errSocket
	}
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return nil, fault.New(fault.Invalid, "The connection's URL cannot be read; it has the form "+
			"postgres://role@host:5432/database.").At("connection.url")
	}
	if _, has := u.User.Password(); has {
		return nil, fault.New(fault.Invalid, "The connection's URL holds a password; give it in the field password.").
			At("connection.url")
	}
	if u.User.Username() == "" || u.Host == "" || strings.Trim(u.Path, "/") == "" {
		return nil, fault.New(fault.Invalid, "The connection's URL must name the role, the host and the database: "+
			"postgres://role@host:5432/database.").At("connection.url")
	}
	// Without TLS they are sent as they are, and to a service that takes lines of text a new line begins a command.
	if strings.ContainsFunc(u.User.Username()+u.Path, unicode.IsControl) {
		return nil, fault.New(fault.Invalid, "The connection's URL has a control character in the name of the role or of the "+
			"database.").At("connection.url")
	}
	for key, values := range u.Query() {
		if field := tlsField(key); field != "" {
			return nil, fault.New(fault.Invalid, "The connection's URL has the parameter %q; give its value in the field tls.%s, "+
				"or with --tls-%[2]s.", key, field).At("connection.url")
		}
		if !slices.Contains(urlKeys, key) {
			return nil, fault.New(fault.Invalid, "The connection's URL has the parameter %q; accepted are %s.", key,
				strings.Join(urlKeys, ", ")).At("connection.url")
		}
		if len(values) > 1 { // the driver would take the last, which may be no demand at all
			return nil, fault.New(fault.Invalid, "The connection's URL has the parameter %q twice.", key).At("connection.url")
		}
	}
	if c.Password == "" {
		return nil, fault.New(fault.Invalid, "The connection has no password.").At("connection.password")
	}
	q := u.Query()
	for key, value := range settings {
		if q.Get(key) == "" { // an empty one would count for pgx, as no demand at all
			q.Set(key, value)
		}
	}
	u.RawQuery = q.Encode()
	u.User = url.UserPassword(u.User.Username(), string(c.Password))
	if u.Port() == "" && !strings.Contains(u.Host, ",") {
		u.Host += ":5432" // in a list of hosts pgx takes this for those without a port
	}
	pool, err := pgxpool.ParseConfig(u.String())
	if err != nil {
		return nil, fault.New(fault.Invalid, "The connection's URL cannot be read; it has the form "+
			"postgres://role@host:5432/database.").At("connection.url")
	}
	pool.MaxConns = maxConns
	pool.MaxConnIdleTime = 2 * time.Minute
	pool.MaxConnLifetime = time.Hour
	config := pool.ConnConfig
	// It counts for each host: one that hangs must leave time for the others.
	if share := max(connectTimeout/time.Duration(1+len(config.Fallbacks)), time.Second); config.ConnectTimeout == 0 ||
		config.ConnectTimeout > share {
		config.ConnectTimeout = share
	}
	config.DialFunc = primary.Dialer(config.ConnectTimeout, notLinkLocal)
	config.ValidateConnect = primary.Require
	if config.TLSConfig, err = c.tls(config.Host); err != nil {
		return nil, err
	}
	for _, f := range config.Fallbacks {
		if f.TLSConfig, err = c.tls(f.Host); err != nil {
			return nil, err
		}
	}
	config.RuntimeParams = pgrole.SessionSettings()
	config.RuntimeParams["application_name"] = "rolecall"
	if c.SynchronousCommit != "" {
		config.RuntimeParams["synchronous_commit"] = c.SynchronousCommit
	}
	config.OnNotice = func(*pgconn.PgConn, *pgconn.Notice) {}
	config.BuildFrontend = pgwire.NewGuard().Frontend
	return pool, nil
}

// notLinkLocal refuses to dial link-local addresses, whatever name has led there: clouds have services there that give
// secrets to all who are on the machine, and nobody has a PostgreSQL. Some have their services at other addresses, too.
func notLinkLocal(address string) error {
	if to, err := netip.ParseAddrPort(address); err == nil &&
		(to.Addr().Unmap().IsLinkLocalUnicast() || slices.Contains(metadata, to.Addr().Unmap().WithZone(""))) {
		return errors.New("this is a link-local address, or that of a cloud's metadata service, and not connected to")
	}
	return nil
}

var metadata = []netip.Addr{
	// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html
	netip.MustParseAddr("fd00:ec2::254"),
	// https://www.alibabacloud.com/help/en/ecs/user-guide/view-instance-metadata
	netip.MustParseAddr("100.100.100.200"),
	// https://learn.microsoft.com/en-us/azure/virtual-network/what-is-ip-address-168-63-129-16
	netip.MustParseAddr("168.63.129.16"),
}

var errSocket = fault.New(fault.Invalid, "The connection's URL names a unix socket; a host is needed.").At("connection.url")

// settings are all those that pgx would look up in the environment or in files of the home folder when the URL does not
// have them. It makes its TLS settings out of files and defaults; with "disable" it makes none, and ours are set later.
// What remains is PGSERVICE: these settings win over those of the service, but it must exist.
var settings = map[string]string{
	"require_auth":         "scram-sha-256",
	"target_session_attrs": "read-write",
	"connect_timeout":      "4",
	"channel_binding":      "prefer",
	"sslmode":              "disable",
	"sslnegotiation":       "postgres",
	"sslrootcert":          "",
	"sslcert":              "",
	"sslkey":               "",
	"sslcertmode":          "allow",
	"min_protocol_version": "",
	"max_protocol_version": "",
}

// plaintext is the TLS mode without TLS.
const plaintext = "disable"

func (c *Connection) tls(host string) (*tls.Config, error) {
	if strings.HasPrefix(host, "/") {
		return nil, errSocket
	}
	if c.TLS.Mode == plaintext {
		return nil, c.plaintextRefusal(host)
	}
	if c.TLS.AllowPlaintext {
		return nil, fault.New(fault.Invalid, "The field tls.allowPlaintext applies to the TLS mode disable only, and the mode is "+
			"%s.", cmp.Or(c.TLS.Mode, "verify-full")).At("connection.tls.allowPlaintext")
	}
	config := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if c.TLS.CA != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(c.TLS.CA)) {
			return nil, fault.New(fault.Invalid, "The connection's tls.ca holds no certificate in PEM.").At("connection.tls.ca")
		}
	}
	if c.TLS.Cert != "" {
		pair, err := tls.X509KeyPair([]byte(c.TLS.Cert), []byte(c.Key))
		if err != nil {
			return nil, fault.New(fault.Invalid, "The connection's tls.cert and tls.key are not a certificate and its key in PEM.").
				At("connection.tls.cert")
		}
		config.Certificates = []tls.Certificate{pair}
	}
	switch c.TLS.Mode {
	case "", "verify-full":
	case "verify-ca":
		config.InsecureSkipVerify = true
		config.VerifyConnection = func(state tls.ConnectionState) error { return verifyChain(state, config.RootCAs) }
	case "require":
		config.InsecureSkipVerify = true
	default:
		return nil, fault.New(fault.Invalid, "The TLS mode %q is not known; accepted are verify-full, verify-ca, require and "+
			"disable.", c.TLS.Mode).At("connection.tls.mode")
	}
	return config, nil
}

// plaintextRefusal is why a connection to a host must not be without TLS; nil if it may be.
func (c *Connection) plaintextRefusal(host string) error {
	switch {
	case isLoopback(host):
		return nil
	case !c.TLS.AllowPlaintext:
		return fault.New(fault.Invalid, "The TLS mode disable is allowed for loopback addresses only, and not for %s. Use "+
			"another mode. If the network is private, an admin can allow it with tls.allowPlaintext, or with --allow-plaintext.",
			host).At("connection.tls.mode")
	case requireAuth(c.URL) != scram:
		return fault.New(fault.Invalid, "The connection to %s has no TLS, so require_auth must be %s. With another method the "+
			"network could read the password.", host, scram).At("connection.url")
	}
	return nil
}

func isLoopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}

// PlaintextProblem warns of a connection that leaves this machine without TLS; "": it does not.
func (c *Connection) PlaintextProblem() string {
	if c.TLS.Mode != plaintext || !c.TLS.AllowPlaintext ||
		!slices.ContainsFunc(c.hosts(), func(h string) bool { return !isLoopback(h) }) {
		return ""
	}
	return "The connection has no TLS, as an admin has allowed. Anyone who reads the traffic can read all data and the " +
		"verifiers of passwords, and anyone who changes it can act as the administering role. Set a TLS mode as soon as " +
		"the server has a certificate."
}

// hosts are those of the URL; nil if the connection is invalid.
func (c *Connection) hosts() []string {
	config, err := c.config()
	if err != nil {
		return nil
	}
	hosts := []string{config.ConnConfig.Host}
	for _, f := range config.ConnConfig.Fallbacks {
		hosts = append(hosts, f.Host)
	}
	return hosts
}

// verifyChain is what verify-ca asks for: a chain to a trusted authority, whatever name the certificate has.
func verifyChain(state tls.ConnectionState, roots *x509.CertPool) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("the server sent no certificate")
	}
	intermediates := x509.NewCertPool()
	for _, cert := range state.PeerCertificates[1:] {
		intermediates.AddCert(cert)
	}
	_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates})
	return err
}
