package main

import (
	"cmp"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"rolecall/internal/cli/term"
)

// The build sets both: make build, from git and the file VERSION.
var (
	version = "dev"
	commit  string
)

func versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version of the program, and what it was built from",
		Example: `  rolecall version
  rolecall version -o json`,
		Args: term.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			platform := runtime.GOOS + "/" + runtime.GOARCH
			if term.Format(cmd) != "table" {
				return term.PrintData(cmd, struct {
					Version   string `json:"version"`
					Commit    string `json:"commit,omitempty"`
					GoVersion string `json:"goVersion"`
					Platform  string `json:"platform"`
				}{version, commit, runtime.Version(), platform})
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "rolecall %s\ncommit   %s\ngo       %s\nplatform %s\n",
				version, cmp.Or(commit, "unknown"), runtime.Version(), platform)
			return err
		},
	}
	term.BindOutput(cmd)
	return cmd
}
