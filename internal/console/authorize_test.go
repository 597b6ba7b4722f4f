package console_test

import (
	"crypto/sha256"
	"encoding/base64"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"rolecall/internal/account"
	"rolecall/internal/identity"
	"rolecall/internal/servicetest"
)

const (
	callback = "http://127.0.0.1:43210/callback"
	verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
)

// authorizePath is the path of the authorization endpoint with these changes of the parameters; "": one is missing.
func authorizePath(changes ...string) string {
	sum := sha256.Sum256([]byte(verifier))
	v := url.Values{"response_type": {"code"}, "client_id": {"rolecall"}, "redirect_uri": {callback}, "state": {"a state"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"}}
	for i := 0; i < len(changes); i += 2 {
		if v.Set(changes[i], changes[i+1]); changes[i+1] == "" {
			v.Del(changes[i])
		}
	}
	return "/uaa/oauth/authorize?" + v.Encode()
}

// action is where the form of a page goes.
func (a *answer) action() string {
	a.t.Helper()
	all := regexp.MustCompile(`<form method="post" action="([^"]*)"`).FindAllStringSubmatch(a.Body, -1)
	if len(all) < 2 { // the first one signs out
		a.t.Fatalf("there is no form:\n%s", a.Body)
	}
	return html.UnescapeString(all[len(all)-1][1])
}

func (s *site) client(t testing.TB, id string) *identity.Client {
	t.Helper()
	c, err := s.Identity.Client(t.Context(), id, "10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// signsIn fails the test unless a token is one of the account.
func (s *site) signsIn(t testing.TB, tokens *identity.Tokens, err error, guid string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Identity.Authenticate(t.Context(), identity.ParseCredential("Bearer "+string(tokens.Access)), "10.0.0.1")
	if err != nil || p.GUID != guid {
		t.Fatalf("it signs in as %+v, %v", p, err)
	}
}

// A person signs in, sees who asks, and the command line gets the code that it exchanges.
func TestAuthorizePage(t *testing.T) {
	s := newSite(t, servicetest.Shared(t))
	guid := s.Account(t, "authorize", account.DefaultScopes, nil)
	b := s.browser(t)
	path := authorizePath()
	signIn := b.get(path).is(http.StatusSeeOther).Location
	if want := "/console/sign-in?next=" + url.QueryEscape(path); signIn != want {
		t.Fatalf("it leads to %s, not to %s", signIn, want)
	}
	back := b.post("/console/sign-in", "username", "authorize", "password", "authorize-password", "next",
		b.get(signIn).hidden("next")).is(http.StatusSeeOther).Location
	if back != path {
		t.Fatalf("the sign-in leads to %s, not to %s", back, path)
	}
	shown := b.get(back).is(http.StatusOK).shows("authorize", "<code>rolecall</code>", "everything that you may", callback)
	if policy := shown.Header.Get("Content-Security-Policy"); !strings.HasSuffix(policy,
		"form-action 'self' http://127.0.0.1:43210") {
		t.Errorf("the policy is %s", policy)
	}
	if form := shown.action(); form != path {
		t.Errorf("the form goes to %s", form)
	}
	b.post(path).is(http.StatusUnprocessableEntity).shows("Choose one of the two buttons")

	answer := mustURL(t, b.post(shown.action(), "decision", "approve").is(http.StatusSeeOther).Location)
	code := answer.Query().Get("code")
	if answer.Scheme+"://"+answer.Host+answer.Path != callback || answer.Query().Get("state") != "a state" || code == "" {
		t.Fatalf("the answer goes to %s", answer)
	}
	tokens, err := s.Identity.GrantWithCode(t.Context(), s.client(t, "rolecall"),
		identity.CodeProof{Code: code, Verifier: verifier, RedirectURI: callback}, "10.0.0.1")
	s.signsIn(t, tokens, err, guid)

	denied := mustURL(t, b.post(path, "decision", "deny").is(http.StatusSeeOther).Location)
	if q := denied.Query(); denied.Host != "127.0.0.1:43210" || q.Get("error") != "access_denied" || q.Has("code") ||
		q.Get("state") != "a state" {
		t.Errorf("a denial goes to %s", denied)
	}
	b.get(authorizePath("scope", "cloud_controller.read")).is(http.StatusOK).shows("<code>cloud_controller.read</code>").
		hides("everything that you may")
	b.get(authorizePath("redirect_uri", "http://[::1]:80/callback")).is(http.StatusOK)
}

// A request that is not the client's leads nowhere, and one that is not acceptable tells the client.
func TestAuthorizeIsRefused(t *testing.T) {
	s := newSite(t, servicetest.Shared(t))
	s.Account(t, "refused", account.DefaultScopes, nil)
	b := s.signedIn(t, "refused", "refused-password")
	for _, changes := range [][]string{
		{"redirect_uri", "https://evil.example/callback"}, {"redirect_uri", "http://evil.example:80/callback"},
		{"redirect_uri", ""}, {"client_id", "evil"}, {"client_id", ""},
	} {
		path := authorizePath(changes...)
		for _, a := range []*answer{b.get(path), b.post(path, "decision", "approve"), b.post(path, "decision", "deny")} {
			policy := a.is(http.StatusUnprocessableEntity).Header.Get("Content-Security-Policy")
			if a.Location != "" || strings.Contains(policy, "evil") {
				t.Errorf("%q: %+v", changes, a.Header)
			}
		}
	}
	twice := authorizePath() + "&redirect_uri=" + url.QueryEscape("https://evil.example/callback")
	if b.get(twice).is(http.StatusBadRequest).Location != "" {
		t.Error("a redirect URI that is given twice leads somewhere")
	}
	for _, changes := range [][]string{
		{"code_challenge_method", "plain"}, {"code_challenge_method", ""}, {"code_challenge", ""}, {"state", ""},
		{"response_type", "token"}, {"scope", "cloud_controller.admin"},
	} {
		path := authorizePath(changes...)
		answers := []*answer{b.post(path, "decision", "approve")}
		if changes[0] != "scope" { // that depends on the person's scopes at the approval
			answers = append(answers, b.get(path))
		}
		for _, a := range answers {
			u := mustURL(t, a.is(http.StatusSeeOther).Location)
			if u.Host != "127.0.0.1:43210" || u.Query().Get("error") == "" || u.Query().Has("code") {
				t.Errorf("%q: the answer goes to %s", changes, u)
			}
		}
	}
}

// A session that ends before the approval: the person signs in and decides again.
func TestAuthorizeAfterTheSession(t *testing.T) {
	s := newSite(t, servicetest.Shared(t))
	s.Account(t, "ended", account.DefaultScopes, nil)
	b := s.signedIn(t, "ended", "ended-password")
	b.post("/console/sign-out").is(http.StatusSeeOther)
	path := authorizePath()
	again := b.post(path, "decision", "approve").is(http.StatusUnauthorized).shows("Your session has ended")
	next := again.hidden("next")
	if next != path {
		t.Errorf("the sign-in leads to %s", next)
	}
	b.post("/console/sign-in", "username", "ended", "password", "ended-password", "next", next, "typed", again.hidden("typed")).
		is(http.StatusOK).shows("Nothing was changed yet")
	b.post(path, "_restore", "1", "decision", "approve").is(http.StatusOK).shows("Sign in the command line?")
}
