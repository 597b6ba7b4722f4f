package label_test

import (
	"strings"
	"testing"

	"rolecall/internal/label"
)

func TestParseRule(t *testing.T) {
	for _, test := range []struct{ s, want string }{
		{"team", "team"},
		{"team=payments", "team=payments"},
		{"team=payments, role in (dba, sre)", "team=payments,role in (dba,sre)"},
		{"!contractor, team", "!contractor,team"},
		{"role notin (intern,guest),env!=prod,team=a", "role notin (intern,guest),env!=prod,team=a"},
	} {
		s, err := label.ParseRule(test.s)
		if err != nil {
			t.Errorf("ParseRule(%q): %v", test.s, err)
		}
		if s.String() != test.want {
			t.Errorf("ParseRule(%q) = %q, want %q", test.s, s, test.want)
		}
	}
}

func TestParseRuleMistakes(t *testing.T) {
	const (
		negative = "negatives alone would match every account without labels: add a requirement like key, key=value or key in " +
			"(a,b)"
		unclear = "not a requirement: write key, !key, key=value, key!=value, key in (a,b) or key notin (a,b)"
	)
	for _, test := range []struct{ s, want string }{
		{"!contractor", negative},
		{"team!=payments", negative},
		{"team notin (a,b)", negative},
		{"!a, b!=c, d notin (e)", negative},

		{"", "the selector is empty"},
		{" ,", "the selector is empty"},
		{strings.Repeat("k,", 50) + " k", `at character 102, near "k": a selector has at most 50 requirements`},

		{"team=a,", "at character 8: a requirement is missing"},
		{"team,, role", "at character 6: a requirement is missing"},
		{"team payments", `at character 1, near "team payments": ` + unclear},
		{"team=a,\n role ~ dba", `at character 10, near "role ~ dba": ` + unclear},
		{"team in (a,b", `at character 1, near "team in (a,b": ` + unclear},
		{strings.Repeat("é", 50), `at character 1, near "` + strings.Repeat("é", 40) + `": ` + unclear},

		{"ok, -team=a", `at character 5, near "-team": '-team' starts or ends with invalid characters`},
		{"cloudfoundry.org/team", `at character 1, near "cloudfoundry.org/team": prefix 'cloudfoundry.org' is reserved`},
		{"team = a b", `at character 8, near "a b": 'a b' contains invalid characters`},
		{"team in (a, b c)", `at character 13, near "b c": 'b c' contains invalid characters`},

		{"team in (é,), -b", `at character 10, near "é": 'é' contains invalid characters`},

		// Characters, not bytes.
		{strings.Repeat("é,", 50) + " k", `at character 102, near "k": a selector has at most 50 requirements`},

		{"team=", `at character 6, near "team=": a value is missing`},
		{"team!= , role", `at character 7, near "team!=": a value is missing`},
		{"a, team in ()", `at character 13, near "team in ()": a value is missing`},
		{"team in (,a)", `at character 10, near "team in (,a)": a value is missing`},
		{"team in (a,,b)", `at character 12, near "team in (a,,b)": a value is missing`},
		{"team notin (a, )", `at character 15, near "team notin (a, )": a value is missing`},
	} {
		t.Run(test.s, func(t *testing.T) {
			s, err := label.ParseRule(test.s)
			if s != nil {
				t.Errorf("got %v with the error", s)
			}
			checkInvalid(t, err, test.want)
		})
	}
}

// A filter may be negative or match nothing, which a rule may not. Its mistakes have the words of a rule's.
func TestParseFilter(t *testing.T) {
	for s, want := range map[string]string{
		"team=payments,role in (dba,sre)": "team=payments,role in (dba,sre)", "!team": "!team", "team=": "team in ()",
	} {
		if got, err := label.ParseFilter(s); err != nil || got.String() != want {
			t.Errorf("ParseFilter(%q) = %q, %v, want %q", s, got, err, want)
		}
	}
	for s, want := range map[string]string{
		"":               "the selector is empty",
		"team in shop":   `at character 1, near "team in shop": not a requirement: write key, !key, key=value, `,
		"a, team ~ shop": `at character 4, near "team ~ shop": `,
		"team=a,":        "at character 8: a requirement is missing",
		"team=é":         `at character 6, near "é": 'é' contains invalid characters`,
	} {
		if got, err := label.ParseFilter(s); err == nil || !strings.HasPrefix(err.Error(), want) || got != nil {
			t.Errorf("ParseFilter(%q) = %q, %v, want %q", s, got, err, want)
		}
	}
}
