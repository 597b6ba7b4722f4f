package identity_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/fault"
	"rolecall/internal/identity"
	"rolecall/internal/servicetest"
)

// personal makes a token of an account and returns it as a header.
func personal(t testing.TB, id *identity.Service, guid string, n identity.NewPersonalToken) (
	*identity.PersonalToken, string) {
	t.Helper()
	if n.Name == "" {
		n.Name = unique("token")
	}
	token, secret, err := id.CreatePersonalToken(t.Context(), id.Principal(t, guid, account.DefaultScopes...), n)
	if err != nil {
		t.Fatal(err)
	}
	return token, "Bearer " + secret
}

// What ends a personal access token ends it within five seconds on every replica, and for good.
func TestPersonalTokenEndsOnEveryReplica(t *testing.T) {
	s := servicetest.Shared(t)
	hash := func(ctx context.Context) (string, error) { return s.Identity.Hash(ctx, "new password") }
	active := func(guid string, v bool) error {
		_, err := s.Accounts.UpdateIdentity(t.Context(), admin, false, guid, nil,
			account.IdentityChange{Active: &v})
		return err
	}
	for name, x := range map[string]struct {
		end  func(guid, username, token string) error
		ends bool
	}{
		"revoked": {func(guid, _, token string) error {
			return s.Identity.RevokePersonalToken(t.Context(), &account.Principal{GUID: guid}, token)
		}, true},
		"revoked by somebody else": {func(_, _, token string) error {
			if err := s.Identity.RevokePersonalToken(t.Context(), admin, token); !fault.Is(err, fault.NotFound) {
				t.Errorf("got %v", err)
			}
			return nil
		}, false},
		"deactivated":              {func(guid, _, _ string) error { return active(guid, false) }, true},
		"deactivated for a moment": {func(guid, _, _ string) error { _ = active(guid, false); return active(guid, true) }, true},
		"identity deleted": {func(guid, _, _ string) error {
			_, err := s.Accounts.DeleteIdentity(t.Context(), admin, false, guid, nil)
			return err
		}, true},
		"platform user deleted": {func(guid, _, _ string) error {
			_, err := s.Accounts.DeletePlatform(t.Context(), admin, guid, nil)
			return err
		}, true},
		"reset": {func(_, username, _ string) error {
			_, _, err := s.Identity.Bootstrap(t.Context(), username, "another password")
			return err
		}, true},
		"new password of somebody else's choice": {func(guid, _, _ string) error {
			return s.Accounts.SetSecret(t.Context(), admin, false, guid, false, hash)
		}, true},
		"new password of one's own choice": {func(guid, _, _ string) error {
			return s.Accounts.SetSecret(t.Context(), &account.Principal{GUID: guid}, false, guid, true, hash)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := &clock{}
			one, two := replica(t, s, c), replica(t, s, c)
			username := unique("pat")
			guid := s.Account(t, username, account.DefaultScopes, nil)
			token, authorization := personal(t, s.Identity, guid, identity.NewPersonalToken{})
			for _, id := range []*identity.Service{one, two} {
				if p := signIn(t, id, authorization); p.GUID != guid || p.Token != token.ID || p.ReadOnly || p.Clusters != nil {
					t.Fatalf("got %+v", p)
				}
			}
			if err := x.end(guid, username, token.ID.String()); err != nil {
				t.Fatal(err)
			}
			c.advance(identity.FreshFor)
			for _, id := range []*identity.Service{one, two, replica(t, s, c)} {
				if x.ends {
					refused(t, id, authorization)
				} else {
					signIn(t, id, authorization)
				}
			}
		})
	}
}

// A credential that has ended is remembered for a moment, in which it makes no token that would outlive it.
func TestNoPersonalTokenOfAnEndedSignIn(t *testing.T) {
	s := servicetest.Shared(t)
	id := replica(t, s, &clock{})
	username := unique("pat")
	guid := s.Account(t, username, account.DefaultScopes, nil)
	create := func(authorization string) error {
		t.Helper()
		_, _, err := id.CreatePersonalToken(t.Context(), signIn(t, id, authorization),
			identity.NewPersonalToken{Name: unique("token")})
		return err
	}
	stolen := []string{bearer(t, id, username), basic(username, username+"-password")}
	for _, authorization := range stolen {
		if err := create(authorization); err != nil {
			t.Fatal(err)
		}
	}
	hash := func(ctx context.Context) (string, error) { return s.Identity.Hash(ctx, "new password") }
	if err := s.Accounts.SetSecret(t.Context(), admin, false, guid, false, hash); err != nil {
		t.Fatal(err)
	}
	for _, authorization := range stolen {
		if err := create(authorization); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("got %v", err)
		}
	}
	if tokens, err := id.PersonalTokens(t.Context(), &account.Principal{GUID: guid}); err != nil || len(tokens) > 0 {
		t.Errorf("it has %d tokens, %v", len(tokens), err)
	}
	if err := create(basic(username, "new password")); err != nil {
		t.Error(err)
	}
}

func TestPersonalTokenExpires(t *testing.T) {
	s := servicetest.Shared(t)
	c := &clock{}
	one, two := replica(t, s, c), replica(t, s, c)
	guid := s.Account(t, unique("pat"), account.DefaultScopes, nil)
	_, authorization := personal(t, one, guid, identity.NewPersonalToken{Expires: c.now().Add(3 * time.Second)})
	signIn(t, one, authorization) // and remembers it
	c.advance(4 * time.Second)
	refused(t, one, authorization)
	refused(t, two, authorization)
	_, _, err := one.CreatePersonalToken(t.Context(), one.Principal(t, guid),
		identity.NewPersonalToken{Name: "late", Expires: c.now()})
	if !fault.Is(err, fault.Invalid) {
		t.Errorf("got %v", err)
	}
}

