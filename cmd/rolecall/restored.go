package main

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/control"
	"rolecall/internal/identity"
)

func restoredCommand() *cobra.Command {
	var c Config
	var keepPersonal bool
	cmd := &cobra.Command{
		Use:   "restored",
		Short: "End all tokens, after the control database was restored from a backup",
		Long: `Restored ends every token and all personal access tokens, directly in the control
database. Run it after that was restored from a backup and before the first start: tokens
that were revoked since the backup would be good again. Everybody signs in anew.

What else was changed since is as it was before: docs/operating.md tells what to look at.`,
		Example: `  rolecall restored --database-url-file url --master-key-file master.key`,
		Args:    noArguments,
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.restored(cmd, keepPersonal) },
	}
	c.bindDatabase(cmd.Flags())
	fromEnvironment(cmd)
	cmd.Flags().BoolVar(&keepPersonal, "keep-personal-tokens", false, "leave personal access tokens as they are, also those revoked since the backup")
	return cmd
}

func (c *Config) restored(cmd *cobra.Command, keepPersonal bool) error {
	ctx := cmd.Context()
	url, err := c.databaseURL()
	if err != nil {
		return err
	}
	keys, err := c.keyring()
	if err != nil {
		return err
	}
	db, err := control.Open(ctx, string(url), keys)
	if err != nil {
		return err
	}
	defer db.Close()
	// Whoever has the wrong master key is to know at once.
	if _, err := identity.New(ctx, db, identity.Config{Log: slog.New(slog.DiscardHandler)}); err != nil {
		return err
	}
	accounts := &account.Store{DB: db}
	ended, err := accounts.EndAllTokens(ctx, keepPersonal, audit.Entry{AccountGUID: audit.ActorRestored, AccountName: audit.ActorRestored, Target: db.Identity.Database})
	if err != nil {
		return err
	}
	since := "is empty"
	if !ended.Since.IsZero() {
		since = "ends at " + ended.Since.UTC().Format(time.RFC3339)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "All tokens of the %d accounts were ended; %d personal access tokens were deleted.\nThe audit log %s: look at what was done since.\n",
		ended.Accounts, ended.PersonalTokens, since)
	return err
}
