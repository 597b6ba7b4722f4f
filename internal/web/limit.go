package web

import (
	"context"
	"math"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"rolecall/internal/fault"
	"rolecall/internal/remote"
)

// Limiter is a token bucket per key, for instance an account or an address. The zero rate limits nothing.
type Limiter struct {
	// PerSecond is the refill rate. A full bucket holds twice as many tokens.
	PerSecond float64

	mu      sync.Mutex
	buckets map[string]*rate.Limiter
	swept   time.Time
}

// Take takes one token of the key's bucket, or returns when there will be one.
func (l *Limiter) Take(key string) error {
	if l.PerSecond <= 0 {
		return nil
	}
	now := time.Now()
	reservation := l.bucket(key, now).ReserveN(now, 1)
	delay := reservation.DelayFrom(now)
	if delay == 0 {
		return nil
	}
	reservation.CancelAt(now)
	return fault.New(fault.TooMany, "Too many requests: the limit is %g a second. Try again in %s s.", l.PerSecond,
		seconds(delay)).After(delay)
}

// Standing returns how many tokens a full bucket of the key holds, how many are left, and when it is full again. Without a
// limit ok is false.
func (l *Limiter) Standing(key string) (limit, remaining int, full time.Time, ok bool) {
	if l.PerSecond <= 0 {
		return 0, 0, time.Time{}, false
	}
	now := time.Now()
	b := l.bucket(key, now)
	left := max(0, b.TokensAt(now))
	missing := float64(b.Burst()) - left
	return b.Burst(), int(left), now.Add(time.Duration(missing / l.PerSecond * float64(time.Second))), true
}

// maxBuckets bounds the memory of a Limiter, at about 200 bytes each.
const maxBuckets = 100_000

// crowd is the key that all new keys share once there are too many.
const crowd = "\x00crowd"

// bucket finds the key's bucket. Full buckets are evicted, so that addresses which come once do not stay in memory.
func (l *Limiter) bucket(key string, now time.Time) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buckets == nil {
		l.buckets = map[string]*rate.Limiter{}
	}
	if since := now.Sub(l.swept); since > time.Minute || len(l.buckets) >= maxBuckets && since > time.Second {
		for k, b := range l.buckets {
			if b.TokensAt(now) >= float64(b.Burst()) {
				delete(l.buckets, k)
			}
		}
		l.swept = now
	}
	b := l.buckets[key]
	if b == nil && len(l.buckets) >= maxBuckets {
		key = crowd
		b = l.buckets[key]
	}
	if b == nil {
		b = rate.NewLimiter(rate.Limit(l.PerSecond), max(1, int(2*l.PerSecond)))
		l.buckets[key] = b
	}
	return b
}

// InFlight bounds how many requests are in flight at once: of one address, in all, of one account, and with a large body.
// Requests that are slow, hang, or are slow on purpose then take a known share of the memory, and leave room for others. An
// address has as many for its strangers as for those who are signed in, so neither keep the others out. A bound of zero is
// none.
type InFlight struct {
	PerAddress, Total, PerAccount, LargeBodies int
	// LargeBodyWait is how long a large body waits for a slot.
	LargeBodyWait time.Duration

	mu                  sync.Mutex
	total               int
	strangers, signedIn map[string]int // by network
	byAccount           map[string]int

	once  sync.Once
	large chan struct{}
}

// enter takes a slot of the strangers of the request's address, and one of all, until it leaves.
func (f *InFlight) enter(info *Info) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.strangers == nil {
		f.strangers, f.signedIn, f.byAccount = map[string]int{}, map[string]int{}, map[string]int{}
	}
	return f.take(info, f.strangers)
}

// take takes a slot among those of one kind.
func (f *InFlight) take(info *Info, kind map[string]int) error {
	network := remote.Network(info.Address)
	switch {
	case f.PerAddress > 0 && kind[network] >= f.PerAddress:
		return fault.New(fault.TooMany, "This address has %d requests in flight. Wait until some have ended.",
			f.PerAddress).After(time.Second)
	case f.Total > 0 && f.total >= f.Total:
		return fault.New(fault.Unavailable, "The server is at its limit of concurrent requests.").After(time.Second)
	}
	f.total++
	kind[network]++
	info.slotOf = kind
	return nil
}

// release gives the request's slot of its address back, if it has one.
func (f *InFlight) release(info *Info) {
	if info.slotOf != nil {
		f.total--
		release(info.slotOf, remote.Network(info.Address))
		info.slotOf = nil
	}
}

// SignedIn moves the request from the strangers of its address to those who are signed in. It is called when the credential
// seems valid, also for a request that would be refused as a stranger's.
func (i *Info) SignedIn() {
	f := i.inFlight
	if f == nil || i.signedIn {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.release(i)
	i.signedIn = true
	i.refused = f.take(i, f.signedIn)
}

func (f *InFlight) leave(info *Info) {
	if info.large {
		<-f.large
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.release(info)
	if info.account {
		release(f.byAccount, info.Account)
	}
}

// release gives a slot back.
func release(taken map[string]int, key string) {
	if taken[key]--; taken[key] == 0 {
		delete(taken, key)
	}
}

// TakeAccountSlot notes whose request it is and takes one of the slots of the account, until the request ends.
func (i *Info) TakeAccountSlot(account string) error {
	i.Account = account
	if i.SignedIn(); i.refused != nil {
		return i.refused
	}
	f := i.inFlight
	if f == nil || f.PerAccount == 0 {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byAccount[account] >= f.PerAccount {
		return fault.New(fault.TooMany, "This account has %d requests in flight. Wait until some have ended.",
			f.PerAccount).After(time.Second)
	}
	f.byAccount[account]++
	i.account = true
	return nil
}

// small is the length up to which a body needs no slot.
const small = 64 << 10

// takeLargeBodySlot takes one of the slots for large bodies, until the request ends.
func (i *Info) takeLargeBodySlot(ctx context.Context) error {
	f := i.inFlight
	if f == nil || f.LargeBodies == 0 || i.large {
		return nil
	}
	f.once.Do(func() { f.large = make(chan struct{}, f.LargeBodies) })
	ctx, cancel := context.WithTimeout(ctx, f.LargeBodyWait)
	defer cancel()
	select {
	case f.large <- struct{}{}:
		i.large = true
		return nil
	case <-ctx.Done():
		return fault.New(fault.Unavailable, "The server is at its limit of large bodies.").After(time.Second).Because(ctx.Err())
	}
}

// seconds rounds up to whole seconds, at least one.
func seconds(d time.Duration) string {
	return strconv.Itoa(max(1, int(math.Ceil(d.Seconds()))))
}
