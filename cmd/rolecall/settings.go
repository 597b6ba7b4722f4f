package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"rolecall/internal/cli/term"
	"rolecall/internal/control"
	"rolecall/internal/dev"
	"rolecall/internal/event"
	"rolecall/internal/identity"
	"rolecall/internal/moment"
	"rolecall/internal/secret"
	"rolecall/internal/server"
	"rolecall/internal/trace"
)

// settings are the flags of the commands that run a server or work on its control database. Each command binds those that
// it has.
type settings struct {
	configFile      string
	otlpEndpoint    string
	listen          string
	metricsListen   string
	pprofListen     string
	publicURL       string
	dataDir         string
	pgBin           string
	databaseURL     string
	databaseURLFile string
	masterKeyFile   string
	passwordFile    string
	tlsCert, tlsKey string
	tlsClientCA     string
	trustedProxies  []string
	rateLimit       float64
	auditRetention  string
	export          event.Export
	exportFormat    string
	privateWebhooks bool
	drainDelay      string
	oidcIssuers     []string
	oidcFile        string
	logFormat       string
	logLevel        string
	allowRemote     bool
}

// The secrets that only the environment or a file may hold: every process of the machine can read arguments.
const (
	databaseURLVariable = "ROLECALL_DATABASE_URL"
	masterKeyVariable   = "ROLECALL_MASTER_KEY"
)

func (s *settings) bindListen(f *pflag.FlagSet) {
	f.StringVar(&s.listen, "listen", "127.0.0.1:8080", "`address` to serve on; with port 0, a free port")
}

func (s *settings) bindServing(f *pflag.FlagSet, metricsListen, logFormat string) {
	f.StringVar(&s.metricsListen, "metrics-listen", metricsListen,
		"`address` to serve /metrics and the probes on; empty: not served")
	f.StringVar(&s.pprofListen, "pprof-listen", "", "`address` to serve Go's profiles on, /debug/pprof/; empty: not served")
	f.StringVar(&s.otlpEndpoint, "otlp-endpoint", "", "`URL` of an OpenTelemetry collector that accepts OTLP over HTTP, "+
		"such as http://localhost:4318; default: that of the OTEL_EXPORTER_OTLP_… variables, else none")
	f.Float64Var(&s.rateLimit, "rate-limit", 200,
		"`requests` per second of one account, with bursts of twice as many; 0: no limit")
	f.StringVar(&s.auditRetention, "audit-retention", "0",
		"`age` at which rows of the audit log are removed, such as 90d or 2160h; 0: never")
	f.StringArrayVar(&s.oidcIssuers, "oidc-issuer", nil, "OpenID Connect `issuer`: with audience=… its bearer tokens are "+
		"accepted, with client-id=…[,client-secret-file=…] people sign in there; as "+
		"url,audience=…,client-id=…[,username=claim][,label=key:claim[:prefix]][,name=…][,link=username]; "+
		"repeatable, in the variable separated by spaces")
	f.StringVar(&s.oidcFile, "oidc-file", "", "YAML `file` with more issuers")
	f.StringVar(&s.logFormat, "log-format", logFormat, "log `format`: text or json")
	f.StringVar(&s.logLevel, "log-level", "info", "lowest log `level`: debug, info, warn or error")
}

// bindEvents binds where the rows of the audit log are sent.
func (s *settings) bindEvents(f *pflag.FlagSet) {
	f.StringVar(&s.export.File, "audit-file", "", "`file` to which this replica appends the audit log")
	f.StringVar(&s.export.Syslog, "audit-syslog", "",
		"`URL` of the syslog receiver for the audit log, with TLS, as tls://host:6514")
	f.StringVar(&s.export.HTTPS, "audit-https", "", "`URL` of the HTTPS collector for the audit log")
	f.StringVar(&s.export.TokenFile, "audit-https-token-file", "",
		"`file` with the bearer token for that collector; read for each request")
	f.StringVar(&s.export.CAFile, "audit-ca-file", "",
		"`file` with the authorities, in PEM, of the syslog receiver and the HTTPS collector; default: those of the system")
	f.StringVar(&s.exportFormat, "audit-format", "json", "`format` of the exported audit log: json or ocsf")
	f.BoolVar(&s.privateWebhooks, "webhook-allow-private", false,
		"allow webhooks at private addresses and with http:// URLs")
}

// addEvents adds where the rows of the audit log are sent.
func (s *settings) addEvents(c *server.Config) error {
	c.Export, c.PrivateWebhooks = s.export, s.privateWebhooks
	c.Export.Format = event.Format(s.exportFormat)
	if err := c.Export.Check(); err != nil {
		return term.Usage("%w", err)
	}
	return nil
}

