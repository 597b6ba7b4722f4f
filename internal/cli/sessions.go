package cli

import (
	"errors"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"rolecall/internal/cli/term"
	"rolecall/internal/client"
)

func sessionsCommand() *cobra.Command {
	cmd := term.Group("sessions", "Sign-ins of your account: in browsers, on terminals and of programs",
		sessionsListCommand(), sessionsEndCommand())
	cmd.Long = `Sessions are the sign-ins of an account that have not ended: in a browser at the console
(console), of a command line with its refresh token (login), and of a client of Vault
(token). Personal access tokens are none; see "rolecall tokens".`
	return cmd
}

var sessionHead = term.Head{
	{Title: "ID", Name: true}, {Title: "KIND"}, {Title: "CLIENT", Gives: term.Some}, {Title: "CURRENT"},
	{Title: "CREATED", Gives: term.More}, {Title: "LAST USED", Gives: term.Some}, {Title: "ADDRESS", Gives: term.Some},
}

// ofAccount gives a command the flag that names another account.
func ofAccount(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().String(accountFlag, "", "user `name` or guid of the account, for admins; default: your own")
	_ = cmd.RegisterFlagCompletionFunc(accountFlag, completeAccounts)
	return cmd
}

const accountFlag = "account"

// accountQuery are the parameters for the account of the flag, none for one's own.
func accountQuery(cmd *cobra.Command) url.Values {
	account, _ := cmd.Flags().GetString(accountFlag)
	if account == "" {
		return nil
	}
	return url.Values{accountFlag: {account}}
}

func sessionsListCommand() *cobra.Command {
	return onServer(ofAccount(listing(&cobra.Command{
		Use:   "list",
		Short: "List the sign-ins of your account",
		Long: `List prints the sign-ins of your account, or for admins those of --account. The current
one is that of the login which the command uses.`,
		Example: `  rolecall sessions list
  rolecall sessions list --account alice -o json`,
		Args: term.NoArguments,
	}, sessionHead)), list(func(c *call) (string, url.Values) { return client.SessionsPath, accountQuery(c.cmd) },
		sessionHead, func(s *client.Session) []string {
			return []string{s.ID, s.Kind, s.Client, term.YesNo(s.Current), term.Time(s.CreatedAt), term.Time(s.LastUsedAt), s.Address}
		}))
}

// completeSessions offers one's own sessions.
var completeSessions = complete(func(cmd *cobra.Command, _ *client.Client) (string, error) {
	if accountQuery(cmd) != nil {
		return "", errors.New("the sessions of others are not offered")
	}
	return client.SessionsPath, nil
}, "id")

func sessionsEndCommand() *cobra.Command {
	var others bool
	cmd := ofAccount(&cobra.Command{
		Use:   "end [SESSION]...",
		Short: "End sign-ins, with all their tokens",
		Long: `End ends sign-ins, given by their ids. Their tokens end within 5 seconds. With --others it
ends all sign-ins of the account except the current one. Personal access tokens stay valid;
see "rolecall tokens revoke".`,
		Example: `  rolecall sessions end 0199c2a4-7d3e-7c51-a0de-5f4b8e21c963
  rolecall sessions end --others
  rolecall sessions end --others --account alice`,
		Args:              term.Arguments("[SESSION]..."),
		ValidArgsFunction: completeSessions,
	})
	cmd.Flags().BoolVar(&others, "others", false, "end all sessions of the account except the current one")
	return onServer(cmd, func(c *call) error {
		switch {
		case others && len(c.args) > 0:
			return term.Usage("--others names the sessions already; omit %q", c.args[0])
		case !others && len(c.args) == 0:
			return term.Usage("SESSION is missing; to see the sessions: rolecall sessions list")
		case others:
			return endOtherSessions(c)
		}
		for _, id := range c.args {
			if err := endSession(c, id); err != nil {
				return err
			}
			c.report("Session %s has ended.", id)
		}
		return nil
	})
}

func endSession(c *call, id string) error {
	_, err := c.client.Do(c.cmd.Context(), client.Request{
		Method: http.MethodDelete, Path: client.Path(client.SessionsPath, id), Query: accountQuery(c.cmd)})
	return err
}

func endOtherSessions(c *call) error {
	items, err := c.client.Items(c.cmd.Context(), client.SessionsPath, accountQuery(c.cmd))
	if err != nil {
		return err
	}
	sessions, err := term.DecodeAll[client.Session](items)
	if err != nil {
		return err
	}
	ended := 0
	for _, s := range sessions {
		if s.Current {
			continue
		}
		if err := endSession(c, s.ID); err != nil && client.Status(err) != http.StatusNotFound { // ended in the meantime
			return err
		}
		ended++
	}
	switch ended {
	case 0:
		c.report("There was no other session.")
	case 1:
		c.report("1 session has ended.")
	default:
		c.report("%d sessions have ended.", ended)
	}
	return nil
}
