package console_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

// shown finds the password of a page that is shown once.
func (a *answer) password() string {
	a.t.Helper()
	m := regexp.MustCompile(`<code class="secret" id="secret">([^<]+)</code>`).FindStringSubmatch(a.Body)
	if m == nil {
		a.t.Fatalf("there is no password:\n%s", a.Body)
	}
	return m[1]
}

// team is a site with a manager, a viewer and somebody of another team, and the database user app.
func team(t *testing.T, pg *pgtest.Cluster) (s *site, manager, viewer, nobody *browser, p *account.Principal) {
	t.Helper()
	s = newSite(t, servicetest.New(t, pg))
	s.Access(t, s.ClusterID, []string{"team=shop"}, []string{"team=view"})
	p = s.principal(t, "mgr", account.DefaultScopes, map[string]string{"team": "shop"})
	s.Account(t, "viewer", account.DefaultScopes, map[string]string{"team": "view"})
	s.Account(t, "nobody", account.DefaultScopes, map[string]string{"team": "other"})
	if _, _, err := s.Users.CreateUser(t.Context(), p, s.ClusterID, "app", dbPassword); err != nil {
		t.Fatal(err)
	}
	return s, s.signedIn(t, "mgr", "mgr-password"), s.signedIn(t, "viewer", "viewer-password"),
		s.signedIn(t, "nobody", "nobody-password"), p
}

// sql runs a statement in the control database.
func (s *site) sql(t testing.TB, statement string, args ...any) {
	t.Helper()
	if tag, err := s.DB.Pool.Exec(t.Context(), statement, args...); err != nil || tag.RowsAffected() == 0 {
		t.Fatalf("%s: %s %v", statement, tag, err)
	}
}

