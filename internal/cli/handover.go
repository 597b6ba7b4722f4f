package cli

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"rolecall/internal/cli/term"
	"rolecall/internal/format"
	"rolecall/internal/secret"
)

// bindingDir is the output format that is a folder of files.
const bindingDir = "binding-dir"

// handover is how a command hands out a password: the output formats for programs, and what belongs to them.
type handover struct {
	database, secretName string
	dir                  string // of bindingDir
}

// bind gives a command the formats. After the named arguments it takes a folder, for bindingDir.
func (h *handover) bind(cmd *cobra.Command, arguments ...string) {
	term.BindOutput(cmd, append(slices.Clone(format.Names), bindingDir)...)
	cmd.Args = term.Arguments(append(arguments, "[DIR]")...)
	bindDatabase(cmd, &h.database, "print in the formats env, pgpass, uri, jdbc, secret and "+bindingDir)
	cmd.Flags().StringVar(&h.secretName, "secret-name", "",
		"`name` of the Kubernetes Secret, with -o secret; default: derived from the user name")
}

// bindDatabase gives a command the flag --database.
func bindDatabase(cmd *cobra.Command, database *string, purpose string) {
	cmd.Flags().StringVarP(database, "database", "d", "", "`database` to "+purpose+"; default: the one in the connection URL")
	_ = cmd.RegisterFlagCompletionFunc("database", completeDatabases)
}

// check reads the folder, which follows the n named arguments. It runs before there is a password that could be lost.
func (h *handover) check(c *call, n int) error {
	given := len(c.args) > n
	output := term.Format(c.cmd)
	switch wanted := output == bindingDir; {
	case wanted && !given:
		return term.Usage("DIR is missing: the folder to write; see %s --help", c.cmd.CommandPath())
	case given && !wanted:
		return term.Usage("%q is a folder, which belongs to -o %s; see %s --help", c.args[n], bindingDir, c.cmd.CommandPath())
	case c.given("database") && slices.Contains([]string{"table", "json", "yaml"}, output):
		return term.Usage("--database does not change -o %s, which has all databases; see %s --help", output, c.cmd.CommandPath())
	case h.secretName != "" && output != "secret":
		return term.Usage("--secret-name belongs to -o secret; see %s --help", c.cmd.CommandPath())
	case h.secretName != "" && !format.IsSecretName(h.secretName):
		return term.Usage("--secret-name is %q; use lower-case letters, digits, - and .", h.secretName)
	case wanted:
		h.dir = c.args[n]
		return format.CheckBinding(h.dir)
	}
	return nil
}

// print prints what the server has sent, with the password. fields are for the table.
func (h *handover) print(c *call, answer json.RawMessage, url string, password secret.Text, fields [][]string) error {
	switch name := term.Format(c.cmd); name {
	case "table":
		return term.PrintFields(c.cmd.OutOrStdout(), fields)
	case "json", "yaml":
		return term.PrintData(c.cmd, answer)
	default:
		login, err := format.Parse(url, h.database, password)
		if err != nil {
			return err
		}
		if name == bindingDir {
			return format.WriteBinding(h.dir, login)
		}
		text, err := login.Text(name, h.secretName)
		if err != nil {
			return err
		}
		_, err = fmt.Fprint(c.cmd.OutOrStdout(), text)
		return err
	}
}
