package dev

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"rolecall/internal/secret"
	"rolecall/internal/server"
)

// TokenLifetime is how long the token that Env prints is valid.
const TokenLifetime = 12 * time.Hour

// envTimeout is how long Env may take.
const envTimeout = 10 * time.Second

// Env returns export lines for a POSIX shell: what clients of the running local server need.
func Env(ctx context.Context, dataDir string) (string, error) {
	f, err := findFolder(dataDir)
	if err != nil {
		return "", err
	}
	var r running
	if err := f.readJSON(runningFile, &r); err != nil {
		return "", err
	}
	// The file alone proves nothing: a killed server leaves it behind, and the next one may just be starting.
	if r.URL == "" || !f.inUse() || errors.Is(syscall.Kill(r.PID, 0), syscall.ESRCH) {
		return "", fmt.Errorf("no local server runs on %s; start one with: rolecall dev%s", dataDir, f.flag())
	}
	ctx, cancel := context.WithTimeout(ctx, envTimeout)
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
		{"ROLECALL_TOKEN", token},
		{"ROLECALL_CLUSTER_ID", r.ClusterID.String()},
		{"IONOS_API_URL", r.URL},
		{"IONOS_USERNAME", adminUsername},
		{"IONOS_PASSWORD", password},
		{"IONOS_TOKEN", token},
		{"CF_API_URL", r.URL},
		{"CF_USERNAME", adminUsername}, // read by cf
		{"CF_USER", adminUsername},     // read by the Terraform provider cloudfoundry/cloudfoundry
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

// token issues a token of the account admin with the server's own keys, which are in the data folder.
func (f *folder) token(ctx context.Context, r running) (string, error) {
	keys, err := f.keyring()
	if err != nil {
		return "", err
	}
	return server.Mint(ctx, server.Config{
		PublicURL:   r.URL,
		DatabaseURL: secret.Text(r.DatabaseURL),
		Keys:        keys,
	}, adminUsername, TokenLifetime)
}

// quote makes one word of POSIX sh.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
