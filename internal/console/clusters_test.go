package console_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"rolecall/internal/account"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

// clusterSite is a site with a cluster that accounts manage and view by their label team.
type clusterSite struct {
	*site
	Root, Manager, Viewer, Auditor, Nobody *browser
	Path                                   string // of the cluster
}

func newClusterSite(t testing.TB, pg *pgtest.Cluster) *clusterSite {
	t.Helper()
	s := &clusterSite{site: newSite(t, servicetest.New(t, pg))}
	s.Access(t, s.ClusterID, []string{"team=shop"}, []string{"team=desk"})
	s.Path = "/console/clusters/" + s.ClusterID
	s.Admin(t, "root")
	s.Account(t, "manager", account.DefaultScopes, map[string]string{"team": "shop"})
	s.Account(t, "viewer", account.DefaultScopes, map[string]string{"team": "desk"})
	s.Account(t, "auditor", []string{account.ScopeAuditor}, nil)
	s.Account(t, "nobody", account.DefaultScopes, map[string]string{"team": "other"})
	for name, b := range map[string]**browser{"root": &s.Root, "manager": &s.Manager, "viewer": &s.Viewer,
		"auditor": &s.Auditor, "nobody": &s.Nobody} {
		*b = s.signedIn(t, name, name+"-password")
	}
	return s
}

