package console_test

import (
	"context"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"rolecall/internal/account"
	"rolecall/internal/identity"
	"rolecall/internal/pgtest"
	"rolecall/internal/secret"
	"rolecall/internal/servicetest"
)

// The page about the person says what they may do, and why.
func TestMe(t *testing.T) {
	pg := pgtest.Shared(t)
	s := newSite(t, servicetest.New(t, pg))
	managed := s.Register(t, "me-managed", pg, pg.User, pg.Password)
	viewed := s.Register(t, "me-viewed", pg, pg.User, pg.Password)
	s.Register(t, "me-secret", pg, pg.User, pg.Password)
	s.Access(t, managed, []string{"team=shop"}, nil)
	s.Access(t, viewed, []string{"team=dba"}, []string{"team"})
	s.Account(t, "mia", account.DefaultScopes, map[string]string{"team": "shop", "a": "<b>"})
	b := s.signedIn(t, "mia", "mia-password")
	b.get("/console/me").is(http.StatusOK).shows("mia", "here, with a password", "reading and changing them",
		`<code>team=shop</code>`, "<code>a=&lt;b&gt;</code>", "an admin",
		"/console/clusters/"+managed, "/console/clusters/"+viewed,
		"The rule team=shop of manage matches the account&#39;s labels team=shop.", "The rule team of view matches",
		"Not manage: No scope gives this right, and no rule of manage matches").hides("me-secret")

	// A label of an issuer says so, and an account of one has no password here.
	guid := s.Account(t, "ext", account.DefaultScopes, map[string]string{"team": "shop", "note": "x"})
	ext := s.signedIn(t, "ext", "ext-password")
	if _, err := s.DB.Pool.Exec(context.Background(), `
		UPDATE accounts SET origin = 'login.example.org', label_sources = '{"team": "okta"}' WHERE guid = $1`, guid); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the label has a source", func() bool {
		return strings.Contains(ext.get("/console/me").Body, "okta, at each sign-in")
	})
	ext.get("/console/me").is(http.StatusOK).shows("at login.example.org", "an admin").hides("/console/me/password")
	ext.get("/console/me/password").is(http.StatusNotFound).shows("kept by login.example.org")
	ext.post("/console/me/password", "password", "ext-password", "new-password", "another-password", "repeat-password",
		"another-password").is(http.StatusNotFound)

	s.Account(t, "newcomer", account.DefaultScopes, nil)
	s.signedIn(t, "newcomer", "newcomer-password").get("/console/me").is(http.StatusOK).
		shows("Your account has no labels", "No scope and no label gives you access").hides("me-managed", "me-viewed")
	s.Admin(t, "chief")
	s.signedIn(t, "chief", "chief-password").get("/console/me").is(http.StatusOK).
		shows("me-secret", "The scope cloud_controller.admin gives it in every cluster.", "everything in every cluster")
}

// revokeLink is the link of a token in the list.
var revokeLink = regexp.MustCompile(`href="(/console/me/tokens/[0-9a-f-]{36}/revoke)"`)

