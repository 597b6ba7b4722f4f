package identity

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"rolecall/internal/account"
)

// SetClock makes the service live at another time.
func (s *Service) SetClock(now func() time.Time) { s.now = now }

// HashUnchecked is Hash as it was before passwords had a shortest length.
func (s *Service) HashUnchecked(t testing.TB, password string) string {
	t.Helper()
	hash, err := s.hasher.hash(t.Context(), password)
	if err != nil {
		t.Fatal(err)
	}
	return hash
}

// Maintain is one round of Run.
func (s *Service) Maintain(ctx context.Context) error { return s.maintain(ctx) }

// Flush stores when sessions and tokens were used.
func (s *Service) Flush(ctx context.Context) error { return s.flushUses(ctx) }

// VerifyToken verifies a token of this service, whether or not it was verified before.
func (s *Service) VerifyToken(ctx context.Context, token string) error {
	_, err := s.bearer(ctx, token, "")
	return err
}

// Principal is an account that has signed in with some of its scopes.
func (s *Service) Principal(t testing.TB, guid string, scopes ...string) *account.Principal {
	t.Helper()
	a, err := s.accounts.ByGUID(t.Context(), guid)
	if err != nil {
		t.Fatal(err)
	}
	return &account.Principal{GUID: guid, Scopes: scopes, Epoch: a.Epoch}
}

// Sign signs any claims with the key that signs now.
func (s *Service) Sign(ctx context.Context, c jwt.Claims) (string, error) {
	key, err := s.signingKey(ctx)
	if err != nil {
		return "", err
	}
	t := jwt.NewWithClaims(jwt.SigningMethodRS256, c)
	t.Header["kid"] = key.kid
	return t.SignedString(key.private)
}

// CountDerivations counts the computations of argon2id until the test ends. One that costs anything else fails the test.
func CountDerivations(t testing.TB, cost PasswordCost) *atomic.Int64 {
	var n atomic.Int64
	was := derive
	derive = func(password, salt []byte, time, memory uint32, threads uint8, keyLen uint32) []byte {
		n.Add(1)
		if got := (PasswordCost{memory, time}); got != cost || threads != argonLanes || keyLen != argonKey {
			t.Errorf("argon2id was computed with %+v, %d lanes and a key of %d bytes", got, threads, keyLen)
		}
		return was(password, salt, time, memory, threads, keyLen)
	}
	t.Cleanup(func() { derive = was })
	return &n
}

const (
	KeyLead         = keyLead
	KeyAge          = keyAge
	LongestLifetime = longestLifetime
	RefreshLifetime = refreshLifetime
	FreshFor        = freshFor
)

// HoldDerivations has argon2id wait until it is released. The one that has begun it is told of.
func HoldDerivations(t testing.TB) (begun <-chan struct{}, release func()) {
	was, held, begins := derive, make(chan struct{}), make(chan struct{}, 1000)
	derive = func(password, salt []byte, time, memory uint32, threads uint8, keyLen uint32) []byte {
		begins <- struct{}{}
		<-held
		return was(password, salt, time, memory, threads, keyLen)
	}
	release = sync.OnceFunc(func() { close(held) })
	t.Cleanup(func() { release(); derive = was })
	return begins, release
}

// HashQueue is how many sign-ins wait for argon2id in one of its queues.
const HashQueue = hashQueue

// Remembered is how many failures are remembered.
func (s *Service) Remembered() int {
	s.throttle.mu.Lock()
	defer s.throttle.mu.Unlock()
	return len(s.throttle.entries)
}

// Known is how many credentials are remembered.
func (s *Service) Known() int {
	s.verified.mu.Lock()
	defer s.verified.mu.Unlock()
	return len(s.verified.entries)
}
