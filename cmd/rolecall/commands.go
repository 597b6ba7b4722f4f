package main

import (
	"context"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rolecall/internal/client"
)

// What the commands that talk to a server have in common.

// group is a command that holds others.
func group(name, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   name,
		Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage("there is no command %q; see %s --help", cmd.CommandPath()+" "+args[0], cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(commands...)
	return cmd
}

// arguments checks the number of arguments, which are named as in the command's usage line: [NAME] may be left out,
// NAME... may be repeated.
func arguments(names ...string) cobra.PositionalArgs {
	least, most := len(names), len(names)
	switch last := names[len(names)-1]; {
	case strings.HasPrefix(last, "["):
		least--
	case strings.HasSuffix(last, "..."):
		most = 1 << 16
	}
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least {
			return usage("%s is missing; see %s --help", strings.TrimSuffix(names[len(args)], "..."), cmd.CommandPath())
		}
		if len(args) > most {
			return usage("%s takes %s, but got %q as well", cmd.CommandPath(), strings.Join(names, " "), args[most])
		}
		return nil
	}
}

// clusterFlag says in which cluster a command works.
type clusterFlag struct{ given string }

// The variables that stand for the flag. The second is what rolecall env prints.
const (
	clusterVariable   = "ROLECALL_CLUSTER"
	clusterIDVariable = "ROLECALL_CLUSTER_ID"
)

func (f *clusterFlag) bind(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.given, "cluster", "c", "", "`name` or id of the cluster [$"+clusterVariable+"]")
	_ = cmd.RegisterFlagCompletionFunc("cluster", completeClusters)
}

// value is what was given, or what the environment says.
func (f *clusterFlag) value() string {
	for _, value := range []string{f.given, os.Getenv(clusterVariable), os.Getenv(clusterIDVariable)} {
		if value != "" {
			return value
		}
	}
	return ""
}

func (f *clusterFlag) find(ctx context.Context, c *client.Client) (*clusterName, error) {
	value := f.value()
	if value == "" {
		return nil, usage("say in which cluster: --cluster NAME, or set %s; the names are those of: rolecall clusters list", clusterVariable)
	}
	return findCluster(ctx, c, value)
}

// clusterName is a cluster by its two names.
type clusterName struct {
	ID   string `json:"id"`
	Name string `json:"displayName"`
}

// findCluster finds a cluster by its name or id.
func findCluster(ctx context.Context, c *client.Client, nameOrID string) (*clusterName, error) {
	me, err := whoami(ctx, c)
	if err != nil {
		return nil, err
	}
	for _, cl := range me.Clusters {
		if cl.Name == nameOrID {
			return &cl.clusterName, nil
		}
	}
	for _, cl := range me.Clusters {
		if strings.EqualFold(cl.ID, nameOrID) {
			return &cl.clusterName, nil
		}
	}
	return nil, client.NotFound("There is no cluster %q that you may view; those that you may are shown by: rolecall clusters list", nameOrID)
}

// completeTimeout is how long somebody who has pressed Tab waits.
const completeTimeout = 3 * time.Second

// completing returns what is to be offered, or nothing: a shell's line is no place for an error.
func completing(cmd *cobra.Command, names func(ctx context.Context, c *client.Client) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	c, err := connect()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completeTimeout)
	defer cancel()
	all, err := names(ctx, c)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return all, cobra.ShellCompDirectiveNoFileComp
}

func completeClusters(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return completing(cmd, func(ctx context.Context, c *client.Client) ([]string, error) {
		me, err := whoami(ctx, c)
		if err != nil {
			return nil, err
		}
		var names []string
		for _, cl := range me.Clusters {
			names = append(names, cl.Name)
		}
		return names, nil
	})
}

// firstArgument offers names for the first argument only.
func firstArgument(complete cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(cmd, args, start)
	}
}
