package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"rolecall/internal/cli"
	"rolecall/internal/dev"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "write docs/reference.md")

const referenceFile = "../../docs/reference.md"

// TestReference holds docs/reference.md to the help of the commands. After a change of a flag: go test ./cmd/rolecall
// -update
func TestReference(t *testing.T) {
	want := reference()
	if *update {
		if err := os.WriteFile(referenceFile, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if read(t, referenceFile) != want {
		t.Error("docs/reference.md differs from the help; write it with: go test ./cmd/rolecall -run TestReference -update")
	}
}

const referenceHead = `# Reference

The output of ` + "`--help`" + ` of every command. A test writes this file: edit the help, not this file.

- [Flags and exit codes](#flags-and-exit-codes)
`

const referenceRules = `
## Flags and exit codes

A flag with a variable in its table can be set by that variable; the flag takes precedence. A secret is never the value of a
flag: it comes from a file, from a variable or from standard input.

| exit code | |
|---|---|
| 0 | done |
| 1 | failed |
| 2 | the command line or a setting is wrong; diff: something differs, and nothing else |
| 3 | it does not exist, or you may not see it |
| 4 | not signed in, or not allowed |
| 5 | apply: something has changed since the plan was made |
| 6 | the list or the plan is not complete, because clusters did not answer |
| 126, 127 | exec and psql: the command cannot be run, or was not found |
| 130, 143 | interrupted by Ctrl-C, or by SIGTERM |

Exec and psql end with the exit code of their command, or with 128+N if signal N ended it.

| variable without a flag | commands | |
|---|---|---|
`

// otherVariables are those without a flag, the commands that read them, and what they are.
var otherVariables = [][3]string{
	{databaseURLVariable, "serve, bootstrap, recover",
		"URL of the control database; unlike `--database-url` it may contain the password"},
	{masterKeyVariable, "serve, bootstrap, recover",
		"the keys that encrypt stored secrets: 32 bytes in base64 each, one per line; the first one encrypts"},
	{dev.AdminPasswordVariable, "dev", "password of `admin`, used at the first start only"},
	{cli.URLVariable, "commands that use a server",
		"URL of the server; default: the current one, of `rolecall login` or `rolecall contexts use`"},
	{cli.TokenVariable, "commands that use a server",
		"bearer token for that server, such as a personal access token; no login is needed then"},
	{cli.ClientCertVariable, "commands that use a server",
		"file with the client certificate, in PEM, for a server with `--tls-client-ca`"},
	{cli.ClientKeyVariable, "commands that use a server", "file with the key of the client certificate, in PEM"},
	{cli.ClusterIDVariable, "commands with `--cluster`", "id of the cluster, if neither the flag nor its variable gives one"},
}

func reference() string {
	var b strings.Builder
	root := rootCommand()
	b.WriteString(referenceHead)
	b.WriteString("- [Commands that use a server](#commands-that-use-a-server)\n")
	for _, cmd := range root.Commands() {
		listContents(&b, cmd, "")
	}
	b.WriteString(referenceRules)
	for _, v := range otherVariables {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", v[0], v[1], v[2])
	}
	b.WriteString("\n## Commands that use a server\n\nAll of them take these flags.\n")
	describeFlags(&b, root.PersistentFlags())
	for _, cmd := range root.Commands() {
		describe(&b, cmd)
	}
	return b.String()
}

func described(cmd *cobra.Command) bool {
	return !cmd.Hidden && cmd.Name() != "help" && cmd.Name() != "completion"
}

func title(cmd *cobra.Command) string { return strings.TrimSuffix(cmd.UseLine(), " [flags]") }

var notInAnchor = regexp.MustCompile(`[^a-z0-9 _-]`)

// listContents writes a line of the contents for a command, and indented lines for those below it.
func listContents(b *strings.Builder, cmd *cobra.Command, indent string) {
	if !described(cmd) {
		return
	}
	anchor := strings.ReplaceAll(notInAnchor.ReplaceAllString(strings.ToLower(title(cmd)), ""), " ", "-")
	fmt.Fprintf(b, "%s- [%s](#%s): %s\n", indent, cmd.CommandPath(), anchor, cmd.Short)
	for _, sub := range cmd.Commands() {
		listContents(b, sub, indent+"  ")
	}
}

// describe writes a command and those below it.
func describe(b *strings.Builder, cmd *cobra.Command) {
	if !described(cmd) {
		return
	}
	about := cmd.Long
	if about == "" {
		about = cmd.Short + "."
	}
	fmt.Fprintf(b, "\n## %s\n\n%s\n", title(cmd), about)
	if cmd.Example != "" {
		fmt.Fprintf(b, "\n```sh\n%s\n```\n", outdent(cmd.Example))
	}
	describeFlags(b, cmd.NonInheritedFlags())
	for _, sub := range cmd.Commands() {
		describe(b, sub)
	}
}

// describeFlags writes a table of flags, if there are any.
func describeFlags(b *strings.Builder, flags *pflag.FlagSet) {
	table := "\n| flag | default | variable | |\n|---|---|---|---|\n"
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Name == "help" || f.Hidden {
			return
		}
		b.WriteString(table)
		table = ""
		value, about := pflag.UnquoteUsage(f)
		about, from, _ := strings.Cut(about, " [$")
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", code(strings.TrimSpace("--"+f.Name+" "+value)),
			code(strings.Trim(f.DefValue, "[]")), code(strings.TrimSuffix(from, "]")), about)
	})
}

func code(s string) string {
	if s == "" || s == "false" {
		return ""
	}
	return "`" + s + "`"
}

func outdent(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		lines[i] = strings.TrimPrefix(line, "  ")
	}
	return strings.Join(lines, "\n")
}