// A lease is taken, shown with its password once, renewed and ended by its account; others see what the API shows them.
func TestLeases(t *testing.T) {
	pg := pgtest.New(t, nil)
	s, manager, viewer, nobody, _ := team(t, pg)
	cluster := "/console/clusters/" + s.ClusterID + "/leases"
	manager.get(cluster).is(200).shows("There are no leases.", "Take a lease", `href="`+cluster+`/new"`)
	viewer.get(cluster).is(200).shows("There are no leases.", "an account must manage it").hides("/leases/new")
	nobody.get(cluster).is(404)
	nobody.get(cluster + "/new").is(404)
	nobody.get("/console/leases").is(200).shows("There are no leases.")

	form := manager.get(cluster+"/new").is(200).shows("Acts for", `value="1h"`, "24h at most")
	viewer.get(cluster + "/new").is(200).shows("an account must manage it").
		hides(`<form method="post" action="/console/clusters`)
	viewer.post(cluster+"/new", "for", "app").is(403).shows("You may view this cluster, but not change")
	for _, wrong := range []struct{ field, value, says string }{
		{"for", "no-such-role", "There is no role"}, {"for", "", "Say which role"}, {"for", pg.User, "system role"},
		{"ttl", "soon", "The duration is"}, {"ttl", "0s", "the shortest is 1s"}, {"ttl", "48h", "A lease of 48h is too long"},
		{"note", strings.Repeat("x", 201), "it may have 200"},
	} {
		typed := map[string]string{"for": "app", "ttl": "10m", "note": "a <b>note"}
		typed[wrong.field] = wrong.value
		a := manager.post(cluster+"/new", "for", typed["for"], "ttl", typed["ttl"], "note", typed["note"])
		if a.Status != 422 && a.Status != 403 {
			t.Errorf("%s %q: got %d", wrong.field, wrong.value, a.Status)
		}
		a.shows(wrong.says, `id="error-`+wrong.field+`"`, `href="#field-`+wrong.field+`"`)
		if wrong.field != "note" {
			a.shows(`value="a &lt;b&gt;note"`)
		}
	}

	once := manager.post(cluster+"/new", "for", "app", "ttl", "10m", "note", "a <b>note", "_once", form.hidden("_once")).
		is(200).shows("It is gone when you leave this page", "psql", "Kubernetes Secret", "export PGPASSWORD=").hides("<b>note")
	if once.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("the page may be kept: %s", once.Header.Get("Cache-Control"))
	}
	password := once.password()
	path := regexp.MustCompile(`/console/leases/[0-9a-f-]{36}`).FindString(once.Body)
	user := regexp.MustCompile(`app_[a-z2-7]{8}`).FindString(once.Body)
	if err := pg.Login(user, password); err != nil {
		t.Fatalf("%s does not log in: %v", user, err)
	}
	manager.post(cluster+"/new", "for", "app", "ttl", "10m", "note", "a <b>note", "_once", form.hidden("_once")).is(409).
		shows("This form was sent before").hides(password)
	manager.get(cluster).is(200).shows(user, "Active", "a &lt;b&gt;note", `href="`+path+`"`).hides(password, "<b>note")
	manager.get("/console/leases").is(200).shows(user, "main").hides(password)
	manager.get(path).is(200).shows(user, "Renew the lease", "End the lease").hides(password)
	viewer.get(path).is(200).shows(user).hides("Renew the lease", "End the lease")
	viewer.get(path + "/end").is(200).shows("You may view this lease").hides(`class="danger"`)
	viewer.post(path + "/end").is(403)
	viewer.post(path+"/renew", "ttl", "1h").is(403).shows("You may view this cluster")
	nobody.get(path).is(404)
	nobody.post(path + "/end").is(404)
	manager.get("/console/leases/x").is(404)
	// Who may not view the cluster any more sees the own lease, and of the cluster only what the API says.
	s.Access(t, s.ClusterID, []string{"team=other"}, nil)
	for _, page := range []string{"/console/leases", path} {
		manager.get(page).is(200).shows(user, s.ClusterID).hides(">main<", "/console/clusters/"+s.ClusterID)
	}
	s.Access(t, s.ClusterID, []string{"team=shop"}, []string{"team=view"})

	for query, found := range map[string]bool{"": true, "?for=app": true, "?for=other": false, "?account=mgr": true,
		"?account=viewer": false, "?state=active": true, "?state=ended": false, "?expiresBefore=2001-01-01": false,
		"?expiresBefore=2999-01-01": true, "?state=&for=&account=&expiresBefore=": true} {
		for _, page := range []string{"/console/leases", cluster} {
			a := manager.get(page + query).is(200)
			if strings.Contains(a.Body, path) != found {
				t.Errorf("%s: found %t", page+query, !found)
			}
			if !found {
				a.shows("No lease matches.")
			}
		}
	}
	manager.get("/console/leases?state=odd&for=a").is(422).shows("There is no state", `id="error-state"`, `value="a"`)
	manager.get("/console/leases?expiresBefore=soon").is(422).shows("The time is &#34;soon&#34;", `id="error-expiresBefore"`)
	manager.get("/console/leases?account=%00").is(422).shows(`id="error-account"`)
	manager.get("/console/leases?for=%ff").is(422).shows(`id="error-for"`)
	manager.get("/console/leases?after=x").is(422).shows("There is no such page")

	// A renewal that asks for more than there is gets the last end; one beyond that is refused.
	manager.post(path+"/renew", "ttl", "x<y").is(422).shows(`id="error-ttl"`, `value="x&lt;y"`)
	a := manager.post(path+"/renew", "ttl", "48h").is(http.StatusSeeOther)
	manager.get(a.Location).is(200).shows("This is its last end", "cannot be renewed beyond that").hides("Renew the lease")
	manager.post(path+"/renew", "ttl", "48h").is(422).shows("cannot be renewed beyond that")

	a = manager.post(path + "/end").is(http.StatusSeeOther)
	manager.get(a.Location).is(200).shows("The lease has ended: its role is dropped.", "Ended", "Somebody has ended it.").
		hides("Renew the lease", "End the lease")
	manager.get(path + "/end").is(200).shows("It has ended at").hides(`class="danger"`)
	manager.post(path+"/renew", "ttl", "1h").is(422).shows("has ended")
	if pg.Login(user, password) == nil {
		t.Error("the lease logs in after its end")
	}
}

