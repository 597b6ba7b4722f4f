package apitest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	d := mustParse(t, tiny)
	const (
		problem = "Content-Type: application/problem+json"
		jsonCT  = "Content-Type: application/json"
		thing   = `{"name":"a","href":"http://h/a"}`
	)
	for _, test := range []struct {
		name    string
		request string // method, path, headers and body, a line each
		status  int
		headers string
		body    string
		want    string // "" for an exchange that the document describes
	}{
		// Responses.
		{"as documented", "GET /base/things?limit=2", 200, jsonCT + "\nX-Count: 1", "[" + thing + "]", ""},
		{"with a charset", "GET /base/things", 200, "Content-Type: application/json; charset=utf-8\nX-Count: 1", "[]", ""},
		{"with what every response may have", "GET /base/things", 200,
			jsonCT + "\nX-Count: 1\nCache-Control: no-store\nX-Content-Type-Options: nosniff", "[]", ""},
		{"status", "GET /base/things", 418, problem, `{"httpStatus":418}`, "does not document this status"},
		{"redirect", "GET /base/things", 307, "Location: /base/things/", "", "does not document this status"},
		{"media type", "GET /base/things", 200, "Content-Type: text/html\nX-Count: 1", "[]", "Content-Type"},
		{"no media type", "GET /base/things", 200, "X-Count: 1", "[]", "Content-Type"},
		{"error as plain JSON", "GET /base/things?limit=x", 400, jsonCT, `{"httpStatus":400}`, "Content-Type"},
		{"header missing", "GET /base/things", 200, jsonCT, "[]", `"X-Count" missing`},
		{"header of the wrong type", "GET /base/things", 200, jsonCT + "\nX-Count: many", "[]", "X-Count"},
		{"header undocumented", "GET /base/things", 200, jsonCT + "\nX-Count: 1\nLocation: /x", "[]",
			"the header Location is not documented"},
		{"body null", "GET /base/things", 200, jsonCT + "\nX-Count: 1", "null", "at /:"},
		{"body empty", "GET /base/things", 200, jsonCT + "\nX-Count: 1", "", "not one JSON value"},
		{"body twice", "GET /base/things", 200, jsonCT + "\nX-Count: 1", "[] []", "not one JSON value"},
		{"field undocumented", "GET /base/things", 200, jsonCT + "\nX-Count: 1", `[{"name":"a","href":"http://h/a","more":1}]`,
			`"more" is unsupported`},
		{"field missing", "GET /base/things", 200, jsonCT + "\nX-Count: 1", `[{"name":"a"}]`, `property "href" is missing`},
		{"field of the wrong type", "GET /base/things", 200, jsonCT + "\nX-Count: 1", `[{"name":1,"href":"http://h/a"}]`,
			"at /0/name: value must be a string"},
		{"relative URL", "GET /base/things", 200, jsonCT + "\nX-Count: 1", `[{"name":"a","href":"/a"}]`, "/0/href"},
		{"not a UUID", "GET /base/things", 200, jsonCT + "\nX-Count: 1", `[{"name":"a","href":"http://h/a","id":"7"}]`, "/0/id"},
		{"upper-case UUID", "GET /base/things", 200, jsonCT + "\nX-Count: 1",
			`[{"name":"a","href":"http://h/a","id":"B35402EB-BD7B-512D-9A52-0DE0F9E9FB2C"}]`, "/0/id"},
		{"UUID", "GET /base/things", 200, jsonCT + "\nX-Count: 1",
			`[{"name":"a","href":"http://h/a","id":"b35402eb-bd7b-512d-9a52-0de0f9e9fb2c"}]`, ""},
		{"empty time", "GET /base/things", 200, jsonCT + "\nX-Count: 1", `[{"name":"a","href":"http://h/a","made":""}]`,
			"/0/made"},
		{"status in the body", "GET /base/things?limit=x", 400, problem, `{"httpStatus":422}`, "the body says status 422"},
		{"nothing, documented", "DELETE /base/things/a", 204, "", "", ""},
		{"nothing, with a type", "DELETE /base/things/a", 204, jsonCT, "", "no content is documented"},
		{"public", "GET /base/things/special", 204, "", "", ""},
		{"secret sent back", "POST /base/things\n\n{\"name\":\"ab\"}", 200, jsonCT,
			`{"name":"ab","href":"http://h/a","secret":"0123456789"}`, `"secret" is unsupported`},

		// Requests.
		{"no credentials is not our business", "GET /base/things", 200, jsonCT + "\nX-Count: 0", "[]", ""},
		{"unknown query parameter", "GET /base/things?depth=1", 200, jsonCT + "\nX-Count: 0", "[]", ""},
		{"bad query accepted", "GET /base/things?limit=0", 200, jsonCT + "\nX-Count: 0", "[]", "want a 4xx"},
		{"bad query fails", "GET /base/things?limit=x", 500, problem, `{"httpStatus":500}`, "want a 4xx"},
		{"empty query accepted", "GET /base/things?limit=", 200, jsonCT + "\nX-Count: 0", "[]", "want a 4xx"},
		{"bad query refused", "GET /base/things?limit=x", 400, problem, `{"httpStatus":400}`, ""},
		{"good query refused", "GET /base/things?limit=7", 400, problem, `{"httpStatus":400}`, ""},
		{"bad path accepted", "DELETE /base/things/toolong", 204, "", "", "want a 4xx"},
		{"short in characters", "DELETE /base/things/%C3%A9%C3%A9%C3%A9%C3%A9%C3%A9", 204, "", "", ""},
		{"bad body accepted", "POST /base/things\n\n{\"name\":\"a\"}", 200, jsonCT, thing, "at /name: minimum string length is 2"},
		{"null accepted", "POST /base/things\n\n{\"name\":null}", 200, jsonCT, thing, "at /name"},
		{"null for a body accepted", "POST /base/things\n\nnull", 200, jsonCT, thing, "want a 4xx"},
		{"name in other case accepted", "POST /base/things\n\n{\"Name\":\"ab\"}", 200, jsonCT, thing,
			`property "name" is missing`},
		{"no body accepted", "POST /base/things", 200, jsonCT, thing, "want a 4xx"},
		{"broken body accepted", "POST /base/things\n\n{\"name\"", 200, jsonCT, thing, "want a 4xx"},
		{"form accepted", "POST /base/things\nContent-Type: application/x-www-form-urlencoded\n\nname=ab", 200, jsonCT, thing,
			"want a 4xx"},
		{"no type", "POST /base/things\n\n{\"name\":\"ab\"}", 200, jsonCT, thing, ""},
		{"any +json", "POST /base/things\nContent-Type: application/vnd.x+json; charset=utf-8\n\n{\"name\":\"ab\"}", 200, jsonCT,
			thing, ""},
		{"text/json", "POST /base/things\nContent-Type: text/json\n\n{\"name\":\"ab\"}", 200, jsonCT, thing, ""},
		{"what the server ignores", "POST /base/things\n\n{\"name\":\"ab\",\"system\":7,\"more\":[]}", 200, jsonCT, thing, ""},
		{"null for what it ignores", "POST /base/things\n\n{\"name\":\"ab\",\"system\":null}", 200, jsonCT, thing, ""},

		// Outside.
		{"unknown path", "GET /other", 404, problem, `{"httpStatus":404}`, ""},
		{"unknown path, plain", "GET /other", 404, "Content-Type: text/plain", "404 page not found", "Content-Type"},
		{"unknown path, found", "GET /other", 200, jsonCT, "{}", "want 404 or 405"},
		{"unknown path, redirect", "GET /other", 301, "Location: /base/things", "", "want 404 or 405"},
		{"unknown path, 405", "GET /other", 405, problem + "\nAllow: GET", `{"httpStatus":405}`, "want 404"},
		{"unknown path, nothing to compare with", "GET /other", 401, problem, `{"httpStatus":401}`,
			"components/responses/Unauthorized"},
		{"unknown method", "PUT /base/things", 405, problem + "\nAllow: GET, HEAD, POST", `{"httpStatus":405}`, ""},
		{"unknown method, no Allow", "PUT /base/things", 405, problem, `{"httpStatus":405}`, `"Allow" missing`},
		{"unknown method, other Allow", "PUT /base/things", 405, problem + "\nAllow: GET", `{"httpStatus":405}`,
			"the document has GET, POST"},
		{"unknown method, 404", "PUT /base/things", 404, problem, `{"httpStatus":404}`, "want 405"},
		{"unknown method, done", "PUT /base/things", 200, jsonCT, "{}", "want 404 or 405"},
		{"both of two paths", "PUT /base/things/special", 405, problem + "\nAllow: GET, DELETE", `{"httpStatus":405}`, ""},
		{"one of two paths", "PUT /base/things/special", 405, problem + "\nAllow: GET", `{"httpStatus":405}`,
			"the document has DELETE, GET"},
		{"the method decides between two paths", "DELETE /base/things/special", 204, "", "", "want a 4xx"},
		{"HEAD", "HEAD /base/things", 200, jsonCT + "\nX-Count: 1", "", ""},
		{"HEAD without the header", "HEAD /base/things", 200, jsonCT, "", `"X-Count" missing`},
		{"HEAD refused", "HEAD /base/things", 405, problem + "\nAllow: GET, POST", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			compare(t, d, test.request, test.status, test.headers, test.body, test.want)
		})
	}
}

