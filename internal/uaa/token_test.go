package uaa_test

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"rolecall/internal/account"
	"rolecall/internal/identity"
	"rolecall/internal/servicetest"
)

const issuer = servicetest.PublicURL + "/uaa/oauth/token"

func TestInfo(t *testing.T) {
	f := newFixture(t)
	for _, path := range []string{"/login", "/info"} {
		var info struct {
			App     struct{ Version string }
			Prompts map[string][]string
			Links   struct{ UAA, Login string }
		}
		f.send(t, "GET", path, "", "Accept: application/json").want(t, 200, "").Into(t, &info)
		if got := fmt.Sprint(info.Prompts["username"], info.Prompts["password"]); got != "[text User name] [password Password]" {
			t.Errorf("the prompts are %s", got)
		}
		if got := info.Prompts["passcode"]; len(got) != 2 || got[0] != "password" ||
			!strings.Contains(got[1], " "+servicetest.PublicURL+"/uaa/passcode ") {
			t.Errorf("the prompt of the passcode is %q", got)
		}
		if want := servicetest.PublicURL + "/uaa"; info.Links.Login != want || info.Links.UAA != want {
			t.Errorf("the links are %v", info.Links)
		}
	}
}

func TestPasswordGrant(t *testing.T) {
	f := newFixture(t)
	bob := f.person(t, unique("bob"))
	password := bob.UserName + "-password"
	for _, parameters := range [][]string{
		{"grant_type", "password", "username", bob.UserName, "password", password},
		{"grant_type", "password", "username", strings.ToUpper(bob.UserName), "password", password, "client_id", "cf"},
		{"grant_type", "password", "username", bob.UserName, "password", password, "login_hint", `{"origin":"uaa"}`},
	} {
		tok := f.token(t, cf, parameters...).token(t)
		if tok.TokenType != "bearer" || tok.ExpiresIn != 1200 || tok.Scope != "cloud_controller.read cloud_controller.write" ||
			tok.RefreshToken == "" {
			t.Errorf("got %+v", tok)
		}
	}
	tok := f.token(t, "", "client_id", "cf", "client_secret", "", "grant_type", "password", "username", bob.UserName,
		"password", password).token(t)
	c := tok.claims(t)
	for claim, want := range map[string]any{
		"iss": issuer, "sub": bob.ID, "user_id": bob.ID, "user_name": bob.UserName, "origin": "uaa", "client_id": "cf",
		"cid": "cf", "zid": "uaa",
		"grant_type": "password", "jti": tok.ID,
	} {
		if c[claim] != want {
			t.Errorf("%s is %v, want %v", claim, c[claim], want)
		}
	}
	if got := fmt.Sprint(c["scope"], c["aud"]); got != "[cloud_controller.read cloud_controller.write] [cloud_controller cf]" {
		t.Errorf("scope and aud are %s", got)
	}
	if lifetime := c["exp"].(float64) - c["iat"].(float64); lifetime != 1200 {
		t.Errorf("good for %v s", lifetime)
	}
	if c["rolecall_epoch"] == "" {
		t.Error("there is no epoch")
	}
	if f.isPlatformUser(t, bob.ID) {
		t.Error("issuing a token made the platform user")
	}
	f.as(t, tok.AccessToken, "GET", "/Users/"+bob.ID, "").want(t, 200, "")
	if !f.isPlatformUser(t, bob.ID) {
		t.Error("the first use of a token did not make the platform user")
	}
}

// The command line of Rolecall is a public client as cf is. Its tokens are its own: cf does not refresh them.
func TestPublicClients(t *testing.T) {
	f := newFixture(t)
	bob := f.person(t, unique("bob"))
	tok := f.token(t, "", "client_id", "rolecall", "grant_type", "password", "username", bob.UserName, "password",
		bob.UserName+"-password").token(t)
	if c := tok.claims(t); c["client_id"] != "rolecall" || c["cid"] != "rolecall" {
		t.Errorf("the claims are %v", c)
	}
	refresh := []string{"grant_type", "refresh_token", "refresh_token", tok.RefreshToken}
	if next := f.token(t, basic("rolecall", ""), refresh...).token(t); next.RefreshToken != tok.RefreshToken {
		t.Error("the refresh token was replaced")
	}
	f.token(t, cf, refresh...).want(t, 400, "invalid_grant")
	f.token(t, basic("rolecall", "a secret"), refresh...).want(t, 401, "invalid_client")
	for _, id := range []string{"cf", "rolecall"} {
		f.as(t, f.root(t), "POST", "/oauth/clients", object(map[string]any{"client_id": id, "client_secret": "its-secret",
			"authorized_grant_types": []string{"client_credentials"}})).want(t, 409, "invalid_client")
	}
}

