package main

import (
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"rolecall/internal/cli/term"
	"rolecall/internal/control"
	"rolecall/internal/moment"
	"rolecall/internal/notify"
	"rolecall/internal/server"
)

func serveCommand() *cobra.Command {
	var s settings
	var check bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve in production, in front of a control database",
		Long: `Serve runs one replica. Any number of identical replicas can share one control database.
A replica is stateless: all state is in the control database and in the clusters.

Settings may be in a YAML file instead, whose keys are the names of the flags. Flags and
variables take precedence over the file. A key that is no flag is an error.

With --check-config, serve reads all settings and files, reports the first mistake, and ends
without listening or connecting. Run it before a restart.`,
		Example: `  ROLECALL_DATABASE_URL=postgres://rolecall:…@db/rolecall \
  rolecall serve --public-url https://rolecall.example.org --master-key-file /etc/rolecall/master.key
  rolecall serve --config /etc/rolecall/rolecall.yaml
  rolecall serve --config /etc/rolecall/rolecall.yaml --check-config`,
		Args: term.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := s.forServe(cmd, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if check {
				return s.checkConfig(cmd, c)
			}
			err = s.addListeners(&c)
			defer c.CloseListeners()
			if err != nil {
				return err
			}
			return server.Run(cmd.Context(), c)
		},
	}
	s.bindServe(cmd.Flags())
	cmd.Flags().BoolVar(&check, "check-config", false, "check all settings and files, and end")
	bindVariables(cmd.Flags())
	return cmd
}

// bindServe binds the settings of a server in production.
func (s *settings) bindServe(f *pflag.FlagSet) {
	f.StringVar(&s.configFile, "config", "", "YAML `file` with settings; its keys are the names of these flags")
	s.bindListen(f)
	f.StringVar(&s.publicURL, "public-url", "", "base `URL` under which clients reach this server (required)")
	s.bindDatabase(f)
	f.StringVar(&s.tlsCert, "tls-cert", "", "`file` with the certificate chain in PEM; reloaded on change")
	f.StringVar(&s.tlsKey, "tls-key", "", "`file` with the certificate's private key in PEM; reloaded on change")
	f.StringVar(&s.tlsClientCA, "tls-client-ca", "",
		"`file` with the authorities, in PEM, that sign client certificates, which every client needs then; reloaded on change")
	f.StringSliceVar(&s.trustedProxies, "trusted-proxies", nil, "`networks` of the proxies whose X-Forwarded-For is trusted")
	f.StringVar(&s.drainDelay, "drain-delay", "5s",
		"`time` for which requests are still accepted after SIGTERM, while /readyz answers 503 and balancers notice")
	s.bindServing(f, "127.0.0.1:9180", "json")
	s.bindEvents(f)
}

// checkConfig ends a check in which forServe has found no mistake.
func (s *settings) checkConfig(cmd *cobra.Command, c server.Config) error {
	if err := s.checkAddresses(); err != nil {
		return err
	}
	if err := control.CheckURL(string(c.DatabaseURL)); err != nil {
		return term.Usage("%w", err)
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), "The configuration is valid.")
	return err
}

// forServe is the configuration of serve, without listeners. It writes warnings to the log.
func (s *settings) forServe(cmd *cobra.Command, log io.Writer) (c server.Config, err error) {
	if err := readConfigFile(s.configFile, cmd.NonInheritedFlags()); err != nil {
		return c, err
	}
	if c, err = s.base(log); err != nil {
		return c, err
	}
	if c.DrainDelay, err = moment.Duration(s.drainDelay); err != nil || c.DrainDelay > time.Hour {
		return c, term.Usage("--drain-delay is %q; use a duration from 0s to 1h", s.drainDelay)
	}
	if s.publicURL == "" {
		return c, term.Usage("--public-url is missing; it is the base URL under which clients reach this server")
	}
	if err := s.addURLs(&c); err != nil {
		return c, err
	}
	if c.Manager, err = notify.FromEnvironment(); err != nil {
		return c, term.Usage("%w", err)
	}
	if c.TrustedProxies, err = s.checkedTrustedProxies(); err != nil {
		return c, err
	}
	if err := s.addEvents(&c); err != nil {
		return c, err
	}
	if err := s.addControl(&c); err != nil {
		return c, err
	}
	if c.TLS, err = server.TLS(s.tlsCert, s.tlsKey, s.tlsClientCA, c.Log); err != nil {
		return c, term.Usage("%w", err)
	}
	for _, warning := range s.readableByAll(c.OIDC) {
		c.Log.Warn(warning)
	}
	if c.TLS != nil && strings.HasPrefix(c.PublicURL, "http:") {
		return c, term.Usage("--public-url is %s, but with --tls-cert this server speaks https only", c.PublicURL)
	}
	if host, _, err := net.SplitHostPort(s.listen); err == nil && !isLoopback(host) && c.TLS == nil &&
		strings.HasPrefix(c.PublicURL, "http:") {
		c.Log.Warn("passwords and tokens cross the network in the clear, because this server listens beyond this machine without "+
			"TLS; add --tls-cert and --tls-key, or a proxy with TLS and its https URL as --public-url", "listen", s.listen)
	}
	return c, nil
}
