package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"rolecall/internal/cli/term"
	"rolecall/internal/server"
)

// The commands that work on the control database without a server.

func bootstrapCommand() *cobra.Command {
	var s settings
	var ifMissing bool
	cmd := &cobra.Command{
		Use:   "bootstrap [USERNAME]",
		Short: "Create or reset an admin account, directly in the control database",
		Long: `Bootstrap creates the admin account USERNAME (default: admin), or resets its password and
scopes and revokes its tokens. The password comes from a prompt, from standard input or from
a file.

With --if-missing it changes nothing, and succeeds, if somebody can sign in as an admin. So
an installer can run it again and again.`,
		Example: `  rolecall bootstrap --database-url-file url --master-key-file master.key
  pwgen 24 1 | rolecall bootstrap alice --password-stdin
  rolecall bootstrap --if-missing --password-stdin <admin-password`,
		Args: term.Arguments("[USERNAME]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			username := "admin"
			if len(args) > 0 {
				username = args[0]
			}
			if ifMissing {
				return s.bootstrapIfMissing(cmd, username)
			}
			return s.bootstrap(cmd, username)
		},
	}
	s.bindDatabase(cmd.Flags())
	cmd.Flags().BoolVar(&ifMissing, "if-missing", false, "change nothing if an active admin exists, whatever its name")
	term.BindPassword(cmd, false)
	cmd.Flags().StringVar(&s.passwordFile, "password-file", "", "`file` that holds the password, in place of standard input")
	bindVariables(cmd.Flags())
	return cmd
}

// newPassword reads the password that is needed. A file takes the place of standard input, because an image without a shell
// cannot redirect that.
func (s *settings) newPassword(cmd *cobra.Command, username string) (string, error) {
	if s.passwordFile == "" {
		return term.NewPassword(cmd, username)
	}
	if term.FromStdin(cmd) {
		return "", term.Usage("--password-stdin and --password-file cannot be combined")
	}
	file, err := os.Open(s.passwordFile)
	if err != nil {
		return "", term.Usage("--password-file: %w", err)
	}
	defer file.Close()
	cmd.SetIn(file)
	if err := cmd.Flags().Set("password-stdin", "true"); err != nil {
		return "", err
	}
	return term.NewPassword(cmd, username)
}

func (s *settings) bootstrap(cmd *cobra.Command, username string) error {
	c, err := s.offline(cmd)
	if err != nil {
		return err
	}
	password, err := s.newPassword(cmd, username)
	if err != nil {
		return err
	}
	db, id, err := server.OpenIdentity(cmd.Context(), c)
	if err != nil {
		return err
	}
	defer db.Close()
	guid, created, err := id.Bootstrap(cmd.Context(), username, password)
	if err != nil {
		return err
	}
	return bootstrapped(cmd, username, guid, created)
}

// bootstrapIfMissing asks for a password only if it is needed.
func (s *settings) bootstrapIfMissing(cmd *cobra.Command, username string) error {
	c, err := s.offline(cmd)
	if err != nil {
		return err
	}
	db, id, err := server.OpenIdentity(cmd.Context(), c)
	if err != nil {
		return err
	}
	defer db.Close()
	has, err := id.HasAdmin(cmd.Context())
	if err != nil {
		return err
	}
	if has {
		return bootstrapped(cmd, username, "", false)
	}
	password, err := s.newPassword(cmd, username)
	if err != nil {
		return err
	}
	guid, created, err := id.BootstrapIfMissing(cmd.Context(), username, password)
	if err != nil {
		return err
	}
	return bootstrapped(cmd, username, guid, created)
}

// bootstrapped says what was done; without a guid nothing was.
func bootstrapped(cmd *cobra.Command, username, guid string, created bool) error {
	done := fmt.Sprintf("The admin account %s (%s) was reset.", username, guid)
	switch {
	case guid == "":
		done = "An active admin exists. Nothing was changed."
	case created:
		done = fmt.Sprintf("The admin account %s (%s) was created.", username, guid)
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), done)
	return err
}

// offline is the configuration of a command that works on the control database without a server.
func (s *settings) offline(cmd *cobra.Command) (server.Config, error) {
	c := server.Config{PasswordCost: passwordCost}
	err := s.addControl(&c)
	if err == nil {
		s.warn(cmd)
	}
	return c, err
}

// warn prints what a server would log.
func (s *settings) warn(cmd *cobra.Command) {
	for _, warning := range s.readableByAll(nil) {
		fmt.Fprintf(cmd.ErrOrStderr(), "rolecall: warning: %s\n", warning)
	}
}

func recoverCommand() *cobra.Command {
	var s settings
	var keepPersonal bool
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "End all tokens and operations, after the control database was restored from a backup",
		Long: `Recover ends all sign-ins, personal access tokens and operations in progress, directly in
the control database. Run it after you restored the control database from a backup, before
the first start: otherwise tokens that were revoked since the backup are valid again. Everybody
has to sign in again.

Every other change made since the backup is lost. docs/operating.md says what to check.`,
		Example: `  rolecall recover --database-url-file url --master-key-file master.key`,
		Args:    term.NoArguments,
		RunE:    func(cmd *cobra.Command, _ []string) error { return s.recover(cmd, keepPersonal) },
	}
	s.bindDatabase(cmd.Flags())
	cmd.Flags().BoolVar(&keepPersonal, "keep-personal-tokens", false,
		"keep all personal access tokens, including those revoked since the backup")
	bindVariables(cmd.Flags())
	return cmd
}

func (s *settings) recover(cmd *cobra.Command, keepPersonal bool) error {
	c, err := s.offline(cmd)
	if err != nil {
		return err
	}
	ended, err := server.Recover(cmd.Context(), c, keepPersonal)
	if err != nil {
		return err
	}
	newest := "is empty"
	if !ended.Since.IsZero() {
		newest = "ends at " + ended.Since.UTC().Format(time.RFC3339)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), `All tokens of %d accounts were ended; %d personal access tokens were deleted.
The audit log %s. Check what was changed after that.
`, ended.Accounts, ended.PersonalTokens, newest)
	return err
}
