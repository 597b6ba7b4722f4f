package identity_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/fault"
	"rolecall/internal/identity"
	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const issuer = servicetest.PublicURL + "/uaa/oauth/token"

// clock is a time that moves when it is told to.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c *clock) advance(d time.Duration) { c.offset.Add(int64(d)) }

// replica is another server on the control database of s.
func replica(t testing.TB, s *servicetest.Service, c *clock, issuers ...identity.OIDCIssuer) *identity.Service {
	t.Helper()
	id, err := identity.New(t.Context(), s.DB, identity.Config{
		Issuer: issuer, PublicURL: servicetest.PublicURL, OIDC: issuers,
		PasswordCost: servicetest.PasswordCost, Log: slog.New(slog.NewTextHandler(s.Log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	id.SetClock(c.now)
	return id
}

func unique(prefix string) string { return prefix + "-" + uuid.NewString()[:8] }

func basic(username, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(username+":"+password))
}

// bearer is a token of the account as a header.
func bearer(t testing.TB, id *identity.Service, username string) string {
	t.Helper()
	token, err := id.MintFor(t.Context(), username, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return "Bearer " + token
}

func signIn(t testing.TB, id *identity.Service, authorization string) *account.Principal {
	t.Helper()
	p, err := id.Authenticate(t.Context(), identity.ParseCredential(authorization), "10.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func refused(t testing.TB, id *identity.Service, authorization string) {
	t.Helper()
	if p, err := id.Authenticate(t.Context(), identity.ParseCredential(authorization), "10.0.0.1"); !fault.Is(err,
		fault.Unauthenticated) {
		t.Fatalf("signed in as %+v, %v", p, err)
	}
}

var admin = &account.Principal{GUID: "test", Scopes: account.AdminScopes}

func TestSignIn(t *testing.T) {
	s := servicetest.Shared(t)
	name := unique("anna")
	guid := s.Account(t, name, []string{"cloud_controller.read"}, map[string]string{"team": "a"})
	for _, authorization := range []string{basic(name, name+"-password"), bearer(t, s.Identity, name)} {
		for range 2 { // the second time it is remembered
			p := signIn(t, s.Identity, authorization)
			if p.GUID != guid || p.Username != name || p.Origin != "uaa" ||
				fmt.Sprint(p.Scopes, p.Labels) != "[cloud_controller.read] map[team:a]" {
				t.Errorf("got %+v", p)
			}
		}
	}
	for _, authorization := range []string{"", "Basic", "Basic !", "Basic " + base64.StdEncoding.EncodeToString([]byte(name)),
		"Digest x", "Bearer",
		basic(name, ""), basic("", ""), basic(guid, name+"-password"), basic(name, name+"-password "), basic("a\x00", "x"),
		basic("\xff", "\xff")} {
		refused(t, s.Identity, authorization)
	}
}

// What was taken from an account ends on every replica within five seconds, and not because something else ended.
func TestEndsOnEveryReplica(t *testing.T) {
	s := servicetest.Shared(t)
	hash := func(ctx context.Context) (string, error) { return s.Identity.Hash(ctx, "new password") }
	for name, end := range map[string]func(guid, username string) error{
		"deactivated": func(guid, _ string) error {
			_, err := s.Accounts.UpdateIdentity(t.Context(), admin, false, guid, nil,
				account.IdentityChange{Active: new(false)})
			return err
		},
		"deactivated for a moment": func(guid, _ string) error {
			if _, err := s.Accounts.UpdateIdentity(t.Context(), admin, false, guid, nil,
				account.IdentityChange{Active: new(false)}); err != nil {
				return err
			}
			_, err := s.Accounts.UpdateIdentity(t.Context(), admin, false, guid, nil,
				account.IdentityChange{Active: new(true)})
			return err
		},
		"new password": func(guid, _ string) error {
			return s.Accounts.SetSecret(t.Context(), admin, false, guid, false, hash)
		},
		"identity deleted": func(guid, _ string) error {
			_, err := s.Accounts.DeleteIdentity(t.Context(), admin, false, guid, nil)
			return err
		},
		"made again under its guid": func(guid, username string) error {
			if _, err := s.DB.Pool.Exec(t.Context(), `DELETE FROM accounts WHERE guid = $1`, guid); err != nil {
				return err
			}
			_, err := s.DB.Pool.Exec(t.Context(), `
				INSERT INTO accounts (guid, username, origin, scopes,
					identity_created_at, identity_updated_at, platform_created_at, platform_updated_at)
				VALUES ($1, $2, 'uaa', '{}', now(), now(), now(), now())`, guid, username)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			var c clock
			replicas := []*identity.Service{replica(t, s, &c), replica(t, s, &c)}
			username := unique("ends")
			guid := s.Admin(t, username)
			token, password := bearer(t, replicas[0], username), basic(username, username+"-password")
			for _, id := range replicas {
				signIn(t, id, token)
			}
			signIn(t, replicas[0], password)
			c.advance(4 * time.Second)
			for _, id := range replicas {
				signIn(t, id, token)
			}
			if err := end(guid, username); err != nil {
				t.Fatal(err)
			}
			c.advance(identity.FreshFor)
			for _, id := range replicas {
				refused(t, id, token)
			}
			if name != "deactivated for a moment" {
				refused(t, replicas[0], password)
			}
		})
	}
}

// While the control database is away, credentials that were verified within the last minute are taken, and no others.
func TestControlDatabaseIsAway(t *testing.T) {
	pg := pgtest.New(t, nil)
	s := servicetest.New(t, pg)
	var c clock
	id := replica(t, s, &c)
	username := unique("away")
	s.Admin(t, username)
	known := []string{bearer(t, id, username), basic(username, username+"-password")}
	unseen := bearer(t, id, username)
	for _, credential := range known {
		signIn(t, id, credential)
	}
	unavailable := func(credential string) {
		t.Helper()
		if p, err := id.Authenticate(t.Context(), identity.ParseCredential(credential), "10.0.0.1"); !fault.Is(err,
			fault.Unavailable) || fault.Of(err).RetryAfter == 0 {
			t.Errorf("signed in as %+v, %v; want to be told when to come again", p, err)
		}
	}
	pg.Stop(t)
	for range 2 { // the look that failed counts for the next second
		c.advance(identity.FreshWhileAway/2 - time.Second)
		for _, credential := range known {
			signIn(t, id, credential)
		}
		unavailable(unseen)
	}
	c.advance(3 * time.Second)
	for _, credential := range known {
		unavailable(credential)
	}
	pg.Start(t)
	c.advance(time.Second)
	for _, credential := range append(known, unseen) {
		signIn(t, id, credential)
	}
}

// To verify what a stranger sends is work that his address is charged for. A credential that was verified lately is no
// stranger's, nor is a token that only has to be held against a key, until it was refused.
func TestStranger(t *testing.T) {
	s := servicetest.Shared(t)
	var c clock
	id := replica(t, s, &c)
	username := unique("counted")
	guid := s.Admin(t, username)
	verified := []string{bearer(t, id, username), basic(username, username+"-password")}
	for _, credential := range verified {
		signIn(t, id, credential)
	}
	made := bearer(t, id, username) // never seen
	stranger := func(want bool, credentials ...string) {
		t.Helper()
		for _, credential := range credentials {
			if got := id.Stranger(identity.ParseCredential(credential)); got != want {
				t.Errorf("%.30s: a stranger's %v, want %v", credential, got, want)
			}
		}
	}
	stranger(false, append(verified, made)...)
	stranger(true, "", "Digest x", basic(username, "x"),
		"Bearer rolecall_pat_"+strings.Repeat("0", 32)+"_"+strings.Repeat("0", 40))

	forged := strings.Split(made, ".")
	dead := []string{forged[0] + "." + forged[1] + "." + strings.Repeat("A", len(forged[2])), verified[0], made}
	stranger(false, dead...)
	if _, err := s.DB.Pool.Exec(t.Context(), `UPDATE accounts SET active = false WHERE guid = $1`, guid); err != nil {
		t.Fatal(err)
	}
	c.advance(identity.FreshFor)
	for _, credential := range dead {
		refused(t, id, credential)
	}
	stranger(true, dead...)

	// The account may be back. Who was refused is still verified, and no stranger afterwards.
	if _, err := s.DB.Pool.Exec(t.Context(), `UPDATE accounts SET active = true WHERE guid = $1`, guid); err != nil {
		t.Fatal(err)
	}
	signIn(t, id, made)
	stranger(false, made, verified[1])
	c.advance(identity.FreshWhileAway)
	stranger(true, verified[1])
	stranger(false, dead[0], made)
}

// Load is no outage: with every connection taken by others, what was verified is looked at again, and what ended is refused.
func TestControlDatabaseIsBusy(t *testing.T) {
	s := servicetest.New(t, pgtest.Shared(t))
	var c clock
	id := replica(t, s, &c)
	username, ended := unique("busy"), unique("ended")
	guid := s.Account(t, username, []string{"cloud_controller.read"}, nil)
	endedGUID := s.Admin(t, ended)
	good, bad := []string{bearer(t, id, username), basic(username, username+"-password")},
		[]string{bearer(t, id, ended), basic(ended, ended+"-password")}
	token, secret := personal(t, id, guid, identity.NewPersonalToken{})
	_, endedSecret := personal(t, id, endedGUID, identity.NewPersonalToken{})
	bad = append(bad, secret, endedSecret)
	for _, credential := range append(good, bad...) {
		signIn(t, id, credential)
	}
	for _, end := range []struct{ sql, of string }{
		{`UPDATE accounts SET active = false WHERE guid = $1`, endedGUID},
		{`UPDATE accounts SET scopes = '{scim.read}' WHERE guid = $1`, guid},
		{`DELETE FROM personal_tokens WHERE id::text = $1`, token.ID.String()},
	} {
		if _, err := s.DB.Pool.Exec(t.Context(), end.sql, end.of); err != nil {
			t.Fatal(err)
		}
	}
	for range s.DB.Pool.Config().MaxConns {
		conn, err := s.DB.Pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Release()
	}
	c.advance(identity.FreshFor)
	for _, credential := range bad {
		refused(t, id, credential)
	}
	if p := signIn(t, id, good[0]); len(p.Scopes) != 0 {
		t.Errorf("the token has %v", p.Scopes)
	}
	var all sync.WaitGroup
	for range 200 { // more than may look at a time
		all.Go(func() {
			if p, err := id.Authenticate(t.Context(), identity.ParseCredential(good[1]), "10.0.0.1"); err != nil ||
				fmt.Sprint(p.Scopes) != "[scim.read]" {
				t.Errorf("signed in as %+v, %v", p, err)
			}
		})
	}
	all.Wait()
}

// A scope that is taken away ends within five seconds. One that is given reaches a password, and not a token that was
// made before.
func TestScopesFollowTheAccount(t *testing.T) {
	s := servicetest.Shared(t)
	var c clock
	id := replica(t, s, &c)
	username := unique("scopes")
	guid := s.Account(t, username, []string{"cloud_controller.read", "cloud_controller.write"}, nil)
	token, password := bearer(t, id, username), basic(username, username+"-password")
	signIn(t, id, token)
	signIn(t, id, password)
	if _, err := s.Accounts.Revoke(t.Context(), admin, guid, "cloud_controller.write"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Accounts.Grant(t.Context(), admin, guid, "scim.read"); err != nil {
		t.Fatal(err)
	}
	c.advance(identity.FreshFor)
	if got := signIn(t, id, token).Scopes; fmt.Sprint(got) != "[cloud_controller.read]" {
		t.Errorf("the token has %v", got)
	}
	if got := signIn(t, id, password).Scopes; fmt.Sprint(got) != "[cloud_controller.read scim.read]" {
		t.Errorf("the password has %v", got)
	}
}

// The first use makes the platform user, once, and says so in the audit log.
func TestFirstUse(t *testing.T) {
	s := servicetest.Shared(t)
	i, err := s.Accounts.CreateUser(t.Context(), admin, account.IdentityChange{Username: new(unique("first"))}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token := bearer(t, s.Identity, i.Username)
	if _, err := s.Accounts.Platform(t.Context(), admin, i.GUID); !fault.Is(err, fault.NotFound) {
		t.Fatalf("there is a platform user before the first use: %v", err)
	}
	var c clock
	var group sync.WaitGroup
	for range 8 {
		id := replica(t, s, &c)
		group.Go(func() {
			if _, err := id.Authenticate(t.Context(), identity.ParseCredential(token), ""); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if _, err := s.Accounts.Platform(t.Context(), admin, i.GUID); err != nil {
		t.Error(err)
	}
	if rows := s.AuditRows(t, i.GUID); len(rows) != 2 {
		t.Errorf("the audit log has %+v", rows)
	}
}

// Hundreds of guesses at once are not hundreds of guesses.
func TestGuessesAtOnce(t *testing.T) {
	s := servicetest.Shared(t)
	username := unique("guessed")
	guid := s.Admin(t, username)
	var group sync.WaitGroup
	var waits atomic.Int64
	for n := range 60 {
		group.Go(func() {
			_, err := s.Identity.Authenticate(t.Context(), identity.ParseCredential(basic(username, fmt.Sprint(n))), "10.9.9.9")
			if fault.Is(err, fault.TooMany) {
				waits.Add(1)
			}
		})
	}
	group.Wait()
	var counted int
	if err := s.DB.Pool.QueryRow(t.Context(), `SELECT sum(count) FROM failed_sign_ins WHERE account = $1`,
		guid).Scan(&counted); err != nil {
		t.Fatal(err)
	}
	if counted > 8 || int(waits.Load()) != 60-counted { // five that are free, one that starts the wait, and one beside each
		t.Errorf("%d guesses, %d were told to wait", counted, waits.Load())
	}
	// A password that was verified before is not held up.
	signIn(t, s.Identity, basic(username, username+"-password"))
}
