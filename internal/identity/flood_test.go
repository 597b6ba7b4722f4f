package identity_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rolecall/internal/fault"
	"rolecall/internal/identity"
	"rolecall/internal/servicetest"
)

// A flood of guesses from many addresses takes a bounded number of slots. It keeps out neither credentials that are
// remembered, nor accounts that sign in again from an address where they are known.
func TestFloodOfGuesses(t *testing.T) {
	s := servicetest.Shared(t)
	id := replica(t, s, &clock{})
	username := unique("known")
	s.Admin(t, username)
	token := bearer(t, id, username)
	signIn(t, id, token)
	if _, err := id.VerifyPassword(t.Context(), username, username+"-password", "10.0.0.1"); err != nil {
		t.Fatal(err)
	}

	begun, release := identity.HoldDerivations(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var refusals, others atomic.Int64
	var flood sync.WaitGroup
	const sent = 1000
	long := strings.Repeat("x", 20_000)
	for n := range sent {
		flood.Go(func() {
			_, err := id.Authenticate(ctx, identity.ParseCredential(basic(fmt.Sprint("nobody", n, long), "guess")),
				fmt.Sprintf("10.%d.%d.1", 1+n/250, n%250))
			if f := fault.Of(err); err != nil && f.Kind == fault.Unavailable && f.RetryAfter == time.Second {
				refusals.Add(1)
			} else {
				others.Add(1)
			}
		})
	}
	<-begun
	for end := time.Now().Add(time.Minute); refusals.Load() < sent-identity.HashQueue; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d of %d guesses were refused", refusals.Load(), sent)
		}
	}
	signIn(t, id, token)
	known := make(chan error, 1)
	go func() {
		_, err := id.VerifyPassword(t.Context(), username, username+"-password", "10.0.0.1")
		known <- err
	}()
	release()
	if err := <-known; err != nil {
		t.Errorf("a known account signs in: %v", err)
	}
	cancel()
	flood.Wait()
	failures := id.Remembered()
	if n := int(others.Load()); n > identity.HashQueue || failures > 3*n {
		t.Errorf("%d guesses were worked on, %d failures are remembered", n, failures)
	}
}

// Credentials that nobody uses any more are forgotten.
func TestUnusedCredentialsAreForgotten(t *testing.T) {
	s := servicetest.Shared(t)
	c := &clock{}
	id := replica(t, s, c)
	username := unique("many")
	s.Admin(t, username)
	const many = 50
	for range many {
		signIn(t, id, bearer(t, id, username))
	}
	if n := id.Known(); n != many {
		t.Fatalf("%d credentials are known", n)
	}
	c.advance(2 * time.Minute)
	signIn(t, id, bearer(t, id, username))
	if n := id.Known(); n != 1 {
		t.Errorf("%d credentials are known after two minutes, want one", n)
	}
}
