package console_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

// The plan shows what a person still knows, single users are kept, and the report says what has become of the others.
func TestOffboard(t *testing.T) {
	s := newSite(t, servicetest.New(t, pgtest.Shared(t)))
	s.Admin(t, "offboards")
	s.Access(t, s.ClusterID, []string{"team=leavers"}, nil)
	leaver := s.principal(t, "leaver", account.DefaultScopes, map[string]string{"team": "leavers"})
	for _, name := range []string{"leaver_kept", "leaver_gone", "leaver <b>"} {
		if _, _, err := s.Users.CreateUser(t.Context(), leaver, s.ClusterID, name, dbPassword); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.PG.Exec(t, `DROP ROLE IF EXISTS "`+name+`"`) })
	}
	at := "/console/accounts/" + leaver.GUID
	session := s.signedIn(t, "leaver", "leaver-password")
	b := s.signedIn(t, "offboards", "offboards-password")
	b.get(at).is(http.StatusOK).shows("Offboard", "database-users")
	b.get(at+"/database-users").is(http.StatusOK).shows("leaver_kept", "leaver_gone", "leaver &lt;b&gt;",
		"createdBy="+leaver.GUID)
	b.get(at+"/deactivate").is(http.StatusOK).shows("leaver_kept", "leaver_gone")
	b.get(at+"/delete").is(http.StatusOK).shows("leaver_kept", "leaver_gone")

	// Nothing is done by looking.
	b.get(at+"/offboard").is(http.StatusOK).shows("leaver_kept", "made it", `value="keep" checked`, "Signed in with console").
		hides(`name="do"`)
	plan := b.get(at+"/offboard?default=disable").is(http.StatusOK).shows(`value="disable" checked`, "leaver &lt;b&gt;")
	if n := strings.Count(plan.Body, `name="do"`); n != 3 {
		t.Fatalf("%d users have a box", n)
	}
	b.get(at + "/offboard?default=expire&expire-in=2d").is(http.StatusOK).shows("The passwords expire at")
	b.get(at+"/offboard?default=expire&expire-in=soon").is(422).shows(`id="error-expire-in"`, `value="soon"`).
		hides("The plan<")
	b.post(at+"/offboard", "default", "expire").is(422).shows(`id="error-expire-in"`)
	b.get(at + "/offboard?default=delete").is(422).shows("must be disable, expire")
	session.get("/console/").is(http.StatusOK)

	user := func(name string) string { return s.ClusterID + "/" + name }
	sent := []string{"default", "disable", "user", user("leaver_kept"), "user", user("leaver_gone"), "user",
		user("leaver <b>"),
		"do", user("leaver_gone"), "do", user("leaver <b>")}
	done := b.post(at+"/offboard", sent...).is(http.StatusSeeOther)
	report := b.get(done.Location).is(http.StatusOK).
		shows("The account was offboarded.", "leaver_kept", "You chose to keep it.", "in progress", `hx-trigger="every 2s"`)
	if !strings.HasPrefix(done.Location, "/console/offboardings/") || report.Status != http.StatusOK {
		t.Errorf("the report is at %s", done.Location)
	}
	eventually(t, "the session of the leaver has ended", func() bool {
		return session.get("/console/").
			Status == http.StatusSeeOther
	})
	s.run(t, func() bool { return !strings.Contains(b.get(done.Location).Body, "in progress") })
	b.get(done.Location).is(http.StatusOK).hides("hx-trigger")
	for name, logsIn := range map[string]bool{"leaver_kept": true, "leaver_gone": false, "leaver <b>": false} {
		if can := pgtest.Value[bool](t, s.PG, `SELECT rolcanlogin FROM pg_roles WHERE rolname = '`+name+`'`); can != logsIn {
			t.Errorf("%s may log in: %t", name, can)
		}
	}
	b.get(at).is(http.StatusOK).shows("inactive", "It was offboarded")
	b.get("/console/offboardings").is(http.StatusOK).shows("leaver", "offboards", done.Location)
	b.get("/console/offboardings?account=" + leaver.GUID).is(http.StatusOK).shows(done.Location)
	b.get("/console/offboardings?account=nobody").is(http.StatusOK).shows("No account was offboarded")
	b.get("/console/offboardings?after=x").is(422)
	for _, id := range []string{"x", "00000000-0000-0000-0000-000000000000", "%00"} {
		b.get("/console/offboardings/" + id).is(http.StatusNotFound)
	}
}

// A cluster that does not answer is named, on every page that lists database users.
func TestAccountWithClusterAway(t *testing.T) {
	s := newSite(t, servicetest.New(t, pgtest.Shared(t)))
	s.Fleet.Limit = 2 * time.Second
	away := pgtest.New(t, nil)
	id := s.Register(t, "the-one-away", away, away.User, away.Password)
	s.Admin(t, "looks")
	leaver := s.principal(t, "of-away", account.AdminScopes, nil)
	if _, _, err := s.Users.CreateUser(t.Context(), leaver, id, "on_away", dbPassword); err != nil {
		t.Fatal(err)
	}
	away.Stop(t)
	b := s.signedIn(t, "looks", "looks-password")
	at := "/console/accounts/" + leaver.GUID
	b.get(at).is(http.StatusOK).shows("the-one-away")
	for _, page := range []string{"/database-users", "/deactivate", "/delete"} {
		b.get(at+page).is(http.StatusOK).shows("the-one-away", "are not shown").hides("None in the clusters")
	}
	b.get(at+"/offboard?default=disable").is(http.StatusOK).shows("the-one-away", "does not answer", "on_away")
	done := b.post(at+"/offboard", "default", "disable", "user", id+"/on_away").is(http.StatusSeeOther)
	b.get(done.Location).is(http.StatusOK).shows("on_away", "You chose to keep it.", "the-one-away", "does not answer")
}
