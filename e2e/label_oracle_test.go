package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	k8s "k8s.io/apimachinery/pkg/labels"

	"rolecall/internal/label"
)

// Kubernetes has nearly the grammar of label selectors that Cloud Foundry has, and another parser. Where the grammars
// agree, so must the parsers.

// disputed reports whether the two grammars differ on something in the selector.
func disputed(selector string) bool {
	if strings.Trim(selector, " \t\r\n,") == "" || // Kubernetes: everything
		strings.ContainsAny(selector, "<>\x00") || // Kubernetes: numbers compare; NUL is the end
		missingValue.MatchString(selector) || // Kubernetes: the empty value
		strings.Count(selector, ",") >= 50 { // Kubernetes: no limit
		return true
	}
	for _, word := range words.Split(operator.ReplaceAllString(selector, "("), -1) {
		if word == "in" || word == "notin" { // operators that are keys or values
			return true
		}
		prefix, _, prefixed := strings.Cut(word, "/")
		if !prefixed {
			continue
		}
		// Kubernetes: one label is enough, however long; lower case only; another reservation.
		if !strings.Contains(prefix, ".") || prefix != strings.ToLower(prefix) || prefix == "cloudfoundry.org" ||
			slices.ContainsFunc(strings.Split(prefix, "."), func(s string) bool { return len(s) > 63 }) {
			return true
		}
	}
	return false
}

var (
	missingValue = regexp.MustCompile(`=[ \t\r\n]*(,|$)|\([ \t\r\n]*[,)]|,[ \t\r\n]*\)|\([^)]*,[ \t\r\n]*,`)
	operator     = regexp.MustCompile(`[ \t\r\n](in|notin)[ \t\r\n]*\(`)
	words        = regexp.MustCompile(`[ \t\r\n=!(),]+`)
)

// agree fails t when the parsers differ on the selector, or on whether it matches one of the sets of labels.
func agree(t *testing.T, selector string, sets []map[string]string) {
	t.Helper()
	ours, err := label.Parse(selector)
	theirs, theirErr := k8s.Parse(selector)
	if (err == nil) != (theirErr == nil) {
		t.Fatalf("%q: %v, Kubernetes: %v", selector, err, theirErr)
	}
	if err != nil {
		return
	}
	again, err := k8s.Parse(ours.String())
	if err != nil {
		t.Fatalf("%q, written as %q: Kubernetes: %v", selector, ours, err)
	}
	for _, set := range sets {
		if got, want := ours.Matches(set), theirs.Matches(k8s.Set(set)); got != want || again.Matches(k8s.Set(set)) != want {
			t.Fatalf("%q, written as %q: matches %v: %t, Kubernetes: %t and %t", selector, ours, set, got, want,
				again.Matches(k8s.Set(set)))
		}
	}
}

var (
	goodKeys = []string{"a", "b", "team", "example.org/team", "a.b-c_D", "x1.y-2.z/A", strings.Repeat("k", 63),
		strings.Repeat("abcdefg.", 31) + "abcde/k"}
	goodValues = []string{"1", "2", "payments", "a.b-c_D", strings.Repeat("v", 63)}
	badWords   = []string{"-a", "a-", "a b", "é", "a/b/c", "/a", "example.org/", "ex_ample.org/a", "a..b/c", "-a.b/c",
		strings.Repeat("w", 64),
		strings.Repeat("abcdefg.", 31) + "abcdef/k", "a;b", "\x01", "\xff"}
)

func pick(r *rand.Rand, from ...[]string) string {
	all := slices.Concat(from...)
	return all[r.IntN(len(all))]
}

// someLabels returns sets of labels, of few keys and values, so that selectors match some of them.
func someLabels(r *rand.Rand, n int, keys, values []string) []map[string]string {
	sets := make([]map[string]string, n)
	for i := range sets {
		sets[i] = map[string]string{}
		for range r.IntN(4) {
			sets[i][pick(r, keys)] = pick(r, values)
		}
	}
	return sets
}