// A lease whose time is over is not renewed, one that is blocked says why, and pages follow each other.
func TestLeaseStates(t *testing.T) {
	s, manager, _, _, _ := team(t, pgtest.New(t, nil))
	cluster := "/console/clusters/" + s.ClusterID + "/leases"
	path := regexp.MustCompile(`/console/leases/[0-9a-f-]{36}`).FindString(
		manager.post(cluster+"/new", "for", "app", "ttl", "1s").is(200).Body)
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(manager.get(path).is(200).Body, "Expired"); {
		if time.Now().After(deadline) {
			t.Fatal("the lease does not expire")
		}
		time.Sleep(20 * time.Millisecond)
	}
	manager.post(path+"/renew", "ttl", "10m").is(422).shows("has ended: take another one.", `value="10m"`)
	id := path[len("/console/leases/"):]
	s.sql(t, `UPDATE leases SET state = 'blocked', end_reason = 'expired', blocked_by = '{"It owns a <subscription>."}'
		WHERE id = $1`, id)
	manager.get(path).is(200).shows("Blocked", "It owns a &lt;subscription&gt;.", "Its time was over.").hides("Renew the lease")
	manager.get(cluster+"?state=blocked").is(200).shows(path, "Blocked")

	for range 3 {
		s.sql(t, `INSERT INTO leases (id, cluster_id, username, for_role, account_guid, account_name, note, ttl, databases,
			created_at, expires_at, max_expires_at, ended_at, state, end_reason)
			SELECT gen_random_uuid(), cluster_id, username || n || gen_random_uuid(), for_role, account_guid, account_name, note, ttl,
			databases, created_at, expires_at, max_expires_at, now(), 'ended', end_reason FROM leases, generate_series(1, 17) n
			WHERE id = $1`, id)
	}
	first := manager.get("/console/leases").is(200).shows("Next page").hides("First page")
	next := regexp.MustCompile(`href="(/console/leases\?after=[^"]+)"`).FindStringSubmatch(first.Body)
	if next == nil || strings.Count(first.Body, `<th scope="row">`) != 50 {
		t.Fatalf("the first page:\n%s", first.Body)
	}
	second := manager.get(next[1]).is(200).shows("First page").hides("Next page")
	if n := strings.Count(second.Body, `<th scope="row">`); n != 2 {
		t.Errorf("the second page has %d rows", n)
	}
}

// A cluster that does not answer is named on every page, with what still works; a refused form keeps what was typed.
func TestLeasesOfClusterAway(t *testing.T) {
	s, manager, _, _, p := team(t, pgtest.New(t, nil))
	pg := pgtest.New(t, nil)
	role, password := servicetest.Administrator(t, pg)
	far := s.Register(t, "far", pg, role, password)
	s.Access(t, far, []string{"team=shop"}, nil)
	if _, _, err := s.Users.CreateUser(t.Context(), p, far, "app", dbPassword); err != nil {
		t.Fatal(err)
	}
	base := "/console/clusters/" + far
	path := regexp.MustCompile(`/console/leases/[0-9a-f-]{36}`).FindString(
		manager.post(base+"/leases/new", "for", "app").is(200).Body)
	manager.post(base+"/credentials", "name", "api", "for", "app", "rotateEvery", "30d", "overlap", "1h").is(303)
	pg.Stop(t)
	manager.post(base+"/leases/new", "for", "app", "note", "kept").is(503).shows("The cluster does not answer", `value="kept"`)
	manager.get(base+"/leases").is(200).shows("The cluster does not answer", path)
	manager.get(path).is(200).shows("The cluster does not answer.", "PostgreSQL itself lets nobody log in after the end.")
	manager.post(path+"/renew", "ttl", "10m").is(503).shows(`role="alert"`, `value="10m"`)
	manager.post(path + "/end").is(503).shows("The lease ends as soon as possible.")
	manager.get(base+"/credentials").is(200).shows("The cluster does not answer", "api", "Failing")
	manager.get(base+"/credentials/api").is(200).shows("The cluster does not answer", "Failing")
	manager.post(base + "/credentials/api/rotate").is(503).shows(`role="alert"`)
	manager.post(base+"/credentials", "name", "other", "for", "app", "rotateEvery", "30d", "overlap", "7m").is(503).
		shows(`value="other"`, `value="7m"`)
}
