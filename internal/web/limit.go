package web

import (
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
	buckets map[string]*bucket
	swept   time.Time
}

type bucket struct {
	limiter *rate.Limiter
	used    time.Time
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

// bucket finds the key's bucket. A bucket that has not been used for a minute is full again and is forgotten, so that
// addresses which come once do not stay in memory.
func (l *Limiter) bucket(key string, now time.Time) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buckets == nil {
		l.buckets = map[string]*bucket{}
	}
	if now.Sub(l.swept) > time.Minute {
		for k, b := range l.buckets {
			if now.Sub(b.used) > time.Minute {
				delete(l.buckets, k)
			}
		}
		l.swept = now
	}
	b := l.buckets[key]
	if b == nil {
		b = &bucket{limiter: rate.NewLimiter(rate.Limit(l.PerSecond), max(1, int(2*l.PerSecond)))}
		l.buckets[key] = b
	}
	b.used = now
	return b.limiter
}

// seconds rounds up to whole seconds, at least one.
func seconds(d time.Duration) string {
	return strconv.Itoa(max(1, int(math.Ceil(d.Seconds()))))
}
