package console_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

// unwelcome are texts that must be shown as they are: what a person stores is nobody's code.
var unwelcome = []string{
	`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `'-alert(1)-'`, `javascript:alert(1)`, `{{.Principal}}`,
	`</textarea><b>x</b>`, `<svg/onload=alert(1)>`, "\u202eevil", `&lt;b&gt;`, `--><!--`, "a\nb",
}

// unescaped are the beginnings of what a browser would run.
var unescaped = []string{"<script>alert", "<img src=x", "<svg/onload", "</textarea><b>", "--><!--"}

func TestAccountsList(t *testing.T) {
	s := newSite(t, servicetest.New(t, pgtest.Shared(t)))
	s.Admin(t, "list-admin")
	for i := range 60 {
		s.Account(t, fmt.Sprintf("person-%02d", i), account.DefaultScopes, map[string]string{"team": []string{"a", "b"}[i%2]})
	}
	b := s.signedIn(t, "list-admin", "list-admin-password")
	first := b.get("/console/accounts").is(http.StatusOK).shows("list-admin", "person-48", "team=a", "Next page",
		"New account").
		hides("person-50", "First page")
	next := linkTo(t, first, "Next page")
	b.get(next).is(http.StatusOK).shows("person-59", "First page").hides("person-48", "Next page")
	b.get("/console/accounts?name=SON-07").is(http.StatusOK).shows("person-07", `value="SON-07"`).hides("person-08")
	b.get("/console/accounts?selector=team%3Db&name=person-0").is(http.StatusOK).shows("person-01", "person-09").
		hides("person-00", "person-02", "person-11")
	b.get("/console/accounts?scope=cloud_controller.admin").is(http.StatusOK).shows("list-admin").hides("person-")
	b.get("/console/accounts?active=false").is(http.StatusOK).shows("No account that you may see matches")
	b.get("/console/accounts?origin=okta").is(http.StatusOK).shows("No account that you may see matches")
	b.get("/console/accounts?name=%3Cscript%3Ealert(1)%3C/script%3E").is(http.StatusOK).hides("<script>alert")

	// What is wrong in the filter is said at its field, and kept.
	b.get("/console/accounts?selector=team%3D%3D%3Db&name=x").is(http.StatusBadRequest).
		shows(`id="error-selector"`, "team===b", `value="x"`, "An example")
	b.get("/console/accounts?scope=none").is(http.StatusBadRequest).shows(`id="error-scope"`)
	b.get("/console/accounts?active=perhaps").is(http.StatusBadRequest).shows(`id="error-active"`)
	for _, after := range []string{"x", "-1", "99999999999999999999", "1;2"} {
		b.get("/console/accounts?after=" + url.QueryEscape(after)).is(http.StatusUnprocessableEntity)
	}
	b.get("/console/accounts?name=%00").is(http.StatusBadRequest)
	b.get("/console/accounts?name=%ff").is(http.StatusBadRequest)
}

// linkTo is the target of the first link with a text.
func linkTo(t testing.TB, a *answer, text string) string {
	t.Helper()
	before, _, found := strings.Cut(a.Body, text+"</a>")
	i := strings.LastIndex(before, `href="`)
	if !found || i < 0 {
		t.Fatalf("there is no link %q:\n%s", text, a.Body)
	}
	target, _, _ := strings.Cut(before[i+len(`href="`):], `"`)
	return strings.ReplaceAll(target, "&amp;", "&")
}

