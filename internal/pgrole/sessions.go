package pgrole

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/sqlstate"
)

// sessionsTimeout is how long ended sessions may take to be gone.
const sessionsTimeout = 5 * time.Second

// whichSessions selects the sessions to end. The zero value selects those that are open at the first look.
type whichSessions struct {
	// all also means those that appear in the meantime, and waits for logins in progress; it is for roles that may no longer
	// log in.
	all bool
	// database means those in a database, and of logins in progress. These may have found a setting before its change.
	database string
}

// endSessions ends sessions of the roles, waits until they are gone and returns how many there were. A superuser and a
// member of pg_signal_backend may end them; any other administering role becomes a member of the roles for it.
func endSessions(ctx context.Context, conn *pgx.Conn, of []*User, which whichSessions) (ended int, err error) {
	names, oids := make([]string, len(of)), make([]uint32, len(of))
	for i, u := range of {
		names[i], oids[i] = u.Name, u.oid
	}
	end := time.After(sessionsTimeout)
	seen := map[int32]bool{}
	var only []int32    // nil: any
	var logins []string // that may have found the role before its change; nil: any
	for {
		var pids []int32
		look := &pgx.Batch{}
		// Before the sessions are read: a login that completes in between shows up as a session.
		if which != (whichSessions{}) && (logins == nil || len(logins) > 0) {
			look.Queue(selectLogins, logins).Query(collect(&logins, pgx.RowTo[string]))
			look.Queue(clearSessions)
		}
		look.Queue(terminateSessions, oids, only, which.database).Query(collect(&pids, terminated))
		err := conn.SendBatch(ctx, look).Close()
		if sqlstate.Is(err, sqlstate.InsufficientPrivilege) {
			pids, err = terminateAsMember(ctx, conn, names, oids, only, which.database)
		}
		if err != nil || len(pids)+len(logins) == 0 {
			return len(seen), err
		}
		for _, pid := range pids {
			seen[pid] = true
		}
		if !which.all && only == nil && len(logins) == 0 {
			only = append([]int32{}, pids...)
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

// terminateAsMember is terminateSessions for an administering role that has to become a member of the roles first.
func terminateAsMember(ctx context.Context, conn *pgx.Conn, names []string, oids []uint32,
	only []int32, database string) (pids []int32, err error) {
	err = retryOn(ctx, conn, func(tx *transaction) error {
		return tx.withMembership(ctx, names, func() error {
			rows, err := tx.Query(ctx, terminateSessions, oids, only, database)
			if err != nil {
				return err
			}
			pids, err = pgx.CollectRows(rows, terminated)
			return err
		})
	})
	return pids, err
}

// terminateSessions ends the sessions of roles ($1), only those of some processes ($2) unless that is null, and those in a
// database ($3) unless that is "". What is selected is computed for rows that the conditions have let through, and for no
// others.
const terminateSessions = `SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE usesysid = ANY ($1::oid[]) ` +
	`AND ($2::int[] IS NULL OR pid = ANY ($2)) AND ($3::text = '' OR datname = $3::name)`

func terminated(row pgx.CollectableRow) (pid int32, err error) {
	return pid, row.Scan(&pid, nil)
}

// selectLogins finds the transactions, of those given ($1) unless that is null, in which clients are logging in. As which
// user is not known yet: pg_stat_activity has no row for them, or since PostgreSQL 18 one that names neither user nor
// database.
const selectLogins = `
	SELECT l.virtualtransaction FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
	WHERE l.locktype = 'virtualxid' AND l.pid IS NOT NULL -- which it is for prepared transactions
	  AND a.usesysid IS NULL AND a.datid IS NULL AND ($1::text[] IS NULL OR l.virtualtransaction = ANY ($1))`

// clearSessions is for between selectLogins and terminateSessions in one transaction: else the sessions are those of the
// first look.
const clearSessions = `SELECT pg_stat_clear_snapshot()`

// EndSessions ends the sessions that a user has now and returns how many there were. Its errors say that the user was
// changed: it is called after a change that touches no open session.
func (s *Server) EndSessions(ctx context.Context, u *User) (ended int, err error) {
	return s.endSessionsOf(ctx, u, whichSessions{}, "Do it again.")
}
