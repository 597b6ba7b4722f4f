package dbaas_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"rolecall/internal/pgtest"
)

func TestSigningIn(t *testing.T) {
	f := newFixture(t)
	token, err := f.Identity.MintFor(t.Context(), "root", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.StdEncoding.EncodeToString
	for _, good := range []string{"Bearer " + token, "bearer " + token, basic("root", "root-password"),
		"BASIC " + b64([]byte("root:root-password"))} {
		if a := f.as(t, "", "GET", f.users(), "", "Authorization: "+good); a.Status != 200 {
			t.Errorf("%.20s: got %d %s", good, a.Status, a.Body)
		}
	}

	bad := map[string]string{
		"none":             "",
		"scheme only":      "Basic",
		"no base64":        "Basic !!!",
		"no colon":         "Basic " + b64([]byte("root")),
		"no user":          basic("", "root-password"),
		"no password":      basic("root", ""),
		"wrong password":   basic("root", "wrong"),
		"unknown user":     basic("nobody", "root-password"),
		"NUL in the name":  basic("root\x00", "root-password"),
		"no UTF-8":         basic("root\xff", "root-password"),
		"other scheme":     "Digest username=root",
		"token no scheme":  token,
		"token as Basic":   "Basic " + token,
		"garbage":          "Bearer garbage",
		"no token":         "Bearer ",
		"cut signature":    "Bearer " + token[:len(token)-10],
		"no signature":     "Bearer " + token[:strings.LastIndex(token, ".")+1],
		"other characters": "Bearer \u00e9\u2028",
	}
	maps.Copy(bad, f.forgedTokens(t, token))
	for name, authorization := range bad {
		t.Run(name, func(t *testing.T) {
			var headers []string
			if authorization != "" {
				headers = []string{"Authorization: " + authorization}
			}
			a := f.as(t, "", "GET", f.users(), "", headers...)
			a.refused(t, "paas-auth-1")
			if got := a.Header.Values("WWW-Authenticate"); !slices.Equal(got, []string{`Basic realm="rolecall", charset="UTF-8"`,
				"Bearer"}) {
				t.Errorf("WWW-Authenticate is %q", got)
			}
		})
	}

	// To a stranger everything looks the same.
	for _, request := range [][3]string{
		{"GET", "", ""}, {"GET", "/nothing", ""}, {"GET", "/clusters/unknown/users/x", ""}, {"PUT", "/clusters", ""},
		{"DELETE", f.users("..")},
		{"POST", f.users(), "{malformed"}, {"POST", f.users(), ""}, {"PATCH", f.users("postgres"), `{}`},
		{"GET", f.users() + "?limit=abc", ""}, {"OPTIONS", f.users(), ""},
		{"POST", f.users(), strings.Repeat("x", 1<<20)},
	} {
		a := f.as(t, "", request[0], request[1], request[2], "Content-Type: text/plain")
		a.refused(t, "paas-auth-1")
	}
}

// forgedTokens are made of a good one.
func (f *fixture) forgedTokens(t testing.TB, good string) map[string]string {
	t.Helper()
	parsed, _, err := jwt.NewParser().ParseUnverified(good, jwt.MapClaims{})
	if err != nil {
		t.Fatal(err)
	}
	kid := parsed.Header["kid"]
	own := f.signingKey(t)
	foreign, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&own.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	forge := func(method jwt.SigningMethod, key any, kid any, change jwt.MapClaims) string {
		claims := maps.Clone(parsed.Claims.(jwt.MapClaims))
		for name, value := range change {
			if claims[name] = value; value == nil {
				delete(claims, name)
			}
		}
		token := jwt.NewWithClaims(method, claims)
		token.Header["kid"] = kid
		signed, err := token.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return "Bearer " + signed
	}
	// Proof that what follows fails for the reason that it names.
	if a := f.as(t, "", "GET", f.users(), "", "Authorization: "+forge(jwt.SigningMethodRS256, own, kid,
		jwt.MapClaims{"jti": "again"})); a.Status != 200 {
		t.Fatalf("a token that is signed with the key and has the same claims: %d %s", a.Status, a.Body)
	}
	rs := jwt.SigningMethodRS256
	return map[string]string{
		"expired":          forge(rs, own, kid, jwt.MapClaims{"exp": time.Now().Add(-time.Second).Unix()}),
		"without end":      forge(rs, own, kid, jwt.MapClaims{"exp": nil}),
		"foreign issuer":   forge(rs, own, kid, jwt.MapClaims{"iss": "https://elsewhere.test/uaa/oauth/token"}),
		"foreign audience": forge(rs, own, kid, jwt.MapClaims{"aud": []string{"elsewhere"}}),
		"refresh token":    forge(rs, own, kid, jwt.MapClaims{"jti": "abc-r"}),
		"old epoch":        forge(rs, own, kid, jwt.MapClaims{"rolecall_epoch": "2a0c4f5e-90f5-5b1c-8d3c-6b2f1f0f7c11"}),
		"unknown account":  forge(rs, own, kid, jwt.MapClaims{"user_id": "nobody"}),
		"no account":       forge(rs, own, kid, jwt.MapClaims{"user_id": nil}),
		"not yet":          forge(rs, own, kid, jwt.MapClaims{"nbf": time.Now().Add(time.Hour).Unix()}),
		"foreign key":      forge(rs, foreign, kid, nil),
		"unknown key":      forge(rs, own, "elsewhere", nil),
		"no key id":        forge(rs, own, nil, nil),
		"alg none":         forge(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, kid, nil),
		"HS256 by DER":     forge(jwt.SigningMethodHS256, public, kid, nil),
		"HS256 by PEM": forge(jwt.SigningMethodHS256, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), kid,
			nil),
		"RS512":             forge(jwt.SigningMethodRS512, own, kid, nil),
		"PS256":             forge(jwt.SigningMethodPS256, own, kid, nil),
		"HS256 by key name": forge(jwt.SigningMethodHS256, []byte(kid.(string)), kid, nil),
	}
}

