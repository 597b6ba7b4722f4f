package dbaas_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"rolecall/internal/pgtest"
)

func databaseBody(name, owner string) string {
	b, _ := json.Marshal(map[string]any{"properties": map[string]string{"name": name, "owner": owner}})
	return string(b)
}

func TestDatabases(t *testing.T) {
	t.Parallel() // PostgreSQL waits 5 seconds before it calls a database in use
	f := newFixture(t).ownCluster(t, nil)
	databases := "/clusters/" + f.ClusterID + "/databases"
	f.create(t, "db-owner")
	f.PG.Exec(t, `CREATE DATABASE "by sql"`)
	for _, name := range []string{"Upper", "we/ird né", `quo"te'`, ";drop database postgres", strings.Repeat("é", 31)} {
		a := f.want(t, 200, "POST", databases, databaseBody(name, "db-owner"))
		var d resource
		a.Into(t, &d)
		if want := uuid.NewSHA1(uuid.MustParse(f.ClusterID), []byte("databases/"+name)).String(); d.Type != "database" ||
			d.ID != want || d.Properties.Name != name || d.Properties.Owner != "db-owner" || d.Metadata.CreatedByUserID != f.guid {
			t.Errorf("got %s", a.Body)
		}
		if got := f.want(t, 200, "GET", f.local(t, d.Href), ""); got.Body != a.Body {
			t.Errorf("POST answered\n%s, GET\n%s", a.Body, got.Body)
		}
		f.refuses(t, "paas-conflict-1", "POST", databases, databaseBody(name, "db-owner"))
	}
	session := f.PG.Connect(t, "db-owner", password, "Upper")
	mustExec(t, session, `CREATE TABLE t()`)
	f.refuses(t, "paas-inuse-1", "DELETE", databases+"/Upper", "")
	mustExec(t, session, `SELECT FROM t`)
	var l list
	a := f.want(t, 200, "GET", databases, "")
	a.Into(t, &l)
	want := []string{";drop database postgres", "Upper", "by sql", "postgres", `quo"te'`, "we/ird né", strings.Repeat("é", 31)}
	if !slices.Equal(l.names(), want) || l.Links.Next+l.Links.Prev != "" || l.Type != "collection" || l.Limit != 100 {
		t.Errorf("got %s", a.Body)
	}
	var page list
	f.want(t, 200, "GET", databases+"?limit=2&offset=2", "").Into(t, &page)
	if !slices.Equal(page.names(), want[2:4]) || !strings.HasSuffix(page.Links.Next, "?limit=2&offset=4") ||
		!strings.HasSuffix(page.Links.Prev, "?limit=2&offset=0") {
		t.Errorf("got %+v", page)
	}
	by := func(name string) string {
		i := slices.IndexFunc(l.Items, func(r resource) bool { return r.Properties.Name == name })
		return strings.TrimPrefix(l.Items[i].Metadata.CreatedBy, "rolecall:iam:cloud::users/")
	}
	if got := []string{by("Upper"), by("by sql"), by("postgres")}; !slices.Equal(got,
		[]string{f.guid, "_unmanaged_", "_system_"}) {
		t.Errorf("created by %q", got)
	}

	for body, code := range map[string]string{
		databaseBody("x", "not-there"):                    "paas-validation-1",
		databaseBody("x", ""):                             "paas-validation-1",
		databaseBody("x", strings.Repeat("x", 64)):        "paas-validation-1",
		databaseBody("x", "postgres"):                     "paas-auth-2",
		databaseBody("", "db-owner"):                      "paas-validation-1",
		databaseBody("x\u200b", "db-owner"):               "paas-validation-1",
		databaseBody("..", "db-owner"):                    "paas-validation-1",
		databaseBody("a\x00b", "db-owner"):                "paas-validation-1",
		databaseBody("template1", "db-owner"):             "paas-validation-1",
		databaseBody(strings.Repeat("é", 32), "db-owner"): "paas-validation-1",
		`{"properties":{"name":"x"}}`:                     "paas-validation-1",
		`{"properties":{"owner":"db-owner"}}`:             "paas-validation-1",
		`{"properties":{"name":1,"owner":"db-owner"}}`:    "paas-validation-1",
		`{"properties":{"name":"x","owner":null}}`:        "paas-validation-1",
		`{"name":"x","owner":"db-owner"}`:                 "paas-validation-1",
	} {
		f.refuses(t, code, "POST", databases, body)
	}
	if pgtest.Value[bool](t, f.PG, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = 'x')`) {
		t.Error("a refused database is there")
	}
	for name, code := range map[string]string{"postgres": "paas-auth-2", "template1": "paas-notfound-1",
		"not-there": "paas-notfound-1", strings.Repeat("x", 64): "paas-notfound-1"} {
		f.refuses(t, code, "DELETE", databases+"/"+name, "")
	}
	f.refuses(t, "paas-auth-2", "DELETE", databases+"/by%20sql", "") // of the superuser, with data that nobody here made
	f.PG.Exec(t, `ALTER DATABASE "by sql" OWNER TO "db-owner"`)
	if r := f.do(t, "DELETE", databases+"/by%20sql", "", `If-Match: "a-tag"`); r.Status != 412 {
		t.Errorf("with a tag that it does not have: %d %s", r.Status, r.Body)
	}
	if r := f.do(t, "DELETE", databases+"/by%20sql", "", "If-Match: *"); r.Status != 204 {
		t.Errorf("with the condition that it is there: %d %s", r.Status, r.Body)
	}
	f.refuses(t, "paas-notfound-1", "DELETE", databases+"/by%20sql", "")
	f.want(t, 204, "DELETE", databases+"/we/ird%20n%C3%A9", "")
}

// Rolecall's own database is nobody's business, in the cluster where it lies.
func TestControlDatabaseIsHidden(t *testing.T) {
	f := newFixture(t)
	databases := "/clusters/" + f.ClusterID + "/databases"
	own := f.DB.Identity.Database
	var l list
	f.want(t, 200, "GET", databases+"?limit=1000", "").Into(t, &l)
	if slices.Contains(l.names(), own) || !slices.Contains(l.names(), "postgres") {
		t.Errorf("the list has %q", l.names())
	}
	f.create(t, "hidden-owner")
	f.refuses(t, "paas-notfound-1", "GET", databases+"/"+own, "")
	f.refuses(t, "paas-notfound-1", "DELETE", databases+"/"+own, "")
	f.refuses(t, "paas-validation-1", "POST", databases, databaseBody(own, "hidden-owner"))
}