func TestMyTokens(t *testing.T) {
	pg := pgtest.Shared(t)
	s := newSite(t, servicetest.New(t, pg))
	cluster := s.Register(t, "token-cluster", pg, pg.User, pg.Password)
	s.Access(t, cluster, []string{"team=shop"}, nil)
	s.Account(t, "mia", account.DefaultScopes, map[string]string{"team": "shop"})
	b := s.signedIn(t, "mia", "mia-password")
	b.get("/console/me/tokens").is(http.StatusOK).shows("You have no tokens")
	b.get("/console/me/tokens/new").is(http.StatusOK).shows("token-cluster", `value="90d"`)

	// A refused form keeps what was typed, and says what is wrong.
	for _, refused := range []struct{ name, expires, cluster, want string }{
		{"", "90d", cluster, "The token has no name"},
		{"ci", "soon", cluster, "The expiry is &#34;soon&#34;. Use a duration like 90s, 36h or 7d"},
		{"ci", "2020-01-01", cluster, "would have expired already"},
		{"ci", "", "00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000000"},
		{strings.Repeat("x", 101), "", cluster, "1 to 100 characters"},
	} {
		b.post("/console/me/tokens/new", "name", refused.name, "expires", refused.expires, "cluster", refused.cluster,
			"read-only", "yes").is(http.StatusUnprocessableEntity).shows(refused.want, `value="`+refused.name+`"`,
			`value="`+refused.expires+`"`, `name="read-only" value="yes" checked`, "/console/me/tokens/new")
	}
	b.get("/console/me/tokens").shows("You have no tokens")

	// A form that was refused, and then corrected, is carried out; sent once more, as a browser does when the page is loaded
	// again, it is not.
	key := b.get("/console/me/tokens/new").hidden("_once")
	refused := b.post("/console/me/tokens/new", "name", "", "_once", key).is(http.StatusUnprocessableEntity)
	send := []string{"name", "ci <1>", "expires", "1d", "cluster", cluster, "read-only", "yes",
		"_once", refused.hidden("_once")}
	a := b.post("/console/me/tokens/new", send...).
		is(http.StatusOK).shows("ci &lt;1&gt;", "token-cluster, read-only", "Copy the token now")
	token := regexp.MustCompile(`rolecall_pat_[0-9a-f]{32}_[0-9a-f]{40}`).FindAllString(a.Body, -1)
	if len(token) != 1 || a.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("the page has the token %d times, and Cache-Control %q", len(token), a.Header.Get("Cache-Control"))
	}
	p, err := s.Identity.Authenticate(context.Background(), identity.Credential{Scheme: identity.Bearer,
		Value: secret.Text(token[0])}, "127.0.0.1")
	if err != nil || !p.ReadOnly || len(p.Clusters) != 1 || p.Username != "mia" {
		t.Fatalf("the token is that of %+v: %v", p, err)
	}
	for range 2 {
		b.post("/console/me/tokens/new", send...).is(http.StatusConflict).shows("This form was sent before").hides("rolecall_pat_")
	}
	if n := len(revokeLink.FindAllString(b.get("/console/me/tokens").Body, -1)); n != 1 {
		t.Errorf("there are %d tokens", n)
	}
	list := b.get("/console/me/tokens").is(http.StatusOK).shows("ci &lt;1&gt;", "token-cluster, read-only").hides(token[0])
	revoke := revokeLink.FindStringSubmatch(list.Body)
	if revoke == nil {
		t.Fatalf("there is no link:\n%s", list.Body)
	}

	// Nobody else sees or ends it.
	s.Account(t, "other", account.DefaultScopes, map[string]string{"team": "shop"})
	other := s.signedIn(t, "other", "other-password")
	other.get(revoke[1]).is(http.StatusNotFound).hides("ci &lt;1&gt;")
	other.post(revoke[1]).is(http.StatusNotFound)
	other.get("/console/me/tokens").shows("You have no tokens")

	b.get(revoke[1]).is(http.StatusOK).shows("ci &lt;1&gt;", "cannot be undone", "token-cluster")
	if a := b.post(revoke[1]).is(http.StatusSeeOther); a.Location != "/console/me/tokens" {
		t.Errorf("the revocation leads to %s", a.Location)
	}
	b.get("/console/me/tokens").shows("The token was revoked", "You have no tokens")
	b.get(revoke[1]).is(http.StatusNotFound).shows("revoked in the meantime")
	b.post(revoke[1]).is(http.StatusNotFound)
	rows := s.AuditRows(t, revoke[1][len("/console/me/tokens/"):len("/console/me/tokens/")+36])
	if len(rows) == 0 {
		t.Error("nothing is in the audit log")
	}
}

