package pgrole

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/pgwire"
	"rolecall/internal/primary"
	"rolecall/internal/sqlstate"
)

// attempts bounds how often something is tried that PostgreSQL rolled back for a passing reason: a deadlock, or "tuple
// concurrently updated" by SQL that ignores our locks.
const attempts = 5

// rowTries is how long a role's row is tried for that SQL from elsewhere keeps changing: as long as a statement may take.
const rowTries = 8 * time.Second

// failoverPause is how often a new primary is looked for.
const failoverPause = 200 * time.Millisecond

// retries decides what follows a failure. It remembers what was tried so far; it reads no clock and no server.
type retries struct {
	failures int       // since the start, or since there was no primary
	lost     bool      // the one retry after a lost connection is used
	oneHost  bool      // a primary that is set to read only has no other that could follow it
	rowUntil time.Time // how long a row is tried for
	until    time.Time // how long a new primary is waited for; zero on one connection, which stays where it is
}

// next is what follows a failure.
type next int

const (
	giveUp       next = iota
	tryAgain          // after a pause
	reconnect         // try again, and on new connections: after a restart the idle ones are as dead as this one
	awaitPrimary      // try again: a failover may be in progress
)

// after returns what follows a failure at the time now, and the pause before it.
func (r *retries) after(err error, now time.Time) (next, time.Duration) {
	if primary.Missing(err) {
		if !now.Before(r.until) || r.oneHost && errors.Is(err, primary.ErrReadOnly) {
			return giveUp, 0
		}
		r.failures, r.lost = 0, false
		return awaitPrimary, failoverPause
	}
	if _, ok := errors.AsType[*rowChanged](err); ok && now.Before(r.rowUntil) {
		return tryAgain, time.Millisecond
	}
	if r.failures++; r.failures == attempts {
		return giveUp, 0
	}
	pause := time.Duration(r.failures*r.failures) * 5 * time.Millisecond
	// Deletions, on one connection, also meet objects that were dropped concurrently, for which PostgreSQL has no other code.
	oneConnection := r.until.IsZero()
	if sqlstate.Retry(err) || oneConnection && sqlstate.Is(err, sqlstate.InternalError) && !sqlstate.Lost(err) {
		return tryAgain, pause
	}
	_, inCommit := errors.AsType[*commitLost](err)
	_, outOfBounds := errors.AsType[*pgwire.Refused](err)
	if oneConnection || r.lost || inCommit || outOfBounds || !sqlstate.Lost(err) || errors.Is(err, context.DeadlineExceeded) ||
		sqlstate.Is(err, sqlstate.TooManyConnections, sqlstate.CannotConnectNow) {
		return giveUp, 0
	}
	r.lost = true
	return reconnect, pause
}

// retry calls once until it succeeds or fails for a reason that does not pass. once takes its connection from the pool, and
// gets the failure of the try before, nil in the first.
func (s *Server) retry(ctx context.Context, once func(before error) error) error {
	now := time.Now()
	r := retries{oneHost: s.OneHost, rowUntil: now.Add(rowTries), until: now.Add(s.Waits.failover())}
	return r.run(ctx, s.Pool.Reset, once)
}

// retryOn runs f in a transaction of one connection, again when it was rolled back for a passing reason.
func retryOn(ctx context.Context, conn *pgx.Conn, f func(tx *transaction) error) error {
	return retries{rowUntil: time.Now().Add(rowTries)}.run(ctx, nil, func(before error) error {
		return runTransaction(ctx, conn, nil, nil, func(_ context.Context, tx *transaction) error {
			_, tx.rowLost = errors.AsType[*rowChanged](before)
			return f(tx)
		})
	})
}

func (r retries) run(ctx context.Context, reset func(), once func(before error) error) error {
	var err error
	for {
		err = once(err)
		if err == nil || ctx.Err() != nil {
			return err
		}
		next, pause := r.after(err, time.Now())
		switch next {
		case giveUp:
			return err
		case reconnect:
			reset()
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}
