package pgrole

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/sqlstate"
)

// blocker is a session, or a prepared transaction, that keeps a session waiting for a lock.
type blocker struct {
	PID         int32  // 0: a prepared transaction
	GID         string // the name of that
	Database    string
	OID         uint32 // of the role
	Role        string // "" when it was dropped
	Ours        bool   // a session of Rolecall, or of the administering role
	Application string
	Seconds     *int   // since its transaction began; nil if the administering role may not see it
	Lock        string // the kind of lock that is waited for; "" if the lock is free again
	Object      uint32 // the relation that is locked, 0 if it is another lock
}

func (b *blocker) String() string {
	if b.PID == 0 {
		return fmt.Sprintf("the prepared transaction %q of the role %q in database %q", valid(b.GID), valid(b.Role),
			valid(b.Database))
	}
	var more []string
	if b.Application != "" {
		more = append(more, fmt.Sprintf("application %q", valid(b.Application)))
	}
	if b.Seconds != nil {
		more = append(more, "in a transaction for "+(time.Duration(*b.Seconds)*time.Second).String())
	}
	s := fmt.Sprintf("process %d of the role %q", b.PID, valid(b.Role))
	if len(more) > 0 {
		s += " (" + strings.Join(more, ", ") + ")"
	}
	return s
}

// selectBlockers finds who keeps a process ($1) waiting, and the sessions of a role ($2, 0 for none) that are about to
// change a role: the last column tells the former, which come in the order of their transactions. In pg_locks the locks of a
// prepared transaction have no process, but share a number with the lock on the transaction itself.
// https://www.postgresql.org/docs/current/view-pg-locks.html
const selectBlockers = `
	WITH l AS MATERIALIZED (SELECT * FROM pg_locks), w AS (SELECT * FROM l WHERE pid = $1::int AND NOT granted),
	  b AS MATERIALIZED (SELECT pg_blocking_pids($1::int) pids)
	SELECT a.pid, '', coalesce(a.datname, '')::text, a.usesysid, coalesce(a.usename, '')::text,
	  coalesce(r.rolname = current_user OR a.application_name = 'rolecall' AND (r.rolcreaterole OR r.rolsuper), false),
	  coalesce(a.application_name, ''), extract(epoch FROM clock_timestamp() - a.xact_start)::int,
	  coalesce((SELECT locktype FROM w LIMIT 1), ''), coalesce((SELECT relation FROM w LIMIT 1), 0)
	FROM b CROSS JOIN pg_stat_activity a LEFT JOIN pg_roles r ON r.oid = a.usesysid
	WHERE a.usesysid IS NOT NULL AND (a.pid = ANY (b.pids) OR a.usesysid = $2::oid AND EXISTS (SELECT FROM l
	  WHERE l.pid = a.pid AND l.relation = 'pg_authid'::regclass AND l.mode = 'RowExclusiveLock'))
	UNION ALL
	SELECT 0, p.gid, p.database::text, coalesce(r.oid, 0), p.owner::text, p.owner = current_user, '',
	  extract(epoch FROM clock_timestamp() - p.prepared)::int, w.locktype, coalesce(w.relation, 0)
	FROM w JOIN l ON l.pid IS NULL AND l.granted AND (l.locktype, l.database, l.relation, l.page, l.tuple, l.transactionid,
	    l.classid, l.objid, l.objsubid) IS NOT DISTINCT FROM (w.locktype, w.database, w.relation, w.page, w.tuple,
	    w.transactionid, w.classid, w.objid, w.objsubid)
	  JOIN l x ON x.pid IS NULL AND x.locktype = 'transactionid' AND x.virtualtransaction = l.virtualtransaction
	  JOIN pg_prepared_xacts p ON p.transaction = x.transactionid LEFT JOIN pg_roles r ON r.rolname = p.owner
	ORDER BY 8`

// watch says whose locks a session waits for, and which of their holders are terminated. Everybody knows the keys of our
// advisory locks, so who holds one without being Rolecall is terminated.
type watch struct {
	pid  uint32 // of the session that waits
	name string // of the role whose advisory lock it is: nobody is terminated for one that does not exist. "": any
	row  *User  // the role whose row is locked; its own sessions are terminated
	lost bool   // the row was changed by others in the try before: its sessions are terminated at once
}

// terminates says whether a blocker is terminated.
func (w watch) terminates(b *blocker) bool {
	if b.Lock == "advisory" {
		return !b.Ours
	}
	return w.row != nil && b.OID == w.row.oid
}

const (
	// firstLook is how long a lock may be awaited before anything is terminated: a user that sets its own password holds it
	// for a few milliseconds.
	firstLook = 200 * time.Millisecond
	// nextLook is for when something was terminated: the lock passes to the next in line, which may be another such session.
	nextLook = 5 * time.Millisecond
)