func TestPasswordGrantRefused(t *testing.T) {
	f := newFixture(t)
	bob := f.person(t, unique("bob"))
	password := bob.UserName + "-password"
	none := unique("none") // somebody without a password
	f.as(t, f.root(t), "POST", "/Users", object(map[string]any{"userName": none})).want(t, 201, "")
	var bodies []string
	for _, pair := range [][2]string{{bob.UserName, "wrong"}, {unique("nobody"), password}, {none, "x"}, {"a\x00b", "x"},
		{"\xff", "\xff"}} {
		a := f.token(t, cf, "grant_type", "password", "username", pair[0], "password", pair[1]).want(t, 401, "unauthorized")
		bodies = append(bodies, a.Body+a.Header.Get("WWW-Authenticate"))
	}
	if bodies = slices.Compact(bodies); len(bodies) != 1 || !strings.Contains(bodies[0], `"Bad credentials"`) ||
		!strings.Contains(bodies[0], "Basic realm") {
		t.Errorf("the answers tell unknown users from wrong passwords: %v", bodies)
	}
	for _, test := range []struct {
		word       string
		parameters []string
	}{
		{"invalid_request", nil},
		{"invalid_request", []string{"grant_type", "password", "username", bob.UserName}},
		{"invalid_request", []string{"grant_type", "password", "password", password}},
		{"invalid_request", []string{"grant_type", "password", "username", bob.UserName, "password", ""}},
		{"invalid_grant", []string{"grant_type", "password", "username", bob.UserName, "password", password, "login_hint",
			`{"origin":"ldap"}`}},
		{"invalid_request", []string{"grant_type", "password", "username", bob.UserName, "password", password, "login_hint",
			`ldap`}},
		{"invalid_scope", []string{"grant_type", "password", "username", bob.UserName, "password", password, "scope",
			"cloud_controller.admin"}},
		{"unsupported_grant_type", []string{"grant_type", "implicit"}},
		{"invalid_request", []string{"grant_type", "authorization_code", "code", "x"}},
		{"invalid_request", []string{"grant_type", "authorization_code", "code", "x", "redirect_uri", "x"}},
		{"invalid_request", []string{"grant_type", "authorization_code", "redirect_uri", "x", "code_verifier", "x"}},
		{"invalid_grant", []string{"grant_type", "authorization_code", "code", "x", "redirect_uri", "x", "code_verifier", "x"}},
		{"invalid_request", []string{"grant_type", "urn:ietf:params:oauth:grant-type:device_code"}},
		{"invalid_grant", []string{"grant_type", "urn:ietf:params:oauth:grant-type:device_code", "device_code", "x"}},
		{"invalid_request", []string{"grant_type", "password", "passcode", ""}},
		{"invalid_grant", []string{"grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion", "x"}},
		{"unauthorized_client", []string{"grant_type", "client_credentials"}},
	} {
		f.token(t, cf, test.parameters...).want(t, 400, test.word)
	}
	good := url.Values{"grant_type": {"password"}, "username": {bob.UserName}, "password": {password}}.Encode()
	f.send(t, "POST", "/oauth/token?login_hint="+url.QueryEscape(`{"origin":"ldap"}`), good, form, cf).want(t, 400,
		"invalid_grant")
	f.send(t, "POST", "/oauth/token?login_hint="+url.QueryEscape(`{"origin":"uaa"}`), good, form, cf).want(t, 200, "")
	f.send(t, "POST", "/oauth/token?"+good, "", form, cf).want(t, 400, "invalid_request")
	f.send(t, "POST", "/oauth/token?password=x", good, form, cf).want(t, 400, "invalid_request")
	f.send(t, "POST", "/oauth/token?client_secret=x", good, form, cf).want(t, 400, "invalid_request")
	f.send(t, "POST", "/oauth/token", good+"&username=x", form, cf).want(t, 400, "invalid_request")
	f.send(t, "POST", "/oauth/token", "%zz", form, cf).want(t, 400, "invalid_request")
	f.send(t, "POST", "/oauth/token", `{"grant_type":"password"}`, "Content-Type: application/json", cf).want(t, 415,
		"invalid_request")
	f.send(t, "POST", "/oauth/token", good, cf).want(t, 415, "invalid_request")
	f.send(t, "POST", "/oauth/token", "x="+strings.Repeat("x", 70_000), form, cf).want(t, 413, "invalid_request")
	if strings.Contains(f.Log.String(), password) {
		t.Error("a password is in the log")
	}
}

