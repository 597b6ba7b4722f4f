package identity_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/fault"
	"rolecall/internal/identity"
	"rolecall/internal/secret"
	"rolecall/internal/servicetest"
)

const clientSecret = "s3cret+of the client"

// people is a provider at which people sign in. It checks what a client sends, and signs what the test wants.
type people struct {
	*provider
	key    key
	claims jwt.MapClaims  // of each ID token, in place of the usual ones
	info   map[string]any // that its userinfo endpoint says; nil: the subject
	broken func(w http.ResponseWriter) bool

	mu    sync.Mutex
	codes map[string]url.Values // the requests whose codes were not redeemed yet
	asked map[string]int        // how often each path was asked for
}

func newPeople(t testing.TB) *people {
	p := &people{provider: newProvider(t), codes: map[string]url.Values{}, asked: map[string]int{}}
	p.key = p.provider.key(t, "1", true)
	p.documents = map[string]any{"authorization_endpoint": p.URL + "/authorize?tenant=1", "token_endpoint": p.URL + "/token",
		"userinfo_endpoint": p.URL + "/userinfo", "scopes_supported": []string{"openid", "groups", "offline_access"}}
	p.more = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.asked[r.URL.Path]++
		switch {
		case p.broken != nil && p.broken(w):
		case r.URL.Path == "/token":
			p.token(t, w, r)
		case r.URL.Path == "/userinfo":
			if r.Header.Get("Authorization") != "Bearer access" {
				t.Errorf("userinfo is asked for with %q", r.Header.Get("Authorization"))
			}
			w.Header().Set("Content-Type", "application/json")
			info := p.info
			if info == nil {
				info = map[string]any{"sub": p.claims["sub"]}
			}
			_ = json.NewEncoder(w).Encode(info)
		}
	})
	return p
}

