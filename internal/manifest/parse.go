package manifest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"rolecall/internal/moment"
)

const (
	// MaxSize is how many bytes a file may have.
	MaxSize = 5 << 20
	// mostErrors is how many errors are listed.
	mostErrors = 20
)

// Mistake is an error in a file, where it is.
type Mistake struct {
	Line, Column int
	Text         string
}

// Errors are the mistakes of a file.
type Errors struct {
	File     string
	Mistakes []Mistake
}

// Error implements error: one line for each mistake, as editors read it, for up to twenty of them.
func (e *Errors) Error() string {
	lines := make([]string, 0, mostErrors+1)
	for i, m := range e.Mistakes {
		if i == mostErrors {
			lines = append(lines, fmt.Sprintf("%s: and %d more", e.File, len(e.Mistakes)-i))
			break
		}
		lines = append(lines, fmt.Sprintf("%s:%d:%d: %s", e.File, m.Line, m.Column, m.Text))
	}
	return strings.Join(lines, "\n")
}

// Parse reads a file. name is for its errors, which are *Errors. A mode that is not "" takes the place of the file's.
func Parse(name string, data []byte, mode string) (*Manifest, error) {
	p := &parser{mode: mode}
	root := p.document(data)
	if root != nil {
		if value := p.value(root, &file, ""); len(p.mistakes) == 0 {
			return p.manifest(name, value)
		}
	}
	return nil, p.failed(name)
}

// parser collects the mistakes of a file.
type parser struct {
	mode     string // instead of that of the file; "": none
	mistakes []Mistake
}

func (p *parser) at(line, column int, format string, args ...any) {
	p.mistakes = append(p.mistakes, Mistake{line, column, fmt.Sprintf(format, args...)})
}

func (p *parser) wrong(n *yaml.Node, format string, args ...any) {
	p.at(n.Line, n.Column, format, args...)
}

func (p *parser) failed(name string) error {
	slices.SortStableFunc(p.mistakes, func(a, b Mistake) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return &Errors{name, p.mistakes}
}

// document reads YAML that has exactly one document, and returns its root.
func (p *parser) document(data []byte) *yaml.Node {
	if len(data) > MaxSize {
		p.at(1, 1, "the file has more than %d bytes; divide it, by clusters for instance", MaxSize)
		return nil
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if !p.characters(data) {
		return nil
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	var root, next yaml.Node
	err := d.Decode(&root)
	if err == nil {
		err = d.Decode(&next)
		if err == nil {
			p.at(next.Line, max(next.Column, 1), "the file has several documents; keep the first one, and remove the line ---")
			return nil
		}
		if err == io.EOF {
			return root.Content[0]
		}
	}
	if err == io.EOF {
		p.at(1, 1, "the file is empty; begin with the line version: %d", Version)
		return nil
	}
	p.syntax(data, err)
	return nil
}

// characters refuses what is not UTF-8, and characters that YAML does not allow. The library does not say where they are.
func (p *parser) characters(data []byte) bool {
	line, column := 1, 1
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			p.at(line, column, "the byte 0x%02x is not UTF-8; store the file in UTF-8", data[i])
			return false
		case r == '\n':
			line, column = line+1, 0
		case r < ' ' && r != '\t' && r != '\r' || r == 0x7f || r >= 0x80 && r < 0xa0 && r != 0x85 || r == 0xfffe || r == 0xffff:
			p.at(line, column, "the character U+%04X is not allowed in YAML; in a name, write it as an escape in double quotes", r)
			return false
		}
		column++
		i += size
	}
	return true
}

var syntaxLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

// syntax reports an error of the library. It names what stands in the file only in quotes, which might be a password.
func (p *parser) syntax(data []byte, err error) {
	line, text := 1, err.Error()
	if m := syntaxLine.FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(cmp.Or(m[1], "1"))
		text = m[2]
	}
	lines := strings.Split(string(data), "\n")
	switch {
	case strings.Contains(text, "anchor"):
		for i, l := range lines {
			if column := strings.Index(l, "*"); column >= 0 {
				p.at(i+1, column+1, "aliases are not supported; write the value, or put a value that begins with * in quotes")
				return
			}
		}
	case strings.Contains(text, "cannot start any token"), strings.Contains(text, "tab character"):
		for i := max(line-2, 0); i < min(line+1, len(lines)); i++ {
			if indent := lines[i][:len(lines[i])-len(strings.TrimLeft(lines[i], " \t"))]; strings.Contains(indent, "\t") {
				p.at(i+1, strings.Index(indent, "\t")+1, "a tab indents the line; indent with spaces")
				return
			}
		}
	}
	if before, _, found := strings.Cut(text, "'"); found {
		text = strings.TrimSpace(before) + " …"
	}
	p.at(line, 1, "this is not YAML: %s; check the indentation, and put names with special characters in quotes", text)
}

