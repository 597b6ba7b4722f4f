package vaultapi_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/apitest"
	"rolecall/internal/door"
	"rolecall/internal/identity"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
	"rolecall/internal/vaultapi"
	"rolecall/internal/web"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// fixture is a server of the dialect whose every exchange is held against the document.
type fixture struct {
	*servicetest.Service
	*apitest.Client
	id      *identity.Service
	api     http.Handler
	handler http.Handler // the same, at the edge
	address string       // each fixture has its own, so that failed sign-ins of one test do not hold up another
}

var addresses atomic.Int64

func newFixture(t testing.TB, issuers ...identity.OIDCIssuer) *fixture {
	t.Helper()
	s := servicetest.Shared(t)
	f := &fixture{Service: s, id: s.Identity, address: fmt.Sprintf("10.1.%d.%d", addresses.Add(1)/256, addresses.Load()%256)}
	if len(issuers) > 0 {
		var err error
		f.id, err = identity.New(t.Context(), s.DB, identity.Config{Issuer: s.Identity.Issuer(), OIDC: issuers,
			PasswordCost: servicetest.PasswordCost, Log: slog.New(slog.NewTextHandler(s.Log, nil))})
		if err != nil {
			t.Fatal(err)
		}
	}
	f.api = (&vaultapi.API{Users: s.Users, Identity: f.id, Version: "1.2.3",
		Door: &door.Door{Identity: f.id, PerAccount: &web.Limiter{}, PerAddress: &web.Limiter{}}}).Handler()
	f.handler = &web.Edge{
		Handler:        f.api,
		Log:            slog.New(slog.NewTextHandler(s.Log, nil)),
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	}
	f.Client = apitest.Load(t, "vault.yaml").Serve(t, f.handler)
	return f
}

// answer is a response, its body read.
type answer struct{ apitest.Answer }

// send sends a request with a token, "" for none.
func (f *fixture) send(t testing.TB, token, method, path, body string, headers ...string) answer {
	t.Helper()
	headers = append(headers, "X-Forwarded-For: "+f.address, "X-Vault-Request: true")
	if token != "" {
		headers = append(headers, "X-Vault-Token: "+token)
	}
	return answer{f.Send(t, method, vaultapi.Prefix+path, body, headers...)}
}

// want fails unless the answer has the status and, for a failure, these sentences.
func (a answer) want(t testing.TB, status int, sentences ...string) answer {
	t.Helper()
	if a.Status != status {
		t.Fatalf("got %d, want %d: %s", a.Status, status, a.Body)
	}
	if status < 400 {
		return a
	}
	var got struct{ Errors []string }
	a.Into(t, &got)
	for i, sentence := range sentences {
		if i >= len(got.Errors) || !strings.Contains(got.Errors[i], sentence) {
			t.Fatalf("got %q, want %q", got.Errors, sentences)
		}
	}
	return a
}

// envelope is every answer that is no error.
type envelope struct {
	RequestID     string         `json:"request_id"`
	LeaseID       string         `json:"lease_id"`
	Renewable     bool           `json:"renewable"`
	LeaseDuration int            `json:"lease_duration"`
	Data          map[string]any `json:"data"`
	Warnings      []string       `json:"warnings"`
	Auth          *struct {
		ClientToken   string            `json:"client_token"`
		Accessor      string            `json:"accessor"`
		Metadata      map[string]string `json:"metadata"`
		LeaseDuration int               `json:"lease_duration"`
		Renewable     bool              `json:"renewable"`
	} `json:"auth"`
}

func (a answer) envelope(t testing.TB) (e envelope) {
	t.Helper()
	a.want(t, 200).Into(t, &e)
	return e
}

func unique(prefix string) string { return prefix + "-" + uuid.NewString()[:8] }

// person is an account with a label.
func (f *fixture) person(t testing.TB, team string) (guid, username, token string) {
	t.Helper()
	username = unique("vault")
	guid = f.Account(t, username, account.DefaultScopes, map[string]string{"team": team})
	e := f.send(t, "", "PUT", "/auth/userpass/login/"+username, `{"password":"`+username+`-password"}`).envelope(t)
	return guid, username, e.Auth.ClientToken
}