// Each person sees what the API shows them: nobody and viewers themselves, auditors all and no way to change.
func TestAccountsOfOthers(t *testing.T) {
	s := newSite(t, servicetest.Shared(t))
	other := s.Account(t, "others-other", account.DefaultScopes, map[string]string{"others": "label-of-other"})
	s.Account(t, "others-auditor", []string{account.ScopeAuditor}, nil)
	reader := s.Account(t, "others-scim", []string{account.ScopeSCIMRead}, nil)
	for _, who := range []string{"others-nobody", "others-viewer"} {
		var scopes []string
		if who == "others-viewer" {
			scopes = account.DefaultScopes
		}
		own := s.Account(t, who, scopes, map[string]string{"mine": "own-label"})
		b := s.signedIn(t, who, who+"-password")
		b.get("/console/accounts").is(http.StatusOK).shows(who).hides("others-other", "New account")
		b.get("/console/accounts/"+own).is(http.StatusOK).shows("mine=own-label").hides("Deactivate", "Change<", "Offboard")
		b.get("/console/accounts/" + other).is(http.StatusNotFound)
		b.get("/console/accounts/new").is(http.StatusForbidden)
		for _, page := range []string{"labels", "annotations", "scopes", "deactivate", "delete", "password", "offboard",
			"database-users"} {
			b.get("/console/accounts/" + other + "/" + page).is(http.StatusNotFound)
		}
		for _, page := range []string{"labels", "annotations", "scopes", "deactivate", "delete", "password"} {
			b.get("/console/accounts/" + own + "/" + page).is(http.StatusForbidden)
		}
		b.post("/console/accounts/"+own+"/labels", "new-entry", "team", "new-value", "dba", "etag", "x").is(http.StatusForbidden)
		b.post("/console/accounts/"+own+"/scopes", "scope", account.ScopeAdmin, "etag", "x").is(http.StatusForbidden)
		b.post("/console/accounts/"+own+"/activate", "etag", "x").is(http.StatusForbidden)
		b.post("/console/accounts/new", "username", "others-made", "scope", account.ScopeRead).is(http.StatusForbidden)
		b.get("/console/offboardings").is(http.StatusForbidden)
	}
	auditor := s.signedIn(t, "others-auditor", "others-auditor-password")
	auditor.get("/console/accounts/"+other).is(http.StatusOK).shows("label-of-other", "Only admins see").
		hides("Deactivate", "Change<", "Offboard")
	auditor.get("/console/accounts?selector=others").is(http.StatusOK).shows("others-other").hides("New account")
	auditor.get("/console/offboardings").is(http.StatusOK)
	auditor.get("/console/accounts/" + other + "/scopes").is(http.StatusForbidden)
	scim := s.signedIn(t, "others-scim", "others-scim-password")
	scim.get("/console/accounts/" + other).is(http.StatusOK).shows("others-other").hides("label-of-other")
	scim.get("/console/accounts/" + reader).is(http.StatusOK)
	for _, guid := range []string{"none", "%00", "%ff", "..", "a%2fb", strings.Repeat("x", 300)} {
		auditor.get("/console/accounts/" + guid).is(http.StatusNotFound)
	}
}