func TestClientAuthentication(t *testing.T) {
	f := newFixture(t)
	id := f.program(t, map[string]any{"client_secret": "p+s %25 ü and more"})
	grant := []string{"grant_type", "client_credentials"}
	for _, authorization := range []string{basic(id, "p+s %25 ü and more"), basic(id, url.QueryEscape("p+s %25 ü and more")),
		basic(url.QueryEscape(id), url.QueryEscape("p+s %25 ü and more"))} {
		f.token(t, authorization, grant...).token(t)
	}
	f.token(t, "", append(grant, "client_id", id, "client_secret", "p+s %25 ü and more")...).token(t)
	f.token(t, basic(id, "p+s %25 ü and more"), append(grant, "client_id", id)...).token(t)

	bob := f.person(t, unique("bob"))
	var bodies []string
	for _, authorization := range []string{basic(id, "wrong"), basic(id, ""), basic(unique("no"), "x"), basic("cf", "x"),
		basic(bob.ID, bob.UserName+"-password"), basic("a\x00", "x"), "Authorization: Bearer x", "Authorization: Basic !"} {
		a := f.token(t, authorization, grant...).want(t, 401, "invalid_client")
		bodies = append(bodies, a.Body)
	}
	if bodies = slices.Compact(bodies); len(bodies) != 1 {
		t.Errorf("the answers tell unknown clients from wrong secrets: %v", bodies)
	}
	f.token(t, "", grant...).want(t, 401, "invalid_client")
	f.token(t, "", append(grant, "client_id", id)...).want(t, 401, "invalid_client")
	f.token(t, basic(id, "p+s %25 ü and more"), append(grant, "client_secret", "x")...).want(t, 400, "invalid_request")
	f.token(t, basic(id, "p+s %25 ü and more"), append(grant, "client_id", "cf")...).want(t, 400, "invalid_request")
}

// A program's own token: its guid is the client id, and it has the authorities and nothing else.
func TestClientCredentials(t *testing.T) {
	f := newFixture(t)
	id := f.program(t, map[string]any{"authorities": []string{"scim.read", "cloud_controller.read"}})
	tok := f.token(t, basic(id, id+"-secret"), "grant_type", "client_credentials").token(t)
	if tok.RefreshToken != "" || tok.ExpiresIn != 12*60*60 || tok.Scope != "cloud_controller.read scim.read" {
		t.Errorf("got %+v", tok)
	}
	c := tok.claims(t)
	if c["sub"] != id || c["client_id"] != id || c["cid"] != id || c["grant_type"] != "client_credentials" {
		t.Errorf("the claims are %v", c)
	}
	for _, claim := range []string{"user_id", "user_name", "origin"} {
		if _, has := c[claim]; has {
			t.Errorf("a program's token has %s", claim)
		}
	}
	if got := fmt.Sprint(c["aud"]); got != "[cloud_controller scim "+id+"]" {
		t.Errorf("aud is %s", got)
	}
	p, err := f.Identity.Authenticate(t.Context(), identity.ParseCredential("Bearer "+tok.AccessToken), "")
	if err != nil || p.GUID != id || p.Username != "" || fmt.Sprint(p.Scopes) != "[cloud_controller.read scim.read]" {
		t.Errorf("it signs in as %+v, %v", p, err)
	}
	tok = f.token(t, basic(id, id+"-secret"), "grant_type", "client_credentials", "scope", "scim.read openid").token(t)
	if tok.Scope != "scim.read" {
		t.Errorf("narrowed to %q", tok.Scope)
	}
	f.as(t, tok.AccessToken, "GET", "/Users?count=1", "").want(t, 200, "")
	f.as(t, tok.AccessToken, "GET", "/oauth/clients/"+id, "").want(t, 200, "")
	f.token(t, basic(id, id+"-secret"), "grant_type", "password", "username", "root", "password", "root-password").want(t, 400,
		"unauthorized_client")
}