func (f *fixture) root(t testing.TB) string {
	t.Helper()
	token, err := f.Identity.MintFor(t.Context(), "root", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// What needs no token.
func TestServer(t *testing.T) {
	f := newFixture(t)
	var health struct {
		Initialized, Sealed, Standby bool
		Version                      string
		ClusterID                    string `json:"cluster_id"`
	}
	f.send(t, "", "GET", "/sys/health?standbyok=true&sealedcode=299", "").want(t, 200).Into(t, &health)
	if !health.Initialized || health.Sealed || health.Standby || health.Version != "1.2.3" {
		t.Errorf("got %+v", health)
	}
	if a := f.send(t, "", "HEAD", "/sys/health", "").want(t, 200); a.Body != "" {
		t.Errorf("got %s", a.Body)
	}
	seal := health
	f.send(t, "", "GET", "/sys/seal-status", "").want(t, 200).Into(t, &seal)
	if !seal.Initialized || seal.Sealed || seal.ClusterID != health.ClusterID {
		t.Errorf("got %+v", seal)
	}
}

// Without a valid token every path is the same; with one, what is not there is a 404.
func TestPathsAndTokens(t *testing.T) {
	f := newFixture(t)
	_, _, token := f.person(t, "none")
	paths := []string{"/auth/token/lookup-self", "/secret/data/x", "/main/creds/app", "/no-such/creds/app", "/sys/leases/renew",
		"/sys/mounts", "/", "/auth/token/create"}
	for _, path := range paths {
		for _, bad := range []string{"", "wrong", "rolecall_pat_" + strings.Repeat("0", 32) + "_" + strings.Repeat("0", 40)} {
			a := f.send(t, bad, "GET", path, "").want(t, 403)
			if strings.TrimSpace(a.Body) != `{"errors":["permission denied"]}` {
				t.Errorf("%s: %s", path, a.Body)
			}
		}
	}
	for _, path := range []string{"/secret/data/x", "/no-such/creds/app", "/sys/mounts", "/auth/token/create", "/sys/creds/app",
		"/auth/creds/app", "/sys/internal/ui/mounts/main/creds/app", "/main/creds/", "/main/roles/app",
		"/" + uuid.NewString() + "/creds/app", "/" + f.ClusterID + "/static-creds/app"} { // it may not view the cluster
		f.send(t, token, "GET", path, "").want(t, 404)
	}
	for _, method := range []string{"DELETE", "PATCH", "POST", "LIST"} {
		f.send(t, token, method, "/main/creds/app", "").want(t, 404)
	}
	f.send(t, token, "GET", "/main/creds/app?list=true", "").want(t, 404)
	f.send(t, token, "GET", "/sys/health?list=true", "").want(t, 404)
	// The token may come with Bearer, too.
	f.Send(t, "GET", vaultapi.Prefix+"/auth/token/lookup-self", "", "Authorization: Bearer "+token)
	if a := f.Send(t, "GET", vaultapi.Prefix+"/auth/token/lookup-self", "", "Authorization: Bearer "+token); a.Status != 200 {
		t.Errorf("got %d", a.Status)
	}
	if a := f.Send(t, "GET", vaultapi.Prefix+"/auth/token/lookup-self", "", "Authorization: Basic cm9vdDpyb290LXBhc3N3b3Jk"); a.
		Status != 403 {
		t.Errorf("got %d", a.Status)
	}
}

// A client that asks for a wrapped answer, or for a namespace, gets no secret.
func TestNeitherWrappingNorNamespaces(t *testing.T) {
	f := newFixture(t)
	username := unique("vault")
	f.Account(t, username, account.DefaultScopes, nil)
	login, body := "/auth/userpass/login/"+username, `{"password":"`+username+`-password"}`
	root := f.root(t)
	for _, call := range [][3]string{{"GET", "/auth/token/lookup-self"}, {"PUT", "/auth/token/revoke-self"},
		{"GET", "/main/creds/app"}, {"GET", "/main/static-creds/app"}, {"PUT", "/sys/leases/renew"}, {"GET", "/sys/health"},
		{"POST", login, body}} {
		f.send(t, root, call[0], call[1], call[2], "X-Vault-Wrap-TTL: 5m").want(t, 400, "not wrapped")
		f.send(t, root, call[0], call[1], call[2], "X-Vault-Namespace: team").want(t, 400, `no namespace "team"`)
	}
	for _, space := range []string{"root", "root/", "/"} {
		f.send(t, root, "GET", "/auth/token/lookup-self", "", "X-Vault-Namespace: "+space).want(t, 200)
	}
}

// The sign-in with a password, and the life of its token.
func TestUserpass(t *testing.T) {
	f := newFixture(t)
	guid, username, token := f.person(t, "none")
	for _, body := range []string{`{"password":"wrong"}`, `{"password":"` + username + `"}`} {
		f.send(t, "", "POST", "/auth/userpass/login/"+username, body).want(t, 400, "invalid username or password")
	}
	f.send(t, "", "POST", "/auth/userpass/login/"+unique("nobody"), `{"password":"wrong"}`).
		want(t, 400, "invalid username or password")
	for _, body := range []string{`{}`, `{"password":""}`, ""} {
		f.send(t, "", "POST", "/auth/userpass/login/"+username, body).want(t, 400, "missing password")
	}
	for _, body := range []string{`{"password":1}`, `[]`, `x`, `{"password":null}`} {
		f.send(t, "", "POST", "/auth/userpass/login/"+username, body).want(t, 400)
	}

	e := f.send(t, token, "GET", "/auth/token/lookup-self", "").envelope(t)
	id, _ := e.Data["accessor"].(string)
	expires, err := time.Parse(time.RFC3339, fmt.Sprint(e.Data["expire_time"]))
	if e.Data["id"] != "" || e.Data["renewable"] != true || e.Data["type"] != "service" || e.Data["display_name"] != username ||
		e.Data["path"] != "auth/userpass/login/"+username || err != nil || time.Until(expires) < 59*time.Minute ||
		e.Data["ttl"].(float64) > 3600 || e.Data["ttl"].(float64) < 3500 || e.Data["creation_ttl"] != 3600.0 ||
		e.Data["explicit_max_ttl"] != 86400.0 || uuid.Validate(id) != nil ||
		fmt.Sprint(e.Data["meta"]) != fmt.Sprintf("map[account:%s username:%s]", guid, username) {
		t.Errorf("got %v", e.Data)
	}
	for _, method := range []string{"POST", "PUT"} {
		if again := f.send(t, token, method, "/auth/token/lookup-self", "").envelope(t); again.Data["accessor"] != id {
			t.Errorf("got %v", again.Data)
		}
	}
	for _, body := range []string{"", `{"increment":0}`, `{"increment":"1h"}`} {
		renewed := f.send(t, token, "POST", "/auth/token/renew-self", body).envelope(t)
		if renewed.Auth.ClientToken != token || renewed.Auth.LeaseDuration != 3600 || !renewed.Auth.Renewable ||
			renewed.Warnings != nil || renewed.Auth.Accessor != id {
			t.Errorf("got %+v", renewed)
		}
	}
	if _, err := f.DB.Pool.Exec(t.Context(), `
		UPDATE personal_tokens SET renewable_until = now() + '10 minutes', expires_at = now() + '5 minutes' WHERE id = $1`,
		id); err != nil {
		t.Fatal(err)
	}
	if cut := f.send(t, token, "PUT", "/auth/token/renew-self", "").envelope(t); cut.Auth.LeaseDuration > 600 ||
		cut.Auth.LeaseDuration < 500 || len(cut.Warnings) != 1 || !cut.Auth.Renewable {
		t.Errorf("got %+v", cut)
	}
	if log := f.Log.String(); strings.Contains(log, token) || strings.Contains(log, username+"-password") {
		t.Error("a secret is in the log")
	}
}

// Wrong passwords are throttled as elsewhere.
func TestThrottled(t *testing.T) {
	f := newFixture(t)
	username := unique("vault")
	f.Account(t, username, account.DefaultScopes, nil)
	for range 6 {
		f.send(t, "", "POST", "/auth/userpass/login/"+username, `{"password":"wrong"}`).want(t, 400)
	}
	a := f.send(t, "", "POST", "/auth/userpass/login/"+username, `{"password":"`+username+`-password"}`).want(t, 429)
	if a.Header.Get("Retry-After") == "" {
		t.Error("it does not say when to try again")
	}
}

// curl sends the type of a form, the Go client none, Spring one of JSON.
func TestAnyMediaType(t *testing.T) {
	f := newFixture(t)
	username := unique("vault")
	f.Account(t, username, account.DefaultScopes, nil)
	for _, media := range []string{"", "application/json", "application/x-www-form-urlencoded", "text/plain", "x"} {
		r := httptest.NewRequest("POST", "/v1/auth/userpass/login/"+username, strings.NewReader(
			`{"password":"`+username+`-password","unknown":{"field":1}}`))
		if media != "" {
			r.Header.Set("Content-Type", media)
		}
		w := httptest.NewRecorder()
		f.handler.ServeHTTP(w, r)
		if w.Code != 200 {
			t.Errorf("%q: %d %s", media, w.Code, w.Body)
		}
	}
}

// A personal access token and an access token are tokens, too. They are not renewed, and can be ended.
func TestOtherTokens(t *testing.T) {
	f := newFixture(t)
	username := unique("vault")
	f.Account(t, username, account.DefaultScopes, nil)
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte(username+":"+username+"-password"))
	p, err := f.id.Authenticate(t.Context(), identity.ParseCredential(basic), f.address)
	if err != nil {
		t.Fatal(err)
	}
	_, personal, err := f.id.CreatePersonalToken(t.Context(), p, identity.NewPersonalToken{Name: "forever"})
	if err != nil {
		t.Fatal(err)
	}
	_, soon, err := f.id.CreatePersonalToken(t.Context(), p, identity.NewPersonalToken{Name: "soon",
		Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	access, err := f.id.MintFor(t.Context(), username, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for token, expires := range map[string]bool{personal: false, soon: true, access: true} {
		e := f.send(t, token, "GET", "/auth/token/lookup-self", "").envelope(t)
		if (e.Data["expire_time"] != nil) != expires || (e.Data["ttl"] != 0.0) != expires || e.Data["renewable"] != false ||
			e.Data["display_name"] != username || e.Data["creation_time"] == 0.0 {
			t.Errorf("got %v", e.Data)
		}
		f.send(t, token, "PUT", "/auth/token/renew-self", `{"increment":60}`).want(t, 400, "lease is not renewable")
	}
	f.send(t, access, "POST", "/auth/token/revoke-self", "").want(t, 204)
	f.send(t, access, "GET", "/auth/token/lookup-self", "").want(t, 403, "permission denied")
}

// provider is an OpenID Connect issuer: that of a Kubernetes cluster names the service account in the subject.
type provider struct {
	*httptest.Server
	key *rsa.PrivateKey
}

func newProvider(t testing.TB) *provider {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p := &provider{key: key}
	encode := base64.RawURLEncoding.EncodeToString
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := map[string]any{"issuer": p.URL, "jwks_uri": p.URL + "/openid/v1/jwks"}
		if r.URL.Path == "/openid/v1/jwks" {
			v = map[string]any{"keys": []any{map[string]any{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "one",
				"n": encode(key.N.Bytes()), "e": encode(big.NewInt(int64(key.E)).Bytes())}}}
		}
		_ = json.NewEncoder(w).Encode(v)
	}))
	t.Cleanup(p.Close)
	return p
}

// serviceAccount is a token as Kubernetes projects it into a pod.
func (p *provider) serviceAccount(t testing.TB, name, audience string, expires time.Time) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
		"iss": p.URL, "sub": "system:serviceaccount:shop:" + name, "aud": []string{audience}, "exp": expires.Unix(),
		"iat": time.Now().Unix(), "nbf": time.Now().Unix(), "jti": uuid.NewString(),
		"kubernetes.io": map[string]any{"namespace": "shop", "serviceaccount": map[string]any{"name": name}},
	})
	token.Header["kid"] = "one"
	signed, err := token.SignedString(p.key)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// A pod signs in with the token of its service account, and with the same one under the other name of this.
