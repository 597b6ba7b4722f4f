package pgrole

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"rolecall/internal/primary"
	"rolecall/internal/sqlstate"
)

// roleLock and databaseLock are the keys of advisory locks. Every replica, of every release, must compute the same.
func roleLock(name string) int64     { return lockKey("role", name) }
func databaseLock(name string) int64 { return lockKey("database", name) }

func lockKey(kind, name string) int64 {
	sum := sha256.Sum256([]byte("rolecall " + kind + " " + name))
	return int64(binary.BigEndian.Uint64(sum[:]))
}

// lockSession returns a connection whose session holds an advisory lock. It is for what takes more than a transaction.
func (s *Server) lockSession(ctx context.Context, lock int64) (conn *pgxpool.Conn, err error) {
	err = s.terminatingBlockers(ctx, "", lock, func() error {
		return s.retry(ctx, func() error {
			if conn, err = s.acquire(ctx); err != nil {
				return err
			}
			_, err = conn.Exec(ctx, `SELECT pg_advisory_lock($1)`, lock)
			if err == nil && !primary.TakesWrites(conn.Conn().PgConn()) {
				err = errors.Join(primary.Refusal(conn.Conn().PgConn()), conn.Conn().Close(ctx)) // the lock ends with the session
			}
			if err != nil {
				conn.Release()
			}
			return err
		})
	})
	return conn, err
}

