package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"rolecall/internal/control"
	"rolecall/internal/identity"
	"rolecall/internal/secret"
)

// Config is every setting of the servers. Each command binds the flags that it has.
type Config struct {
	Listen          string
	MetricsListen   string
	PublicURL       string
	DataDir         string
	PGBin           string
	DatabaseURL     string
	DatabaseURLFile string
	MasterKeyFile   string
	TLSCert, TLSKey string
	TLSClientCA     string
	TrustedProxies  []string
	RateLimit       float64
	AuditRetention  string
	DrainDelay      time.Duration
	OIDCIssuers     []string
	LogFormat       string
	LogLevel        string
	AllowRemote     bool
}

// The secrets that only the environment or a file may hold: an argument is seen by every process of the machine.
const (
	databaseURLVariable   = "ROLECALL_DATABASE_URL"
	masterKeyVariable     = "ROLECALL_MASTER_KEY"
	adminPasswordVariable = "ROLECALL_ADMIN_PASSWORD"
)

func (c *Config) bindListen(f *pflag.FlagSet) {
	f.StringVar(&c.Listen, "listen", "127.0.0.1:8080", "`address` to serve on; port 0 takes a free one")
}

func (c *Config) bindServing(f *pflag.FlagSet, metricsListen, logFormat string) {
	f.StringVar(&c.MetricsListen, "metrics-listen", metricsListen, "`address` to serve /metrics and pprof on; empty: nowhere")
	f.Float64Var(&c.RateLimit, "rate-limit", 200, "`requests` a second that one account may make, twice as many at once; 0: no limit")
	f.StringVar(&c.AuditRetention, "audit-retention", "0", "`age` at which rows of the audit log are removed, as 90d or 2160h; 0: never")
	f.StringArrayVar(&c.OIDCIssuers, "oidc-issuer", nil, "OpenID Connect `issuer` whose bearer tokens are taken, as url,audience=…[,username=claim]; repeatable, in the variable separated by spaces")
	f.StringVar(&c.LogFormat, "log-format", logFormat, "`format` of the log: text or json")
	f.StringVar(&c.LogLevel, "log-level", "info", "lowest `level` to log: debug, info, warn or error")
}

func (c *Config) bindDataDir(f *pflag.FlagSet) {
	f.StringVar(&c.DataDir, "data-dir", "./rolecall-data", "`folder` of the local server")
}

func (c *Config) bindDatabase(f *pflag.FlagSet) {
	f.StringVar(&c.DatabaseURL, "database-url", "", "`URL` of the control database, without a password")
	f.StringVar(&c.DatabaseURLFile, "database-url-file", "", "`file` with the URL of the control database")
	f.StringVar(&c.MasterKeyFile, "master-key-file", "", "`file` with the key that seals stored secrets, or set ROLECALL_MASTER_KEY")
}

// variable is the environment variable of a flag.
func variable(flag string) string {
	return "ROLECALL_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// fromEnvironment gives flags that are not on the command line the values of their variables, and shows the variables
// in the help.
func fromEnvironment(cmd *cobra.Command) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Name != "help" {
			f.Usage += " [$" + variable(f.Name) + "]"
		}
	})
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		var err error
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			value, set := os.LookupEnv(variable(f.Name))
			if err != nil || f.Changed || !set || f.Name == "database-url" {
				return
			}
			values := []string{value}
			if f.Value.Type() == "stringArray" {
				values = strings.Fields(value)
			}
			for _, v := range values {
				if setErr := f.Value.Set(v); setErr != nil {
					err = usage("%s=%q: %v", variable(f.Name), value, setErr)
				}
			}
		})
		return err
	}
}

// listen opens the listener, so that an address that is taken is known before anything else is started.
func listen(flag, address string) (net.Listener, error) {
	_, port, err := net.SplitHostPort(address)
	if _, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil {
		return nil, usage("--%s %q is not an address like 127.0.0.1:8080", flag, address)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w; choose another address with --%s", address, errors.Unwrap(err), flag)
	}
	return l, nil
}

// publicURL is the base of absolute URLs, without a slash at the end.
func (c *Config) publicURL() (string, error) {
	u, err := url.Parse(c.PublicURL)
	if err == nil && u.User != nil {
		return "", usage("--public-url holds a user name or password; everybody is sent this URL")
	}
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return "", usage("--public-url %q is not a URL like https://rolecall.example.org", c.PublicURL)
	}
	return strings.TrimRight(u.String(), "/"), nil
}

func (c *Config) oidcIssuers(publicURL string) ([]identity.OIDCIssuer, error) {
	issuers := make([]identity.OIDCIssuer, len(c.OIDCIssuers))
	for i, s := range c.OIDCIssuers {
		var err error
		if issuers[i], err = identity.ParseOIDCIssuer(s); err != nil {
			return nil, usage("--oidc-issuer: %w", err)
		}
	}
	if err := identity.CheckOIDCIssuers(issuer(publicURL), issuers); err != nil {
		return nil, usage("--oidc-issuer: %w", err)
	}
	return issuers, nil
}

