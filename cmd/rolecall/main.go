// Command rolecall manages the users of PostgreSQL clusters as a service.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"rolecall/internal/client"
	"rolecall/internal/identity"
)

// version is set by the build.
var version = "dev"

// passwordCost is production's unless a test sets it.
var passwordCost identity.PasswordCost

// The exit codes that scripts can rely on.
const (
	exitFailed   = 1
	exitUsage    = 2
	exitNotFound = 3
	exitDenied   = 4
)

func main() {
	// libpq's variables would silently change where connections go and how they are protected.
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "PG") {
			os.Unsetenv(name)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		stop() // a second signal ends the process at once
	}()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run executes one command line and returns its exit code.
func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	root := rootCommand()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(errOut, "rolecall: %s\n", printableLines(err.Error()))
	return exitCode(err)
}

func exitCode(err error) int {
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage
	}
	if _, ok := errors.AsType[*deniedError](err); ok {
		return exitDenied
	}
	switch client.Status(err) {
	case http.StatusNotFound:
		return exitNotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		return exitDenied
	}
	return exitFailed
}

// usageError is a command line that cannot be understood.
type usageError struct{ error }

func usage(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "rolecall",
		Short: "PostgreSQL users as a service, on your own PostgreSQL",
		Long: `Rolecall manages the users of PostgreSQL clusters over HTTP: real roles in a real
PostgreSQL. Start with "rolecall dev", which brings its own; the commands that use a
server need a "rolecall login" first.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage("there is no command %q; see rolecall --help", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("%v; see %s --help", err, cmd.CommandPath())
	})
	for _, g := range []struct {
		title    string
		commands []*cobra.Command
	}{
		{"Run a server:", []*cobra.Command{devCommand(), serveCommand(), bootstrapCommand(), restoredCommand(), envCommand()}},
		{"Use one:", []*cobra.Command{loginCommand(), logoutCommand(), whoamiCommand(), clustersCommand(), usersCommand(),
			accountsCommand(), tokensCommand(), keysCommand(), auditCommand()}},
	} {
		root.AddGroup(&cobra.Group{ID: g.title, Title: g.title})
		for _, cmd := range g.commands {
			cmd.GroupID = g.title
			root.AddCommand(cmd)
		}
	}
	root.AddCommand(versionCommand())
	return root
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "rolecall", version)
			return err
		},
	}
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage("%s takes no arguments, but got %q", cmd.CommandPath(), args[0])
	}
	return nil
}
