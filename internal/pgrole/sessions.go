package pgrole

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/fault"
	"rolecall/internal/sqlstate"
)

// sessionsTimeout is how long ended sessions may take to be gone.
const sessionsTimeout = 5 * time.Second

// endSessions ends the sessions that the role has, waits until they are gone and returns how many there were. all also
// ends those that come meanwhile, and waits for those that are being let in, which is for a role that may not log in any
// more. A superuser and a member of pg_signal_backend may end them; any other administering role becomes a member of the
// role for it.
func endSessions(ctx context.Context, conn *pgx.Conn, u *User, all bool) (ended int, err error) {
	terminate := func(q querier, only []int32) ([]int32, error) {
		// What is selected is computed for rows that the conditions have let through, and for no others.
		rows, err := q.Query(ctx, `SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE usesysid = $1 AND ($2::int[] IS NULL OR pid = ANY ($2))`, u.oid, only)
		if err != nil {
			return nil, err
		}
		return pgx.CollectRows(rows, func(row pgx.CollectableRow) (pid int32, err error) {
			return pid, row.Scan(&pid, nil)
		})
	}
	end := time.After(sessionsTimeout)
	seen := map[int32]bool{}
	var only []int32    // nil: any
	var logins []string // that may have found the role before its change; nil: any
	for {
		// Before the sessions are looked at: what is let in between the two is a session by then.
		if all && (logins == nil || len(logins) > 0) {
			if logins, err = loginsUnderWay(ctx, conn, logins); err != nil {
				return len(seen), err
			}
		}
		pids, err := terminate(conn, only)
		if sqlstate.Is(err, sqlstate.InsufficientPrivilege) {
			err = retryOn(ctx, conn, func(tx *transaction) error {
				return tx.asMember(ctx, []string{u.Name}, func() (err error) {
					pids, err = terminate(tx, only)
					return err
				})
			})
		}
		if err != nil || len(pids)+len(logins) == 0 {
			return len(seen), err
		}
		for _, pid := range pids {
			seen[pid] = true
		}
		if !all && only == nil {
			only = pids
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-end:
			if len(pids) == 0 {
				return len(seen), nil // a login this slow has yet to send its password: anybody could hold up deletions with one
			}
			return len(seen), context.DeadlineExceeded
		case <-ctx.Done():
			return len(seen), ctx.Err()
		}
	}
}

// loginsUnderWay returns the transactions, of those given if any are, in which clients are being let in. Whom as is not
// known yet: pg_stat_activity has no row for them, or since PostgreSQL 18 one that names neither user nor database.
func loginsUnderWay(ctx context.Context, q querier, of []string) ([]string, error) {
	rows, err := q.Query(ctx, `
		SELECT l.virtualtransaction FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
		WHERE l.locktype = 'virtualxid' AND l.pid IS NOT NULL -- which it is for prepared transactions
		  AND a.usesysid IS NULL AND a.datid IS NULL AND ($1::text[] IS NULL OR l.virtualtransaction = ANY ($1))`, of)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// endSessionsOf is endSessions after a change that is done, which its errors say.
func (s *Server) endSessionsOf(ctx context.Context, u *User) (ended int, err error) {
	conn, err := s.acquire(ctx)
	if err == nil {
		defer conn.Release()
		ended, err = endSessions(ctx, conn.Conn(), u, false)
	}
	switch {
	case err == nil:
		return ended, nil
	case sqlstate.Is(err, sqlstate.InsufficientPrivilege):
		return ended, fault.New(fault.Forbidden, "The user %q was changed, but Rolecall's administering role may not end its sessions: GRANT pg_signal_backend TO <administering role>.", u.Name).Because(err)
	}
	return ended, fault.New(fault.Unavailable, "The user %q was changed, but it could not be made sure that its sessions have ended. Do it again.", u.Name).
		After(2 * time.Second).Because(err)
}
