package label_test

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"rolecall/internal/fault"
	"rolecall/internal/label"
)

func TestParse(t *testing.T) {
	type selector = label.Selector
	type r = label.Requirement
	fifty := make(selector, 50)
	for i := range fifty {
		fifty[i] = r{Key: "k"}
	}

	for _, test := range []struct {
		s         string
		want      selector
		canonical string
	}{
		{"k", selector{{Key: "k", Op: label.Exists}}, "k"},
		{"!k", selector{{Key: "k", Op: label.NotExists}}, "!k"},
		{"k=v", selector{{"k", label.In, []string{"v"}}}, "k=v"},
		{"k==v", selector{{"k", label.In, []string{"v"}}}, "k=v"},
		{"k!=v", selector{{"k", label.NotIn, []string{"v"}}}, "k!=v"},
		{"k in (v)", selector{{"k", label.In, []string{"v"}}}, "k=v"},
		{"k notin (v)", selector{{"k", label.NotIn, []string{"v"}}}, "k!=v"},
		{"k in (b,a)", selector{{"k", label.In, []string{"b", "a"}}}, "k in (b,a)"},
		{"k notin (b,a)", selector{{"k", label.NotIn, []string{"b", "a"}}}, "k notin (b,a)"},
		{"example.com/k=v", selector{{"example.com/k", label.In, []string{"v"}}}, "example.com/k=v"},
		{"b in (x,y),!a,c=d,e", selector{
			{"b", label.In, []string{"x", "y"}}, {Key: "a", Op: label.NotExists}, {"c", label.In, []string{"d"}}, {Key: "e"},
		}, "b in (x,y),!a,c=d,e"},
		{strings.Repeat("k,", 49) + "k", fifty, strings.Repeat("k,", 49) + "k"},

		// What is missing is not the empty value.
		{"k=", selector{{Key: "k", Op: label.In}}, "k in ()"},
		{"k==", selector{{Key: "k", Op: label.In}}, "k in ()"},
		{"k in ()", selector{{Key: "k", Op: label.In}}, "k in ()"},
		{"k in (,,)", selector{{Key: "k", Op: label.In}}, "k in ()"},
		{"k!=", selector{{Key: "k", Op: label.NotIn}}, "k notin ()"},
		{"k notin ()", selector{{Key: "k", Op: label.NotIn}}, "k notin ()"},
		{"k in (a,)", selector{{"k", label.In, []string{"a"}}}, "k=a"},
		{"k in (,a)", selector{{"k", label.In, []string{"", "a"}}}, "k in (,a)"},
		{"k=,l", selector{{Key: "k", Op: label.In}, {Key: "l"}}, "k in (),l"},

		// White space.
		{" \t\r\nk\n", selector{{Key: "k"}}, "k"},
		{"! k", selector{{Key: "k", Op: label.NotExists}}, "!k"},
		{"a=b, c=d", selector{{"a", label.In, []string{"b"}}, {"c", label.In, []string{"d"}}}, "a=b,c=d"},
		{"a in (b, c)", selector{{"a", label.In, []string{"b", "c"}}}, "a in (b,c)"},
		{"a  notin( b ,c ) ", selector{{"a", label.NotIn, []string{"b", "c"}}}, "a notin (b,c)"},
		{"a = b,a == b,a != b", selector{
			{"a", label.In, []string{"b"}}, {"a", label.In, []string{"b"}}, {"a", label.NotIn, []string{"b"}},
		}, "a=b,a=b,a!=b"},
		{"a = , b", selector{{Key: "a", Op: label.In}, {Key: "b"}}, "a in (),b"},

		// Words of the grammar as keys and values.
		{"in", selector{{Key: "in"}}, "in"},
		{"in in (in,notin)", selector{{"in", label.In, []string{"in", "notin"}}}, "in in (in,notin)"},
		{"notin notin (in)", selector{{"notin", label.NotIn, []string{"in"}}}, "notin!=in"},
		{"in=notin", selector{{"in", label.In, []string{"notin"}}}, "in=notin"},
	} {
		t.Run(test.s, func(t *testing.T) {
			got, err := label.Parse(test.s)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %#v, want %#v", got, test.want)
			}
			if got.String() != test.canonical {
				t.Errorf("written %q, want %q", got, test.canonical)
			}
		})
	}
}