// place names a value in messages.
func place(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// value checks a value, and returns it as encoding/json would have it: nil if it has mistakes.
func (p *parser) value(n *yaml.Node, s *shape, path string) any {
	if !p.plain(n, path) {
		return nil
	}
	switch s.kind {
	case object:
		return p.object(n, s, path)
	case list:
		return p.list(n, s, path)
	case dictionary:
		return p.dictionary(n, s, path)
	case secret:
		return p.secret(n, s, path)
	}
	if n.Kind != yaml.ScalarNode {
		p.wrong(n, "%s is %s; write %s", path, kindOf(n), s.wanted())
		return nil
	}
	switch s.kind {
	case text:
		return p.text(n, s, path)
	case choice:
		if !slices.Contains(s.words, n.Value) || n.Tag != "!!str" {
			p.wrong(n, "%s is %s; write %s", path, quoted(n), s.wanted())
		}
	case flag:
		if n.Tag != "!!bool" {
			p.wrong(n, "%s is %s; write true or false", path, quoted(n))
			return nil
		}
		return strings.EqualFold(n.Value, "true")
	case number:
		return p.number(n, s, path)
	case duration:
		d, err := moment.Duration(n.Value)
		if n.Tag != "!!str" || !durationForm.MatchString(n.Value) || err != nil {
			p.wrong(n, "%s is %s; write %s", path, quoted(n), moment.DurationForm)
			return nil
		}
		return moment.DurationText(d)
	case instant:
		return p.instant(n, s, path)
	}
	return n.Value
}

var durationForm, timeForm = regexp.MustCompile(durationPattern), regexp.MustCompile(timePattern)

// plain refuses what the file never needs: aliases, which can make a small file huge, and tags of its own.
func (p *parser) plain(n *yaml.Node, path string) bool {
	where := cmp.Or(path, "the file")
	switch {
	case n.Kind == yaml.AliasNode:
		p.wrong(n, "%s is an alias; write the value itself, or put a value that begins with * in quotes", where)
	case n.Anchor != "":
		p.wrong(n, "%s has an anchor; remove it, or put a value that begins with & in quotes", where)
	case n.Style&yaml.TaggedStyle != 0 && n.Tag != "!!str":
		p.wrong(n, "%s has a tag; remove it, or put a value that begins with ! in quotes", where)
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null" && path == "":
		p.wrong(n, "the file is empty; begin with the line version: %d", Version)
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		p.wrong(n, "%s has no value; write one, or remove the key", where)
	default:
		return true
	}
	return false
}

func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	return "a single value"
}

// quoted is a value for messages.
func quoted(n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode {
		return kindOf(n)
	}
	const most = 80
	if utf8.RuneCountInString(n.Value) > most {
		return strconv.Quote(string([]rune(n.Value)[:most]) + "…")
	}
	return strconv.Quote(n.Value)
}

// wanted says what a value should be.
func (s *shape) wanted() string {
	either := strings.Join(s.words, ", ")
	switch s.kind {
	case object, dictionary:
		return "keys with values"
	case list:
		return "a list"
	case choice:
		return "one of " + either
	case flag:
		return "true or false"
	case number:
		if either != "" {
			either = ", or " + either
		}
		if s.least == s.most {
			return fmt.Sprint(s.least, either)
		}
		return fmt.Sprintf("a number from %d to %d%s", s.least, s.most, either)
	case duration:
		return moment.DurationForm
	case instant:
		return moment.TimeForm + ", or " + either
	}
	return cmp.Or(s.form, "a text")
}