func (f *fixture) signingKey(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	var kid string
	var sealed []byte
	err := f.DB.Pool.QueryRow(t.Context(), `SELECT kid, private_key FROM signing_keys`).Scan(&kid, &sealed)
	if err != nil {
		t.Fatal(err)
	}
	der, err := f.DB.Keys.Open("signing_keys/"+kid+"/private_key", sealed)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		t.Fatal(err)
	}
	return key.(*rsa.PrivateKey)
}

func TestAccess(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.register(t, "guarded", f.PG)
	f.Access(t, id, []string{"team=payments,role in (dba,sre)"}, []string{"team=payments", "auditor"})
	f.create(t, "guarded-user")
	read, write := "cloud_controller.read", "cloud_controller.write"
	for name, who := range map[string]struct {
		scopes       []string
		labels       map[string]string
		view, manage bool
	}{
		"ac-manager":     {[]string{read, write}, map[string]string{"team": "payments", "role": "dba"}, true, true},
		"ac-read-only":   {[]string{read}, map[string]string{"team": "payments", "role": "dba"}, true, false},
		"ac-write-only":  {[]string{write}, map[string]string{"team": "payments", "role": "dba"}, true, true},
		"ac-no-scope":    {nil, map[string]string{"team": "payments", "role": "dba"}, false, false},
		"ac-scim":        {[]string{"scim.read", "scim.write"}, map[string]string{"auditor": ""}, false, false},
		"ac-viewer":      {[]string{read, write}, map[string]string{"team": "payments"}, true, false},
		"ac-auditor":     {[]string{read, write}, map[string]string{"auditor": ""}, true, false},
		"ac-stranger":    {[]string{read, write}, map[string]string{"team": "orders", "role": "dba"}, false, false},
		"ac-nobody":      {nil, nil, false, false},
		"ac-admin":       {[]string{"cloud_controller.admin"}, nil, true, true},
		"ac-admin-reads": {[]string{"cloud_controller.admin_read_only"}, nil, true, false},
		"ac-global":      {[]string{"cloud_controller.global_auditor", write}, nil, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			f.Account(t, name, who.scopes, who.labels)
			users := "/clusters/" + id + "/users"
			expect := func(method, path, body string, allowed bool, status int) {
				t.Helper()
				a := f.as(t, name, method, path, body)
				switch {
				case !who.view:
					a.refused(t, "paas-notfound-1")
				case !allowed:
					a.refused(t, "paas-auth-2")
				case a.Status != status:
					t.Errorf("%s %s: %d %s, want %d", method, path, a.Status, a.Body, status)
				}
			}
			target := "by-" + name
			expect("GET", "/clusters/"+id, "", true, 200)
			expect("GET", "/clusters/"+id+"/versions", "", true, 200)
			expect("GET", users, "", true, 200)
			expect("GET", users+"/guarded-user", "", true, 200)
			expect("GET", "/clusters/"+id+"/databases", "", true, 200)
			expect("GET", "/clusters/"+id+"/databases/postgres", "", true, 200)
			expect("POST", users, userBody(target, password), who.manage, 200)
			expect("PATCH", users+"/"+target, passwordBody("another-password"), who.manage, 200)
			expect("PATCH", users+"/guarded-user", `{"properties":{}}`, who.manage, 200)
			expect("POST", "/clusters/"+id+"/databases", `{"properties":{"name":"`+target+`","owner":"guarded-user"}}`, who.manage,
				200)
			expect("DELETE", "/clusters/"+id+"/databases/"+target, "", who.manage, 204)
			expect("DELETE", users+"/"+target, "", who.manage, 204)
			if exists := pgtest.Value[bool](t, f.PG, `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)`, target); exists {
				t.Error("the role is there")
			}

			var actions []string
			for _, row := range f.AuditRows(t, target) {
				actions = append(actions, strings.TrimSuffix(row.Phase+" "+row.Action+" "+row.Outcome, " "))
			}
			var want []string
			for _, action := range []string{"user.create", "user.password", "database.create", "database.delete", "user.delete"} {
				switch {
				case who.manage:
					want = append(want, "attempt "+action, "outcome "+action+" done")
				case who.view:
					want = append(want, "outcome "+action+" denied")
				}
			}
			if !slices.Equal(actions, want) {
				t.Errorf("recorded %q, want %q", actions, want)
			}

			var l list
			f.as(t, name, "GET", "/clusters?filter.name=GUARD", "").Into(t, &l)
			if (len(l.Items) == 1) != who.view {
				t.Errorf("the list of clusters has %+v", l.Items)
			}
		})
	}
}

