package audit

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/control"
)

// settledUntil is the watermark below which every attempt has its outcome, but for those in the table overdue.
const settledUntil = "audit settled"

// settlerLock keeps the settlers of other replicas out. The bytes of "settler".
const settlerLock = 0x736574746c6572

// ErrAway is what a judge returns, or wraps, when the cluster does not answer at all.
var ErrAway = errors.New("the cluster does not answer")

// Settle gives every attempt that was cut off an outcome, which judge finds by looking at the cluster. One replica works
// at a time; on the others it returns at once. An attempt that cannot be judged now is tried again at the next call.
func (l *Log) Settle(ctx context.Context, judge func(ctx context.Context,
	a *Attempt) (Result, error)) (settled, left int, err error) {
	conn, err := l.DB.Pool.Acquire(ctx)
	if err != nil {
		return 0, 0, control.Fault(err)
	}
	defer conn.Release()
	var ours bool
	if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, int64(settlerLock)).Scan(&ours); err != nil || !ours {
		return 0, 0, control.Fault(err)
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if _, unlockErr := conn.Exec(end, `SELECT pg_advisory_unlock($1)`, int64(settlerLock)); unlockErr != nil {
			_ = conn.Conn().Close(end) // the lock ends with the session
		}
	}()
	var now time.Time
	if err := conn.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now); err != nil {
		return 0, 0, control.Fault(err)
	}
	skipped := []uuid.UUID{} // clusters of which no more are tried
	failed := map[uuid.UUID]int{}
	for after := int64(0); ; {
		attempts, err := due(ctx, conn.Conn(), now, after, skipped)
		if err != nil {
			return settled, left, control.Fault(err)
		}
		for _, a := range attempts {
			after = a.row
			if slices.Contains(skipped, a.Cluster) {
				continue
			}
			result, err := judge(ctx, a)
			if err != nil {
				// One that is busy may answer for other users, if not for long; one that cannot be reached is not asked again.
				if failed[a.Cluster]++; errors.Is(err, ErrAway) || failed[a.Cluster] == maxFailures {
					skipped = append(skipped, a.Cluster)
				}
				continue
			}
			if err := l.End(ctx, a, result); err != nil {
				return settled, left, err
			}
			settled++
		}
		if len(attempts) < settleBatch {
			break
		}
	}
	left, err = advance(ctx, conn.Conn(), now)
	return settled, left, control.Fault(err)
}

// maxFailures is how many attempts on a cluster may fail to be judged before it is skipped.
const maxFailures = 3

// advance moves the watermark, and remembers what is left below it.
func advance(ctx context.Context, conn *pgx.Conn, now time.Time) (left int, err error) {
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `
			DELETE FROM overdue a WHERE NOT `+open+`
			  OR (SELECT true FROM audit WHERE attempt = a.attempt AND phase = 'attempt' LIMIT 1) IS NULL`)
		if err != nil {
			return err
		}
		if _, err = tx.Exec(ctx, `INSERT INTO overdue `+late+` ON CONFLICT DO NOTHING`, now, settledUntil); err != nil {
			return err
		}
		if _, err = tx.Exec(ctx, `
			INSERT INTO watermarks VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET time =
			  excluded.time`, settledUntil, now); err != nil {
			return err
		}
		return tx.QueryRow(ctx, `SELECT count(*) FROM overdue`).Scan(&left)
	})
	return left, err
}

// late finds the attempts behind the watermark ($2) whose time is over at $1 and that are open: without an outcome. The
// LIMITs here have rows looked up for each of the few, whatever PostgreSQL knows of the size of the log: after a failover it
// knows nothing, and would read all of it.
const (
	late = `
		SELECT a.attempt FROM audit a
		WHERE a.phase = 'attempt' AND a.settle_after <= $1 AND a.settle_after > coalesce((SELECT time FROM watermarks WHERE name =
		  $2), '-infinity')
		  AND ` + open
	open = `(SELECT true FROM audit o WHERE o.attempt = a.attempt AND o.phase = 'outcome' LIMIT 1) IS NULL`
)

// settleBatch is how many attempts are read at a time.
const settleBatch = 200

// due reads attempts whose time is over, in the order in which they were recorded, from the row behind after, without those
// of some clusters.
func due(ctx context.Context, conn *pgx.Conn, now time.Time, after int64, skipped []uuid.UUID) ([]*Attempt, error) {
	rows, err := conn.Query(ctx, `
		WITH late AS MATERIALIZED (`+late+` UNION SELECT attempt FROM overdue a WHERE `+open+`)
		SELECT a.id, a.attempt, a.action, a.account_guid, a.account_name, coalesce(a.cluster_id,
		  '00000000-0000-0000-0000-000000000000'),
		       a.target, a.request_id, a.address, `+plainTime+`, a.detail
		FROM late CROSS JOIN LATERAL (SELECT * FROM audit WHERE attempt = late.attempt AND phase = 'attempt' LIMIT 1) a
		WHERE a.id > $4 AND (a.cluster_id = ANY ($5)) IS NOT TRUE
		ORDER BY a.id LIMIT $3`, now, settledUntil, settleBatch, after, skipped)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (*Attempt, error) {
		var a Attempt
		err := row.Scan(&a.row, &a.ID, &a.Action, &a.AccountGUID, &a.AccountName, &a.Cluster, &a.Target, &a.RequestID, &a.Address,
			&a.Time, &a.Stored)
		return &a, err
	})
}

// kinds are what an action is done to: the part of its name before the dot. A lease is a user.
func (a *Attempt) kinds() []string {
	kind, _, _ := strings.Cut(a.Action, ".")
	if kind == "user" || kind == "lease" {
		return []string{"user", "lease"}
	}
	return []string{kind}
}

// Creates reports whether an action makes a user, a lease or a database.
func Creates(action string) bool {
	return action == CreateUser || action == CreateLease || action == CreateDatabase
}

// Deletes reports whether an action removes a user, a lease, a database or its access roles.
func Deletes(action string) bool {
	return action == DeleteUser || action == EndLease || action == DeleteDatabase || action == DropAccessRoles
}

// Later reports whether another attempt on the same target of the same cluster was recorded after this one, and may have
// changed it.
func (l *Log) Later(ctx context.Context, a *Attempt) (later bool, err error) {
	err = l.DB.Pool.QueryRow(ctx, `
		SELECT EXISTS (
		  SELECT FROM audit a LEFT JOIN audit o ON o.attempt = a.attempt AND o.phase = 'outcome'
		  WHERE a.cluster_id = $1 AND a.target = $2 AND a.phase = 'attempt' AND split_part(a.action, '.', 1) = ANY ($4)
		    AND a.id > (SELECT id FROM audit WHERE attempt = $3 AND phase = 'attempt')
		    AND coalesce(o.outcome NOT IN ('not_done', 'denied') OR o.`+previousAttempt+` IS NOT NULL,
		      true))`, a.Cluster, a.Target, a.ID, a.kinds()).Scan(&later)
	return later, control.Fault(err)
}
