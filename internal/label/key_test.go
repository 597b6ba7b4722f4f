package label_test

import (
	"regexp"
	"strings"
	"testing"

	"rolecall/internal/fault"
	"rolecall/internal/label"
)

var (
	name63    = strings.Repeat("n", 63)
	prefix253 = strings.Repeat("a.", 126) + "b"
)

func TestCheckKey(t *testing.T) {
	const (
		empty    = "key cannot be empty string"
		twice    = "key has more than one '/'"
		reserved = "prefix 'cloudfoundry.org' is reserved"
	)
	notDNS := func(prefix string) string { return "prefix '" + prefix + "' must be in valid dns format" }
	badChars := func(name string) string { return "'" + name + "' contains invalid characters" }
	badEnds := func(name string) string { return "'" + name + "' starts or ends with invalid characters" }

	for _, test := range []struct{ name, key, want string }{
		{"one character", "a", ""},
		{"digit", "7", ""},
		{"all classes", "A.b_c-9", ""},
		{"keyword", "in", ""},
		{"prefix", "example.com/team", ""},
		{"prefix of one-character labels", "a.b/c", ""},
		{"prefix of digits", "1.2/c", ""},
		{"prefix in capitals", "EXAMPLE.Com/c", ""},
		{"hyphens within a prefix label", "a--b.c-d/e", ""},
		{"prefix label of 63", strings.Repeat("a", 63) + ".com/x", ""},
		{"longest", prefix253 + "/" + name63, ""},
		{"under the reserved prefix", "mta.cloudfoundry.org/x", ""},
		{"ends like the reserved prefix", "mycloudfoundry.org/x", ""},
		{"reserved prefix as a name", "cloudfoundry.org", ""},

		// In the contract's order.
		{"empty", "", empty},
		{"space", " \t\n", empty},
		{"Unicode space", "\u00a0\u3000", empty},
		{"slash", "/", empty},

		{"two slashes", "a.b/c/d", twice},
		{"only slashes", "//", twice},
		{"two slashes before a bad prefix", "a/b/c", twice},

		{"empty prefix", "/x", notDNS("")},
		{"one DNS label", "onlycom/x", notDNS("onlycom")},
		{"empty DNS label", "a..com/x", notDNS("a..com")},
		{"dot at the start", ".a.com/x", notDNS(".a.com")},
		{"dot at the end", "a.com./x", notDNS("a.com.")},
		{"hyphen at the start", "-a.com/x", notDNS("-a.com")},
		{"hyphen at the end", "a.com-/x", notDNS("a.com-")},
		{"hyphen before a dot", "a-.com/x", notDNS("a-.com")},
		{"per cent in the prefix", "a%a.com/x", notDNS("a%a.com")},
		{"underscore in the prefix", "a_b.com/x", notDNS("a_b.com")},
		{"prefix label of 64", strings.Repeat("a", 64) + ".com/x", notDNS(strings.Repeat("a", 64) + ".com")},
		{"newline after the prefix", "a.com\n/x", notDNS("a.com\n")},
		{"space before the prefix", " a.com/x", notDNS(" a.com")},
		{"letters in the prefix", "é.com/x", notDNS("é.com")},
		{"Kelvin sign folds to k", "\u212a.com/x", notDNS("\u212a.com")},
		{"long s folds to s", "\u017f.com/x", notDNS("\u017f.com")},
		{"bad prefix before an empty name", "onlycom/", notDNS("onlycom")},
		{"long and bad prefix", strings.Repeat("a.", 200) + "/x", notDNS(strings.Repeat("a.", 200))},

		{"prefix of 254", prefix253 + "b/x", "prefix 'a.a.a.a....' is greater than 253 characters"},
		{"long prefix before an empty name", prefix253 + "b/", "prefix 'a.a.a.a....' is greater than 253 characters"},

		{"reserved", "cloudfoundry.org/x", reserved},
		{"reserved in capitals", "CloudFoundry.ORG/x", reserved},
		{"reserved before an empty name", "cloudfoundry.org/", reserved},

		{"empty name", "example.com/", empty},
		{"blank name", "example.com/ ", empty},

		{"space", "a b", badChars("a b")},
		{"space before", " a", badChars(" a")},
		{"newline after", "a\n", badChars("a\n")},
		{"NUL", "a\x00", badChars("a\x00")},
		{"letters", "é", badChars("é")},
		{"invalid UTF-8", "a\xff", badChars("a\xff")},
		{"verb of fmt", "%d", badChars("%d")},
		{"the name is what is shown", "example.com/a~", badChars("a~")},
		{"bad characters before bad ends", "-é", badChars("-é")},
		{"bad characters before length", strings.Repeat("é", 64), badChars(strings.Repeat("é", 64))},

		{"hyphen first", "-a", badEnds("-a")},
		{"dot last", "a.", badEnds("a.")},
		{"underscore alone", "_", badEnds("_")},
		{"after a prefix", "example.com/a-", badEnds("a-")},
		{"bad ends before length", strings.Repeat("a", 64) + "-", badEnds(strings.Repeat("a", 64) + "-")},

		{"name of 64", name63 + "n", "'nnnnnnnn...' is greater than 63 characters"},
		{"name of 64 after a prefix", "a.b/" + name63 + "n", "'nnnnnnnn...' is greater than 63 characters"},
	} {
		t.Run(test.name, func(t *testing.T) { checkInvalid(t, label.CheckKey(test.key), test.want) })
	}
}

// checkInvalid wants an Invalid fault with exactly this message, or nil for none.
func checkInvalid(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" {
		if err != nil {
			t.Errorf("got %v, want no error", err)
		}
		return
	}
	if !fault.Is(err, fault.Invalid) {
		t.Fatalf("got %v, want an Invalid fault: %s", err, want)
	}
	if got := fault.Of(err).Message; got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// FuzzKey compares CheckKey with the rules of the contract said once more, in one expression, and sees that a selector
// can name every key that is taken.
func FuzzKey(f *testing.F) {
	for _, key := range []string{
		"", " ", "/", "a", "a.b/c", "/x", "a/b/c", "a..b/c", "CloudFoundry.org/x", "x.cloudfoundry.org/y", "a.b/", "é",
		"-", "in", prefix253 + "/" + name63, prefix253 + "b/x", name63 + "n", "a.com\n/x",
	} {
		f.Add(key)
	}
	good := regexp.MustCompile(`\A(?:` +
		`[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)+/)?` +
		`[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?\z`)
	f.Fuzz(func(t *testing.T, key string) {
		prefix, _, _ := strings.Cut(key, "/")
		want := good.MatchString(key) &&
			(!strings.Contains(key, "/") || len(prefix) <= 253 && strings.ToLower(prefix) != "cloudfoundry.org")

		err := label.CheckKey(key)
		if got := err == nil; got != want {
			t.Fatalf("%q is taken: %v (%v), want %v", key, got, err, want)
		}
		if err != nil {
			if !fault.Is(err, fault.Invalid) || fault.Of(err).Message == "" {
				t.Fatalf("%q: %#v, want an Invalid fault with a message", key, err)
			}
			return
		}
		s, err := label.Parse("!" + key)
		if err != nil || len(s) != 1 || s[0].Key != key || s[0].Op != label.NotExists {
			t.Fatalf("Parse(%q) = %v, %v", "!"+key, s, err)
		}
	})
}
