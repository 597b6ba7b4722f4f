package identity_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rolecall/internal/identity"
	"rolecall/internal/servicetest"
)

// revoke revokes a token through one replica, which succeeds.
func revoke(t testing.TB, id *identity.Service, c *identity.Client, token string) {
	t.Helper()
	if err := id.Revoke(t.Context(), c, strings.TrimPrefix(token, "Bearer "), "10.0.0.1"); err != nil {
		t.Fatal(err)
	}
}

// signInWith signs in through a client and returns its tokens.
func signInWith(t testing.TB, id *identity.Service, c *identity.Client, username string) *identity.Tokens {
	t.Helper()
	tokens, err := id.GrantWithPassword(t.Context(), c, username, username+"-password", nil, "10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

func publicClient(t testing.TB, id *identity.Service) *identity.Client {
	t.Helper()
	c, err := id.Client(t.Context(), identity.PublicClient, "10.0.0.1", "")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mayRefresh(t testing.TB, id *identity.Service, c *identity.Client, token string) bool {
	t.Helper()
	_, err := id.GrantWithRefresh(t.Context(), c, token, nil, "10.0.0.1")
	if err != nil && !errors.Is(err, identity.ErrGrant) {
		t.Fatal(err)
	}
	return err == nil
}

// TestRevoke: a token that one replica revokes ends on every other within 5 seconds, whether that has verified it before or
// not. What it was not issued with goes on.
func TestRevoke(t *testing.T) {
	s := servicetest.Shared(t)
	var c clock
	one, two := replica(t, s, &c), replica(t, s, &c)
	cf := publicClient(t, one)
	username := unique("revoke")
	guid := s.Admin(t, username)
	other, stays := signInWith(t, one, cf, username), signInWith(t, one, cf, username)
	_, pat := personal(t, one, guid, identity.NewPersonalToken{})
	_, patStays := personal(t, one, guid, identity.NewPersonalToken{})
	access := func(tokens *identity.Tokens) string { return "Bearer " + string(tokens.Access) }

	alone := bearer(t, one, username) // without a refresh token
	family := signInWith(t, one, cf, username)
	again, err := one.GrantWithRefresh(t.Context(), cf, string(family.Refresh), nil, "10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	unseen := access(family) // by either replica
	for token, ends := range map[string][]string{
		alone:                  {alone},
		access(other):          {access(other)},
		string(family.Refresh): {access(again), unseen},
		pat:                    {pat},
	} {
		for _, id := range []*identity.Service{one, two} {
			for _, end := range ends {
				if end != unseen {
					signIn(t, id, end)
				}
			}
			signIn(t, id, access(stays))
			signIn(t, id, patStays)
		}
		revoke(t, one, cf, token)
		revoke(t, two, cf, token) // once more is no failure
		c.advance(identity.FreshFor)
		for _, id := range []*identity.Service{one, two, replica(t, s, &c)} {
			for _, end := range ends {
				refused(t, id, end)
			}
			signIn(t, id, access(stays))
			signIn(t, id, patStays)
		}
	}
	if mayRefresh(t, two, cf, string(family.Refresh)) {
		t.Error("the refresh token is valid")
	}
	if !mayRefresh(t, two, cf, string(other.Refresh)) || !mayRefresh(t, two, cf, string(stays.Refresh)) {
		t.Error("another refresh token has ended")
	}
	var actions []string
	for _, row := range s.AuditRows(t, guid) {
		if row.Account == guid {
			actions = append(actions, row.Action)
		}
	}
	if want := []string{"account.tokens", "account.tokens", "account.tokens"}; !slices.Equal(actions, want) {
		t.Errorf("the audit log has %q", actions)
	}
	// What is not valid anyway, or is not ours, is no failure.
	expired := signInWith(t, one, cf, username)
	c.advance(time.Hour)
	p := newProvider(t)
	for _, token := range []string{"", "nonsense", "a.b.c", "rolecall_pat_x", strings.Replace(pat, "a", "b", 1),
		string(expired.Access), p.sign(t, p.key(t, "1", true), "subject", nil)} {
		revoke(t, one, cf, token)
	}
}

// TestRevokeOfAnotherClient: no client ends a token that was issued to another (RFC 7009, 2.1), and it is no failure.
func TestRevokeOfAnotherClient(t *testing.T) {
	s := servicetest.Shared(t)
	x := signedIn(t, s)
	cf := publicClient(t, x.Service)
	username := unique("two-clients")
	s.Admin(t, username)
	theirs, ours := signInWith(t, x.Service, x.client, username), signInWith(t, x.Service, cf, username)
	for _, test := range []struct {
		client *identity.Client
		tokens *identity.Tokens
	}{{cf, theirs}, {x.client, ours}} {
		for _, token := range []string{string(test.tokens.Access), string(test.tokens.Refresh)} {
			if err := x.Revoke(t.Context(), test.client, token, ""); err != nil {
				t.Error(err)
			}
		}
		x.clock.advance(identity.FreshFor)
		signIn(t, x.Service, "Bearer "+string(test.tokens.Access))
	}
	if !mayRefresh(t, x.Service, cf, string(ours.Refresh)) || !mayRefresh(t, x.Service, x.client, string(theirs.Refresh)) {
		t.Error("a refresh token has ended")
	}
}

// TestRevokeOfAPublicClient: no public client proves which it is, so each ends the tokens of the other.
func TestRevokeOfAPublicClient(t *testing.T) {
	s := servicetest.Shared(t)
	var c clock
	id := replica(t, s, &c)
	cf := publicClient(t, id)
	own, err := id.Client(t.Context(), identity.OwnClient, "10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	username := unique("public")
	s.Admin(t, username)
	first, second := signInWith(t, id, own, username), signInWith(t, id, own, username)
	revoke(t, id, cf, string(first.Access))
	revoke(t, id, cf, string(second.Refresh))
	c.advance(identity.FreshFor)
	refused(t, id, "Bearer "+string(first.Access))
	refused(t, id, "Bearer "+string(second.Access))
	if mayRefresh(t, id, own, string(second.Refresh)) {
		t.Error("a refresh token is valid")
	}
}

// TestRevokeAgainstRefresh: of a sign-in that is revoked while it is refreshed, nothing is left.
func TestRevokeAgainstRefresh(t *testing.T) {
	s := servicetest.Shared(t)
	x := signedIn(t, s)
	for range 20 {
		username := unique("race")
		s.Admin(t, username)
		first := signInWith(t, x.Service, x.client, username)
		var mu sync.Mutex
		var refreshed []*identity.Tokens
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				tokens, err := x.GrantWithRefresh(t.Context(), x.client, string(first.Refresh), nil, "10.0.0.1")
				if err != nil && !errors.Is(err, identity.ErrGrant) {
					t.Error(err)
				}
				if err == nil {
					mu.Lock()
					defer mu.Unlock()
					refreshed = append(refreshed, tokens)
				}
			})
		}
		all.Go(func() { revoke(t, x.Service, x.client, string(first.Refresh)) })
		all.Wait()
		for _, tokens := range append(refreshed, first) {
			if mayRefresh(t, x.Service, x.client, string(tokens.Refresh)) {
				t.Fatal("a refresh token is valid")
			}
			refused(t, x.Service, "Bearer "+string(tokens.Access))
		}
	}
}

// TestGraceIsBounded: a replaced token in its minute of grace gives a few tokens, not one for each use.
func TestGraceIsBounded(t *testing.T) {
	s := servicetest.Shared(t)
	x := signedIn(t, s)
	valid := []string{x.refresh(t, x.first)}
	for range 50 {
		if tokens, err := x.GrantWithRefresh(t.Context(), x.client, x.first, nil, "10.0.0.1"); err == nil {
			valid = append(valid, string(tokens.Refresh))
		} else if !errors.Is(err, identity.ErrGrant) {
			t.Fatal(err)
		}
	}
	if len(valid) != 5 {
		t.Errorf("%d tokens are valid at once", len(valid))
	}
	for _, token := range valid { // none has ended for that
		x.refresh(t, x.refresh(t, token))
	}
}

// TestRevokedTokensAreForgotten: once a revoked token has expired, its row goes.
func TestRevokedTokensAreForgotten(t *testing.T) {
	s := servicetest.New(t, servicetest.Shared(t).PG)
	var c clock
	id := replica(t, s, &c)
	cf := publicClient(t, id)
	s.Admin(t, "forgetful")
	for range 2 {
		tokens := signInWith(t, id, cf, "forgetful")
		revoke(t, id, cf, string(tokens.Access))
		revoke(t, id, cf, string(tokens.Refresh))
	}
	left := func() (n int) {
		t.Helper()
		if err := id.Maintain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.DB.Pool.QueryRow(t.Context(), `SELECT count(*) FROM revoked_tokens`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := left(); n != 4 {
		t.Errorf("%d rows", n)
	}
	c.advance(identity.LongestLifetime + time.Second)
	if n := left(); n == 0 {
		t.Error("they are forgotten while a clock that is behind may accept them")
	}
	c.advance(10 * time.Minute)
	if n := left(); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}
