package label

import (
	"slices"
	"unicode/utf8"

	"rolecall/internal/fault"
)

// noValue is a mistake in a rule only.
const noValue = "a value is missing"

// ParseRule reads a selector that decides who has a right. It is stricter than Parse: at least one requirement must be
// positive (k, k=v, k in (…)), and no value may be missing. `team=` matches nobody and `team!=` excludes nobody, which its
// author never meant. The Invalid fault names the first mistake and its character, counted from 1.
func ParseRule(s string) (Selector, error) {
	selector, mistakes := parse(s, true)
	if len(mistakes) > 0 {
		return nil, mistakes[0].inRule(s)
	}
	if !slices.ContainsFunc(selector, Requirement.isPositive) {
		return nil, invalid("negatives alone would match every account without labels: " +
			"add a requirement like key, key=value or key in (a,b)")
	}
	return selector, nil
}

// ParseFilter reads the same selectors as Parse. The Invalid fault names the first mistake and its character, as that of
// ParseRule.
func ParseFilter(s string) (Selector, error) {
	selector, mistakes := parse(s, false)
	if len(mistakes) > 0 {
		return nil, mistakes[0].inRule(s)
	}
	return selector, nil
}

func (r Requirement) isPositive() bool { return r.Op == Exists || r.Op == In }

// inRule words the mistake for the author of a rule, who does not know the label_selector parameter.
func (m mistake) inRule(rule string) *fault.Error {
	at := utf8.RuneCountInString(rule[:m.at]) + 1
	message := m.message
	switch {
	case message == missing:
		return invalid("the selector is empty")
	case message == tooMany:
		message = "a selector has at most 50 requirements"
	case message == unclear && m.text == "":
		return invalid("at character %d: a requirement is missing", at)
	case message == unclear:
		message = "not a requirement: write key, !key, key=value, key!=value, key in (a,b) or key notin (a,b)"
	}
	return invalid("at character %d, near %q: %s", at, firstRunes(m.text, 40), message)
}
