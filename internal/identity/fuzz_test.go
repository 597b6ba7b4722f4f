package identity_test

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/fault"
	"rolecall/internal/identity"
	"rolecall/internal/servicetest"
)

// FuzzSignIn: only the right credentials sign in, and any other is refused.
func FuzzSignIn(f *testing.F) {
	s := servicetest.Shared(f)
	username := unique("fuzz")
	guid := s.Admin(f, username)
	_, pat, err := s.Identity.CreatePersonalToken(f.Context(), s.Identity.Principal(f, guid, account.AdminScopes...),
		identity.NewPersonalToken{Name: "fuzz"})
	if err != nil {
		f.Fatal(err)
	}
	jwt := strings.TrimPrefix(bearer(f, s.Identity, username), "Bearer ")
	password := strings.TrimPrefix(basic(username, username+"-password"), "Basic ")
	fill := strings.NewReplacer("{jwt}", jwt, "{pat}", pat, "{basic}", password).Replace
	for _, seed := range []string{
		"", " ", "Basic", "Basic ", "Basic {basic}", "bAsIc  {basic} ", "Bearer {jwt}", "bearer\t{jwt}", "Bearer {pat}",
		"Bearer {basic}", "Basic {jwt}", "Digest x", "Bearer x.y.z", "Bearer {jwt}.", "Bearer {jwt}{jwt}", "Bearer  ",
		"Basic Og==", "Basic {basic}=",
		"Basic " + base64.StdEncoding.EncodeToString([]byte("a\x00:b")), "Basic cm9vdA==", "Bearer eyJhbGciOiJub25lIn0.e30.",
		"Bearer rolecall_pat_00000000000000000000000000000000_0000000000000000000000000000000000000000", "Bearer {pat}0",
		"Bearer rolecall_pat_",
		"Bearer eyJhbGciOiJSUzI1NiIsImtpZCI6IngifQ.e30.AA",
	} {
		if p, err := s.Identity.Authenticate(f.Context(), identity.ParseCredential(fill(seed)),
			"10.7.0.1"); (err == nil) != (seed == "Basic {basic}" || seed == "bAsIc  {basic} " || seed == "Bearer {jwt}" ||
			seed == "Bearer {pat}") || err == nil && p.GUID != guid {
			f.Errorf("%s: %v", seed, err)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, authorization string) {
		p, err := s.Identity.Authenticate(t.Context(), identity.ParseCredential(fill(authorization)), "10.7.0.1")
		if err != nil {
			if !fault.Is(err, fault.Unauthenticated) && !fault.Is(err, fault.TooMany) {
				t.Errorf("%q: %v", authorization, err)
			}
			return
		}
		scheme, credential, _ := strings.Cut(fill(authorization), " ")
		credential = strings.TrimSpace(credential)
		if decoded, err := base64.StdEncoding.DecodeString(credential); err == nil {
			name, rest, _ := strings.Cut(string(decoded), ":")
			credential = basic(strings.ToLower(name), rest)[len("Basic "):]
		}
		right := strings.EqualFold(scheme, "Basic") && credential == password ||
			strings.EqualFold(scheme, "Bearer") && (credential == jwt || credential == pat)
		if !right || p.GUID != guid {
			t.Errorf("%q signs in as %+v", authorization, p)
		}
	})
}

