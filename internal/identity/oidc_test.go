package identity_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"rolecall/internal/account"
	"rolecall/internal/fault"
	"rolecall/internal/identity"
	"rolecall/internal/servicetest"
)

// provider is an OpenID Connect issuer.
type provider struct {
	*httptest.Server
	mu      sync.Mutex
	keys    []map[string]any // published
	down    bool
	fetched int    // how often its keys were asked for
	slow    func() // what passes while its keys are asked for

	documents map[string]any // in its discovery document, beside those that it always has
	more      http.Handler   // nil: it has keys only
}

func newProvider(t testing.TB) *provider {
	p := &provider{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		switch {
		case p.down:
			w.WriteHeader(http.StatusBadGateway)
		case r.URL.Path == "/.well-known/openid-configuration":
			documents := map[string]any{"issuer": p.URL, "jwks_uri": p.URL + "/keys",
				"id_token_signing_alg_values_supported": []string{"RS256", "HS256", "none"}}
			maps.Copy(documents, p.documents)
			_ = json.NewEncoder(w).Encode(documents)
		case r.URL.Path == "/keys":
			p.fetched++
			if p.slow != nil {
				p.slow()
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"keys": p.keys})
		case p.more != nil:
			p.more.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *provider) set(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = down
}

// key is a key of the provider's, published unless it is secret.
type key struct {
	id      string
	private crypto.Signer
	method  jwt.SigningMethod
}

func (p *provider) key(t testing.TB, id string, publish bool) key {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return p.with(key{id, private, jwt.SigningMethodRS256}, publish)
}

func (p *provider) with(k key, publish bool) key {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !publish {
		return k
	}
	jwk := map[string]any{"kid": k.id, "alg": k.method.Alg(), "use": "sig"}
	switch public := k.private.Public().(type) {
	case *rsa.PublicKey:
		jwk["kty"], jwk["n"] = "RSA", base64.RawURLEncoding.EncodeToString(public.N.Bytes())
		jwk["e"] = base64.RawURLEncoding.EncodeToString(big.NewInt(int64(public.E)).Bytes())
	case *ecdsa.PublicKey:
		point, err := public.Bytes() // 4, x, y
		if err != nil {
			panic(err)
		}
		jwk["kty"], jwk["crv"] = "EC", "P-256"
		jwk["x"], jwk["y"] = base64.RawURLEncoding.EncodeToString(point[1:33]), base64.RawURLEncoding.EncodeToString(point[33:])
	}
	p.keys = append(p.keys, jwk)
	return k
}

// sign makes a token of the subject; changes replace claims.
func (p *provider) sign(t testing.TB, k key, subject string, changes jwt.MapClaims) string {
	t.Helper()
	c := jwt.MapClaims{"iss": p.URL, "sub": subject, "aud": "rolecall", "exp": time.Now().Add(time.Hour).Unix(),
		"iat": time.Now().Unix()}
	maps.Copy(c, changes)
	token := jwt.NewWithClaims(k.method, c)
	token.Header["kid"] = k.id
	signed, err := token.SignedString(k.private)
	if err != nil {
		t.Fatal(err)
	}
	return "Bearer " + signed
}

func (p *provider) issuer() identity.OIDCIssuer {
	return identity.OIDCIssuer{URL: p.URL, Audience: "rolecall"}
}

func TestExternalIssuer(t *testing.T) {
	s := servicetest.Shared(t)
	p := newProvider(t)
	k := p.key(t, "1", true)
	var c clock
	id := replica(t, s, &c, p.issuer())
	name := unique("erin")
	erin := p.sign(t, k, "subject-1", jwt.MapClaims{"preferred_username": name, "email": name + "@example.org",
		"scope": "cloud_controller.admin", "user_id": "root"})
	got := signIn(t, id, erin)
	if got.Username != name || got.Origin != strings.TrimPrefix(p.URL, "http://") ||
		fmt.Sprint(got.Scopes) != "[cloud_controller.read cloud_controller.write]" {
		t.Errorf("it signs in as %+v", got)
	}
	if u, err := s.Accounts.Platform(t.Context(), admin, got.GUID); err != nil || u.Username != name {
		t.Errorf("the platform user is %+v, %v", u, err)
	}
	if rows := s.AuditRows(t, got.GUID); len(rows) != 1 || rows[0].Account != got.GUID {
		t.Errorf("the audit log has %+v", rows)
	}
	// An admin of another issuer does not look like a local one.
	shown := got.Entry("x", "", nil).AccountName
	var recorded string
	if err := s.DB.Pool.QueryRow(t.Context(), `SELECT account_name FROM audit WHERE target = $1`, got.GUID).
		Scan(&recorded); err != nil || recorded != shown || shown != got.Origin+":"+name {
		t.Errorf("the audit log shows %q and %q, %v", recorded, shown, err)
	}
	if local := signIn(t, id, bearer(t, id, "root")).Entry("x", "", nil).AccountName; local != "root" {
		t.Errorf("the audit log shows %q", local)
	}
	// The same subject under another name is the same account, on every replica; another subject under that name is not.
	other := replica(t, s, &c, p.issuer())
	if again := signIn(t, other, p.sign(t, k, "subject-1",
		jwt.MapClaims{"preferred_username": "renamed"})); again.GUID != got.GUID || again.Username != name {
		t.Errorf("got %+v", again)
	}
	if twin := signIn(t, id, p.sign(t, k, "subject-2",
		jwt.MapClaims{"preferred_username": strings.ToUpper(name)})); twin.GUID == got.GUID ||
		twin.Username != strings.ToUpper(name)+"-"+twin.GUID[:8] {
		t.Errorf("got %+v", twin)
	}
	// Labels and scopes work as for anybody else.
	team := "dba"
	_, err := s.Accounts.UpdatePlatform(t.Context(), admin, got.GUID, nil,
		account.PlatformChange{Labels: map[string]*string{"team": &team}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Accounts.Grant(t.Context(), admin, got.GUID, "scim.read"); err != nil {
		t.Fatal(err)
	}
	c.advance(identity.FreshFor)
	if got := signIn(t, id, erin); got.Labels["team"] != "dba" || len(got.Scopes) != 3 {
		t.Errorf("it signs in as %+v", got)
	}
	// There is no password for it, whatever its name.
	refused(t, id, basic(name, ""))
	// Deactivated, it stays out, with new tokens too.
	if _, err := s.Accounts.UpdateIdentity(t.Context(), admin, false, got.GUID, nil,
		account.IdentityChange{Active: new(false)}); err != nil {
		t.Fatal(err)
	}
	c.advance(identity.FreshFor)
	refused(t, id, erin)
	refused(t, id, p.sign(t, k, "subject-1", jwt.MapClaims{"jti": "new"}))
	// Deleted, the subject is somebody new, without the labels.
	if _, err := s.Accounts.DeleteIdentity(t.Context(), admin, false, got.GUID, nil); err != nil {
		t.Fatal(err)
	}
	if next := signIn(t, id, erin); next.GUID == got.GUID || len(next.Labels) != 0 || next.Username != name {
		t.Errorf("got %+v", next)
	}
}

func TestExternalNames(t *testing.T) {
	s := servicetest.Shared(t)
	p := newProvider(t)
	k := p.key(t, "1", true)
	var c clock
	id := replica(t, s, &c, p.issuer())
	x := unique("x")
	for n, test := range []struct {
		claims jwt.MapClaims
		want   string
	}{
		{jwt.MapClaims{"preferred_username": x + "a", "email": x + "b"}, x + "a"},
		{jwt.MapClaims{"email": x + "c", "email_verified": true}, x + "c"},
		{jwt.MapClaims{"preferred_username": 7, "email": x + "d", "email_verified": "true"}, x + "d"},
		{nil, fmt.Sprint(x, "-", 3)},
		{jwt.MapClaims{"email": x + "nobody's"}, fmt.Sprint(x, "-", 4)},
		{jwt.MapClaims{"email": x + "nobody's", "email_verified": false}, fmt.Sprint(x, "-", 5)},
		{jwt.MapClaims{"email": x + "nobody's", "email_verified": "false"}, fmt.Sprint(x, "-", 6)},
		{jwt.MapClaims{"email": x + "nobody's", "email_verified": 1}, fmt.Sprint(x, "-", 7)},
		{jwt.MapClaims{"preferred_username": "line\nbreak"}, "GUID"},
		{jwt.MapClaims{"preferred_username": strings.Repeat("n", 300)}, "GUID"},
	} {
		p := signIn(t, id, p.sign(t, k, fmt.Sprint(x, "-", n), test.claims))
		if strings.Replace(test.want, "GUID", p.GUID, 1) != p.Username {
			t.Errorf("%v is called %q", test.claims, p.Username)
		}
	}
	named := p.issuer()
	named.UsernameClaim = "upn"
	id = replica(t, s, &c, named)
	if got := signIn(t, id, p.sign(t, k, x+"-upn",
		jwt.MapClaims{"upn": x + "e", "preferred_username": x + "f"})); got.Username != x+"e" {
		t.Errorf("got %+v", got)
	}
	if got := signIn(t, id, p.sign(t, k, x+"-sub", jwt.MapClaims{"preferred_username": x + "g"})); got.Username != x+"-sub" {
		t.Errorf("got %+v", got)
	}
	named.UsernameClaim = "email"
	if got := signIn(t, replica(t, s, &c, named), p.sign(t, k, x+"-unverified",
		jwt.MapClaims{"email": x + "nobody's", "preferred_username": x + "g"})); got.Username != x+"-unverified" {
		t.Errorf("got %+v", got)
	}
	if got := signIn(t, id, p.sign(t, k, "system:serviceaccount:shop:"+x, nil)); got.Username != "shop/"+x {
		t.Errorf("a service account of Kubernetes is called %q", got.Username)
	}
	// One subject, many requests at once: one account.
	var group sync.WaitGroup
	var guids sync.Map
	for range 8 {
		id := replica(t, s, &c, p.issuer())
		group.Go(func() {
			got, err := id.Authenticate(t.Context(), identity.ParseCredential(
				p.sign(t, k, x+"-many", jwt.MapClaims{"preferred_username": x + "h"})), "")
			if err != nil {
				t.Error(err)
				return
			}
			guids.Store(got.GUID, got.Username)
		})
	}
	group.Wait()
	count := 0
	guids.Range(func(_, name any) bool {
		if count++; name != x+"h" {
			t.Errorf("it is called %v", name)
		}
		return true
	})
	if count != 1 {
		t.Errorf("%d accounts", count)
	}
}

// TestSlowVerification: the account is read again by the time at which the verification began, not at which it ended.
func TestSlowVerification(t *testing.T) {
	s := servicetest.Shared(t)
	p := newProvider(t)
	k := p.key(t, "1", true)
	token := p.sign(t, k, unique("slow"), nil)
	var c clock
	guid := signIn(t, replica(t, s, &c, p.issuer()), token).GUID
	id := replica(t, s, &c, p.issuer())
	p.slow = func() { c.advance(identity.FreshFor) }
	signIn(t, id, token)
	if _, err := s.DB.Pool.Exec(t.Context(), `UPDATE accounts SET active = false WHERE guid = $1`, guid); err != nil {
		t.Fatal(err)
	}
	refused(t, id, token)
}

// TestRemote: what takes a request to another server is known before, until it is verified.
func TestRemote(t *testing.T) {
	s := servicetest.Shared(t)
	p := newProvider(t)
	token := p.sign(t, p.key(t, "1", true), unique("remote"), nil)
	var c clock
	id := replica(t, s, &c, p.issuer())
	name := unique("local")
	s.Account(t, name, nil, nil)
	for authorization, want := range map[string]bool{token: true, bearer(t, id, name): false, basic(name, "x"): false,
		"Bearer garbage": false, "Bearer rolecall_pat_x": false} {
		if got := id.Remote(identity.ParseCredential(authorization)); got != want {
			t.Errorf("%.30s: %t, want %t", authorization, got, want)
		}
	}
	signIn(t, id, token)
	if id.Remote(identity.ParseCredential(token)) {
		t.Error("a token that was verified a moment ago is remote")
	}
}

func TestExternalForgeries(t *testing.T) {
	s := servicetest.Shared(t)
	p, stranger := newProvider(t), newProvider(t)
	k := p.key(t, "1", true)
	secret := p.key(t, "1", false) // says that it is key 1
	theirs := stranger.key(t, "1", true)
	var c clock
	id := replica(t, s, &c, p.issuer())
	subject := unique("subject")
	first := p.sign(t, k, subject, nil)
	if id.Stranger(identity.ParseCredential(first)) {
		t.Error("a token of the issuer counts as a stranger's at its first use")
	}
	signIn(t, id, first)
	hmac := func(secret []byte) string {
		token := jwt.NewWithClaims(jwt.SigningMethodHS256,
			jwt.MapClaims{"iss": p.URL, "sub": subject, "aud": "rolecall", "exp": time.Now().Add(time.Hour).Unix()})
		token.Header["kid"] = "1"
		signed, _ := token.SignedString(secret)
		return "Bearer " + signed
	}
	none := jwt.NewWithClaims(jwt.SigningMethodNone, jwt.MapClaims{"iss": p.URL, "sub": subject, "aud": "rolecall",
		"exp": time.Now().Add(time.Hour).Unix()})
	unsigned, err := none.SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	for name, authorization := range map[string]string{
		"another audience":     p.sign(t, k, subject, jwt.MapClaims{"aud": "another"}),
		"no audience":          p.sign(t, k, subject, jwt.MapClaims{"aud": nil}),
		"expired":              p.sign(t, k, subject, jwt.MapClaims{"exp": time.Now().Add(-time.Minute).Unix()}),
		"never expires":        p.sign(t, k, subject, jwt.MapClaims{"exp": nil}),
		"not yet valid":        p.sign(t, k, subject, jwt.MapClaims{"nbf": time.Now().Add(time.Hour).Unix()}),
		"no subject":           p.sign(t, k, "", nil),
		"a key that it lacks":  p.sign(t, secret, subject, nil),
		"an issuer not listed": stranger.sign(t, theirs, subject, nil),
		"another's key":        stranger.sign(t, theirs, subject, jwt.MapClaims{"iss": p.URL}),
		"our own issuer":       p.sign(t, k, subject, jwt.MapClaims{"iss": issuer}),
		"HMAC":                 hmac(k.private.Public().(*rsa.PublicKey).N.Bytes()),
		"none":                 "Bearer " + unsigned,
		"a NUL":                p.sign(t, k, "a\x00b", nil),
		"a subject too long":   p.sign(t, k, rand.Text()+strings.Repeat("x", 230), nil),
		"a subject of pages":   p.sign(t, k, randomText(9000), nil),
	} {
		if p, err := id.Authenticate(t.Context(), identity.ParseCredential(authorization), ""); !fault.Is(err,
			fault.Unauthenticated) {
			t.Errorf("%s: signed in as %+v, %v", name, p, err)
		}
	}
	// A token of ours is no token of theirs, and a server that does not list the issuer takes neither.
	refused(t, s.Identity, p.sign(t, k, subject, nil))
	// People sign in at an issuer without an audience; its bearer tokens are not accepted.
	people := p.issuer()
	people.Audience, people.ClientID = "", "rolecall"
	refused(t, replica(t, s, &c, people), p.sign(t, k, subject, nil))
	elliptic256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p = newProvider(t)
	signIn(t, replica(t, s, &c, p.issuer()), p.sign(t, p.with(key{"ec", elliptic256, jwt.SigningMethodES256}, true), subject,
		nil))
}

// randomText does not compress: PostgreSQL would index what does.
func randomText(length int) string {
	var text strings.Builder
	for text.Len() < length {
		text.WriteString(rand.Text())
	}
	return text.String()[:length]
}

// TestRefusedTokensAreExplained: the cause of a refusal, which is for the log, says what to fix, and holds no token. The
// caller reads one text in each case.
func TestRefusedTokensAreExplained(t *testing.T) {
	s := servicetest.Shared(t)
	p := newProvider(t)
	k, secret := p.key(t, "1", true), p.key(t, "2", false)
	var c clock
	id := replica(t, s, &c, p.issuer())
	subject := unique("subject")
	now := time.Now()
	ended := p.sign(t, k, unique("ended"), nil)
	guid := signIn(t, id, ended).GUID
	if _, err := s.Accounts.UpdateIdentity(t.Context(), admin, false, guid, nil,
		account.IdentityChange{Active: new(false)}); err != nil {
		t.Fatal(err)
	}
	c.advance(identity.FreshFor)
	for authorization, says := range map[string]string{
		p.sign(t, k, subject, jwt.MapClaims{"aud": []string{"another", "x"}}): `the token of ` + p.URL +
			` has the audience ["another" "x"], not "rolecall"`,
		p.sign(t, k, subject, jwt.MapClaims{"aud": strings.Repeat("x", 2000)}): `not "rolecall"`,
		p.sign(t, k, subject, jwt.MapClaims{"iss": "https://elsewhere.example"}): `of the issuer "https://elsewhere.example", ` +
			`which is neither this server`,
		p.sign(t, k, subject, jwt.MapClaims{"iss": p.URL + "/"}): `of the issuer "` + p.URL + `/"`,
		p.sign(t, k, subject, jwt.MapClaims{"exp": now.Add(-time.Hour).Unix()}): "expired at " +
			now.Add(-time.Hour).UTC().Format("2006-01-02T15:04"),
		p.sign(t, k, subject, jwt.MapClaims{"nbf": now.Add(time.Hour).Unix()}): "compare the clocks",
		p.sign(t, k, subject, jwt.MapClaims{"exp": nil}):                       "does not say when it expires",
		p.sign(t, secret, subject, nil):                                        `it names the key "2"`,
		p.sign(t, k, "", nil):                                                  "has no subject",
		ended:                                                                  "not active",
		"Bearer nonsense":                                                      "neither a personal access token nor a JWT",
	} {
		_, err := id.Authenticate(t.Context(), identity.ParseCredential(authorization), "")
		if !fault.Is(err, fault.Unauthenticated) || !strings.Contains(err.Error(), says) || len(err.Error()) > 700 {
			t.Errorf("want %q, got %v", says, err)
			continue
		}
		if got := fault.Of(err).Message; got != "The user name, password or token is wrong, or has expired." {
			t.Errorf("%s: the caller reads %q", says, got)
		}
		_, token, _ := strings.Cut(authorization, " ")
		for part := range strings.SplitSeq(token, ".") {
			if strings.Contains(err.Error(), part) {
				t.Errorf("%s: the log has a part of the token", says)
			}
		}
	}
}

// TestLink: only where the issuer links, the first subject of a name has the account that was prepared for it.
func TestLink(t *testing.T) {
	s := servicetest.Shared(t)
	p := newProvider(t)
	k := p.key(t, "1", true)
	var c clock
	linking := p.issuer()
	linking.Links = true
	strict, links := replica(t, s, &c, p.issuer()), replica(t, s, &c, linking)
	origin := linking.Origin()
	team := "a"
	prepare := func(id *identity.Service, name string) (*account.Profile, error) {
		return id.Accounts().CreatePlatform(t.Context(), admin, account.NewPlatformUser{Username: name, Origin: origin,
			Labels: map[string]*string{"team": &team}})
	}
	token := func(subject, name string) string {
		return p.sign(t, k, subject, jwt.MapClaims{"preferred_username": name})
	}
	alice := unique("alice")
	prepared, err := prepare(links, alice)
	if err != nil {
		t.Fatal(err)
	}
	// Without the setting nobody gets it, and nobody can prepare another.
	if got := signIn(t, strict, token(alice+"-0", alice)); got.GUID == prepared.GUID || len(got.Labels) != 0 ||
		got.Username != alice+"-"+got.GUID[:8] {
		t.Errorf("got %+v", got)
	}
	_, byCF := prepare(strict, unique("bob"))
	_, byUAA := strict.Accounts().CreateUser(t.Context(), admin,
		account.IdentityChange{Username: new(unique("bob")), Origin: &origin}, nil)
	_, byOwn := strict.Accounts().CreateProfile(t.Context(), admin,
		account.NewProfile{Username: unique("bob"), Origin: origin}, nil)
	_, byMove := strict.Accounts().UpdatePlatform(t.Context(), admin, s.Admin(t, unique("bob")), nil,
		account.PlatformChange{Origin: &origin})
	for _, err := range []error{byCF, byUAA, byOwn, byMove} {
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "link=username") {
			t.Errorf("got %v", err)
		}
	}
	// With it, the first subject of the name is whom it was prepared for, in any case and on all replicas at once.
	var all sync.WaitGroup
	for range 8 {
		id := replica(t, s, &c, linking)
		all.Go(func() {
			got, err := id.Authenticate(t.Context(), identity.ParseCredential(token(alice+"-1", strings.ToUpper(alice))), "")
			if err != nil || got.GUID != prepared.GUID || got.Labels["team"] != "a" || got.Username != alice {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
	all.Wait()
	rows := s.AuditRows(t, prepared.GUID)
	if last := rows[len(rows)-1]; len(rows) != 2 || last.Account != prepared.GUID || last.Action != "account.update" ||
		!strings.Contains(last.Detail, p.URL) {
		t.Errorf("the audit log has %+v", rows)
	}
	if got := signIn(t, links, token(alice+"-2", alice)); got.GUID == prepared.GUID || len(got.Labels) != 0 {
		t.Errorf("the second subject of the name got %+v", got)
	}
	if got := signIn(t, strict, token(alice+"-1", alice)); got.GUID != prepared.GUID {
		t.Errorf("without the setting, the subject is %+v", got)
	}
	// Nothing else of that name is taken: neither the local account nor that of another origin.
	local := unique("local")
	guid := s.Admin(t, local)
	if _, err := links.Accounts().CreateProfile(t.Context(), admin, account.NewProfile{Username: local, Origin: "ldap"},
		nil); err != nil {
		t.Fatal(err)
	}
	if got := signIn(t, links, token(local, local)); got.GUID == guid || got.Username != local || got.Origin != origin ||
		fmt.Sprint(got.Scopes) != "[cloud_controller.read cloud_controller.write]" {
		t.Errorf("got %+v", got)
	}
	// A prepared account that is not active keeps its person out.
	carol := unique("carol")
	if prepared, err = prepare(links, carol); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Accounts.UpdateIdentity(t.Context(), admin, false, prepared.GUID, nil,
		account.IdentityChange{Active: new(false)}); err != nil {
		t.Fatal(err)
	}
	refused(t, links, token(carol, carol))
}

// TestDeletedPerson: the token of another issuer still says whose it is after the account was deleted. The first request
// makes a new account, which has none of the rights of the old one; deactivated, the person stays out.
func TestDeletedPerson(t *testing.T) {
	s := servicetest.Shared(t)
	p := newProvider(t)
	k := p.key(t, "1", true)
	var c clock
	id := replica(t, s, &c, p.issuer())
	name := unique("dora")
	dora := p.sign(t, k, name, jwt.MapClaims{"preferred_username": name})
	first := signIn(t, id, dora)
	team := "dba"
	if _, err := s.Accounts.UpdatePlatform(t.Context(), admin, first.GUID, nil,
		account.PlatformChange{Labels: map[string]*string{"team": &team}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Accounts.DeleteProfile(t.Context(), admin, first.GUID, nil); err != nil {
		t.Fatal(err)
	}
	c.advance(identity.FreshFor)
	second := signIn(t, id, dora)
	if second.GUID == first.GUID || second.Username != name || len(second.Labels) != 0 {
		t.Errorf("got %+v", second)
	}
	active := func(active bool) {
		t.Helper()
		if _, err := s.Accounts.UpdateIdentity(t.Context(), admin, false, second.GUID, nil,
			account.IdentityChange{Active: &active}); err != nil {
			t.Fatal(err)
		}
		c.advance(identity.FreshFor)
	}
	active(false)
	refused(t, id, dora)
	active(true)
	if got := signIn(t, id, dora); got.GUID != second.GUID {
		t.Errorf("got %+v", got)
	}
}

// The issuer may start later than we do, be away for a while, and change its keys.
func TestExternalIssuerAway(t *testing.T) {
	s := servicetest.Shared(t)
	p := newProvider(t)
	k := p.key(t, "1", true)
	var c clock
	id := replica(t, s, &c, p.issuer())
	away := func(authorization string) {
		t.Helper()
		if p, err := id.Authenticate(t.Context(), identity.ParseCredential(authorization), ""); !fault.Is(err,
			fault.Unavailable) || fault.Of(err).RetryAfter == 0 {
			t.Fatalf("signed in as %+v, %v", p, err)
		}
	}
	subject := unique("subject")
	p.set(true)
	away(p.sign(t, k, subject, nil))
	p.set(false)
	away(p.sign(t, k, subject, nil)) // it was asked a moment ago
	c.advance(time.Second)
	signIn(t, id, p.sign(t, k, subject, jwt.MapClaims{"jti": "1"}))
	// With the keys at hand it may be away.
	p.set(true)
	signIn(t, id, p.sign(t, k, subject, jwt.MapClaims{"jti": "2"}))
	p.set(false)
	// New keys are followed, and tokens with keys that nobody knows do not make us ask each time.
	next := p.key(t, "2", true)
	c.advance(time.Second)
	signIn(t, id, p.sign(t, next, subject, jwt.MapClaims{"jti": "3"}))
	p.mu.Lock()
	before := p.fetched
	p.mu.Unlock()
	unknown := p.key(t, "3", false)
	for n := range 50 {
		if _, err := id.Authenticate(t.Context(), identity.ParseCredential(p.sign(t, unknown, subject, jwt.MapClaims{"jti": n})),
			""); err == nil {
			t.Fatal("signed in by an unknown key")
		}
	}
	p.mu.Lock()
	if p.fetched > before {
		t.Errorf("the keys were asked for %d times", p.fetched-before)
	}
	p.mu.Unlock()
	// Away while its keys are needed: that is not the caller's fault.
	p.set(true)
	c.advance(time.Second)
	away(p.sign(t, unknown, subject, jwt.MapClaims{"jti": "4"}))
	away(p.sign(t, unknown, subject, jwt.MapClaims{"jti": "5"}))
}

// A token of another issuer is exchanged for one of ours, which does not outlive it.
func TestAssertion(t *testing.T) {
	s := servicetest.Shared(t)
	p := newProvider(t)
	k, unknown := p.key(t, "1", true), p.key(t, "2", false)
	var c clock
	id := replica(t, s, &c, p.issuer())
	public, err := id.Client(t.Context(), identity.PublicClient, "", "")
	if err != nil {
		t.Fatal(err)
	}
	name := unique("fran")
	sign := func(k key, changes jwt.MapClaims) string {
		return strings.TrimPrefix(p.sign(t, k, "subject", changes), "Bearer ")
	}
	exchange := func(client *identity.Client, assertion string, scopes ...string) (*identity.Tokens, error) {
		return id.GrantWithAssertion(t.Context(), client, assertion, scopes, "")
	}
	named := jwt.MapClaims{"preferred_username": name}
	long, err := exchange(public, sign(k, named))
	if err != nil || long.Refresh != "" || long.Lifetime != 20*time.Minute {
		t.Fatalf("got %+v, %v", long, err)
	}
	got := signIn(t, id, "Bearer "+string(long.Access))
	if got.Username != name || got.Origin != strings.TrimPrefix(p.URL, "http://") {
		t.Errorf("it signs in as %+v", got)
	}
	if same := signIn(t, id, p.sign(t, k, "subject", nil)); same.GUID != got.GUID {
		t.Errorf("the token itself signs in as %+v", same)
	}
	soon := c.now().Add(5 * time.Minute).Unix()
	short, err := exchange(public, sign(k, jwt.MapClaims{"exp": soon}), "cloud_controller.read")
	if err != nil || short.Lifetime > 5*time.Minute || fmt.Sprint(short.Scopes) != "[cloud_controller.read]" {
		t.Errorf("got %+v, %v", short, err)
	}
	for what, assertion := range map[string]string{
		"no token":            "x",
		"empty":               "",
		"expired":             sign(k, jwt.MapClaims{"exp": c.now().Add(-time.Minute).Unix()}),
		"another audience":    sign(k, jwt.MapClaims{"aud": "other"}),
		"another issuer":      sign(k, jwt.MapClaims{"iss": "https://login.example.org"}),
		"an unknown key":      sign(unknown, nil),
		"a token of our own":  string(long.Access),
		"with a wrong ending": sign(k, nil) + "x",
		"a personal one":      "rcp_x",
		"without a subject":   sign(k, jwt.MapClaims{"sub": ""}),
	} {
		if _, err := exchange(public, assertion); !errors.Is(err, identity.ErrGrant) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := exchange(public, sign(k, nil), "cloud_controller.admin"); !errors.Is(err, identity.ErrScope) {
		t.Errorf("a scope that the account does not have: %v", err)
	}
	if _, err := s.Accounts.UpdateIdentity(t.Context(), admin, false, got.GUID, nil,
		account.IdentityChange{Active: new(false)}); err != nil {
		t.Fatal(err)
	}
	if _, err := exchange(public, sign(k, nil)); !errors.Is(err, identity.ErrGrant) {
		t.Errorf("an inactive account: %v", err)
	}
	down := newProvider(t)
	away := replica(t, s, &c, down.issuer())
	downKey := down.key(t, "1", true)
	down.set(true)
	unverified := strings.TrimPrefix(down.sign(t, downKey, "x", nil), "Bearer ")
	if _, err := away.GrantWithAssertion(t.Context(), public, unverified, nil, ""); !fault.Is(err, fault.Unavailable) {
		t.Errorf("an issuer that does not answer: %v", err)
	}
}
