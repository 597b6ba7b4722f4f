package e2e

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// The exchanges below are those that the real clients make; they were recorded.

type response struct {
	status int
	header http.Header
	body   string
}

// resource is what clients read of any answer.
type resource struct {
	Type, ID, Href string
	Metadata       struct{ State string }
	Properties     struct {
		Username, Password, Name, Owner string
		System                          *bool
	}
	Items []resource
	Data  []struct{ Name string }
}

func (r response) resource(t *testing.T) (v resource) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.body), &v); err != nil {
		t.Fatalf("%d %s: %v", r.status, r.body, err)
	}
	return v
}

// send sends a request to a path of the shared server, or to a whole URL. Admin's token is added unless the header has
// an Authorization.
func send(t *testing.T, method, path string, header map[string]string, body string) response {
	t.Helper()
	if !strings.HasPrefix(path, "http") {
		path = shared.env["ROLECALL_URL"] + path
	}
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, path, reader)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+shared.env["IONOS_TOKEN"])
	for name, value := range header {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response{resp.StatusCode, resp.Header, string(text)}
}

// client sends what one client sends.
type client struct {
	*testing.T
	header   map[string]string
	withBody map[string]string // headers of requests with a body
}

func (c client) does(want int, method, path, body string) response {
	c.Helper()
	header := maps.Clone(c.header)
	if body != "" {
		maps.Copy(header, c.withBody)
	}
	r := send(c.T, method, path, header, body)
	if r.status != want {
		c.Errorf("%s %s: %d %s, want %d", method, path, r.status, r.body, want)
	}
	if strings.Contains(r.body, `"password`) && want < 300 {
		c.Errorf("%s %s: the answer speaks of a password: %s", method, path, r.body)
	}
	return r
}

const prefix = "/databases/postgresql"

func clusterPath() string { return prefix + "/clusters/" + shared.cluster() }

func TestIonosctl(t *testing.T) {
	t.Parallel()
	c := client{t, map[string]string{"User-Agent": "sdk-go-bundle/products/dbaas/psql/v2.0.5", "Accept": "application/json",
		"Connection": "close"},
		map[string]string{"Content-Type": "application/json"}}
	users := clusterPath() + "/users"

	// user create -w: the call, its href, the cluster until it is available, the href again.
	created := c.does(200, "POST", users, `{"properties":{"password":"first password","username":"CLI-User-Ab12"}}`)
	if created.header.Get("Location") != "" {
		t.Error("the answer has a Location, which ionosctl would poll until it times out")
	}
	href := created.resource(t).Href
	if got := c.does(200, "GET", href+"?depth=1", "").resource(t); got.ID == "" || got.ID != created.resource(t).ID {
		t.Errorf("the resource at its href is %q", got.ID)
	}
	if state := c.does(200, "GET", clusterPath()+"?depth=1", "").resource(t).Metadata.State; state != "AVAILABLE" {
		t.Errorf("the cluster is %s", state)
	}
	c.does(200, "GET", href+"?depth=1", "")
	shared.login(t, "CLI-User-Ab12", "first password")

	// user list, with a cluster, with --system and without a cluster.
	has := func(r response, name string) bool {
		for _, u := range r.resource(t).Items {
			if u.Properties.Username == name && u.ID != "" && u.Properties.System != nil {
				return true
			}
		}
		return false
	}
	if list := c.does(200, "GET", users+"?system=false", ""); !has(list, "CLI-User-Ab12") || has(list, "postgres") {
		t.Errorf("users: %s", list.body)
	}
	if list := c.does(200, "GET", users+"?system=true", ""); !has(list, "CLI-User-Ab12") || !has(list, "postgres") {
		t.Errorf("users with system users: %s", list.body)
	}
	clusters := c.does(200, "GET", prefix+"/clusters", "").resource(t)
	for _, item := range clusters.Items {
		if !has(c.does(200, "GET", prefix+"/clusters/"+item.ID+"/users?system=false", ""), "CLI-User-Ab12") {
			t.Errorf("the users of cluster %s lack the new one", item.ID)
		}
	}

	c.does(200, "GET", users+"/CLI-User-Ab12", "")
	c.does(200, "PATCH", users+"/CLI-User-Ab12", `{"properties":{"password":"second password"}}`)
	shared.login(t, "CLI-User-Ab12", "second password")
	shared.refused(t, "CLI-User-Ab12", "first password")

	databases := clusterPath() + "/databases"
	c.does(200, "POST", databases, `{"properties":{"name":"test-dbname-Ab12","owner":"CLI-User-Ab12"}}`)
	if got := c.does(200, "GET", databases+"/test-dbname-Ab12", "").resource(t); got.Properties.Owner != "CLI-User-Ab12" {
		t.Errorf("the database belongs to %q", got.Properties.Owner)
	}
	c.does(200, "GET", databases, "")
	if r := c.does(422, "DELETE", users+"/CLI-User-Ab12", ""); !strings.Contains(r.body, "test-dbname-Ab12") {
		t.Errorf("the refusal does not name the database: %s", r.body)
	}
	c.does(204, "DELETE", databases+"/test-dbname-Ab12", "")
	if r := c.does(204, "DELETE", users+"/CLI-User-Ab12", ""); r.body != "" {
		t.Errorf("204 with a body: %s", r.body)
	}
	c.does(404, "DELETE", users+"/CLI-User-Ab12", "")

	c.does(200, "GET", prefix+"/clusters?filter.name=local", "")
	if v := c.does(200, "GET", prefix+"/clusters/postgresversions", "").resource(t); len(v.Data) == 0 {
		t.Error("version list is empty")
	}
}

