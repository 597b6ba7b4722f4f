package rules

import (
	"slices"
	"testing"

	"rolecall/internal/audit"
	"rolecall/internal/cli"
)

// TestAuditActions: the command line, which knows no package of the server, completes the actions that the server records.
func TestAuditActions(t *testing.T) {
	if !slices.Equal(cli.AuditActions, audit.Actions) {
		t.Errorf("the command line completes %q, the server records %q", cli.AuditActions, audit.Actions)
	}
}
