package adminapi_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"rolecall/api"
	"rolecall/internal/adminapi"
	"rolecall/internal/apitest"
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
}

// newFixture has a service of its own, with the admin root: what is registered in one test must not be there in another.
func newFixture(t testing.TB) *fixture {
	t.Helper()
	s := servicetest.New(t, pgtest.Shared(t))
	s.Admin(t, "root")
	return fixtureOn(t, s, 10_000)
}

// fixtureOn is a server whose limits are so many requests a second.
func fixtureOn(t testing.TB, s *servicetest.Service, limit float64) *fixture {
	t.Helper()
	edge := &web.Edge{Handler: newAPI(s, limit), Log: slog.New(slog.NewTextHandler(s.Log, nil))}
	return &fixture{s, apitest.Load(t, "rolecall.yaml").Serve(t, edge)}
}

func newAPI(s *servicetest.Service, limit float64) *door.Handler {
	return (&adminapi.API{
		Accounts:    s.Accounts,
		Users:       s.Users,
		Fleet:       s.Fleet,
		Idempotency: s.Idempotency,
		Identity:    s.Identity,
		Version:     "test",
		Events:      s.Events,
		PublicURL:   servicetest.PublicURL,
		Door:        s.Door(limit),
	}).Handler()
}

// answer is a response, its body read.
type answer struct{ apitest.Answer }

// do sends a request as root, the admin. path is below the prefix; headers are "Name: value".
func (f *fixture) do(t testing.TB, method, path, body string, headers ...string) answer {
	t.Helper()
	return f.as(t, "root", method, path, body, headers...)
}

// as sends a request as an account, or as nobody when username is empty.
func (f *fixture) as(t testing.TB, username, method, path, body string, headers ...string) answer {
	t.Helper()
	if username != "" {
		req := &http.Request{Header: http.Header{}}
		req.SetBasicAuth(username, username+"-password")
		headers = append(headers, "Authorization: "+req.Header.Get("Authorization"))
	}
	return answer{f.Send(t, method, adminapi.Prefix+path, body, headers...)}
}

// want sends a request as root and fails the test unless its answer has the status.
func (f *fixture) want(t testing.TB, status int, method, path, body string, headers ...string) answer {
	t.Helper()
	a := f.do(t, method, path, body, headers...)
	if a.Status != status {
		log := f.Log.String()
		t.Fatalf("%s %s %s: got %d, want %d: %s\n%s", method, path, body, a.Status, status, a.Body, log[max(0, len(log)-1000):])
	}
	return a
}

// refused fails the test unless the answer is a problem of the status whose detail has all the parts.
func (a answer) refused(t testing.TB, status int, parts ...string) {
	t.Helper()
	var p struct {
		Title, Detail, RequestID string
		Status                   int
	}
	a.Into(t, &p)
	if a.Status != status || p.Status != status || p.RequestID == "" || p.RequestID != a.Header.Get("X-Request-Id") {
		t.Errorf("got %d %s, want %d", a.Status, a.Body, status)
	}
	for _, part := range parts {
		if !strings.Contains(p.Detail, part) {
			t.Errorf("the detail lacks %q: %s", part, p.Detail)
		}
	}
}

// clusterResource is a cluster as a client reads it.
type clusterResource struct {
	ID, DisplayName, Location, Version, State string
	Reachable                                 bool
	LastError                                 *string
	Capabilities                              struct {
		Role                   string
		Superuser, ManageUsers bool
		Problems               []string
	}
	Access                           struct{ Manage, View []string }
	SystemRoles, MemberOf, Grantable []string
	Connection                       *struct {
		URL, SystemIdentifier string
		TLS                   struct {
			Mode           string
			AllowPlaintext bool
		}
	}
	MayManage            bool
	CreatedAt, UpdatedAt string
}

const rolePassword = "administering-password"

// role makes a role that can log in with rolePassword.
func role(t testing.TB, pg *pgtest.Cluster, name, attributes string) string {
	t.Helper()
	pg.Exec(t, fmt.Sprintf(`CREATE ROLE %s LOGIN %s PASSWORD '%s'`, name, attributes, rolePassword))
	return name
}