// unlock gives back what lockSession took.
func unlock(ctx context.Context, conn *pgx.Conn, lock int64) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_unlock($1)`, lock); err != nil {
		_ = conn.Close(ctx) // the lock ends with the session
	}
}

// terminatingBlockers runs f. If f fails with a lock timeout because sessions of other roles hold or await an advisory lock
// in a database ("" is the registered one), it terminates them and runs f once more. The keys are no secret: anybody who may
// connect there could take one, and so keep itself or others from being changed.
func (s *Server) terminatingBlockers(ctx context.Context, database string, lock int64, f func() error) error {
	err := f()
	if !sqlstate.Is(err, sqlstate.LockNotAvailable) {
		return err
	}
	conn, acquireErr := s.acquire(ctx)
	if acquireErr != nil {
		return err
	}
	defer conn.Release()
	ended, by := terminateBlockers(ctx, conn.Conn(), database, lock)
	if ended == 0 {
		return withBlocker(err, by)
	}
	// The lock passes to the next waiter, so keep terminating blockers until f gets it.
	stop := make(chan struct{})
	var terminator sync.WaitGroup
	terminator.Go(func() {
		for {
			_, by = terminateBlockers(ctx, conn.Conn(), database, lock)
			select {
			case <-stop:
				return
			case <-time.After(blockerPause):
			}
		}
	})
	err = f()
	close(stop)
	terminator.Wait()
	if !sqlstate.Is(err, sqlstate.LockNotAvailable) {
		return err
	}
	return withBlocker(err, by)
}

const blockerPause = 50 * time.Millisecond

// blockedBy says who holds an advisory lock that is ours, and cannot be terminated.
type blockedBy struct {
	by    string
	cause error
}

func (e *blockedBy) Error() string { return e.by + ": " + e.cause.Error() }
func (e *blockedBy) Unwrap() error { return e.cause }

func withBlocker(cause error, by string) error {
	if by == "" {
		return cause
	}
	return &blockedBy{by, cause}
}

// blocker is a role other than the administering one that holds or awaits an advisory lock: in sessions, or in a prepared
// transaction, which has none.
type blocker struct {
	OID  uint32
	Role string // "" when it was dropped
	GID  string // of the prepared transaction
	PIDs []int32
}

// terminateBlockers ends the sessions and prepared transactions of other roles that hold or await an advisory lock, and
// returns how many. by names one that it could not end, in a sentence for the caller; "" if there is none.
func terminateBlockers(ctx context.Context, conn *pgx.Conn, database string, lock int64) (ended int, by string) {
	rows, err := conn.Query(ctx, selectBlockers, lock, database)
	if err != nil {
		return 0, ""
	}
	blockers, err := pgx.CollectRows(rows, pgx.RowToStructByPos[blocker])
	if err != nil {
		return 0, ""
	}
	for _, b := range blockers {
		if len(b.PIDs) > 0 {
			n, err := b.end(ctx, conn)
			ended += n
			if sqlstate.Is(err, sqlstate.InsufficientPrivilege) {
				by = fmt.Sprintf("a session of the role %q, process %d, has taken its lock, and has to be ended by that role or a "+
					"superuser (pg_terminate_backend)", valid(b.Role), b.PIDs[0])
			}
			continue
		}
		if b.rollBack(ctx, conn) == nil {
			ended++
			continue
		}
		by = fmt.Sprintf("the prepared transaction %q of the role %q has taken its lock, and has to be rolled back by that "+
			"role or a superuser (ROLLBACK PREPARED)", valid(b.GID), valid(b.Role))
	}
	return ended, by
}

// end does not wait until the sessions are gone: their locks would go to sessions that were not yet looked at.
func (b *blocker) end(ctx context.Context, conn *pgx.Conn) (int, error) {
	oids := []uint32{b.OID}
	rows, err := conn.Query(ctx, terminateSessions, oids, b.PIDs)
	if err != nil {
		return 0, err
	}
	pids, err := pgx.CollectRows(rows, terminated)
	if sqlstate.Is(err, sqlstate.InsufficientPrivilege) && b.Role != "" {
		if withMembership, memberErr := terminateAsMember(ctx, conn, []string{b.Role}, oids, b.PIDs); memberErr == nil {
			pids, err = withMembership, nil
		}
	}
	return len(pids), err
}

// rollBack is for a superuser and for who may become the role already: PostgreSQL rolls nothing prepared back within a
// transaction, and a membership for the moment would be seen outside.
func (b *blocker) rollBack(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, rollbackPrepared(b.GID))
	if !sqlstate.Is(err, sqlstate.InsufficientPrivilege) || b.Role == "" {
		return err
	}
	if _, err := conn.Exec(ctx, setSessionRole(b.Role)); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, rollbackPrepared(b.GID))
	if _, resetErr := conn.Exec(ctx, `RESET ROLE`); resetErr != nil {
		_ = conn.Close(context.WithoutCancel(ctx)) // nobody else may get it as that role
	}
	return err
}

// selectBlockers finds the blockers of a lock ($1) in a database ($2). A key of 64 bits is shown as two halves, and the
// locks of a prepared transaction by their holder's number, under which it also has the lock on itself.
// https://www.postgresql.org/docs/current/view-pg-locks.html
const selectBlockers = `
	SELECT coalesce(a.usesysid, 0), coalesce(r.rolname, p.owner, '')::text, coalesce(p.gid, ''),
	       coalesce(array_agg(a.pid) FILTER (WHERE a.pid IS NOT NULL), '{}')
	FROM pg_locks l
	LEFT JOIN pg_stat_activity a ON a.pid = l.pid
	LEFT JOIN pg_roles r ON r.oid = a.usesysid
	LEFT JOIN (SELECT x.virtualtransaction, p.* FROM pg_prepared_xacts p JOIN pg_locks x ON x.transactionid = p.transaction AND
	  x.pid IS NULL) p
	  ON l.pid IS NULL AND l.virtualtransaction = p.virtualtransaction
	WHERE l.locktype = 'advisory' AND l.objsubid = 1
	  AND l.database = (SELECT oid FROM pg_database WHERE datname = coalesce(nullif($2, ''), current_database()))
	  AND l.classid::bigint = (($1::bigint >> 32) & 4294967295) AND l.objid::bigint = ($1::bigint & 4294967295)
	  AND (a.usesysid IS NOT NULL OR p.gid IS NOT NULL) AND coalesce(r.rolname, p.owner) IS DISTINCT FROM current_user
	GROUP BY 1, 2, 3`
