package identity_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/fault"
	"rolecall/internal/identity"
	"rolecall/internal/secret"
	"rolecall/internal/servicetest"
)

// loggedIn is a new account and the token that its password gives.
func loggedIn(t testing.TB, s *servicetest.Service, id *identity.Service) (guid, username string, in *identity.SignIn) {
	t.Helper()
	username = unique("sign-in")
	guid = s.Account(t, username, account.DefaultScopes, nil)
	in, err := id.SignInWithPassword(t.Context(), username, username+"-password", "10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	if in.Account.GUID != guid || in.Lifetime != time.Hour {
		t.Fatalf("got %+v", in)
	}
	return guid, username, in
}

func bearerOf(in *identity.SignIn) string { return "Bearer " + string(in.Token) }

// Whatever ends the sign-ins of an account ends this token, within five seconds on every replica.
func TestSignInTokenEnds(t *testing.T) {
	s := servicetest.Shared(t)
	hash := func(ctx context.Context) (string, error) { return s.Identity.Hash(ctx, "new password") }
	active := func(guid string, v bool) error {
		_, err := s.Accounts.UpdateIdentity(t.Context(), admin, false, guid, nil, account.IdentityChange{Active: &v})
		return err
	}
	for name, end := range map[string]func(guid, username string, in *identity.SignIn) error{
		"revoked": func(guid, _ string, in *identity.SignIn) error {
			return s.Identity.RevokeOwn(t.Context(), &account.Principal{GUID: guid, Token: in.ID}, in.Token)
		},
		"a new password of one's own choice": func(guid, _ string, _ *identity.SignIn) error {
			return s.Accounts.SetSecret(t.Context(), &account.Principal{GUID: guid}, false, guid, true, hash)
		},
		"a new password of somebody else's choice": func(guid, _ string, _ *identity.SignIn) error {
			return s.Accounts.SetSecret(t.Context(), admin, false, guid, false, hash)
		},
		"deactivated for a moment": func(guid, _ string, _ *identity.SignIn) error {
			_ = active(guid, false)
			return active(guid, true)
		},
		"identity deleted": func(guid, _ string, _ *identity.SignIn) error {
			_, err := s.Accounts.DeleteIdentity(t.Context(), admin, false, guid, nil)
			return err
		},
		"reset": func(_, username string, _ *identity.SignIn) error {
			_, _, err := s.Identity.Bootstrap(t.Context(), username, "another password")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := &clock{}
			one, two := replica(t, s, c), replica(t, s, c)
			guid, username, in := loggedIn(t, s, one)
			for _, id := range []*identity.Service{one, two} {
				if p := signIn(t, id, bearerOf(in)); p.GUID != guid || p.Token != in.ID || p.ReadOnly || p.Credentials != nil {
					t.Fatalf("got %+v", p)
				}
			}
			p := signIn(t, two, bearerOf(in))
			if err := end(guid, username, in); err != nil {
				t.Fatal(err)
			}
			if _, _, err := two.RenewSignIn(t.Context(), p); !fault.Is(err, fault.Unauthenticated) {
				t.Errorf("a renewal after the end: %v", err)
			}
			c.advance(identity.FreshFor)
			for _, id := range []*identity.Service{one, two, replica(t, s, c)} {
				refused(t, id, bearerOf(in))
			}
		})
	}
}

// A restore of the control database that keeps personal access tokens ends the tokens of sign-ins.
func TestSignInTokenEndsWithAllSignIns(t *testing.T) {
	s := servicetest.New(t, servicetest.Shared(t).PG)
	guid, _, in := loggedIn(t, s, s.Identity)
	_, kept := personal(t, s.Identity, guid, identity.NewPersonalToken{})
	if _, err := s.Accounts.EndAllTokens(t.Context(), true, audit.Entry{AccountGUID: "test"}); err != nil {
		t.Fatal(err)
	}
	id := replica(t, s, &clock{})
	refused(t, id, bearerOf(in))
	signIn(t, id, kept)
}