func TestMyPassword(t *testing.T) {
	s := newSite(t, servicetest.New(t, pgtest.Shared(t)))
	guid := s.Account(t, "mia", account.DefaultScopes, nil)
	b, elsewhere := s.signedIn(t, "mia", "mia-password"), s.signedIn(t, "mia", "mia-password")
	b.get("/console/me/password").is(http.StatusOK).shows("Change your password", "/console/me/password")
	for _, refused := range []struct{ current, new, repeated, want string }{
		{"wrong-password", "another-password", "another-password", "The current password is wrong"},
		{"mia-password", "another-password", "another-passwort", "The two new passwords differ"},
		{"mia-password", "short", "short", "10 to 255"},
		{"", "", "", "The current password is wrong"},
	} {
		b.post("/console/me/password", "password", refused.current, "new-password", refused.new, "repeat-password",
			refused.repeated).is(http.StatusUnprocessableEntity).shows(refused.want).hides("another-passwor", "mia-password")
	}
	elsewhere.get("/console/me").is(http.StatusOK)
	a := b.post("/console/me/password", "password", "mia-password", "new-password", "another-password", "repeat-password",
		"another-password").is(http.StatusSeeOther)
	if a.Location != "/console/me" {
		t.Errorf("the change leads to %s", a.Location)
	}
	b.get("/console/me").is(http.StatusOK).shows("Your password was changed")
	eventually(t, "the other session has ended", func() bool {
		return elsewhere.get("/console/me").Status == http.StatusSeeOther
	})
	s.browser(t).post("/console/sign-in", "username", "mia", "password", "mia-password").is(http.StatusUnprocessableEntity)
	s.signedIn(t, "mia", "another-password")
	if len(s.AuditRows(t, guid)) == 0 {
		t.Error("the change is not in the audit log")
	}
	if log := s.Log.String(); strings.Contains(log, "another-passwor") || strings.Contains(log, "mia-password") {
		t.Errorf("the log has a password:\n%s", log)
	}
}

func TestMySessions(t *testing.T) {
	s := newSite(t, servicetest.New(t, pgtest.Shared(t)))
	s.Account(t, "mia", account.DefaultScopes, nil)
	b, second, third := s.signedIn(t, "mia", "mia-password"), s.signedIn(t, "mia", "mia-password"), s.signedIn(t, "mia",
		"mia-password")
	client, err := s.Identity.Client(context.Background(), "cf", "192.0.2.7")
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Identity.GrantWithPassword(context.Background(), client, "mia", "mia-password", nil, "192.0.2.7")
	if err != nil {
		t.Fatal(err)
	}
	endLink := regexp.MustCompile(`action="(/console/me/sessions/[0-9a-f-]{36}/end)"`)
	page := b.get("/console/me/sessions").is(http.StatusOK).shows("this one", "the console",
		"a command line or a program", "192.0.2.7", "127.0.0.1",
		"/console/me/sessions/end-others")
	links := endLink.FindAllStringSubmatch(page.Body, -1)
	if len(links) != 3 {
		t.Fatalf("%d sessions can be ended:\n%s", len(links), page.Body)
	}

	// Nobody else ends one.
	s.Account(t, "other", account.DefaultScopes, nil)
	other := s.signedIn(t, "other", "other-password")
	other.get("/console/me/sessions").is(http.StatusOK).hides("192.0.2.7", "/console/me/sessions/end-others")
	other.post(links[0][1]).is(http.StatusNotFound)
	if n := len(endLink.FindAllString(b.get("/console/me/sessions").Body, -1)); n != 3 {
		t.Errorf("%d sessions are left", n)
	}

	// The newest is that of the command line.
	if a := b.post(links[0][1]).is(http.StatusSeeOther); a.Location != "/console/me/sessions" {
		t.Errorf("the end leads to %s", a.Location)
	}
	b.get("/console/me/sessions").is(http.StatusOK).shows("The session was ended").hides("192.0.2.7")
	b.post(links[0][1]).is(http.StatusNotFound)
	b.post("/console/me/sessions/end-others").is(http.StatusSeeOther)
	b.get("/console/me/sessions").is(http.StatusOK).shows("2 sessions were ended", "this one").hides("/end")
	for _, ended := range []*browser{second, third} {
		eventually(t, "the session has ended", func() bool { return ended.get("/console/me").Status == http.StatusSeeOther })
	}
	b.post("/console/me/sessions/end-others").is(http.StatusSeeOther)
	b.get("/console/me/sessions").is(http.StatusOK).shows("There was no other session")
	other.get("/console/me").is(http.StatusOK)
}