// someSelector returns a selector of these keys and values.
func someSelector(r *rand.Rand, keys, values []string) string {
	space := func() string { return []string{"", "", "", " ", "\t ", "\r\n"}[r.IntN(6)] }
	requirements := make([]string, 1+r.IntN(3))
	for i := range requirements {
		key := space() + pick(r, keys)
		list := make([]string, 1+r.IntN(3))
		for i := range list {
			list[i] = space() + pick(r, values) + space()
		}
		set := space() + "(" + strings.Join(list, ",") + ")"
		requirements[i] = []string{key, "!" + key, key + space() + "=" + list[0], key + space() + "==" + list[0], key + space() +
			"!=" + list[0],
			key + " in" + set, key + "\tnotin" + set}[r.IntN(7)] + space()
	}
	return strings.Join(requirements, ",")
}

func TestSelectorsAgreeWithKubernetes(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	good, bad, skipped := 0, 0, 0
	for range 5_000 {
		keys, values := goodKeys, goodValues
		if r.IntN(4) == 0 {
			keys, values = append(slices.Clone(keys), pick(r, badWords)), append(slices.Clone(values), pick(r, badWords))
		}
		selector := someSelector(r, keys, values)
		for range r.IntN(5) - 2 { // mistakes in typing
			at, character := r.IntN(len(selector)+1), string("=!(), inot/ab.-"[r.IntN(15)])
			selector = selector[:at] + character + selector[at+r.IntN(min(2, len(selector)-at+1)):]
		}
		if disputed(selector) {
			skipped++
			continue
		}
		agree(t, selector, someLabels(r, 8, goodKeys, goodValues))
		if _, err := label.Parse(selector); err == nil {
			good++
		} else {
			bad++
		}
	}
	if good < 1_000 || bad < 200 {
		t.Errorf("the test is no good: %d selectors were valid, %d not, %d are disputed", good, bad, skipped)
	}
}

func FuzzSelectorsAgreeWithKubernetes(f *testing.F) {
	for _, seed := range []string{"a", "!a", "a=1", "a==1", "a!=1", "a in (1,2)", "a notin(1),b", " ! a , b = 2 ",
		"a.b/c in ( 1 )", "a,,b", "a in (1", "a in (1))", "a=b=c", "! ! a", "a\n"} {
		f.Add(seed)
	}
	sets := someLabels(rand.New(rand.NewPCG(3, 4)), 16, goodKeys[:4], goodValues[:3])
	f.Fuzz(func(t *testing.T, selector string) {
		if !disputed(selector) {
			agree(t, selector, sets)
		}
	})
}

// TestSelectorsOfTheServer holds what the server finds in its database to what Kubernetes would.
func TestSelectorsOfTheServer(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(5, 6))
	keys, values := goodKeys[:4], goodValues[:3]
	sets := map[string]map[string]string{}
	for i, set := range someLabels(r, 16, keys, values) {
		guid := fmt.Sprintf("selected-%d", i)
		body, err := json.Marshal(map[string]any{"guid": guid, "metadata": map[string]any{"labels": set}})
		if err != nil {
			t.Fatal(err)
		}
		admin(t, 201, "POST", "/v3/users", string(body), nil)
		discard(t, "/v3/users/"+guid)
		sets[guid] = set
	}
	all := strings.Join(slices.Collect(maps.Keys(sets)), ",")
	for range 200 {
		selector := someSelector(r, keys, values)
		theirs, err := k8s.Parse(selector)
		if err != nil {
			t.Fatal(err)
		}
		var want, got []string
		for guid, set := range sets {
			if theirs.Matches(k8s.Set(set)) {
				want = append(want, guid)
			}
		}
		var list struct{ Resources []struct{ GUID string } }
		admin(t, 200, "GET", "/v3/users?guids="+all+"&label_selector="+url.QueryEscape(selector), "", &list)
		for _, u := range list.Resources {
			got = append(got, u.GUID)
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%q selects %v, Kubernetes: %v", selector, got, want)
		}
	}
}
