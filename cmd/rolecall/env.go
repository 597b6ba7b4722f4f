package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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
	path, err := filepath.Abs(c.DataDir)
	if err != nil {
		return "", err
	}
	f := &folder{path: path, asGiven: c.DataDir}
	var r running
	if err := f.read("running.json", &r); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if r.URL == "" || !answers(ctx, r.URL) {
		return "", fmt.Errorf("no local server runs on %s; start one with: rolecall dev%s", c.DataDir, f.flag())
	}
	password, err := os.ReadFile(f.file("admin-password"))
	if err != nil {
		return "", err
	}
	token, err := f.token(ctx, r)
	if err != nil {
		return "", err
	}
	admin := strings.TrimSpace(string(password))
	var b strings.Builder
	for _, v := range []struct{ name, value string }{
		{"ROLECALL_URL", r.URL},
		{"ROLECALL_CLUSTER_ID", r.ClusterID.String()},
		{"IONOS_API_URL", r.URL},
		{"IONOS_USERNAME", adminUsername},
		{"IONOS_PASSWORD", admin},
		{"IONOS_TOKEN", token},
		{"CF_API_URL", r.URL},
		{"CF_USERNAME", adminUsername},
		{"CF_PASSWORD", admin},
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

// answers reports whether the server that wrote the file is still there.
func answers(ctx context.Context, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/healthz", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
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
	id, err := identity.New(ctx, db, issuer(r.URL), slog.New(slog.DiscardHandler))
	if err != nil {
		return "", err
	}
	return id.MintFor(ctx, adminUsername, tokenLifetime)
}

// quote makes one word of POSIX sh.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
