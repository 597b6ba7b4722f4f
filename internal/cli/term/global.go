package term

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

const (
	quietFlag = "quiet"
	colorFlag = "color"
)

// GlobalFlags are the flags of BindGlobal.
var GlobalFlags = []string{quietFlag, colorFlag}

// BindGlobal gives a command and all below it the flags that change what every command prints.
func BindGlobal(root *cobra.Command) {
	f := root.PersistentFlags()
	f.BoolP(quietFlag, "q", false, "report errors and warnings only, not what was done")
	f.Var(&colors{"auto"}, colorFlag,
		"color states: `when`, auto, always or never; auto: on a terminal, unless NO_COLOR is set or TERM is dumb")
	_ = root.RegisterFlagCompletionFunc(colorFlag, cobra.FixedCompletions(colorWords, cobra.ShellCompDirectiveNoFileComp))
}

// CheckGlobal rejects --color=always for an output that has no colors.
func CheckGlobal(cmd *cobra.Command) error {
	if colorOf(cmd) == "always" && !IsTable(cmd) {
		return Usage("-o %s has no colors, so --%s=always does nothing; omit it", Format(cmd), colorFlag)
	}
	return nil
}

// colors is the value of --color.
type colors struct{ when string }

var colorWords = []string{"auto", "always", "never"}

func (c *colors) String() string { return c.when }

// Type is the word for the value in error messages of flags.
func (c *colors) Type() string { return "when" }

func (c *colors) Set(when string) error {
	if !slices.Contains(colorWords, when) {
		return fmt.Errorf("use auto, always or never%s", DidYouMean(when, colorWords))
	}
	c.when = when
	return nil
}

func colorOf(cmd *cobra.Command) string {
	if f := cmd.Flags().Lookup(colorFlag); f != nil {
		return f.Value.String()
	}
	return "never"
}

// hasColors reports whether the standard output of a command has colors. https://no-color.org
func hasColors(cmd *cobra.Command) bool {
	switch colorOf(cmd) {
	case "always":
		return true
	case "never":
		return false
	}
	return isTerminal(cmd.OutOrStdout()) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// The sequences that begin and end a color.
const (
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	red    = "\x1b[31m"
	plain  = "\x1b[0m"
)

var stateColors = map[string]string{
	"active": green, "available": green,
	"expired": yellow, "disabled": yellow, "deleting": yellow, "ending": yellow, "unknown": yellow,
	"blocked": red, "failing": red, "stopped": red, "unavailable": red,
}

// inColor is a state in its color. The word says the same.
func inColor(state string) string {
	if color := stateColors[strings.ToLower(state)]; color != "" {
		return color + state + plain
	}
	return state
}
