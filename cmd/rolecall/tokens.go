package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rolecall/internal/client"
)

func tokensCommand() *cobra.Command {
	return group("tokens", "Personal access tokens: your account, for programs",
		tokensListCommand(), tokensCreateCommand(), tokensRevokeCommand())
}

const tokensPath = "/rolecall/v1/tokens"

type personalToken struct {
	ID         string     `json:"id"`
	Name       string     `json:"name"`
	ReadOnly   bool       `json:"readOnly"`
	Clusters   []string   `json:"clusters"`
	CreatedAt  *time.Time `json:"createdAt"`
	ExpiresAt  *time.Time `json:"expiresAt"`
	LastUsedAt *time.Time `json:"lastUsedAt"`
}

func tokensListCommand() *cobra.Command {
	var o output
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List your tokens",
		Example: `  rolecall tokens list`,
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect()
			if err != nil {
				return err
			}
			tokens, err := c.Items(cmd.Context(), tokensPath, nil)
			if err != nil {
				return err
			}
			names := map[string]string{}
			if o.format == "table" {
				me, err := whoami(cmd.Context(), c)
				if err != nil {
					return err
				}
				for _, cl := range me.Clusters {
					names[cl.ID] = cl.Name
				}
			}
			return printList(cmd, o, tokens, "NAME,READ-ONLY,CLUSTERS,EXPIRES,LAST USED,ID", func(t *personalToken) []string {
				clusters := "all"
				if t.Clusters != nil {
					for i, id := range t.Clusters {
						if names[id] != "" {
							t.Clusters[i] = names[id]
						}
					}
					clusters = strings.Join(t.Clusters, ", ")
				}
				return []string{t.Name, yesNo(t.ReadOnly), clusters, orNever(t.ExpiresAt), when(t.LastUsedAt), t.ID}
			})
		},
	}
	o.bind(cmd)
	return cmd
}

func tokensCreateCommand() *cobra.Command {
	var o output
	var readOnly bool
	var clusters []string
	var expires string
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Create a token and print it, once",
		Long: `Create makes a token that acts as you, within limits: --read-only lets it change nothing,
--cluster limits it to some clusters. It is printed on standard output and never shown
again. A program uses it as ROLECALL_TOKEN, or as a bearer token of the HTTP API.`,
		Example: `  rolecall tokens create ci --cluster payments --expires 2160h
  ROLECALL_TOKEN=$(rolecall tokens create dashboard --read-only)`,
		Args: arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			body := map[string]any{"name": args[0], "readOnly": readOnly}
			if cmd.Flags().Changed("expires") {
				at, err := deadline("expires", expires)
				if err != nil {
					return err
				}
				body["expiresAt"] = at
			}
			c, err := connect()
			if err != nil {
				return err
			}
			if clusters != nil {
				ids := make([]string, len(clusters))
				for i, name := range clusters {
					cl, err := findCluster(cmd.Context(), c, name)
					if err != nil {
						return err
					}
					ids[i] = cl.ID
				}
				body["clusters"] = ids
			}
			answer, err := c.Do(cmd.Context(), http.MethodPost, tokensPath, nil, body)
			if err != nil {
				return err
			}
			did(cmd, "Token %q was created. It is shown this once.", args[0])
			if o.format != "table" {
				return printData(cmd, o, answer)
			}
			made, err := decode[struct {
				Secret string `json:"secret"`
			}](answer)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), made.Secret)
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVar(&readOnly, "read-only", false, "let it change nothing")
	f.StringArrayVarP(&clusters, "cluster", "c", nil, "`name` or id of a cluster that it may reach; repeatable; all when it is left out")
	_ = cmd.RegisterFlagCompletionFunc("cluster", completeClusters)
	f.StringVar(&expires, "expires", "", "`when` it ends: a time like 2027-01-31T18:00:00Z, a duration from now like 2160h, or never")
	o.bind(cmd)
	return cmd
}

func tokensRevokeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "revoke TOKEN",
		Short:             "Revoke a token",
		Long:              `Revoke ends a token, which is given by its id, or by its name where only one has it.`,
		Example:           `  rolecall tokens revoke ci`,
		Args:              arguments("TOKEN"),
		ValidArgsFunction: firstArgument(completeTokens),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect()
			if err != nil {
				return err
			}
			t, err := findToken(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if _, err := c.Do(cmd.Context(), http.MethodDelete, client.Path(tokensPath, t.ID), nil, nil); err != nil {
				return err
			}
			did(cmd, "Token %q was revoked.", t.Name)
			return nil
		},
	}
	return cmd
}

func tokens(ctx context.Context, c *client.Client) ([]*personalToken, error) {
	items, err := c.Items(ctx, tokensPath, nil)
	if err != nil {
		return nil, err
	}
	return decodeAll[personalToken](items)
}

func decodeAll[T any](items []json.RawMessage) ([]*T, error) {
	all := make([]*T, len(items))
	for i, item := range items {
		var err error
		if all[i], err = decode[T](item); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func findToken(ctx context.Context, c *client.Client, nameOrID string) (*personalToken, error) {
	all, err := tokens(ctx, c)
	if err != nil {
		return nil, err
	}
	var named []*personalToken
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
		return nil, client.NotFound("You have no token %q; yours are shown by: rolecall tokens list", nameOrID)
	case 1:
		return named[0], nil
	}
	return nil, usage("you have %d tokens %q; say which by its id, see: rolecall tokens list", len(named), nameOrID)
}

func completeTokens(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return completing(cmd, func(ctx context.Context, c *client.Client) ([]string, error) {
		all, err := tokens(ctx, c)
		var names []string
		for _, t := range all {
			names = append(names, t.Name)
		}
		return names, err
	})
}