// seal seals what is recorded, so that pages show it.
func (s *clusterSite) seal(t testing.TB) {
	t.Helper()
	if _, err := s.Audit.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestClusterList(t *testing.T) {
	t.Parallel()
	pg := pgtest.New(t, nil)
	s := newClusterSite(t, pg)
	pg.Exec(t, `CREATE ROLE list_a LOGIN; CREATE ROLE list_b LOGIN`)
	other := pgtest.New(t, nil)
	role, password := servicetest.Administrator(t, other)
	far := s.Register(t, "far", other, role, password)
	s.Access(t, far, nil, []string{"team in (desk,shop)"})

	users := ">" + fmt.Sprint(pgtest.Value[int](t, pg, `SELECT count(*) FROM pg_roles WHERE rolname LIKE 'list\__'`)) + "</td>"
	s.Root.get("/console/clusters").is(200).shows("Register a cluster", `href="`+s.Path+`"`, ">manage<", "badge good", "de/fra",
		users)
	s.Manager.get("/console/clusters").is(200).shows(">main<", ">far<", ">manage<", ">view<").hides("Register a cluster")
	s.Viewer.get("/console/clusters").is(200).shows(">main<").hides(">manage<", "Register a cluster")
	s.Manager.get("/console/clusters?name=MAI").is(200).shows(">main<", "Show all").hides(">far<")
	s.Manager.get("/console/clusters?manage=1").is(200).shows(">main<").hides(">far<")
	s.Manager.get("/console/clusters?name=none").is(200).shows("No cluster matches the filter.").hides("<table")

	// A cluster that does not answer stays in the list. Only admins see the error, which names its host.
	other.Stop(t)
	c, err := s.Clusters.Get(far)
	if err != nil {
		t.Fatal(err)
	}
	for c.Health(t.Context()).Reachable {
		if t.Context().Err() != nil {
			t.Fatal("the cluster that was stopped answers")
		}
	}
	address := fmt.Sprintf("127.0.0.1:%d", other.Port)
	s.Root.get("/console/clusters").is(200).shows(">far<", ">Unknown<", "badge warn", address, "not known")
	s.Viewer.get("/console/clusters?state=problem").is(200).shows(">far<", "does not answer, or takes no changes").
		hides(address, ">main<")
	s.Viewer.get("/console/clusters?state=available").is(200).shows(">main<").hides(">far<")
}

// Who may view no cluster learns which labels to ask for, and neither values nor clusters.
func TestNoClusters(t *testing.T) {
	t.Parallel()
	s := newClusterSite(t, pgtest.Shared(t))
	s.Account(t, "unread", nil, map[string]string{"team": "shop"})
	s.Nobody.get("/console/clusters").is(200).shows("No cluster is open to you", "<code>team</code>", "<code>team=other</code>",
		"rolecall accounts label nobody team=").hides(">main<", "shop", "desk", "Register")
	s.signedIn(t, "unread", "unread-password").get("/console/clusters").is(200).
		shows("No cluster is open to you", "cloud_controller.read").hides(">main<", "rolecall accounts label")
	fresh := newSite(t, servicetest.New(t, pgtest.Shared(t)))
	fresh.Admin(t, "first")
	if _, err := fresh.DB.Pool.Exec(t.Context(), `DELETE FROM clusters`); err != nil {
		t.Fatal(err)
	}
	if err := fresh.Clusters.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	fresh.signedIn(t, "first", "first-password").get("/console/clusters").is(200).
		shows("No cluster is registered yet", `href="/console/clusters/new"`)
}

// A cluster that a person may not view and one that does not exist are answered alike, on every page of it.
func TestHiddenCluster(t *testing.T) {
	t.Parallel()
	s := newClusterSite(t, pgtest.Shared(t))
	const absent = "00000000-0000-4000-8000-000000000000"
	for _, page := range []string{"/databases", "/databases/postgres", "/databases/postgres/access-roles",
		"/databases/postgres/access-roles/remove", "/databases/postgres/delete", "/access", "/settings", "/settings/connection",
		"/settings/rotate", "/settings/remove", "/activity"} {
		hidden, none := s.Nobody.get(s.Path+page).is(404), s.Nobody.get("/console/clusters/"+absent+page).is(404)
		if a, b := withoutIDs(hidden.Body, s.ClusterID), withoutIDs(none.Body, absent); a != b {
			t.Errorf("%s differs for a hidden and an absent cluster:\n%s\n%s", page, a, b)
		}
	}
	for _, page := range []string{"/databases", "/access", "/settings", "/settings/probe", "/settings/connection",
		"/settings/rotate", "/settings/remove", "/databases/postgres/delete"} {
		s.Nobody.post(s.Path+page, "etag", "1", "name", "main").is(404)
	}
}

// withoutIDs is a page without what differs from request to request, and the id of a cluster.
func withoutIDs(body, id string) string {
	body = strings.ReplaceAll(body, id, "ID")
	if at := strings.Index(body, `<p class="hint">Request`); at >= 0 {
		body = body[:at]
	}
	return body
}

func TestActivity(t *testing.T) {
	t.Parallel()
	s := newClusterSite(t, pgtest.Shared(t))
	s.Manager.post(s.Path+"/databases", "name", "activity_db").is(303)
	s.Viewer.post(s.Path+"/databases", "name", "activity_no").is(403)
	s.seal(t)
	s.Manager.get(s.Path+"/activity").is(200).shows("database.create", ">manager<", "activity_db", ">done<", ">attempt<",
		"activity_no", ">denied<", "/console/audit?cluster="+s.ClusterID, "console")
	// A viewer sees what it did itself.
	s.Viewer.get(s.Path+"/activity").is(200).shows("activity_no", "You see what you did").hides("activity_db")
	s.Auditor.get(s.Path+"/activity").is(200).shows("activity_db", "activity_no").hides("You see what you did")
	s.Manager.get(s.Path + "/activity?after=x").is(422)
	if next := s.Manager.get(s.Path + "/activity?after=1").is(200); strings.Contains(next.Body, "activity_db") {
		t.Error("the page behind the first row has rows")
	}
}

// The names of clusters, rules and rows are data: none of them is markup.
func TestClusterEscapes(t *testing.T) {
	t.Parallel()
	s := newClusterSite(t, pgtest.Shared(t))
	const evil = `<script>alert(1)</script>" onload=x`
	if _, err := s.DB.Pool.Exec(t.Context(), `UPDATE clusters SET display_name = $1, location = $1, member_of = ARRAY[$1]`,
		evil); err != nil {
		t.Fatal(err)
	}
	if err := s.Clusters.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, page := range []string{"/console/clusters", s.Path + "/databases", s.Path + "/access", s.Path + "/settings",
		s.Path + "/settings/connection", s.Path + "/settings/rotate", s.Path + "/settings/remove", s.Path + "/activity"} {
		s.Root.get(page).is(http.StatusOK).shows("&lt;script&gt;").hides("<script>alert", `" onload`)
	}
}
