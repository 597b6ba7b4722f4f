package identity_test

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/fault"
	"rolecall/internal/identity"
	"rolecall/internal/servicetest"
)

var networks atomic.Int64

// deviceLogin begins the sign-in of a device, from a network of its own: each has a limit.
func deviceLogin(t testing.TB, id *identity.Service, c *identity.Client, scopes ...string) *identity.DeviceLogin {
	t.Helper()
	n := networks.Add(1)
	d, err := id.StartDeviceLogin(t.Context(), c, scopes, fmt.Sprintf("10.9.%d.%d", n/256, n%256))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// polls is the cause of a poll's answer, nil for tokens.
func polls(t testing.TB, id *identity.Service, c *identity.Client, d *identity.DeviceLogin, want error) *identity.Tokens {
	t.Helper()
	tokens, err := id.GrantWithDevice(t.Context(), c, string(d.DeviceCode), "10.0.0.3")
	if !errors.Is(err, want) || (tokens != nil) != (want == nil) {
		t.Fatalf("got %+v, %v, want %v", tokens, err, want)
	}
	return tokens
}

func TestDeviceGrant(t *testing.T) {
	s := servicetest.Shared(t)
	var c clock
	one, two := replica(t, s, &c), replica(t, s, &c)
	client := own(t, one)
	p, _ := inConsole(t, s, one)
	d := deviceLogin(t, one, client)
	if !regexp.MustCompile(`^[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}$`).MatchString(d.UserCode) ||
		d.Lifetime != 10*time.Minute || d.Interval != 5*time.Second {
		t.Errorf("got %+v", d)
	}
	polls(t, one, client, d, identity.ErrPending)
	c.advance(5 * time.Second)
	polls(t, two, client, d, identity.ErrPending)
	// However a person types it.
	typed := " " + strings.ToLower(strings.ReplaceAll(d.UserCode, "-", " "))
	r, err := two.DeviceRequest(t.Context(), p, typed)
	if err != nil || r.UserCode != d.UserCode || r.Client != "rolecall" || !strings.HasPrefix(r.Address, "10.9.") ||
		r.Expires.Sub(r.Asked) != 10*time.Minute {
		t.Errorf("the person sees %+v, %v", r, err)
	}
	if err := two.ApproveDevice(t.Context(), p, typed); err != nil {
		t.Fatal(err)
	}
	tokens := polls(t, one, client, d, nil)
	if got := signIn(t, two, "Bearer "+string(tokens.Access)); got.GUID != p.GUID || got.Session == p.Session {
		t.Errorf("it signs in as %+v", got)
	}
	if !mayRefresh(t, two, client, string(tokens.Refresh)) {
		t.Error("its refresh token is not valid")
	}
	polls(t, one, client, d, identity.ErrGrant) // once
	for action, want := range map[string]string{
		audit.ApproveLogin: `"device": "10.9.`, audit.CreateLogin: `"grant": "` + identity.GrantDevice + `"`,
	} {
		if rows := rowsOf(t, s, p.GUID, action); len(rows) != 1 || !strings.Contains(rows[0], want) {
			t.Errorf("%s: %q", action, rows)
		}
	}

	narrow := deviceLogin(t, one, client, account.ScopeRead, "openid")
	if err := one.ApproveDevice(t.Context(), p, narrow.UserCode); err != nil {
		t.Fatal(err)
	}
	if got := polls(t, one, client, narrow, nil).Scopes; len(got) != 1 || got[0] != account.ScopeRead {
		t.Errorf("it has %q", got)
	}
	if _, err := one.StartDeviceLogin(t.Context(), client, []string{"openid"}, "10.0.0.3"); !errors.Is(err, identity.ErrScope) {
		t.Errorf("a scope that there is not: %v", err)
	}
	wide := deviceLogin(t, one, client, account.ScopeAdmin)
	if err := one.ApproveDevice(t.Context(), p, wide.UserCode); !errors.Is(err, identity.ErrScope) {
		t.Errorf("a scope that the person does not have: %v", err)
	}
	x := signedIn(t, s)
	if _, err := x.StartDeviceLogin(t.Context(), x.client, nil, "10.0.0.3"); !errors.Is(err, identity.ErrClientGrant) {
		t.Errorf("an OAuth client: %v", err)
	}
}

// TestDevicePollsTooOften: each poll that is too early makes the interval longer, on every replica.
func TestDevicePollsTooOften(t *testing.T) {
	s := servicetest.Shared(t)
	var c clock
	one, two := replica(t, s, &c), replica(t, s, &c)
	client := own(t, one)
	p, _ := inConsole(t, s, one)
	d := deviceLogin(t, one, client)
	polls(t, one, client, d, identity.ErrPending)
	c.advance(2 * time.Second)
	polls(t, two, client, d, identity.ErrSlowDown) // 10 s now
	c.advance(5 * time.Second)
	polls(t, one, client, d, identity.ErrSlowDown) // 15 s now
	c.advance(10 * time.Second)
	polls(t, one, client, d, identity.ErrSlowDown) // 20 s now
	c.advance(20 * time.Second)
	polls(t, two, client, d, identity.ErrPending)
	if err := one.ApproveDevice(t.Context(), p, d.UserCode); err != nil {
		t.Fatal(err)
	}
	polls(t, one, client, d, nil) // early, but there is nothing to wait for
}

func TestDeviceIsRefused(t *testing.T) {
	s := servicetest.Shared(t)
	var c clock
	id := replica(t, s, &c)
	client, cf := own(t, id), publicClient(t, id)
	p, _ := inConsole(t, s, id)

	denied := deviceLogin(t, id, client)
	if err := id.DenyDevice(t.Context(), p, denied.UserCode); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		polls(t, id, client, denied, identity.ErrDenied)
	}
	if rows := rowsOf(t, s, p.GUID, audit.DenyLogin); len(rows) != 1 || !strings.Contains(rows[0], `"device": "10.9.`) {
		t.Errorf("the audit log has %q", rows)
	}
	others := deviceLogin(t, id, client)
	if err := id.ApproveDevice(t.Context(), p, others.UserCode); err != nil {
		t.Fatal(err)
	}
	polls(t, id, cf, others, identity.ErrGrant)
	polls(t, id, client, others, nil)
	polls(t, id, client, &identity.DeviceLogin{DeviceCode: "unknown"}, identity.ErrGrant)

	late, approved := deviceLogin(t, id, client), deviceLogin(t, id, client)
	if err := id.ApproveDevice(t.Context(), p, approved.UserCode); err != nil {
		t.Fatal(err)
	}
	c.advance(10 * time.Minute)
	polls(t, id, client, late, identity.ErrExpired)
	polls(t, id, client, approved, identity.ErrExpired)
	if err := id.ApproveDevice(t.Context(), p, late.UserCode); !fault.Is(err, fault.NotFound) {
		t.Errorf("an expired user code: %v", err)
	}
}

