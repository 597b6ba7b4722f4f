package e2e

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"
	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
	"golang.org/x/oauth2"
)

// provider is an OpenID provider: the library's own example, with keys that rotate and tokens that hold claims.
type provider struct {
	*storage.Storage
	issuer string
	web    *httptest.Server

	clients map[string]*storage.Client // set before they are used

	mu     sync.Mutex
	keys   []*providerKey      // the last one signs
	groups map[string][]string // of a user, by its id
}

type providerKey struct {
	id  string
	key *rsa.PrivateKey
}

// ID, SignatureAlgorithm and Key are a key that signs.
func (k *providerKey) ID() string                                  { return k.id }
func (k *providerKey) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.RS256 }
func (k *providerKey) Key() any                                    { return k.key }

// publicProviderKey is a key that verifies.
type publicProviderKey struct{ *providerKey }

func (k publicProviderKey) Algorithm() jose.SignatureAlgorithm { return jose.RS256 }
func (k publicProviderKey) Use() string                        { return "sig" }
func (k publicProviderKey) Key() any                           { return &k.key.PublicKey }

func (p *provider) SigningKey(context.Context) (op.SigningKey, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.keys[len(p.keys)-1], nil
}

func (p *provider) KeySet(context.Context) ([]op.Key, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var public []op.Key
	for _, k := range p.keys {
		public = append(public, publicProviderKey{k})
	}
	return public, nil
}

// rotate has a new key sign. keep is how many of the old ones go on verifying.
func (p *provider) rotate(t *testing.T, keep int) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = append(p.keys[max(0, len(p.keys)-keep):], &providerKey{uuid.NewString(), key})
}

// talkative is a client whose tokens hold what is known of the user.
type talkative struct{ op.Client }

func (talkative) IDTokenUserinfoClaimsAssertion() bool { return true }
func (talkative) AccessTokenType() op.AccessTokenType  { return op.AccessTokenTypeJWT }

func (p *provider) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	c, err := p.Storage.GetClientByClientID(ctx, id)
	return talkative{c}, err
}

// SetUserinfoFromRequest adds the groups of a user to its ID token.
func (p *provider) SetUserinfoFromRequest(
	ctx context.Context, info *oidc.UserInfo, request op.IDTokenRequest, scopes []string,
) error {
	p.mu.Lock()
	groups := p.groups[request.GetSubject()]
	p.mu.Unlock()
	if groups != nil {
		info.AppendClaims("groups", groups)
	}
	return p.Storage.SetUserinfoFromRequest(ctx, info, request, scopes)
}

// join makes a user a member of these groups, and of no others.
func (p *provider) join(id string, groups ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.groups[id] = groups
}

const (
	callback       = "http://localhost:9999/auth/callback"
	providerSecret = "secret of the application"
)

// startProvider starts a provider with the applications rolecall and other.
func startProvider(t *testing.T) *provider {
	t.Helper()
	p := &provider{web: httptest.NewUnstartedServer(nil), groups: map[string][]string{}, clients: map[string]*storage.Client{
		"rolecall": storage.WebClient("rolecall", providerSecret, callback),
		"other":    storage.WebClient("other", providerSecret, callback),
	}}
	p.issuer = "http://" + p.web.Listener.Addr().String()
	p.Storage = storage.NewStorageWithClients(storage.NewUserStore(p.issuer), p.clients)
	p.rotate(t, 0)
	pages := exampleop.SetupServer(p.issuer, p, slog.New(slog.DiscardHandler), false)
	p.web.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/favicon.ico" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		pages.ServeHTTP(w, r)
	})
	p.web.Start()
	t.Cleanup(func() { p.web.Close() })
	return p
}

// stop ends the provider, and restart brings it back to where it was.
func (p *provider) stop() { p.web.Close() }

func (p *provider) restart(t *testing.T) {
	t.Helper()
	handler := p.web.Config.Handler
	var err error
	p.web = httptest.NewUnstartedServer(handler)
	_ = p.web.Listener.Close()
	if p.web.Listener, err = net.Listen("tcp", strings.TrimPrefix(p.issuer, "http://")); err != nil {
		t.Fatal(err)
	}
	p.web.Start()
}