func TestTokensOfAnotherIssuer(t *testing.T) {
	p := newProvider(t)
	f := newFixture(t, identity.OIDCIssuer{URL: p.URL, Audience: "rolecall"})
	name := unique("web")
	jwtOf := func(audience string, expires time.Time) string {
		return `{"role":"any","jwt":"` + p.serviceAccount(t, name, audience, expires) + `"}`
	}
	good := jwtOf("rolecall", time.Now().Add(10*time.Minute))
	accounts := map[string]bool{}
	for _, call := range []string{"PUT /auth/kubernetes/login", "POST /auth/kubernetes/login", "PUT /auth/jwt/login",
		"POST /auth/jwt/login"} {
		method, path, _ := strings.Cut(call, " ")
		e := f.send(t, "", method, path, good).envelope(t)
		if e.Auth.LeaseDuration != 3600 || !e.Auth.Renewable {
			t.Errorf("got %+v", e.Auth)
		}
		accounts[e.Auth.Metadata["account"]] = true
		own := f.send(t, e.Auth.ClientToken, "GET", "/auth/token/lookup-self", "").envelope(t)
		if own.Data["path"] != "auth/jwt/login" || own.Data["renewable"] != true ||
			own.Data["display_name"] != e.Auth.Metadata["username"] {
			t.Errorf("got %v", own.Data)
		}
		for name, body := range map[string]string{
			"another audience": jwtOf("other", time.Now().Add(time.Minute)), "expired": jwtOf("rolecall",
				time.Now().Add(-time.Minute)),
			"none": `{"role":"any"}`, "empty": `{"jwt":""}`, "no token": `{"jwt":"x"}`, "ours": `{"jwt":"` + f.root(t) + `"}`,
			"a number": `{"jwt":1}`,
		} {
			if a := f.send(t, "", method, path, body); a.Status != 400 {
				t.Errorf("%s: %d", name, a.Status)
			}
		}
	}
	if len(accounts) != 1 {
		t.Errorf("it signs in as %d accounts", len(accounts))
	}
	// The token itself is one, and ends only at its issuer.
	alive := p.serviceAccount(t, name, "rolecall", time.Now().Add(time.Minute))
	f.send(t, alive, "GET", "/auth/token/lookup-self", "").want(t, 200)
	f.send(t, alive, "PUT", "/auth/token/revoke-self", "").want(t, 400, "another issuer's")

	down := newProvider(t)
	g := newFixture(t, identity.OIDCIssuer{URL: down.URL, Audience: "rolecall"})
	down.Server.Close()
	g.send(t, "", "POST", "/auth/jwt/login", `{"jwt":"`+down.serviceAccount(t, name, "rolecall",
		time.Now().Add(time.Minute))+`"}`).
		want(t, 503)
}

// A token that is limited to credentials learns of itself, and reaches nothing else of others.
func TestCredentialToken(t *testing.T) {
	f := newFixture(t)
	username := unique("vault")
	f.Account(t, username, account.AdminScopes, nil)
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte(username+":"+username+"-password"))
	p, err := f.id.Authenticate(t.Context(), identity.ParseCredential(basic), f.address)
	if err != nil {
		t.Fatal(err)
	}
	_, token, err := f.id.CreatePersonalToken(t.Context(), p, identity.NewPersonalToken{Name: "one",
		Credentials: []string{f.ClusterID + "/shop"}})
	if err != nil {
		t.Fatal(err)
	}
	f.send(t, token, "GET", "/auth/token/lookup-self", "").want(t, 200)
	for _, call := range [][2]string{{"GET", "/main/creds/app"}, {"PUT", "/sys/leases/renew"}, {"PUT", "/sys/leases/revoke"},
		{"PUT", "/sys/leases/lookup"}, {"PUT", "/auth/token/renew-self"}, {"PUT", "/auth/token/revoke-self"},
		{"GET", "/nothing"}} {
		f.send(t, token, call[0], call[1], `{"lease_id":"x"}`).want(t, 403, "permission denied", "limited")
	}
}
