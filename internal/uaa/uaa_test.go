package uaa_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/apitest"
	"rolecall/internal/door"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
	"rolecall/internal/uaa"
	"rolecall/internal/web"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// fixture is a server of the dialect whose every exchange is held against the document.
type fixture struct {
	*servicetest.Service
	*apitest.Client
	// address is where the requests come from. Each fixture has its own, so that failed sign-ins of one test do not hold up
	// another.
	address string
}

var addresses atomic.Int64

func newFixture(t testing.TB) *fixture { return fixtureOn(t, servicetest.Shared(t), 10_000) }

func fixtureOn(t testing.TB, s *servicetest.Service, perSecond float64) *fixture {
	t.Helper()
	client := apitest.Load(t, "uaa.yaml").Serve(t, &web.Edge{
		Handler:        newAPI(s, perSecond),
		Log:            slog.New(slog.NewTextHandler(s.Log, nil)),
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	})
	return &fixture{s, client, fmt.Sprintf("10.0.%d.%d", addresses.Add(1)/256, addresses.Load()%256)}
}

func newAPI(s *servicetest.Service, perSecond float64) *door.Handler {
	return (&uaa.API{
		Accounts:  s.Accounts,
		Identity:  s.Identity,
		PublicURL: servicetest.PublicURL,
		Door:      s.Door(perSecond),
	}).Handler()
}

// answer is a response, its body read.
type answer struct{ apitest.Answer }

// send sends a request below the prefix; headers are "Name: value".
func (f *fixture) send(t testing.TB, method, path, body string, headers ...string) answer {
	t.Helper()
	return answer{f.Send(t, method, uaa.Prefix+path, body, append(headers, "X-Forwarded-For: "+f.address)...)}
}

// as sends a request with a token.
func (f *fixture) as(t testing.TB, token, method, path, body string, headers ...string) answer {
	t.Helper()
	return f.send(t, method, path, body, append(headers, "Authorization: Bearer "+token)...)
}

// want fails unless the answer has the status, and for a failure the error word.
func (a answer) want(t testing.TB, status int, word string) answer {
	t.Helper()
	if a.Status != status {
		t.Fatalf("got %d, want %d: %s", a.Status, status, a.Body)
	}
	if status >= 400 {
		var e struct {
			Error string `json:"error"`
		}
		a.Into(t, &e)
		if e.Error != word {
			t.Fatalf("got %s, want %s: %s", e.Error, word, a.Body)
		}
	}
	return a
}

// root is a token of an admin.
func (f *fixture) root(t testing.TB) string { return f.tokenOf(t, "root") }

func (f *fixture) tokenOf(t testing.TB, username string) string {
	t.Helper()
	token, err := f.Identity.MintFor(t.Context(), username, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// holder makes an account with the scopes and returns a token of it.
func (f *fixture) holder(t testing.TB, scopes ...string) (token, guid string) {
	t.Helper()
	username := unique("holder")
	guid = f.Account(t, username, scopes, nil)
	return f.tokenOf(t, username), guid
}

func unique(prefix string) string { return prefix + "-" + uuid.NewString()[:8] }

const form = "Content-Type: application/x-www-form-urlencoded"

func basic(id, secret string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(id+":"+secret))
}

// cf is how the command line authenticates itself.
var cf = basic("cf", "")

// token asks for a token; the parameters are name, value, …
func (f *fixture) token(t testing.TB, authorization string, parameters ...string) answer {
	t.Helper()
	values := url.Values{}
	for i := 0; i < len(parameters); i += 2 {
		values.Set(parameters[i], parameters[i+1])
	}
	headers := []string{form}
	if authorization != "" {
		headers = append(headers, authorization)
	}
	return f.send(t, "POST", "/oauth/token", values.Encode(), headers...)
}

type token struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"`
	RefreshToken string `json:"refresh_token"`
	ExpiresIn    int    `json:"expires_in"`
	Scope        string `json:"scope"`
	ID           string `json:"jti"`
}

func (a answer) token(t testing.TB) (tok token) {
	t.Helper()
	a.want(t, 200, "").Into(t, &tok)
	return tok
}

// claims reads a token's claims without verifying it, as cf does.
func (tok token) claims(t testing.TB) map[string]any {
	t.Helper()
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(tok.AccessToken, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

type user struct {
	ID   string
	Meta struct {
		Version               int
		Created, LastModified string
	}
	UserName string
	Name     struct{ FamilyName, GivenName string }
	Emails   []struct {
		Value   string
		Primary bool
	}
	Groups               []struct{ Value, Display string }
	Active, Verified     bool
	Origin               string
	PasswordLastModified string
}

func (a answer) user(t testing.TB) (u user) {
	t.Helper()
	a.Into(t, &u)
	return u
}

func object(fields map[string]any) string {
	b, _ := json.Marshal(fields)
	return string(b)
}

// person makes a user through the API.
func (f *fixture) person(t testing.TB, username string) user {
	t.Helper()
	return f.as(t, f.root(t), "POST", "/Users", object(
		map[string]any{"userName": username, "password": username + "-password"})).
		want(t, 201, "").user(t)
}

// program makes a client through the API, whose secret is its id and "-secret".
func (f *fixture) program(t testing.TB, fields map[string]any) (id string) {
	t.Helper()
	id = unique("program")
	all := map[string]any{"client_id": id, "client_secret": id + "-secret",
		"authorized_grant_types": []string{"client_credentials"},
		"authorities":            []string{account.ScopeRead}}
	for k, v := range fields {
		all[k] = v
	}
	f.as(t, f.root(t), "POST", "/oauth/clients", object(all)).want(t, 201, "")
	return id
}

// isPlatformUser reports whether /v3 shows the account.
func (f *fixture) isPlatformUser(t testing.TB, guid string) bool {
	t.Helper()
	a, err := f.Accounts.ByGUID(t.Context(), guid)
	if err != nil {
		t.Fatal(err)
	}
	return !a.PlatformCreatedAt.IsZero()
}
