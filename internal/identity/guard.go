package identity

import (
	"crypto/sha256"
	"net/netip"
	"strings"
	"sync"
	"time"

	"rolecall/internal/fault"
)

// guard makes those wait who keep failing to sign in. It counts by account and address together, by address, and by
// account. The last is slow to act and short: otherwise anybody could lock anybody out. Credentials that were verified
// within the last minute do not pass here, so running clients are never held up by somebody else's guesses.
type guard struct {
	now     func() time.Time
	mu      sync.Mutex
	entries map[string]*failures
	proven  map[string]time.Time // when a pair last succeeded
	swept   time.Time
}

type failures struct {
	count int
	last  time.Time
	until time.Time
}

// A guardRule lets `free` failures pass, then doubles the wait from one second to longest.
type guardRule struct {
	prefix  string
	free    int
	longest time.Duration
}

var (
	guardPair    = guardRule{"pair ", 5, time.Minute}
	guardAddress = guardRule{"address ", 30, time.Minute}
	guardAccount = guardRule{"account ", 100, 5 * time.Second}
)

// provenFor is how long an account that has signed in from an address is held up there by its own failures only, not by
// those of others behind the same address or against the same account.
const provenFor = 24 * time.Hour

// forgetAfter is how long a failure is remembered.
const forgetAfter = 15 * time.Minute

// maxGuarded bounds the memory of failures, and of successes, at about 250 bytes each. Argon2id bounds how soon one replica
// gets there; then any one of them is forgotten for each that comes.
const maxGuarded = 100_000

func makePlace[V any](m map[string]V) {
	for key := range m {
		if len(m) < maxGuarded {
			return
		}
		delete(m, key)
	}
}

func guardKeys(username, address string) map[guardRule]string {
	name := sha256.Sum256([]byte(strings.ToLower(username))) // of any length, as it was sent
	username, address = string(name[:]), Network(address)
	return map[guardRule]string{
		guardPair:    guardPair.prefix + username + address,
		guardAddress: guardAddress.prefix + address,
		guardAccount: guardAccount.prefix + username,
	}
}

// knows reports whether the account has signed in from the address of late.
func (g *guard) knows(username, address string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now().Sub(g.proven[guardKeys(username, address)[guardPair]]) < provenFor
}

func (g *guard) wait(username, address string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var longest time.Duration
	keys := guardKeys(username, address)
	proven := g.now().Sub(g.proven[keys[guardPair]]) < provenFor
	for rule, key := range keys {
		if proven && rule != guardPair {
			continue
		}
		if f := g.entries[key]; f != nil {
			longest = max(longest, f.until.Sub(g.now()))
		}
	}
	if longest <= 0 {
		return nil
	}
	return fault.New(fault.TooMany, "Too many failed sign-ins. Wait before the next.").After(longest)
}

func (g *guard) failed(username, address string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	if g.entries == nil {
		g.entries = map[string]*failures{}
	}
	if now.Sub(g.swept) > time.Minute {
		for key, f := range g.entries {
			if now.Sub(f.last) > forgetAfter {
				delete(g.entries, key)
			}
		}
		for key, at := range g.proven {
			if now.Sub(at) > provenFor {
				delete(g.proven, key)
			}
		}
		g.swept = now
	}
	for rule, key := range guardKeys(username, address) {
		f := g.entries[key]
		if f == nil || now.Sub(f.last) > forgetAfter {
			f = &failures{}
			makePlace(g.entries)
			g.entries[key] = f
		}
		f.count++
		f.last = now
		if over := f.count - rule.free; over > 0 {
			f.until = now.Add(min(rule.longest, time.Second<<min(over-1, 10)))
		}
	}
}

func (g *guard) succeeded(username, address string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	pair := guardKeys(username, address)[guardPair]
	delete(g.entries, pair)
	if g.proven == nil {
		g.proven = map[string]time.Time{}
	}
	makePlace(g.proven)
	g.proven[pair] = g.now()
}

// Network is what limits count by: the address, or of IPv6 the /64 that one host or home has to itself.
func Network(address string) string {
	addr, err := netip.ParseAddr(address)
	if err != nil || !addr.Is6() {
		return address
	}
	prefix, err := addr.Prefix(64)
	if err != nil {
		return address
	}
	return prefix.String()
}