func compare(t *testing.T, d *Document, req string, status int, fields, body, want string) {
	t.Helper()
	r, sent := request(req)
	res := &http.Response{StatusCode: status, Header: headers(fields)}
	err := d.check(exchange{r, []byte(sent), res, []byte(body)})
	switch {
	case want == "" && err != nil:
		t.Errorf("got %v, want no error", err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("got %v, want an error with %q", err, want)
	}
}

// The headers and statuses that the DBaaS document asks for are really asked for.
func TestCheckDBaaS(t *testing.T) {
	d := Load(t, "dbaas.yaml")
	const (
		base  = "/databases/postgresql"
		id    = "X-Request-Id: r1\n"
		ok    = id + "Content-Type: application/json\n"
		bad   = id + "Content-Type: application/problem+json\n"
		patch = "PATCH " + base + "/clusters/c/users/we%2Fird\nIf-Match: *\n\n"
		user  = `{"type":"user","id":"b35402eb-bd7b-512d-9a52-0de0f9e9fb2c","href":"https://h/x",
			"metadata":{"createdBy":"u","resourceURN":"r"},"properties":{"username":"we/ird","system":false}}`
		list = `{"type":"collection","id":"c","href":"https://h/x","items":[],"offset":0,"limit":100,` +
			`"_links":{"self":"https://h/x"}}`
		fail = `{"httpStatus":%d,"messages":[{"errorCode":"paas-%s-1","message":"m"}]}`
	)
	for _, test := range []struct {
		name    string
		request string
		status  int
		headers string
		body    string
		want    string
	}{
		{"patched", patch + `{"properties":{}}`, 200, ok + `ETag: "3"`, user, ""},
		{"no ETag", patch + `{"properties":{}}`, 200, ok, user, `"ETag" missing`},
		{"weak ETag", patch + `{"properties":{}}`, 200, ok + `ETag: W/"3"`, user, "ETag"},
		{"no request id", patch + `{"properties":{}}`, 200, "Content-Type: application/json\n" + `ETag: "3"`, user,
			`"X-Request-Id" missing`},
		{"password sent back", patch + `{"properties":{}}`, 200, ok + `ETag: "3"`,
			strings.Replace(user, `"system"`, `"password":"0123456789","system"`, 1), `"password" is unsupported`},
		{"stale", patch + `{"properties":{}}`, 412, bad, fmt.Sprintf(fail, 412, "stale"), ""},
		{"unknown code", patch + `{"properties":{}}`, 412, bad, fmt.Sprintf(fail, 412, "old"), "at /messages/0/errorCode"},
		{"conflict", patch + `{"properties":{}}`, 409, bad, fmt.Sprintf(fail, 409, "conflict"), "does not document this status"},
		{"created as 201", "POST " + base + "/clusters/c/users", 201, ok, user, "does not document this status"},
		{"a list", "GET " + base + "/clusters/c/users", 200, ok, list, ""},
		{"True, as Python writes it", "GET " + base + "/clusters/c/users?system=True", 200, ok, list, ""},
		{"tRUE", "GET " + base + "/clusters/c/users?system=tRUE", 200, ok, list, ""},
		{"no boolean", "GET " + base + "/clusters/c/users?system=maybe", 200, ok, list, "want a 4xx"},
		{"null items", "GET " + base + "/clusters/c/users", 200, ok, strings.Replace(list, "[]", "null", 1), "at /items"},
		{"links of another list", "GET " + base + "/clusters/c/users", 200, ok, strings.Replace(list, "_links", "links", 1),
			`"links" is unsupported`},
		{"unauthenticated", "GET " + base + "/clusters", 401, bad +
			"WWW-Authenticate: Basic realm=\"rolecall\"\nWWW-Authenticate: Bearer", fmt.Sprintf(fail, 401, "auth"), ""},
		{"unauthenticated, not saying how", "GET " + base + "/clusters", 401, bad, fmt.Sprintf(fail, 401, "auth"),
			`"WWW-Authenticate" missing`},
		{"unauthenticated and unknown", "GET " + base + "/x", 401, bad + "WWW-Authenticate: Bearer",
			fmt.Sprintf(fail, 401, "auth"), ""},
		{"too many, not saying how long", "GET " + base + "/clusters", 429, bad, fmt.Sprintf(fail, 429, "rate"),
			`"Retry-After" missing`},
		{"too many, half a second", "GET " + base + "/clusters", 429, bad + "Retry-After: 0.5", fmt.Sprintf(fail, 429, "rate"),
			"Retry-After"},
		{"unavailable", "GET " + base + "/clusters", 503, bad, fmt.Sprintf(fail, 503, "unavailable"), ""},
		{"not offered", "POST " + base + "/clusters", 405, bad + "Allow: GET, HEAD", fmt.Sprintf(fail, 405, "method"), ""},
		{"no logs", "GET " + base + "/clusters/c/logs", 404, bad, fmt.Sprintf(fail, 404, "notfound"), ""},
		{"deleted", "DELETE " + base + "/clusters/c/users/a?reassignTo=b", 204, id, "", ""},
		{"reassigned to nobody", "DELETE " + base + "/clusters/c/users/a?reassignTo=", 204, id, "", "want a 4xx"},
	} {
		t.Run(test.name, func(t *testing.T) {
			compare(t, d, test.request, test.status, test.headers, test.body, test.want)
		})
	}
}

// request reads a method and path, headers, and after an empty line the body.
func request(s string) (*http.Request, string) {
	head, body, _ := strings.Cut(s, "\n\n")
	line, fields, _ := strings.Cut(head, "\n")
	method, target, _ := strings.Cut(line, " ")
	req := httptest.NewRequest(method, target, nil)
	req.Header = headers(fields)
	return req, body
}

func headers(s string) http.Header {
	h := http.Header{}
	for line := range strings.Lines(s) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		h.Add(name, value)
	}
	return h
}

