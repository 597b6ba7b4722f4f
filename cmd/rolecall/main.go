// Command rolecall manages the users of PostgreSQL clusters as a service.
package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"rolecall/internal/cli"
	"rolecall/internal/cli/term"
	"rolecall/internal/identity"
)

// passwordCost is that of production unless a test sets it.
var passwordCost identity.PasswordCost

func main() {
	cli.Version = version
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		s := <-signals
		signal.Stop(signals) // a second signal ends the process at once
		cancel(cli.Signal{Signal: s})
	}()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run executes one command line and returns its exit code.
func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	root := rootCommand()
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		// Cobra reads flags first. A command that only holds others has none, so its first argument is the mistake.
		if _, rest, findErr := root.Find(args); findErr == nil && cmd.HasSubCommands() && len(rest) > 0 {
			if !strings.HasPrefix(rest[0], "-") {
				return term.OnlyCommands(cmd, rest)
			}
		}
		return term.FlagError(cmd, err)
	})
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	addCompletion(root)
	// Cobra ignores the errors of printing help.
	var helpErr error
	printHelp := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		var text bytes.Buffer
		cmd.SetOut(&text)
		printHelp(cmd, args)
		_, helpErr = out.Write(text.Bytes())
	})
	cmd, err := root.ExecuteContextC(ctx)
	if err = cmp.Or(err, helpErr); err == nil {
		return 0
	}
	if usesServer(cmd) {
		err = cli.Interrupted(ctx, err)
	}
	if text := err.Error(); text != "" {
		fmt.Fprintf(errOut, "rolecall: %s\n", term.PrintableLines(text))
	}
	return cli.ExitCode(cmd, err)
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "rolecall",
		Short: "PostgreSQL users as a service, on your own PostgreSQL",
		Long: `Rolecall manages the users of PostgreSQL clusters over HTTP: real roles in a real
PostgreSQL. Start with "rolecall dev", which brings its own PostgreSQL. The commands that
use a server need a "rolecall login" first.`,
		Version:               version,
		DisableFlagsInUseLine: true,
		SilenceErrors:         true,
		SilenceUsage:          true,

		SuggestionsMinimumDistance: 2,
		PersistentPreRunE: func(cmd *cobra.Command, args []string) error {
			if !usesServer(cmd) {
				if err := cli.CheckNoServer(cmd); err != nil {
					return err
				}
				forgetLibpq()
			}
			if err := term.FromEnvironment(cmd, args); err != nil {
				return err
			}
			return term.CheckGlobal(cmd)
		},
		Args: term.OnlyCommands,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate("rolecall {{.Version}}\n")
	addGroup(root, "Run a server:", devCommand(), serveCommand(), bootstrapCommand(), recoverCommand(), doctorCommand(),
		envCommand())
	addGroup(root, serverGroup, cli.Commands()...)
	root.AddCommand(versionCommand(), manCommand())
	cli.BindServer(root)
	term.BindGlobal(root)
	for _, cmd := range root.Commands() {
		if cmd.Flags().Lookup("log-format") != nil {
			term.CompleteWords(cmd, "log-format", "text", "json")
			term.CompleteWords(cmd, "log-level", "debug", "info", "warn", "error")
		}
		if cmd.Flags().Lookup("audit-format") != nil {
			term.CompleteWords(cmd, "audit-format", "json", "ocsf")
		}
	}
	term.CompleteNoFiles(root)
	return root
}

// addCompletion adds cobra's command completion, which prints to the output that the root has now. Without RunE, cobra
// prints the help for a shell that it does not know, and succeeds.
func addCompletion(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() == "completion" {
			cmd.Args, cmd.RunE = term.OnlyCommands, func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
			cmd.SuggestionsMinimumDistance = 2
		}
	}
}

// forgetLibpq removes libpq's variables, which would silently change where connections go and how they are protected. The
// commands that use a server connect to no PostgreSQL, and exec hands the variables to its command.
func forgetLibpq() {
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "PG") {
			os.Unsetenv(name)
		}
	}
}

const serverGroup = "Use a server:"

// usesServer reports whether a command is one of those that use a server, or the root of all.
func usesServer(cmd *cobra.Command) bool {
	for cmd.HasParent() && cmd.Parent().HasParent() {
		cmd = cmd.Parent()
	}
	return cmd.GroupID == serverGroup || !cmd.HasParent()
}

func addGroup(root *cobra.Command, title string, commands ...*cobra.Command) {
	root.AddGroup(&cobra.Group{ID: title, Title: title})
	for _, cmd := range commands {
		cmd.GroupID = title
		root.AddCommand(cmd)
	}
}
