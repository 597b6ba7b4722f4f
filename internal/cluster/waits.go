package cluster

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// WaitBounds are the upper bounds of the buckets of a Waits, in seconds. A request waits for at most 6 seconds.
var WaitBounds = [...]float64{.001, .005, .025, .1, .5, 1, 2.5, 6}

// Waits is how long requests have waited for a connection of a pool. It traces a pool: pgxpool calls the methods that
// begin with Trace.
type Waits struct {
	buckets [len(WaitBounds)]atomic.Uint64 // of the waits up to a bound and above the one before it
	count   atomic.Uint64
	nanos   atomic.Int64
}

func (w *Waits) observe(took time.Duration) {
	w.count.Add(1)
	w.nanos.Add(int64(took))
	for i, bound := range WaitBounds {
		if took.Seconds() <= bound {
			w.buckets[i].Add(1)
			return
		}
	}
}

// Histogram returns the waits as Prometheus has them: how many, their sum in seconds, and how many lasted up to each bound.
func (w *Waits) Histogram() (count uint64, sum float64, upTo map[float64]uint64) {
	upTo = make(map[float64]uint64, len(WaitBounds))
	var n uint64
	for i, bound := range WaitBounds {
		n += w.buckets[i].Load()
		upTo[bound] = n
	}
	return max(n, w.count.Load()), time.Duration(w.nanos.Load()).Seconds(), upTo
}

// waitBegan is the key of a context for the time at which the wait began.
type waitBegan struct{}

// TraceAcquireStart implements pgxpool.AcquireTracer.
func (*Waits) TraceAcquireStart(ctx context.Context, _ *pgxpool.Pool, _ pgxpool.TraceAcquireStartData) context.Context {
	return context.WithValue(ctx, waitBegan{}, time.Now())
}

// TraceAcquireEnd implements pgxpool.AcquireTracer.
func (w *Waits) TraceAcquireEnd(ctx context.Context, _ *pgxpool.Pool, _ pgxpool.TraceAcquireEndData) {
	if began, ok := ctx.Value(waitBegan{}).(time.Time); ok {
		w.observe(time.Since(began))
	}
}

// TraceQueryStart implements pgx.QueryTracer, which every tracer has to be. Statements are not traced.
func (*Waits) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (*Waits) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
