// Package cli is the commands that use a server. They know a server only through its HTTP API.
package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"rolecall/internal/cli/term"
	"rolecall/internal/client"
)

// Version is the version that servers are told. main sets it before anything runs.
var Version = "dev"

// Commands are the commands that use a server.
func Commands() []*cobra.Command {
	return []*cobra.Command{
		loginCommand(), logoutCommand(), contextsCommand(), whoamiCommand(), clustersCommand(), databasesCommand(),
		usersCommand(), leasesCommand(), credentialsCommand(), execCommand(), psqlCommand(), accountsCommand(), tokensCommand(),
		sessionsCommand(), keysCommand(), statusCommand(), auditCommand(), operationsCommand(), webhooksCommand(),
		diffCommand(), applyCommand(), exportCommand(),
	}
}

// ExitCode is the exit code for the error of a command.
func ExitCode(cmd *cobra.Command, err error) int {
	code := exitCode(err)
	// To diff, 2 says that there are differences and nothing else.
	if code == term.ExitUsage && cmd.Name() == diffName && !errors.Is(err, errDiffers) {
		return term.ExitFailed
	}
	return code
}

func exitCode(err error) int {
	switch client.Status(err) {
	case http.StatusNotFound:
		return term.ExitNotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		return term.ExitDenied
	}
	return term.ExitCode(err)
}

// Signal is why a context ended: this process got a signal.
type Signal struct{ os.Signal }

// Error implements error.
func (s Signal) Error() string { return s.String() }

// Interrupted is the error of a command as the shell has it: if the context of the process has ended and that ended the
// command, the exit code is that of the signal. There is a message only if the server may have changed something.
func Interrupted(ctx context.Context, err error) error {
	if ctx.Err() == nil || !errors.Is(err, context.Canceled) {
		return err
	}
	code := signalCode(ctx)
	if change, ok := errors.AsType[client.Interrupted](err); ok {
		return term.Exit(code, "%w", change)
	}
	return term.Ended(code)
}

// signalCode is the exit code of a process whose context a signal has ended.
func signalCode(ctx context.Context) int {
	if s, ok := errors.AsType[Signal](context.Cause(ctx)); ok {
		if number, ok := s.Signal.(syscall.Signal); ok {
			return 128 + int(number)
		}
	}
	return term.ExitInterrupted
}

// call is one run of a command that uses a server.
type call struct {
	cmd     *cobra.Command
	args    []string
	client  *client.Client
	cluster *client.ClusterRef // of a command on one cluster, else nil
}

// onServer completes a command that uses a server.
func onServer(cmd *cobra.Command, run func(*call) error) *cobra.Command {
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		server, err := connect(cmd)
		if err != nil {
			return err
		}
		return run(&call{cmd: cmd, args: args, client: server})
	}
	return cmd
}

// onCluster completes a command on the cluster that --cluster names.
func onCluster(cmd *cobra.Command, run func(*call) error) *cobra.Command {
	cmd.Flags().StringP("cluster", "c", "", "`name` or id of the cluster [$"+ClusterVariable+"]")
	_ = cmd.RegisterFlagCompletionFunc("cluster", completeClusters)
	return onServer(cmd, func(c *call) (err error) {
		if c.cluster, err = clusterOfFlag(c.cmd, c.client); err != nil {
			return err
		}
		return run(c)
	})
}

// onNamedCluster completes a command on the cluster that its first argument names.
func onNamedCluster(cmd *cobra.Command, run func(*call) error) *cobra.Command {
	cmd.Args = term.Arguments("CLUSTER")
	cmd.ValidArgsFunction = firstArgument(completeClusters)
	return onServer(cmd, func(c *call) (err error) {
		if c.cluster, err = findCluster(c.cmd.Context(), c.client, c.args[0]); err != nil {
			return err
		}
		return run(c)
	})
}

// printing gives a command the flag --output.
func printing(cmd *cobra.Command) *cobra.Command {
	term.BindOutput(cmd)
	return cmd
}

// show is what a command does that gets one thing and prints it.
func show[T any](path func(*call) string, fields func(*call, *T) [][]string) func(*call) error {
	return func(c *call) error {
		answer, err := c.get(path(c), nil)
		if err != nil {
			return err
		}
		return printOne(c, answer, fields)
	}
}

// listing gives a command that prints a list the flags of one.
func listing(cmd *cobra.Command, head term.Head) *cobra.Command {
	term.BindList(cmd, head)
	return cmd
}

// list is what a command does that gets a list and prints it, as a table with the columns of head.
func list[T any](path func(*call) (string, url.Values), head term.Head, row func(*T) []string) func(*call) error {
	return func(c *call) error {
		p, query := path(c)
		return printPages(c, p, query, head, func(items []*T) [][]string {
			rows := make([][]string, len(items))
			for i, item := range items {
				rows[i] = row(item)
			}
			return rows
		})
	}
}

// longestPage is how many elements a page has at most.
const longestPage = 1000

// printPages gets the pages of a list that are needed, and prints it. rows are the cells of the elements of a page.
func printPages[T any](c *call, path string, query url.Values, head term.Head, rows func([]*T) [][]string) error {
	l, err := term.NewList(c.cmd, head)
	if err != nil {
		return err
	}
	q := url.Values{}
	maps.Copy(q, query)
	for {
		q.Set("limit", strconv.Itoa(min(cmp.Or(l.Page(), longestPage), longestPage)))
		items, next, err := c.client.Page(c.cmd.Context(), path, q)
		if err != nil {
			return err
		}
		var cells [][]string
		if term.NeedsCells(c.cmd) {
			all, err := term.DecodeAll[T](items)
			if err != nil {
				return err
			}
			cells = rows(all)
		}
		l.Add(items, cells)
		if next == "" || l.Full() {
			return l.Print()
		}
		q.Set("cursor", next)
	}
}

