package term

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestColors: states have colors on a terminal only, or if --color says so, and the columns stay aligned.
func TestColors(t *testing.T) {
	head := Head{{Title: "NAME"}, {Title: "STATE", State: true}, {Title: "ON"}}
	const colored = "NAME  STATE     ON\n" + "a     \x1b[32mactive\x1b[0m    1\n" + "b     \x1b[33mdisabled\x1b[0m  2\n" +
		"c     \x1b[31mblocked\x1b[0m   3\n" + "d     odd       4\n"
	without := strings.NewReplacer("\x1b[32m", "", "\x1b[33m", "", "\x1b[31m", "", "\x1b[0m", "").Replace(colored)
	for name, test := range map[string]struct {
		terminal        bool
		when, no, which string
		want            string
	}{
		"a terminal":           {true, "auto", "", "xterm", colored},
		"NO_COLOR":             {true, "auto", "1", "xterm", without},
		"a dumb terminal":      {true, "auto", "", "dumb", without},
		"never":                {true, "never", "", "xterm", without},
		"a pipe":               {false, "auto", "", "xterm", without},
		"always":               {false, "always", "1", "dumb", colored},
		"always on a terminal": {true, "always", "1", "dumb", colored},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("NO_COLOR", test.no)
			t.Setenv("TERM", test.which)
			var keyboard, tty *os.File
			var got bytes.Buffer
			cmd := &cobra.Command{}
			cmd.SetOut(&got)
			if test.terminal {
				keyboard, tty = openTerminal(t)
				cmd.SetOut(tty)
			}
			BindGlobal(cmd)
			if err := cmd.ParseFlags([]string{"--color", test.when}); err != nil {
				t.Fatal(err)
			}
			rows := [][]string{{"a", "active", "1"}, {"b", "disabled", "2"}, {"c", "blocked", "3"}, {"d", "odd", "4"}}
			if err := TableOf(cmd, head).Print(rows); err != nil {
				t.Fatal(err)
			}
			if test.terminal {
				screen := make([]byte, len(test.want)+strings.Count(test.want, "\n")) // a terminal makes \r\n of \n
				if _, err := io.ReadFull(keyboard, screen); err != nil {
					t.Fatal(err)
				}
				got.WriteString(strings.ReplaceAll(string(screen), "\r", ""))
			}
			if got.String() != test.want {
				t.Errorf("got %q, want %q", got.String(), test.want)
			}
		})
	}
}

func TestQuiet(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{"": "done\nwarning\n", "-q": "warning\n", "--quiet": "warning\n"} {
		cmd := &cobra.Command{}
		BindGlobal(cmd)
		if err := cmd.ParseFlags(strings.Fields(args)); err != nil {
			t.Fatal(err)
		}
		var errOut bytes.Buffer
		cmd.SetErr(&errOut)
		Report(cmd, "done")
		Warn(cmd, "warning")
		if errOut.String() != want {
			t.Errorf("%q: got %q, want %q", args, errOut.String(), want)
		}
	}
}
