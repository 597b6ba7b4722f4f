package console_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/dbuser"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

// settingsForm is the form of the settings, with these changes.
func settingsForm(etag string, changes ...string) []string {
	values := map[string]string{"displayName": "main", "location": "de/fra", "systemRoles": "postgres\nadmin\nstandby",
		"memberOf": "", "grantable": "", "synchronousCommit": "", "leases.defaultTtl": "1h", "leases.maxTtl": "24h",
		"leases.maxPerAccount": "100"}
	for i := 0; i < len(changes); i += 2 {
		values[changes[i]] = changes[i+1]
	}
	pairs := []string{"etag", etag}
	for name, value := range values {
		pairs = append(pairs, name, value)
	}
	return pairs
}

func TestClusterSettings(t *testing.T) {
	t.Parallel()
	s := newClusterSite(t, pgtest.Shared(t))
	page := s.Root.get(s.Path+"/settings").is(200).shows(`value="de/fra"`, "127.0.0.1", "Change the connection",
		"Rolecall has not checked that yet.")
	etag := page.hidden("etag")
	// Others see the settings, and no form that would be refused.
	for _, b := range []*browser{s.Manager, s.Viewer, s.Auditor} {
		b.get(s.Path+"/settings").is(200).shows("de/fra", "Only admins change them").hides(`method="post" action="`+s.Path,
			"127.0.0.1", "Change the connection", "Remove")
		b.post(s.Path+"/settings", settingsForm(etag)...).is(403)
		for _, page := range []string{"/settings/connection", "/settings/rotate", "/settings/remove"} {
			b.get(s.Path + page).is(403).shows("cloud_controller.admin")
		}
		b.post(s.Path + "/settings/probe").is(403)
		b.post(s.Path + "/settings/rotate").is(403)
	}

	// A refused form keeps what was typed, and says what is wrong at the field.
	for _, wrong := range [][2]string{{"displayName", " "}, {"leases.defaultTtl", "soon"}, {"leases.defaultTtl", "48h"},
		{"leases.maxPerAccount", "many"}, {"synchronousCommit", "off"}, {"grantable", strings.Repeat("x", 64)}} {
		s.Root.post(s.Path+"/settings", settingsForm(etag, "location", "typed", wrong[0], wrong[1])...).is(422).
			shows(`value="typed"`, `id="error-`+wrong[0]+`"`, `value="`+etag+`"`, `role="alert"`)
	}
	s.Root.post(s.Path+"/settings", settingsForm(etag, "location", "de/muc", "grantable", "app\r\n\r\n team \r\n",
		"leases.maxTtl", "7d")...).is(303)
	s.seal(t)
	s.Root.get(s.Path+"/settings").is(200).shows("The settings are saved.", `value="de/muc"`, "app\nteam</textarea>",
		`value="168h"`)

	// Another tab still has the form from before: it sees both versions, who was faster, and may save all the same.
	stale := s.Root.post(s.Path+"/settings", settingsForm(etag, "location", "at/vie")...).is(412).shows("Two versions",
		"<strong>root</strong>", "de/muc", "at/vie", "app\nteam", `value="at/vie"`, "Save what you typed all the same")
	fresh := stale.hidden("etag")
	if fresh == etag {
		t.Error("the form that was refused as stale is made from the old state")
	}
	s.Root.get(s.Path + "/settings").is(200).shows(`value="de/muc"`).hides("at/vie")
	s.Root.post(s.Path+"/settings", settingsForm(fresh, "location", "at/vie")...).is(303)
	s.Root.get(s.Path + "/settings").is(200).shows(`value="at/vie"`)

	// Only what has changed is recorded.
	rows := s.AuditRows(t, "main")
	if last := rows[len(rows)-1].Detail; !strings.Contains(last, "at/vie") || !strings.Contains(last, `"grantable"`) ||
		strings.Contains(last, "systemRoles") {
		t.Errorf("the last row says %s", last)
	}
}

func TestProbeAndRotate(t *testing.T) {
	t.Parallel()
	pg := pgtest.New(t, nil)
	s := newClusterSite(t, pg)
	pg.Exec(t, `CREATE ROLE boss LOGIN CREATEROLE PASSWORD 'boss-secret'`)
	boss := "/console/clusters/" + s.Register(t, "boss", pg, "boss", "boss-secret")
	s.Root.get(boss + "/settings").is(200).shows("Rolecall has not checked that yet.")
	s.Root.post(boss + "/settings/probe").is(409).shows("registered already")

	own := pgtest.New(t, nil)
	own.Exec(t, `CREATE ROLE boss LOGIN CREATEROLE PASSWORD 'boss-secret'`)
	boss = "/console/clusters/" + s.Register(t, "own", own, "boss", "boss-secret")
	s.Root.post(boss + "/settings/probe").is(303)
	s.Root.get(boss+"/settings").is(200).shows("What it found is below", "ALTER ROLE &#34;boss&#34; CREATEDB;",
		"No database can be created here.")
	s.Root.get(boss+"/settings/rotate").is(200).shows("<code>boss</code>", "Rotate the credential</button>")
	s.Root.post(boss + "/settings/rotate").is(303)
	s.Root.get(boss + "/settings").is(200).shows("has a new password, which only Rolecall knows")
	if err := own.Login("boss", "boss-secret"); err == nil {
		t.Error("the old password still logs in")
	}
}

