package term

import (
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// Column is a column of a table.
type Column struct {
	Title string
	// Gives says which columns a narrow terminal cuts, and then leaves out: those that give most come first. A column that
	// gives nothing is always shown as a whole.
	Gives int
	// Least is how wide the column is even if its values are shorter, in a table whose rows come in parts.
	Least int
	// Name is set for the column by which other commands take what a row shows.
	Name bool
	// State is set for a column whose values have colors on a terminal.
	State bool
	// Wide columns are shown with -o wide only.
	Wide bool
}

// What a column gives on a narrow terminal.
const (
	Nothing = iota
	Some
	More
	Most
)

// Head is the columns of a table.
type Head []Column

// Table prints rows in columns. On a terminal a row fits into a line, unless the table is wide.
type Table struct {
	w        io.Writer
	head     Head
	widths   []int // of the widest value so far; nil: nothing is printed yet
	wide     bool  // all columns, never cut
	untitled bool
	colored  bool
}

// NewTable returns a table whose head is printed with the first rows.
func NewTable(w io.Writer, head Head) *Table { return &Table{w: w, head: head} }

// TableOf returns the table of a command, as its flags want it.
func TableOf(cmd *cobra.Command, head Head) *Table {
	t := NewTable(cmd.OutOrStdout(), head)
	t.wide, t.untitled, t.colored = Format(cmd) == wide, isSet(cmd, noHeadersFlag), hasColors(cmd)
	return t
}

// Print prints the next rows.
func (t *Table) Print(rows [][]string) error {
	if t.widths == nil {
		t.widths = make([]int, len(t.head))
		titles := make([]string, len(t.head))
		for i, c := range t.head {
			t.widths[i], titles[i] = c.Least, c.Title
		}
		if !t.untitled {
			rows = append([][]string{titles}, rows...)
		}
	}
	for _, row := range rows {
		for i := range row {
			row[i] = printable(row[i])
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	widths := slices.Clone(t.widths)
	for i, c := range t.head {
		if c.Wide && !t.wide {
			widths[i] = 0
		}
	}
	if width := terminalWidth(t.w); width > 0 && !t.wide {
		widths = t.head.fit(widths, width)
	}
	var b strings.Builder
	for _, row := range rows {
		line := ""
		for i, cell := range row {
			if widths[i] == 0 {
				continue
			}
			text := cut(cell, widths[i])
			space := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text)+2)
			if t.colored && t.head[i].State {
				text = inColor(text)
			}
			line += text + space
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	_, err := io.WriteString(t.w, b.String())
	return err
}

// narrowest is the least that a column is cut to.
const narrowest = 8

// fit returns the widths that the columns have in a line of this width. A column of width 0 is left out.
func (h Head) fit(widths []int, line int) []int {
	fitted := slices.Clone(widths)
	for gives := Most; gives > Nothing; gives-- {
		for out := len(h); ; {
			for i, c := range h {
				if c.Gives == gives {
					fitted[i] = widths[i]
					if i >= out {
						fitted[i] = 0
					}
				}
			}
			if h.cutWidest(fitted, gives, line) {
				return fitted
			}
			for out--; out >= 0 && h[out].Gives != gives; {
				out--
			}
			if out < 0 {
				break
			}
		}
	}
	return fitted
}

// cutWidest cuts the widest of the columns that give so much until the line fits, and reports whether it does.
func (h Head) cutWidest(widths []int, gives, line int) bool {
	for {
		total, widest := -2, -1
		for i, w := range widths {
			if w == 0 {
				continue
			}
			total += w + 2
			if h[i].Gives == gives && w > max(narrowest, utf8.RuneCountInString(h[i].Title)) && (widest < 0 || w > widths[widest]) {
				widest = i
			}
		}
		if total <= line || widest < 0 {
			return total <= line
		}
		widths[widest]--
	}
}

func cut(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:width-1]) + "…"
}

// terminalWidth is the width of a line on a terminal, 0 elsewhere.
func terminalWidth(w io.Writer) int {
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil {
			return width
		}
	}
	return 0
}
