package dbaas_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"rolecall/internal/apitest"
	"rolecall/internal/dbaas"
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
	guid string // of root, the admin
}

// newFixture is a server on the shared service.
func newFixture(t testing.TB) *fixture { return fixtureOn(t, servicetest.Shared(t), 10_000) }

// fixtureOn is a server whose limits are so many requests a second.
func fixtureOn(t testing.TB, s *servicetest.Service, limit float64) *fixture {
	t.Helper()
	client := apitest.Load(t, "dbaas.yaml").Serve(t, &web.Edge{Handler: newAPI(s, limit),
		Log: slog.New(slog.NewTextHandler(s.Log, nil))})
	guid, err := s.Identity.GUID(t.Context(), "root")
	if err != nil {
		t.Fatal(err)
	}
	return &fixture{s, client, guid}
}

func newAPI(s *servicetest.Service, limit float64) *door.Handler {
	return (&dbaas.API{
		Users:     s.Users,
		PublicURL: servicetest.PublicURL,
		Door:      s.Door(limit),
	}).Handler()
}

// ownService is for tests that break the service: nothing of it is shared.
func ownService(t testing.TB) *servicetest.Service {
	t.Helper()
	s := servicetest.New(t, pgtest.Shared(t))
	s.Admin(t, "root")
	return s
}

// register registers a cluster under its administrator and returns its id.
func (f *fixture) register(t testing.TB, displayName string, pg *pgtest.Cluster) string {
	t.Helper()
	role, password := servicetest.Administrator(t, pg)
	return f.Register(t, displayName, pg, role, password)
}

// administrator is the administering role of the cluster; least says that it may no more than it must.
func (f *fixture) administrator(t testing.TB) (role string, least bool) {
	t.Helper()
	role, _ = servicetest.Administrator(t, f.PG)
	return role, role != f.PG.User
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
		headers = append(headers, "Authorization: "+basic(username, username+"-password"))
	}
	return f.send(t, method, f.URL+dbaas.Prefix+path, body, headers...)
}

// send sends a request to a URL of the server.
func (f *fixture) send(t testing.TB, method, url, body string, headers ...string) answer {
	t.Helper()
	return answer{f.Send(t, method, strings.TrimPrefix(url, f.URL), body, headers...)}
}

func basic(username, password string) string {
	req := &http.Request{Header: http.Header{}}
	req.SetBasicAuth(username, password)
	return req.Header.Get("Authorization")
}

// users is the path of the cluster's users, or of one of them.
func (f *fixture) users(name ...string) string {
	path := "/clusters/" + f.ClusterID + "/users"
	for _, n := range name {
		path += "/" + url.PathEscape(n)
	}
	return path
}

// want sends a request as root and fails the test unless its answer has the status.
func (f *fixture) want(t testing.TB, status int, method, path, body string, headers ...string) answer {
	t.Helper()
	a := f.do(t, method, path, body, headers...)
	if a.Status != status {
		t.Fatalf("%s %s %s: got %d, want %d: %s", method, path, body, a.Status, status, a.Body)
	}
	return a
}

// refuses sends a request as root and fails the test unless it is refused with the code, which implies the status. It
// returns the message.
func (f *fixture) refuses(t testing.TB, code, method, path, body string, headers ...string) string {
	t.Helper()
	return f.do(t, method, path, body, headers...).refused(t, code)
}

var statuses = map[string]int{
	"paas-parse-1": 400, "paas-auth-1": 401, "paas-auth-2": 403, "paas-notfound-1": 404, "paas-method-1": 405,
	"paas-stale-1": 412, "paas-toolarge-1": 413, "paas-media-1": 415, "paas-validation-1": 422, "paas-conflict-1": 422,
	"paas-inuse-1": 422, "paas-rate-1": 429, "paas-internal-1": 500, "paas-unavailable-1": 503,
}

func (a answer) refused(t testing.TB, code string) (message string) {
	t.Helper()
	return a.fails(t, statuses[code], code)
}

// fails is refused with a status that is not the code's own.
func (a answer) fails(t testing.TB, status int, code string) (message string) {
	t.Helper()
	var envelope struct {
		HTTPStatus int
		Messages   []struct{ ErrorCode, Message string }
	}
	a.Into(t, &envelope)
	if a.Status != status || envelope.HTTPStatus != a.Status || len(envelope.Messages) != 1 ||
		envelope.Messages[0].ErrorCode != code {
		t.Errorf("got %d %s, want %d %s", a.Status, a.Body, status, code)
		return ""
	}
	return envelope.Messages[0].Message
}

// The resources as a client reads them.
type resource struct {
	Type, ID, Href string
	Metadata       metadata
	Properties     struct {
		Username, Name, Owner, Password string
		System                          *bool
	}
}

type metadata struct {
	CreatedBy, CreatedByUserID, CreatedDate                string
	LastModifiedBy, LastModifiedByUserID, LastModifiedDate string
	ResourceURN                                            string
}

type list struct {
	Type, ID, Href string
	Items          []resource
	Offset, Limit  int
	Links          links `json:"_links"`
}

type links struct{ Prev, Self, Next string }

func (l list) names() []string {
	names := []string{}
	for _, item := range l.Items {
		names = append(names, item.Properties.Username+item.Properties.Name)
	}
	return names
}

// local is where the test reaches an absolute URL of an answer.
func (f *fixture) local(t testing.TB, href string) string {
	t.Helper()
	path, ok := strings.CutPrefix(href, servicetest.PublicURL+dbaas.Prefix)
	if !ok {
		t.Fatalf("%s is not below %s", href, servicetest.PublicURL+dbaas.Prefix)
	}
	return path
}

const password = "a-good-password"

func userBody(name, password string) string {
	b, _ := json.Marshal(map[string]any{"properties": map[string]string{"username": name, "password": password}})
	return string(b)
}

func passwordBody(password string) string {
	b, _ := json.Marshal(map[string]any{"properties": map[string]string{"password": password}})
	return string(b)
}

// create makes a user.
func (f *fixture) create(t testing.TB, name string) answer {
	t.Helper()
	return f.want(t, 200, "POST", f.users(), userBody(name, password))
}