func TestChangeConnection(t *testing.T) {
	t.Parallel()
	pg := pgtest.New(t, nil)
	s := newClusterSite(t, pg)
	page := s.Root.get(s.Path+"/settings/connection").is(200).shows("system identifier", "postgres://")
	role, password := servicetest.Administrator(t, pg)
	url := fmt.Sprintf("postgres://%s@localhost:%d/postgres", role, pg.Port)
	form := []string{"etag", page.hidden("etag"), "connection.url", url, "connection.tls.mode", "disable"}
	s.Root.post(s.Path+"/settings/connection", append(form, "connection.password", "typed-wrong")...).is(422).
		shows("rejects the password", url, `id="error-connection.password"`).hides("typed-wrong")
	s.Root.post(s.Path+"/settings/connection", append(form, "connection.tls.key", "typed-key")...).is(303)
	s.Root.get(s.Path+"/settings").is(200).shows("The connection works, and is saved.", url)
	s.Root.post(s.Path+"/settings/connection", append(form, "connection.password", password)...).is(412).shows("Two versions")

	page = s.Root.get(s.Path + "/settings/connection").is(200)
	s.Root.post(s.Path+"/settings/connection", "etag", page.hidden("etag"), "connection.url", url, "connection.tls.mode",
		"disable", "connection.systemIdentifier", "123").is(422).shows("another cluster", `value="123"`)
}

// To remove a cluster takes its name and a fresh proof of who the person is.
func TestRemoveCluster(t *testing.T) {
	t.Parallel()
	pg := pgtest.New(t, nil)
	s := newClusterSite(t, pg)
	p := s.principal(t, "leaser", account.DefaultScopes, map[string]string{"team": "shop"})
	if _, _, err := s.Users.CreateUser(t.Context(), p, s.ClusterID, "worker", dbPassword); err != nil {
		t.Fatal(err)
	}
	_, l, _, err := s.Users.CreateLease(t.Context(), p, s.ClusterID, dbuser.NewLease{For: "worker"})
	if err != nil {
		t.Fatal(err)
	}
	page := s.Root.get(s.Path+"/settings/remove").is(200).shows(l.Username, "End them first", "The cluster is not changed")
	etag := page.hidden("etag")
	s.Root.post(s.Path+"/settings/remove", "etag", etag, "name", "other", "leases", "leave").is(422).
		shows("not the name of the cluster", `value="leave" checked`)
	s.Root.post(s.Path+"/settings/remove", "etag", etag, "name", "main").is(422).shows("leases that have not ended")
	again := s.signedIn(t, "root", "root-password")
	forgetProofs := `UPDATE console_sessions SET proven_at = proven_at - interval '1 day'`
	if _, err := s.DB.Pool.Exec(t.Context(), forgetProofs); err != nil {
		t.Fatal(err)
	}
	again.post(s.Path+"/settings/remove", "etag", etag, "name", "main", "leases", "end").is(401).shows("Is it you?")
	if _, err := s.Clusters.Get(s.ClusterID); err != nil {
		t.Fatal("the cluster was removed without a fresh proof", err)
	}
	s.Root.post(s.Path+"/settings/remove", "etag", etag, "name", "main", "leases", "end").is(303)
	s.Root.get("/console/clusters").is(200).shows("no longer managed").hides(`href="` + s.Path)
	if pgtest.Value[bool](t, pg, `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)`, l.Username) {
		t.Error("the role of the lease is still there")
	}
	if !pgtest.Value[bool](t, pg, `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'worker')`) {
		t.Error("a user of the cluster is gone")
	}
}

// The pages of a cluster that does not answer say since when and why, and what still works.
func TestUnreachableClusterPages(t *testing.T) {
	t.Parallel()
	pg := pgtest.New(t, nil)
	s := newClusterSite(t, pgtest.Shared(t))
	role, password := servicetest.Administrator(t, pg)
	id := s.Register(t, "far", pg, role, password)
	s.Access(t, id, nil, []string{"team=desk"})
	path := "/console/clusters/" + id
	pg.Stop(t)
	address := fmt.Sprintf("127.0.0.1:%d", pg.Port)
	for _, page := range []string{"/databases", "/databases/shop", "/access", "/settings", "/activity"} {
		s.Root.get(path+page).is(200).shows("The cluster does not answer.", "first seen at <time", "What still works", address,
			`>Try again</a>`).hides("<td>postgres")
		s.Viewer.get(path+page).is(200).shows("The cluster does not answer.", "takes no changes").hides(address)
	}
	s.Root.get(path + "/settings").is(200).shows("Save the settings") // it works without the cluster
	for _, page := range []string{"/settings/connection", "/settings/rotate", "/settings/remove",
		"/databases/shop/access-roles", "/databases/shop/delete"} {
		s.Root.get(path+page).is(200).shows("The cluster does not answer.", "What still works")
	}
	s.Root.post(path+"/databases", "name", "typed_name", "owner", "typed_owner").is(503).shows("The cluster does not answer.",
		`role="alert"`)
	c, err := s.Clusters.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	since := c.LastHealth().Since
	if since.IsZero() || since.After(c.LastHealth().Checked) {
		t.Errorf("it is so since %s, and was checked at %s", since, c.LastHealth().Checked)
	}
	pg.Start(t)
	for deadline := time.Now().Add(time.Minute); !c.Health(t.Context()).Reachable; {
		if time.Now().After(deadline) {
			t.Fatal("the cluster that was started does not answer")
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.Root.get(path + "/databases").is(200).shows("postgres").hides("does not answer")
	if again := c.LastHealth().Since; !again.After(since) {
		t.Errorf("it answers since %s, and did not since %s", again, since)
	}
}
