package identity_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"rolecall/internal/account"
	"rolecall/internal/fault"
	"rolecall/internal/identity"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

// The cost of a password in production, for a known account and for an unknown one.
func TestPasswordCost(t *testing.T) {
	s := servicetest.Shared(t)
	id, err := identity.New(t.Context(), s.DB, identity.Config{Issuer: issuer, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	derivations := identity.CountDerivations(t, identity.PasswordCost{Memory: 19456, Passes: 2})
	hash, err := id.Hash(t.Context(), "a password")
	if form := regexp.MustCompile(`^\$argon2id\$v=19\$m=19456,t=2,p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$`); err != nil ||
		!form.MatchString(hash) {
		t.Errorf("stored is %s, %v", hash, err)
	}
	refused(t, id, basic(unique("nobody"), "wrong"))
	if n := derivations.Load(); n != 2 {
		t.Errorf("argon2id was computed %d times, want 2", n)
	}
}

// TestCheckPassword: the rule is for new passwords. Who has a shorter one signs in with it.
func TestCheckPassword(t *testing.T) {
	s := servicetest.Shared(t)
	for password, says := range map[string]string{
		"":                                "10 to 255 characters, this one 0.",
		"nine char":                       "10 to 255 characters, this one 9.",
		"ñññññ":                           "10 to 255 characters, this one 5.", // of ten bytes
		strings.Repeat("x", 256):          "10 to 255 characters, this one 256.",
		"a\x00password":                   "control characters",
		"a password\n":                    "control characters",
		"a password\u0085":                "control characters",
		"\xff\xff\xff\xff a password":     "UTF-8",
		"ten chars.":                      "",
		"ñññññ.....":                      "",
		strings.Repeat("\U0001F511", 255): "",
	} {
		_, err := s.Identity.Hash(t.Context(), password)
		if says == "" && err != nil || says != "" && (!fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), says)) {
			t.Errorf("%q: got %v, want %q", password, err, says)
		}
		username := unique("by-bootstrap")
		if _, _, err := s.Identity.Bootstrap(t.Context(), username, password); (err == nil) != (says == "") {
			t.Errorf("bootstrap with %q: %v", password, err)
		}
	}
	for _, name := range []string{"a:b", " a", "admin\u200b", ""} {
		if _, _, err := s.Identity.Bootstrap(t.Context(), name, "a password"); !fault.Is(err, fault.Invalid) {
			t.Errorf("bootstrap of %q: %v", name, err)
		}
	}
	username := unique("old")
	guid := s.Admin(t, username)
	if _, err := s.DB.Pool.Exec(t.Context(), `UPDATE accounts SET password_hash = $2 WHERE guid = $1`, guid,
		s.Identity.HashUnchecked(t, "short")); err != nil {
		t.Fatal(err)
	}
	signIn(t, s.Identity, basic(username, "short"))
}

// TestBasicCredentials: what RFC 7617 says of the scheme, and nothing more lenient.
func TestBasicCredentials(t *testing.T) {
	s := servicetest.Shared(t)
	username := unique("jürgen 🔑")
	const password = "pä:ss:word €"
	guid, _, err := s.Identity.Bootstrap(t.Context(), username, password)
	if err != nil {
		t.Fatal(err)
	}
	value := base64.StdEncoding.EncodeToString([]byte(username + ":" + password))
	for _, scheme := range []string{"Basic ", "basic ", "BASIC ", "bAsIc   "} {
		if p := signIn(t, s.Identity, scheme+value); p.GUID != guid {
			t.Errorf("%q signs in as %+v", scheme, p)
		}
	}
	latin1 := func(text string) string {
		var b []byte
		for _, r := range text {
			b = append(b, byte(r))
		}
		return string(b)
	}
	for name, authorization := range map[string]string{
		"no colon":        "Basic " + base64.StdEncoding.EncodeToString([]byte(username+password)),
		"no user name":    basic("", password),
		"no password":     basic(username, ""),
		"Latin-1":         basic(latin1(username), latin1(password)),
		"a byte too many": basic(username, password+"\x00"),
		"no base64":       "Basic " + username + ":" + password,
		"no padding":      "Basic " + base64.RawStdEncoding.EncodeToString([]byte(username+":"+password+"1")),
		"no space":        "Basic" + value,
		"another scheme":  "Digest " + value,
	} {
		if p, err := s.Identity.Authenticate(t.Context(), identity.ParseCredential(authorization), unique(name)); !fault.Is(err,
			fault.Unauthenticated) {
			t.Errorf("%s: signed in as %+v, %v", name, p, err)
		}
	}
}

