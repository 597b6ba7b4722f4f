package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"golang.org/x/term"
)

// Standard output is for what was asked for, in the form of --output; that something was done is said on standard error.

// output is how a command prints what it was asked for.
type output struct{ format string }

const outputVariable = "ROLECALL_OUTPUT"

func (o *output) bind(cmd *cobra.Command, more ...string) {
	formats := append([]string{"table", "json", "yaml"}, more...)
	list := strings.Join(formats[:len(formats)-1], ", ") + " or " + formats[len(formats)-1]
	cmd.Flags().StringVarP(&o.format, "output", "o", "table", "`form` of what is printed: "+list+" [$"+outputVariable+"]")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	before(cmd, func(cmd *cobra.Command) error {
		value, set := os.LookupEnv(outputVariable)
		switch changed := cmd.Flags().Changed("output"); {
		case changed && !slices.Contains(formats, o.format):
			return usage("--output is %q; it takes %s", o.format, list)
		case !changed && set && slices.Contains([]string{"table", "json", "yaml"}, value):
			o.format = value
		case !changed && set:
			return usage("%s=%q; it takes table, json or yaml", outputVariable, value)
		}
		return nil
	})
}

// before adds a check that runs before the command.
func before(cmd *cobra.Command, check func(cmd *cobra.Command) error) {
	first := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if first != nil {
			if err := first(cmd, args); err != nil {
				return err
			}
		}
		return check(cmd)
	}
}

// printList prints a list, as a table with the columns of head, or as an array of what the server has sent.
func printList[T any](cmd *cobra.Command, o output, items []json.RawMessage, head string, row func(*T) []string) error {
	if o.format != "table" {
		if items == nil {
			items = []json.RawMessage{}
		}
		return printData(cmd, o, items)
	}
	rows := [][]string{strings.Split(head, ",")}
	for _, item := range items {
		v, err := decode[T](item)
		if err != nil {
			return err
		}
		rows = append(rows, row(v))
	}
	return printTable(cmd.OutOrStdout(), rows)
}

// printOne prints one thing, as lines of a name and a value, or as what the server has sent.
func printOne[T any](cmd *cobra.Command, o output, item json.RawMessage, fields func(*T) [][]string) error {
	if o.format != "table" {
		return printData(cmd, o, item)
	}
	v, err := decode[T](item)
	if err != nil {
		return err
	}
	return printFields(cmd.OutOrStdout(), fields(v))
}

func decode[T any](item json.RawMessage) (*T, error) {
	var v T
	if err := json.Unmarshal(item, &v); err != nil {
		return nil, fmt.Errorf("the server has sent something that this version of rolecall cannot read: %w", err)
	}
	return &v, nil
}

// printData prints JSON or YAML, with the members of objects in the order in which the server has sent them.
func printData(cmd *cobra.Command, o output, v any) error {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return err
	}
	if o.format == "yaml" {
		d := json.NewDecoder(&text)
		d.UseNumber()
		node, err := yamlNode(d)
		if err != nil {
			return err
		}
		e := yaml.NewEncoder(cmd.OutOrStdout())
		e.SetIndent(2)
		if err := e.Encode(node); err != nil {
			return err
		}
		return e.Close()
	}
	_, err := cmd.OutOrStdout().Write(text.Bytes())
	return err
}

// yamlNode turns the next JSON value into YAML, keeping the order of members.
func yamlNode(d *json.Decoder) (*yaml.Node, error) {
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	node := &yaml.Node{Kind: yaml.ScalarNode}
	switch t := t.(type) {
	case json.Delim:
		node.Kind = yaml.MappingNode
		if t == '[' {
			node.Kind = yaml.SequenceNode
		}
		for d.More() {
			child, err := yamlNode(d) // of an object, names and values in turn
			if err != nil {
				return nil, err
			}
			node.Content = append(node.Content, child)
		}
		_, err = d.Token()
		return node, err
	case string:
		node.SetString(t)
	case json.Number:
		node.Value = t.String()
	case bool:
		node.Value = strconv.FormatBool(t)
	default:
		node.Value = "null"
	}
	return node, nil
}

// printTable prints rows, the first of which is the head, in columns. On a terminal the widest columns are cut until a
// row fits into a line.
func printTable(w io.Writer, rows [][]string) error {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i := range row {
			row[i] = printable(row[i])
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	if width := terminalWidth(w); width > 0 {
		fit(widths, width)
	}
	var b strings.Builder
	for _, row := range rows {
		line := ""
		for i, cell := range row {
			line += fmt.Sprintf("%-*s  ", widths[i], cut(cell, widths[i]))
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// printFields prints lines of a name and a value. Values are whole, however long they are.
func printFields(w io.Writer, fields [][]string) error {
	width := 0
	for _, f := range fields {
		width = max(width, utf8.RuneCountInString(f[0]))
	}
	var b strings.Builder
	for _, f := range fields {
		b.WriteString(fmt.Sprintf("%-*s  %s\n", width, f[0], cmp.Or(printable(f[1]), "-")))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// narrowest is the least that a column is cut to.
const narrowest = 10

func fit(widths []int, width int) {
	for {
		total := 2 * (len(widths) - 1)
		widest := 0
		for i, w := range widths {
			total += w
			if w > widths[widest] {
				widest = i
			}
		}
		if total <= width || widths[widest] <= narrowest {
			return
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

func terminalWidth(w io.Writer) int {
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil {
			return width
		}
	}
	return 0
}

// printable replaces what would move the cursor or hide text: the names of roles made with plain SQL may hold anything.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return utf8.RuneError
		}
		return r
	}, s)
}

func printableLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = printable(lines[i])
	}
	return strings.Join(lines, "\n")
}

// when is a time for people, in their own zone.
func when(t *time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// pairs writes a map as k=v,k=v.
func pairs(m map[string]string) string {
	var all []string
	for k, v := range m {
		all = append(all, k+"="+v)
	}
	slices.Sort(all)
	return strings.Join(all, ",")
}

// did says what was done.
func did(cmd *cobra.Command, format string, args ...any) {
	fmt.Fprintln(cmd.ErrOrStderr(), printable(fmt.Sprintf(format, args...)))
}

// printUnlessTable prints what was changed for programs; people have been told already.
func (o output) printUnlessTable(cmd *cobra.Command, v any) error {
	if o.format == "table" {
		return nil
	}
	return printData(cmd, o, v)
}