func (c *Config) trustedProxies() ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	for _, s := range c.TrustedProxies {
		prefix, err := netip.ParsePrefix(s)
		if err != nil {
			addr, addrErr := netip.ParseAddr(s)
			if addrErr != nil {
				return nil, usage("--trusted-proxies: %q is neither an address nor a network like 10.0.0.0/8", s)
			}
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		prefixes = append(prefixes, prefix.Masked())
	}
	return prefixes, nil
}

func (c *Config) databaseURL() (secret.Text, error) {
	if c.DatabaseURL != "" {
		u, err := url.Parse(c.DatabaseURL)
		var query url.Values
		if err == nil {
			query, err = url.ParseQuery(u.RawQuery) // the driver reads on where this gives up, and finds a password there
		}
		if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" || u.Fragment != "" {
			return "", usage("--database-url is not a URL like postgres://user@host:5432/database") // and is not quoted: it may hold a password
		}
		_, has := u.User.Password()
		for key := range query {
			key = strings.TrimSpace(key) // as the driver does
			has = has || key == "password" || key == "sslpassword"
		}
		if has {
			return "", usage("--database-url holds a password, which every process of the machine can read; use --database-url-file or %s", databaseURLVariable)
		}
		return secret.Text(c.DatabaseURL), nil
	}
	text, err := secretValue("--database-url-file", c.DatabaseURLFile, databaseURLVariable)
	return secret.Text(strings.TrimSpace(text)), err
}

func (c *Config) keyring() (*control.Keyring, error) {
	text, err := secretValue("--master-key-file", c.MasterKeyFile, masterKeyVariable)
	if err != nil {
		return nil, err
	}
	keys, err := control.ParseKeyring(text)
	if err != nil {
		return nil, &usageError{err}
	}
	return keys, nil
}

// secret reads a secret from a file, or else from the environment.
func secretValue(flag, file, variable string) (string, error) {
	if file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return "", usage("%s: %w", flag, err)
		}
		return string(data), nil
	}
	if value := os.Getenv(variable); value != "" {
		return value, nil
	}
	return "", usage("%s or %s is needed", flag, variable)
}

// rateLimit refuses what is no number of requests: a flag's parser takes NaN and Inf.
func (c *Config) rateLimit() (float64, error) {
	if c.RateLimit >= 0 && c.RateLimit <= 1e6 {
		return c.RateLimit, nil
	}
	return 0, usage("--rate-limit is %g; it takes a number from 0 to 1000000", c.RateLimit)
}

// auditRetention takes days, too, which time.ParseDuration does not. Less than a day is more likely a forgotten unit.
func (c *Config) auditRetention() (time.Duration, error) {
	age, err := time.ParseDuration(c.AuditRetention)
	if days, ok := strings.CutSuffix(c.AuditRetention, "d"); ok {
		var n uint64
		n, err = strconv.ParseUint(days, 10, 16)
		age = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || age != 0 && age < 24*time.Hour {
		return 0, usage("--audit-retention is %q; it takes an age of a day or more, such as 90d or 2160h, or 0 to keep everything", c.AuditRetention)
	}
	return age, nil
}

func (c *Config) logger(out interface{ Write([]byte) (int, error) }) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return nil, usage("--log-level is %q; it takes debug, info, warn or error", c.LogLevel)
	}
	options := &slog.HandlerOptions{Level: level}
	switch c.LogFormat {
	case "text":
		return slog.New(slog.NewTextHandler(out, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(escaped{out}, options)), nil
	}
	return nil, usage("--log-format is %q; it takes text or json", c.LogFormat)
}

// escaped escapes in JSON what JSON does not have to escape, and the text format does: characters that a terminal would
// obey, or hide. A line of the log may quote a caller.
type escaped struct {
	out interface{ Write([]byte) (int, error) }
}

func (p escaped) Write(line []byte) (int, error) {
	plain := func(r rune) bool { return r == '\n' || unicode.IsPrint(r) }
	if bytes.ContainsFunc(line, func(r rune) bool { return !plain(r) }) {
		var safe []byte
		for _, r := range string(line) {
			switch {
			case plain(r):
				safe = utf8.AppendRune(safe, r)
			case r > 0xffff:
				high, low := utf16.EncodeRune(r)
				safe = fmt.Appendf(safe, `\u%04x\u%04x`, high, low)
			default:
				safe = fmt.Appendf(safe, `\u%04x`, r)
			}
		}
		_, err := p.out.Write(safe)
		return len(line), err
	}
	return p.out.Write(line)
}
