package cli

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"rolecall/internal/cli/term"
	"rolecall/internal/client"
)

func tokensCommand() *cobra.Command {
	return term.Group("tokens", "Personal access tokens: your account, for programs",
		tokensListCommand(), tokensCreateCommand(), tokensRevokeCommand())
}

var completeTokens = complete(fixed(client.TokensPath), "name")

var tokenHead = term.Head{
	{Title: "NAME", Name: true}, {Title: "READ-ONLY"}, {Title: "REACHES", Gives: term.Some}, {Title: "EXPIRES"},
	{Title: "LAST USED", Gives: term.More}, {Title: "ID", Gives: term.Most},
}

func tokensListCommand() *cobra.Command {
	cmd := listing(&cobra.Command{
		Use:     "list",
		Short:   "List your tokens",
		Example: `  rolecall tokens list`,
		Args:    term.NoArguments,
	}, tokenHead)
	return onServer(cmd, func(c *call) error {
		names, err := knownClusters(c)
		if err != nil {
			return err
		}
		return list(every(client.TokensPath), tokenHead, func(t *client.Token) []string {
			return []string{
				t.Name, term.YesNo(t.ReadOnly), reachOf(t, names), term.TimeOrNever(t.ExpiresAt), term.Time(t.LastUsedAt), t.ID,
			}
		})(c)
	})
}

// reachOf is what a token is limited to: stored credentials or clusters, by name where that is known.
func reachOf(t *client.Token, names map[string]string) string {
	switch {
	case t.Credentials != nil:
		return "credential " + strings.Join(withNames(names, t.Credentials), ", ")
	case t.Clusters != nil:
		return strings.Join(withNames(names, t.Clusters), ", ")
	}
	return "all clusters"
}

func tokensCreateCommand() *cobra.Command {
	var readOnly bool
	var clusters, credentials []string
	var expires string
	cmd := printing(&cobra.Command{
		Use:   "create NAME",
		Short: "Create a token and print it, once",
		Long: `Create creates a token that acts as you, within limits. With --read-only it can change
nothing. --cluster limits it to some clusters. With --credential it can read the current
password of that stored credential, and do nothing else. The token is printed on standard
output and never shown again. A program uses it as ROLECALL_TOKEN, or as a bearer token of
the HTTP API.`,
		Example: `  rolecall tokens create ci --cluster payments --expires 90d
  ROLECALL_TOKEN=$(rolecall tokens create dashboard --read-only)
  rolecall tokens create shop --credential payments/shop`,
		Args: term.Arguments("NAME"),
	})
	f := cmd.Flags()
	f.BoolVar(&readOnly, "read-only", false, "make the token read-only")
	f.StringArrayVarP(&clusters, "cluster", "c", nil,
		"`name` or id of a cluster that the token can reach; repeatable; default: all")
	_ = cmd.RegisterFlagCompletionFunc("cluster", completeClusters)
	f.StringArrayVar(&credentials, "credential", nil,
		"`CLUSTER/NAME` of a stored credential whose current password is all that the token can read; repeatable")
	_ = cmd.RegisterFlagCompletionFunc("credential", completeCredentialOf)
	f.StringVar(&expires, "expires", "",
		"token expiry: a `time` like 2027-01-31T18:00:00Z or 2027-01-31, a duration from now like 90d, or never, the default")
	term.CompleteWords(cmd, "expires", "never")
	return onServer(cmd, func(c *call) error {
		body := map[string]any{"name": c.args[0], "readOnly": readOnly}
		if c.given("expires") {
			at, err := deadline("expires", expires)
			if err != nil {
				return err
			}
			body["expiresAt"] = at
		}
		if clusters != nil {
			ids := make([]string, len(clusters))
			for i, name := range clusters {
				cl, err := findCluster(c.cmd.Context(), c.client, name)
				if err != nil {
					return err
				}
				ids[i] = cl.ID
			}
			body["clusters"] = ids
		}
		if credentials != nil {
			names := make([]string, len(credentials))
			for i, given := range credentials {
				var err error
				if names[i], err = findCredential(c, given); err != nil {
					return err
				}
			}
			body["credentials"] = names
		}
		answer, err := c.send(http.MethodPost, client.TokensPath, body)
		if err != nil {
			return err
		}
		created, err := term.Decode[client.Token](answer)
		if err != nil {
			return err
		}
		c.report("Token %q was created. It is not shown again.", c.args[0])
		if term.Format(c.cmd) != "table" {
			return term.PrintData(c.cmd, answer)
		}
		_, err = fmt.Fprintln(c.cmd.OutOrStdout(), string(created.Secret))
		return err
	})
}

func tokensRevokeCommand() *cobra.Command {
	return onServer(&cobra.Command{
		Use:               "revoke TOKEN",
		Short:             "Revoke a token",
		Long:              `Revoke ends a token, given by its id, or by its name if only one token has that name.`,
		Example:           `  rolecall tokens revoke ci`,
		Args:              term.Arguments("TOKEN"),
		ValidArgsFunction: firstArgument(completeTokens),
	}, func(c *call) error {
		t, err := findToken(c, c.args[0])
		if err != nil {
			return err
		}
		if _, err := c.send(http.MethodDelete, client.Path(client.TokensPath, t.ID), nil); err != nil {
			return err
		}
		c.report("Token %q was revoked.", t.Name)
		return nil
	})
}

func findToken(c *call, nameOrID string) (*client.Token, error) {
	items, err := c.client.Items(c.cmd.Context(), client.TokensPath, nil)
	if err != nil {
		return nil, err
	}
	all, err := term.DecodeAll[client.Token](items)
	if err != nil {
		return nil, err
	}
	var named []*client.Token
	for _, t := range all {
		if t.ID == nameOrID {
			return t, nil
		}
		if t.Name == nameOrID {
			named = append(named, t)
		}
	}
	switch len(named) {
	case 0:
		return nil, term.NotFound("You have no token %q. To see yours: rolecall tokens list", nameOrID)
	case 1:
		return named[0], nil
	}
	return nil, term.Usage("you have %d tokens %q; give the id instead, see: rolecall tokens list", len(named), nameOrID)
}