func (s *settings) bindDataDir(f *pflag.FlagSet) {
	f.StringVar(&s.dataDir, "data-dir", dev.DefaultDataDir, "data `folder` of the local server")
}

func (s *settings) bindDatabase(f *pflag.FlagSet) {
	f.StringVar(&s.databaseURL, "database-url", "",
		"`URL` of the control database, without a password [$"+databaseURLVariable+"]")
	f.StringVar(&s.databaseURLFile, "database-url-file", "", "`file` with the URL of the control database")
	f.StringVar(&s.masterKeyFile, "master-key-file", "",
		"`file` with the master keys that encrypt stored secrets, or set "+masterKeyVariable)
}

// withoutVariable are the flags that only the command line sets. The variable of database-url is read apart, because it may
// hold a password.
var withoutVariable = map[string]bool{
	"help": true, "database-url": true, "password-stdin": true, "keep-personal-tokens": true, "if-missing": true,
	"check-config": true,
}

// bindVariables lets ROLECALL_… variables stand for the flags of a command.
func bindVariables(f *pflag.FlagSet) {
	f.VisitAll(func(f *pflag.Flag) {
		if !withoutVariable[f.Name] {
			term.Variable(f, "ROLECALL_"+strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_")))
		}
	})
}

// base is the part of the configuration that needs no listener.
func (s *settings) base(errOut io.Writer) (c server.Config, err error) {
	c.PasswordCost = passwordCost
	if c.RateLimit, err = s.checkedRateLimit(); err != nil {
		return c, err
	}
	c.Version = version
	if c.AuditRetention, err = s.checkedAuditRetention(); err != nil {
		return c, err
	}
	if c.Trace, err = trace.ReadConfig(s.otlpEndpoint); err != nil {
		return c, term.Usage("%w", err)
	}
	c.Log, c.Lines, err = s.logger(errOut)
	return c, err
}

// addURLs adds what depends on the public URL.
func (s *settings) addURLs(c *server.Config) (err error) {
	if c.PublicURL, err = s.checkedPublicURL(); err != nil {
		return err
	}
	c.OIDC, err = s.checkedOIDCIssuers(c.PublicURL)
	return err
}

// addControl adds the control database.
func (s *settings) addControl(c *server.Config) (err error) {
	if c.DatabaseURL, err = s.checkedDatabaseURL(); err != nil {
		return err
	}
	c.Keys, err = s.keyring()
	return err
}

// listener is where a server listens, by the flag of its address, and where its configuration has it.
type listener struct {
	flag, address string
	to            *net.Listener
}

func (s *settings) listeners(c *server.Config) []listener {
	all := []listener{
		{"listen", s.listen, &c.Listener},
		{"metrics-listen", s.metricsListen, &c.MetricsListener},
		{"pprof-listen", s.pprofListen, &c.PprofListener},
	}
	return slices.DeleteFunc(all, func(l listener) bool { return l.address == "" && l.flag != "listen" })
}

// addListeners opens the listeners, so that an address that is taken is reported before anything else starts. The caller
// closes them, after an error as well.
func (s *settings) addListeners(c *server.Config) (err error) {
	for _, l := range s.listeners(c) {
		if *l.to, err = listen(l.flag, l.address); err != nil {
			return err
		}
	}
	return nil
}

// checkAddresses checks the addresses of the listeners without opening them.
func (s *settings) checkAddresses() error {
	for _, l := range s.listeners(&server.Config{}) {
		if err := checkAddress(l.flag, l.address); err != nil {
			return err
		}
	}
	return nil
}

func checkAddress(flag, address string) error {
	_, port, err := net.SplitHostPort(address)
	if _, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil {
		return term.Usage("--%s %q is not an address like 127.0.0.1:8080", flag, address)
	}
	return nil
}

func listen(flag, address string) (net.Listener, error) {
	if err := checkAddress(flag, address); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w; choose another address with --%s", address, errors.Unwrap(err), flag)
	}
	return l, nil
}

// checkedPublicURL is the base of absolute URLs, without a slash at the end.
func (s *settings) checkedPublicURL() (string, error) {
	u, err := url.Parse(s.publicURL)
	if err == nil && u.User != nil {
		return "", term.Usage("--public-url contains a user name or password, but every client reads this URL; leave them out")
	}
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" ||
		u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return "", term.Usage("--public-url %q is not a URL like https://rolecall.example.org", s.publicURL)
	}
	return strings.TrimRight(u.String(), "/"), nil
}

