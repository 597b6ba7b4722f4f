package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"

	"github.com/spf13/cobra"

	"rolecall/internal/cli/term"
	"rolecall/internal/dev"
	"rolecall/internal/localpg"
	"rolecall/internal/server"
)

func devCommand() *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Serve on this machine, with a PostgreSQL of its own",
		Long: `Dev starts a private PostgreSQL in the data folder, creates the control database in it,
registers it as the first cluster, creates the account admin, and serves until it is
stopped. The next start on the same folder finds everything as it was. If PostgreSQL
ends or is restarted in the meantime, dev starts it again, or keeps the one that
"pg_ctl restart" has started.

ROLECALL_ADMIN_PASSWORD, if set at the first start, is the password of admin. Otherwise
a password is generated. It is in the file admin-password of the data folder.`,
		Example: `  rolecall dev
  eval "$(rolecall env)"   # in another shell`,
		Args: term.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if runtime.GOOS != "linux" { // it finds what is left of a killed server in /proc
				return errors.New("rolecall dev runs on Linux only; use rolecall serve with a PostgreSQL of your own")
			}
			c, err := s.forDev(cmd.ErrOrStderr())
			defer c.CloseListeners()
			if err != nil {
				return err
			}
			return dev.Run(cmd.Context(), dev.Config{
				Server:        c,
				DataDir:       s.dataDir,
				PGBin:         s.pgBin,
				AdminPassword: os.Getenv(dev.AdminPasswordVariable),
			}, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	s.bindListen(f)
	f.BoolVar(&s.allowRemote, "allow-remote", false,
		"allow addresses in --listen, --metrics-listen and --pprof-listen that other machines can reach")
	f.StringVar(&s.publicURL, "public-url", "", "base `URL` under which clients reach this server (default: from --listen)")
	s.bindDataDir(f)
	f.StringVar(&s.pgBin, "pg-bin", "",
		"`folder` with PostgreSQL's programs (default: PATH, then /usr/lib/postgresql/*/bin, newest first)")
	s.bindServing(f, "", "text")
	bindVariables(f)
	return cmd
}

// forDev is the configuration of the local server. The caller closes its listeners, after an error as well.
func (s *settings) forDev(errOut io.Writer) (server.Config, error) {
	c, err := s.base(errOut)
	if err != nil {
		return c, err
	}
	c.PrivateWebhooks = true // the receivers of a developer are on this machine
	if err := s.checkDataDir(); err != nil {
		return c, err
	}
	if err := s.checkLocal("listen", s.listen); err != nil {
		return c, err
	}
	for flag, address := range map[string]string{"metrics-listen": s.metricsListen, "pprof-listen": s.pprofListen} {
		if address == "" {
			continue
		}
		if err := s.checkLocal(flag, address); err != nil {
			return c, err
		}
	}
	if s.pgBin != "" {
		if _, _, err := localpg.FindBinaries(s.pgBin, 0); err != nil {
			return c, term.Usage("--pg-bin: %w", err)
		}
	}
	if err := s.addListeners(&c); err != nil {
		return c, err
	}
	if s.publicURL == "" {
		s.publicURL = "http://" + reachable(c.Listener.Addr().(*net.TCPAddr))
	}
	return c, s.addURLs(&c)
}

func (s *settings) checkDataDir() error {
	if s.dataDir == "" {
		return term.Usage("--data-dir is empty; give the name of a folder")
	}
	return nil
}

// checkLocal rejects an address that other machines can reach: the local server has one known account.
func (s *settings) checkLocal(flag, address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return term.Usage("--%s %q is not an address like 127.0.0.1:8080", flag, address)
	}
	if s.allowRemote || isLoopback(host) {
		return nil
	}
	return term.Usage("other machines can reach --%s %s; to allow that, add --allow-remote", flag, address)
}

// isLoopback reports whether only this machine reaches the host.
func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// reachable is where clients on this machine find a listener. A listener on all addresses has no address of its own.
func reachable(addr *net.TCPAddr) string {
	if addr.IP.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(addr.Port))
	}
	return addr.String()
}

func envCommand() *cobra.Command {
	var s settings
	cmd := &cobra.Command{
		Use:   "env",
		Short: "Print the settings of the running local server as shell variables",
		Long: `Env prints export lines for the running "rolecall dev": the variables that rolecall, curl,
psql, ionosctl, Terraform and cf read. The lines contain passwords, and a token of admin
that is valid for 12 hours.`,
		Example: `  eval "$(rolecall env)"`,
		Args:    term.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.checkDataDir(); err != nil {
				return err
			}
			lines, err := dev.Env(cmd.Context(), s.dataDir)
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), lines)
			return err
		},
	}
	s.bindDataDir(cmd.Flags())
	bindVariables(cmd.Flags())
	return cmd
}