func TestCreateAccount(t *testing.T) {
	s := newSite(t, servicetest.Shared(t))
	s.Admin(t, "creates")
	b := s.signedIn(t, "creates", "creates-password")
	b.get("/console/accounts/new").is(http.StatusOK).shows("User name", "Labels", "cloud_controller.admin_read_only")

	// A generated password is shown once, in the answer, and signs in.
	a := b.post("/console/accounts/new", "username", "created-1", "signs-in", "here", "made-by", "generate",
		"scope", account.ScopeRead, "new-entry", "example.com/team", "new-value", "payments", "new-entry", "", "new-value", "").
		is(http.StatusOK).shows("The account was created", "gone when you leave")
	if a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("the page may be kept: %s", a.Header.Get("Cache-Control"))
	}
	password := secretOn(t, a)
	title := a.Body[strings.Index(a.Body, "<title>"):strings.Index(a.Body, "</title>")]
	if strings.Contains(title, password) || strings.Count(a.Body, password) != 1 {
		t.Errorf("the password is in more than one place")
	}
	s.signedIn(t, "created-1", password)
	made, err := s.Accounts.ByUsername(context.Background(), "created-1", account.LocalOrigin)
	if err != nil {
		t.Fatal(err)
	}
	if made.Labels["example.com/team"] != "payments" || len(made.Scopes) != 1 {
		t.Errorf("made: %+v", made)
	}
	page := b.get("/console/accounts/" + made.GUID).is(http.StatusOK).shows("example.com/team=payments").hides(password)
	b.get("/console/accounts/new").hides(password)
	if strings.Contains(page.Location, password) || strings.Contains(s.Log.String(), password) {
		t.Error("the password is in the log")
	}

	// One that is typed leads to the account.
	a = b.post("/console/accounts/new", "username", "created-2", "made-by", "type", "password", "typed-password-2",
		"repeat-password", "typed-password-2", "scope", account.ScopeRead).is(http.StatusSeeOther)
	b.get(a.Location).is(http.StatusOK).shows("The account created-2 was created.").hides("typed-password-2")
	s.signedIn(t, "created-2", "typed-password-2")

	// Refused forms keep what was typed, and no password.
	form := func(pairs ...string) []string {
		return append([]string{"signs-in", "here", "made-by", "type", "password", "typed-password",
			"repeat-password", "typed-password", "scope", account.ScopeWrite, "new-entry", "kept", "new-value", "kept-value"},
			pairs...)
	}
	for _, test := range []struct {
		pairs  []string
		status int
		field  string
		says   string
	}{
		{form("username", "created-1"), http.StatusConflict, "username", "taken"},
		{form("username", "CREATED-1"), http.StatusConflict, "username", "taken"},
		{form("username", ""), 422, "username", "Give the person"},
		{form("username", "a:b"), 422, "username", "colon"},
		{form("username", "x\u202ey"), 422, "username", "shown"},
		{form("username", "other", "new-entry", "bad key", "new-value", "x"), 422, "new-1", "invalid characters"},
		{form("username", "other", "new-entry", "k", "new-value", "bad value"), 422, "new-1", "invalid characters"},
		{form("username", "other", "new-entry", "kept", "new-value", "twice"), 422, "new-1", "there already"},
		{[]string{"username", "other", "made-by", "type", "password", "typed-password", "repeat-password", "other"}, 422,
			"repeat-password", "differ"},
		{[]string{"username", "other", "made-by", "type", "password", "short", "repeat-password", "short"}, 422, "password",
			"10"},
		{[]string{"username", "other", "made-by", "type"}, 422, "password", "Type a password"},
		{[]string{"username", "other", "signs-in", "issuer"}, 422, "origin", "origin of an issuer"},
		{[]string{"username", "other", "signs-in", "issuer", "origin", "uaa"}, 422, "origin", "origin of an issuer"},
	} {
		a := b.post("/console/accounts/new", test.pairs...).is(test.status).
			shows(`id="error-`+test.field+`"`, `href="#field-`+test.field+`"`, `id="field-`+test.field+`"`, test.says).
			hides("typed-password", `value="short"`)
		if len(test.pairs) > 12 {
			a.shows(`value="kept-value"`, `value="cloud_controller.write" checked`).hides(`value="cloud_controller.read" checked`)
		}
	}
	b.post("/console/accounts/new", "username", "other", "scope", "no.such").is(422).shows("There is no scope")

	// An account that is prepared for an issuer has no password.
	a = b.post("/console/accounts/new", "username", "created-3", "signs-in", "issuer", "origin", "okta", "scope",
		account.ScopeRead).is(http.StatusSeeOther)
	b.get(a.Location).is(http.StatusOK).shows("at the issuer of the origin okta").hides("New password", "Unlock")
}

// secretOn is the secret that a page shows once.
func secretOn(t testing.TB, a *answer) string {
	t.Helper()
	_, after, found := strings.Cut(a.Body, `class="secret"`)
	if !found {
		t.Fatalf("the page shows no secret:\n%s", a.Body)
	}
	text := after[strings.Index(after, ">")+1:]
	return text[:strings.Index(text, "<")]
}

