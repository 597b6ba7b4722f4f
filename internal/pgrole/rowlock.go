package pgrole

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/sqlstate"
)

// alter changes a role by sql, and locks the role's row in pg_authid before, in the same round trip. sql may be empty. From
// then on to the end of the transaction the name means this role: SQL from elsewhere waits.
//
// Every user may lock its own row and keep it locked (BEGIN; ALTER ROLE CURRENT_USER PASSWORD …), which would hold up its
// own deletion. While the statement waits, the sessions of the role that it waits for are terminated.
func (s *Server) alter(ctx context.Context, tx *transaction, u *User, sql string) error {
	waiting, done := context.WithCancel(ctx)
	defer done()
	var by string
	var terminator sync.WaitGroup
	terminator.Go(func() { by = s.terminateRowBlockers(ctx, waiting.Done(), tx.pid, u) })
	_, err := tx.Exec(ctx, lockRole(u)+sql)
	done()
	terminator.Wait()
	switch {
	case sqlstate.Is(err, sqlstate.DivisionByZero):
		return u.replaced()
	case sqlstate.Is(err, sqlstate.LockNotAvailable):
		return withBlocker(err, by)
	}
	return err
}

// rowLockPause is how long a row lock may be awaited before sessions are terminated: a user that sets its own password holds
// it for a few milliseconds.
const rowLockPause = 200 * time.Millisecond

// terminateRowBlockers terminates, until done, what keeps the process pid waiting for a lock and belongs to the role itself.
// by names what does not, or could not be terminated, in a sentence for the caller; "" if there is nothing.
func (s *Server) terminateRowBlockers(ctx context.Context, done <-chan struct{}, pid uint32, u *User) (by string) {
	select {
	case <-done:
		return ""
	case <-time.After(rowLockPause):
	}
	acquiring, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-done:
			cancel()
		case <-acquiring.Done():
		}
	}()
	conn, err := s.acquire(acquiring)
	if err != nil {
		return ""
	}
	defer conn.Release()
	for {
		if now, err := terminateOwnBlockers(ctx, conn.Conn(), pid, u); err == nil && now != "" {
			by = now
		}
		select {
		case <-done:
			return by
		case <-time.After(blockerPause):
		}
	}
}

func terminateOwnBlockers(ctx context.Context, conn *pgx.Conn, pid uint32, u *User) (by string, err error) {
	rows, err := conn.Query(ctx, selectRowBlockers, pid)
	if err != nil {
		return "", err
	}
	blockers, err := pgx.CollectRows(rows, pgx.RowToStructByPos[blocker])
	if err != nil {
		return "", err
	}
	for _, b := range blockers {
		err := errNotOwn
		switch {
		case b.OID != u.oid:
		case b.GID != "":
			err = b.rollBack(ctx, conn)
		default:
			_, err = b.end(ctx, conn)
		}
		switch {
		case err == nil:
		case b.GID != "":
			by = fmt.Sprintf("the prepared transaction %q of the role %q has locked it, and has to be rolled back by that role or "+
				"a superuser (ROLLBACK PREPARED)", valid(b.GID), valid(b.Role))
		default:
			by = fmt.Sprintf("a session of the role %q, process %d, has locked it, and has to be ended by that role or a "+
				"superuser (pg_terminate_backend)", valid(b.Role), b.PIDs[0])
		}
	}
	return by, nil
}

var errNotOwn = fmt.Errorf("it belongs to another role")

// selectRowBlockers finds the sessions that a process ($1) waits for, by role, and the prepared transactions.
const selectRowBlockers = `
	SELECT a.usesysid, coalesce(r.rolname, '')::text, ''::text, array_agg(a.pid)
	FROM pg_stat_activity a LEFT JOIN pg_roles r ON r.oid = a.usesysid
	WHERE a.pid = ANY ((SELECT pg_blocking_pids($1::int))::int[]) AND a.usesysid IS NOT NULL
	GROUP BY 1, 2
	UNION ALL
	SELECT r.oid, r.rolname::text, p.gid, '{}'
	FROM pg_locks l JOIN pg_prepared_xacts p ON p.transaction = l.transactionid JOIN pg_roles r ON r.rolname = p.owner
	WHERE l.pid = $1::int AND l.locktype = 'transactionid' AND NOT l.granted`
