package identity_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/fault"
	"rolecall/internal/identity"
	"rolecall/internal/servicetest"
)

// inConsole is a new account of the default scopes, in a session of the console.
func inConsole(t testing.TB, s *servicetest.Service, id *identity.Service) (p *account.Principal, end func() error) {
	t.Helper()
	username := unique("person")
	s.Account(t, username, account.DefaultScopes, nil)
	a, err := id.VerifyPassword(t.Context(), username, username+"-password", "10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	token, err := id.StartSession(t.Context(), a, time.Now(), "10.0.0.1", "a browser")
	if err != nil {
		t.Fatal(err)
	}
	p, err = id.Authenticate(t.Context(), identity.Credential{Scheme: identity.Session, Value: token}, "10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	p.Address = "10.0.0.1"
	return p, func() error { return id.EndOwnSession(t.Context(), token) }
}

const (
	redirectURI = "http://127.0.0.1:43210/callback"
	verifier    = "a-verifier-of-at-least-forty-three-characters-0"
)

func challengeOf(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// asked are the parameters of the authorization endpoint, changed as said; "": one is missing.
func asked(changes ...string) url.Values {
	v := url.Values{"response_type": {"code"}, "client_id": {"rolecall"}, "redirect_uri": {redirectURI}, "state": {"the state"},
		"code_challenge": {challengeOf(verifier)}, "code_challenge_method": {"S256"}}
	for i := 0; i < len(changes); i += 2 {
		if v.Set(changes[i], changes[i+1]); changes[i+1] == "" {
			v.Del(changes[i])
		}
	}
	return v
}

// authorized is the code that the principal gives a client.
func authorized(t testing.TB, id *identity.Service, p *account.Principal, changes ...string) string {
	t.Helper()
	a, err := identity.ReadAuthorization(asked(changes...))
	if err != nil {
		t.Fatal(err)
	}
	location, err := id.Authorize(t.Context(), p, a)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(location)
	if err != nil || !strings.HasPrefix(location, a.RedirectURI+"?") || u.Query().Get("state") != "the state" ||
		u.Query().Get("code") == "" {
		t.Fatalf("the browser goes to %q, %v", location, err)
	}
	return u.Query().Get("code")
}

func own(t testing.TB, id *identity.Service) *identity.Client {
	t.Helper()
	c, err := id.Client(t.Context(), identity.OwnClient, "10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func proofOf(code string) identity.CodeProof {
	return identity.CodeProof{Code: code, Verifier: verifier, RedirectURI: redirectURI}
}

// rowsOf are the actions of the rows about an account, with their outcomes and details.
func rowsOf(t testing.TB, s *servicetest.Service, guid, action string) (details []string) {
	t.Helper()
	for _, row := range s.AuditRows(t, guid) {
		if row.Action == action {
			details = append(details, row.Outcome+" "+row.Detail)
		}
	}
	return details
}

func TestReadAuthorization(t *testing.T) {
	for _, uri := range []string{redirectURI, "http://[::1]:1/callback", "http://localhost:65535/callback"} {
		a, err := identity.ReadAuthorization(asked("redirect_uri", uri, "client_id", "cf"))
		if err != nil || a.RedirectURI != uri {
			t.Errorf("%s: %v", uri, err)
		}
	}
	// The browser must not be sent to who is not known to be the client.
	for _, changes := range [][]string{
		{"client_id", ""}, {"client_id", "deploy"}, {"client_id", "CF"},
		{"redirect_uri", ""},
		{"redirect_uri", "https://evil.example/callback"},
		{"redirect_uri", "http://evil.example:80/callback"},
		{"redirect_uri", "http://127.0.0.1.evil.example:80/callback"},
		{"redirect_uri", "http://127.0.0.1:80@evil.example/callback"},
		{"redirect_uri", "http://user@127.0.0.1:80/callback"},
		{"redirect_uri", "https://127.0.0.1:80/callback"},
		{"redirect_uri", "http://127.0.0.1/callback"},
		{"redirect_uri", "http://127.0.0.1:0/callback"},
		{"redirect_uri", "http://127.0.0.1:80/callback/.."},
		{"redirect_uri", "http://127.0.0.1:80/callback?a=b"},
		{"redirect_uri", "http://127.0.0.1:80/callback#a"},
		{"redirect_uri", "http://127.0.0.1:80/callback\n"},
		{"redirect_uri", "http://127.0.0.2:80/callback"},
		{"redirect_uri", "HTTP://127.0.0.1:80/callback"},
	} {
		if a, err := identity.ReadAuthorization(asked(changes...)); a != nil || !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: got %+v, %v", changes, a, err)
		}
	}
	twice := asked()
	twice.Add("redirect_uri", "https://evil.example/callback")
	if a, err := identity.ReadAuthorization(twice); a != nil || !fault.Is(err, fault.Malformed) {
		t.Errorf("a redirect URI given twice: %+v, %v", a, err)
	}
	for word, all := range map[string][][]string{
		"unsupported_response_type": {{"response_type", ""}, {"response_type", "token"}, {"response_type", "code token"}},
		"invalid_request": {
			{"state", ""}, {"code_challenge", ""}, {"code_challenge_method", ""},
			{"code_challenge_method", "plain", "code_challenge", verifier},
			{"code_challenge", "too-short"}, {"code_challenge", challengeOf(verifier) + "="},
		},
	} {
		for _, changes := range all {
			a, err := identity.ReadAuthorization(asked(changes...))
			if a == nil || !fault.Is(err, fault.Invalid) {
				t.Errorf("%q: got %+v, %v", changes, a, err)
				continue
			}
			u, err := url.Parse(a.Refusal(err))
			if err != nil || u.Query().Get("error") != word || u.Query().Get("error_description") == "" || u.Query().Has("code") ||
				!strings.HasPrefix(a.Refusal(err), redirectURI+"?") || u.Query().Get("state") != asked(changes...).Get("state") {
				t.Errorf("%q: the client gets %s, %v", changes, u, err)
			}
		}
	}
}

// TestCodeGrant: a person in the console gives a command line a sign-in, which is as one with a password.
func TestCodeGrant(t *testing.T) {
	s := servicetest.Shared(t)
	var c clock
	id := replica(t, s, &c)
	client := own(t, id)
	p, _ := inConsole(t, s, id)
	tokens, err := id.GrantWithCode(t.Context(), client, proofOf(authorized(t, id, p)), "10.0.0.2")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(tokens.Scopes, account.DefaultScopes) || tokens.Lifetime != 20*time.Minute {
		t.Errorf("got %+v", tokens)
	}
	got := signIn(t, id, "Bearer "+string(tokens.Access))
	if got.GUID != p.GUID || got.Session == p.Session || got.Family == [16]byte{} {
		t.Errorf("it signs in as %+v", got)
	}
	if !mayRefresh(t, id, client, string(tokens.Refresh)) || mayRefresh(t, id, publicClient(t, id), string(tokens.Refresh)) {
		t.Error("the refresh token is not that of the client alone")
	}
	code := authorized(t, id, p, "scope", "cloud_controller.read openid")
	narrow, err := id.GrantWithCode(t.Context(), client, proofOf(code), "")
	if err != nil || !slices.Equal(narrow.Scopes, []string{account.ScopeRead}) {
		t.Errorf("got %+v, %v", narrow, err)
	}
	a, err := identity.ReadAuthorization(asked("scope", account.ScopeAdmin))
	if err != nil {
		t.Fatal(err)
	}
	if location, err := id.Authorize(t.Context(), p, a); !errors.Is(err, identity.ErrScope) ||
		!strings.Contains(a.Refusal(err), "error=invalid_scope") {
		t.Errorf("a scope that the person does not have: %q, %v", location, err)
	}
	denied, err := id.Deny(t.Context(), p, a)
	if err != nil || !strings.Contains(denied, "error=access_denied") || !strings.Contains(denied, "state=the+state") {
		t.Errorf("a denial goes to %q, %v", denied, err)
	}

	session := `"session": "` + p.Session.String() + `"`
	for action, want := range map[string][]string{
		audit.ApproveLogin: {"done", `"client": "rolecall"`, `"grant": "authorization_code"`, session, `"via": "console"`},
		audit.CreateLogin:  {"done", `"client": "rolecall"`, `"grant": "authorization_code"`},
		audit.DenyLogin:    {"done", `"client": "rolecall"`, session},
	} {
		rows := rowsOf(t, s, p.GUID, action)
		if len(rows) == 0 {
			t.Errorf("there is no row %s", action)
			continue
		}
		for _, part := range want {
			if !strings.Contains(rows[0], part) {
				t.Errorf("%s: %s lacks %s", action, rows[0], part)
			}
		}
	}
}

// TestCodeIsRefused: a code is used up by a request that is refused.
func TestCodeIsRefused(t *testing.T) {
	s := servicetest.Shared(t)
	var c clock
	id := replica(t, s, &c)
	client, cf := own(t, id), publicClient(t, id)
	refuses := func(what string, with *identity.Client, proof identity.CodeProof) {
		t.Helper()
		tokens, err := id.GrantWithCode(t.Context(), with, proof, "")
		if !errors.Is(err, identity.ErrGrant) || tokens != nil {
			t.Errorf("%s: got %+v, %v", what, tokens, err)
		}
	}
	p, _ := inConsole(t, s, id)
	for what, change := range map[string]func(*identity.CodeProof){
		"another verifier":            func(p *identity.CodeProof) { p.Verifier = strings.ToUpper(verifier) },
		"the challenge as a verifier": func(p *identity.CodeProof) { p.Verifier = challengeOf(verifier) },
		"no verifier":                 func(p *identity.CodeProof) { p.Verifier = "" },
		"another redirect URI":        func(p *identity.CodeProof) { p.RedirectURI = "http://127.0.0.1:43211/callback" },
	} {
		good := proofOf(authorized(t, id, p))
		proof := good
		change(&proof)
		refuses(what, client, proof)
		refuses("after "+what, client, good)
	}
	good := proofOf(authorized(t, id, p))
	refuses("another client", cf, good)
	refuses("after another client", client, good)
	good = proofOf(authorized(t, id, p))
	c.advance(time.Minute)
	refuses("after a minute", client, good)
	refuses("no code", client, proofOf(""))
	refuses("an unknown code", client, proofOf(strings.Repeat("0", 64)))
	denied := 0
	for _, row := range rowsOf(t, s, p.GUID, audit.CreateLogin) {
		if strings.HasPrefix(row, "denied") {
			denied++
		}
	}
	if denied != 6 {
		t.Errorf("%d refusals are in the audit log", denied)
	}

	x := signedIn(t, s)
	if _, err := x.GrantWithCode(t.Context(), x.client, proofOf(authorized(t, x.Service, p)), ""); !errors.Is(err,
		identity.ErrClientGrant) {
		t.Errorf("an OAuth client: %v", err)
	}
}

// TestCodeUsedTwice: the second use of a code ends what the first one gave, on every replica.
func TestCodeUsedTwice(t *testing.T) {
	s := servicetest.Shared(t)
	var c clock
	one, two := replica(t, s, &c), replica(t, s, &c)
	client := own(t, one)
	p, _ := inConsole(t, s, one)
	stays, err := one.GrantWithCode(t.Context(), client, proofOf(authorized(t, one, p)), "")
	if err != nil {
		t.Fatal(err)
	}
	code := authorized(t, one, p)
	first, err := one.GrantWithCode(t.Context(), client, proofOf(code), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []*identity.Service{one, two} {
		signIn(t, id, "Bearer "+string(first.Access))
	}
	c.advance(30 * time.Minute) // long after it has expired
	stays, err = one.GrantWithRefresh(t.Context(), client, string(stays.Refresh), nil, "")
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := one.GrantWithRefresh(t.Context(), client, string(first.Refresh), nil, "")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // whatever proves it
		if tokens, err := two.GrantWithCode(t.Context(), client, identity.CodeProof{Code: code}, "10.0.0.6"); !errors.Is(err,
			identity.ErrGrant) || tokens != nil {
			t.Fatalf("got %+v, %v", tokens, err)
		}
	}
	c.advance(identity.FreshFor)
	for _, id := range []*identity.Service{one, two} {
		refused(t, id, "Bearer "+string(fresh.Access))
		signIn(t, id, "Bearer "+string(stays.Access))
	}
	if mayRefresh(t, one, client, string(first.Refresh)) || !mayRefresh(t, one, client, string(stays.Refresh)) {
		t.Error("not the tokens of the code have ended, and they alone")
	}
	if rows := rowsOf(t, s, p.GUID, audit.RevokeTokens); len(rows) != 1 || !strings.Contains(rows[0], "used again") {
		t.Errorf("the audit log has %q", rows)
	}
}

// TestCodeUsedAtOnce: of uses at the same time one gets tokens at most, and nothing of them is left.
func TestCodeUsedAtOnce(t *testing.T) {
	s := servicetest.Shared(t)
	var c clock
	id := replica(t, s, &c)
	client := own(t, id)
	p, _ := inConsole(t, s, id)
	for range 10 {
		code := authorized(t, id, p)
		var mu sync.Mutex
		var given []*identity.Tokens
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				tokens, err := id.GrantWithCode(t.Context(), client, proofOf(code), "")
				if err != nil && !errors.Is(err, identity.ErrGrant) {
					t.Error(err)
				}
				if err == nil {
					mu.Lock()
					defer mu.Unlock()
					given = append(given, tokens)
				}
			})
		}
		all.Wait()
		if len(given) != 1 {
			t.Fatalf("%d of 4 got tokens", len(given))
		}
		refused(t, id, "Bearer "+string(given[0].Access))
		if mayRefresh(t, id, client, string(given[0].Refresh)) {
			t.Fatal("its refresh token is valid")
		}
	}
}

