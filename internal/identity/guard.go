package identity

import (
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

// forgetAfter is how long a failure is remembered.
const forgetAfter = 15 * time.Minute

func guardKeys(username, address string) map[guardRule]string {
	username = strings.ToLower(username)
	return map[guardRule]string{
		guardPair:    guardPair.prefix + username + "\x00" + address,
		guardAddress: guardAddress.prefix + address,
		guardAccount: guardAccount.prefix + username,
	}
}

func (g *guard) wait(username, address string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var longest time.Duration
	for _, key := range guardKeys(username, address) {
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
		g.swept = now
	}
	for rule, key := range guardKeys(username, address) {
		f := g.entries[key]
		if f == nil || now.Sub(f.last) > forgetAfter {
			f = &failures{}
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
	delete(g.entries, guardKeys(username, address)[guardPair])
}