// The token is valid for an hour, and by renewals for a day. A replica that has not renewed it knows of the renewal.
func TestSignInTokenIsRenewed(t *testing.T) {
	s := servicetest.Shared(t)
	c := &clock{}
	one, two := replica(t, s, c), replica(t, s, c)
	_, _, idle := loggedIn(t, s, one)
	_, _, in := loggedIn(t, s, one)
	start := c.now()
	p := signIn(t, one, bearerOf(in))
	for c.now().Before(start.Add(23 * time.Hour)) {
		c.advance(time.Hour - 50*time.Second)
		signIn(t, two, bearerOf(in)) // and remembers when it ends
		renewed, cut, err := one.RenewSignIn(t.Context(), p)
		if err != nil || cut != renewed.Expires.Equal(renewed.RenewableUntil) {
			t.Fatalf("got %+v, %t, %v", renewed, cut, err)
		}
		if left := renewed.Expires.Sub(c.now()); !cut && (left < 59*time.Minute || left > time.Hour) {
			t.Fatalf("renewed for %s", left)
		}
		c.advance(30 * time.Second)
		signIn(t, two, bearerOf(in))
		if shown, err := two.OwnToken(t.Context(), p); err != nil || *shown != *renewed {
			t.Fatalf("another replica shows %+v, %v, want %+v", shown, err, renewed)
		}
	}
	if renewed, cut, err := one.RenewSignIn(t.Context(), p); err != nil || !cut ||
		renewed.Expires.Sub(start.Add(24*time.Hour)).Abs() > time.Minute {
		t.Errorf("got %+v, %t, %v", renewed, cut, err)
	}
	signIn(t, two, bearerOf(in))
	c.advance(time.Hour + time.Minute)
	for _, id := range []*identity.Service{one, two} {
		refused(t, id, bearerOf(in))
		refused(t, id, bearerOf(idle))
	}
	if _, _, err := one.RenewSignIn(t.Context(), p); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("a renewal of an expired token: %v", err)
	}
}

// Expired ones are deleted after a while; those that an account has made stay, so that it sees them.
func TestExpiredSignInTokensAreDeleted(t *testing.T) {
	s := servicetest.Shared(t)
	c := &clock{}
	id := replica(t, s, c)
	guid, _, in := loggedIn(t, s, id)
	personal(t, id, guid, identity.NewPersonalToken{Expires: c.now().Add(time.Minute)})
	stored := func(want int) {
		t.Helper()
		if err := id.Maintain(t.Context()); err != nil {
			t.Fatal(err)
		}
		var n int
		if err := s.DB.Pool.QueryRow(t.Context(), `
			SELECT count(*) FROM personal_tokens t JOIN accounts a ON a.id = t.account_id WHERE a.guid = $1`,
			guid).Scan(&n); err != nil || n != want {
			t.Errorf("%d tokens are stored, %v, want %d", n, err, want)
		}
	}
	stored(2)
	c.advance(in.Lifetime + time.Minute)
	stored(2)
	c.advance(10 * time.Minute)
	stored(1)
}

// The tokens of sign-ins are not among those that an account has made, and have a limit of their own.
func TestSignInTokensAreNoPersonalTokens(t *testing.T) {
	s := servicetest.Shared(t)
	guid, username, in := loggedIn(t, s, s.Identity)
	p := signIn(t, s.Identity, bearerOf(in))
	if tokens, err := s.Identity.PersonalTokens(t.Context(), p); err != nil || len(tokens) > 0 {
		t.Errorf("got %v, %v", tokens, err)
	}
	if _, _, err := s.Identity.CreatePersonalToken(t.Context(), p, identity.NewPersonalToken{Name: "more"}); !fault.Is(err,
		fault.Forbidden) {
		t.Errorf("it makes tokens: %v", err)
	}
	fill := func(n int, expires string) {
		t.Helper()
		if _, err := s.DB.Pool.Exec(t.Context(), `
			INSERT INTO personal_tokens (id, account_id, name, secret_hash, scopes, read_only, expires_at, renewable_until, epoch)
			SELECT gen_random_uuid(), a.id, gen_random_uuid(), '', '{}', false, now() + $2::interval, now() + '1 day', a.epoch
			FROM accounts a, generate_series(1, $3) WHERE a.guid = $1`, guid, expires, n); err != nil {
			t.Fatal(err)
		}
	}
	again := func() error {
		_, err := s.Identity.SignInWithPassword(t.Context(), username, username+"-password", "10.0.0.1")
		return err
	}
	fill(1000, "-1 minute")
	fill(998, "1 hour")
	if err := again(); err != nil {
		t.Error(err)
	}
	if err := again(); !fault.Is(err, fault.TooMany) {
		t.Errorf("got %v", err)
	}
	if _, _, err := s.Identity.CreatePersonalToken(t.Context(), s.Identity.Principal(t, guid),
		identity.NewPersonalToken{Name: "made"}); err != nil {
		t.Errorf("they count among those that the account has made: %v", err)
	}
}

