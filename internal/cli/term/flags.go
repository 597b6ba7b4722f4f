package term

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// aliases are short words for commands; usual are words that people know from other programs, which are only suggested.
var (
	aliases = map[string][]string{"list": {"ls"}, "delete": {"rm"}, "remove": {"rm"}}
	usual   = map[string][]string{
		"show": {"get", "describe"}, "delete": {"remove"}, "remove": {"delete"}, "create": {"add", "new"}, "passwd": {"password"},
	}
)

// Group is a command that holds others.
func Group(name, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   name,
		Short: short,
		Args:  OnlyCommands,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },

		DisableFlagsInUseLine:      true, // it has none of its own
		SuggestionsMinimumDistance: 2,
	}
	for _, sub := range commands {
		sub.Aliases, sub.SuggestFor = aliases[sub.Name()], usual[sub.Name()]
	}
	cmd.AddCommand(commands...)
	return cmd
}

// FlagError is the error of a command whose flags cannot be read.
func FlagError(cmd *cobra.Command, err error) error {
	unknown, ok := errors.AsType[*pflag.NotExistError](err)
	if ok && unknown.GetSpecifiedShortnames() == "" {
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				names = append(names, f.Name)
			}
		})
		if near := Near(unknown.GetSpecifiedName(), names); len(near) > 0 {
			return Usage("%w (did you mean --%s?); see %s --help", err, strings.Join(near, " or --"), cmd.CommandPath())
		}
	}
	if ok && strings.Contains(cmd.Use, " ") {
		name := "--" + unknown.GetSpecifiedName()
		if group := unknown.GetSpecifiedShortnames(); group != "" {
			name = "-" + group
		}
		return Usage("%w; if %q is a name, write -- before it, after all flags; see %s --help", err, name, cmd.CommandPath())
	}
	if invalid, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		reason := errors.Unwrap(invalid)
		if _, ok := errors.AsType[*strconv.NumError](reason); ok {
			reason = errors.New("use a number")
			if invalid.GetFlag().Value.Type() == "bool" {
				reason = errors.New("use true or false, or omit the value")
			}
		}
		return Usage("--%s is %q: %w; see %s --help", invalid.GetFlag().Name, invalid.GetValue(), reason, cmd.CommandPath())
	}
	return Usage("%w; see %s --help", err, cmd.CommandPath())
}

// OnlyCommands rejects an argument that is no command.
func OnlyCommands(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		path := strings.TrimPrefix(cmd.CommandPath()+" "+args[0], cmd.Root().Name()+" ")
		hint := ""
		if near := slices.Compact(slices.Sorted(slices.Values(cmd.SuggestionsFor(args[0])))); len(near) > 0 {
			hint = " (did you mean " + Either(near) + "?)"
		}
		return Usage("there is no command %q%s; see %s --help", path, hint, cmd.CommandPath())
	}
	return nil
}

// NoArguments rejects every argument.
func NoArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return Usage("%s takes no arguments, but got %q", cmd.CommandPath(), args[0])
	}
	return nil
}

// Arguments checks the number of arguments. They are named as in the command's usage line: [NAME] is optional, NAME... may
// be repeated.
func Arguments(names ...string) cobra.PositionalArgs {
	least, most := len(names), len(names)
	switch last := names[len(names)-1]; {
	case strings.HasPrefix(last, "[") && strings.HasSuffix(last, "..."):
		least--
		most = 1 << 16
	case strings.HasPrefix(last, "["):
		least--
	case strings.HasSuffix(last, "..."):
		most = 1 << 16
	}
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least {
			return Usage("%s is missing; see %s --help", strings.TrimSuffix(names[len(args)], "..."), cmd.CommandPath())
		}
		if len(args) > most {
			return Usage("%s takes %s, but got %q as well", cmd.CommandPath(), strings.Join(names, " "), args[most])
		}
		return nil
	}
}

// CompleteNoFiles keeps shells from offering files for the flags whose value is none, in a command and all below it.
func CompleteNoFiles(cmd *cobra.Command) {
	cmd.NonInheritedFlags().VisitAll(func(f *pflag.Flag) {
		_, has := cmd.GetFlagCompletionFunc(f.Name)
		if placeholder, _ := pflag.UnquoteUsage(f); !has && placeholder != "file" && placeholder != "folder" {
			_ = cmd.RegisterFlagCompletionFunc(f.Name, cobra.NoFileCompletions)
		}
	})
	for _, sub := range cmd.Commands() {
		CompleteNoFiles(sub)
	}
}

// CompleteWords offers fixed values of a flag.
func CompleteWords(cmd *cobra.Command, flag string, words ...string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

// variableOf is the annotation of a flag with the environment variable that may stand for it.
const variableOf = "rolecall_variable"

// Variable lets an environment variable stand for a flag, and shows it in the help.
func Variable(f *pflag.Flag, name string) {
	f.Usage += " [$" + name + "]"
	f.Annotations = map[string][]string{variableOf: {name}}
}

// FromVariable reports whether a variable sets the flag.
func FromVariable(f *pflag.Flag) bool {
	return slices.ContainsFunc(f.Annotations[variableOf], func(name string) bool {
		_, set := os.LookupEnv(name)
		return set
	})
}

// FromEnvironment sets the flags that are not on the command line from their variables. It runs before every command.
func FromEnvironment(cmd *cobra.Command, _ []string) error {
	var failed error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		for _, name := range f.Annotations[variableOf] {
			value, set := os.LookupEnv(name)
			if failed != nil || f.Changed || !set {
				continue
			}
			values := []string{value}
			if f.Value.Type() == "stringArray" {
				values = strings.Fields(value)
			}
			for _, v := range values {
				if err := f.Value.Set(v); err != nil {
					failed = Usage("%s=%q: %w", name, value, err)
				}
			}
		}
	})
	return failed
}

// isSet reports whether the command has a switch of that name and it is on.
func isSet(cmd *cobra.Command, name string) bool {
	on, err := cmd.Flags().GetBool(name)
	return err == nil && on
}
