package console_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"rolecall/internal/account"
	"rolecall/internal/identity"
	"rolecall/internal/servicetest"
)

// issuer signs the same person in for every browser that comes.
type issuer struct {
	*httptest.Server
	mu     sync.Mutex
	claims jwt.MapClaims // of its ID tokens
	nonces map[string]string
}

func newIssuer(t testing.TB) *issuer {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{nonces: map[string]string{}}
	mux := http.NewServeMux()
	write := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		write(w, map[string]any{"issuer": i.URL, "jwks_uri": i.URL + "/keys", "authorization_endpoint": i.URL + "/authorize",
			"token_endpoint": i.URL + "/token"})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		write(w, map[string]any{"keys": []any{map[string]any{"kty": "RSA", "kid": "1", "alg": "RS256", "use": "sig",
			"n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()),
			"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes())}}})
	})
	mux.HandleFunc("/authorize", func(w http.ResponseWriter, r *http.Request) {
		i.mu.Lock()
		defer i.mu.Unlock()
		code := rand.Text()
		i.nonces[code] = r.URL.Query().Get("nonce")
		http.Redirect(w, r, r.URL.Query().Get("redirect_uri")+"?"+
			url.Values{"code": {code}, "state": {r.URL.Query().Get("state")}}.Encode(), http.StatusFound)
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		i.mu.Lock()
		defer i.mu.Unlock()
		c := jwt.MapClaims{"iss": i.URL, "aud": "rolecall", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
			"nonce": i.nonces[r.FormValue("code")]}
		maps.Copy(c, i.claims)
		token := jwt.NewWithClaims(jwt.SigningMethodRS256, c)
		token.Header["kid"] = "1"
		signed, err := token.SignedString(key)
		if err != nil {
			t.Error(err)
		}
		write(w, map[string]any{"access_token": "access", "token_type": "Bearer", "id_token": signed})
	})
	i.Server = httptest.NewServer(mux)
	t.Cleanup(i.Close)
	return i
}

// siteAt is a site whose people sign in at the issuers, by the names corp, corp2 and so on.
func siteAt(t testing.TB, issuers ...*issuer) *site {
	t.Helper()
	s := *servicetest.Shared(t)
	var settings []identity.OIDCIssuer
	for n, i := range issuers {
		settings = append(settings, identity.OIDCIssuer{Name: []string{"corp", "corp2"}[n], URL: i.URL, ClientID: "rolecall"})
	}
	var err error
	s.Identity, err = identity.New(t.Context(), s.DB, identity.Config{Issuer: s.Identity.Issuer(),
		PublicURL: servicetest.PublicURL, OIDC: settings,
		PasswordCost: servicetest.PasswordCost, Log: slog.New(slog.NewTextHandler(s.Log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	s.Accounts = s.Identity.Accounts()
	return newSite(t, &s)
}

// at goes to an issuer and comes back: it returns the path of the site that the issuer sends the browser to.
func (b *browser) at(location string) (path string) {
	b.t.Helper()
	req, err := http.NewRequest(http.MethodGet, location, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	back := b.do(req).is(http.StatusFound).Location
	path, found := strings.CutPrefix(back, servicetest.PublicURL)
	if !found {
		b.t.Fatalf("the issuer sends the browser to %s", back)
	}
	return path
}

func TestSignInAtIssuer(t *testing.T) {
	i := newIssuer(t)
	s := siteAt(t, i)
	i.claims = jwt.MapClaims{"sub": "gina", "preferred_username": "gina"}
	b := s.browser(t)
	page := b.get("/console/sign-in?next="+url.QueryEscape("/console/?a=1")).is(http.StatusOK).
		shows(`action="/console/sign-in/corp"`, "Sign in with corp", `name="password"`)
	if p := page.Header.Get("Content-Security-Policy"); !strings.HasSuffix(p, "form-action 'self' https: "+i.URL) {
		t.Errorf("the policy is %s", p)
	}
	a := b.post("/console/sign-in/corp", "next", page.hidden("next")).is(http.StatusSeeOther)
	cookie := a.Header.Get("Set-Cookie")
	for _, part := range []string{"rolecall-issuer=", "Path=/", "HttpOnly", "SameSite=Lax"} {
		if !strings.Contains(cookie, part) {
			t.Errorf("the cookie lacks %s: %s", part, cookie)
		}
	}
	back := b.at(a.Location)
	if a = b.get(back).is(http.StatusSeeOther); a.Location != "/console/?a=1" {
		t.Errorf("the sign-in leads to %s", a.Location)
	}
	b.get("/console/").is(http.StatusOK).shows("gina")
	// The page of the answer, loaded again, starts nothing; the session stays.
	b.get(back).is(http.StatusUnauthorized).shows("The sign-in did not succeed.", `href="/console/sign-in"`, "Request ").
		hides("code=", "state=", "corp")
	b.get("/console/").is(http.StatusOK)
	// A second sign-in takes the place of the session.
	old := b.http.Jar.Cookies(mustURL(t, s.URL))
	b.get(b.at(b.post("/console/sign-in/corp").is(http.StatusSeeOther).Location)).is(http.StatusSeeOther)
	b.get("/console/").is(http.StatusOK)
	other := s.browser(t)
	other.http.Jar.SetCookies(mustURL(t, s.URL), old)
	other.get("/console/").is(http.StatusSeeOther)
	// It leads to no other host.
	b = s.browser(t)
	back = b.at(b.post("/console/sign-in/corp", "next", "https://evil.example/").is(http.StatusSeeOther).Location)
	if a := b.get(back).is(http.StatusSeeOther); a.Location != "/console/" {
		t.Errorf("the sign-in leads to %s", a.Location)
	}
}

// TestIssuerAnswers: an answer that belongs to no sign-in of this browser signs nobody in.
func TestIssuerAnswers(t *testing.T) {
	i := newIssuer(t)
	s := siteAt(t, i, newIssuer(t))
	i.claims = jwt.MapClaims{"sub": "ivo", "preferred_username": "ivo"}
	thief := s.browser(t)
	back := thief.at(thief.post("/console/sign-in/corp").is(http.StatusSeeOther).Location)
	// A person whom the thief makes follow the thief's answer is not signed in as the thief.
	victim := s.browser(t)
	before := len(s.Log.String())
	victim.get(back).is(http.StatusUnauthorized).shows("The sign-in did not succeed.")
	victim.get("/console/").is(http.StatusSeeOther)
	if log := s.Log.String()[before:]; !strings.Contains(log, "it keeps no cookies") || strings.Contains(log, "code=") {
		t.Errorf("the log has %s", log)
	}
	victim.post("/console/sign-in/corp").is(http.StatusSeeOther)
	victim.get(back).is(http.StatusUnauthorized)
	victim.get("/console/").is(http.StatusSeeOther)
	thief.get(strings.Replace(back, "/corp?", "/corp2?", 1)).is(http.StatusUnauthorized)
	for path, want := range map[string]int{"/uaa/login/callback/corp": 401, "/uaa/login/callback/corp?error=access_denied": 401,
		"/uaa/login/callback/other?code=a": 404, "/uaa/login/callback/": 404} {
		s.browser(t).get(path).is(want)
	}
	// No other site starts a sign-in.
	req, err := http.NewRequest(http.MethodPost, s.URL+"/console/sign-in/corp", strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Origin", "https://evil.example")
	s.browser(t).do(req).is(http.StatusForbidden)
	s.browser(t).post("/console/sign-in/other").is(http.StatusNotFound)
	// An issuer that does not answer.
	i.Close()
	away := siteAt(t, i)
	away.browser(t).post("/console/sign-in/corp").is(http.StatusUnauthorized).shows("The sign-in did not succeed.")
}

// TestTypedSurvivesIssuer: what was typed before the session ended is there after the sign-in at an issuer.
func TestTypedSurvivesIssuer(t *testing.T) {
	i := newIssuer(t)
	s := siteAt(t, i)
	i.claims = jwt.MapClaims{"sub": "typist", "preferred_username": "typist"}
	b := s.browser(t)
	a := b.post("/console/prove", "next", "/console/", "note", `a "note" & more`, "password", "a secret").
		is(http.StatusUnauthorized).shows("Your session has ended", `action="/console/sign-in/corp"`)
	a = b.post("/console/sign-in/corp", "next", a.hidden("next"), "typed", a.hidden("typed")).is(http.StatusSeeOther)
	a = b.get(b.at(a.Location)).is(http.StatusOK).shows(`action="/console/prove"`).hides("a secret")
	if a.hidden("note") != `a "note" & more` {
		t.Errorf("what was typed is lost:\n%s", a.Body)
	}
	// What does not fit is lost, and the person gets to the page.
	a = b.post("/console/sign-in/corp", "next", "/console/", "typed", "note="+strings.Repeat("x", 5000)).is(http.StatusSeeOther)
	if a := b.get(b.at(a.Location)).is(http.StatusSeeOther); a.Location != "/console/" {
		t.Errorf("the sign-in leads to %s", a.Location)
	}
}

// TestProve: a person of an issuer proves there who they are, and one with a password by that.
func TestProve(t *testing.T) {
	i := newIssuer(t)
	s := siteAt(t, i)
	i.claims = jwt.MapClaims{"sub": "paula", "preferred_username": "paula", "auth_time": time.Now().Add(-time.Hour).Unix()}
	b := s.browser(t)
	b.get(b.at(b.post("/console/sign-in/corp").is(http.StatusSeeOther).Location)).is(http.StatusSeeOther)
	b.get("/console/prove?next=/console/").is(http.StatusOK).shows("Prove it with corp", `name="prove" value="1"`).
		hides(`name="password"`)
	a := b.post("/console/sign-in/corp", "next", "/console/?proved", "prove", "1").is(http.StatusSeeOther)
	if q := mustURL(t, a.Location).Query(); q.Get("prompt") != "login" || q.Get("max_age") != "0" {
		t.Errorf("the browser goes to %s", a.Location)
	}
	// The issuer has not asked the person: the session is no better than before, and stays.
	b.get(b.at(a.Location)).is(http.StatusUnauthorized)
	b.get("/console/").is(http.StatusOK)
	i.claims["auth_time"] = time.Now().Unix()
	a = b.post("/console/sign-in/corp", "next", "/console/?proved", "prove", "1").is(http.StatusSeeOther)
	if a = b.get(b.at(a.Location)).is(http.StatusSeeOther); a.Location != "/console/?proved" {
		t.Errorf("the sign-in leads to %s", a.Location)
	}
	s.Account(t, "proves-local", account.DefaultScopes, nil)
	s.signedIn(t, "proves-local", "proves-local-password").get("/console/prove").is(http.StatusOK).
		shows(`name="password"`).hides("corp")
}

// TestCommandLineAtIssuer: a command line that names an issuer leads straight there, and back to the page about itself.
func TestCommandLineAtIssuer(t *testing.T) {
	i := newIssuer(t)
	s := siteAt(t, i)
	i.claims = jwt.MapClaims{"sub": "clara", "preferred_username": "clara"}
	authorize := "/uaa/oauth/authorize?" + url.Values{"response_type": {"code"}, "client_id": {"rolecall"}, "state": {"s"},
		"redirect_uri": {"http://127.0.0.1:7/callback"}, "code_challenge": {strings.Repeat("x", 43)},
		"code_challenge_method": {"S256"}}.Encode()
	b := s.browser(t)
	ask := b.get(authorize + "&issuer=corp").is(http.StatusSeeOther)
	a := b.get(ask.Location).is(http.StatusSeeOther)
	if !strings.HasPrefix(a.Location, i.URL+"/authorize?") {
		t.Fatalf("the browser is led to %s", a.Location)
	}
	if a = b.get(b.at(a.Location)).is(http.StatusSeeOther); a.Location != authorize+"&issuer=corp" {
		t.Errorf("the sign-in leads to %s", a.Location)
	}
	b.get(a.Location).is(http.StatusOK).shows("Sign in the command line?", "clara")

	// Other pages ask, also when their address has such a parameter, and so does one whose issuer is unknown.
	b = s.browser(t)
	for next, want := range map[string]string{
		authorize + "&issuer=":          "Sign in with corp",
		authorize + "&issuer=elsewhere": "There is no issuer &#34;elsewhere&#34;",
		"/console/?issuer=corp":         "Sign in with corp",
		"/console/uaa?next=" + url.QueryEscape(authorize+"&issuer=corp"): "Sign in with corp",
	} {
		a := b.get("/console/sign-in?next="+url.QueryEscape(next)).shows(want, `name="password"`)
		if a.Status != http.StatusOK && !strings.Contains(next, "elsewhere") {
			t.Errorf("%s is answered with %d", next, a.Status)
		}
	}
}