// A token has the scopes that its maker had then and still has, and the limits take from them.
func TestPersonalTokenScopes(t *testing.T) {
	s := servicetest.Shared(t)
	c := &clock{}
	id := replica(t, s, c)
	username := unique("pat")
	guid := s.Account(t, username, account.AdminScopes, nil)
	issue := func(n identity.NewPersonalToken, scopes ...string) string {
		t.Helper()
		n.Name = unique("token")
		_, secret, err := id.CreatePersonalToken(t.Context(), id.Principal(t, guid, scopes...), n)
		if err != nil {
			t.Fatal(err)
		}
		return "Bearer " + secret
	}
	expect := func(authorization, want string) {
		t.Helper()
		p := signIn(t, id, authorization)
		if got := strings.Join(p.Scopes, " ") + "|" + strings.Join(p.ClusterScopes, " "); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	cluster := identity.NewPersonalToken{Clusters: []uuid.UUID{uuid.MustParse(s.ClusterID)}}
	both := cluster
	both.ReadOnly = true
	whole := issue(identity.NewPersonalToken{}, account.AdminScopes...)
	expect(whole, "cloud_controller.admin cloud_controller.read cloud_controller.write scim.read scim.write|")
	expect(issue(identity.NewPersonalToken{}, account.ScopeRead), "cloud_controller.read|")
	expect(issue(identity.NewPersonalToken{ReadOnly: true}, account.AdminScopes...),
		"cloud_controller.admin_read_only cloud_controller.read scim.read|")
	expect(issue(cluster, account.AdminScopes...),
		"cloud_controller.read cloud_controller.write|cloud_controller.admin cloud_controller.read cloud_controller.write "+
			"scim.read scim.write")
	expect(issue(both, account.AdminScopes...),
		"cloud_controller.read|cloud_controller.admin_read_only cloud_controller.read scim.read")

	s.Account(t, username, account.DefaultScopes, nil) // which ends tokens, like every reset
	refused(t, replica(t, s, c), whole)
	again := issue(identity.NewPersonalToken{}, account.AdminScopes...)
	expect(again, "cloud_controller.read cloud_controller.write|")
}

// When a token was used last is written once a minute, and when the server stops.
func TestPersonalTokenLastUse(t *testing.T) {
	s := servicetest.Shared(t)
	c := &clock{}
	id := replica(t, s, c)
	guid := s.Account(t, unique("pat"), account.DefaultScopes, nil)
	made, authorization := personal(t, id, guid, identity.NewPersonalToken{})
	used := func() time.Time {
		t.Helper()
		tokens, err := id.PersonalTokens(t.Context(), &account.Principal{GUID: guid})
		if err != nil || len(tokens) != 1 || tokens[0].ID != made.ID {
			t.Fatalf("got %v, %v", tokens, err)
		}
		return tokens[0].LastUsed
	}
	for range 3 {
		signIn(t, id, authorization)
	}
	if at := used(); !at.IsZero() {
		t.Errorf("a request wrote that the token was used, at %s", at)
	}
	last := c.now()
	ctx, stop := context.WithCancel(t.Context())
	stop()
	id.Run(ctx)
	if at := used(); at.Sub(last).Abs() > time.Minute {
		t.Errorf("last used at %s, want %s", at, last)
	}

	// Another replica that writes late does not turn the time back.
	behind := &clock{}
	behind.advance(-time.Hour)
	other := replica(t, s, behind)
	signIn(t, other, authorization)
	before := used()
	other.Run(ctx)
	if at := used(); !at.Equal(before) {
		t.Errorf("last used at %s, then at %s", before, at)
	}
}

func TestForgedPersonalTokens(t *testing.T) {
	s := servicetest.Shared(t)
	guid := s.Account(t, unique("pat"), account.DefaultScopes, nil)
	_, authorization := personal(t, s.Identity, guid, identity.NewPersonalToken{})
	_, other := personal(t, s.Identity, guid, identity.NewPersonalToken{})
	signIn(t, s.Identity, authorization)
	secret := authorization[strings.LastIndex(authorization, "_"):]
	for _, forged := range []string{
		authorization + "0", authorization[:len(authorization)-1], strings.ToUpper(authorization), "Bearer rolecall_pat_",
		"Bearer rolecall_pat_" + secret,
		strings.TrimSuffix(authorization, secret), other[:strings.LastIndex(other, "_")] + secret, authorization + "\x00",
		strings.Replace(authorization, "Bearer", "Basic", 1),
	} {
		refused(t, s.Identity, forged)
	}
	// One without a platform user has none, and the next use of the token would make it.
	if _, err := s.Accounts.DeletePlatform(t.Context(), admin, guid, nil); err != nil {
		t.Fatal(err)
	}
	refused(t, replica(t, s, &clock{}), authorization)
}

func TestPersonalTokenLimits(t *testing.T) {
	s := servicetest.Shared(t)
	guid := s.Account(t, unique("pat"), account.DefaultScopes, nil)
	p := s.Identity.Principal(t, guid)
	for _, name := range []string{"", "a\n", "ci\u200b", "\u202eci", "\xff"} {
		if _, _, err := s.Identity.CreatePersonalToken(t.Context(), p, identity.NewPersonalToken{Name: name}); !fault.Is(err,
			fault.Invalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
	for i := range 101 {
		_, _, err := s.Identity.CreatePersonalToken(t.Context(), p, identity.NewPersonalToken{Name: unique("token")})
		if fault.Is(err, fault.Invalid) != (i == 100) {
			t.Fatalf("token %d: %v", i, err)
		}
	}
}