// checkedOIDCIssuers are the issuers of the flags, then those of the file.
func (s *settings) checkedOIDCIssuers(publicURL string) ([]identity.OIDCIssuer, error) {
	issuers := make([]identity.OIDCIssuer, len(s.oidcIssuers))
	for i, text := range s.oidcIssuers {
		var err error
		if issuers[i], err = identity.ParseOIDCIssuer(text); err != nil {
			return nil, term.Usage("--oidc-issuer: %w", err)
		}
	}
	if s.oidcFile != "" {
		file, err := os.Open(s.oidcFile)
		if err != nil {
			return nil, term.Usage("--oidc-file: %w", err)
		}
		defer file.Close()
		more, err := identity.ReadOIDCIssuers(file)
		if err != nil {
			return nil, term.Usage("--oidc-file: %s: %w", s.oidcFile, err)
		}
		issuers = append(issuers, more...)
	}
	if err := identity.CheckOIDCIssuers(server.Issuer(publicURL), issuers); err != nil {
		return nil, term.Usage("the OpenID Connect issuers: %w", err)
	}
	for _, i := range issuers {
		if _, err := i.ClientSecret(); err != nil {
			return nil, term.Usage("the OpenID Connect issuer %s: %w", i.Name, err)
		}
	}
	return issuers, nil
}

func (s *settings) checkedTrustedProxies() ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	for _, text := range s.trustedProxies {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			addr, addrErr := netip.ParseAddr(text)
			if addrErr != nil {
				return nil, term.Usage("--trusted-proxies: %q is neither an address nor a network like 10.0.0.0/8", text)
			}
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		prefixes = append(prefixes, prefix.Masked())
	}
	return prefixes, nil
}

func (s *settings) checkedDatabaseURL() (secret.Text, error) {
	if s.databaseURL != "" {
		err := term.CheckDatabaseURL("database-url", s.databaseURL, "use --database-url-file or "+databaseURLVariable)
		return secret.Text(s.databaseURL), err
	}
	text, err := secretValue("--database-url-file", s.databaseURLFile, databaseURLVariable)
	return secret.Text(strings.TrimSpace(text)), err
}

func (s *settings) keyring() (*control.Keyring, error) {
	text, err := secretValue("--master-key-file", s.masterKeyFile, masterKeyVariable)
	if err != nil {
		return nil, err
	}
	keys, err := control.ParseKeyring(text)
	if err != nil {
		return nil, term.Usage("%w", err)
	}
	return keys, nil
}

// readableByAll warns of files that hold secrets and that every user of this machine can read.
func (s *settings) readableByAll(issuers []identity.OIDCIssuer) (warnings []string) {
	type file struct{ flag, name string }
	files := []file{
		{"--database-url-file", s.databaseURLFile}, {"--master-key-file", s.masterKeyFile}, {"--tls-key", s.tlsKey},
		{"--password-file", s.passwordFile},
		{"--audit-https-token-file", s.export.TokenFile},
	}
	for _, i := range issuers {
		files = append(files, file{"the client secret of the issuer " + i.Name, i.ClientSecretFile})
	}
	for _, f := range files {
		info, err := os.Stat(f.name)
		if err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o004 != 0 {
			warnings = append(warnings, fmt.Sprintf("every user of this machine can read the secret in the file of %s; "+
				"to end that: chmod 600 %s", f.flag, f.name))
		}
	}
	return warnings
}

// secretValue reads a secret from a file, or else from the environment.
func secretValue(flag, file, variable string) (string, error) {
	if file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return "", term.Usage("%s: %w", flag, err)
		}
		return string(data), nil
	}
	if value := os.Getenv(variable); value != "" {
		return value, nil
	}
	return "", term.Usage("%s or %s is needed", flag, variable)
}

// checkedRateLimit rejects NaN and Inf, which the flag's parser accepts.
func (s *settings) checkedRateLimit() (float64, error) {
	if s.rateLimit >= 0 && s.rateLimit <= 1e6 {
		return s.rateLimit, nil
	}
	return 0, term.Usage("--rate-limit is %g; use a number from 0 to 1000000", s.rateLimit)
}

// checkedAuditRetention rejects less than a day, which is more likely a missing unit.
func (s *settings) checkedAuditRetention() (time.Duration, error) {
	age, err := moment.Duration(s.auditRetention)
	if err != nil || age != 0 && age < 24*time.Hour {
		return 0, term.Usage("--audit-retention is %q; use an age of a day or more, such as 90d or 2160h, or 0 to keep all rows",
			s.auditRetention)
	}
	return age, nil
}