// Through a program with that grant, a user's token carries what the program was given for users, and no more.
func TestPasswordGrantThroughProgram(t *testing.T) {
	f := newFixture(t)
	id := f.program(t, map[string]any{"authorized_grant_types": []string{"password", "refresh_token"},
		"scope": []string{"cloud_controller.read", "cloud_controller.admin"}})
	bob := f.person(t, unique("bob"))
	tok := f.token(t, basic(id, id+"-secret"), "grant_type", "password", "username", bob.UserName, "password",
		bob.UserName+"-password").token(t)
	if tok.Scope != "cloud_controller.read" || tok.claims(t)["client_id"] != id || tok.claims(t)["user_id"] != bob.ID {
		t.Errorf("got %+v", tok)
	}
	next := f.token(t, basic(id, id+"-secret"), "grant_type", "refresh_token", "refresh_token", tok.RefreshToken).token(t)
	if next.RefreshToken == tok.RefreshToken || next.Scope != "cloud_controller.read" {
		t.Errorf("got %+v", next)
	}
	// Not the client that it was made for.
	f.token(t, cf, "grant_type", "refresh_token", "refresh_token", next.RefreshToken).want(t, 400, "invalid_grant")
	f.token(t, basic(id, id+"-secret"), "grant_type", "client_credentials").want(t, 400, "unauthorized_client")
}

func TestRefresh(t *testing.T) {
	f := newFixture(t)
	bob := f.person(t, unique("bob"))
	signIn := []string{"grant_type", "password", "username", bob.UserName, "password", bob.UserName + "-password"}
	tok := f.token(t, cf, signIn...).token(t)
	refresh := func(token string, more ...string) answer {
		return f.token(t, cf, append([]string{"grant_type", "refresh_token", "refresh_token", token}, more...)...)
	}
	for range 3 { // cf's commands share it
		next := refresh(tok.RefreshToken).token(t)
		if next.RefreshToken != tok.RefreshToken || next.AccessToken == tok.AccessToken || next.TokenType != "bearer" {
			t.Errorf("got %+v", next)
		}
		f.as(t, next.AccessToken, "GET", "/Users/"+bob.ID, "").want(t, 200, "")
	}
	if got := refresh(tok.RefreshToken, "scope", "cloud_controller.read").token(t).Scope; got != "cloud_controller.read" {
		t.Errorf("narrowed to %q", got)
	}
	refresh(tok.RefreshToken, "scope", "cloud_controller.admin").want(t, 400, "invalid_scope")
	refresh("nonsense").want(t, 400, "invalid_grant")
	refresh(tok.AccessToken).want(t, 400, "invalid_grant")
	refresh("").want(t, 400, "invalid_request")
	f.as(t, tok.RefreshToken, "GET", "/Users/"+bob.ID, "").want(t, 401, "invalid_token")

	// One that was narrowed stays so.
	narrow := f.token(t, cf, append(signIn, "scope", "cloud_controller.read")...).token(t)
	if got := refresh(narrow.RefreshToken).token(t).Scope; got != "cloud_controller.read" {
		t.Errorf("the refreshed token has %q", got)
	}
	// A new password ends them.
	f.as(t, f.root(t), "PUT", "/Users/"+bob.ID+"/password", `{"password":"another password"}`).want(t, 200, "")
	refresh(tok.RefreshToken).want(t, 400, "invalid_grant")
	// They are stored as hashes only.
	var stored int
	if err := f.DB.Pool.QueryRow(t.Context(), `SELECT count(*) FROM refresh_tokens r WHERE r::text LIKE '%' || $1 || '%'`,
		tok.RefreshToken).Scan(&stored); err != nil || stored != 0 {
		t.Errorf("%d, %v", stored, err)
	}
}