// registration is the body that registers pg under a role, with more fields.
func registration(displayName string, pg *pgtest.Cluster, role, more string) string {
	return connection(displayName, fmt.Sprintf("postgres://%s@127.0.0.1:%d/postgres", role, pg.Port), rolePassword, more)
}

func connection(displayName, url, password, more string) string {
	return fmt.Sprintf(`{"displayName":%q,"connection":{"url":%q,"password":%q,"tls":{"mode":"disable"}}%s}`, displayName, url,
		password, more)
}

// register registers pg, with a role of its own, and returns the id.
func (f *fixture) register(t testing.TB, displayName string, pg *pgtest.Cluster, more string) (c clusterResource) {
	t.Helper()
	administering := role(t, pg, "adm_"+strconv.FormatInt(int64(len(displayName)), 10)+"_"+strings.ToLower(displayName),
		"CREATEROLE CREATEDB")
	f.want(t, 201, "POST", "/clusters", registration(displayName, pg, administering, more)).Into(t, &c)
	return c
}

// Every route has exactly one operation in the document, and the other way round.
func TestParity(t *testing.T) {
	var routes, operations []string
	for _, r := range (&adminapi.API{}).Handler().Routes() {
		routes = append(routes, fmt.Sprintf("%s %s public=%t", r.Method, strings.ReplaceAll(r.Pattern, "...}", "}"), r.Public))
	}
	for _, op := range apitest.Load(t, "rolecall.yaml").Operations() {
		operations = append(operations, fmt.Sprintf("%s %s public=%t", op.Method, op.Path, op.Public))
	}
	slices.Sort(routes)
	slices.Sort(operations)
	if !slices.Equal(routes, operations) {
		t.Errorf("routes:\n%s\noperations:\n%s", strings.Join(routes, "\n"), strings.Join(operations, "\n"))
	}
}

// To a stranger everything looks the same.
func TestStranger(t *testing.T) {
	f := fixtureOn(t, servicetest.Shared(t), 10_000)
	for _, request := range [][2]string{
		{"GET", ""}, {"GET", "/whoami"}, {"GET", "/clusters"}, {"POST", "/clusters"}, {"GET", "/clusters/" + f.ClusterID},
		{"DELETE", "/clusters/" + f.ClusterID},
		{"POST", "/clusters/" + f.ClusterID + "/rotate-credential"}, {"PUT", "/clusters"}, {"GET", "/nothing"},
	} {
		a := f.as(t, "", request[0], request[1], "{malformed")
		a.refused(t, 401)
		if got := a.Header.Values("WWW-Authenticate"); !slices.Equal(got, []string{`Basic realm="rolecall", charset="UTF-8"`,
			"Bearer"}) {
			t.Errorf("WWW-Authenticate is %q", got)
		}
	}
	f.want(t, 200, "GET", "/whoami", "") // strangers do not keep out who is known
	slow := fixtureOn(t, f.Service, 0.5)
	slow.as(t, "", "GET", "/whoami", "").refused(t, 401)
	slow.as(t, "", "GET", "/whoami", "").refused(t, 429)
	slow.want(t, 200, "GET", "/whoami", "")
	slow.do(t, "GET", "/whoami", "").refused(t, 429)
}

