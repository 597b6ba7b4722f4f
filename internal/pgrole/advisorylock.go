package pgrole

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/sqlstate"
)

// evicting runs f, and once more after a lock timeout if strangers had an advisory lock in a database, "" for the
// registered one. The keys are no secret, and whoever may connect there could take one, and so keep itself or others from
// being changed.
func (s *Server) evicting(ctx context.Context, database string, lock int64, f func() error) error {
	err := f()
	if !sqlstate.Is(err, sqlstate.LockNotAvailable) {
		return err
	}
	conn, acquireErr := s.acquire(ctx)
	if acquireErr != nil {
		return err
	}
	defer conn.Release()
	ended, by := evictStrangers(ctx, conn.Conn(), database, lock)
	if ended == 0 {
		return squat(err, by)
	}
	// The lock goes to the next in line, so all that stand before f are ended while f stands there.
	stop := make(chan struct{})
	var evictor sync.WaitGroup
	evictor.Go(func() {
		for {
			_, by = evictStrangers(ctx, conn.Conn(), database, lock)
			select {
			case <-stop:
				return
			case <-time.After(evictPause):
			}
		}
	})
	err = f()
	close(stop)
	evictor.Wait()
	if !sqlstate.Is(err, sqlstate.LockNotAvailable) {
		return err
	}
	return squat(err, by)
}

const evictPause = 50 * time.Millisecond

// squatted says who has an advisory lock that is ours, and may not be ended.
type squatted struct {
	by    string
	cause error
}

func (e *squatted) Error() string { return e.by + ": " + e.cause.Error() }
func (e *squatted) Unwrap() error { return e.cause }

func squat(cause error, by string) error {
	if by == "" {
		return cause
	}
	return &squatted{by, cause}
}

// stranger is a role other than the administering one that has an advisory lock or waits for it: in sessions, or in a
// prepared transaction, which has none.
type stranger struct {
	OID  uint32
	Role string // "" when it was dropped
	GID  string // of the prepared transaction
	PIDs []int32
}

// evictStrangers ends what strangers hold an advisory lock with, or wait for it, and counts that. Of what it could not end
// it returns a sentence for the caller.
func evictStrangers(ctx context.Context, conn *pgx.Conn, database string, lock int64) (ended int, by string) {
	rows, err := conn.Query(ctx, selectStrangers, lock, database)
	if err != nil {
		return 0, ""
	}
	strangers, err := pgx.CollectRows(rows, pgx.RowToStructByPos[stranger])
	if err != nil {
		return 0, ""
	}
	for _, st := range strangers {
		if len(st.PIDs) > 0 {
			n, err := st.end(ctx, conn)
			ended += n
			if sqlstate.Is(err, sqlstate.InsufficientPrivilege) {
				by = fmt.Sprintf("a session of the role %q, process %d, has taken its lock, and has to be ended by that role or a superuser (pg_terminate_backend)", valid(st.Role), st.PIDs[0])
			}
			continue
		}
		if st.rollBack(ctx, conn) == nil {
			ended++
			continue
		}
		by = fmt.Sprintf("the prepared transaction %q of the role %q has taken its lock, and has to be rolled back by that role or a superuser (ROLLBACK PREPARED)", valid(st.GID), valid(st.Role))
	}
	return ended, by
}

// end does not wait until the sessions are gone: their locks would go to sessions that were not yet looked at.
func (st *stranger) end(ctx context.Context, conn *pgx.Conn) (int, error) {
	oids := []uint32{st.OID}
	rows, err := conn.Query(ctx, terminateSessions, oids, st.PIDs)
	if err != nil {
		return 0, err
	}
	pids, err := pgx.CollectRows(rows, terminated)
	if sqlstate.Is(err, sqlstate.InsufficientPrivilege) && st.Role != "" {
		if asMember, memberErr := terminateAsMember(ctx, conn, []string{st.Role}, oids, st.PIDs); memberErr == nil {
			pids, err = asMember, nil
		}
	}
	return len(pids), err
}

// rollBack is for a superuser and for who may become the role already: PostgreSQL rolls nothing prepared back within a
// transaction, and a membership for the moment would be seen outside.
func (st *stranger) rollBack(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, rollbackPrepared(st.GID))
	if !sqlstate.Is(err, sqlstate.InsufficientPrivilege) || st.Role == "" {
		return err
	}
	if _, err := conn.Exec(ctx, setSessionRole(st.Role)); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, rollbackPrepared(st.GID))
	if _, resetErr := conn.Exec(ctx, `RESET ROLE`); resetErr != nil {
		_ = conn.Close(context.WithoutCancel(ctx)) // nobody else may get it as that role
	}
	return err
}

// selectStrangers finds the strangers of a lock ($1) in a database ($2). A key of 64 bits is shown as two halves, and the
// locks of a prepared transaction by their holder's number, under which it also has the lock on itself.
// https://www.postgresql.org/docs/current/view-pg-locks.html
const selectStrangers = `
	SELECT coalesce(a.usesysid, 0), coalesce(r.rolname, p.owner, '')::text, coalesce(p.gid, ''),
	       coalesce(array_agg(a.pid) FILTER (WHERE a.pid IS NOT NULL), '{}')
	FROM pg_locks l
	LEFT JOIN pg_stat_activity a ON a.pid = l.pid
	LEFT JOIN pg_roles r ON r.oid = a.usesysid
	LEFT JOIN (SELECT x.virtualtransaction, p.* FROM pg_prepared_xacts p JOIN pg_locks x ON x.transactionid = p.transaction AND x.pid IS NULL) p
	  ON l.pid IS NULL AND l.virtualtransaction = p.virtualtransaction
	WHERE l.locktype = 'advisory' AND l.objsubid = 1
	  AND l.database = (SELECT oid FROM pg_database WHERE datname = coalesce(nullif($2, ''), current_database()))
	  AND l.classid::bigint = (($1::bigint >> 32) & 4294967295) AND l.objid::bigint = ($1::bigint & 4294967295)
	  AND (a.usesysid IS NOT NULL OR p.gid IS NOT NULL) AND coalesce(r.rolname, p.owner) IS DISTINCT FROM current_user
	GROUP BY 1, 2, 3`