func printOne[T any](c *call, answer json.RawMessage, fields func(*call, *T) [][]string) error {
	return term.PrintOne(c.cmd, answer, func(v *T) [][]string { return fields(c, v) })
}

func (c *call) get(path string, query url.Values) (json.RawMessage, error) {
	answer, err := c.client.Get(c.cmd.Context(), path, query)
	return answer.JSON, err
}

// send sends a change and returns the JSON of the answer, nil for none.
func (c *call) send(method, path string, body any) (json.RawMessage, error) {
	answer, err := c.client.Do(c.cmd.Context(), client.Request{Method: method, Path: path, Body: body})
	return answer.JSON, err
}

// report tells people what was done.
func (c *call) report(format string, args ...any) { term.Report(c.cmd, format, args...) }

// warn tells people what is wrong though the command goes on.
func (c *call) warn(format string, args ...any) { term.Warn(c.cmd, format, args...) }

// given reports whether a flag is on the command line.
func (c *call) given(flag string) bool { return c.cmd.Flags().Changed(flag) }

// every is a list without parameters that does not depend on the call.
func every(path string) func(*call) (string, url.Values) {
	return func(*call) (string, url.Values) { return path, nil }
}

// The variables that stand for --cluster. The second is what rolecall env prints.
const (
	ClusterVariable   = "ROLECALL_CLUSTER"
	ClusterIDVariable = "ROLECALL_CLUSTER_ID"
)

// clusterOfFlag finds the cluster of --cluster or its variables. Completion uses it too, so it reads the variables itself.
func clusterOfFlag(cmd *cobra.Command, c *client.Client) (*client.ClusterRef, error) {
	given, _ := cmd.Flags().GetString("cluster")
	for _, value := range []string{given, os.Getenv(ClusterVariable), os.Getenv(ClusterIDVariable)} {
		if value != "" {
			return findCluster(cmd.Context(), c, value)
		}
	}
	return nil, term.Usage("no cluster is given: add --cluster NAME, or set %s; to see the names: rolecall clusters list",
		ClusterVariable)
}

// findCluster finds a cluster by its name or id. A name takes precedence.
func findCluster(ctx context.Context, c *client.Client, nameOrID string) (*client.ClusterRef, error) {
	items, err := c.Items(ctx, client.ClustersPath, url.Values{"name": {nameOrID}})
	if client.Status(err) == http.StatusForbidden && uuid.Validate(nameOrID) == nil {
		// A token that is limited to stored credentials reads no clusters. The server checks the id in the next request.
		return &client.ClusterRef{ID: strings.ToLower(nameOrID), Name: nameOrID}, nil
	}
	if client.Status(err) == http.StatusForbidden {
		return nil, fmt.Errorf("%w; if it is a token for stored credentials, give the cluster by its id", err)
	}
	if err != nil {
		return nil, err
	}
	if len(items) > 0 {
		return term.Decode[client.ClusterRef](items[0])
	}
	if uuid.Validate(nameOrID) == nil {
		found, err := c.Get(ctx, client.Path(client.ClustersPath, strings.ToLower(nameOrID)), nil)
		if err == nil {
			return term.Decode[client.ClusterRef](found.JSON)
		}
		if client.Status(err) != http.StatusNotFound {
			return nil, err
		}
	}
	return nil, term.NotFound("There is no cluster %q that you may view%s. To see yours: rolecall clusters list", nameOrID,
		nearClusters(ctx, c, nameOrID))
}

// nearClusters is a hint at clusters with a name like an unknown one; "" if there is no such cluster, or no answer.
func nearClusters(ctx context.Context, c *client.Client, name string) string {
	items, err := c.Items(ctx, client.ClustersPath, nil)
	if err != nil {
		return ""
	}
	var names []string
	for _, item := range items {
		if cl, err := term.Decode[client.ClusterRef](item); err == nil {
			names = append(names, cl.Name)
		}
	}
	return term.DidYouMean(name, names)
}

// completeTimeout is how long somebody who has pressed Tab waits.
const completeTimeout = 3 * time.Second

// complete offers the member of every item of a list. It offers nothing after an error: a shell's prompt is no place for
// one.
func complete(path func(cmd *cobra.Command, c *client.Client) (string, error), member string) cobra.CompletionFunc {
	return completeFrom(path, member, offer{})
}

// offer says which resources of a list are offered.
type offer struct {
	query   url.Values
	without string // only those that have no such member, or null
	with    string // only those of which this member is true
}

func (o offer) has(members map[string]any) bool {
	return members[o.without] == nil && (o.with == "" || members[o.with] == true)
}

func completeFrom(path func(*cobra.Command, *client.Client) (string, error), member string, o offer) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		names, err := names(cmd, path, member, o)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func names(cmd *cobra.Command, path func(*cobra.Command, *client.Client) (string, error), member string, o offer) (
	[]string, error,
) {
	c, err := connect(cmd)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
	defer cancel()
	cmd.SetContext(ctx)
	p, err := path(cmd, c)
	if err != nil {
		return nil, err
	}
	items, err := c.Items(ctx, p, o.query)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, item := range items {
		members, err := term.Decode[map[string]any](item)
		if err != nil {
			return nil, err
		}
		if name, ok := (*members)[member].(string); ok && name != "" && o.has(*members) {
			names = append(names, name)
		}
	}
	return names, nil
}

// fixed is a path for complete that does not depend on the command line.
func fixed(path string) func(*cobra.Command, *client.Client) (string, error) {
	return func(*cobra.Command, *client.Client) (string, error) { return path, nil }
}

// firstArgument completes the first argument only.
func firstArgument(complete cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(cmd, args, start)
	}
}
