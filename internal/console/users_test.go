package console_test

import (
	"context"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"rolecall/internal/account"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

// usersSite is a console on a service of its own, whose cluster the account manager manages and the account viewer views.
func usersSite(t *testing.T) (s *site, pg *pgtest.Cluster, manager, viewer *browser) {
	t.Helper()
	pg = pgtest.Shared(t)
	s = newSite(t, servicetest.New(t, pg))
	s.Access(t, s.ClusterID, []string{"team=shop"}, []string{"team=view"})
	s.Account(t, "manager", account.DefaultScopes, map[string]string{"team": "shop"})
	s.Account(t, "viewer", account.DefaultScopes, map[string]string{"team": "view"})
	return s, pg, s.signedIn(t, "manager", "manager-password"), s.signedIn(t, "viewer", "viewer-password")
}

// at is the path of a page of the cluster of the site.
func (s *site) at(segments ...string) string {
	path := "/console/clusters/" + s.ClusterID
	for _, segment := range segments {
		path += "/" + url.PathEscape(segment)
	}
	return path
}

// makes makes a database user with a password that is typed.
func (b *browser) makes(name string, pairs ...string) {
	b.t.Helper()
	b.post(b.site.at("users", "new"), append([]string{"username", name, "how", "type", "new-password", name + "-password"},
		pairs...)...).is(http.StatusSeeOther)
}

var generatedPassword = regexp.MustCompile(`id="secret">([^<]+)</code>`)

// The password of a new user is on one page, which is the answer to the form, and works. The form sent again makes no other
// user.
func TestNewUser(t *testing.T) {
	s, pg, manager, viewer := usersSite(t)
	path := s.at("users", "new")
	manager.get(path).is(http.StatusOK).shows("New user in main", `name="username"`, "Generate it")
	key := manager.get(path).hidden("_once")
	typed := []string{"username", "nu_app", "how", "generate", "expires", "90d", "connections", "5"}
	a := manager.post(path, append(typed, "_once", key)...).is(http.StatusOK)
	password := generatedPassword.FindStringSubmatch(a.Body)
	if password == nil {
		t.Fatalf("there is no password:\n%s", a.Body)
	}
	if err := pg.Login("nu_app", password[1]); err != nil {
		t.Errorf("the password is rejected: %v", err)
	}
	if a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("the page may be kept: %q", a.Header.Get("Cache-Control"))
	}
	title := a.Body[:strings.Index(a.Body, "</title>")]
	if strings.Contains(title, password[1]) {
		t.Error("the title has the password")
	}
	a.shows("gone when you leave", "postgresql://nu_app:"+password[1]+"@127.0.0.1", "psql &#39;postgresql://nu_app@127.0.0.1",
		"export PGPASSWORD=&#39;"+password[1]+"&#39;", "kind: Secret")
	manager.post(path, append(typed, "_once", key)...).is(http.StatusConflict).shows("This form was sent before").
		hides(password[1])
	manager.post(path, typed...).is(http.StatusConflict).
		shows("There is a role &#34;nu_app&#34; in this cluster already.", "If you sent the form twice",
			s.at("users", "nu_app"), `value="nu_app"`, `value="90d"`)
	for _, page := range []string{s.at("users", "nu_app"), s.at(), "/console/users?name=nu_app"} {
		manager.get(page).is(http.StatusOK).shows("nu_app").hides(password[1])
	}
	if strings.Contains(s.Log.String(), password[1]) {
		t.Error("the log has the password")
	}
	if n := pgtest.Value[int](t, pg, `SELECT rolconnlimit FROM pg_roles WHERE rolname = 'nu_app' AND rolvaliduntil > now() +
		interval '89 days'`); n != 5 {
		t.Errorf("the connection limit is %d", n)
	}
	viewer.get(path).is(http.StatusForbidden).shows("You may view this cluster, but not change its users and databases.")
	viewer.post(path, "username", "nu_viewer", "how", "generate").is(http.StatusForbidden)
}