// FuzzToken: a token is good only when our key has signed it with the algorithm that we use, whatever it says of itself.
func FuzzToken(f *testing.F) {
	s := servicetest.Shared(f)
	guid := s.Admin(f, unique("fuzz"))
	a, err := s.Accounts.ByGUID(f.Context(), guid)
	if err != nil {
		f.Fatal(err)
	}
	kid, _, err := s.Identity.SignBytes(f.Context(), "")
	if err != nil {
		f.Fatal(err)
	}
	keys, err := s.Identity.PublicKeys(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(keys[0].Key)
	if err != nil {
		f.Fatal(err)
	}
	inPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		f.Fatal(err)
	}
	// sign signs in one of several ways, of which the first is ours.
	sign := func(t testing.TB, data string, by byte, signature string) []byte {
		mac := func(key []byte) []byte {
			h := hmac.New(sha256.New, key)
			h.Write([]byte(data))
			return h.Sum(nil)
		}
		switch by % 6 {
		case 0:
			_, signed, err := s.Identity.SignBytes(t.Context(), data)
			if err != nil {
				t.Fatal(err)
			}
			return signed
		case 1:
			return mac(inPEM)
		case 2:
			return mac(der)
		case 3:
			return nil
		case 4:
			sum := sha256.Sum256([]byte(data))
			signed, err := rsa.SignPKCS1v15(nil, stranger, crypto.SHA256, sum[:])
			if err != nil {
				t.Fatal(err)
			}
			return signed
		}
		return []byte(signature)
	}
	fill := strings.NewReplacer("{kid}", kid, "{guid}", guid, "{epoch}", a.Epoch.String(), "{issuer}", issuer, "{exp}",
		strconv.FormatInt(time.Now().Add(12*time.Hour).Unix(), 10)).Replace
	b64 := base64.RawURLEncoding.EncodeToString
	token := func(t testing.TB, header, claims string, by byte, signature string) string {
		data := b64([]byte(fill(header))) + "." + b64([]byte(fill(claims)))
		return data + "." + b64(sign(t, data, by, signature))
	}
	const (
		goodHeader = `{"alg":"RS256","kid":"{kid}","typ":"JWT"}`
		goodClaims = `{"iss":"{issuer}","sub":"{guid}","user_id":"{guid}","client_id":"cf","aud":["cloud_controller"],` +
			`"jti":"1","exp":{exp},"scope":["cloud_controller.admin"],"rolecall_epoch":"{epoch}"}`
	)
	if err := s.Identity.VerifyToken(f.Context(), token(f, goodHeader, goodClaims, 0, "")); err != nil {
		f.Fatal(err) // so it is the changes that are refused below
	}
	for by := range byte(6) {
		for _, header := range []string{goodHeader, `{"alg":"HS256","kid":"{kid}"}`, `{"alg":"none"}`,
			`{"alg":"None","kid":"{kid}"}`, `{"alg":"PS256","kid":"{kid}"}`, `{"alg":"RS256"}`, `{"alg":"RS256","kid":"x"}`,
			`{"alg":"RS256","kid":1,"jwk":{},"jku":"http://127.0.0.1:1/","crit":["x"]}`, `{"alg":null}`, `[]`, ``} {
			f.Add(header, goodClaims, by, "\x00")
		}
	}
	for _, claims := range []string{`{}`, `null`,
		`{"iss":"{issuer}","user_id":"{guid}","aud":"cloud_controller","exp":1e999,"rolecall_epoch":"{epoch}"}`,
		`{"iss":"https://login.example","sub":"{guid}","aud":["cloud_controller"],"exp":{exp}}`, `{"iss":1,"aud":{},"exp":"x"}`,
		`{"iss":"{issuer}","client_id":"{guid}","aud":["cloud_controller"],"exp":{exp},"rolecall_epoch":"{epoch}","jti":"1-r"}`} {
		f.Add(goodHeader, claims, byte(0), "")
	}
	f.Fuzz(func(t *testing.T, header, claims string, by byte, signature string) {
		p, err := s.Identity.Authenticate(t.Context(), identity.ParseCredential("Bearer "+token(t, header, claims, by, signature)),
			"10.7.0.2")
		if err != nil {
			if !fault.Is(err, fault.Unauthenticated) {
				t.Errorf("%s %s signed by %d: %v", header, claims, by, err)
			}
			return
		}
		var said struct{ Alg string }
		if err := json.Unmarshal([]byte(fill(header)), &said); err != nil || by%6 != 0 || said.Alg != "RS256" || p.GUID != guid ||
			!strings.Contains(fill(claims), a.Epoch.String()) {
			t.Errorf("%s %s signed by %d signs in as %+v", header, claims, by, p)
		}
	})
}

// FuzzParseOIDCIssuer: whoever is taken for an issuer is asked over HTTPS, for one audience, and is not ourselves.
func FuzzParseOIDCIssuer(f *testing.F) {
	for _, s := range []string{"", "https://login.example.org,audience=rolecall",
		"https://login.example.org/realms/x,audience=a,username=email", "http://localhost:1,audience=a",
		"http://example.org,audience=a", "https://u:p@h,audience=a", "https://h?q,audience=a", "https://h#f,audience=a",
		"https://uaa,audience=a", "https://h,audience=", "https://h,audience=a,audience=b", "https://h,x=y", "https://h",
		"https:///x,audience=a", "HTTPS://h,audience=a", "http://127.1.2.3,audience=a", "http://[::1]:80,audience=a",
		"https://h:x,audience=a", "https://h,client-id=a,client-secret-file=/f,name=corp,label=team:groups:rc-,label=g.*:roles",
		"https://h,audience=a,label=a", "https://h,audience=a,label=a:b,label=a:c", "https://h,audience=a,name=a/b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		i, err := identity.ParseOIDCIssuer(text)
		if err != nil {
			return
		}
		u, err := url.Parse(i.URL)
		if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			t.Fatalf("%q has the URL %q: %v", text, i.URL, err)
		}
		if ip := net.ParseIP(u.Hostname()); u.Scheme != "https" && u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
			t.Errorf("%q is asked over %s", text, u.Scheme)
		}
		if i.Audience == "" && i.ClientID == "" || i.Name == "" || i.Origin() == "" || i.Origin() == account.LocalOrigin {
			t.Errorf("%q is %+v of the origin %q", text, i, i.Origin())
		}
		if i.Links {
			return // its setting has no value to write again
		}
		again := i.URL + ",name=" + i.Name
		for name, value := range map[string]string{"audience": i.Audience, "client-id": i.ClientID,
			"client-secret-file": i.ClientSecretFile, "username": i.UsernameClaim} {
			if value != "" {
				again += "," + name + "=" + value
			}
		}
		for _, l := range i.Labels {
			again += ",label=" + l.Key + ":" + l.Claim + ":" + l.Prefix
		}
		if j, err := identity.ParseOIDCIssuer(again); issuerName(i) && (err != nil || !reflect.DeepEqual(i, j)) {
			t.Errorf("%q is %+v, %q is %+v: %v", text, i, again, j, err)
		}
		if identity.CheckOIDCIssuers(i.URL, []identity.OIDCIssuer{i}) == nil {
			t.Errorf("%q may stand beside itself", text)
		}
	})
}

// issuerName reports whether the name, which may be a host, can be given as well.
func issuerName(i identity.OIDCIssuer) bool {
	_, err := identity.ParseOIDCIssuer("https://h,audience=a,name=" + i.Name)
	return err == nil
}
