package dbaas_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"rolecall/internal/apitest"
	"rolecall/internal/dbaas"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
	"rolecall/internal/web"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// fixture is a server of the dialect whose every exchange is held against the document.
type fixture struct {
	*servicetest.Service
	url    string
	client *http.Client
}

func newFixture(t testing.TB) *fixture { return fixtureOn(t, servicetest.New(t, pgtest.Shared(t))) }

func fixtureOn(t testing.TB, s *servicetest.Service) *fixture {
	s.Admin(t, "root")
	api := (&dbaas.API{
		Users:        s.Users,
		Identity:     s.Identity,
		PublicURL:    servicetest.PublicURL,
		PerPrincipal: &web.Limiter{PerSecond: 10_000},
		PerAddress:   &web.Limiter{PerSecond: 10_000},
	}).Init()
	srv := httptest.NewServer(&web.Edge{Handler: api, Log: slog.New(slog.NewTextHandler(s.Log, nil))})
	t.Cleanup(srv.Close)
	client := srv.Client()
	client.Transport = apitest.Load(t, "dbaas.yaml").Transport(t, client.Transport)
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &fixture{Service: s, url: srv.URL, client: client}
}

// answer is a response, its body read.
type answer struct {
	Status int
	Header http.Header
	Body   string
}

func (a answer) into(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.Body), v); err != nil {
		t.Fatalf("%v in %s", err, a.Body)
	}
}

// do sends a request as root, the admin. path is below the prefix; headers are "Name: value".
func (f *fixture) do(t testing.TB, method, path, body string, headers ...string) answer {
	t.Helper()
	return f.as(t, "root", method, path, body, headers...)
}

func (f *fixture) as(t testing.TB, username, method, path, body string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequest(method, f.url+dbaas.Prefix+path, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	if body == "" {
		req.Body = http.NoBody
	}
	if username != "" {
		req.SetBasicAuth(username, username+"-password")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Add(name, value)
	}
	resp, err := f.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(data)}
}

// users is the path of the cluster's users.
func (f *fixture) users() string { return "/clusters/" + f.ClusterID + "/users" }

func (f *fixture) want(t testing.TB, status int, method, path, body string, headers ...string) answer {
	t.Helper()
	a := f.do(t, method, path, body, headers...)
	if a.Status != status {
		t.Fatalf("%s %s %s: got %d, want %d: %s", method, path, body, a.Status, status, a.Body)
	}
	return a
}

func userBody(name, password string) string {
	b, _ := json.Marshal(map[string]any{"properties": map[string]string{"username": name, "password": password}})
	return string(b)
}

func TestUserLifecycle(t *testing.T) {
	f := newFixture(t)
	a := f.want(t, 200, "POST", f.users(), userBody("life", "first-password"))
	if err := f.PG.Login("life", "first-password"); err != nil {
		t.Fatal(err)
	}
	f.want(t, 200, "GET", f.users()+"/life", "")
	a = f.want(t, 200, "PATCH", f.users()+"/life", `{"properties":{"password":"second-password"}}`, "If-Match: "+a.Header.Get("ETag"))
	if err := f.PG.Login("life", "second-password"); err != nil {
		t.Fatal(err)
	}
	if f.PG.Login("life", "first-password") == nil {
		t.Fatal("the old password still logs in")
	}
	f.want(t, 204, "DELETE", f.users()+"/life", "", "If-Match: "+a.Header.Get("ETag"))
	f.want(t, 404, "DELETE", f.users()+"/life", "")
}
