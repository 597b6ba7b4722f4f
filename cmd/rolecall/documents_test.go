package main

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

var (
	commandBlock = regexp.MustCompile("(?ms)^ *```(?:sh|yaml|ini)\n(.*?)^ *```")
	commandText  = regexp.MustCompile("`([^`\n]*\\brolecall [^`\n]*)`")
	commandStart = regexp.MustCompile(`(?m)(?:^ *|[("|;&] *|\bbin/|\bsudo |=\S* +)rolecall +([a-z-].*)`)
	continued    = regexp.MustCompile(`\\\n\s*`)
	quoted       = regexp.MustCompile(`"[^"]*"|'[^']*'`)
	ends         = regexp.MustCompile(` *(?:[|;)#>…]| --( |$)| && | 2>).*`)
)

// TestDocumentedCommands looks for each command line of the documents in the command tree, with each of its flags.
func TestDocumentedCommands(t *testing.T) {
	root := rootCommand()
	addCompletion(root)
	found := 0
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/internals/*.md"} {
		paths, err := filepath.Glob("../../" + pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			text := continued.ReplaceAllString(read(t, path), " ")
			var parts []string
			for _, match := range commandBlock.FindAllStringSubmatch(text, -1) {
				parts = append(parts, match[1])
			}
			for _, match := range commandText.FindAllStringSubmatch(commandBlock.ReplaceAllString(text, ""), -1) {
				parts = append(parts, match[1])
			}
			for _, part := range parts {
				for _, match := range commandStart.FindAllStringSubmatch(part, -1) {
					found++
					line := strings.TrimSuffix(ends.ReplaceAllString(quoted.ReplaceAllString(match[1], "text"), ""), `"`)
					checkCommand(t, root, path, strings.Fields(line))
				}
			}
		}
	}
	if found < 300 {
		t.Errorf("the documents have %d command lines", found)
	}
}

// checkCommand reports a command that is not in the tree, or a flag that it does not have.
func checkCommand(t *testing.T, root *cobra.Command, path string, args []string) {
	t.Helper()
	cmd, rest, err := root.Find(args)
	if err != nil || cmd.HasSubCommands() && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
		t.Errorf("%s: there is no command rolecall %s", path, strings.Join(args, " "))
		return
	}
	for _, arg := range rest {
		name, _, _ := strings.Cut(arg, "=")
		if long, ok := strings.CutPrefix(name, "--"); ok && cmd.Flag(long) == nil && long != "help" {
			t.Errorf("%s: rolecall %s has no flag %s", path, cmd.CommandPath(), name)
		} else if short, ok := strings.CutPrefix(name, "-"); ok && len(short) == 1 &&
			cmd.Flags().ShorthandLookup(short) == nil && cmd.InheritedFlags().ShorthandLookup(short) == nil && short != "h" {
			t.Errorf("%s: rolecall %s has no flag %s", path, cmd.CommandPath(), name)
		}
	}
}