// Whoever guesses learns nothing from how long the answer takes: each costs one argon2id for each secret, which is all but
// a thousandth of the time. Counting it is exact where a clock on a busy machine is not.
func TestTheSameWorkForEverybody(t *testing.T) {
	s := servicetest.Shared(t)
	known, inactive := unique("known"), unique("inactive")
	s.Admin(t, known)
	guid := s.Admin(t, inactive)
	if _, err := s.Accounts.UpdateIdentity(t.Context(), admin, false, guid, nil,
		account.IdentityChange{Active: new(false)}); err != nil {
		t.Fatal(err)
	}
	bare, err := s.Accounts.CreateUser(t.Context(), admin, account.IdentityChange{Username: new(unique("bare"))}, nil)
	if err != nil {
		t.Fatal(err)
	}
	derivations := identity.CountDerivations(t, servicetest.PasswordCost)
	password := func(username, password string) func(address string) error {
		return func(address string) error {
			_, err := s.Identity.VerifyPassword(t.Context(), username, password, address)
			return err
		}
	}
	client := func(id string, secrets ...string) func(address string) error {
		return func(address string) error {
			_, err := s.Identity.Client(t.Context(), id, address, secrets...)
			return err
		}
	}
	messages := map[string]bool{}
	for name, x := range map[string]struct {
		try   func(address string) error
		costs int64
	}{
		"a wrong password":                       {password(known, "wrong"), 1},
		"an unknown user":                        {password(unique("nobody"), "wrong"), 1},
		"a user without a password":              {password(bare.Username, "wrong"), 1},
		"a user without a password, and none":    {password(bare.Username, ""), 1},
		"no user name":                           {password("", ""), 1},
		"a user that cannot be":                  {password("a\x00b", "wrong"), 1},
		"the right password of an inactive user": {password(inactive, inactive+"-password"), 1},
		"a wrong password of an inactive user":   {password(inactive, "wrong"), 1},
		"a long password":                        {password(known, strings.Repeat("x", 10_000)), 1},
		"an unknown client":                      {client(unique("nobody"), "wrong"), 1},
		"an unknown client in two readings":      {client(unique("nobody"), "a+b", "a b"), 2},
		"a user as a client":                     {client(guid, inactive+"-password"), 1},
	} {
		before := derivations.Load()
		err := x.try("10.1.1.1")
		if cost := derivations.Load() - before; cost != x.costs {
			t.Errorf("%s: argon2id was computed %d times, want %d", name, cost, x.costs)
		}
		if !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s: %v", name, err)
		}
		messages[fault.Of(err).Message] = true
	}
	if len(messages) != 1 {
		t.Errorf("the answers differ: %v", messages)
	}
}