// Only the token of a sign-in is renewed. Any token of ours can be ended by its holder.
func TestOtherTokensAreNotRenewed(t *testing.T) {
	s := servicetest.Shared(t)
	c := &clock{}
	id := replica(t, s, c)
	username := unique("sign-in")
	guid := s.Account(t, username, account.DefaultScopes, nil)
	_, made := personal(t, id, guid, identity.NewPersonalToken{})
	access := bearer(t, id, username)
	for name, authorization := range map[string]string{"personal": made, "access": access} {
		p := signIn(t, id, authorization)
		if _, _, err := id.RenewSignIn(t.Context(), p); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
		own, err := id.OwnToken(t.Context(), p)
		if err != nil || own.Issued.Sub(c.now()).Abs() > time.Minute || own.Expires.IsZero() != (name == "personal") ||
			!own.RenewableUntil.IsZero() {
			t.Errorf("%s: %+v, %v", name, own, err)
		}
		if err := id.RevokeOwn(t.Context(), p, secret.Text(strings.TrimPrefix(authorization, "Bearer "))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		refused(t, id, authorization)
	}
}

// A token of another issuer gives one that outlives it. Anything else that is sent as one gives none.
func TestSignInWithToken(t *testing.T) {
	s := servicetest.Shared(t)
	o := newProvider(t)
	k := o.key(t, "one", true)
	c := &clock{}
	id := replica(t, s, c, o.issuer())
	sign := func() string {
		return strings.TrimPrefix(o.sign(t, k, "system:serviceaccount:shop:web",
			jwt.MapClaims{"exp": c.now().Add(time.Minute).Unix()}), "Bearer ")
	}
	short := sign()
	in, err := id.SignInWithToken(t.Context(), short, "10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	c.advance(30 * time.Minute)
	if p := signIn(t, id, bearerOf(in)); p.GUID != in.Account.GUID || p.Token != in.ID {
		t.Errorf("got %+v", p)
	}
	_, username, own := loggedIn(t, s, id)
	for name, token := range map[string]string{
		"expired": short, "ours": strings.TrimPrefix(bearer(t, id, username), "Bearer "), "personal": string(own.Token),
		"none": "x", "empty": "",
	} {
		if _, err := id.SignInWithToken(t.Context(), token, "10.0.0.1"); !fault.Is(err, fault.Unauthenticated) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// It is ended at its issuer only.
	alive := sign()
	if err := id.RevokeOwn(t.Context(), signIn(t, id, "Bearer "+alive), secret.Text(alive)); !fault.Is(err, fault.Invalid) {
		t.Errorf("got %v", err)
	}
}

// A failed sign-in counts like any other, and is throttled like any other.
func TestSignInIsThrottled(t *testing.T) {
	s := servicetest.Shared(t)
	id := replica(t, s, &clock{})
	username := unique("sign-in")
	s.Account(t, username, account.DefaultScopes, nil)
	for range 6 {
		if _, err := id.SignInWithPassword(t.Context(), username, "wrong", "10.0.0.9"); !fault.Is(err, fault.Unauthenticated) {
			t.Fatalf("got %v", err)
		}
	}
	if _, err := id.SignInWithPassword(t.Context(), username, username+"-password", "10.0.0.9"); !fault.Is(err,
		fault.TooMany) {
		t.Errorf("got %v", err)
	}
}

// A token that is limited to credentials says so at every request. Package door refuses what it may not do.
func TestCredentialTokens(t *testing.T) {
	s := servicetest.Shared(t)
	guid := s.Account(t, unique("pat"), account.DefaultScopes, nil)
	cluster := uuid.MustParse(s.ClusterID)
	made, authorization := personal(t, s.Identity, guid, identity.NewPersonalToken{
		Credentials: []string{s.ClusterID + "/shop"}})
	if len(made.Credentials) != 1 || made.Credentials[0] != s.ClusterID+"/shop" {
		t.Errorf("got %+v", made)
	}
	p := signIn(t, s.Identity, authorization)
	if !p.ReachesCredential(cluster, "shop") || p.ReachesCredential(cluster, "shop2") ||
		p.ReachesCredential(uuid.New(), "shop") {
		t.Errorf("it reaches others than %v", p.Credentials)
	}
	_, unlimited := personal(t, s.Identity, guid, identity.NewPersonalToken{})
	if p := signIn(t, s.Identity, unlimited); p.Credentials != nil || !p.ReachesCredential(cluster, "shop") {
		t.Errorf("got %+v", p)
	}
	for name, n := range map[string]identity.NewPersonalToken{
		"none": {Credentials: []string{}}, "many": {Credentials: make([]string, 101)},
		"read-only": {Credentials: []string{s.ClusterID + "/shop"}, ReadOnly: true},
	} {
		n.Name = unique("token")
		if _, _, err := s.Identity.CreatePersonalToken(t.Context(), s.Identity.Principal(t, guid), n); !fault.Is(err,
			fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
