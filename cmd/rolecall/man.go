package main

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"rolecall/internal/cli/term"
)

// manCommand writes the manual pages that the packages contain. Their date is that of SOURCE_DATE_EPOCH, so that each build
// gives the same bytes.
func manCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "man FOLDER",
		Short:   "Write the manual pages",
		Example: "  rolecall man ~/.local/share/man/man1",
		Hidden:  true,
		Args:    term.Arguments("FOLDER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true
			header := &doc.GenManHeader{Section: "1", Source: "rolecall " + version, Manual: "Rolecall"}
			return doc.GenManTree(root, header, args[0])
		},
	}
}