func (p *parser) object(n *yaml.Node, s *shape, path string) any {
	if n.Kind != yaml.MappingNode {
		p.wrong(n, "%s is %s; write its keys: %s", cmp.Or(path, "the file"), kindOf(n), s.names())
		return nil
	}
	of := map[string]any{"@line": n.Line, "@column": n.Column}
	seen := map[string]int{}
	for i := 0; i < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		at := slices.IndexFunc(s.keys, func(k key) bool { return name.Kind == yaml.ScalarNode && k.name == name.Value })
		switch {
		case name.Tag == "!!merge":
			p.wrong(name, "merge keys are not supported; write the keys themselves")
		case at < 0 || name.Tag != "!!str":
			p.wrong(name, "there is no key %s here; the keys are %s", quoted(name), s.names())
		case p.first(name, seen):
			if name.Anchor != "" {
				p.wrong(name, "%s has an anchor; remove it", name.Value)
			}
			of[name.Value] = p.value(value, s.keys[at].shape, place(path, name.Value))
		}
	}
	for _, k := range s.keys {
		if _, has := seen[k.name]; k.required && !has {
			p.wrong(n, "%s is missing", place(path, k.name))
		}
	}
	return of
}

func (s *shape) names() string {
	var names []string
	for _, k := range s.keys {
		names = append(names, k.name)
	}
	return strings.Join(names, ", ")
}

// first refuses a key that the mapping has already.
func (p *parser) first(name *yaml.Node, seen map[string]int) bool {
	if line, has := seen[name.Value]; has {
		p.wrong(name, "the key %s is in line %d already; remove one of the two", quoted(name), line)
		return false
	}
	seen[name.Value] = name.Line
	return true
}

func (p *parser) list(n *yaml.Node, s *shape, path string) any {
	if n.Kind != yaml.SequenceNode {
		p.wrong(n, "%s is %s; write a list, such as [a, b]", path, kindOf(n))
		return nil
	}
	if len(n.Content) < s.least || s.most > 0 && len(n.Content) > s.most {
		p.wrong(n, "%s has %d elements; it has at least %d%s", path, len(n.Content), s.least, atMost(s.most))
	}
	values := []any{}
	for i, element := range n.Content {
		values = append(values, p.value(element, s.of, fmt.Sprintf("%s[%d]", path, i)))
		if s.of.kind == text || s.of.kind == choice {
			if slices.ContainsFunc(n.Content[:i], func(e *yaml.Node) bool {
				return e.Kind == yaml.ScalarNode && e.Value == element.Value
			}) {
				p.wrong(element, "%s has %s twice; remove one", path, quoted(element))
			}
		}
	}
	return values
}

func atMost(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" and at most %d", n)
}

func (p *parser) dictionary(n *yaml.Node, s *shape, path string) any {
	if n.Kind != yaml.MappingNode {
		p.wrong(n, "%s is %s; write its keys and values, such as {a: b}", path, kindOf(n))
		return nil
	}
	if len(n.Content)/2 > s.most {
		p.wrong(n, "%s has %d keys; it has at most %d", path, len(n.Content)/2, s.most)
	}
	of := map[string]any{}
	seen := map[string]int{}
	for i := 0; i < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		if name.Tag == "!!merge" {
			p.wrong(name, "merge keys are not supported; write the keys themselves")
			continue
		}
		if !p.plain(name, path) || name.Kind != yaml.ScalarNode {
			continue
		}
		if p.text(name, &shape{kind: text, least: 1}, "the key in "+path) != nil && p.first(name, seen) {
			of[name.Value] = p.value(value, s.of, place(path, name.Value))
		}
	}
	return of
}

// oldBooleans are texts in YAML 1.2 and booleans in YAML 1.1, so tools would read different names.
var oldBooleans = []string{"y", "n", "yes", "no", "on", "off"}