// signIn goes through the authorization code flow as a person with a browser does, and returns the application's tokens.
func (p *provider) signIn(t *testing.T, application, username string) (idToken, accessToken string) {
	t.Helper()
	config := oauth2.Config{
		ClientID: application, ClientSecret: providerSecret, RedirectURL: callback, Scopes: []string{"openid", "profile", "email"},
		Endpoint: oauth2.Endpoint{AuthURL: p.issuer + "/auth", TokenURL: p.issuer + "/oauth/token"},
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	var code string
	browser := &http.Client{Jar: jar, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(r.URL.String(), callback) {
			code = r.URL.Query().Get("code")
			return http.ErrUseLastResponse
		}
		return nil
	}}
	verifier := oauth2.GenerateVerifier()
	resp, err := browser.Get(config.AuthCodeURL("state", oauth2.S256ChallengeOption(verifier)))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	form := url.Values{"username": {username}, "password": {"verysecure"},
		"id": {resp.Request.URL.Query().Get("authRequestID")}}
	if resp, err = browser.PostForm(p.issuer+"/login/username", form); err != nil {
		t.Fatal(err)
	}
	page, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if code == "" {
		t.Fatalf("no code after the login: %s %s", resp.Status, page)
	}
	tokens, err := config.Exchange(t.Context(), code, oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(tokens.Extra("id_token")), tokens.AccessToken
}

// TestOIDC signs people in with the tokens of another issuer.
func TestOIDC(t *testing.T) {
	t.Parallel()
	p := startProvider(t)
	s := newServer(t, "--oidc-issuer="+p.issuer+",audience=rolecall,username=email")
	base := s.env["ROLECALL_URL"]
	users := base + prefix + "/clusters/" + s.cluster() + "/users"
	call := func(bearer, method, target, body string) response {
		t.Helper()
		return send(t, method, target, map[string]string{"Authorization": "Bearer " + bearer, "Content-Type": "application/json"},
			body)
	}
	answers := func(what string, want int, bearer, method, target, body string) response {
		t.Helper()
		r := call(bearer, method, target, body)
		if r.status != want {
			t.Errorf("%s: %s %s: %d %s, want %d", what, method, target, r.status, r.body, want)
		}
		return r
	}
	admin := s.env["IONOS_TOKEN"]
	type account struct{ GUID, Username, Origin string }
	accounts := func(bearer string) []account {
		t.Helper()
		var list struct{ Resources []account }
		if r := answers("list", 200, bearer, "GET", base+"/v3/users", ""); json.Unmarshal([]byte(r.body), &list) != nil {
			t.Fatal(r.body)
		}
		return list.Resources
	}

	idToken, accessToken := p.signIn(t, "rolecall", "test-user2")
	origin := strings.TrimPrefix(p.issuer, "http://")
	// Somebody without rights sees itself, and no cluster.
	own := accounts(idToken)
	if len(own) != 1 || own[0].Username != "test-user2@zitadel.ch" || own[0].Origin != origin {
		t.Fatalf("the account is %+v", own)
	}
	guid := own[0].GUID
	if again := accounts(accessToken); len(again) != 1 || again[0].GUID != guid {
		t.Errorf("by its access token it is %+v", again)
	}
	if got := answers("the guid", 200, admin, "GET", base+"/v3/users/"+guid, "").object(t); got["origin"] != origin ||
		got["username"] != "test-user2@zitadel.ch" {
		t.Errorf("for an admin it is %v", got)
	}
	if r := answers("clusters", 200, idToken, "GET", base+prefix+"/clusters", ""); !strings.Contains(r.body, `"items":[]`) {
		t.Errorf("it sees clusters: %s", r.body)
	}
	answers("a cluster", 404, idToken, "GET", users, "")
	answers("label oneself", 403, idToken, "PATCH", base+"/v3/users/"+guid, `{"metadata":{"labels":{"team":"payments"}}}`)
	labelled := answers("label", 200, admin, "PATCH", base+"/v3/users/"+guid,
		`{"metadata":{"labels":{"team":"payments"}}}`).object(t)
	if member(labelled, "metadata", "labels", "team") != "payments" {
		t.Errorf("labelled: %v", labelled)
	}
	answers("rename", 422, admin, "PATCH", base+"/v3/users/"+guid, `{"username":"somebody"}`)
	answers("a password", 400, admin, "PUT", base+"/uaa/Users/"+guid+"/password", `{"password":"x"}`)

	// cf auth --assertion exchanges the token; it names the client in the header and in the body.
	form := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {idToken},
		"client_id": {"cf"}}
	exchanged := send(t, "POST", base+"/uaa/oauth/token", map[string]string{"Authorization": "Basic Y2Y6",
		"Content-Type": "application/x-www-form-urlencoded"}, form.Encode())
	granted := exchanged.object(t)
	if exchanged.status != 200 || granted["refresh_token"] != nil {
		t.Fatalf("exchange: %d %s", exchanged.status, exchanged.body)
	}
	if ours := accounts(fmt.Sprint(granted["access_token"])); len(ours) != 1 || ours[0].GUID != guid {
		t.Errorf("by the exchanged token it is %+v", ours)
	}

	// With the scope of an auditor, then of an admin, it works on databases; with a new token at once.
	grant := func(scope string) {
		t.Helper()
		group := answers("group", 200, admin, "GET", base+"/uaa/Groups?filter="+url.QueryEscape(`displayName eq "`+scope+`"`),
			"").object(t)
		groups, _ := group["resources"].([]any)
		if len(groups) != 1 {
			t.Fatalf("groups: %v", group)
		}
		answers("grant "+scope, 201, admin, "POST", fmt.Sprintf("%s/uaa/Groups/%v/members", base, member(groups[0], "id")),
			`{"value":"`+guid+`"}`)
	}
	soon := func(what string, bearer string, want int, method, target, body string) {
		t.Helper()
		for end := time.Now().Add(stale); ; time.Sleep(100 * time.Millisecond) {
			if r := call(bearer, method, target, body); r.status == want {
				return
			} else if time.Now().After(end) {
				t.Errorf("%s: %d %s, want %d", what, r.status, r.body, want)
				return
			}
		}
	}
	grant("cloud_controller.admin_read_only")
	idToken, _ = p.signIn(t, "rolecall", "test-user2")
	answers("view a cluster", 200, idToken, "GET", users, "")
	answers("change a cluster", 403, idToken, "POST", users, `{"properties":{"username":"sso","password":"a password"}}`)
	grant("cloud_controller.admin")
	idToken, _ = p.signIn(t, "rolecall", "test-user2")
	answers("create a database user", 200, idToken, "POST", users, `{"properties":{"username":"sso","password":"a password"}}`)
	s.login(t, "sso", "a password")
	if created := answers("get it", 200, idToken, "GET", users+"/sso", "").object(t); member(created, "metadata",
		"createdByUserId") != guid {
		t.Errorf("it was created by %v, not %s", member(created, "metadata", "createdByUserId"), guid)
	}

	// What is no token for this server.
	otherID, otherAccess := p.signIn(t, "other", "test-user2")
	stranger := startProvider(t)
	strangerID, _ := stranger.signIn(t, "rolecall", "test-user2")
	for what, bearer := range map[string]string{
		"another audience": otherID, "another audience's access token": otherAccess, "another issuer": strangerID,
		"a changed signature": idToken[:len(idToken)-8] + "AAAAAAAA", "no token": "nonsense",
	} {
		if r := answers(what, 401, bearer, "GET", base+"/v3/users", ""); !strings.Contains(r.body, `"CF-InvalidAuthToken"`) {
			t.Errorf("%s: %s", what, r.body)
		}
		if r := answers(what, 401, bearer, "GET", users, ""); len(r.header.Values("WWW-Authenticate")) != 2 {
			t.Errorf("%s: %v", what, r.header)
		}
	}

	// Keys rotate: a token of the new one is taken, and so is one of the old one while that is published.
	p.rotate(t, 1)
	rotated, _ := p.signIn(t, "rolecall", "test-user2")
	soon("a new key", rotated, 200, "GET", base+"/v3/users", "")
	if again := accounts(rotated); len(again) == 0 {
		t.Error("it sees nobody")
	}
	p.rotate(t, 0)
	unmet, _ := p.signIn(t, "rolecall", "test-user2")

	// The provider becomes unreachable. Known keys still verify tokens; a token of an unknown key cannot be verified.
	p.rotate(t, 1)
	later, _ := p.signIn(t, "rolecall", "test-user2")
	soon("the newest key", later, 200, "GET", base+"/v3/users", "")
	second, _ := p.signIn(t, "rolecall", "test-user@127.0.0.1")
	p.rotate(t, 1)
	unknown, _ := p.signIn(t, "rolecall", "test-user2")
	p.stop()
	answers("the provider is unreachable", 200, later, "GET", base+"/v3/users", "")
	answers("the provider is unreachable, another known key", 200, unmet, "GET", base+"/v3/users", "")
	answers("the provider is unreachable, somebody new", 200, second, "GET", base+"/v3/users", "")
	time.Sleep(time.Second) // no issuer is asked the same twice within a second
	if r := answers("the provider is unreachable, an unknown key", 503, unknown, "GET", base+"/v3/users",
		""); r.header.Get("Retry-After") == "" {
		t.Errorf("503 without Retry-After: %v", r.header)
	}
	answers("the provider is unreachable, a key that is not known", 503, unknown, "GET", users, "")
	p.restart(t)
	soon("the provider is back", unknown, 200, "GET", base+"/v3/users", "")

	// Two logins of one person are one account, under any name.
	mine := 0
	for _, a := range accounts(admin) {
		if a.Origin == origin {
			mine++
		}
	}
	if mine != 2 {
		t.Errorf("%d accounts of the issuer, want 2: %+v", mine, accounts(admin))
	}
	// Deactivated, its tokens end, whatever the issuer says.
	r := send(t, "PATCH", base+"/uaa/Users/"+guid, map[string]string{"Authorization": "Bearer " + admin,
		"Content-Type": "application/json", "If-Match": "*"}, `{"active":false}`)
	if r.status != 200 {
		t.Fatalf("deactivate: %d %s", r.status, r.body)
	}
	soon("deactivated", later, 401, "GET", base+"/v3/users", "")
	fresh, _ := p.signIn(t, "rolecall", "test-user2")
	answers("a new token of a deactivated account", 401, fresh, "GET", base+"/v3/users", "")
	if n := s.query(t, "postgres", "SELECT count(*) FROM pg_roles WHERE rolname = 'sso'"); n != "1" {
		t.Error("the database user went with its creator")
	}
}
