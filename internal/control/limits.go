package control

import (
	"cmp"
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"rolecall/internal/trace"
)

// Waits bounds every statement, which the server ends, and getting a connection. A request holds one for a few statements.
// A zero field means the default, which is for production; the tests of other things are more patient on a busy machine.
type Waits struct {
	Lock      time.Duration // default: 3 s
	Statement time.Duration // default: 5 s
	Connect   time.Duration // to all hosts together. Default: 5 s
	// Hang ends a statement whose server does not: it hangs, or waits in a COMMIT for a standby that is gone. Default: 8 s
	Hang time.Duration
}

func (w Waits) lock() time.Duration      { return cmp.Or(w.Lock, 3*time.Second) }
func (w Waits) statement() time.Duration { return cmp.Or(w.Statement, 5*time.Second) }
func (w Waits) connect() time.Duration   { return cmp.Or(w.Connect, 5*time.Second) }
func (w Waits) hang() time.Duration      { return cmp.Or(w.Hang, 8*time.Second) }

// limits are the limits that the server does not keep by itself. pgx has no settings for them, but uses the context that a
// tracer returns.
type limits struct {
	connect, hang time.Duration
}

type (
	cancelKey    struct{}
	unlimitedKey struct{}
)

// unlimited is for statements that take as long as they take.
func unlimited(ctx context.Context) context.Context {
	return context.WithValue(ctx, unlimitedKey{}, true)
}

func begin(ctx context.Context, limit time.Duration) context.Context {
	if ctx.Value(unlimitedKey{}) != nil {
		return ctx
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	return context.WithValue(ctx, cancelKey{}, cancel)
}

func end(ctx context.Context) {
	if cancel, ok := ctx.Value(cancelKey{}).(context.CancelFunc); ok {
		cancel()
	}
}

func (l *limits) TraceAcquireStart(ctx context.Context, _ *pgxpool.Pool, _ pgxpool.TraceAcquireStartData) context.Context {
	return begin(ctx, l.connect)
}

func (*limits) TraceAcquireEnd(ctx context.Context, _ *pgxpool.Pool, _ pgxpool.TraceAcquireEndData) {
	end(ctx)
}

// peer is the name of the control database in traces.
const peer = "control"

func (l *limits) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	return trace.Statement(begin(ctx, l.hang), peer, "", data.SQL)
}

func (*limits) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryEndData) {
	trace.EndStatement(ctx, data.Err)
	end(ctx)
}

func (l *limits) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return trace.Batch(begin(ctx, l.hang), peer, "")
}

func (*limits) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

func (*limits) TraceBatchEnd(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchEndData) {
	trace.EndStatement(ctx, data.Err)
	end(ctx)
}
