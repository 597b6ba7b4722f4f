package label

import (
	"regexp"
	"slices"
	"strings"

	"rolecall/internal/fault"
)

// A Selector matches if all of its requirements do.
type Selector []Requirement

// A Requirement is a condition on one key.
type Requirement struct {
	Key string
	Op  Op
	// Values are those of In and NotIn, in the order in which they were written. There may be none, and the empty value
	// may be among them: see Parse.
	Values []string
}

// An Op is the operator of a requirement. Equality is In with one value.
type Op int

// The operators. The negative ones match if the label is absent: a translation to SQL has to consider NULL.
const (
	Exists    Op = iota // k
	NotExists           // !k
	In                  // k in (a,b), k=a, k==a
	NotIn               // k notin (a,b), k!=a
)

const maxRequirements = 50

// The messages of the reference, which its clients know. Those for keys and values come from CheckKey and CheckValue.
const (
	missing = "Missing label_selector value"
	tooMany = "Too many label_selector requirements (maximum is 50)"
	unclear = "Invalid label_selector value"
)

// Parse reads a selector: 1 to 50 requirements, joined by commas.
//
// As in the reference, a missing value is not the empty value: `k=` and `k in ()` have no values and match nothing,
// `k!=` and `k notin ()` exclude nothing; and empty values at the end of a list are dropped, whereas `k in (,a)` does
// mean empty or a. Two things differ on purpose. White space around anything is ignored, which the reference refuses
// (cloud_controller_ng#1444). And an empty requirement is a mistake, which the reference passes over in `a,` but not
// in `a, `.
//
// The error is an Invalid fault with the reference's messages for all requirements that are wrong, joined by ", ".
func Parse(s string) (Selector, error) {
	selector, mistakes := parse(s, false)
	if len(mistakes) > 0 {
		messages := make([]string, len(mistakes))
		for i, m := range mistakes {
			messages[i] = m.message
		}
		return nil, invalid("%s", strings.Join(messages, ", "))
	}
	return selector, nil
}

// String returns the canonical form of the selector. Parse returns the same selector for it.
func (s Selector) String() string {
	parts := make([]string, len(s))
	for i, r := range s {
		parts[i] = r.String()
	}
	return strings.Join(parts, ",")
}

// Matches reports whether the labels meet every requirement. A selector without any was never parsed; it matches nothing,
// because rights depend on it.
func (s Selector) Matches(labels map[string]string) bool {
	for _, r := range s {
		if !r.matches(labels) {
			return false
		}
	}
	return len(s) > 0
}

func (r Requirement) matches(labels map[string]string) bool {
	value, exists := labels[r.Key]
	switch r.Op {
	case Exists:
		return exists
	case NotExists:
		return !exists
	case In:
		return exists && slices.Contains(r.Values, value)
	case NotIn:
		return !exists || !slices.Contains(r.Values, value)
	}
	return false
}

// String returns the canonical form of the requirement.
func (r Requirement) String() string {
	equal, in := "=", " in "
	switch r.Op {
	case Exists:
		return r.Key
	case NotExists:
		return "!" + r.Key
	case NotIn:
		equal, in = "!=", " notin "
	}
	if len(r.Values) == 1 {
		return r.Key + equal + r.Values[0]
	}
	return r.Key + in + "(" + strings.Join(r.Values, ",") + ")"
}

const space = " \t\r\n"

// The forms of the reference (metadata_helpers.rb), tried in its order, with white space allowed. A set's key may
// be anything at first, so that its message says what is wrong with it; the other forms require a key's characters. Unlike
// in the reference, one value follows `=`, never a list.
var (
	setForm       = regexp.MustCompile(`(?s)^(.*?)[` + space + `]+(in|notin)[` + space + `]*\((.*)\)$`)
	equalityForm  = regexp.MustCompile(`(?s)^([\w./-]+)[` + space + `]*(==?|!=)([^,]*)$`)
	existenceForm = regexp.MustCompile(`^(!?)[` + space + `]*([\w./-]+)$`)
)

// A mistake is in one requirement: where it begins, and the text that shows it.
type mistake struct {
	span
	message string
}

// parse returns the requirements, and the first mistake in each that has one. In a rule an empty value is a mistake.
func parse(s string, rule bool) (Selector, []mistake) {
	if strings.Trim(s, space+",") == "" {
		return nil, []mistake{{message: missing}}
	}
	parts := span{0, s}.split()
	if len(parts) > maxRequirements {
		return nil, []mistake{{parts[maxRequirements], tooMany}}
	}
	var selector Selector
	var mistakes []mistake
	for _, part := range parts {
		r, m := parseRequirement(part, rule)
		if m != nil {
			mistakes = append(mistakes, *m)
		}
		selector = append(selector, r)
	}
	return selector, mistakes
}

func parseRequirement(s span, rule bool) (Requirement, *mistake) {
	var r Requirement
	var key span
	var values []span
	if m := setForm.FindStringSubmatchIndex(s.text); m != nil {
		r.Op = In
		if s.part(m, 2).text == "notin" {
			r.Op = NotIn
		}
		key, values = s.part(m, 1), s.part(m, 3).split()
	} else if m := equalityForm.FindStringSubmatchIndex(s.text); m != nil {
		r.Op = In
		if s.part(m, 2).text == "!=" {
			r.Op = NotIn
		}
		key, values = s.part(m, 1), []span{s.part(m, 3)}
	} else if m := existenceForm.FindStringSubmatchIndex(s.text); m != nil {
		r.Op = Exists
		if s.part(m, 1).text == "!" {
			r.Op = NotExists
		}
		key = s.part(m, 2)
	} else {
		return r, &mistake{s, unclear}
	}

	r.Key = key.text
	if err := CheckKey(key.text); err != nil {
		return r, &mistake{key, fault.Of(err).Message}
	}
	for !rule && len(values) > 0 && values[len(values)-1].text == "" {
		values = values[:len(values)-1]
	}
	for _, v := range values {
		if rule && v.text == "" {
			return r, &mistake{span{v.at, s.text}, noValue}
		}
		if err := CheckValue(v.text); err != nil {
			return r, &mistake{v, fault.Of(err).Message}
		}
		r.Values = append(r.Values, v.text)
	}
	return r, nil
}

// A span is a part of the selector and its position in it, in bytes.
type span struct {
	at   int
	text string
}

// part returns the nth group of a match within s, without the white space around it.
func (s span) part(match []int, n int) span { return s.cut(match[2*n], match[2*n+1]) }

// split cuts s at the commas that are not in parentheses, and white space off the pieces.
func (s span) split() []span {
	var parts []span
	from, inside := 0, false
	for i := range len(s.text) {
		switch s.text[i] {
		case '(':
			inside = true
		case ')':
			inside = false
		case ',':
			if !inside {
				parts = append(parts, s.cut(from, i))
				from = i + 1
			}
		}
	}
	return append(parts, s.cut(from, len(s.text)))
}

func (s span) cut(from, to int) span {
	text := strings.TrimLeft(s.text[from:to], space)
	return span{s.at + to - len(text), strings.TrimRight(text, space)}
}