// What a token says of its own key is not followed, and the name of the key is only ever compared.
func TestKeyOfTheTokensChoice(t *testing.T) {
	s := servicetest.Shared(t)
	username := unique("chosen")
	guid := s.Admin(t, username)
	a, err := s.Accounts.ByGUID(t.Context(), guid)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := s.Identity.PublicKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	kid := keys[0].ID
	var asked atomic.Int64
	jwk := map[string]string{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": kid,
		"n": base64.RawURLEncoding.EncodeToString(theirs.N.Bytes()),
		"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(theirs.E)).Bytes())}
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	t.Cleanup(server.Close)
	sign := func(header map[string]any) string {
		token := jwt.NewWithClaims(jwt.SigningMethodRS256,
			jwt.MapClaims{"iss": issuer, "sub": guid, "user_id": guid, "client_id": "cf", "aud": []string{"cloud_controller"},
				"jti": "1",
				"exp": time.Now().Add(time.Hour).Unix(), "scope": []string{"cloud_controller.admin"},
				"rolecall_epoch": a.Epoch.String()})
		token.Header["kid"] = kid
		for name, value := range header {
			token.Header[name] = value
		}
		signed, err := token.SignedString(theirs)
		if err != nil {
			t.Fatal(err)
		}
		return "Bearer " + signed
	}
	for name, header := range map[string]map[string]any{
		"jku":                 {"jku": server.URL + "/keys"},
		"x5u":                 {"x5u": server.URL + "/certificate"},
		"jwk":                 {"jwk": jwk},
		"x5c":                 {"x5c": []string{base64.StdEncoding.EncodeToString(theirs.N.Bytes())}},
		"kid as SQL":          {"kid": "' OR true --"},
		"kid as more SQL":     {"kid": kid + "'; DELETE FROM signing_keys; --"},
		"kid as a pattern":    {"kid": "%"},
		"kid as a path":       {"kid": "../../../../dev/null"},
		"kid as a URL":        {"kid": server.URL + "/kid"},
		"kid as a number":     {"kid": 0},
		"kid as null":         {"kid": nil},
		"kid as a list":       {"kid": []string{kid}},
		"kid with a NUL":      {"kid": kid + "\x00"},
		"kid of great length": {"kid": strings.Repeat("k", 1<<20)},
		"another type":        {"typ": "at+jwt", "cty": "JWT"},
		"alg in another case": {"alg": "rs256"},
		"alg as a list":       {"alg": []string{"RS256"}},
	} {
		if p, err := s.Identity.Authenticate(t.Context(), identity.ParseCredential(sign(header)), ""); !fault.Is(err,
			fault.Unauthenticated) {
			t.Errorf("%s: signed in as %+v, %v", name, p, err)
		}
	}
	if n := asked.Load(); n > 0 {
		t.Errorf("%d requests were sent to where the token said", n)
	}
	signIn(t, s.Identity, bearer(t, s.Identity, username)) // the keys are there, and good
}

// A deployment with the same issuer, accounts and names of keys, such as one made of a copy for a test that was given keys
// of its own: its tokens are worth nothing here.
func TestTokenOfAnotherDeployment(t *testing.T) {
	s, other := servicetest.Shared(t), servicetest.New(t, pgtest.Shared(t))
	username := unique("both")
	guid := s.Admin(t, username)
	other.Admin(t, username)
	a, err := s.Accounts.ByGUID(t.Context(), guid)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.DB.Pool.Exec(t.Context(), `UPDATE accounts SET guid = $1, epoch = $2 WHERE username = $3`, guid, a.Epoch,
		username); err != nil {
		t.Fatal(err)
	}
	// Both have the signing key of servicetest.
	if _, err := other.DB.Pool.Exec(t.Context(), `DELETE FROM signing_keys`); err != nil {
		t.Fatal(err)
	}
	elsewhere := replica(t, other, &clock{})
	theirs := bearer(t, elsewhere, username)
	signIn(t, elsewhere, theirs)
	refused(t, s.Identity, theirs)
	// Its key under the name of ours.
	keys, err := s.Identity.PublicKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := jwt.NewParser().ParseUnverified(strings.TrimPrefix(theirs, "Bearer "), jwt.MapClaims{})
	if err != nil {
		t.Fatal(err)
	}
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	token.Header["kid"] = keys[0].ID
	renamed, err := token.SignedString(private)
	if err != nil {
		t.Fatal(err)
	}
	refused(t, s.Identity, "Bearer "+renamed)
	// A personal access token is known by its hash, in the one control database that has it.
	_, secret := personal(t, other.Identity, guid, identity.NewPersonalToken{})
	signIn(t, other.Identity, secret)
	refused(t, s.Identity, secret)
}

// Each kind of token is good for what it is for, and for nothing else.
func TestTokensAreNotMixedUp(t *testing.T) {
	s := servicetest.Shared(t)
	username := unique("mixed")
	guid := s.Admin(t, username)
	client, err := s.Identity.Client(t.Context(), identity.PublicClient, "10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := s.Identity.GrantWithPassword(t.Context(), client, username, username+"-password", nil, "10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	access, refresh := string(tokens.Access), string(tokens.Refresh)
	_, secret := personal(t, s.Identity, guid, identity.NewPersonalToken{})
	secret = strings.TrimPrefix(secret, "Bearer ")
	for name, credential := range map[string]string{
		"a refresh token as a bearer token":           "Bearer " + refresh,
		"the id of a token":                           "Bearer " + tokens.ID,
		"an access token as a password":               basic(username, access),
		"a personal token as a password":              basic(username, secret),
		"a refresh token as a password":               basic(username, refresh),
		"a password as a bearer token":                "Bearer " + username + "-password",
		"a personal token in capitals":                "Bearer " + strings.ToUpper(secret),
		"a personal token with something after it":    "Bearer " + secret + "0",
		"the first part of a personal token":          "Bearer " + secret[:len(secret)-40],
		"two tokens":                                  "Bearer " + access + " " + access,
		"two tokens as a list":                        "Bearer " + access + ",Bearer " + access,
		"an access token whose end has been replaced": "Bearer " + access[:len(access)-4] + "AAAA",
	} {
		if p, err := s.Identity.Authenticate(t.Context(), identity.ParseCredential(credential), ""); !fault.Is(err,
			fault.Unauthenticated) {
			t.Errorf("%s: signed in as %+v, %v", name, p, err)
		}
	}
	for name, token := range map[string]string{"an access token": access, "a personal token": secret, "an id": tokens.ID,
		"nothing": ""} {
		if _, err := s.Identity.GrantWithRefresh(t.Context(), client, token, nil, "10.0.0.1"); !errors.Is(err, identity.ErrGrant) {
			t.Errorf("%s as a refresh token: %v", name, err)
		}
	}
	if _, err := s.Identity.GrantWithRefresh(t.Context(), client, refresh, nil, "10.0.0.1"); err != nil {
		t.Error(err)
	}
}
