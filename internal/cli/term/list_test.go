package term

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

var listHead = Head{
	{Title: "NAME", Name: true}, {Title: "COUNT"}, {Title: "CREATED BY", Gives: Some}, {Title: "SYSTEM", Wide: true},
}

// listed runs a list command with three rows, which the server sends one on each page, and returns what it prints.
func printListed(t *testing.T, rows [][]string, args ...string) (out string, pages int, err error) {
	t.Helper()
	cmd := &cobra.Command{SilenceErrors: true, SilenceUsage: true, Args: NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := NewList(cmd, listHead)
			if err != nil {
				return err
			}
			for _, row := range rows {
				pages++
				item, err := json.Marshal(row[0])
				if err != nil {
					return err
				}
				var cells [][]string
				if NeedsCells(cmd) {
					cells = [][]string{slices.Clone(row)} // which Print escapes
				}
				if l.Add([]json.RawMessage{item}, cells); l.Full() {
					break
				}
			}
			return l.Print()
		}}
	BindList(cmd, listHead)
	var b bytes.Buffer
	cmd.SetOut(&b)
	cmd.SetArgs(args)
	err = cmd.ExecuteContext(t.Context())
	return b.String(), pages, err
}

var listRows = [][]string{{"b", "9", "Eve", "no"}, {"a_1", "10", "", "yes"}, {"A_2", "2", "adam", "no"}}

func TestListFlags(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]struct {
		names string
		pages int
	}{
		"":                                {"b a_1 A_2", 3},
		"--sort name":                     {"a_1 A_2 b", 3},
		"--sort -name":                    {"b A_2 a_1", 3},
		"--sort=-NAME":                    {"b A_2 a_1", 3},
		"--sort count":                    {"A_2 b a_1", 3},
		"--sort -count":                   {"a_1 b A_2", 3},
		"--sort created-by":               {"A_2 b a_1", 3},
		"--sort -created_by":              {"b A_2 a_1", 3}, // what is empty comes last
		"--limit 2":                       {"b a_1", 2},
		"--limit 1":                       {"b", 1},
		"--limit 9":                       {"b a_1 A_2", 3},
		"--sort name --limit 1":           {"a_1", 3},
		"--filter name=A*":                {"a_1 A_2", 3},
		"--filter NAME=a":                 {"", 3},
		"--filter name=*1":                {"a_1", 3},
		"--filter name=a.1":               {"", 3},
		"--filter created-by=":            {"a_1", 3},
		"--filter created-by=eve":         {"b", 3},
		"--filter system=no":              {"b A_2", 3},
		"--filter name=* --filter count=": {"", 3},
		"--filter name=a* --filter system=no --sort name": {"A_2", 3},
		"--filter name=a* --limit 1":                      {"a_1", 2},
	} {
		for _, format := range []string{"name", "json", "yaml", "table"} {
			out, pages, err := printListed(t, listRows, append(strings.Fields(args), "-o", format)...)
			if err != nil {
				t.Fatalf("%s: %v", args, err)
			}
			var names []string
			switch format {
			case "name":
				names = strings.Fields(out)
			case "json":
				err = json.Unmarshal([]byte(out), &names)
			case "yaml":
				for _, line := range strings.Split(strings.TrimSpace(strings.TrimPrefix(out, "[]")), "\n") {
					if line != "" {
						names = append(names, strings.TrimPrefix(line, "- "))
					}
				}
			case "table":
				for _, line := range strings.Split(strings.TrimSpace(out), "\n")[1:] {
					names = append(names, strings.Fields(line)[0])
				}
			}
			if got := strings.Join(names, " "); err != nil || got != want.names || pages != want.pages {
				t.Errorf("%s -o %s: got %q from %d pages, %v; want %q from %d", args, format, got, pages, err, want.names,
					want.pages)
			}
		}
	}
}

func TestListFormats(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"--limit 1":                      "NAME  COUNT  CREATED BY\nb     9      Eve\n",
		"--limit 1 -o wide":              "NAME  COUNT  CREATED BY  SYSTEM\nb     9      Eve         no\n",
		"--limit 1 --no-headers":         "b  9  Eve\n",
		"--limit 1 --no-headers -o wide": "b  9  Eve  no\n",
		"--filter name=x --no-headers":   "",
		"--filter name=x -o name":        "",
	} {
		if out, _, err := printListed(t, listRows, strings.Fields(args)...); err != nil || out != want {
			t.Errorf("%s: got %q, %v; want %q", args, out, err, want)
		}
	}
}

func TestListMistakes(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"--sort nmae":             `no column "nmae" (did you mean name?); the columns are name, count, created-by, system`,
		"--filter xyz=1":          `no column "xyz"; the columns are name, count, created-by, system`,
		"--filter name":           `"name" is not COLUMN=VALUE`,
		"--limit 0":               "1 or more",
		"--limit all":             "1 or more",
		"--no-headers -o json":    "-o json has no titles",
		"--no-headers -o name":    "-o name has no titles",
		"-o jsno":                 "table, json, yaml, wide or name (did you mean json?)",
		"--sort name --no-header": "unknown flag: --no-header",
	} {
		out, pages, err := printListed(t, listRows, strings.Fields(args)...)
		if err == nil || !strings.Contains(err.Error(), want) || out != "" || pages > 0 {
			t.Errorf("%s: printed %q, %d pages, %v; want an error with %q", args, out, pages, err, want)
		}
	}
}

// A program that reads names takes a name with a line break for two.
func TestNamesWithLineBreaks(t *testing.T) {
	t.Parallel()
	for name, ok := range map[string]bool{"a\nb": false, "a\rb": false, "a b": true, "a\tb": true, "-x": true, `a\nb`: true} {
		out, _, err := printListed(t, [][]string{{name, "", "", ""}}, "-o", "name")
		if (err == nil) != ok || ok && out != name+"\n" || !ok && !strings.Contains(err.Error(), fmt.Sprintf("%q", name)) {
			t.Errorf("%q: printed %q, %v", name, out, err)
		}
	}
}

func TestNear(t *testing.T) {
	t.Parallel()
	known := []string{"users", "clusters", "payments", "pay", "accounts", "Shop"}
	for given, want := range map[string]string{
		"usres": "users", "user": "users", "payment": "payments", "pya": "pay", "pay": "pay payments", "shpo": "Shop",
		"zzz": "", "": "", "x": "", "SHOP": "Shop", strings.Repeat("x", 10000): "",
	} {
		if got := strings.Join(Near(given, known), " "); got != want {
			t.Errorf("%q is near %q, want %q", given, got, want)
		}
	}
}