// settings are those of the client at the provider, with its secret in a file.
func (p *people) settings(t testing.TB, labels ...identity.LabelClaim) identity.OIDCIssuer {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(clientSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return identity.OIDCIssuer{Name: "corp", URL: p.URL, ClientID: "rolecall", ClientSecretFile: file, Labels: labels}
}

// token answers a client that redeems a code.
func (p *people) token(t testing.TB, w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		t.Error(err)
	}
	asked, known := p.codes[r.Form.Get("code")]
	delete(p.codes, r.Form.Get("code"))
	challenge := sha256.Sum256([]byte(r.Form.Get("code_verifier")))
	id, password, _ := r.BasicAuth()
	password, _ = url.QueryUnescape(password)
	if r.Form.Get("grant_type") != "authorization_code" || !known || id != "rolecall" || password != clientSecret ||
		r.Form.Get("redirect_uri") != asked.Get("redirect_uri") || asked.Get("code_challenge_method") != "S256" ||
		base64.RawURLEncoding.EncodeToString(challenge[:]) != asked.Get("code_challenge") {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"error":"invalid_grant","error_description":"no such code","hint":"` + clientSecret + `"}`))
		return
	}
	c := jwt.MapClaims{"aud": "rolecall", "nonce": asked.Get("nonce")}
	maps.Copy(c, p.claims)
	subject, _ := c["sub"].(string)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"access_token": "access", "token_type": "Bearer",
		"id_token": strings.TrimPrefix(p.sign(t, p.key, subject, c), "Bearer ")})
}

// authorize is what the provider sends the browser back with, after the person has signed in.
func (p *people) authorize(t testing.TB, location string) url.Values {
	t.Helper()
	u, err := url.Parse(location)
	if err != nil {
		t.Fatal(err)
	}
	code := uuid.NewString()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.codes[code] = u.Query()
	return url.Values{"code": {code}, "state": {u.Query().Get("state")}}
}

// start begins a sign-in, and returns where the browser goes and what it keeps.
func start(t testing.TB, id *identity.Service, prove bool) (location string, sealed secret.Text) {
	t.Helper()
	location, sealed, err := id.StartIssuerSignIn(t.Context(), "corp", "kept", prove)
	if err != nil {
		t.Fatal(err)
	}
	return location, sealed
}

// through signs in from the start to the end.
func (p *people) through(t testing.TB, id *identity.Service) (*identity.IssuerSignIn, error) {
	t.Helper()
	location, sealed := start(t, id, false)
	return id.FinishIssuerSignIn(t.Context(), "corp", sealed, p.authorize(t, location), "10.0.0.1")
}

// failed says what is not as it should be with a sign-in that failed: one text for the person, the reason for the log, and
// nothing secret in either.
func failed(t testing.TB, what string, err error, because string) {
	t.Helper()
	if !errors.Is(err, identity.ErrIssuerSignIn) || !fault.Is(err, fault.Unauthenticated) ||
		!strings.Contains(err.Error(), because) {
		t.Errorf("%s: want %q, got %v", what, because, err)
		return
	}
	if m := fault.Of(err).Message; !strings.HasPrefix(m, "The sign-in did not succeed.") || strings.Contains(m, "corp") {
		t.Errorf("%s: the person reads %q", what, m)
	}
	if strings.Contains(err.Error(), clientSecret) || strings.Contains(err.Error(), "eyJ") {
		t.Errorf("%s: the log has a secret: %v", what, err)
	}
}

func TestIssuerSignIn(t *testing.T) {
	s := servicetest.Shared(t)
	p := newPeople(t)
	var c clock
	id := replica(t, s, &c, p.settings(t, identity.LabelClaim{Key: "team", Claim: "groups", Prefix: "rc-"}))
	if got := id.SignInIssuers(); len(got) != 1 || got[0].Name != "corp" || got[0].URL != p.URL ||
		"http://"+got[0].Origin != p.URL {
		t.Errorf("people sign in at %+v", got)
	}
	name := unique("ada")
	p.claims = jwt.MapClaims{"sub": name, "preferred_username": name, "groups": []string{"rc-payments", "staff"},
		"auth_time": 1_700_000_000}
	location, sealed := start(t, id, false)
	u, err := url.Parse(location)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	for name, want := range map[string]string{"response_type": "code", "client_id": "rolecall", "code_challenge_method": "S256",
		"redirect_uri": servicetest.PublicURL + "/uaa/login/callback/corp", "scope": "openid profile email groups", "tenant": "1",
		"prompt": "", "max_age": ""} {
		if q.Get(name) != want {
			t.Errorf("%s is %q, not %q", name, q.Get(name), want)
		}
	}
	if !strings.HasPrefix(location, p.URL+"/authorize?") || len(q.Get("state")) < 30 || len(q.Get("nonce")) < 26 ||
		len(q.Get("code_challenge")) != 43 || q.Get("state") == q.Get("nonce") {
		t.Errorf("the browser goes to %s", location)
	}
	if len(sealed) > 1000 || strings.Contains(string(sealed), q.Get("state")) {
		t.Errorf("the browser keeps %s", string(sealed))
	}
	// Another replica ends the sign-in.
	other := replica(t, s, &c, p.settings(t, identity.LabelClaim{Key: "team", Claim: "groups", Prefix: "rc-"}))
	got, err := other.FinishIssuerSignIn(t.Context(), "corp", sealed, p.authorize(t, location), "10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	if a := got.Account; a.Username != name || a.Origin != strings.TrimPrefix(p.URL, "http://") ||
		fmt.Sprint(a.Labels, a.LabelSources) != "map[team:payments] map[team:corp]" || got.Keep != "kept" ||
		got.Proven.Unix() != 1_700_000_000 {
		t.Errorf("got %+v, %+v", got, a)
	}
	if p.asked["/userinfo"] != 0 {
		t.Error("userinfo is asked for, although the ID token has what is needed")
	}
	again, err := p.through(t, id)
	if err != nil || again.Account.GUID != got.Account.GUID {
		t.Errorf("got %+v, %v", again, err)
	}
	// The bearer tokens of an issuer without an audience are not accepted: ID tokens are no bearer tokens either.
	refused(t, id, p.sign(t, p.key, name, jwt.MapClaims{"aud": "rolecall"}))
	if _, err := s.Accounts.UpdateIdentity(t.Context(), admin, false, got.Account.GUID, nil,
		account.IdentityChange{Active: new(false)}); err != nil {
		t.Fatal(err)
	}
	_, err = p.through(t, id)
	failed(t, "an inactive account", err, "not active")
	if _, _, err := id.StartIssuerSignIn(t.Context(), "other", "", false); !fault.Is(err, fault.NotFound) {
		t.Errorf("an unknown issuer: %v", err)
	}
}

// TestIssuerSignInOnce: what came back once is of no more use: neither the same answer nor another code, at any replica.
func TestIssuerSignInOnce(t *testing.T) {
	s := servicetest.Shared(t)
	p := newPeople(t)
	var c clock
	id, other := replica(t, s, &c, p.settings(t)), replica(t, s, &c, p.settings(t))
	p.claims = jwt.MapClaims{"sub": unique("once"), "preferred_username": unique("once")}
	location, sealed := start(t, id, false)
	answer := p.authorize(t, location)
	if _, err := id.FinishIssuerSignIn(t.Context(), "corp", sealed, answer, ""); err != nil {
		t.Fatal(err)
	}
	for _, again := range []url.Values{answer, p.authorize(t, location)} {
		for _, id := range []*identity.Service{id, other} {
			_, err := id.FinishIssuerSignIn(t.Context(), "corp", sealed, again, "")
			failed(t, "a second time", err, "its answer came twice")
		}
	}
	if p.asked["/token"] != 1 {
		t.Errorf("%d codes were redeemed", p.asked["/token"])
	}
	// A code that somebody else has redeemed before.
	location, sealed = start(t, id, false)
	answer = p.authorize(t, location)
	delete(p.codes, answer.Get("code"))
	_, err := id.FinishIssuerSignIn(t.Context(), "corp", sealed, answer, "")
	failed(t, "a used code", err, `does not accept the code: 400 Bad Request, "invalid_grant", "no such code"`)
	// Many at once: one of them.
	location, sealed = start(t, id, false)
	answer = p.authorize(t, location)
	var all sync.WaitGroup
	var mu sync.Mutex
	succeeded := 0
	for range 8 {
		all.Go(func() {
			if _, err := id.FinishIssuerSignIn(t.Context(), "corp", sealed, answer, ""); err == nil {
				mu.Lock()
				succeeded++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if succeeded != 1 {
		t.Errorf("%d of 8 have signed in", succeeded)
	}
}

// TestIssuerSignInRefusals: what is wrong with what the browser or the issuer says ends the sign-in.
func TestIssuerSignInRefusals(t *testing.T) {
	s := servicetest.Shared(t)
	p := newPeople(t)
	var c clock
	id := replica(t, s, &c, p.settings(t))
	subject := unique("refused")
	p.claims = jwt.MapClaims{"sub": subject, "preferred_username": subject}
	otherLocation, otherSealed := start(t, id, false)
	for what, test := range map[string]struct {
		change func(answer url.Values, sealed *secret.Text)
		says   string
	}{
		"no cookie":        {func(_ url.Values, sealed *secret.Text) { *sealed = "" }, "it keeps no cookies"},
		"a damaged cookie": {func(_ url.Values, sealed *secret.Text) { *sealed = "!" }, "damaged"},
		"a changed cookie": {func(_ url.Values, sealed *secret.Text) {
			*sealed = (*sealed)[:len(*sealed)-3] + "AAA"
		}, "cannot be decrypted"},
		"the cookie of another sign-in": {func(_ url.Values, sealed *secret.Text) { *sealed = otherSealed }, "the state is not"},
		"no state":                      {func(answer url.Values, _ *secret.Text) { answer.Del("state") }, "the state is not"},
		"another state": {func(answer url.Values, _ *secret.Text) {
			answer.Set("state", p.authorize(t, otherLocation).Get("state"))
		}, "the state is not"},
		"no code": {func(answer url.Values, _ *secret.Text) { answer.Del("code") }, "has no code"},
		"a refusal": {func(answer url.Values, _ *secret.Text) {
			answer.Set("error", "access_denied")
			answer.Set("error_description", "not assigned\nto the application"+strings.Repeat("x", 5000))
		}, `refuses the sign-in: "access_denied", "not assigned\nto the application`},
		"another issuer's answer": {func(answer url.Values, _ *secret.Text) { answer.Set("iss", "https://evil.example") },
			`the answer is of the issuer "https://evil.example"`},
		"another code": {func(answer url.Values, _ *secret.Text) { answer.Set("code", "x") }, "does not accept the code"},
		"a code of another sign-in": {func(answer url.Values, _ *secret.Text) {
			answer.Set("code", p.authorize(t, otherLocation).Get("code"))
		}, "does not accept the code"},
	} {
		location, sealed := start(t, id, false)
		answer := p.authorize(t, location)
		test.change(answer, &sealed)
		_, err := id.FinishIssuerSignIn(t.Context(), "corp", sealed, answer, "")
		failed(t, what, err, test.says)
		if err != nil && len(err.Error()) > 1000 {
			t.Errorf("%s: the log gets %d bytes", what, len(err.Error()))
		}
	}
	unpublished := p.provider.key(t, "2", false)
	for what, test := range map[string]struct {
		claims jwt.MapClaims
		says   string
	}{
		"another audience":          {jwt.MapClaims{"aud": "another"}, `has the audience ["another"], not "rolecall"`},
		"another party":             {jwt.MapClaims{"azp": "another"}, `authorized party "another"`},
		"two audiences, no party":   {jwt.MapClaims{"aud": []string{"rolecall", "another"}}, `for ["rolecall" "another"]`},
		"another nonce":             {jwt.MapClaims{"nonce": "x"}, "the nonce"},
		"no nonce":                  {jwt.MapClaims{"nonce": ""}, "the nonce"},
		"expired":                   {jwt.MapClaims{"exp": time.Now().Add(-time.Minute).Unix()}, "expired at"},
		"a clock that is ahead":     {jwt.MapClaims{"iat": time.Now().Add(time.Hour).Unix()}, "compare the clocks"},
		"not valid yet":             {jwt.MapClaims{"nbf": time.Now().Add(time.Hour).Unix()}, "compare the clocks"},
		"no subject":                {jwt.MapClaims{"sub": ""}, "has no subject"},
		"another issuer's":          {jwt.MapClaims{"iss": "https://evil.example"}, "fails verification"},
		"another's access token":    {jwt.MapClaims{"at_hash": "x"}, "not that of its access token"},
		"a subject that is no text": {jwt.MapClaims{"sub": subject + strings.Repeat("x", 300)}, "at most 255 bytes"},
	} {
		usual := p.claims
		p.claims = jwt.MapClaims{"sub": subject}
		maps.Copy(p.claims, test.claims)
		_, err := p.through(t, id)
		failed(t, what, err, test.says)
		p.claims = usual
	}
	signing := p.key
	p.key = unpublished
	_, err := p.through(t, id)
	failed(t, "an unknown key", err, `it names the key "2"`)
	p.key = signing
	for what, claims := range map[string]jwt.MapClaims{"a party": {"azp": "rolecall"},
		"two audiences": {"aud": []string{"rolecall", "another"}, "azp": "rolecall"}} {
		p.claims = jwt.MapClaims{"sub": subject}
		maps.Copy(p.claims, claims)
		if _, err := p.through(t, id); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	// Ten minutes, and not eleven.
	location, sealed := start(t, id, false)
	c.advance(9 * time.Minute)
	if _, err := id.FinishIssuerSignIn(t.Context(), "corp", sealed, p.authorize(t, location), ""); err != nil {
		t.Error(err)
	}
	location, sealed = start(t, id, false)
	c.advance(11 * time.Minute)
	_, err = id.FinishIssuerSignIn(t.Context(), "corp", sealed, p.authorize(t, location), "")
	failed(t, "too late", err, "11m0s ago")
	// What is sealed for one issuer opens at no other.
	elsewhere := newPeople(t)
	another := elsewhere.settings(t)
	another.Name = "elsewhere"
	both := replica(t, s, &c, p.settings(t), another)
	location, sealed = start(t, both, false)
	_, err = both.FinishIssuerSignIn(t.Context(), "elsewhere", sealed, p.authorize(t, location), "")
	failed(t, "another issuer's cookie", err, "cannot be decrypted")
}

