package uaa

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"rolecall/internal/account"
	"rolecall/internal/fault"
)

// maxFilter is the longest filter in bytes.
const maxFilter = 4096

// parseFilter reads a SCIM filter of equalities, `and`, `or` and parentheses. fields maps attributes to the names of the
// filtered columns. SCIM 1.1, 3.2.2.1: `and` binds before `or`; attributes and operators are valid in any case. An empty
// filter selects all.
func parseFilter(filter string, fields map[string]string) (account.Filter, error) {
	if strings.TrimSpace(filter) == "" {
		return account.Filter{}, nil
	}
	p := &filterParser{rest: filter, fields: fields}
	f, ok := account.Filter{}, len(filter) <= maxFilter && utf8.ValidString(filter)
	if ok {
		f, ok = p.or(0)
	}
	if !ok || strings.TrimSpace(p.rest) != "" {
		return account.Filter{}, fault.New(fault.Malformed,
			`Invalid filter, at byte %d of %d: write ATTRIBUTE eq "VALUE", and, or and parentheses; the attributes are %s.`,
			len(filter)-len(p.rest), len(filter), strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
	}
	return f, nil
}

type filterParser struct {
	rest   string
	fields map[string]string
}

func (p *filterParser) or(depth int) (account.Filter, bool) {
	f, ok := p.and(depth)
	if !ok {
		return f, false
	}
	either := []account.Filter{f}
	for p.word("or") {
		next, ok := p.and(depth)
		if !ok {
			return f, false
		}
		either = append(either, next)
	}
	if len(either) == 1 {
		return f, true
	}
	return account.Filter{Any: either}, true
}

func (p *filterParser) and(depth int) (account.Filter, bool) {
	f, ok := p.term(depth)
	if !ok {
		return f, false
	}
	all := []account.Filter{f}
	for p.word("and") {
		next, ok := p.term(depth)
		if !ok {
			return f, false
		}
		all = append(all, next)
	}
	if len(all) == 1 {
		return f, true
	}
	return account.Filter{All: all}, true
}

func (p *filterParser) term(depth int) (account.Filter, bool) {
	p.space()
	if rest, ok := strings.CutPrefix(p.rest, "("); ok {
		if depth > 50 {
			return account.Filter{}, false
		}
		p.rest = rest
		f, ok := p.or(depth + 1)
		p.space()
		p.rest, ok = cutIf(p.rest, ")", ok)
		return f, ok
	}
	end := strings.IndexAny(p.rest, " \t()\"")
	if end <= 0 {
		return account.Filter{}, false
	}
	field := ""
	for attribute, selects := range p.fields {
		if strings.EqualFold(attribute, p.rest[:end]) {
			field = selects
		}
	}
	if field == "" {
		return account.Filter{}, false
	}
	p.rest = p.rest[end:]
	if !p.word("eq") {
		return account.Filter{}, false
	}
	value, ok := p.value()
	return account.Filter{Field: field, Value: value}, ok
}

func cutIf(s, prefix string, ok bool) (string, bool) {
	rest, found := strings.CutPrefix(s, prefix)
	if !ok || !found {
		return s, false
	}
	return rest, true
}

func (p *filterParser) space() { p.rest = strings.TrimLeft(p.rest, " \t") }

// word reads a word in any case that is not followed by a letter.
func (p *filterParser) word(w string) bool {
	p.space()
	if len(p.rest) <= len(w) || !strings.EqualFold(p.rest[:len(w)], w) || !strings.ContainsAny(p.rest[len(w):][:1], " \t(\"") {
		return false
	}
	p.rest = p.rest[len(w):]
	return true
}

// value reads a JSON string. No value contains NUL.
func (p *filterParser) value() (value string, ok bool) {
	p.space()
	if !strings.HasPrefix(p.rest, `"`) {
		return "", false
	}
	end := 1
	for end < len(p.rest) && p.rest[end] != '"' {
		if p.rest[end] == '\\' {
			end++
		}
		end++
	}
	if end >= len(p.rest) || json.Unmarshal([]byte(p.rest[:end+1]), &value) != nil || strings.ContainsRune(value, 0) {
		return "", false
	}
	p.rest = p.rest[end+1:]
	return value, true
}
