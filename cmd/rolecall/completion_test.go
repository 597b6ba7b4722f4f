package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// valuesInHelp finds the values of a flag that its help lists, as in "log format: text or json".
var valuesInHelp = regexp.MustCompile(`: ((?:[\w-]+, )*[\w-]+),? or ([\w-]+)`)

// TestCompletionOfFlags holds every flag that has a value to a completion: of the values that are known, else of none, or of
// files if the value is a file.
func TestCompletionOfFlags(t *testing.T) {
	known := map[string][]string{ // also where the help does not list them that way
		"output": {"json", "table", "yaml"}, "color": {"auto", "never"}, "log-level": {"debug", "error"},
		"log-format": {"json", "text"}, "audit-format": {"json", "ocsf"},
		"outcome": {"done", "not_done"}, "action": {"user.create"}, "state": {"active"},
		"tls-mode": {"disable", "verify-full"}, "synchronous-commit": {"local"}, "on-blocked": {"disable"},
		"valid-until": {"never"}, "expires": {"never"}, "connection-limit": {"none"}, "scope": {"scim.read"},
		"level": {"own", "read", "write"},
	}
	checked := 0
	var look func(cmd *cobra.Command)
	look = func(cmd *cobra.Command) {
		cmd.NonInheritedFlags().VisitAll(func(f *pflag.Flag) {
			if f.Value.Type() == "bool" {
				return
			}
			placeholder, usage := pflag.UnquoteUsage(f)
			_, ok := cmd.GetFlagCompletionFunc(f.Name)
			if !ok && placeholder != "file" && placeholder != "folder" {
				t.Errorf("%s --%s has no completion", cmd.CommandPath(), f.Name)
			}
			want := slices.Clone(known[f.Name])
			if found := valuesInHelp.FindStringSubmatch(usage); found != nil && known[f.Name] == nil {
				want = append(strings.Split(found[1], ", "), found[2])
			}
			begun := ""
			switch f.Name {
			case "sort":
				want = []string{"-"}
			case "access", "set": // the databases would come from a server
				begun = "shop="
				for i, level := range want {
					want[i] = begun + level
				}
			}
			if len(want) == 0 {
				return
			}
			checked++
			_, out, _ := execute(t, "", append(append([]string{"__complete"}, strings.Fields(cmd.CommandPath())[1:]...), "--"+f.Name,
				begun)...)
			for _, value := range want {
				if !strings.Contains("\n"+out, "\n"+value) || strings.Contains(out, ":0\n") {
					t.Errorf("%s --%s offers %q, without %q or with files", cmd.CommandPath(), f.Name, out, value)
				}
			}
		})
		for _, sub := range cmd.Commands() {
			look(sub)
		}
	}
	look(rootCommand())
	if checked < 40 {
		t.Errorf("only %d flags have known values", checked)
	}
}