// TestPendingSignInsEnd: what ends the sign-ins of an account ends those that it has approved and no client has fetched yet.
func TestPendingSignInsEnd(t *testing.T) {
	s := servicetest.New(t, servicetest.Shared(t).PG)
	hash := func(ctx context.Context) (string, error) { return s.Identity.Hash(ctx, "new password") }
	active := func(guid string, v bool) error {
		_, err := s.Accounts.UpdateIdentity(t.Context(), admin, false, guid, nil, account.IdentityChange{Active: &v})
		return err
	}
	for name, end := range map[string]func(p *account.Principal, signOut func() error) error{
		"nothing":    nil,
		"signed out": func(_ *account.Principal, signOut func() error) error { return signOut() },
		"a new password of one's own choice": func(p *account.Principal, _ func() error) error {
			return s.Accounts.SetSecret(t.Context(), p, false, p.GUID, true, hash)
		},
		"a new password of somebody else's choice": func(p *account.Principal, _ func() error) error {
			return s.Accounts.SetSecret(t.Context(), admin, false, p.GUID, false, hash)
		},
		"deactivated": func(p *account.Principal, _ func() error) error { return active(p.GUID, false) },
		"deactivated for a moment": func(p *account.Principal, _ func() error) error {
			return errors.Join(active(p.GUID, false), active(p.GUID, true))
		},
		"identity deleted": func(p *account.Principal, _ func() error) error {
			_, err := s.Accounts.DeleteIdentity(t.Context(), admin, false, p.GUID, nil)
			return err
		},
		"account deleted": func(p *account.Principal, _ func() error) error {
			return s.Accounts.DeleteProfile(t.Context(), admin, p.GUID, nil)
		},
		"reset": func(p *account.Principal, _ func() error) error {
			_, _, err := s.Identity.Bootstrap(t.Context(), p.Username, "another password")
			return err
		},
		"a restored database": func(*account.Principal, func() error) error {
			_, err := s.Accounts.EndAllTokens(t.Context(), true, audit.Entry{AccountGUID: "test"})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			id := replica(t, s, &clock{})
			client := own(t, id)
			p, signOut := inConsole(t, s, id)
			code := authorized(t, id, p)
			device := deviceLogin(t, id, client)
			if err := id.ApproveDevice(t.Context(), p, device.UserCode); err != nil {
				t.Fatal(err)
			}
			passcode, _, err := id.NewPasscode(t.Context(), p)
			if err != nil {
				t.Fatal(err)
			}
			if end != nil {
				if err := end(p, signOut); err != nil {
					t.Fatal(err)
				}
			}
			_, byCode := id.GrantWithCode(t.Context(), client, proofOf(code), "")
			_, byDevice := id.GrantWithDevice(t.Context(), client, string(device.DeviceCode), "")
			_, byPasscode := id.GrantWithPasscode(t.Context(), client, string(passcode), nil, "")
			if end == nil {
				if err := errors.Join(byCode, byDevice, byPasscode); err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(byCode, identity.ErrGrant) {
				t.Errorf("the authorization code: %v", byCode)
			}
			if !errors.Is(byDevice, identity.ErrDenied) && !errors.Is(byDevice, identity.ErrGrant) {
				t.Errorf("the device code: %v", byDevice)
			}
			if !fault.Is(byPasscode, fault.Unauthenticated) {
				t.Errorf("the passcode: %v", byPasscode)
			}
		})
	}
}