// watched runs f and looks, every so often, who keeps its session waiting. It takes a connection only for each look, and
// so leaves connections to others. by is the last one that was not terminated, nil if there was none.
func (s *Server) watched(ctx context.Context, w watch, f func() error) (by *blocker, err error) {
	watching, stop := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() { by = s.watch(ctx, watching, w) })
	err = f()
	stop()
	watcher.Wait()
	return by, err
}

func (s *Server) watch(ctx, watching context.Context, w watch) (by *blocker) {
	next := firstLook
	if w.lost {
		next = 0
	}
	for pause(watching, next) == nil {
		next = firstLook
		conn, err := s.acquire(watching)
		if err != nil {
			continue
		}
		ended, left := s.terminateBlockers(ctx, conn.Conn(), w)
		conn.Release()
		if left != nil {
			by = left
		}
		if ended || w.lost {
			next = nextLook
		}
	}
	return by
}

// terminateBlockers terminates what w says, and returns whether there was anything, and the oldest that is left.
func (s *Server) terminateBlockers(ctx context.Context, conn *pgx.Conn, w watch) (ended bool, left *blocker) {
	role := uint32(0)
	if w.lost {
		role = w.row.oid
	}
	rows, err := conn.Query(ctx, selectBlockers, w.pid, role)
	if err != nil {
		return false, nil
	}
	blockers, err := pgx.CollectRows(rows, pgx.RowToAddrOfStructByPos[blocker])
	if err != nil {
		return false, nil
	}
	if w.name != "" && len(blockers) > 0 {
		var exists bool
		err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)`, w.name).Scan(&exists)
		if err != nil || !exists {
			return false, nil
		}
	}
	sessions := map[uint32][]*blocker{} // by role
	for _, b := range blockers {
		switch {
		case w.terminates(b) && b.PID != 0:
			sessions[b.OID] = append(sessions[b.OID], b)
		case w.terminates(b) && s.rollBack(ctx, conn, b) == nil:
			ended = true
		default:
			left = b
		}
	}
	for _, of := range sessions {
		if terminateEach(ctx, conn, of) == nil {
			ended = true
		} else {
			left = of[0]
		}
	}
	return ended, left
}

// terminateEach terminates sessions of one role. It does not wait until they are gone: their locks would go to sessions that
// were not yet looked at.
func terminateEach(ctx context.Context, conn *pgx.Conn, of []*blocker) error {
	oids, pids := []uint32{of[0].OID}, make([]int32, len(of))
	for i, b := range of {
		pids[i] = b.PID
	}
	_, err := conn.Exec(ctx, terminateSessions, oids, pids, "")
	if sqlstate.Is(err, sqlstate.InsufficientPrivilege) && of[0].Role != "" {
		_, err = terminateAsMember(ctx, conn, []string{of[0].Role}, oids, pids, "")
	}
	return err
}

// rollBack is for a superuser and for who may become the role already: PostgreSQL rolls nothing prepared back within a
// transaction, and a membership for the moment would be seen outside. It has to happen in the transaction's own database.
func (s *Server) rollBack(ctx context.Context, conn *pgx.Conn, b *blocker) error {
	if b.Database != conn.Config().Database {
		there, err := s.connect(ctx, b.Database, "UTF8")
		if err != nil {
			return err
		}
		defer there.Close(context.WithoutCancel(ctx))
		conn = there
	}
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

// blockedBy says who holds a lock that is ours, and cannot be terminated.
type blockedBy struct {
	by    string
	cause error
}

func (e *blockedBy) Error() string { return e.by + ": " + e.cause.Error() }
func (e *blockedBy) Unwrap() error { return e.cause }

// withBlocker adds to a lock timeout who held the lock. Rolecall itself is only busy.
func withBlocker(err error, b *blocker) error {
	if !sqlstate.Is(err, sqlstate.LockNotAvailable) || b == nil || b.Lock == "advisory" && b.Ours {
		return err
	}
	remedy := "ended by that role or a superuser (pg_terminate_backend)"
	if b.PID == 0 {
		remedy = "rolled back there by that role or a superuser (ROLLBACK PREPARED)"
	}
	return &blockedBy{fmt.Sprintf("it is locked by %s, which has to be %s", b, remedy), err}
}

// lockHeld says which lock was not free in time, and who held it.
type lockHeld struct {
	by       *blocker // nil if it is not known
	database string   // "" if the object belongs to the cluster
	object   string   // "" if it is none that has a name
	cause    error
}

func (e *lockHeld) Error() string {
	what, by := cmp.Or(valid(e.object), "something"), "another session"
	if e.database != "" {
		what += fmt.Sprintf(" in database %q", valid(e.database))
	}
	if e.by != nil {
		by = e.by.String()
	}
	return fmt.Sprintf("%s is locked by %s", what, by)
}
func (e *lockHeld) Unwrap() error { return e.cause }

// name finds the name of the object in its database. The answer is as true without it.
func (e *lockHeld) name(ctx context.Context, conn *pgx.Conn) {
	if e.by != nil && e.by.Object != 0 {
		_ = conn.QueryRow(ctx, `SELECT 'table ' || $1::regclass`, e.by.Object).Scan(&e.object)
	}
}

// inTries runs f on a connection to a database, again and again, until it gets its locks or Waits.Lock is over. Each try
// waits for a lock only briefly and then pauses: who wants the same lock for reading queues behind f.
func (s *Server) inTries(ctx context.Context, conn *pgx.Conn, database string, f func() error) error {
	var by *blocker
	for end := time.Now().Add(s.Waits.lock()); ; {
		now, err := s.watched(ctx, watch{pid: conn.PgConn().PID()}, f)
		if now != nil {
			by = now
		}
		if !sqlstate.Is(err, sqlstate.LockNotAvailable) {
			return err
		}
		if !time.Now().Before(end) || pause(ctx, 2*s.Waits.lockTry()) != nil {
			if by != nil && by.Lock == "advisory" {
				return withBlocker(err, by)
			}
			held := &lockHeld{by: by, database: database, cause: err}
			held.name(ctx, conn)
			return held
		}
	}
}

// awaitHolders waits, before anything has changed, until nobody holds locks that the deletion will need: the locks that are
// held now, not those that come after, so that a busy table does not stop it. It returns what is still held in the end.
func (d *deletion) awaitHolders(ctx context.Context, wait time.Duration) (*lockHeld, error) {
	if wait < 0 {
		return nil, nil
	}
	var waited map[string]bool
	for end := time.Now().Add(wait); ; {
		rows, err := d.conn.Query(ctx, selectHeld, d.user.oid, d.reassignTo != "")
		if err != nil {
			return nil, err
		}
		now := map[string]bool{}
		var first *lockHeld
		var lock, database string
		var h blocker
		_, err = pgx.ForEachRow(rows, []any{&lock, &database, &h.PID, &h.GID, &h.Database, &h.Role, &h.Application, &h.Seconds,
			&h.Object},
			func() error {
				if waited != nil && !waited[lock] {
					return nil
				}
				now[lock] = true
				if first == nil {
					by := h
					first = &lockHeld{by: &by, database: database}
				}
				return nil
			})
		if err != nil || first == nil {
			return nil, err
		}
		if !time.Now().Before(end) {
			if first.by.Object == 0 {
				first.object = "the role itself"
				return first, nil
			}
			if conn, err := d.s.connect(ctx, first.database, "UTF8"); err == nil {
				first.name(ctx, conn)
				_ = conn.Close(ctx)
			}
			return first, nil
		}
		waited = now
		if err := pause(ctx, lookPause); err != nil {
			return nil, err
		}
	}
}

// selectHeld lists the locks that others hold on a role ($1), on what it owns if that goes to another ($2), and, if they let
// nobody else in, on what it was granted. A lock is named by its transaction and its object. Autovacuum gives way.
const selectHeld = `
  SELECT concat_ws(' ', l.virtualtransaction, l.locktype, l.database, l.relation),
    coalesce((SELECT datname FROM pg_database WHERE oid = l.database), '')::text,
    coalesce(l.pid, 0), coalesce(p.gid, ''), coalesce(a.datname, p.database, '')::text,
    coalesce(a.usename, p.owner, '')::text, coalesce(a.application_name, ''),
    extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, p.prepared))::int, coalesce(l.relation, 0)
  FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
  LEFT JOIN (SELECT x.virtualtransaction, p.* FROM pg_prepared_xacts p JOIN pg_locks x ON x.transactionid = p.transaction AND
    x.pid IS NULL) p ON l.pid IS NULL AND l.virtualtransaction = p.virtualtransaction
  WHERE l.granted AND l.pid IS DISTINCT FROM pg_backend_pid() AND a.usesysid IS DISTINCT FROM $1
    AND (l.pid IS NULL OR a.usesysid IS NOT NULL)
    AND (l.locktype = 'object' AND l.classid = 'pg_authid'::regclass AND l.objid = $1
      OR l.locktype = 'relation' AND EXISTS (
        SELECT FROM pg_shdepend d
        WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = $1 AND d.dbid = l.database
          AND d.classid = 'pg_class'::regclass AND d.objid = l.relation
          AND (d.deptype = 'o' AND $2 OR d.deptype = 'a' AND l.mode = 'AccessExclusiveLock')))
  ORDER BY a.xact_start NULLS LAST`
