package label_test

import (
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"rolecall/internal/fault"
	"rolecall/internal/label"
)

// FuzzValue compares the rules of values and annotations with the contract said once more, and sees that a selector can
// ask for every value that is taken.
func FuzzValue(f *testing.F) {
	for _, s := range []string{"", "a", "A-b_c.9", "-", "a-", "é", "a\n", "a b", "in", strings.Repeat("a", 63),
		strings.Repeat("a", 64), strings.Repeat("é", 5000), strings.Repeat("é", 5001), "\x00", "\xff"} {
		f.Add(s)
	}
	good := regexp.MustCompile(`\A([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?\z`)
	f.Fuzz(func(t *testing.T, value string) {
		err, annotationErr := label.CheckValue(value), label.CheckAnnotation(value)
		if (err == nil) != good.MatchString(value) {
			t.Errorf("%q as a label: %v", value, err)
		}
		if (annotationErr == nil) != (utf8.ValidString(value) && !strings.Contains(value, "\x00") &&
			utf8.RuneCountInString(value) <= 5000) {
			t.Errorf("%q as an annotation: %v", value, annotationErr)
		}
		for _, err := range []error{err, annotationErr} {
			if err != nil && (!fault.Is(err, fault.Invalid) || fault.Of(err).Message == "") {
				t.Errorf("%q: %#v, want an Invalid fault with a message", value, err)
			}
		}
		if err != nil {
			return
		}
		text := "k in (" + value + ",x)"
		if s, err := label.Parse(text); err != nil || !s.Matches(map[string]string{"k": value}) {
			t.Errorf("%q selects no %q: %v", text, value, err)
		}
	})
}
