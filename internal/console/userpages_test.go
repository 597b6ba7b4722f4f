package console_test

import (
	"context"
	"html"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/uuid"

	"rolecall/internal/pgtest"
)

// hostileNames are names that a page or a link could take for something else.
var hostileNames = []string{
	"hn shop/web", `hn"quoted"`, "hn'single", "hn<script>alert(1)</script>", "hn&amp;", "hn%2F%00", "hn?a=b#c", `hn\back`,
	"hn{{.}}", "hn javascript:alert(1)", "new", ".hidden", "hn" + strings.Repeat("é", 30), "hn<img src=x onerror=alert(1)>",
}

// Users with any name have a page, a plan of their deletion, and a place in the lists, and nothing in a name is markup.
func TestHostileNames(t *testing.T) {
	s, pg, manager, _ := usersSite(t)
	for _, name := range hostileNames {
		manager.makes(name)
		pg.Exec(t, `COMMENT ON ROLE `+quoted(name)+` IS '<script>alert(2)</script>'`)
	}
	shown := []*answer{manager.get(s.at()).is(http.StatusOK), manager.get("/console/users?name=hn").is(http.StatusOK)}
	for _, name := range hostileNames {
		path := s.at("users", name)
		if name == "new" {
			path += "/page"
		}
		path = strings.Replace(path, "/.", "/%2E", 1)
		if !strings.Contains(html.UnescapeString(shown[0].Body), `href="`+path+`"`) {
			t.Errorf("the list has no link to %s", path)
		}
		page := manager.get(path).is(http.StatusOK).shows(html.EscapeString(name), "&lt;script&gt;alert(2)")
		delete := manager.get(strings.TrimSuffix(path, "/page") + "/delete").is(http.StatusOK).shows(html.EscapeString(name))
		plan := manager.post("/console/users/plan", "do", "disable", "user", s.ClusterID+"/"+url.PathEscape(name)).
			is(http.StatusOK).shows("1 of 1 user")
		shown = append(shown, page, delete, plan)
	}
	for _, a := range shown {
		a.hides("<script>alert", "<img src=x")
	}
	gone := hostileNames[0]
	a := manager.get(s.at("users", gone, "delete"))
	manager.post(s.at("users", gone, "delete"), "etag", a.hidden("etag"), "confirm", gone).is(http.StatusSeeOther)
	manager.get(s.at("users", gone)).is(http.StatusNotFound)
}

func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// The forms of a user change it, each from the version that it was made from.
func TestUserPage(t *testing.T) {
	s, pg, manager, viewer := usersSite(t)
	manager.makes("up_app")
	path := s.at("users", "up_app")
	page := manager.get(path).is(http.StatusOK).shows("Created by", "manager", "Set the new password", "No session is open",
		"Delete…")
	old := page.hidden("etag")

	// A new password is on one page, and its form sent again sets none.
	send := []string{"etag", old, "how", "generate", "_once", page.hidden("_once")}
	a := manager.post(path+"/password", send...).is(http.StatusOK)
	password := generatedPassword.FindStringSubmatch(a.Body)
	if password == nil || pg.Login("up_app", password[1]) != nil {
		t.Fatalf("the password %q does not log in", password)
	}
	manager.post(path+"/password", send...).is(http.StatusConflict).hides(password[1])
	manager.get(path + "/password").is(http.StatusSeeOther)

	// What was read before is stale: the page shows both versions, and keeps what was typed.
	limits := []string{"was-expires", "", "was-connections", "", "expires", "2099-01-31", "connections", "7"}
	stale := manager.post(path+"/limits", append(limits, "etag", old)...).is(http.StatusPreconditionFailed).
		shows("has changed since you opened the form", "What you typed", `value="2099-01-31"`, `value="7"`)
	a = manager.post(path+"/limits", append(limits, "etag", stale.hidden("etag"))...).is(http.StatusSeeOther)
	manager.get(a.Location).shows("The limits were changed.", "2099-01-31 00:00 UTC", "7 at most")
	manager.post(path+"/limits", "etag", "x", "expires", "soon").is(http.StatusUnprocessableEntity).
		shows(`value="soon"`, `id="error-expires"`)

	session := pg.Connect(t, "up_app", password[1], "postgres")
	manager.get(path).shows("End all sessions", "127.0.0.1", "1 now")
	a = manager.post(path + "/sessions").is(http.StatusSeeOther)
	manager.get(a.Location).shows("One session was ended.")
	if session.Ping(context.Background()) == nil {
		t.Error("the session goes on")
	}
	manager.post(path+"/disable", "etag", manager.get(path).hidden("etag")).is(http.StatusSeeOther)
	if pg.Login("up_app", password[1]) == nil {
		t.Error("a disabled user logs in")
	}
	manager.post(path+"/enable", "etag", manager.get(path).shows("Enable the user").hidden("etag")).is(http.StatusSeeOther)
	if err := pg.Login("up_app", password[1]); err != nil {
		t.Error(err)
	}

	// A viewer sees no form that would be refused, and a refused one changes nothing.
	viewer.get(path).is(http.StatusOK).shows("up_app").hides("Set the new password", "/delete", "End all sessions", "/disable")
	viewer.post(path+"/disable", "etag", manager.get(path).hidden("etag")).is(http.StatusForbidden)
	viewer.get(path + "/delete").is(http.StatusForbidden)
	viewer.get(s.at()).is(http.StatusOK).hides("New user", `name="user"`)
	viewer.post("/console/users/plan", "do", "disable", "user", s.ClusterID+"/up_app").is(http.StatusForbidden)

	// A protected user says why it cannot be changed.
	manager.get(s.at("users", pg.User)).is(http.StatusOK).shows("is a system user").hides("Set the new password", "/delete")
	manager.get(s.at()+"?system=true").shows("System user", "Hide system users")

	// A cluster that is hidden is answered like one that does not exist.
	none := uuid.NewString()
	s.Account(t, "up_stranger", []string{"cloud_controller.read", "cloud_controller.write"}, nil)
	stranger := s.signedIn(t, "up_stranger", "up_stranger-password")
	for _, below := range []string{"", "/users/new", "/users/up_app", "/users/up_app/delete"} {
		hidden := stranger.get(s.at() + below).is(http.StatusNotFound)
		absent := stranger.get("/console/clusters/" + none + below).is(http.StatusNotFound)
		if h, a := message(hidden, s.ClusterID), message(absent, none); h != a {
			t.Errorf("%s: hidden %q, absent %q", below, h, a)
		}
	}
	stranger.get("/console/users").is(http.StatusOK).shows("You may view no cluster").hides("up_app")
}

