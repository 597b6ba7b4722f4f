package audit

import (
	"cmp"
	"context"
	"errors"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/control"
)

// Previous is where the detail of an outcome names the attempt before it that changed the same user: each change finds the
// id of the last one with the role, under the role's lock. So they form a trail, which tells what became of an attempt whose
// own outcome is missing.
const Previous = "previous"

// Trail is what the changes of a user tell of an attempt on it.
type Trail int

// What there is to tell.
const (
	Lost    Trail = iota // nothing: the trail ends before it comes so far back
	Named                // the attempt has changed the user: the one after it has found it there
	Passed               // it has not: what was there before it and after it follow on each other
	MadeNew              // the trail begins with a creation that was recorded after the attempt, and with no other deletion between
)

// longestTrail is how many changes are followed back.
const longestTrail = 100

// Follow follows the trail of a user back to an attempt on it. last and previous are the attempts that the role carries; where
// there is no role, it begins with the last outcome that was recorded as done.
func (l *Log) Follow(ctx context.Context, a *Attempt, last, previous string) (Trail, error) {
	own := a.ID.String()
	if own == last || own == previous {
		return Named, nil
	}
	var named, deletedSince bool
	var newest string
	err := l.DB.Pool.QueryRow(ctx, `
		SELECT coalesce(bool_or(detail ->> 'previous' = $4), false), coalesce((array_agg(attempt::text ORDER BY id DESC) FILTER (WHERE outcome = 'done'))[1], ''),
		  coalesce(bool_or(outcome = 'done' AND action LIKE '%.delete'), false)
		FROM audit WHERE cluster_id = $1 AND target = $2 AND id > $3 AND phase = 'outcome' AND split_part(action, '.', 1) = $5`,
		a.Cluster, a.Target, a.row, own, a.kind()).Scan(&named, &newest, &deletedSince)
	if err != nil || named {
		return Named, control.Fault(err)
	}
	last = cmp.Or(last, newest)
	for range longestTrail {
		id, err := uuid.Parse(last)
		if err != nil {
			return Lost, nil
		}
		var action, before string
		var earlier bool
		err = l.DB.Pool.QueryRow(ctx, `
			SELECT a.action, coalesce(o.detail ->> 'previous', ''), coalesce(o.id < $2, false)
			FROM audit a LEFT JOIN audit o ON o.attempt = a.attempt AND o.phase = 'outcome'
			WHERE a.attempt = $1 AND a.phase = 'attempt'`, id, a.row).Scan(&action, &before, &earlier)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return Lost, nil
		case err != nil:
			return Lost, control.Fault(err)
		case earlier:
			return Passed, nil
		case (action == CreateUser || action == CreateDatabase) && !deletedSince:
			return MadeNew, nil
		case action == CreateUser || action == CreateDatabase:
			return Lost, nil
		}
		last, previous = cmp.Or(before, previous), ""
	}
	return Lost, nil
}