// A resource server verifies a token by the published documents alone.
func TestKeysAndDiscovery(t *testing.T) {
	f := newFixture(t)
	var documents []string
	for _, path := range []string{"/.well-known/openid-configuration", "/oauth/token/.well-known/openid-configuration"} {
		documents = append(documents, f.send(t, "GET", path, "").want(t, 200, "").Body)
	}
	if documents[0] != documents[1] || !strings.Contains(documents[0], `"issuer":"`+issuer+`"`) ||
		!strings.Contains(documents[0], `"jwks_uri":"`+servicetest.PublicURL+`/uaa/token_keys"`) {
		t.Errorf("the documents are %s", documents)
	}
	type key struct{ Kty, Alg, Use, Kid, Value, N, E string }
	var keys struct{ Keys []key }
	f.send(t, "GET", "/token_keys", "").want(t, 200, "").Into(t, &keys)
	var current key
	f.send(t, "GET", "/token_key", "").want(t, 200, "").Into(t, &current)
	if len(keys.Keys) == 0 || keys.Keys[0] != current {
		t.Fatalf("the keys are %+v, the one that signs is %+v", keys, current)
	}
	n, _ := base64.RawURLEncoding.DecodeString(current.N)
	e, _ := base64.RawURLEncoding.DecodeString(current.E)
	public := &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
	block, _ := pem.Decode([]byte(current.Value))
	inPEM, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil || !public.Equal(inPEM) {
		t.Errorf("the two forms of the key differ: %v", err)
	}
	tok, err := jwt.Parse(f.root(t), func(tok *jwt.Token) (any, error) {
		if tok.Header["kid"] != current.Kid {
			t.Errorf("the token is signed by %v", tok.Header["kid"])
		}
		return public, nil
	}, jwt.WithIssuer(issuer), jwt.WithAudience("cloud_controller"))
	if err != nil || !tok.Valid {
		t.Errorf("%v", err)
	}
}

// After a few wrong passwords the next has to wait, known or unknown, and so does a client's secret.
func TestFailedSignInsWait(t *testing.T) {
	f := newFixture(t)
	bob := f.person(t, unique("bob"))
	id := f.program(t, nil)
	for _, parameters := range [][]string{
		{"grant_type", "password", "client_id", "cf", "username", bob.UserName, "password", "wrong"},
		{"grant_type", "password", "client_id", "cf", "username", unique("nobody"), "password", "wrong"},
		{"grant_type", "client_credentials", "client_id", id, "client_secret", "wrong"},
		{"grant_type", "client_credentials", "client_id", unique("no"), "client_secret", "wrong"},
	} {
		for range 6 {
			if a := f.token(t, "", parameters...); a.Status != 401 {
				t.Fatalf("got %d %s", a.Status, a.Body)
			}
		}
		a := f.token(t, "", parameters...).want(t, 429, "too_many_requests")
		if got := a.Header.Get("Retry-After"); got != "1" {
			t.Errorf("Retry-After is %q", got)
		}
	}
	// Neither is bob locked out from elsewhere, nor is anybody else at this address.
	elsewhere := newFixture(t)
	elsewhere.token(t, cf, "grant_type", "password", "username", bob.UserName, "password", bob.UserName+"-password").token(t)
	f.token(t, cf, "grant_type", "password", "username", "root", "password", "root-password").token(t)
	var counted int
	if err := f.DB.Pool.QueryRow(t.Context(), `SELECT coalesce(sum(count), 0) FROM failed_sign_ins WHERE account = $1`,
		bob.ID).Scan(&counted); err != nil || counted != 6 {
		t.Errorf("%d failures are counted, %v", counted, err)
	}
}

// A token ends with its account, or with its right to be used. How long a used one is remembered is a test of package
// identity.
func TestTokensEnd(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, f *fixture, u user){
		"deactivated": func(t *testing.T, f *fixture, u user) {
			f.as(t, f.root(t), "PATCH", "/Users/"+u.ID, `{"active":false}`, "If-Match: *").want(t, 200, "")
			f.as(t, f.root(t), "PATCH", "/Users/"+u.ID, `{"active":true}`, "If-Match: *").want(t, 200, "")
		},
		"new password": func(t *testing.T, f *fixture, u user) {
			f.as(t, f.root(t), "PUT", "/Users/"+u.ID+"/password", `{"password":"new password"}`).want(t, 200, "")
		},
		"identity deleted": func(t *testing.T, f *fixture, u user) {
			f.as(t, f.root(t), "DELETE", "/Users/"+u.ID, "").want(t, 200, "")
		},
		"platform user deleted": func(t *testing.T, f *fixture, u user) {
			admin := &account.Principal{GUID: "x", Scopes: account.AdminScopes}
			if _, err := f.Accounts.DeletePlatform(t.Context(), admin, u.ID, nil); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			u := f.person(t, unique("ending"))
			f.as(t, f.tokenOf(t, u.UserName), "GET", "/Users/"+u.ID, "").want(t, 200, "")
			fresh := f.tokenOf(t, u.UserName) // not used before the end, so not remembered
			end(t, f, u)
			f.as(t, fresh, "GET", "/Users/"+u.ID, "").want(t, 401, "invalid_token")
		})
	}
}