// message is what a page of a failure says, without the id of the cluster.
func message(a *answer, id string) string {
	_, text, _ := strings.Cut(a.Body, "<h1>")
	text, _, _ = strings.Cut(text, `<p class="hint">`)
	return strings.ReplaceAll(text, id, "ID")
}

// A deletion shows its plan, takes the name, and says what blocks it.
func TestDeletePage(t *testing.T) {
	s, pg, manager, _ := usersSite(t)
	manager.makes("dp_app")
	manager.makes("dp_heir")
	pg.Exec(t, `CREATE TABLE dp_table (); ALTER TABLE dp_table OWNER TO dp_app`)
	path := s.at("users", "dp_app", "delete")
	page := manager.get(path).is(http.StatusOK).shows("What blocks the deletion", "dp_table", "Owned, so it blocks")
	tag := page.hidden("etag")
	manager.post(path, "etag", tag, "confirm", "dp_ap").is(http.StatusUnprocessableEntity).
		shows("Type the name of the user", `value="dp_ap"`)
	manager.post(path, "etag", tag, "confirm", "dp_app ").is(http.StatusConflict).shows("dp_table")
	page = manager.get(path+"?reassign-to=dp_heir").is(http.StatusOK).shows("Nothing blocks the deletion", "Given to")
	a := manager.post(path, "etag", page.hidden("etag"), "reassign-to", page.hidden("reassign-to"), "confirm", "dp_app").
		is(http.StatusSeeOther)
	manager.get(a.Location).is(http.StatusOK).shows("was deleted").hides(`href="` + s.at("users", "dp_app") + `"`)
	if owner := pgtest.Value[string](t, pg, `SELECT relowner::regrole::text FROM pg_class WHERE relname = 'dp_table'`); owner !=
		"dp_heir" {
		t.Errorf("the table is %s's", owner)
	}
	again := manager.post(path, "etag", tag, "confirm", "dp_app").is(http.StatusSeeOther)
	manager.get(again.Location).shows("There is no user")
}

