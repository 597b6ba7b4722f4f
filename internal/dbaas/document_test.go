package dbaas_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"rolecall/internal/apitest"
	"rolecall/internal/dbaas"
)

// Every route has exactly one operation in the document, and the other way round.
func TestParity(t *testing.T) {
	var routes, operations []string
	for _, r := range (&dbaas.API{}).Init().Routes() {
		routes = append(routes, fmt.Sprintf("%s %s public=%t", r.Method, strings.ReplaceAll(r.Pattern, "...}", "}"), r.Public))
	}
	for _, op := range apitest.Load(t, "dbaas.yaml").Operations() {
		operations = append(operations, fmt.Sprintf("%s %s public=%t", op.Method, op.Path, op.Public))
	}
	slices.Sort(routes)
	slices.Sort(operations)
	if !slices.Equal(routes, operations) {
		t.Errorf("routes:\n%s\noperations:\n%s", strings.Join(routes, "\n"), strings.Join(operations, "\n"))
	}
}

// The transport of the fixture compares what the document and the handler think of each input: what the document
// rejects gets a 4xx, and what gets a 2xx the document accepts.
func agree(t *testing.T, a answer) {
	t.Helper()
	if a.Status >= 500 {
		t.Errorf("got %d %s", a.Status, a.Body)
	}
}

func FuzzCreateBody(f *testing.F) {
	for _, seed := range []string{
		`{"properties":{"username":"fuzz","password":"1234567890"}}`, `{"properties":{"username":"pg_x","password":"1234567890"}}`,
		`{"properties":{"username":"..","password":"1234567890"}}`, `{"properties":{"username":"a\u0000","password":"1234567890"}}`,
		`{"properties":{"username":"\u0085","password":"1234567890"}}`, `{"properties":{"username":"none","password":"123456789é"}}`,
		`{"properties":{"username":"ééééééééééééééééééééééééééééééééé","password":"1234567890"}}`,
		`{"properties":{"username":"x","password":"🙂🙂🙂🙂🙂🙂🙂🙂🙂"}}`, `{"properties":{"username":"pg_\n","password":"1234567890"}}`,
		`{"properties":{"username":"x","password":null}}`, `{"properties":{}}`, `{"properties":[]}`, `[]`, `{}`, ``, `{"properties":{"username":"x","password":"1234567890","system":[]}}`,
		`{"properties":{"username":"x","password":"1234567890"},"properties":1}`, "\xff", `1`, `"`, `{"properties":{"username":"\ud800","password":"1234567890"}}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		s := newFixture(t)
		a := s.do(t, "POST", s.users(), body)
		agree(t, a)
		if a.Status == 200 {
			var u resource
			a.Into(t, &u)
			s.want(t, 204, "DELETE", s.local(t, u.Href), "")
		}
	})
}

func FuzzPatchBody(f *testing.F) {
	for _, seed := range []string{
		`{"properties":{"password":"1234567890"}}`, `{"properties":{}}`, `{"properties":{"username":"fuzz-patch"}}`, `{"properties":{"username":"other"}}`,
		`{"properties":{"password":""}}`, `{"properties":{"password":null}}`, `{"properties":null}`, `{"x":{}}`, `null`, `{"properties":{"username":1}}`,
		`{"properties":{"password":"\t234567890"}}`, `{"properties":{"password":"1234567890","x":{"a":1,"a":2}}}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		s := newFixture(t)
		s.do(t, "POST", s.users(), userBody("fuzz-patch", password))
		agree(t, s.do(t, "PATCH", s.users("fuzz-patch"), body))
	})
}

func FuzzListQuery(f *testing.F) {
	for _, seed := range [][3]string{
		{"1", "0", "true"}, {"1000", "5", "False"}, {"0", "-1", "1"}, {"1001", "99999999999", "t"}, {"abc", "1e3", "FALSE"}, {"", "", ""},
		{"+1", "0x10", "yes"}, {"1.0", "1.", "truE"}, {" 1", "1 ", " true"}, {"1_0", "٣", "ſalse"}, {"007", "-0", "T"}, {"1,2", "1;2", "true,false"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, limit, offset, system string) {
		s := newFixture(t)
		agree(t, s.do(t, "GET", s.users()+"?limit="+url.QueryEscape(limit)+"&offset="+url.QueryEscape(offset)+"&system="+url.QueryEscape(system), ""))
	})
}
