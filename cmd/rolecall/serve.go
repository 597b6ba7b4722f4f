package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"rolecall/internal/control"
	"rolecall/internal/identity"
)

func serveCommand() *cobra.Command {
	var c Config
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve in production, in front of a control database",
		Long: `Serve runs one of any number of identical replicas in front of one control database.
It is stateless: what it knows is in the control database and in the clusters.`,
		Example: `  ROLECALL_DATABASE_URL=postgres://rolecall:…@db/rolecall \
  rolecall serve --public-url https://rolecall.example.org --master-key-file /etc/rolecall/master.key`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.serve(cmd.Context(), cmd.ErrOrStderr()) },
	}
	f := cmd.Flags()
	c.bindListen(f)
	f.StringVar(&c.PublicURL, "public-url", "", "base `URL` under which clients reach this server (required)")
	c.bindDatabase(f)
	f.StringVar(&c.TLSCert, "tls-cert", "", "`file` with the certificate chain in PEM; read again when it changes")
	f.StringVar(&c.TLSKey, "tls-key", "", "`file` with the certificate's private key in PEM")
	f.StringVar(&c.TLSClientCA, "tls-client-ca", "", "`file` with the authorities, in PEM, one of which must have signed the certificate that every client has to show; read again when it changes")
	f.StringSliceVar(&c.TrustedProxies, "trusted-proxies", nil, "`networks` of proxies whose X-Forwarded-For counts")
	f.DurationVar(&c.DrainDelay, "drain-delay", 5*time.Second, "`time` for which requests are still taken after SIGTERM, until balancers have seen that /readyz says 503")
	c.bindServing(f, "127.0.0.1:9180", "json")
	fromEnvironment(cmd)
	return cmd
}

func (c *Config) serve(ctx context.Context, errOut io.Writer) (err error) {
	s := &server{}
	if s.RateLimit, err = c.rateLimit(); err != nil {
		return err
	}
	if s.AuditRetention, err = c.auditRetention(); err != nil {
		return err
	}
	if s.DrainDelay = c.DrainDelay; s.DrainDelay < 0 || s.DrainDelay > time.Hour {
		return usage("--drain-delay is %s; it takes a time from 0s to 1h", c.DrainDelay)
	}
	if c.PublicURL == "" {
		return usage("--public-url is needed: the base URL under which clients reach this server")
	}
	if s.PublicURL, err = c.publicURL(); err != nil {
		return err
	}
	if s.Log, err = c.logger(errOut); err != nil {
		return err
	}
	if s.TrustedProxies, err = c.trustedProxies(); err != nil {
		return err
	}
	if s.OIDC, err = c.oidcIssuers(s.PublicURL); err != nil {
		return err
	}
	if s.DatabaseURL, err = c.databaseURL(); err != nil {
		return err
	}
	if s.Keys, err = c.keyring(); err != nil {
		return err
	}
	if s.TLS, err = c.tls(s.Log); err != nil {
		return err
	}
	if s.TLS != nil && strings.HasPrefix(s.PublicURL, "http:") {
		return usage("--public-url is %s, but with --tls-cert this server speaks https only", s.PublicURL)
	}
	if s.Listener, err = listen("listen", c.Listen); err != nil {
		return err
	}
	defer s.Listener.Close()
	if c.MetricsListen != "" {
		if s.MetricsListener, err = listen("metrics-listen", c.MetricsListen); err != nil {
			return err
		}
		defer s.MetricsListener.Close()
	}
	return s.run(ctx)
}

func (c *Config) tls(log *slog.Logger) (*tls.Config, error) {
	if c.TLSCert == "" && c.TLSKey == "" && c.TLSClientCA == "" {
		return nil, nil
	}
	if c.TLSCert == "" || c.TLSKey == "" {
		return nil, usage("--tls-cert and --tls-key are needed together, and with --tls-client-ca")
	}
	r := &tlsFiles{cert: c.TLSCert, key: c.TLSKey, clientCA: c.TLSClientCA, log: log}
	current, err := r.get(nil)
	if err != nil {
		return nil, &usageError{err}
	}
	config := current.Clone()
	config.GetConfigForClient = r.get
	return config, nil
}

