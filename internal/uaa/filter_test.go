package uaa

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"rolecall/internal/account"
	"rolecall/internal/fault"
)

func TestParseFilter(t *testing.T) {
	eq := func(field, value string) account.Filter { return account.Filter{Field: field, Value: value} }
	all := func(f ...account.Filter) account.Filter { return account.Filter{All: f} }
	either := func(f ...account.Filter) account.Filter { return account.Filter{Any: f} }
	u, o, i := eq("username", "bob"), eq("origin", "uaa"), eq("guid", "1")
	for filter, want := range map[string]account.Filter{
		"":                                      {},
		"  ":                                    {},
		`userName eq "bob"`:                     u,
		`username Eq "bob"`:                     u,
		`USERNAME eq "bob"`:                     u,
		`id eq "1"`:                             i,
		`userName eq"bob"`:                      u,
		` ( userName eq "bob" ) `:               u,
		`userName eq "bob" and origin eq "uaa"`: all(u, o),
		`userName eq "bob" AND origin eq "uaa"`: all(u, o),
		`userName eq "bob" or origin eq "uaa"`:  either(u, o),
		`id eq "1" or userName eq "bob" and origin eq "uaa"`:            either(i, all(u, o)),
		`(id eq "1" or userName eq "bob") and origin eq "uaa"`:          all(either(i, u), o),
		`(id eq "1")or(userName eq "bob")`:                              either(i, u),
		`userName eq "b\"o) and (b\\"`:                                  eq("username", `b"o) and (b\`),
		`userName eq "é😀"`:                                              eq("username", "é😀"),
		`userName eq ""`:                                                eq("username", ""),
		strings.Repeat("(", 50) + `id eq "1"` + strings.Repeat(")", 50): i,
	} {
		got, err := parseFilter(filter, users.fields)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v, want %+v", filter, got, err, want)
		}
	}
	for _, filter := range []string{
		`userName`, `userName eq`, `userName eq bob`, `userName eq 'bob'`, `userName co "b"`, `userName eq "bob`, `eq "bob"`,
		`"bob"`,
		`userName eq "a" and`, `userName eq "a" origin eq "b"`, `userName eq "a" xor origin eq "b"`, `(userName eq "a"`,
		`userName eq "a")`,
		`()`, `not (userName eq "a")`, `email eq "a"`, `userName pr`, `userName eq "a" andorigin eq "b"`, `userNameeq "a"`,
		`userName eq "\x41"`,
		`userName eq "a\u0000b"`, `userName eq "a` + "\n" + `"`, "userName eq \"\xff\"",
		`userName eq "` + strings.Repeat("a", 5000) + `"`,
		strings.Repeat("(", 60) + `id eq "1"` + strings.Repeat(")", 60), `; DROP TABLE accounts`, `userName eq "a" and ()`,
		`userName eq "a\`,
	} {
		if got, err := parseFilter(filter, users.fields); !fault.Is(err, fault.Malformed) {
			t.Errorf("%s: got %+v, %v", filter, got, err)
		}
	}
}

func FuzzParseFilter(f *testing.F) {
	for _, seed := range []string{`userName eq "bob" and (origin eq "uaa" or id eq "\u00e9")`, `(((`, `userName eq "\`,
		`id EQ "1"OR(id eq "2")`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, filter string) {
		got, err := parseFilter(filter, users.fields)
		if err != nil {
			if !fault.Is(err, fault.Malformed) {
				t.Errorf("%q: %v", filter, err)
			}
			return
		}
		selects(got, map[string]string{"username": "bob"})
		if text := written(t, got); text != "" {
			if again, err := parseFilter(text, users.fields); err != nil || !reflect.DeepEqual(again, got) {
				t.Errorf("%q is %+v, written %q, which is %+v: %v", filter, got, text, again, err)
			}
		}
	})
}

// written writes a filter down. Parentheses stand around everything that is not one comparison.
func written(t *testing.T, f account.Filter) string {
	join := func(parts []account.Filter, word string) string {
		all := make([]string, len(parts))
		for i, part := range parts {
			all[i] = written(t, part)
		}
		return "(" + strings.Join(all, " "+word+" ") + ")"
	}
	switch {
	case f.Any != nil:
		return join(f.Any, "or")
	case f.All != nil:
		return join(f.All, "and")
	case f.Field == "":
		return ""
	}
	value, err := json.Marshal(f.Value)
	if err != nil {
		t.Fatal(err)
	}
	for attribute, selects := range users.fields {
		if selects == f.Field {
			return attribute + " eq " + string(value)
		}
	}
	t.Fatalf("nothing selects by %s", f.Field)
	return ""
}