func TestParseMistakes(t *testing.T) {
	const (
		missing = "Missing label_selector value"
		tooMany = "Too many label_selector requirements (maximum is 50)"
		unclear = "Invalid label_selector value"
	)
	for _, test := range []struct{ s, want string }{
		{"", missing},
		{" \n", missing},
		{",", missing},
		{" , ,", missing},

		{strings.Repeat("k,", 50) + "k", tooMany},
		{strings.Repeat("?,", 50) + "k", tooMany},

		{"!", unclear},
		{"=", unclear},
		{"=v", unclear},
		{"!=v", unclear},
		{"in (a)", unclear},
		{"k v", unclear},
		{"k~v", unclear},
		{"k>1", unclear},
		{"é", unclear},
		{"!!k", unclear},
		{"!k=v", unclear},
		{"k in", unclear},
		{"k in v", unclear},
		{"k in (a", unclear},
		{"k in (a,b", unclear},
		{"k in a)", unclear},
		{"k in (a)b", unclear},
		{"k IN (a)", unclear},
		{"foo inn (bar,baz)", unclear},
		{"foo notinn (bar,baz)", unclear},
		{"foo == (bar,baz)", unclear},
		{"k\vin (a)", unclear},
		{"foo=bar, ", unclear},
		{"foo=bar,", unclear},
		{",foo=bar", unclear},
		{"a,,b", unclear},

		{"/", "key cannot be empty string"},
		{"example.com/=v", "key cannot be empty string"},
		{"a/b/c in (x)", "key has more than one '/'"},
		{"onlycom/k", "prefix 'onlycom' must be in valid dns format"},
		{"!/k", "prefix '' must be in valid dns format"},
		{prefix253 + "b/k=v", "prefix 'a.a.a.a....' is greater than 253 characters"},
		{"CloudFoundry.org/k", "prefix 'cloudfoundry.org' is reserved"},
		{"f~oo in (bar,baz)", "'f~oo' contains invalid characters"},
		{"!k in (a)", "'!k' contains invalid characters"},
		{"k=v in (a)", "'k=v' contains invalid characters"},
		{"-k", "'-k' starts or ends with invalid characters"},
		{name63 + "n!=v", "'nnnnnnnn...' is greater than 63 characters"},

		{"k=v w", "'v w' contains invalid characters"},
		{"k===v", "'=v' contains invalid characters"},
		{"k= =v", "'=v' contains invalid characters"},
		{"k=v=w", "'v=w' contains invalid characters"},
		{"k=(v)", "'(v)' contains invalid characters"},
		{"k in (a,é)", "'é' contains invalid characters"},
		{"k in ((a))", "'(a)' contains invalid characters"},
		{"k in (a) in (b)", "'a) in (b' contains invalid characters"},
		{"k!=-v", "'-v' starts or ends with invalid characters"},
		{"k notin (a, b.)", "'b.' starts or ends with invalid characters"},
		{"k=" + name63 + "n", "'nnnnnnnn...' is greater than 63 characters"},

		// One message a requirement, the key's before the values'.
		{"-k=-v", "'-k' starts or ends with invalid characters"},
		{"k in (-v,-w)", "'-v' starts or ends with invalid characters"},
		{"-k,ok,v=%d,?", "'-k' starts or ends with invalid characters, '%d' contains invalid characters, " + unclear},
	} {
		t.Run(test.s, func(t *testing.T) {
			s, err := label.Parse(test.s)
			if s != nil {
				t.Errorf("got %v with the error", s)
			}
			checkInvalid(t, err, test.want)
		})
	}
}

func TestMatches(t *testing.T) {
	labels := map[string]string{"env": "prod", "empty": "", "a.b/env": "test"}
	for _, test := range []struct {
		s    string
		want bool
	}{
		{"env", true},
		{"empty", true},
		{"absent", false},
		{"Env", false},
		{"a.b/env", true},
		{"c.d/env", false},
		{"!env", false},
		{"!absent", true},
		{"env=prod", true},
		{"env=Prod", false},
		{"a.b/env=prod", false},
		{"absent=prod", false},
		{"env!=prod", false},
		{"env!=test", true},
		{"absent!=prod", true},
		{"env in (test,prod)", true},
		{"env in (test)", false},
		{"absent in (test)", false},
		{"env notin (test,prod)", false},
		{"env notin (test)", true},
		{"absent notin (test)", true},

		{"env=", false},
		{"empty=", false},
		{"absent=", false},
		{"empty in ()", false},
		{"empty in (,x)", true},
		{"absent in (,x)", false},
		{"empty!=", true},
		{"absent!=", true},
		{"empty notin ()", true},
		{"empty notin (,x)", false},

		{"env,empty,!absent", true},
		{"env,absent", false},
		{"env=prod,env!=prod", false},
	} {
		s, err := label.Parse(test.s)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Matches(labels); got != test.want {
			t.Errorf("%s matches %v: %v, want %v", test.s, labels, got, test.want)
		}
	}
}

// An empty selector is one that was never parsed, and an operator that is none was never thought about.
func TestMatchesFailsClosed(t *testing.T) {
	labels := map[string]string{"k": "v"}
	for _, s := range []label.Selector{nil, {}, {{Key: "k", Op: 99, Values: []string{"v"}}}, {{Key: "k", Op: -1}}} {
		if s.Matches(labels) {
			t.Errorf("%#v matches %v", s, labels)
		}
	}
	s, err := label.Parse("k")
	if err != nil {
		t.Fatal(err)
	}
	if s.Matches(nil) {
		t.Errorf("%v matches no labels", s)
	}
}

// keys and values are few, so that generated selectors and labels meet. One value looks like a keyword, one is empty.
var (
	keys   = rapid.SampledFrom([]string{"a", "b", "in", "a.b/a", "c_d-e"})
	values = rapid.SampledFrom([]string{"x", "y", "notin", "1.0"})
)