// TestDeviceIsAnsweredOnce: of many answers one counts, and the others say so.
func TestDeviceIsAnsweredOnce(t *testing.T) {
	s := servicetest.Shared(t)
	id := replica(t, s, &clock{})
	client := own(t, id)
	d := deviceLogin(t, id, client)
	people := make([]*account.Principal, 4)
	for i := range people {
		people[i], _ = inConsole(t, s, id)
	}
	approved := make([]error, len(people))
	var all sync.WaitGroup
	for i, p := range people {
		all.Go(func() { approved[i] = id.ApproveDevice(t.Context(), p, d.UserCode) })
	}
	all.Wait()
	winner := -1
	for i, err := range approved {
		switch {
		case err == nil && winner >= 0:
			t.Error("two people have approved it")
		case err == nil:
			winner = i
		case !fault.Is(err, fault.Exists):
			t.Errorf("got %v", err)
		}
	}
	if winner < 0 {
		t.Fatal("nobody has approved it")
	}
	for _, p := range people {
		if err := id.DenyDevice(t.Context(), p, d.UserCode); !fault.Is(err, fault.Exists) {
			t.Errorf("an answer after the answer: %v", err)
		}
		if _, err := id.DeviceRequest(t.Context(), p, d.UserCode); !fault.Is(err, fault.Exists) {
			t.Errorf("shown after the answer: %v", err)
		}
	}
	tokens := polls(t, id, client, d, nil)
	if got := signIn(t, id, "Bearer "+string(tokens.Access)); got.GUID != people[winner].GUID {
		t.Errorf("it signs in as %s, not as who approved it", got.Username)
	}
}

// TestUserCodesAreNotGuessed: guesses of a person, of an address, and at one code are limited.
func TestUserCodesAreNotGuessed(t *testing.T) {
	s := servicetest.Shared(t)
	var c clock
	id := replica(t, s, &c)
	client := own(t, id)
	p, _ := inConsole(t, s, id)
	p.Address = "10.77.0.1"
	d := deviceLogin(t, id, client)
	guess := func(p *account.Principal) (looked int) {
		t.Helper()
		for range 100 {
			_, err := id.DeviceRequest(t.Context(), p, "BCDF-GHJK")
			switch {
			case fault.Is(err, fault.NotFound):
				looked++
			case !fault.Is(err, fault.TooMany) || fault.Of(err).RetryAfter <= 0:
				t.Fatal(err)
			}
		}
		return looked
	}
	if looked := guess(p); looked > 6 {
		t.Errorf("%d of 100 guesses of a person were looked at", looked)
	}
	if err := id.ApproveDevice(t.Context(), p, d.UserCode); !fault.Is(err, fault.TooMany) {
		t.Errorf("the right code after wrong ones: %v", err)
	}
	looked := 0
	for range 20 {
		other, _ := inConsole(t, s, id)
		other.Address = "10.77.0.1"
		looked += guess(other)
	}
	if looked > 31 {
		t.Errorf("%d of 2000 guesses of an address were looked at", looked)
	}
	c.advance(2 * time.Minute)
	if err := id.ApproveDevice(t.Context(), p, d.UserCode); err != nil {
		t.Errorf("the right code later: %v", err)
	}

	often := deviceLogin(t, id, client)
	shown := 0
	for range 30 {
		other, _ := inConsole(t, s, id)
		if _, err := id.DeviceRequest(t.Context(), other, often.UserCode); err == nil {
			shown++
		} else if !fault.Is(err, fault.NotFound) {
			t.Fatal(err)
		}
	}
	if shown != 20 {
		t.Errorf("one code was shown %d times", shown)
	}
}

// TestPendingDevicesAreLimited: anybody may begin, so a network does not fill the control database.
func TestPendingDevicesAreLimited(t *testing.T) {
	s := servicetest.Shared(t)
	var c clock
	id := replica(t, s, &c)
	client := own(t, id)
	begin := func(address string) error {
		_, err := id.StartDeviceLogin(t.Context(), client, nil, address)
		return err
	}
	for range 100 {
		if err := begin("2001:db8::1"); err != nil {
			t.Fatal(err)
		}
	}
	if err := begin("2001:db8::2"); !fault.Is(err, fault.TooMany) {
		t.Errorf("one more of the same network: %v", err)
	}
	if err := begin("2001:db8:1::1"); err != nil {
		t.Error(err)
	}
	c.advance(10 * time.Minute)
	if err := begin("2001:db8::1"); err != nil {
		t.Error(err)
	}
}