// A token is worth no more than its account is by now.
func TestTokenScopes(t *testing.T) {
	f := newFixture(t)
	f.Account(t, "tokens", []string{"cloud_controller.admin"}, nil)
	token, err := f.Identity.MintFor(t.Context(), "tokens", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.DB.Pool.Exec(t.Context(),
		`UPDATE accounts SET scopes = '{cloud_controller.admin_read_only}' WHERE username = 'tokens'`); err != nil {
		t.Fatal(err)
	}
	a := f.as(t, "", "GET", f.users(), "", "Authorization: Bearer "+token)
	a.refused(t, "paas-notfound-1")
	if strings.Contains(f.Log.String(), token) {
		t.Error("the log has the token")
	}
}

// A browser sends remembered Basic credentials along with what another site makes it post.
func TestOtherSites(t *testing.T) {
	f := newFixture(t)
	body := userBody("other-site", "other-site-password")
	for _, header := range []string{"Sec-Fetch-Site: cross-site", "Origin: https://evil.example"} {
		if a := f.do(t, "POST", f.users(), body, header); a.Status != 403 {
			t.Errorf("%s: got %d %s", header, a.Status, a.Body)
		}
		if a := f.do(t, "GET", f.users(), "", header); a.Status != 200 {
			t.Errorf("reading with %s: got %d %s", header, a.Status, a.Body)
		}
	}
	f.want(t, 404, "GET", f.users("other-site"), "")
}
