package audit

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/control"
)

// The ids of attempts have the time of their replica's clock. A request may have recorded attempts from when it began, or
// from a little before if that clock was set, until longestRequest later.
const (
	setBack        = time.Minute
	longestRequest = 10 * time.Minute
)

// Trace returns what a request of an account has changed, by its id, which clients choose, and the time when it began, by
// the clock of its replica: Done if there is a change, else Unknown if there may be one, else NotDone. pending says that the
// outcome of an attempt is still missing.
func (l *Log) Trace(ctx context.Context, q control.Querier, account, request string, began time.Time) (outcome Outcome,
	pending bool, err error) {
	var done, unknown bool
	err = q.QueryRow(ctx, `
		SELECT coalesce(bool_or(outcome = 'done'), false), coalesce(bool_or(outcome = 'unknown'), false),
		  coalesce(bool_or(phase = 'attempt' AND NOT EXISTS (
		    SELECT FROM audit o WHERE o.attempt = a.attempt AND o.phase = 'outcome')), false)
		FROM audit a WHERE attempt BETWEEN $1 AND $2 AND account_guid = $3 AND request_id = $4`,
		firstID(began.Add(-setBack)), firstID(began.Add(longestRequest)), account, request).Scan(&done, &unknown, &pending)
	switch {
	case err != nil:
		return "", false, control.Fault(err)
	case done:
		return Done, pending, nil
	case unknown:
		return Unknown, pending, nil
	}
	return NotDone, pending, nil
}

// firstID is the least id of version 7 of a time.
func firstID(t time.Time) (id uuid.UUID) {
	binary.BigEndian.PutUint64(id[:], uint64(t.UnixMilli())<<16)
	return id
}

// DidIn reports whether a change of a user by an operation is recorded as done, and completely so.
func (l *Log) DidIn(ctx context.Context, operation, cluster uuid.UUID, user string) (did bool, err error) {
	err = l.DB.Pool.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM audit
		  WHERE cluster_id = $1 AND target = $2 AND outcome = 'done' AND detail ->> 'operation' = $3 AND NOT detail ? 'reason')`,
		cluster, user, operation.String()).Scan(&did)
	return did, control.Fault(err)
}
