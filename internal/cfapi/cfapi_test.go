package cfapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/apitest"
	"rolecall/internal/cfapi"
	"rolecall/internal/door"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
	"rolecall/internal/web"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// fixture is a server of the dialect whose every exchange is held against the document.
type fixture struct {
	*servicetest.Service
	*apitest.Client
	tokens map[string]string // by user name
}

// newFixture is a server on the shared service, with the admin root.
func newFixture(t testing.TB) *fixture { return fixtureOn(t, servicetest.Shared(t), 0) }

// fixtureOn is a server whose limits are so many requests a second; 0: none.
func fixtureOn(t testing.TB, s *servicetest.Service, limit float64) *fixture {
	t.Helper()
	client := apitest.Load(t, "platform.yaml").Serve(t,
		&web.Edge{Handler: newAPI(s, limit), Log: slog.New(slog.NewTextHandler(s.Log, nil))})
	f := &fixture{s, client, map[string]string{}}
	f.tokens["root"] = f.token(t, "root")
	return f
}

func newAPI(s *servicetest.Service, limit float64) *door.Handler {
	return (&cfapi.API{
		Accounts:  s.Accounts,
		PublicURL: servicetest.PublicURL,
		Door:      s.Door(limit),
	}).Handler()
}

func (f *fixture) token(t testing.TB, username string) string {
	t.Helper()
	token, err := f.Identity.MintFor(context.Background(), username, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// person makes an account with the scopes, that can be used with as.
func (f *fixture) person(t testing.TB, username string, scopes ...string) (guid string) {
	t.Helper()
	guid = f.Account(t, username, scopes, map[string]string{})
	f.tokens[username] = f.token(t, username)
	return guid
}

// answer is a response, its body read.
type answer struct{ apitest.Answer }

// user is a user as a client reads it.
type user struct {
	GUID             string `json:"guid"`
	CreatedAt        string `json:"created_at"`
	UpdatedAt        string `json:"updated_at"`
	Username         *string
	PresentationName string `json:"presentation_name"`
	Origin           *string
	Metadata         struct{ Labels, Annotations map[string]string }
	Links            struct{ Self struct{ Href string } }
}

func (a answer) user(t testing.TB) (u user) {
	t.Helper()
	a.Into(t, &u)
	return u
}

// do sends a request as root, the admin. Headers are "Name: value".
func (f *fixture) do(t testing.TB, method, path, body string, headers ...string) answer {
	t.Helper()
	return f.as(t, "root", method, path, body, headers...)
}

// as sends a request as an account, or as nobody when username is empty.
func (f *fixture) as(t testing.TB, username, method, path, body string, headers ...string) answer {
	t.Helper()
	if username != "" {
		headers = append(headers, "Authorization: bearer "+f.tokens[username])
	}
	return f.send(t, method, path, body, headers...)
}

func (f *fixture) send(t testing.TB, method, path, body string, headers ...string) answer {
	t.Helper()
	return answer{f.Send(t, method, path, body, headers...)}
}

// want sends a request as root and fails the test unless its answer has the status.
func (f *fixture) want(t testing.TB, status int, method, path, body string, headers ...string) answer {
	t.Helper()
	a := f.do(t, method, path, body, headers...)
	if a.Status != status {
		t.Fatalf("%s %s %s: got %d, want %d: %s", method, path, excerpt(body), a.Status, status, a.Body)
	}
	return a
}

func excerpt(s string) string { return s[:min(len(s), 300)] }

// refused fails the test unless the answer is this failure, as "422 10008 detail".
func (a answer) refused(t testing.TB, want string) {
	t.Helper()
	var envelope struct {
		Errors []struct {
			Code          int
			Title, Detail string
		}
	}
	a.Into(t, &envelope)
	if len(envelope.Errors) != 1 {
		t.Fatalf("got %d %s, want %s", a.Status, a.Body, want)
	}
	e := envelope.Errors[0]
	if got := fmt.Sprintf("%d %d %s", a.Status, e.Code, e.Detail); got != want {
		t.Errorf("got  %s (%s)\nwant %s", got, e.Title, want)
	}
}

const (
	unauthenticated = "401 10002 Authentication error"
	badToken        = "401 1000 Invalid Auth Token"
	forbidden       = "403 10003 You are not authorized to perform the requested action"
	notFound        = "404 10010 User not found"
	notFoundDelete  = "404 10010 User not found. Ensure it exists and you have access to it."
	unknownRequest  = "404 10000 Unknown request"
	unparsable      = "400 1001 Request invalid due to parse error: invalid request body"
)

// at is the path of a user.
func at(guid string) string { return "/v3/users/" + url.PathEscape(guid) }

// body writes JSON.
func body(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// made makes a user by guid, with labels.
func (f *fixture) made(t testing.TB, guid string, labels map[string]string) user {
	t.Helper()
	return f.want(t, 201, "POST", "/v3/users", body(
		map[string]any{"guid": guid, "metadata": map[string]any{"labels": labels}})).user(t)
}

// Every route has exactly one operation in the document, and the other way round.
func TestParity(t *testing.T) {
	var routes, operations []string
	for _, r := range (&cfapi.API{}).Handler().Routes() {
		routes = append(routes, fmt.Sprintf("%s %s public=%t", r.Method, r.Pattern, r.Public))
	}
	for _, op := range apitest.Load(t, "platform.yaml").Operations() {
		operations = append(operations, fmt.Sprintf("%s %s public=%t", op.Method, op.Path, op.Public))
	}
	slices.Sort(routes)
	slices.Sort(operations)
	if !slices.Equal(routes, operations) {
		t.Errorf("routes:\n%s\noperations:\n%s", strings.Join(routes, "\n"), strings.Join(operations, "\n"))
	}
}

func TestDiscovery(t *testing.T) {
	f := newFixture(t)
	var root struct {
		Links map[string]*struct {
			Href string
			Meta struct{ Version string }
		}
	}
	f.as(t, "", "GET", "/", "").Into(t, &root)
	for name, want := range map[string]string{"self": "", "cloud_controller_v3": "/v3", "login": "/uaa", "uaa": "/uaa"} {
		if got := root.Links[name]; got == nil || got.Href != servicetest.PublicURL+want {
			t.Errorf("the link %s is %v", name, got)
		}
	}
	if got := root.Links["cloud_controller_v3"].Meta.Version; got != "3.195.0" {
		t.Errorf("the version is %q", got)
	}
	var index struct {
		Links map[string]struct{ Href string }
	}
	f.as(t, "", "GET", "/v3", "").Into(t, &index)
	if got := index.Links["users"].Href; got != servicetest.PublicURL+"/v3/users" {
		t.Errorf("the users are at %q", got)
	}
	var info struct {
		RateLimits struct {
			Enabled                bool
			GeneralLimit           int `json:"general_limit"`
			ResetIntervalInMinutes int `json:"reset_interval_in_minutes"`
		} `json:"rate_limits"`
	}
	limited := fixtureOn(t, servicetest.Shared(t), 100)
	limited.as(t, "", "GET", "/v3/info", "").Into(t, &info)
	if r := info.RateLimits; !r.Enabled || r.GeneralLimit != 6000 || r.ResetIntervalInMinutes != 1 {
		t.Errorf("the limits are %+v", r)
	}
	f.as(t, "", "HEAD", "/", "")
}

func TestNothingElse(t *testing.T) {
	f := newFixture(t)
	for _, path := range []string{"/v3/organizations?order_by=name",
		"/v3/spaces?organization_guids=a&order_by=name&include=x"} {
		a := f.want(t, 200, "GET", path, "")
		if !strings.Contains(a.Body, `"total_results":0,"total_pages":1`) || !strings.Contains(a.Body, `"resources":[]`) {
			t.Errorf("%s: %s", path, a.Body)
		}
	}
	for query, included := range map[string]string{
		"":                               "",
		"?user_guids=x&types=space_user": "",
		"?include=user":                  `"included":{"users":[]}`,
		"?include=user,space,organization&organization_guids=x": `"included":{"users":[],"organizations":[],"spaces":[]}`,
	} {
		a := f.want(t, 200, "GET", "/v3/roles"+query, "")
		if !strings.Contains(a.Body, `"resources":[]`) || strings.Contains(a.Body, "included") != (included != "") ||
			!strings.Contains(a.Body, included) || strings.Contains(a.Body, "include=user") != (included != "") {
			t.Errorf("/v3/roles%s: %s", query, a.Body)
		}
	}
	f.do(t, "GET", "/v3/roles?include=app", "").refused(t,
		"422 10008 Include has an invalid resource: 'app'. Valid ones are: 'user', 'organization', 'space'")
	f.do(t, "GET", "/v3/roles/some", "").refused(t, "404 10010 Role not found")
	f.do(t, "POST", "/v3/roles", `{"type":"space_developer"}`).refused(t,
		"422 10008 Roles are not offered here: there are no organizations and spaces")
	f.do(t, "GET", "/v3/organizations?per_page=0", "").refused(t, "422 10008 Per page must be a positive integer")
	f.do(t, "GET", "/v3/organizations/some/users", "").refused(t, "404 10010 Organization not found")
	f.do(t, "GET", "/v3/spaces/some/users", "").refused(t, "404 10010 Space not found")

	for _, request := range []string{
		"GET /v3/apps", "GET /v3/", "GET /v3/users/", "GET /v3/users/a/b", "PUT /v3/users/a", "DELETE /v3/users",
		"POST /v3/jobs/a",
		"OPTIONS /v3/users", "POST /", "POST /v3", "GET /v2/info", "GET /nowhere",
	} {
		method, path, _ := strings.Cut(request, " ")
		a := f.do(t, method, path, "")
		if a.refused(t, unknownRequest); a.Header.Get("Allow") != "" {
			t.Errorf("%s: there is an Allow", request)
		}
		want := unauthenticated
		if !strings.HasPrefix(path, "/v3") {
			want = unknownRequest
		}
		f.as(t, "", method, path, "").refused(t, want)
	}
	if a := f.as(t, "", "GET", "/v3/users", ""); a.Header.Get("WWW-Authenticate") != "Bearer" {
		t.Errorf("WWW-Authenticate is %q", a.Header.Get("WWW-Authenticate"))
	}
}

func TestSignIn(t *testing.T) {
	f := newFixture(t)
	token := f.tokens["root"]
	for _, test := range []struct{ authorization, want string }{
		{"", unauthenticated},
		{"Basic cm9vdDpyb290LXBhc3N3b3Jk", unauthenticated}, // root:root-password
		{"bearer", unauthenticated},
		{"bearer ", unauthenticated},
		{token, unauthenticated},
		{"bearer x", badToken},
		{"BEARER " + token + "x", badToken},
		{"bearer " + strings.ToLower(token), badToken},
	} {
		headers := []string{"Authorization: " + test.authorization}
		if test.authorization == "" {
			headers = nil
		}
		f.send(t, "GET", "/v3/users/x", "", headers...).refused(t, test.want)
	}
	for _, scheme := range []string{"bearer", "Bearer", "BEARER"} {
		f.send(t, "GET", "/v3/users/x", "", "Authorization: "+scheme+" "+token).refused(t, notFound)
	}
}

func TestHeaders(t *testing.T) {
	f := newFixture(t)
	for _, test := range []struct{ header, want string }{
		{"", ""},
		{"X-Vcap-Request-Id: abc_D-1", "abc_D-1::"},
		{"X-Request-Id: a b\"c<", "abc::"},
	} {
		var headers []string
		if test.header != "" {
			headers = []string{test.header}
		}
		a := f.do(t, "GET", "/v3/users/x", "", headers...)
		if got, want := a.Header.Get("X-Vcap-Request-Id"), test.want+a.Header.Get("X-Request-Id"); got != want {
			t.Errorf("%s: got %q, want %q", test.header, got, want)
		}
		if got := a.Header.Get("Content-Type"); got != "application/json; charset=utf-8" {
			t.Errorf("Content-Type is %q", got)
		}
		if a.Header.Get("X-RateLimit-Limit") != "" {
			t.Error("there is a limit")
		}
	}
}

func TestLimits(t *testing.T) {
	f := fixtureOn(t, servicetest.Shared(t), 1) // two at once
	a := f.do(t, "GET", "/v3/users/x", "")
	if a.Header.Get("X-RateLimit-Limit") != "2" || a.Header.Get("X-RateLimit-Remaining") != "1" ||
		len(a.Header.Get("X-RateLimit-Reset")) != 10 {
		t.Errorf("got %v", a.Header)
	}
	f.do(t, "GET", "/v3/users/x", "")
	a = f.do(t, "GET", "/v3/users/x", "")
	if a.refused(t, "429 10013 Rate Limit Exceeded"); a.Header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After is %q", a.Header.Get("Retry-After"))
	}
	f.as(t, "", "GET", "/v3/users", "")
	f.as(t, "", "GET", "/v3/users", "")
	const limited = "429 10014 Rate Limit Exceeded: Unauthenticated requests from this IP address have exceeded the limit. " +
		"Please log in."
	for _, path := range []string{"/v3/users", "/", "/v3", "/v3/info"} {
		f.as(t, "", "GET", path, "").refused(t, limited)
	}
	a = f.send(t, "GET", "/v3/users", "", "Authorization: bearer rolecall_pat_"+strings.Repeat("0", 32)+"_"+strings.Repeat("0",
		40))
	if a.refused(t, limited); a.Header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After is %q", a.Header.Get("Retry-After"))
	}
}

// The table of permissions. Callers differ by their scopes; each looks at itself and at somebody else.
func TestPermissions(t *testing.T) {
	f := newFixture(t)
	const read, write = account.ScopeRead, account.ScopeWrite
	all := "422 10008 Guid or 'username' and 'origin' must be provided" // what an admin is told of an empty body
	for _, caller := range []struct {
		name              string
		scopes            []string
		get, patch, del   string // of somebody else
		getSelf           string
		patchAbsent       string
		deleteAbsent      string
		post              string
		patchSelfIfForced string
	}{
		{"perm-admin", []string{account.ScopeAdmin}, "200", "200", "202", "200", notFound, notFoundDelete, all, "200"},
		{"perm-readonly-write", []string{account.ScopeAdminReadOnly, write}, "200", forbidden, forbidden, "200", notFound,
			notFoundDelete, forbidden, forbidden},
		{"perm-readonly", []string{account.ScopeAdminReadOnly}, "200", forbidden, forbidden, "200", forbidden, forbidden,
			forbidden, forbidden},
		{"perm-auditor-write", []string{account.ScopeAuditor, write}, "200", forbidden, forbidden, "200", notFound, notFoundDelete,
			forbidden, forbidden},
		{"perm-auditor", []string{account.ScopeAuditor}, "200", forbidden, forbidden, "200", forbidden, forbidden, forbidden,
			forbidden},
		{"perm-both", []string{read, write}, notFound, notFound, notFoundDelete, "200", notFound, notFoundDelete, forbidden,
			forbidden},
		{"perm-read", []string{read}, notFound, forbidden, forbidden, "200", forbidden, forbidden, forbidden, forbidden},
		{"perm-write", []string{write}, forbidden, notFound, notFoundDelete, forbidden, notFound, notFoundDelete, forbidden,
			forbidden},
		{"perm-none", nil, forbidden, forbidden, forbidden, forbidden, forbidden, forbidden, forbidden, forbidden},
		{"", nil, unauthenticated, unauthenticated, unauthenticated, unauthenticated, unauthenticated, unauthenticated,
			unauthenticated, unauthenticated},
	} {
		t.Run(caller.name, func(t *testing.T) {
			self := "self"
			if caller.name != "" {
				self = f.person(t, caller.name, caller.scopes...)
			}
			other := "perm-other-of-" + caller.name
			f.made(t, other, nil)
			check := func(want, method, path, body string) {
				t.Helper()
				a := f.as(t, caller.name, method, path, body)
				if len(want) > 3 {
					a.refused(t, want)
				} else if fmt.Sprint(a.Status) != want {
					t.Errorf("%s %s: got %d %s, want %s", method, path, a.Status, a.Body, want)
				}
			}
			check(caller.get, "GET", at(other), "")
			check(caller.getSelf, "GET", at(self), "")
			check(caller.patch, "PATCH", at(other), `{}`)
			check(caller.patchSelfIfForced, "PATCH", at(self), `{}`)
			check(caller.patchAbsent, "PATCH", at("absent"), `{}`)
			check(caller.deleteAbsent, "DELETE", at("absent"), "")
			check(caller.post, "POST", "/v3/users", `{}`)
			check(caller.del, "DELETE", at(other), "")

			// A list has what can be got.
			want := map[string]string{"200": "200", forbidden: forbidden, unauthenticated: unauthenticated}[caller.getSelf]
			a := f.as(t, caller.name, "GET", "/v3/users?guids="+self+",perm-stays", "")
			if want != "200" {
				a.refused(t, want)
				return
			}
			var list struct{ Resources []user }
			a.Into(t, &list)
			if len(list.Resources) != 1 || list.Resources[0].GUID != self {
				t.Errorf("the list has %v", list.Resources)
			}
		})
	}
	// Others see nobody but themselves in a list without filters, too.
	var list struct {
		Pagination struct {
			Total int `json:"total_results"`
		}
	}
	if f.as(t, "perm-both", "GET", "/v3/users", "").Into(t, &list); list.Pagination.Total != 1 {
		t.Errorf("somebody without scopes for it sees %d users", list.Pagination.Total)
	}
	for _, row := range f.AuditRows(t, "perm-other-of-perm-auditor") {
		if row.Action != "account.create" && row.Action != "account.update" && row.Action != "account.delete" {
			t.Errorf("unexpected: %+v", row)
		}
	}
	denied := 0
	for _, row := range f.AuditRows(t, "perm-other-of-perm-readonly-write") {
		if row.Outcome == "denied" {
			denied++
		}
	}
	if denied != 2 {
		t.Errorf("%d denied changes are recorded, want two", denied)
	}
}