// A written requirement is one of the forms of the grammar, as tokens between which white space may stand.
type written struct {
	form   string
	key    string
	values []string
}

func genWritten(t *rapid.T) written {
	w := written{form: rapid.SampledFrom([]string{"", "!", "=", "==", "!=", "in", "notin"}).Draw(t, "form"),
		key: keys.Draw(t, "key")}
	switch w.form {
	case "=", "==", "!=":
		w.values = rapid.SliceOfN(values, 0, 1).Draw(t, "value")
	case "in", "notin":
		w.values = rapid.SliceOfN(values, 0, 3).Draw(t, "values")
		if len(w.values) > 0 && rapid.Bool().Draw(t, "empty first") {
			w.values = slices.Insert(w.values, 0, "")
		}
	}
	return w
}

// text writes the requirement with what gap returns between its tokens. Only before in and notin must some stand.
func (w written) text(gap func() string) string {
	switch w.form {
	case "":
		return gap() + w.key + gap()
	case "!":
		return gap() + "!" + gap() + w.key + gap()
	case "in", "notin":
		return gap() + w.key + " " + gap() + w.form + gap() + "(" + gap() +
			strings.Join(w.values, gap()+","+gap()) + gap() + ")" + gap()
	}
	return gap() + w.key + gap() + w.form + gap() + strings.Join(w.values, "") + gap()
}

// matches says once more what the forms mean, by the table of the contract.
func (w written) matches(labels map[string]string) bool {
	named := func() bool {
		for key, value := range labels {
			for _, v := range w.values {
				if key == w.key && value == v {
					return true
				}
			}
		}
		return false
	}
	present := slices.Contains(slices.Collect(maps.Keys(labels)), w.key)
	return map[string]bool{
		"": present, "!": !present, "=": named(), "==": named(), "in": named(), "!=": !named(), "notin": !named(),
	}[w.form]
}

func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		requirements := rapid.SliceOfN(rapid.Custom(genWritten), 1, 6).Draw(t, "requirements")
		labels := rapid.MapOf(keys, rapid.OneOf(values, rapid.Just(""))).Draw(t, "labels")
		write := func(gap func() string) string {
			var parts []string
			for _, w := range requirements {
				parts = append(parts, w.text(gap))
			}
			return strings.Join(parts, ",")
		}
		tight := write(func() string { return "" })
		loose := write(func() string { return rapid.StringOfN(rapid.RuneFrom([]rune(" \t\r\n")), 0, 2, -1).Draw(t, "gap") })

		s, err := label.Parse(tight)
		if err != nil {
			t.Fatalf("Parse(%q): %v", tight, err)
		}
		if again, err := label.Parse(s.String()); err != nil || !reflect.DeepEqual(again, s) {
			t.Fatalf("Parse(%q) = %#v, %v, want %#v", s.String(), again, err, s)
		}
		if spaced, err := label.Parse(loose); err != nil || !reflect.DeepEqual(spaced, s) {
			t.Fatalf("Parse(%q) = %#v, %v, want %#v as of %q", loose, spaced, err, s, tight)
		}
		want := true
		for _, w := range requirements {
			want = want && w.matches(labels)
		}
		if got := s.Matches(labels); got != want {
			t.Fatalf("%q matches %v: %v, want %v", tight, labels, got, want)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"", " ", ",", "k", "!k", "k=v", "k == v", "k!=v", "k in (a, b)", "k notin (a)", "k=", "k in ()", "k in (,a,)",
		"a.b/c=d,!e, f in(g)", "a,,b", "k in ((a)", "é=1", "k=%d", "-k=-v", "k in (a) in (b)", strings.Repeat("k,", 60),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := label.Parse(text)
		rule, ruleErr := label.ParseRule(text)
		for _, err := range []error{err, ruleErr} {
			if err != nil && (!fault.Is(err, fault.Invalid) || fault.Of(err).Message == "") {
				t.Fatalf("%q: %#v, want an Invalid fault with a message", text, err)
			}
		}
		if err != nil {
			if s != nil || ruleErr == nil {
				t.Fatalf("Parse(%q) = %v, %v but ParseRule took it (%v)", text, s, err, ruleErr)
			}
			return
		}

		if len(s) < 1 || len(s) > 50 {
			t.Fatalf("%q has %d requirements", text, len(s))
		}
		for _, r := range s {
			if err := label.CheckKey(r.Key); err != nil {
				t.Fatalf("%q has the key %q: %v", text, r.Key, err)
			}
			for _, v := range r.Values {
				if err := label.CheckValue(v); err != nil {
					t.Fatalf("%q has the value %q: %v", text, v, err)
				}
			}
		}
		written := s.String()
		if again, err := label.Parse(written); err != nil || !reflect.DeepEqual(again, s) || again.String() != written {
			t.Fatalf("%q is written %q, which parses to %#v, %v", text, written, again, err)
		}

		if ruleErr == nil && (!reflect.DeepEqual(rule, s) || rule.Matches(nil)) {
			t.Fatalf("rule %q: %#v, want %#v, which matches no account without labels", text, rule, s)
		}
	})
}
