package identity_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"rolecall/internal/fault"
	"rolecall/internal/identity"
	"rolecall/internal/servicetest"
)

func TestForgedTokens(t *testing.T) {
	s := servicetest.Shared(t)
	username := unique("forged")
	guid := s.Admin(t, username)
	a, err := s.Accounts.ByGUID(t.Context(), guid)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := s.Identity.PublicKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	own := keys[0]
	good := func() jwt.MapClaims {
		return jwt.MapClaims{"iss": issuer, "sub": guid, "user_id": guid, "client_id": "cf", "aud": []string{"cloud_controller"},
			"jti": "1",
			"exp": time.Now().Add(time.Hour).Unix(), "scope": []string{"cloud_controller.admin"}, "rolecall_epoch": a.Epoch.String()}
	}
	with := func(changes jwt.MapClaims) jwt.MapClaims {
		c := good()
		maps.Copy(c, changes)
		return c
	}
	sign := func(c jwt.Claims) string {
		t.Helper()
		token, err := s.Identity.Sign(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	signIn(t, s.Identity, "Bearer "+sign(good())) // so it is the change that is refused below
	by := func(method jwt.SigningMethod, key any, kid string) string {
		t.Helper()
		token := jwt.NewWithClaims(method, good())
		if kid != "" {
			token.Header["kid"] = kid
		}
		signed, err := token.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(own.Key)
	if err != nil {
		t.Fatal(err)
	}
	inPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	parts := strings.Split(sign(good()), ".")
	altered := strings.Join([]string{parts[0], base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"` + issuer + `"}`)),
		parts[2]}, ".")
	for name, token := range map[string]string{
		"another issuer":                 sign(with(jwt.MapClaims{"iss": "https://evil.example/uaa/oauth/token"})),
		"no issuer":                      sign(with(jwt.MapClaims{"iss": nil})),
		"another audience":               sign(with(jwt.MapClaims{"aud": []string{"something_else"}})),
		"no audience":                    sign(with(jwt.MapClaims{"aud": nil})),
		"expired":                        sign(with(jwt.MapClaims{"exp": time.Now().Add(-time.Second).Unix()})),
		"never expires":                  sign(with(jwt.MapClaims{"exp": nil})),
		"not yet valid":                  sign(with(jwt.MapClaims{"nbf": time.Now().Add(time.Minute).Unix()})),
		"a refresh token":                sign(with(jwt.MapClaims{"jti": "1-r"})),
		"another epoch":                  sign(with(jwt.MapClaims{"rolecall_epoch": "00000000-0000-0000-0000-000000000000"})),
		"no epoch":                       sign(with(jwt.MapClaims{"rolecall_epoch": nil})),
		"nobody":                         sign(with(jwt.MapClaims{"user_id": "nobody"})),
		"a user as a client":             sign(with(jwt.MapClaims{"user_id": nil, "client_id": guid})),
		"neither user nor client":        sign(with(jwt.MapClaims{"user_id": nil, "client_id": nil})),
		"HMAC with the public key (PEM)": by(jwt.SigningMethodHS256, inPEM, own.ID),
		"HMAC with the public key (DER)": by(jwt.SigningMethodHS256, der, own.ID),
		"HMAC with the modulus":          by(jwt.SigningMethodHS256, own.Key.N.Bytes(), own.ID),
		"no signature":                   by(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, own.ID),
		"another key":                    by(jwt.SigningMethodRS256, stranger, own.ID),
		"another key without a name":     by(jwt.SigningMethodRS256, stranger, ""),
		"an unknown key":                 by(jwt.SigningMethodRS256, stranger, "rolecall-0000000000000000"),
		"altered":                        altered,
		"cut off":                        parts[0] + "." + parts[1] + ".",
		"two parts":                      parts[0] + "." + parts[1],
		"nonsense":                       "x.y.z",
		"empty":                          "",
	} {
		if p, err := s.Identity.Authenticate(t.Context(), identity.ParseCredential("Bearer "+token), ""); !fault.Is(err,
			fault.Unauthenticated) {
			t.Errorf("%s: signed in as %+v, %v", name, p, err)
		}
	}
	// A scope that the account does not have is not in the principal either, whatever the token says.
	p := signIn(t, s.Identity, "Bearer "+sign(
		with(jwt.MapClaims{"scope": []string{"scim.read", "cloud_controller.superuser"}})))
	if fmt.Sprint(p.Scopes) != "[scim.read]" {
		t.Errorf("it has %v", p.Scopes)
	}
	if p := signIn(t, s.Identity, "Bearer "+sign(with(jwt.MapClaims{"scope": nil}))); len(p.Scopes) != 0 {
		t.Errorf("without scopes it has %v", p.Scopes)
	}
}
