package cfapi_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"rolecall/internal/account"
	"rolecall/internal/apitest"
	"rolecall/internal/servicetest"
)

// FuzzRequest holds whole requests against the document. What is created is read at its own URL, and deleted.
func FuzzRequest(f *testing.F) {
	s := newFixture(f)
	s.person(f, "fuzz-reader", account.ScopeRead)
	s.person(f, "fuzz-nobody")
	for _, guid := range []string{"fuzz", "fuzz,%2F é"} {
		s.do(f, "POST", "/v3/users", `{"guid":"`+guid+`"}`)
	}

	const (
		post  = "POST /v3/users\n\n"
		patch = "PATCH /v3/users/fuzz\nContent-Type: application/json\n\n"
	)
	seeds := []string{
		"GET /v3/users/fuzz", "HEAD /v3/users/fuzz", "GET /v3/users/fuzz%2C%252F%20%C3%A9", "DELETE /v3/users/fuzz",
		"DELETE /v3/users/fuzz\nIf-Match: \"0\"", "PUT /v3/users/fuzz\n\n{}",
		"PATCH /v3/users/fuzz\nIf-Match: *, \"1\"\n\n{}", "PATCH /v3/users/fuzz\nIf-Match: W/\"1-7\"\n\n{}",
		"PATCH /v3/users/fuzz\nContent-Type: text/plain\n\n{}", "GET /v3/users/%00%FF", "GET /v3/users/..",
		"GET //v3//users", "GET /v2/info", "GET /v3/", "GET /\nX-Vcap-Request-Id: a\\b \"c",
		"GET /v3/users\nAuthorization: bearer ", "GET /v3/users\nAuthorization: Basic cm9vdDpyb290", "OPTIONS *",
		"GET /v3/jobs/account.delete-fuzz", "GET /v3/users?=1&=2", "GET /v3/users\nAuthorization: bearer eyJhbGciOiJub25lIn0.e30.",
		"POST /v3/users\nX-Forwarded-For: 10.0.0.1, 192.0.2.1\n\n1",
	}
	for _, body := range []string{
		`{"guid":"fuzz-new","metadata":{"labels":{"env":"prod","a.b/c":""},"annotations":{"x":"é\n"}}}`,
		`{"username":"Fuzz","origin":"ldap"}`, `{"username":"fuzz","origin":"uaa"}`,
		`{"guid":"a/b %"}`, `{"guid":"..."}`, `{"guid":"\u0000"}`, `{"guid":1,"username":null}`, `{"guid":""}`, `[]`, `null`, ` `,
		`{"metadata":{"labels":{"in":"v","-":"v"}},"guid":"x"}`,
	} {
		seeds = append(seeds, post+body)
	}
	for _, body := range []string{
		`{}`, ``, `{"metadata":{"labels":{"a":"b"},"annotations":null}}`,
		`{"metadata":{"labels":{"a":""},"annotations":{"":null}}}`,
		`{"username":null,"origin":null,"presentation_name":"é"}`,
		`{"guid":"fuzz","links":[],"created_at":"2020-01-01T00:00:00Z"}`, `{"username":"é","origin":"ldap"}`,
		`{"metadata":{"labels":{"a":"b\n"}}}`, `{"metadata":{"labels":false}}`, `{"presentation_name":""}`, `{"metadata":null}`,
		`[]`,
		`{"updated_at":1,"x":{}}`, `{"username":"\u0000","origin":"x"}`, `{"presentation_name":"\u007f"}`, `{"a":1,"a":2}`,
		`{"password":"{secret}"}`, `{"password":"{secret}`,
	} {
		seeds = append(seeds, patch+body)
	}
	for _, query := range []url.Values{
		{"page": {"1"}, "per_page": {"50"}, "order_by": {"-created_at"}, "label_selector": {"a=b"}},
		{"page": {"0"}, "per_page": {"5001"}, "order_by": {" updated_at"}, "label_selector": {"!a,b in (c)"}},
		{"page": {"+1"}, "per_page": {"1e3"}, "order_by": {"created_at "}, "label_selector": {""}},
		{"page": {"٣"}, "per_page": {"0x1"}, "order_by": {""}, "label_selector": {"a\x00"}},
		{"page": {"99999999999999999999"}, "per_page": {"007"}, "label_selector": {"a notin ()"}},
		{"page": {""}, "per_page": {""}, "label_selector": {"a=é"}}, {"page": {"9223372036854775807"}, "per_page": {"1"}},
		{"guids": {"fuzz,fuzz%252C%25252F"}}, {"usernames": {"fuzz,\x00"}, "origins": {"uaa"}},
		{"partial_usernames": {`%,_,\`}, "origins": {""}}, {"origins": {"uaa"}}, {"include": {"x"}},
		{"created_ats": {"2020-01-01T00:00:00Z,2021-01-01T00:00:00+01:00"}},
		{"created_ats[lt]": {"9999-12-31T23:59:59Z"}, "created_ats[gte]": {"0000-01-01T00:00:00Z"}},
		{"updated_ats[lte]": {"2020-01-01T00:00:00,5Z"}}, {"updated_ats[gt": {"2020-01-01"}}, {"guids[]": {"a"}},
		{"page[x": {"1", "2"}}, {"password": {"{secret}"}},
	} {
		seeds = append(seeds, "GET /v3/users?"+query.Encode())
	}

	apitest.Load(f, "platform.yaml").Fuzz(f, apitest.Target{
		Handler: newAPI(s.Service, 0),
		Authorization: []string{"bearer " + s.tokens["root"], "bearer " + s.tokens["fuzz-reader"],
			"bearer " + s.tokens["fuzz-nobody"]},
		Names: map[string]string{"guid": "fuzz"},
		Seeds: seeds,
		Then: func(t *testing.T, send apitest.Send, r *http.Request, a apitest.Answer) {
			switch {
			case r.Method == "POST" && a.Status == 201:
				made := answer{a}.user(t)
				place := strings.TrimPrefix(made.Links.Self.Href, servicetest.PublicURL)
				if read := (answer{send("GET", place, "")}).user(t); read.GUID != made.GUID ||
					read.PresentationName != made.PresentationName {
					t.Errorf("made %+v, read %+v", made, read)
				}
				if a := send("DELETE", place, ""); a.Status != 202 {
					t.Errorf("%s cannot be deleted: %s", place, a.Body)
				}
			case r.Method == "DELETE" && a.Status == 202:
				for _, guid := range []string{"fuzz", "fuzz,%2F é"} {
					send("POST", "/v3/users", `{"guid":"`+guid+`"}`)
				}
			}
		},
	})
}