func TestRoutes(t *testing.T) {
	f := fixtureOn(t, servicetest.Shared(t), 10_000)
	for _, path := range []string{"", "/", "/nothing", "/clusters/", "/clusters/x/y", "/clusters/" + f.ClusterID + "/probe/",
		"/WHOAMI"} {
		f.do(t, "GET", path, "").refused(t, 404)
		f.do(t, "DELETE", path, "").refused(t, 404)
	}
	for _, id := range []string{"unknown", "00000000-0000-0000-0000-000000000000", strings.ReplaceAll(f.ClusterID, "-", "")} {
		f.do(t, "GET", "/clusters/"+id, "").refused(t, 404)
		f.do(t, "PATCH", "/clusters/"+id, `{}`).refused(t, 404)
		f.do(t, "DELETE", "/clusters/"+id, "").refused(t, 404)
		f.do(t, "POST", "/clusters/"+id+"/probe", "").refused(t, 404)
		f.do(t, "POST", "/clusters/"+id+"/rotate-credential", "").refused(t, 404)
		f.do(t, "GET", "/clusters/"+id+"/access?account=root", "").refused(t, 404)
	}
	for path, allow := range map[string]string{
		"/clusters":                                       "GET, POST",
		"/clusters/" + f.ClusterID:                        "GET, PATCH, DELETE",
		"/clusters/" + f.ClusterID + "/probe":             "POST",
		"/clusters/" + f.ClusterID + "/rotate-credential": "POST",
		"/whoami": "GET",
		"/clusters/" + f.ClusterID + "/access?account=root": "GET",
	} {
		a := f.do(t, "PUT", path, `{`)
		a.refused(t, 405)
		if got := a.Header.Get("Allow"); got != allow {
			t.Errorf("%s: Allow is %q, want %q", path, got, allow)
		}
	}
	for _, query := range []string{"limit=x", "limit=", "cursor=", "cursor=%21", "x=1", "limit=1&limit=2", "%zz"} {
		f.do(t, "GET", "/clusters?"+query, "").refused(t, 400)
	}
	for _, query := range []string{"limit=0", "limit=1001", "limit=99999999999999999999"} {
		f.do(t, "GET", "/clusters?"+query, "").refused(t, 422)
	}
	f.do(t, "GET", "/whoami?x=1", "").refused(t, 400)
	f.do(t, "GET", "/clusters/"+f.ClusterID+"/access", "").refused(t, 400)
	f.do(t, "GET", "/clusters/"+f.ClusterID+"/access?account=nobody", "").refused(t, 404, "nobody")
}

func TestBodies(t *testing.T) {
	f := fixtureOn(t, servicetest.Shared(t), 10_000)
	patch := "/clusters/" + f.ClusterID
	for body, status := range map[string]int{
		`{`: 400, ``: 400, `{"a":1,"a":2}`: 400, `{} {}`: 400,
		`[]`: 422, `null`: 422, `{"displayName":null}`: 422, `{"displayName":7}`: 422, `{"displayname":"x"}`: 422,
		`{"access":[]}`:                422,
		`{"access":{"manage":"team"}}`: 422, `{"access":{"manage":[null]}}`: 422, `{"access":{"admin":[]}}`: 422,
		`{"connection":{"tls":{"mode":1}}}`:      422,
		`{"connection":{"tls":{"verify":"no"}}}`: 422, `{"id":"x"}`: 422, `{"systemRoles":["a","a"]}`: 422,
		`{"grantable":[""]}`: 422, `{"location":" x"}`: 422,
	} {
		f.do(t, "PATCH", patch, body).refused(t, status)
		f.do(t, "POST", "/clusters", body).refused(t, status)
	}
	f.do(t, "PATCH", patch, `{}`, "Content-Type: text/plain").refused(t, 415)
	f.do(t, "PATCH", patch, `{"displayName":"`+strings.Repeat("x", 300<<10)+`"}`).refused(t, 413)
	f.do(t, "POST", "/clusters", `{"displayName":"x"}`).refused(t, 422, "connection is missing")
	f.do(t, "POST", "/clusters", `{"connection":{"url":"postgres://a@b/c","password":"x"}}`).
		refused(t, 422, "displayName is missing")
	// A field that is not known may hold anything, a password too.
	const secret = "hunter2secret"
	for _, body := range []string{`{"` + secret + `":1}`, `{"connection":{"` + secret + `":1}}`,
		`{"connection":{"password":["` + secret + `"]}}`} {
		a := f.do(t, "PATCH", patch, body)
		a.refused(t, 422)
		if strings.Contains(a.Body+f.Log.String(), secret) {
			t.Errorf("the secret is in %s or in the log", a.Body)
		}
	}
}

// TestFleetSchema: an editor gets the JSON Schema of the fleet file without a credential.
func TestFleetSchema(t *testing.T) {
	f := fixtureOn(t, servicetest.Shared(t), 10_000)
	a := f.as(t, "", "GET", "/fleet.schema.json", "")
	if a.Status != 200 || a.Body != string(api.FleetSchema) || !strings.Contains(a.Body, `"title": "Rolecall fleet file"`) {
		t.Errorf("got %d %.200s", a.Status, a.Body)
	}
}
