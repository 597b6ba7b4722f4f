package web

import (
	"context"
	"math"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"rolecall/internal/fault"
)

// Limiter is a token bucket a key, for instance an account or an address. The zero rate limits nothing.
type Limiter struct {
	// PerSecond is the refill, and twice as many may come at once.
	PerSecond float64

	mu      sync.Mutex
	buckets map[string]*rate.Limiter
	swept   time.Time
}

// Take takes one token of the key's bucket, or says when there will be one.
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
	return fault.New(fault.TooMany, "Too many requests: the limit is %g a second. Try again in %s s.", l.PerSecond, seconds(delay)).After(delay)
}

// Standing says how many requests the key's bucket holds when full, how many are left, and when it is full again. Without
// a limit ok is false.
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

// crowd is the key of all who come when there are too many to tell apart.
const crowd = "\x00crowd"

// bucket finds the key's bucket. One that is full is forgotten, so that addresses which come once do not stay in memory.
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

// Room bounds how many requests may be under way at once: in all, of one address, of one account, and with a large body. What is slow,
// hangs, or is slow on purpose then takes a share of the memory that is known, and leaves room for others. A bound of zero
// is none.
type Room struct {
	All, Each, Account, Large int
	// Network is what counts as one address; nil: each for itself.
	Network func(address string) string

	mu  sync.Mutex
	all int
	of  map[string]int // by address
	own map[string]int // by account

	once     sync.Once
	forLarge chan struct{}
}

func (r *Room) network(info *Info) string {
	if r.Network == nil {
		return info.Address
	}
	return r.Network(info.Address)
}

// enter makes room for a request, until it leaves.
func (r *Room) enter(info *Info) error {
	from := r.network(info)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.Each > 0 && r.of[from] >= r.Each:
		return fault.New(fault.TooMany, "This address has %d requests under way. Wait until some have ended.", r.Each).After(time.Second)
	case r.All > 0 && r.all >= r.All:
		return fault.New(fault.Unavailable, "The server has as many requests under way as it takes.").After(time.Second)
	}
	if r.of == nil {
		r.of = map[string]int{}
	}
	r.all++
	r.of[from]++
	return nil
}

func (r *Room) leave(info *Info) {
	if info.large {
		<-r.forLarge
	}
	from := r.network(info)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all--
	if r.of[from]--; r.of[from] == 0 {
		delete(r.of, from)
	}
	if info.own {
		if r.own[info.Account]--; r.own[info.Account] == 0 {
			delete(r.own, info.Account)
		}
	}
}

// SignedIn makes room for a request among those of its account, until it leaves.
func (i *Info) SignedIn(account string) error {
	i.Account = account
	if i.room == nil || i.room.Account == 0 {
		return nil
	}
	i.room.mu.Lock()
	defer i.room.mu.Unlock()
	if i.room.own[account] >= i.room.Account {
		return fault.New(fault.TooMany, "This account has %d requests under way. Wait until some have ended.", i.room.Account).After(time.Second)
	}
	if i.room.own == nil {
		i.room.own = map[string]int{}
	}
	i.room.own[account]++
	i.own = true
	return nil
}

// small is how long a body may be that counts as any other.
const small = 64 << 10

// largePatience is how long a large body waits for others to be done with.
const largePatience = 5 * time.Second

// enlarge makes room for a large body, until the request leaves.
func (i *Info) enlarge(ctx context.Context) error {
	if i.room == nil || i.room.Large == 0 || i.large {
		return nil
	}
	i.room.once.Do(func() { i.room.forLarge = make(chan struct{}, i.room.Large) })
	ctx, cancel := context.WithTimeout(ctx, largePatience)
	defer cancel()
	select {
	case i.room.forLarge <- struct{}{}:
		i.large = true
		return nil
	case <-ctx.Done():
		return fault.New(fault.Unavailable, "The server has as many large bodies at hand as it takes.").After(time.Second).Because(ctx.Err())
	}
}

// seconds rounds up to whole seconds, at least one.
func seconds(d time.Duration) string {
	return strconv.Itoa(max(1, int(math.Ceil(d.Seconds()))))
}
