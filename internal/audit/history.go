package audit

import (
	"context"
	"errors"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/control"
)

// History is what the changes of a user or database tell about an attempt on it.
type History int

// What there is to tell.
const (
	Lost      History = iota // nothing: the history ends before it reaches the attempt
	Found                    // the attempt has changed it: the change after it has found its id there
	Skipped                  // it has not: the changes before and after it follow on each other
	Recreated                // the history begins with a creation recorded after the attempt, with no other deletion between
)

// longestHistory is how many changes are followed back.
const longestHistory = 100

// Follow follows the history of a user or database back to an attempt on it. last and previous are the attempts that the
// role carries; without a role, last is zero and it begins with the last outcome that was recorded as done.
func (l *Log) Follow(ctx context.Context, a *Attempt, last, previous uuid.UUID) (History, error) {
	if a.ID == last || a.ID == previous {
		return Found, nil
	}
	var found, deletedSince bool
	var newest uuid.NullUUID
	err := l.DB.Pool.QueryRow(ctx, `
		SELECT coalesce(bool_or(`+previousAttempt+` = $4), false), (array_agg(attempt ORDER BY id DESC) FILTER (WHERE outcome =
		  'done'))[1],
		  coalesce(bool_or(outcome = 'done' AND action = ANY ($6)), false)
		FROM audit WHERE cluster_id = $1 AND target = $2 AND id > $3 AND phase = 'outcome'
		  AND split_part(action, '.', 1) = ANY ($5)`,
		a.Cluster, a.Target, a.row, a.ID.String(), a.kinds(),
		[]string{DeleteUser, EndLease, DeleteDatabase}).Scan(&found, &newest, &deletedSince)
	if err != nil || found {
		return Found, control.Fault(err)
	}
	if last == uuid.Nil {
		last = newest.UUID
	}
	for range longestHistory {
		if last == uuid.Nil {
			return Lost, nil
		}
		var action string
		var before uuid.NullUUID
		var earlier bool
		err = l.DB.Pool.QueryRow(ctx, `
			SELECT a.action, (o.`+previousAttempt+`)::uuid, coalesce(o.id < $2, false)
			FROM audit a LEFT JOIN audit o ON o.attempt = a.attempt AND o.phase = 'outcome'
			WHERE a.attempt = $1 AND a.phase = 'attempt'`, last, a.row).Scan(&action, &before, &earlier)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return Lost, nil
		case err != nil:
			return Lost, control.Fault(err)
		case earlier:
			return Skipped, nil
		case Creates(action) && !deletedSince:
			return Recreated, nil
		case Creates(action):
			return Lost, nil
		}
		if last = previous; before.Valid {
			last = before.UUID
		}
		previous = uuid.Nil
	}
	return Lost, nil
}

// previousAttempt is Result.Previous in SQL, as text.
const previousAttempt = `detail ->> 'previous'`
