package etag_test

import (
	"slices"
	"strings"
	"testing"

	"rolecall/internal/etag"
)

// FuzzParse: a strong tag is itself, and a weak one or one without quotes is none that a resource has.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"*", `"*"`, `"1"`, `W/"1"`, `"1", "2"`, `"`, `""`, ``, ` , `, `"a`, `1`, "\"\x00\"", `"a\"b"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, field string) {
		read := func(fields ...string) []string {
			return etag.Parse(fields)
		}
		tags := read(field)
		if len(tags) != strings.Count(field, ",")+1 || !slices.Equal(read(field, field), slices.Concat(tags, tags)) {
			t.Errorf("%q has the tags %q", field, tags)
		}
		if slices.Contains(tags, "*") != slices.ContainsFunc(strings.Split(field, ","),
			func(s string) bool { return strings.TrimSpace(s) == "*" }) {
			t.Errorf("%q has the tags %q", field, tags)
		}
		if strings.Contains(field, ",") {
			return
		}
		if got, want := read(`"`+field+`"`), []string{field}; field != "*" && !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if got := read(`W/"` + field + `"`); !slices.Equal(got, []string{"\x00"}) {
			t.Errorf("a weak tag is taken: %q", got)
		}
	})
}

func TestAllows(t *testing.T) {
	for _, test := range []struct {
		fields []string
		tag    string
		allows bool
	}{
		{nil, "1", true},
		{[]string{`"1"`}, "1", true},
		{[]string{`"1"`}, "2", false},
		{[]string{`"1", "2"`}, "2", true},
		{[]string{`"1"`, `"2"`}, "2", true},
		{[]string{`*`}, "2", true},
		{[]string{`"1" ,*`}, "2", true},
		{[]string{`"*"`}, "2", false},
		{[]string{`"*"`}, "*", false},
		{[]string{`1`}, "1", false},
		{[]string{`W/"1"`}, "1", false},
		{[]string{``}, "", false},
		{[]string{`""`}, "", true},
	} {
		if got := etag.Parse(test.fields).Allows(test.tag); got != test.allows {
			t.Errorf("If-Match %q allows %q: %t", test.fields, test.tag, got)
		}
	}
}