// recorder keeps what would fail a test.
type recorder struct {
	testing.TB
	failures []string
}

func (r *recorder) Helper() {}
func (r *recorder) Errorf(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func TestTransport(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"name":%q,"href":"http://h/a"%s}`, fmt.Sprint(len(b)), r.Header.Get("Add"))
	}))
	defer server.Close()
	rec := &recorder{TB: t}
	client := &http.Client{Transport: mustParse(t, tiny).Transport(rec, nil)}
	post := func(add string) string {
		t.Helper()
		rec.failures = nil
		req, err := http.NewRequest(http.MethodPost, server.URL+"/base/things", strings.NewReader(`{"name":"ab"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Add", add)
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}

	if got, want := post(""), `{"name":"13","href":"http://h/a"}`; got != want {
		t.Errorf("got %s, want %s: the bodies must pass through", got, want)
	}
	if len(rec.failures) != 0 {
		t.Errorf("failures: %q", rec.failures)
	}
	post(`,"more":1`)
	if len(rec.failures) != 1 {
		t.Fatalf("got the failures %q, want one", rec.failures)
	}
	for _, want := range []string{"tiny.yaml: POST /base/things: 200 OK: ", `"more" is unsupported`, `body: {"name":"13"`} {
		if !strings.Contains(rec.failures[0], want) {
			t.Errorf("the failure %q does not say %q", rec.failures[0], want)
		}
	}
}

// A test's output ends up in logs: what a request carries as a secret must not.
func TestFailureHidesSecrets(t *testing.T) {
	req, _ := request("POST /base/things")
	sent := `{"name":"ab","secret":"hunter2"}`
	res := &http.Response{StatusCode: 200, Header: headers("Content-Type: application/json")}
	err := mustParse(t, tiny).check(exchange{req, []byte(sent), res, []byte(`{"name":"a","href":"http://h/a"}`)})
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v, want an error without the secret", err)
	}
}