func TestAccountMetadata(t *testing.T) {
	s := newSite(t, servicetest.Shared(t))
	s.Admin(t, "labels")
	guid := s.Account(t, "labeled", account.DefaultScopes, map[string]string{"a": "1", "b": "2", "c": "3"})
	at := "/console/accounts/" + guid
	b := s.signedIn(t, "labels", "labels-password")
	a := b.get(at + "/labels").is(http.StatusOK)
	tag := a.hidden("etag")

	// Add, change and remove in one form.
	form := []string{"etag", tag, "entry", "a", "was", "1", "value", "1", "entry", "b", "was", "2", "value", "new",
		"entry", "c", "was", "3", "value", "3", "remove", "c", "new-entry", "d", "new-value", "4"}
	done := b.post(at+"/labels", form...).is(http.StatusSeeOther)
	b.get(done.Location).is(http.StatusOK).shows("The labels were changed.", "a=1", "b=new", "d=4").hides("c=3", "b=2")

	// The same form again is of an account that has changed: both versions are shown, and sending it once more wins.
	stale := b.post(at+"/labels", "etag", tag, "entry", "a", "was", "1", "value", "mine", "entry", "b", "was", "2", "value",
		"mine-too", "entry", "c", "was", "3", "value", "3").is(http.StatusPreconditionFailed).
		shows("changed the account since", `value="mine"`, `value="mine-too"`, "It is now <code>new</code>",
			"removed in the meantime",
			`value="4"`)
	fresh := stale.hidden("etag")
	if fresh == tag {
		t.Error("the form still has the old tag")
	}
	b.post(at+"/labels", "etag", fresh, "entry", "a", "was", "1", "value", "mine", "entry", "b", "was", "new", "value",
		"mine-too",
		"entry", "d", "was", "4", "value", "4").is(http.StatusSeeOther)
	b.get(at).shows("a=mine", "b=mine-too", "d=4")

	// A form that is refused for another reason keeps its tag, so that it still meets the change.
	refused := b.post(at+"/labels", "etag", tag, "new-entry", "bad key!", "new-value", "x").is(422).
		shows(`id="field-new-0"`, `id="error-new-0"`, `value="bad key!"`)
	if refused.hidden("etag") != tag {
		t.Error("a refused form takes the new tag without showing what has changed")
	}
	b.post(at+"/labels", "etag", tag, "entry", "a", "was", "1", "value", "no spaces").is(422).shows(`id="error-value-0"`)

	// Annotations take any text, which is shown as it is.
	pairs := []string{"etag", b.get(at + "/annotations").hidden("etag")}
	for i, text := range unwelcome {
		pairs = append(pairs, "new-entry", fmt.Sprintf("note%d", i), "new-value", text)
	}
	b.post(at+"/annotations", pairs...).is(http.StatusSeeOther)
	b.get(at).is(http.StatusOK).hides(unescaped...).shows("&lt;script&gt;alert(1)", "&amp;lt;b&amp;gt;")
	b.get(at + "/annotations").is(http.StatusOK).hides(unescaped...).shows("note10")
	b.post(at+"/annotations", "etag", "x", "new-entry", "big", "new-value", strings.Repeat("x", 5001)).is(422).
		shows("5000", strings.Repeat("x", 5001))
	for _, text := range unwelcome {
		b.post(at+"/labels", "etag", fresh, "new-entry", text, "new-value", text).is(422).hides(unescaped...)
	}
	many := []string{"etag", b.get(at + "/labels").hidden("etag")}
	for i := range 60 {
		many = append(many, "new-entry", fmt.Sprintf("k%d", i), "new-value", "x")
	}
	b.post(at+"/labels", many...).is(422).shows("at most 50 labels", `value="k59"`)
}

// The labels of an issuer are shown with their source, and have no field.
func TestIssuerLabels(t *testing.T) {
	s := newSite(t, servicetest.Shared(t))
	s.Admin(t, "sources")
	guid := s.Account(t, "sourced", account.DefaultScopes, map[string]string{"team": "of-issuer", "own": "of-admin"})
	_, err := s.DB.Pool.Exec(context.Background(),
		`UPDATE accounts SET label_sources = '{"team":"company-sso"}' WHERE guid = $1`, guid)
	if err != nil {
		t.Fatal(err)
	}
	b := s.signedIn(t, "sources", "sources-password")
	b.get("/console/accounts/"+guid).is(http.StatusOK).shows("team=of-issuer", "company-sso")
	b.get("/console/accounts/"+guid+"/labels").is(http.StatusOK).shows("company-sso", `value="of-admin"`).
		hides(`value="of-issuer"`, `name="remove" value="team"`)
	b.post("/console/accounts/"+guid+"/labels", "etag", b.get("/console/accounts/"+guid+"/labels").hidden("etag"),
		"entry", "own", "was", "of-admin", "value", "changed").is(http.StatusSeeOther)
	b.get("/console/accounts/"+guid).shows("team=of-issuer", "own=changed")
}

