package identity

import (
	"crypto/sha256"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"rolecall/internal/fault"
	"rolecall/internal/remote"
)

// throttle delays sign-ins after repeated failures. It counts by account and address together, by address, and by account.
// The last acts late and briefly: otherwise anybody could lock anybody out. Credentials that were verified within the last
// minute do not pass here, so somebody else's guesses never delay a running client.
type throttle struct {
	now     func() time.Time
	mu      sync.Mutex
	entries map[string]*failures
	proven  map[string]time.Time // when a pair last succeeded
	swept   time.Time

	counted struct{ succeeded, failed, throttled atomic.Int64 } // for metrics
}

type failures struct {
	count int
	last  time.Time
	until time.Time
}

// A throttleRule lets `free` failures pass, then doubles the wait from one second to longest.
type throttleRule struct {
	prefix  string
	free    int
	longest time.Duration
}

var (
	byPair    = throttleRule{"pair ", 5, time.Minute}
	byAddress = throttleRule{"address ", 30, time.Minute}
	byAccount = throttleRule{"account ", 100, 5 * time.Second}
)

// provenFor is how long after a sign-in from an address an account is delayed there only by its own failures, not by those
// of others behind the same address or against the same account.
const provenFor = 24 * time.Hour

// forgetAfter is how long a failure is remembered.
const forgetAfter = 15 * time.Minute

// maxThrottled bounds the memory of failures, and of successes, at about 250 bytes each. Argon2id bounds how
// soon a replica reaches it; then each new one evicts any other.
const maxThrottled = 100_000

func makePlace[V any](m map[string]V) {
	for key := range m {
		if len(m) < maxThrottled {
			return
		}
		delete(m, key)
	}
}

func throttleKeys(username, address string) map[throttleRule]string {
	name := sha256.Sum256([]byte(strings.ToLower(username))) // of any length, as it was sent
	username, address = string(name[:]), remote.Network(address)
	return map[throttleRule]string{
		byPair:    byPair.prefix + username + address,
		byAddress: byAddress.prefix + address,
		byAccount: byAccount.prefix + username,
	}
}

// knows reports whether the account has signed in from the address lately.
func (t *throttle) knows(username, address string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.now().Sub(t.proven[throttleKeys(username, address)[byPair]]) < provenFor
}

func (t *throttle) wait(username, address string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var longest time.Duration
	keys := throttleKeys(username, address)
	proven := t.now().Sub(t.proven[keys[byPair]]) < provenFor
	for rule, key := range keys {
		if proven && rule != byPair {
			continue
		}
		if f := t.entries[key]; f != nil {
			longest = max(longest, f.until.Sub(t.now()))
		}
	}
	if longest <= 0 {
		return nil
	}
	t.counted.throttled.Add(1)
	return fault.New(fault.TooMany, "Too many failed sign-ins. Wait before the next.").After(longest)
}

func (t *throttle) failed(username, address string) {
	t.counted.failed.Add(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if t.entries == nil {
		t.entries = map[string]*failures{}
	}
	if now.Sub(t.swept) > time.Minute {
		for key, f := range t.entries {
			if now.Sub(f.last) > forgetAfter {
				delete(t.entries, key)
			}
		}
		for key, at := range t.proven {
			if now.Sub(at) > provenFor {
				delete(t.proven, key)
			}
		}
		t.swept = now
	}
	for rule, key := range throttleKeys(username, address) {
		f := t.entries[key]
		if f == nil || now.Sub(f.last) > forgetAfter {
			f = &failures{}
			makePlace(t.entries)
			t.entries[key] = f
		}
		f.count++
		f.last = now
		if over := f.count - rule.free; over > 0 {
			f.until = now.Add(min(rule.longest, time.Second<<min(over-1, 10)))
		}
	}
}

// forgive ends the waits of an account, at all addresses. The waits of an address stay: its failures may be of others.
func (t *throttle) forgive(username string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	name := sha256.Sum256([]byte(strings.ToLower(username)))
	for key := range t.entries {
		if strings.HasPrefix(key, byPair.prefix+string(name[:])) || key == byAccount.prefix+string(name[:]) {
			delete(t.entries, key)
		}
	}
}

func (t *throttle) succeeded(username, address string) {
	t.counted.succeeded.Add(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	pair := throttleKeys(username, address)[byPair]
	delete(t.entries, pair)
	if t.proven == nil {
		t.proven = map[string]time.Time{}
	}
	makePlace(t.proven)
	t.proven[pair] = t.now()
}
