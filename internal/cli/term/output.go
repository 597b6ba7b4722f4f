package term

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"rolecall/internal/invisible"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// Standard output is for what the command was asked for, in the format of --output. What the command did is reported on
// standard error.

// OutputVariable may stand for the flag --output.
const OutputVariable = "ROLECALL_OUTPUT"

// format is the value of --output.
type format struct {
	name    string
	allowed []string
}

func (f *format) String() string { return f.name }

// Type is the word for the value in error messages of flags.
func (f *format) Type() string { return "format" }

func (f *format) Set(name string) error {
	if !slices.Contains(f.allowed, name) {
		return fmt.Errorf("use %s%s", f.list(), DidYouMean(name, f.allowed))
	}
	f.name = name
	return nil
}

func (f *format) list() string { return Either(f.allowed) }

// BindOutput gives a command the flag --output, with table, json, yaml and more formats.
func BindOutput(cmd *cobra.Command, more ...string) {
	f := &format{"table", append([]string{"table", "json", "yaml"}, more...)}
	cmd.Flags().VarP(f, "output", "o", "output `format`: "+f.list())
	Variable(cmd.Flags().Lookup("output"), OutputVariable)
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(f.allowed, cobra.ShellCompDirectiveNoFileComp))
}

// Format is the output format of a command; table if it has no flag for it.
func Format(cmd *cobra.Command) string {
	if f := cmd.Flags().Lookup("output"); f != nil {
		return f.Value.String()
	}
	return "table"
}

// IsTable reports whether the output is for people: a table, or lines of a name and a value.
func IsTable(cmd *cobra.Command) bool { return Format(cmd) == "table" || Format(cmd) == wide }

// PrintOne prints one thing: as lines of a name and a value, or as what the server has sent.
func PrintOne[T any](cmd *cobra.Command, item json.RawMessage, fields func(*T) [][]string) error {
	if !IsTable(cmd) {
		return PrintData(cmd, item)
	}
	v, err := Decode[T](item)
	if err != nil {
		return err
	}
	return printFields(cmd.OutOrStdout(), fields(v), hasColors(cmd))
}

// Decode reads what the server has sent.
func Decode[T any](item json.RawMessage) (*T, error) {
	var v T
	if err := json.Unmarshal(item, &v); err != nil {
		return nil, fmt.Errorf("this version of rolecall cannot read the server's answer: %w", err)
	}
	return &v, nil
}

// DecodeAll reads a list that the server has sent.
func DecodeAll[T any](items []json.RawMessage) ([]*T, error) {
	all := make([]*T, len(items))
	for i, item := range items {
		var err error
		if all[i], err = Decode[T](item); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// PrintData prints JSON or YAML, with the members of objects in the order in which the server has sent them.
func PrintData(cmd *cobra.Command, v any) error {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return err
	}
	if Format(cmd) == "yaml" {
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

// PrintFields prints lines of a name and a value. Values are never cut. A line without a name continues the one before.
func PrintFields(w io.Writer, fields [][]string) error { return printFields(w, fields, false) }

func printFields(w io.Writer, fields [][]string, colored bool) error {
	width := 0
	for _, f := range fields {
		width = max(width, utf8.RuneCountInString(f[0]))
	}
	var b strings.Builder
	for _, f := range fields {
		value := printable(f[1])
		if f[0] != "" {
			value = cmp.Or(value, "-")
		}
		if colored && f[0] == "state" {
			value = inColor(value)
		}
		b.WriteString(strings.TrimRight(fmt.Sprintf("%-*s  %s", width, f[0], value), " ") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// printable escapes characters that would control the terminal or hide text: the name of a role may contain anything.
func printable(s string) string { return invisible.Escape(s) }

// Printable is a line of text without characters that control a terminal or hide text.
func Printable(s string) string { return printable(s) }

// PrintableLines is text of several lines without characters that control a terminal.
func PrintableLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = printable(lines[i])
	}
	return strings.Join(lines, "\n")
}

// PrintScript prints text that another program reads. A terminal gets it without characters that control it.
func PrintScript(cmd *cobra.Command, text string) error {
	if terminalWidth(cmd.OutOrStdout()) > 0 {
		text = PrintableLines(text)
	}
	_, err := io.WriteString(cmd.OutOrStdout(), text)
	return err
}

// Lines are the fields of a text that may have several lines.
func Lines(name, text string) [][]string {
	var fields [][]string
	for line := range strings.SplitSeq(text, "\n") {
		fields = append(fields, []string{name, strings.TrimSuffix(line, "\r")})
		name = ""
	}
	return fields
}

// Time is a time for people, in their own zone, as psql prints it; "" for none.
func Time(t *time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	local := t.Local()
	if _, offset := local.Zone(); offset%3600 != 0 {
		return local.Format("2006-01-02 15:04:05-07:00")
	}
	return local.Format("2006-01-02 15:04:05-07")
}

// TimeOrNever is a time at which something ends, if it does.
func TimeOrNever(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return Time(t)
}

// YesNo is a boolean for people.
func YesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// Pairs is a map for people: k=v,k=v.
func Pairs(m map[string]string) string {
	var all []string
	for k, v := range m {
		all = append(all, k+"="+v)
	}
	slices.Sort(all)
	return strings.Join(all, ",")
}

// Report tells people what the command did, unless they want it quiet.
func Report(cmd *cobra.Command, format string, args ...any) {
	if !isSet(cmd, quietFlag) {
		Warn(cmd, format, args...)
	}
}

// Warn tells people what they need to know even if they want it quiet.
func Warn(cmd *cobra.Command, format string, args ...any) {
	fmt.Fprintln(cmd.ErrOrStderr(), printable(fmt.Sprintf(format, args...)))
}

// PrintUnlessTable prints what was changed for programs. People read the report.
func PrintUnlessTable(cmd *cobra.Command, v any) error {
	if Format(cmd) == "table" {
		return nil
	}
	return PrintData(cmd, v)
}
