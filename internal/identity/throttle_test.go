package identity

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"rolecall/internal/fault"
)

func TestThrottle(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	g := throttle{now: func() time.Time { return now }}
	wait := func(username, address string) time.Duration {
		t.Helper()
		err := g.wait(username, address)
		if err != nil && !fault.Is(err, fault.TooMany) {
			t.Fatal(err)
		}
		if err == nil {
			return 0
		}
		return fault.Of(err).RetryAfter
	}
	for range 5 {
		g.failed("bob", "1.1.1.1")
		if got := wait("bob", "1.1.1.1"); got != 0 {
			t.Fatalf("a wait of %s", got)
		}
	}
	for _, want := range []int{1, 2, 4, 8, 16, 32, 60, 60} {
		g.failed("BOB", "1.1.1.1")
		if got := wait("bob", "1.1.1.1"); got != time.Duration(want)*time.Second {
			t.Errorf("a wait of %s, want %d s", got, want)
		}
		if got := wait("bob", "2.2.2.2") + wait("eve", "1.1.1.1"); got != 0 {
			t.Errorf("others wait %s", got)
		}
		now = now.Add(time.Duration(want) * time.Second)
		if got := wait("bob", "1.1.1.1"); got != 0 {
			t.Errorf("still a wait of %s", got)
		}
	}
	g.succeeded("bob", "1.1.1.1")
	if g.failed("bob", "1.1.1.1"); wait("bob", "1.1.1.1") != 0 {
		t.Error("a success does not start anew")
	}
	// One address that tries many names.
	for n := range 31 {
		g.failed(fmt.Sprint("name", n), "3.3.3.3")
	}
	if got := wait("somebody", "3.3.3.3"); got != time.Second {
		t.Errorf("the address waits %s", got)
	}
	// One name from many addresses: everybody waits, but not for long.
	for n := range 200 {
		g.failed("carol", fmt.Sprint("4.4.4.", n))
	}
	if got := wait("carol", "5.5.5.5"); got != 5*time.Second {
		t.Errorf("the account waits %s", got)
	}
	// All is forgotten, in memory too.
	now = now.Add(forgetAfter + time.Minute)
	if g.failed("x", "x"); len(g.entries) != 3 {
		t.Errorf("%d entries are kept", len(g.entries))
	}
}

// However many names and addresses there are, and however long, what is remembered is bounded.
func TestThrottleIsBounded(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	g := throttle{now: func() time.Time { return now }}
	long := strings.Repeat("x", 10_000)
	for n := range maxThrottled/2 + 100 {
		name := fmt.Sprint(n)
		if n%1000 == 0 {
			name += long
		}
		address := fmt.Sprintf("10.%d.%d.%d", n>>16, n>>8&255, n&255)
		g.failed(name, address)
		g.succeeded(name, address)
		g.succeeded(name, "::1")
	}
	for key := range g.entries {
		if len(key) > 100 {
			t.Fatalf("a key of %d bytes", len(key))
		}
	}
	if len(g.entries) > maxThrottled || len(g.proven) != maxThrottled {
		t.Errorf("%d failures and %d successes are remembered", len(g.entries), len(g.proven))
	}
}