// TestIssuerSignInAway: an issuer that does not answer ends the sign-in, and nothing is lost by it.
func TestIssuerSignInAway(t *testing.T) {
	s := servicetest.Shared(t)
	p := newPeople(t)
	var c clock
	settings := p.settings(t, identity.LabelClaim{Key: "team", Claim: "team"})
	id := replica(t, s, &c, settings)
	name := unique("away")
	p.claims = jwt.MapClaims{"sub": name, "preferred_username": name, "team": "a"}
	p.set(true)
	_, _, err := id.StartIssuerSignIn(t.Context(), "corp", "", false)
	failed(t, "away from the start", err, "cannot be reached")
	p.set(false)
	c.advance(time.Second)
	got, err := p.through(t, id)
	if err != nil {
		t.Fatal(err)
	}
	// Its documents are known: the person gets there, and it may answer again until they come back.
	location, sealed := start(t, id, false)
	answer := p.authorize(t, location)
	p.set(true)
	_, err = id.FinishIssuerSignIn(t.Context(), "corp", sealed, answer, "")
	failed(t, "away at the end", err, "cannot be reached")
	p.set(false)
	// Keys rotate in the meantime.
	p.key = p.provider.key(t, "2", true)
	c.advance(time.Second)
	if again, err := p.through(t, id); err != nil || again.Account.GUID != got.Account.GUID {
		t.Errorf("after a rotation of keys: %+v, %v", again, err)
	}
	// What it says of the person cannot be read: no label goes by that.
	delete(p.claims, "team")
	p.broken = func(w http.ResponseWriter) bool {
		if p.asked["/userinfo"] > 0 {
			w.WriteHeader(http.StatusInternalServerError)
		}
		return p.asked["/userinfo"] > 0
	}
	_, err = p.through(t, id)
	failed(t, "no userinfo", err, "does not say more of the person")
	if a, err := s.Accounts.ByGUID(t.Context(), got.Account.GUID); err != nil || a.Labels["team"] != "a" {
		t.Errorf("got %+v, %v", a, err)
	}
	// A redirect is not followed: a secret would go elsewhere.
	stranger := newPeople(t)
	p.broken = func(w http.ResponseWriter) bool {
		w.Header().Set("Location", stranger.URL+"/token")
		w.WriteHeader(http.StatusTemporaryRedirect)
		return true
	}
	_, err = p.through(t, id)
	failed(t, "a redirect", err, "307 Temporary Redirect")
	if len(stranger.asked) > 0 {
		t.Errorf("the stranger was asked: %v", stranger.asked)
	}
	p.broken = func(w http.ResponseWriter) bool {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"access_token":"access","token_type":"Bearer"}`))
		return true
	}
	_, err = p.through(t, id)
	failed(t, "no ID token", err, "has given no ID token")
	p.broken = nil
	// The client's secret changes at both ends, without a restart.
	if err := os.WriteFile(settings.ClientSecretFile, []byte("wrong"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = p.through(t, id)
	failed(t, "a wrong secret", err, "invalid_grant")
	if err := os.WriteFile(settings.ClientSecretFile, []byte(clientSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	p.claims["team"] = "a"
	if _, err := p.through(t, id); err != nil {
		t.Error(err)
	}
	// Documents that would have secrets sent in the clear.
	p.documents["token_endpoint"] = "http://login.example.org/token"
	_, _, err = replica(t, s, &c, settings).StartIssuerSignIn(t.Context(), "corp", "", false)
	failed(t, "a token endpoint in the clear", err, "it is no https URL")
}

// TestUserInfo: claims that are needed and are not in the ID token are read from the issuer. Those of the token apply.
func TestUserInfo(t *testing.T) {
	s := servicetest.Shared(t)
	p := newPeople(t)
	var c clock
	id := replica(t, s, &c, p.settings(t, identity.LabelClaim{Key: "team", Claim: "groups"}))
	name := unique("info")
	p.claims = jwt.MapClaims{"sub": name, "team": "x"}
	p.info = map[string]any{"sub": name, "groups": []string{"payments"}, "preferred_username": name + "-info", "iss": "x"}
	got, err := p.through(t, id)
	if err != nil || got.Account.Username != name+"-info" || got.Account.Labels["team"] != "payments" {
		t.Errorf("got %+v, %v", got, err)
	}
	p.claims["groups"] = "dba"
	if got, err := p.through(t, id); err != nil || got.Account.Labels["team"] != "dba" {
		t.Errorf("got %+v, %v", got, err)
	}
	delete(p.claims, "groups")
	p.info["sub"] = "another"
	_, err = p.through(t, id)
	failed(t, "another subject", err, "says more of another subject")
}

// TestPublicClient: a client without a secret names itself in the form.
func TestPublicClient(t *testing.T) {
	s := servicetest.Shared(t)
	p := newPeople(t)
	var c clock
	settings := p.settings(t)
	settings.ClientSecretFile = ""
	id := replica(t, s, &c, settings)
	p.broken = func(w http.ResponseWriter) bool { return false }
	name := unique("public")
	p.more = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		if r.Header.Get("Authorization") != "" || r.Form.Get("client_id") != "rolecall" || r.Form.Has("client_secret") ||
			r.Form.Get("code_verifier") == "" {
			t.Errorf("the client sends %v, %v", r.Header, r.Form)
		}
		p.mu.Lock()
		nonce := p.codes[r.Form.Get("code")].Get("nonce")
		p.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": "access", "token_type": "Bearer",
			"id_token": strings.TrimPrefix(p.sign(t, p.key, name, jwt.MapClaims{"nonce": nonce, "preferred_username": name}),
				"Bearer ")})
	})
	if got, err := p.through(t, id); err != nil || got.Account.Username != name {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestProveAtIssuer: a person who is to prove who they are is asked for it, and a session of the issuer is not enough.
func TestProveAtIssuer(t *testing.T) {
	s := servicetest.Shared(t)
	p := newPeople(t)
	var c clock
	id := replica(t, s, &c, p.settings(t))
	subject := unique("prove")
	prove := func(authTime any) (*identity.IssuerSignIn, error) {
		t.Helper()
		location, sealed := start(t, id, true)
		if u, err := url.Parse(location); err != nil || u.Query().Get("prompt") != "login" || u.Query().Get("max_age") != "0" {
			t.Errorf("the browser goes to %s", location)
		}
		p.claims = jwt.MapClaims{"sub": subject}
		if authTime != nil {
			p.claims["auth_time"] = authTime
		}
		return id.FinishIssuerSignIn(t.Context(), "corp", sealed, p.authorize(t, location), "")
	}
	now := time.Now().Unix()
	if got, err := prove(now); err != nil || got.Proven.Unix() != now {
		t.Errorf("got %+v, %v", got, err)
	}
	_, err := prove(now - 3600)
	failed(t, "an hour ago", err, "did so last at")
	_, err = prove(nil)
	failed(t, "no auth_time", err, "no claim auth_time")
	_, err = prove("now")
	failed(t, "a text", err, "no claim auth_time")
	p.claims = jwt.MapClaims{"sub": subject}
	if got, err := p.through(t, id); err != nil || !got.Proven.IsZero() {
		t.Errorf("got %+v, %v", got, err)
	}
	// An issuer that says so never says when.
	p.documents["claims_supported"] = []string{"sub", "email"}
	id = replica(t, s, &c, p.settings(t))
	if got, err := prove(nil); err != nil || time.Since(got.Proven) > time.Minute {
		t.Errorf("got %+v, %v", got, err)
	}
	_, err = prove(now - 3600)
	failed(t, "an hour ago, although it never says when", err, "did so last at")
	p.documents["claims_supported"] = []string{"sub", "auth_time"}
	id = replica(t, s, &c, p.settings(t))
	_, err = prove(nil)
	failed(t, "no auth_time, although it can say when", err, "no claim auth_time")
}

// TestLongKeep: what does not fit into a cookie is left out.
func TestLongKeep(t *testing.T) {
	s := servicetest.Shared(t)
	p := newPeople(t)
	var c clock
	id := replica(t, s, &c, p.settings(t))
	p.claims = jwt.MapClaims{"sub": unique("keep")}
	for _, keep := range []string{"", strings.Repeat("k", 2400), strings.Repeat("k", 2401)} {
		location, sealed, err := id.StartIssuerSignIn(t.Context(), "corp", keep, false)
		if err != nil || len(sealed) > 3900 {
			t.Fatalf("%d bytes: %d, %v", len(keep), len(sealed), err)
		}
		got, err := id.FinishIssuerSignIn(t.Context(), "corp", sealed, p.authorize(t, location), "")
		if err != nil {
			t.Fatal(err)
		}
		if fits := len(keep) <= 2400; fits && got.Keep != keep || !fits && got.Keep != "" {
			t.Errorf("%d bytes: got %d", len(keep), len(got.Keep))
		}
	}
}