func (p *parser) text(n *yaml.Node, s *shape, path string) any {
	unquoted := n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle|yaml.TaggedStyle) == 0
	others := map[string]string{"!!int": "a number", "!!float": "a number", "!!bool": "a boolean", "!!timestamp": "a date",
		"!!merge": "a merge key"}
	what := others[n.Tag]
	if slices.Contains(oldBooleans, strings.ToLower(n.Value)) {
		what = "a boolean for some programs"
	}
	switch {
	case unquoted && what != "":
		p.wrong(n, "%s is %s, which is %s in YAML; put it in quotes: %s", path, n.Value, what, strconv.Quote(n.Value))
	case utf8.RuneCountInString(n.Value) < s.least:
		p.wrong(n, "%s is empty; write %s, or remove the key", path, s.wanted())
	case s.most > 0 && len(n.Value) > s.most:
		p.wrong(n, "%s is %s, of %d bytes; it has at most %d", path, quoted(n), len(n.Value), s.most)
	case strings.Contains(n.Value, "\x00"):
		p.wrong(n, "%s contains the character U+0000; remove it", path)
	case s.pattern != "" && !regexp.MustCompile(s.pattern).MatchString(n.Value):
		if s.private {
			p.wrong(n, "%s is not %s", path, s.form)
			break
		}
		p.wrong(n, "%s is %s; write %s", path, quoted(n), s.form)
	default:
		return n.Value
	}
	return nil
}

func (p *parser) number(n *yaml.Node, s *shape, path string) any {
	if slices.Contains(s.words, n.Value) && n.Tag == "!!str" {
		return -1 // none
	}
	i, err := strconv.Atoi(n.Value)
	if n.Tag != "!!int" || err != nil || i < s.least || i > s.most {
		p.wrong(n, "%s is %s; write %s", path, quoted(n), s.wanted())
		return nil
	}
	return i
}

func (p *parser) instant(n *yaml.Node, s *shape, path string) any {
	if slices.Contains(s.words, n.Value) {
		return n.Value
	}
	t, err := moment.Time(n.Value)
	if err != nil || !timeForm.MatchString(n.Value) || t.UTC().Year() < 1 || t.UTC().Year() > 9999 {
		p.wrong(n, "%s is %s; write %s", path, quoted(n), s.wanted())
		return nil
	}
	return t.UTC().Truncate(time.Microsecond).Format(time.RFC3339Nano) // PostgreSQL's precision
}

// secret reads where a secret comes from. It never prints what stands there: that may be the secret.
func (p *parser) secret(n *yaml.Node, s *shape, path string) any {
	sources := strings.Join(append(slices.Clone(s.words), "{env: NAME}", "{file: PATH}"), ", ")
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" && slices.Contains(s.words, n.Value) {
		return Secret{Word: n.Value}
	}
	if n.Kind != yaml.MappingNode || len(n.Content) != 2 {
		p.wrong(n, "%s must not be in the file; write where it comes from: %s", path, sources)
		return nil
	}
	name, value := n.Content[0], n.Content[1]
	if name.Value != "env" && name.Value != "file" {
		p.wrong(name, "%s must not be in the file; write where it comes from: %s", path, sources)
		return nil
	}
	if !p.plain(value, place(path, name.Value)) {
		return nil
	}
	if value.Kind != yaml.ScalarNode || value.Tag != "!!str" || value.Value == "" {
		p.wrong(value, "%s is not the name of a variable or file; write one of %s", place(path, name.Value), sources)
		return nil
	}
	if name.Value == "env" {
		return Secret{Env: value.Value}
	}
	return Secret{File: value.Value}
}

// manifest makes the file of a value without mistakes of its shape, and checks the rest.
func (p *parser) manifest(name string, value any) (*Manifest, error) {
	data, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	m := &Manifest{Mode: Additive}
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(m); err != nil {
		return nil, errors.Join(errors.New("the shape of the file and its types differ"), err)
	}
	if p.check(m); len(p.mistakes) > 0 {
		return nil, p.failed(name)
	}
	if m.Mode = cmp.Or(p.mode, m.Mode); m.Mode != Authoritative {
		m.Retired = nil
	}
	return m, nil
}