func TestAccountActions(t *testing.T) {
	s := newSite(t, servicetest.Shared(t))
	admin := s.Admin(t, "acts")
	guid := s.Account(t, "acted", account.DefaultScopes, nil)
	at := "/console/accounts/" + guid
	b := s.signedIn(t, "acts", "acts-password")
	other := s.signedIn(t, "acted", "acted-password")
	other.get("/console/").is(http.StatusOK)

	// The sessions and tokens are shown, and a session is ended.
	other.post("/console/me/tokens/new", "name", "ci-token", "read-only", "yes").is(http.StatusOK)
	shown := b.get(at).is(http.StatusOK).shows("Go-http-client", "127.0.0.1", "ci-token", "read-only", "Last sign-in")
	third := s.signedIn(t, "acted", "acted-password")
	end := shown.form("/sessions/")
	b.post(end).is(http.StatusSeeOther)
	b.post(end).is(http.StatusNotFound)
	eventually(t, "the session has ended", func() bool { return other.get("/console/").Status == http.StatusSeeOther })
	other = third
	third.post(at + "/sessions/" + uuid.NewString() + "/end").is(http.StatusNotFound)
	third.post("/console/accounts/" + admin + "/sessions/" + uuid.NewString() + "/end").is(http.StatusNotFound)

	// Deactivating says what stays, and ends the sessions.
	plan := b.get(at+"/deactivate").is(http.StatusOK).shows("What stays:", "every database user")
	b.post(at+"/deactivate", "etag", "old").is(http.StatusPreconditionFailed).shows("changed concurrently")
	done := b.post(at+"/deactivate", "etag", plan.hidden("etag")).is(http.StatusSeeOther)
	page := b.get(done.Location).is(http.StatusOK).shows("The account is inactive.", "inactive", "Activate")
	eventually(t, "the session of the account has ended", func() bool {
		return other.get("/console/").
			Status == http.StatusSeeOther
	})
	b.post(at+"/activate", "etag", page.hidden("etag")).is(http.StatusSeeOther)
	b.get(at).shows("Deactivate")
	b.post(at+"/activate", "etag", page.hidden("etag")).is(http.StatusPreconditionFailed).shows("Deactivate")

	// A new password is shown once, and is the only one that signs in.
	a := b.post(at+"/password", "etag", b.get(at+"/password").hidden("etag"), "made-by", "generate").is(http.StatusOK)
	s.signedIn(t, "acted", secretOn(t, a))
	s.browser(t).post("/console/sign-in", "username", "acted", "password", "acted-password").is(http.StatusUnprocessableEntity)
	b.post(at+"/password", "etag", b.get(at+"/password").hidden("etag"), "made-by", "type", "password", "short",
		"repeat-password", "short").is(422).shows(`id="error-password"`).hides(`value="short"`)

	// Scopes.
	form := b.get(at + "/scopes").is(http.StatusOK).shows(`value="cloud_controller.read" checked`)
	b.post(at+"/scopes", "etag", form.hidden("etag"), "scopes", "chosen", "scope", account.ScopeRead, "scope",
		account.ScopeAuditor).is(http.StatusSeeOther)
	b.get(at).shows(account.ScopeAuditor).hides("<code>" + account.ScopeWrite)
	b.post(at+"/scopes", "etag", form.hidden("etag"), "scopes", "chosen", "scope", account.ScopeWrite).
		is(http.StatusPreconditionFailed).shows(`value="cloud_controller.write" checked`, account.ScopeAuditor).
		hides(`value="cloud_controller.global_auditor" checked`)
	b.post(at+"/scopes", "etag", b.get(at+"/scopes").hidden("etag"), "scopes", "chosen").is(http.StatusSeeOther)
	b.get(at).shows("it can read and change nothing")

	// Unlocking ends the wait after failed sign-ins.
	stranger := s.browser(t)
	for range 7 {
		stranger.post("/console/sign-in", "username", "acted", "password", "wrong")
	}
	stranger.post("/console/sign-in", "username", "acted", "password", "wrong").is(http.StatusTooManyRequests)
	b.post(at + "/unlock").is(http.StatusSeeOther)
	stranger.post("/console/sign-in", "username", "acted", "password", "wrong").is(http.StatusUnprocessableEntity)

	// Deleting wants the name.
	form = b.get(at+"/delete").is(http.StatusOK).shows("Type the name acted", "every database user", guid)
	b.post(at+"/delete", "etag", form.hidden("etag"), "name", "wrong").is(422).shows(`id="error-name"`, `value="wrong"`)
	b.post(at+"/delete", "etag", "old", "name", "acted").is(http.StatusPreconditionFailed)
	b.post(at+"/delete", "etag", form.hidden("etag"), "name", "acted").is(http.StatusSeeOther)
	b.get("/console/accounts").shows("The account acted was deleted.")
	b.get(at).is(http.StatusNotFound)
	for _, page := range []string{"activate", "deactivate", "unlock", "labels", "password", "scopes", "delete", "offboard"} {
		b.post(at+"/"+page, "etag", "x", "name", "acted").is(http.StatusNotFound)
	}
}