// tlsFiles makes the configuration of TLS out of files and reads them again when they change, looking at most once a
// second. While what they hold is not what it should be, the last that was goes on being used.
type tlsFiles struct {
	cert, key, clientCA string // clientCA "": clients show no certificate
	log                 *slog.Logger

	mu      sync.Mutex
	current *tls.Config
	looked  time.Time
	changed [3]time.Time
}

func (r *tlsFiles) get(*tls.ClientHelloInfo) (*tls.Config, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current != nil && time.Since(r.looked) < time.Second {
		return r.current, nil
	}
	r.looked = time.Now()
	err := r.load()
	if err != nil && r.current == nil {
		return nil, err
	}
	if err != nil {
		r.log.Error("the TLS certificate could not be read again; the previous one is served", "error", err)
	}
	return r.current, nil
}

func (r *tlsFiles) load() error {
	var changed [3]time.Time
	for i, file := range [][2]string{{"tls-cert", r.cert}, {"tls-key", r.key}, {"tls-client-ca", r.clientCA}} {
		if file[1] == "" {
			continue
		}
		info, err := os.Stat(file[1])
		if err != nil {
			return fmt.Errorf("--%s: %w", file[0], err)
		}
		changed[i] = info.ModTime()
	}
	if r.current != nil && changed == r.changed {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(r.cert, r.key)
	if err != nil {
		return fmt.Errorf("--tls-cert %s and --tls-key %s: %w", r.cert, r.key, err)
	}
	config := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{pair},
		NextProtos:   []string{"h2", "http/1.1"}, // what net/http offers, in the configuration that it was given
	}
	if r.clientCA != "" {
		authorities, err := os.ReadFile(r.clientCA)
		if err != nil {
			return fmt.Errorf("--tls-client-ca: %w", err)
		}
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		if !config.ClientCAs.AppendCertsFromPEM(authorities) {
			return fmt.Errorf("--tls-client-ca %s holds no certificate in PEM", r.clientCA)
		}
		// A session that is resumed was verified by the authorities of its beginning, which may have changed.
		config.SessionTicketsDisabled = true
	}
	r.current, r.changed = config, changed
	return nil
}

func bootstrapCommand() *cobra.Command {
	var c Config
	var fromStdin bool
	cmd := &cobra.Command{
		Use:   "bootstrap [USERNAME]",
		Short: "Make or reset an admin account, directly in the control database",
		Long: `Bootstrap makes the account USERNAME (default: admin) with every right, or gives it a
new password and every right again, and ends its tokens. The password comes from a
prompt, or from standard input.`,
		Example: `  rolecall bootstrap --database-url-file url --master-key-file master.key
  pwgen 24 1 | rolecall bootstrap alice --password-stdin`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usage("bootstrap takes one account name, but got %d", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			username := "admin"
			if len(args) > 0 {
				username = args[0]
			}
			return c.bootstrap(cmd, username, fromStdin)
		},
	}
	c.bindDatabase(cmd.Flags())
	fromEnvironment(cmd)
	cmd.Flags().BoolVar(&fromStdin, "password-stdin", false, "read the password from the first line of standard input")
	return cmd
}

func (c *Config) bootstrap(cmd *cobra.Command, username string, fromStdin bool) error {
	ctx := cmd.Context()
	url, err := c.databaseURL()
	if err != nil {
		return err
	}
	keys, err := c.keyring()
	if err != nil {
		return err
	}
	password, err := readPassword(cmd, "New password of "+username+": ", fromStdin)
	if err != nil {
		return err
	}
	db, err := control.Open(ctx, string(url), keys)
	if err != nil {
		return err
	}
	defer db.Close()
	id, err := identity.New(ctx, db, identity.Config{PasswordCost: passwordCost, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	guid, created, err := id.Bootstrap(ctx, username, password)
	if err != nil {
		return err
	}
	did := "has a new password"
	if created {
		did = "was made"
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "The admin account %s (%s) %s.\n", username, guid, did)
	return err
}
