package term

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"rolecall/internal/invisible"
)

// The output formats that only lists have.
const (
	wide = "wide"
	name = "name"
)

const (
	sortFlag      = "sort"
	filterFlag    = "filter"
	limitFlag     = "limit"
	noHeadersFlag = "no-headers"
)

// BindList gives a command that prints a list the flag --output, and those that choose among the rows.
func BindList(cmd *cobra.Command, head Head) {
	var formats []string
	if head.name() >= 0 {
		formats = append(formats, name)
	}
	BindTable(cmd, formats...)
	f := cmd.Flags()
	f.Var(&order{head: head}, sortFlag, "sort by this `column`; -column: descending")
	f.Var(&filters{head: head}, filterFlag,
		"only rows with this `column=value`, in any case; * stands for any characters; repeatable, all must match")
	f.Var(new(limit), limitFlag, "print at most `n` rows")
	var sorts, columns []string
	for _, c := range head {
		sorts = append(sorts, c.word(), "-"+c.word())
		columns = append(columns, c.word()+"=")
	}
	_ = cmd.RegisterFlagCompletionFunc(sortFlag, cobra.FixedCompletions(sorts, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc(filterFlag,
		cobra.FixedCompletions(columns, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveNoSpace))
}

// BindTable gives a command that prints a table the flag --output, with the format wide, and --no-headers.
func BindTable(cmd *cobra.Command, more ...string) {
	BindOutput(cmd, append([]string{wide}, more...)...)
	cmd.Flags().Bool(noHeadersFlag, false, "print no titles above the columns")
}

// CheckTable rejects --no-headers with an output format that has none.
func CheckTable(cmd *cobra.Command) error {
	if cmd.Flags().Changed(noHeadersFlag) && !IsTable(cmd) {
		return Usage("-o %s has no titles, so --%s does nothing; omit it", Format(cmd), noHeadersFlag)
	}
	return nil
}

// word is the title of a column as one word.
func (c Column) word() string { return strings.ToLower(strings.ReplaceAll(c.Title, " ", "-")) }

// name is the column with the names, by which other commands take the things of a list; -1 for none.
func (h Head) name() int { return slices.IndexFunc(h, func(c Column) bool { return c.Name }) }

// find is the column with this title.
func (h Head) find(title string) (int, error) {
	var words []string
	for i, c := range h {
		if c.word() == strings.ToLower(strings.NewReplacer(" ", "-", "_", "-").Replace(title)) {
			return i, nil
		}
		words = append(words, c.word())
	}
	return 0, fmt.Errorf("there is no column %q%s; the columns are %s", title, DidYouMean(title, words), strings.Join(words,
		", "))
}

// order is the value of --sort.
type order struct {
	head       Head
	given      string
	column     int
	descending bool
}

func (o *order) String() string { return o.given }

// Type is the word for the value in error messages of flags.
func (o *order) Type() string { return "column" }

func (o *order) Set(given string) (err error) {
	title, descending := strings.CutPrefix(given, "-")
	o.given, o.descending = given, descending
	o.column, err = o.head.find(title)
	return err
}

// filters is the value of --filter.
type filters struct {
	head  Head
	given []string
	all   []filter
}

type filter struct {
	column int
	value  *regexp.Regexp
}

func (f *filters) String() string { return strings.Join(f.given, " ") }

// Type is the word for the value in error messages of flags.
func (f *filters) Type() string { return "filter" }

func (f *filters) Set(given string) error {
	title, value, ok := strings.Cut(given, "=")
	if !ok {
		return fmt.Errorf("%q is not COLUMN=VALUE, such as %s=…", given, f.head[0].word())
	}
	column, err := f.head.find(title)
	if err != nil {
		return err
	}
	parts := strings.Split(value, "*")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	f.given = append(f.given, given)
	f.all = append(f.all, filter{column, regexp.MustCompile(`(?is)\A` + strings.Join(parts, ".*") + `\z`)})
	return nil
}

func (f *filters) match(row []string) bool {
	return !slices.ContainsFunc(f.all, func(f filter) bool { return !f.value.MatchString(row[f.column]) })
}

// limit is the value of --limit; 0: none.
type limit int

func (l *limit) String() string { return strconv.Itoa(int(*l)) }

// Type is the word for the value in error messages of flags.
func (l *limit) Type() string { return "number" }

func (l *limit) Set(given string) error {
	n, err := strconv.Atoi(given)
	if err != nil || n < 1 {
		return fmt.Errorf("use a number of rows, 1 or more")
	}
	*l = limit(n)
	return nil
}

// List is the rows of a list that the flags of a command choose.
type List struct {
	cmd     *cobra.Command
	head    Head
	items   []listed
	order   *order // nil: as the server has sent them
	filters *filters
	limit   int // 0: none
}

// listed is one thing of a list.
type listed struct {
	json  json.RawMessage
	cells []string // nil if nothing needs them
}

// NewList returns a list without rows. The columns of head are those of BindList; which are Wide may differ.
func NewList(cmd *cobra.Command, head Head) (*List, error) {
	l := &List{cmd: cmd, head: head}
	if f := cmd.Flags().Lookup(sortFlag); f != nil && f.Changed {
		l.order, _ = f.Value.(*order)
	}
	if f := cmd.Flags().Lookup(filterFlag); f != nil && f.Changed {
		l.filters, _ = f.Value.(*filters)
	}
	if f := cmd.Flags().Lookup(limitFlag); f != nil {
		if n, ok := f.Value.(*limit); ok {
			l.limit = int(*n)
		}
	}
	return l, CheckTable(cmd)
}

// Sort is the column that the list is to be sorted by, as --sort names it; "": as the server has sent it.
func (l *List) Sort() (column string, descending bool) {
	if l.order == nil {
		return "", false
	}
	return l.head[l.order.column].word(), l.order.descending
}

// Sorted says that the server sends the elements in the order of --sort.
func (l *List) Sorted() { l.order = nil }

// NeedsCells reports whether a command has to work out the cells of the table.
func NeedsCells(cmd *cobra.Command) bool {
	given := func(flag string) bool { return cmd.Flags().Changed(flag) }
	return IsTable(cmd) || Format(cmd) == name || given(sortFlag) || given(filterFlag)
}

// Page is how many elements the next page should have; 0: as many as the server likes.
func (l *List) Page() int {
	if l.limit == 0 || l.order != nil || l.filters != nil {
		return 0
	}
	return l.limit - len(l.items)
}

// Full reports whether further elements would not be printed.
func (l *List) Full() bool { return l.limit > 0 && l.order == nil && len(l.items) >= l.limit }

// Add adds elements that the server has sent, in its order. cells may be nil if NeedsCells says so.
func (l *List) Add(items []json.RawMessage, cells [][]string) {
	for i, item := range items {
		e := listed{json: item}
		if cells != nil {
			e.cells = cells[i]
		}
		if !l.Full() && (l.filters == nil || l.filters.match(e.cells)) {
			l.items = append(l.items, e)
		}
	}
}

// Print prints the list: as a table, as names, or as an array of what the server has sent.
func (l *List) Print() error {
	if l.order != nil {
		slices.SortStableFunc(l.items, l.order.compare)
	}
	if l.limit > 0 && len(l.items) > l.limit {
		l.items = l.items[:l.limit]
	}
	if IsTable(l.cmd) {
		var rows [][]string
		for _, e := range l.items {
			rows = append(rows, e.cells)
		}
		return TableOf(l.cmd, l.head).Print(rows)
	}
	if Format(l.cmd) == name {
		return l.printNames()
	}
	items := []json.RawMessage{}
	for _, e := range l.items {
		items = append(items, e.json)
	}
	return PrintData(l.cmd, items)
}

// printNames prints a name in each line, as it is, because other programs read it. A name with a line break would be two
// names, and the second could be that of something else.
func (l *List) printNames() error {
	var b strings.Builder
	for _, e := range l.items {
		text := e.cells[l.head.name()]
		if strings.ContainsAny(text, "\r\n") {
			return fmt.Errorf("the name %q has a line break, which -o name cannot print; use -o json", text)
		}
		if terminalWidth(l.cmd.OutOrStdout()) > 0 {
			text = invisible.Escape(text)
		}
		b.WriteString(text + "\n")
	}
	_, err := io.WriteString(l.cmd.OutOrStdout(), b.String())
	return err
}

// compare compares numbers by their value and texts in any case. What is empty comes last.
func (o *order) compare(a, b listed) int {
	x, y := a.cells[o.column], b.cells[o.column]
	result := compareCells(x, y)
	if o.descending && x != "" && y != "" {
		return -result
	}
	return result
}

func compareCells(x, y string) int {
	if x == "" || y == "" {
		return cmp.Compare(len(y), len(x))
	}
	m, errX := strconv.Atoi(x)
	n, errY := strconv.Atoi(y)
	if errX == nil && errY == nil {
		return cmp.Compare(m, n)
	}
	return cmp.Or(strings.Compare(strings.ToLower(x), strings.ToLower(y)), strings.Compare(x, y))
}
