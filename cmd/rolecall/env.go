package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"rolecall/internal/control"
	"rolecall/internal/identity"
)

func envCommand() *cobra.Command {
	var c Config
	cmd := &cobra.Command{
		Use:   "env",
		Short: "Print the settings of the running local server as shell variables",
		Long: `Env prints export lines for the running "rolecall dev": what curl, psql, ionosctl,
Terraform and cf need to work with it. The lines hold passwords and a token of admin
that is valid for 12 hours.`,
		Example: `  eval "$(rolecall env)"`,
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			lines, err := c.env(cmd.Context())
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), lines)
			return err
		},
	}
	c.bindDataDir(cmd.Flags())
	fromEnvironment(cmd)
	return cmd
}

// tokenLifetime is how long the printed token is good for.
const tokenLifetime = 12 * time.Hour

func (c *Config) env(ctx context.Context) (string, error) {
	f, err := findFolder(c.DataDir)
	if err != nil {
		return "", err
	}
	var r running
	if err := f.read("running.json", &r); err != nil {
		return "", err
	}
	// The file alone proves nothing: a killed server leaves it behind, and the next one may just be starting.
	if r.URL == "" || !f.inUse() || errors.Is(syscall.Kill(r.PID, 0), syscall.ESRCH) {
		return "", fmt.Errorf("no local server runs on %s; start one with: rolecall dev%s", c.DataDir, f.flag())
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	password, err := f.adminPassword()
	if err != nil {
		return "", err
	}
	token, err := f.token(ctx, r)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, v := range []struct{ name, value string }{
		{"ROLECALL_URL", r.URL},
		{"ROLECALL_CLUSTER_ID", r.ClusterID.String()},
		{"IONOS_API_URL", r.URL},
		{"IONOS_USERNAME", adminUsername},
		{"IONOS_PASSWORD", password},
		{"IONOS_TOKEN", token},
		{"CF_API_URL", r.URL},
		{"CF_USERNAME", adminUsername},
		{"CF_PASSWORD", password},
		{"PGHOST", r.PGHost},
		{"PGPORT", strconv.Itoa(r.PGPort)},
		{"PGUSER", r.PGUser},
		{"PGPASSWORD", r.PGPassword},
		{"PGDATABASE", "postgres"},
	} {
		fmt.Fprintf(&b, "export %s=%s\n", v.name, quote(v.value))
	}
	return b.String(), nil
}

// token mints a token of admin with the keys of the server, to which the data folder gives access.
func (f *folder) token(ctx context.Context, r running) (string, error) {
	keys, err := f.keyring()
	if err != nil {
		return "", err
	}
	db, err := control.Open(ctx, r.DatabaseURL, keys)
	if err != nil {
		return "", err
	}
	defer db.Close()
	id, err := identity.New(ctx, db, identity.Config{Issuer: issuer(r.URL), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return "", err
	}
	return id.MintFor(ctx, adminUsername, tokenLifetime)
}

// quote makes one word of POSIX sh.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
