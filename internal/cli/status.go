package cli

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rolecall/internal/cli/term"
	"rolecall/internal/client"
	"rolecall/internal/moment"
)

func statusCommand() *cobra.Command {
	cmd := printing(&cobra.Command{
		Use:   "status",
		Short: "Show the server, its replicas and its backlog",
		Long: `Status prints the version of the server, its control database, the addresses of its
replicas, and what waits: rows of the audit log, changes without an outcome, operations and
leases. It is for admins and auditors.

"rolecall doctor" checks the configuration of a server on its machine.`,
		Example: `  rolecall status
  rolecall status -o json | jq .audit`,
		Args: term.NoArguments,
	})
	return onServer(cmd, show(func(*call) string { return client.StatusPath }, statusFields))
}

func statusFields(c *call, s *client.ServerStatus) [][]string {
	schema := fmt.Sprintf("migration %d", s.Control.Migration)
	if n := s.Control.NewerMigrations; n > 0 {
		schema += fmt.Sprintf(", of a newer release: %d", n)
	}
	clusters := fmt.Sprintf("%d registered, all reachable", s.Clusters.Registered)
	if n := len(s.Clusters.Unreachable); n > 0 {
		clusters = fmt.Sprintf("%d registered, %d unreachable: %s", s.Clusters.Registered, n,
			strings.Join(s.Clusters.Unreachable, ", "))
	}
	return [][]string{
		{"server", c.client.URL},
		{"version", s.Version},
		{"installation", s.Installation},
		{"replicas", cmp.Or(strings.Join(s.Replicas, ", "), "none")},
		{"control database", fmt.Sprintf("%s, PostgreSQL %s, %d MiB", s.Control.Database, s.Control.Version,
			s.Control.Bytes>>20)},
		{"schema", schema},
		{"clusters", clusters},
		{"unsealed audit rows", backlog(s.Audit.UnsealedRows, s.Audit.OldestUnsealedRowSeconds)},
		{"changes without outcome", backlog(s.Audit.OverdueAttempts, s.Audit.OldestOverdueAttemptSeconds)},
		{"running operations", fmt.Sprint(s.OperationsRunning)},
		{"late leases", fmt.Sprint(s.LateLeases)},
	}
}

// backlog is how much waits, and for how long.
func backlog(count int64, oldestSeconds float64) string {
	if count == 0 {
		return "none"
	}
	age := time.Duration(oldestSeconds * float64(time.Second)).Round(time.Second)
	return fmt.Sprintf("%d, the oldest for %s", count, moment.DurationText(age))
}
