package account

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"rolecall/internal/fault"
)

func TestCheckUsername(t *testing.T) {
	for _, name := range []string{"a", "bob@example.org", "Ünïcödé 😀", "we/ird%", "a b", strings.Repeat("é", 255)} {
		if err := CheckUsername(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", " ", " a", "a ", "a\u00a0", "a:b", "a\x00", "a\n", "a\x7f", "a\u0085", "\xff",
		"admin\u200b", "\u202eadmin", "a\u2028b", "a\u2066b", "a\u00adb", "a\ufe0f",
		strings.Repeat("é", 256)} {
		if err := CheckUsername(name); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// Who may change whom, by the scopes of both.
func TestMayChange(t *testing.T) {
	for _, test := range []struct {
		who, whom []string
		want      bool
	}{
		{nil, nil, false},
		{[]string{ScopeAdmin}, nil, false},
		{[]string{ScopeSCIMRead}, nil, false},
		{[]string{ScopeSCIMWrite}, nil, true},
		{[]string{ScopeSCIMWrite}, DefaultScopes, true},
		{[]string{ScopeSCIMWrite}, []string{ScopeAdmin}, false},
		{[]string{ScopeSCIMWrite}, []string{ScopeAdminReadOnly}, false},
		{[]string{ScopeSCIMWrite}, []string{ScopeAuditor}, false},
		{[]string{ScopeSCIMWrite}, []string{ScopeSCIMRead}, false},
		{[]string{ScopeSCIMWrite}, []string{ScopeSCIMWrite}, false},
		{[]string{ScopeSCIMWrite, ScopeAuditor}, []string{ScopeAuditor}, false},
		{[]string{ScopeSCIMWrite, ScopeAdmin}, Scopes, true},
	} {
		p := &Principal{Scopes: test.who}
		if err := p.mayChange(test.whom); err == nil != test.want || err != nil && !fault.Is(err, fault.Forbidden) {
			t.Errorf("%v may change %v: %v", test.who, test.whom, err)
		}
	}
}

// Values go to PostgreSQL beside the statement, never in it.
func TestFilterSQL(t *testing.T) {
	f := Filter{All: []Filter{
		{Any: []Filter{{Field: "username", Value: "bob'; --"}, {Field: "guid", Value: "1"}}},
		{Field: "origin", Value: "uaa"},
	}}
	args := []any{true}
	if got := f.sql(&args); got != "((lower(username) = lower($2) OR guid = $3) AND origin = $4)" ||
		fmt.Sprint(args) != "[true bob'; -- 1 uaa]" {
		t.Errorf("got %s with %v", got, args)
	}
	if got := (Filter{}).sql(&args); got != "true" {
		t.Errorf("got %s", got)
	}
}

// As many scopes as no body holds are sorted before anybody gives up waiting.
func TestInOrder(t *testing.T) {
	got := inOrder([]string{"b", ScopeWrite, "a", ScopeAdmin, "b", ScopeWrite})
	if fmt.Sprint(got) != fmt.Sprint([]string{ScopeAdmin, ScopeWrite, "b", "a"}) {
		t.Errorf("got %v", got)
	}
	many := make([]string, 2_000_000)
	for n := range many {
		many[n] = fmt.Sprint(n)
	}
	if got := inOrder(many); !slices.Equal(got, many) {
		t.Errorf("got %d scopes", len(got))
	}
}