func TestTerraform(t *testing.T) {
	t.Parallel()
	c := client{t, map[string]string{
		"User-Agent": "terraform-provider/6.7.0_" +
			"ionos-cloud-sdk-go-dbaas-postgres/products/dbaas/psql/v2.1.0_hashicorp-terraform/1.11.4",
		"Accept": "application/json"},
		map[string]string{"Content-Type": "application/json"}}
	users, databases := clusterPath()+"/users", clusterPath()+"/databases"
	available := func() {
		t.Helper()
		// A cluster without a state would leave the user tainted.
		if state := c.does(200, "GET", clusterPath(), "").resource(t).Metadata.State; !strings.EqualFold(state, "AVAILABLE") {
			t.Errorf("the cluster is %q", state)
		}
	}
	reads := func(r response) {
		t.Helper()
		if u := r.resource(t); u.ID == "" || u.Properties.Username != "tf_user" || u.Properties.System == nil ||
			*u.Properties.System {
			t.Errorf("Terraform's state would be wrong: %s", r.body)
		}
	}
	// apply
	reads(c.does(200, "POST", users, `{"properties":{"password":"first password","username":"tf_user","system":false}}`))
	available()
	c.does(200, "POST", databases, `{"properties":{"name":"tf_db","owner":"tf_user"}}`)
	// plan
	reads(c.does(200, "GET", users+"/tf_user", ""))
	c.does(200, "GET", databases+"/tf_db", "")
	c.does(200, "GET", clusterPath()+"/versions", "")
	// apply with another password
	reads(c.does(200, "PATCH", users+"/tf_user", `{"properties":{"password":"second password"}}`))
	available()
	shared.login(t, "tf_user", "second password")
	shared.refused(t, "tf_user", "first password")
	// destroy, where the user and its database go at once: the user may be refused, and is then destroyed once more.
	var wg sync.WaitGroup
	wg.Go(func() { c.does(204, "DELETE", databases+"/tf_db", "") })
	var first response
	wg.Go(func() { first = send(t, "DELETE", shared.env["ROLECALL_URL"]+users+"/tf_user", c.header, "") })
	wg.Wait()
	switch first.status {
	case http.StatusNoContent:
	case http.StatusUnprocessableEntity:
		c.does(204, "DELETE", users+"/tf_user", "")
	default:
		t.Errorf("DELETE of a user while its database is deleted: %d %s", first.status, first.body)
	}
	c.does(404, "GET", users+"/tf_user", "")
	c.does(404, "GET", databases+"/tf_db", "")
	// what plan asks about a cluster that is gone
	c.does(404, "GET", prefix+"/clusters/00000000-0000-4000-8000-000000000000/users/tf_user", "")
}

func TestPythonSDK(t *testing.T) {
	t.Parallel()
	// It sends a Content-Type with every request, and leaves a slash in a name as it is.
	c := client{t, map[string]string{"User-Agent": "ionos-cloud-sdk-python/1.2.0", "Accept": "application/json",
		"Content-Type": "application/json"}, nil}
	users := clusterPath() + "/users"
	u := c.does(200, "POST", users, `{"properties": {"username": "a/b c\u00e9", "password": "first password"}}`).resource(t)
	if u.Properties.Username != "a/b cé" {
		t.Errorf("made %q", u.Properties.Username)
	}
	path := users + "/a/b%20c%C3%A9"
	if got := c.does(200, "GET", path, "").resource(t); got.ID != u.ID {
		t.Errorf("got %q", got.Properties.Username)
	}
	for query, system := range map[string]bool{"?system=False": false, "?system=True": true,
		"?limit=1000&offset=0&system=True": true} {
		listed := false
		for _, item := range c.does(200, "GET", users+query, "").resource(t).Items {
			listed = listed || item.Properties.Username == "postgres"
		}
		if listed != system {
			t.Errorf("users%s: system users are listed: %t", query, listed)
		}
	}
	c.does(200, "PATCH", path, `{"properties": {"password": "second password"}}`)
	shared.login(t, "a/b cé", "second password")
	c.does(204, "DELETE", path, "")
	c.does(404, "GET", path, "")
}