// A selection shows its plan, and starts an operation.
func TestPlanOfMany(t *testing.T) {
	s, _, manager, _ := usersSite(t)
	manager.makes("pm_one")
	manager.makes("pm_two")
	one, two := s.ClusterID+"/pm_one", s.ClusterID+"/pm_two"
	plan := "/console/users/plan"
	manager.post(plan, "do", "disable").is(http.StatusUnprocessableEntity).shows("You selected no user")
	manager.post(plan, "do", "expire", "user", one).is(http.StatusOK).shows("Show the plan").hides("/console/users/start")
	manager.post(plan, "do", "expire", "user", one, "expires", "soon").is(http.StatusUnprocessableEntity).shows(`value="soon"`)
	manager.post(plan, "do", "expire", "user", one, "expires", "7d").is(http.StatusOK).shows("1 of 1 user", "never")
	manager.post(plan, "do", "disable", "user", one, "user", s.ClusterID+"/pm_none").is(http.StatusOK).
		shows("1 of 2 users", "Left out")
	manager.get(plan+"?filter="+url.QueryEscape("name=pm_*")).is(http.StatusOK).shows("name: pm_*", "What to do")
	manager.post(plan, "do", "disable", "filter", "name=pm_*").is(http.StatusOK).shows("2 of 2 users", "Disable 2 users")
	manager.post(plan, "do", "delete", "user", one, "from", "//evil.example").is(http.StatusOK).hides("evil.example")
	start := "/console/users/start"
	manager.post(start, "do", "delete", "user", one, "user", two, "planned", "2", "confirm", "3").
		is(http.StatusUnprocessableEntity).shows("Type 2")
	a := manager.post(start, "do", "disable", "user", one, "user", two).is(http.StatusSeeOther)
	if !strings.HasPrefix(a.Location, "/console/operations/") {
		t.Errorf("the operation is at %s", a.Location)
	}
	manager.get(a.Location).is(http.StatusOK).shows("2 users")
}

// The lists search, sort, and go on by pages; a search that cannot be read keeps what was typed.
func TestUserLists(t *testing.T) {
	s, pg, manager, _ := usersSite(t)
	pg.Exec(t, `DO $$ BEGIN FOR i IN 100..159 LOOP EXECUTE format('CREATE ROLE ul_%s LOGIN', i); END LOOP; END $$`)
	for _, list := range []string{s.at(), "/console/users"} {
		first := manager.get(list+"?name=ul_").is(http.StatusOK).shows("50 users on this page", "ul_100", "ul_149").
			hides("ul_150")
		_, next, found := strings.Cut(first.Body, `rel="next"`)
		before := first.Body[:len(first.Body)-len(next)]
		link := html.UnescapeString(before[strings.LastIndex(before, `href="`)+len(`href="`):])
		link, _, _ = strings.Cut(link, `"`)
		if !found {
			t.Fatal("there is no next page")
		}
		manager.get(link).is(http.StatusOK).shows("10 users on this page", "ul_150", "ul_159").hides("ul_149")
		manager.get(list+"?name=ul_&sort=-name").is(http.StatusOK).shows(`aria-sort="descending"`, "ul_159").hides("ul_100")
		manager.get(list + "?name=ul_none").is(http.StatusOK).shows("matches")
		manager.get(list+"?expiresBefore=soon").is(http.StatusUnprocessableEntity).shows("soon", `role="alert"`)
	}
	manager.get("/console/users?cluster=ul_none").is(http.StatusUnprocessableEntity).
		shows("There is no cluster", `value="ul_none"`)
}

// While a cluster does not answer, each page says so, and none shows an empty table.
func TestUsersOfUnreachableCluster(t *testing.T) {
	s, _, _, _ := usersSite(t)
	away := pgtest.New(t, nil)
	id := s.Register(t, "uc-away", away, away.User, away.Password)
	s.Admin(t, "uc_root")
	root := s.signedIn(t, "uc_root", "uc_root-password")
	at := "/console/clusters/" + id
	root.post(at+"/users/new", "username", "uc_app", "how", "generate").is(http.StatusOK)
	tag := root.get(at + "/users/uc_app").hidden("etag")
	away.Stop(t)
	for _, below := range []string{"", "/users/new", "/users/uc_app", "/users/uc_app/delete"} {
		root.get(at+below).is(http.StatusOK).shows("The cluster does not answer.").hides("has no users yet", "No session is open")
	}
	root.post(at+"/users/new", "username", "uc_kept", "how", "type", "new-password", "uc-typed-password").
		is(http.StatusServiceUnavailable).shows(`value="uc_kept"`).hides("uc-typed-password")
	root.post(at+"/users/uc_app/disable", "etag", tag).is(http.StatusServiceUnavailable)
	root.get("/console/users?name=uc_app").is(http.StatusOK).shows("are missing below", "uc-away")
	away.Start(t)
	eventually(t, "the cluster answers", func() bool {
		return strings.Contains(root.get(at).Body, "uc_app")
	})
}