// TestOnlyPeopleApprove: a token, which may have leaked, does not become a sign-in.
func TestOnlyPeopleApprove(t *testing.T) {
	s := servicetest.Shared(t)
	id := replica(t, s, &clock{})
	username := unique("token")
	guid := s.Admin(t, username)
	_, pat := personal(t, id, guid, identity.NewPersonalToken{})
	device := deviceLogin(t, id, own(t, id))
	a, err := identity.ReadAuthorization(asked())
	if err != nil {
		t.Fatal(err)
	}
	for _, authorization := range []string{pat, bearer(t, id, username), basic(username, username+"-password")} {
		p := signIn(t, id, authorization)
		_, byCode := id.Authorize(t.Context(), p, a)
		_, _, byPasscode := id.NewPasscode(t.Context(), p)
		for _, err := range []error{byCode, byPasscode, id.ApproveDevice(t.Context(), p, device.UserCode)} {
			if !fault.Is(err, fault.Forbidden) {
				t.Errorf("%.20s: %v", authorization, err)
			}
		}
	}
}

// TestCodesAreForgotten: nothing of a code is stored for long, and nothing that it could be fetched with.
func TestCodesAreForgotten(t *testing.T) {
	s := servicetest.New(t, servicetest.Shared(t).PG)
	var c clock
	id := replica(t, s, &c)
	client := own(t, id)
	p, _ := inConsole(t, s, id)
	unused, used := authorized(t, id, p), authorized(t, id, p)
	if _, err := id.GrantWithCode(t.Context(), client, proofOf(used), ""); err != nil {
		t.Fatal(err)
	}
	device := deviceLogin(t, id, client)
	passcode, _, err := id.NewPasscode(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	var stored string
	err = s.DB.Pool.QueryRow(t.Context(), `
		SELECT concat((SELECT string_agg(c::text, ' ') FROM authorization_codes c),
		  (SELECT string_agg(c::text, ' ') FROM device_codes c),
		  (SELECT string_agg(c::text, ' ') FROM passcodes c))`).Scan(&stored)
	if err != nil || len(stored) < 500 {
		t.Fatal(stored, err)
	}
	plain := strings.ReplaceAll(device.UserCode, "-", "")
	for _, code := range []string{unused, used, string(device.DeviceCode), device.UserCode, plain, string(passcode)} {
		if strings.Contains(stored, code) || strings.Contains(s.Log.String(), code) {
			t.Errorf("%s is stored or logged", code)
		}
	}
	for _, test := range []struct {
		after time.Duration
		want  int
	}{{0, 4}, {16 * time.Minute, 2}, {time.Hour, 0}} {
		c.advance(test.after)
		if err := id.Maintain(t.Context()); err != nil {
			t.Fatal(err)
		}
		var left int
		err := s.DB.Pool.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM authorization_codes) +
			(SELECT count(*) FROM device_codes) + (SELECT count(*) FROM passcodes)`).Scan(&left)
		if err != nil || left != test.want {
			t.Errorf("%s later %d are left, not %d, %v", test.after, left, test.want, err)
		}
	}
}