// A refused form keeps what was typed, but for the password, and says what is wrong at the field.
func TestNewUserRefused(t *testing.T) {
	s, pg, manager, _ := usersSite(t)
	path := s.at("users", "new")
	typed := func(pairs ...string) *answer {
		return manager.post(path, append([]string{"how", "type", "new-password", "typed-in-secret"}, pairs...)...)
	}
	for _, c := range []struct {
		field, shows string
		pairs        []string
	}{
		{"username", "must not be empty", []string{"username", "  "}},
		{"username", "64 bytes long", []string{"username", strings.Repeat("ü", 32)}},
		{"username", "is reserved", []string{"username", "pg_nr"}},
		{"username", "is not shown", []string{"username", "nr\u200bx"}},
		{"expires", "Use a duration", []string{"username", "nr_kept", "expires", "tomorrow"}},
		{"connections", "Use a number", []string{"username", "nr_kept", "connections", "-1"}},
	} {
		a := typed(c.pairs...).is(http.StatusUnprocessableEntity).shows(c.shows, `href="#field-`+c.field+`"`).
			hides("typed-in-secret")
		for i := 1; i < len(c.pairs); i += 2 {
			a.shows(`value="` + html.EscapeString(c.pairs[i]) + `"`)
		}
		if c.field != "how" {
			a.shows(`aria-invalid="true"`)
		}
	}
	manager.post(path, "username", "nr_short", "how", "type", "new-password", "short").is(http.StatusUnprocessableEntity).
		shows("A password has 10 to 63 characters", `id="error-new-password"`, `value="nr_short"`).hides(`value="short"`)
	manager.post(path, "username", "nr_none").is(http.StatusUnprocessableEntity).shows("Choose whether the password")
	if pgtest.Value[bool](t, pg, `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname LIKE 'nr\_%')`) {
		t.Error("a refused form has made a user")
	}
	a := manager.post(path, "username", "nr_typed", "how", "type", "new-password", "\u00aapassword-typed").
		is(http.StatusSeeOther)
	if want := s.at("users", "nr_typed"); a.Location != want {
		t.Errorf("the form leads to %s, not %s", a.Location, want)
	}
	manager.get(a.Location).is(http.StatusOK).shows("with the password that you typed", "Printable ASCII is safe").
		hides("\u00aapassword-typed")
}

// A new user gets levels in databases and roles; what the cluster refuses makes none.
func TestNewUserAccess(t *testing.T) {
	s, pg, manager, _ := usersSite(t)
	pg.Exec(t, `CREATE ROLE na_group`)
	if _, err := s.DB.Pool.Exec(context.Background(), `UPDATE clusters SET grantable = '{na_group}', updated_at =
		clock_timestamp() WHERE id = $1`, s.ClusterID); err != nil {
		t.Fatal(err)
	}
	if err := s.Clusters.Reload(context.Background()); err != nil {
		t.Fatal(err)
	}
	s.leveled(t, "na <shop>")
	path := s.at("users", "new")
	manager.get(path).is(http.StatusOK).shows("na &lt;shop&gt;", "na_group").hides("na <shop>")
	manager.post(path, "username", "na_app", "how", "generate", "database", "na <shop>", "level", "write", "role", "na_group").
		is(http.StatusOK).shows(`id="secret"`)
	if got := pgtest.Value[string](t, pg, `SELECT string_agg(rolname, ',' ORDER BY rolname) FROM pg_auth_members
		JOIN pg_roles r ON r.oid = roleid WHERE member = 'na_app'::regrole`); got != "na <shop>_write,na_group" {
		t.Errorf("the user is a member of %s", got)
	}
	manager.post(path, "username", "na_none", "how", "generate", "database", "postgres", "level", "write").
		is(http.StatusUnprocessableEntity).shows(`value="na_none"`)
	manager.post(path, "username", "na_none", "how", "generate", "role", "pg_monitor").is(http.StatusUnprocessableEntity)
	if pgtest.Value[bool](t, pg, `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'na_none')`) {
		t.Error("a refused form has made a user")
	}
}

// leveled makes a database with access roles.
func (s *site) leveled(t *testing.T, name string) {
	t.Helper()
	root := &account.Principal{GUID: "root", Username: "root", Scopes: account.AdminScopes}
	if _, _, err := s.Users.CreateDatabase(context.Background(), root, s.ClusterID,
		pgrole.NewDatabase{Name: name, AccessRoles: true}); err != nil {
		t.Fatal(err)
	}
}