// form is the path of the first form of a page whose path has a part.
func (a *answer) form(part string) string {
	a.t.Helper()
	for _, m := range regexp.MustCompile(`action="([^"]*)"`).FindAllStringSubmatch(a.Body, -1) {
		if strings.Contains(m[1], part) {
			return m[1]
		}
	}
	a.t.Fatalf("there is no form with %s:\n%s", part, a.Body)
	return ""
}

// The last admin stays, in whatever way it is tried.
func TestLastAdmin(t *testing.T) {
	s := newSite(t, servicetest.New(t, pgtest.Shared(t)))
	guid := s.Admin(t, "last")
	b := s.signedIn(t, "last", "last-password")
	at := "/console/accounts/" + guid
	b.post(at+"/deactivate", "etag", b.get(at+"/deactivate").hidden("etag")).is(422).shows("last active admin")
	b.post(at+"/delete", "etag", b.get(at+"/delete").hidden("etag"), "name", "last").is(422).shows("last active admin")
	b.post(at+"/scopes", "etag", b.get(at+"/scopes").hidden("etag"), "scopes", "chosen", "scope", account.ScopeRead).is(422).
		shows("last active admin", `value="cloud_controller.read" checked`)
	b.get(at + "/offboard").is(422).shows("cannot offboard your own account")
}

// Scopes and passwords are given only by a person who has proved lately who they are.
func TestProofForScopes(t *testing.T) {
	s := newSite(t, servicetest.New(t, pgtest.Shared(t)))
	s.Admin(t, "proves")
	guid := s.Account(t, "given", account.DefaultScopes, nil)
	b := s.signedIn(t, "proves", "proves-password")
	if _, err := s.DB.Pool.Exec(context.Background(),
		`UPDATE console_sessions SET proven_at = now() - interval '11 minutes'`); err != nil {
		t.Fatal(err)
	}
	at := "/console/accounts/" + guid
	for _, page := range []string{at + "/scopes", at + "/password"} {
		if a := b.get(page).is(http.StatusSeeOther); a.Location != "/console/prove?next="+url.QueryEscape(page) {
			t.Errorf("%s leads to %s", page, a.Location)
		}
	}
	a := b.post(at+"/scopes", "scope", account.ScopeAdmin, "scopes", "chosen").is(http.StatusUnauthorized).shows("Is it you?")
	if typed := a.hidden("typed"); !strings.Contains(typed, account.ScopeAdmin) {
		t.Errorf("what was typed is lost: %q", typed)
	}
	a = b.post(at+"/password", "made-by", "type", "password", "typed-password", "repeat-password", "typed-password").
		is(http.StatusUnauthorized).shows("Is it you?").hides("typed-password")
	b.post("/console/accounts/new", "username", "given-2", "scope", account.ScopeAdmin).is(http.StatusUnauthorized)
	if made, err := s.Accounts.ByGUID(context.Background(), guid); err != nil || len(made.Scopes) != 2 {
		t.Fatalf("the scopes were changed: %v %v", made, err)
	}
	b.post("/console/prove", "password", "proves-password", "next", a.hidden("next"), "typed", a.hidden("typed")).
		is(http.StatusOK)
	b.post(at+"/password", "made-by", "generate", "_restore", "1").is(http.StatusOK).hides(`class="secret"`)
	b.get(at + "/scopes").is(http.StatusOK)
}

// An admin changes the own password only with the current one, as long as the proof of the sign-in may be.
func TestOwnPasswordOfAdmin(t *testing.T) {
	s := newSite(t, servicetest.Shared(t))
	own := "/console/accounts/" + s.Admin(t, "ownpw") + "/password"
	b := s.signedIn(t, "ownpw", "ownpw-password")
	if a := b.get(own).is(http.StatusSeeOther); a.Location != "/console/me/password" {
		t.Errorf("the page leads to %s", a.Location)
	}
	for _, made := range []string{"generate", "type"} {
		b.post(own, "made-by", made, "password", "another-password", "repeat-password", "another-password")
	}
	s.signedIn(t, "ownpw", "ownpw-password")
}
