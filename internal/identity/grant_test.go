package identity_test

import (
	"errors"
	"testing"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/identity"
	"rolecall/internal/servicetest"
)

// signed is a user who signed in through a program, whose refresh tokens rotate.
type signed struct {
	*identity.Service
	clock  *clock
	guid   string
	client *identity.Client
	first  string
}

func signedIn(t testing.TB, s *servicetest.Service) *signed {
	t.Helper()
	x := &signed{clock: &clock{}}
	x.Service = replica(t, s, x.clock)
	username, program := unique("family"), unique("app")
	x.guid = s.Admin(t, username)
	hash, err := x.Hash(t.Context(), "the secret of x")
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.DB.Pool.Exec(t.Context(), `
		INSERT INTO accounts (guid, program, password_hash, grant_types, user_scopes, identity_created_at, identity_updated_at)
		VALUES ($1, true, $2, '{password,refresh_token}', $3, now(), now())`, program, hash, account.Scopes)
	if err != nil {
		t.Fatal(err)
	}
	if x.client, err = x.Client(t.Context(), program, "10.0.0.1", "the secret of x"); err != nil {
		t.Fatal(err)
	}
	tokens, err := x.GrantWithPassword(t.Context(), x.client, username, username+"-password", nil, "10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	x.first = string(tokens.Refresh)
	return x
}

func (x *signed) refresh(t testing.TB, token string) string {
	t.Helper()
	tokens, err := x.GrantWithRefresh(t.Context(), x.client, token, nil, "10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	signIn(t, x.Service, "Bearer "+string(tokens.Access))
	return string(tokens.Refresh)
}

func (x *signed) gone(t testing.TB, token string) {
	t.Helper()
	if tokens, err := x.GrantWithRefresh(t.Context(), x.client, token, nil, "10.0.0.1"); !errors.Is(err, identity.ErrGrant) {
		t.Fatalf("got %+v, %v", tokens, err)
	}
}

func TestRefreshFamily(t *testing.T) {
	s := servicetest.Shared(t)
	x := signedIn(t, s)
	second := x.refresh(t, x.first)
	if second == x.first {
		t.Fatal("it does not rotate")
	}
	// An answer that was lost: the one before works for another minute, and what it gives is as good.
	x.clock.advance(59 * time.Second)
	twin := x.refresh(t, x.first)
	third := x.refresh(t, second)
	x.refresh(t, twin)
	// Later than that somebody has a copy, and nothing of the family is good any more.
	other := signedIn(t, s)
	x.clock.advance(2 * time.Second)
	x.gone(t, x.first)
	for _, token := range []string{x.first, second, third, twin} {
		x.gone(t, token)
	}
	other.refresh(t, other.first)
	revoked := 0
	for _, row := range s.AuditRows(t, x.guid) {
		if row.Action == "account.tokens" {
			revoked++
		}
	}
	if revoked != 1 {
		t.Errorf("%d revocations are in the audit log", revoked)
	}
}

// A family lives for thirty days from the sign-in, however often it is used.
func TestRefreshExpires(t *testing.T) {
	s := servicetest.Shared(t)
	x := signedIn(t, s)
	token := x.first
	for range 29 {
		x.clock.advance(24 * time.Hour)
		token = x.refresh(t, token)
	}
	x.clock.advance(24 * time.Hour)
	x.gone(t, token)
	if err := x.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	var left int
	err := s.DB.Pool.QueryRow(t.Context(), `SELECT count(*) FROM refresh_tokens r JOIN accounts a ON a.id = r.account_id `+
		`WHERE a.guid = $1`, x.guid).Scan(&left)
	if err != nil || left != 0 {
		t.Errorf("%d are kept, %v", left, err)
	}
}

// The account decides, at each refresh.
func TestRefreshFollowsTheAccount(t *testing.T) {
	s := servicetest.Shared(t)
	for name, end := range map[string]string{
		"inactive":    `UPDATE accounts SET active = false WHERE guid = $1`,
		"epoch":       `UPDATE accounts SET epoch = gen_random_uuid() WHERE guid = $1`,
		"no identity": `UPDATE accounts SET identity_created_at = NULL WHERE guid = $1`,
		"gone":        `DELETE FROM accounts WHERE guid = $1`,
	} {
		t.Run(name, func(t *testing.T) {
			x := signedIn(t, s)
			if _, err := s.DB.Pool.Exec(t.Context(), end, x.guid); err != nil {
				t.Fatal(err)
			}
			x.gone(t, x.first)
		})
	}
	x := signedIn(t, s)
	if _, err := s.DB.Pool.Exec(t.Context(), `UPDATE accounts SET scopes = '{cloud_controller.read}' WHERE guid = $1`,
		x.guid); err != nil {
		t.Fatal(err)
	}
	tokens, err := x.GrantWithRefresh(t.Context(), x.client, x.first, nil, "10.0.0.1")
	if err != nil || len(tokens.Scopes) != 1 {
		t.Errorf("got %+v, %v", tokens, err)
	}
	// Replicas share the families.
	next := *x
	next.Service = replica(t, s, x.clock)
	next.refresh(t, string(tokens.Refresh))
}
