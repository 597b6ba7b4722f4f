package pgrole

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/sqlstate"
)

// lockHeld says which lock was not free in time, and who held it.
type lockHeld struct {
	holder
	database string // "" if the object belongs to the cluster
	object   string // "" if it is none that has a name
	cause    error
}

func (e *lockHeld) Error() string {
	what := "something"
	if e.object != "" {
		what = valid(e.object)
	}
	if e.database != "" {
		what += fmt.Sprintf(" in database %q", valid(e.database))
	}
	return fmt.Sprintf("%s is locked by %s", what, e.holder)
}
func (e *lockHeld) Unwrap() error { return e.cause }

// name finds the name of the object in its database. The answer is as true without it.
func (e *lockHeld) name(ctx context.Context, conn *pgx.Conn) {
	if e.Object != 0 {
		_ = conn.QueryRow(ctx, `SELECT 'table ' || $1::regclass`, e.Object).Scan(&e.object)
	}
}

// holder is a session, or a prepared transaction, that holds a lock which is waited for.
type holder struct {
	PID         int32 // 0: a prepared transaction
	Role        string
	Application string
	Seconds     *int   // since its transaction began; nil if the administering role may not see it
	Object      uint32 // the relation that is locked, 0 if it is another lock
}

func (h holder) String() string {
	if h.PID == 0 {
		return "a prepared transaction (see pg_prepared_xacts)"
	}
	var more []string
	if h.Application != "" {
		more = append(more, fmt.Sprintf("application %q", valid(h.Application)))
	}
	if h.Seconds != nil {
		more = append(more, "in a transaction for "+(time.Duration(*h.Seconds)*time.Second).String())
	}
	s := fmt.Sprintf("process %d of the role %q", h.PID, valid(h.Role))
	if len(more) > 0 {
		s += " (" + strings.Join(more, ", ") + ")"
	}
	return s
}

// selectHolder is who keeps a session ($1) waiting: of several the one with the oldest transaction.
const selectHolder = `
  SELECT coalesce(a.pid, 0), coalesce(a.usename, '')::text, coalesce(a.application_name, ''),
    extract(epoch FROM clock_timestamp() - a.xact_start)::int,
    coalesce((SELECT w.relation FROM pg_locks w WHERE w.pid = $1 AND NOT w.granted LIMIT 1), 0)
  FROM unnest(pg_blocking_pids($1)) b (pid) LEFT JOIN pg_stat_activity a ON a.pid = b.pid
  ORDER BY a.xact_start NULLS LAST LIMIT 1`

// inTries runs f on a connection to a database, again and again, until it gets its locks or Waits.Lock is over. Each try
// waits for a lock only briefly and then pauses: who wants the same lock for reading queues behind f.
func (d *deletion) inTries(ctx context.Context, conn *pgx.Conn, database string, f func() error) error {
	try := d.s.Waits.lockTry()
	for end := time.Now().Add(d.s.Waits.lock()); ; {
		by, err := d.s.watched(ctx, conn.PgConn().PID(), try/4, f)
		if !sqlstate.Is(err, sqlstate.LockNotAvailable) {
			return err
		}
		if !time.Now().Before(end) || pause(ctx, 2*try) != nil {
			held := &lockHeld{holder: by, database: database, cause: err}
			held.name(ctx, conn)
			return held
		}
	}
}

// watched runs f and looks, every so often, who keeps its session waiting. It takes a connection only once f takes longer.
func (s *Server) watched(ctx context.Context, session uint32, every time.Duration, f func() error) (by holder, err error) {
	watching, stop := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() {
		if pause(watching, every) != nil {
			return
		}
		conn, err := s.acquire(watching)
		if err != nil {
			return
		}
		defer conn.Release()
		for {
			rows, err := conn.Query(watching, selectHolder, session)
			if err != nil {
				return
			}
			if h, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[holder]); err == nil {
				by = h
			}
			if pause(watching, every) != nil {
				return
			}
		}
	})
	err = f()
	stop()
	watcher.Wait()
	return by, err
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
		var h holder
		_, err = pgx.ForEachRow(rows, []any{&lock, &database, &h.PID, &h.Role, &h.Application, &h.Seconds, &h.Object},
			func() error {
				if waited != nil && !waited[lock] {
					return nil
				}
				now[lock] = true
				if first == nil {
					first = &lockHeld{holder: h, database: database}
				}
				return nil
			})
		if err != nil || first == nil {
			return nil, err
		}
		if !time.Now().Before(end) {
			if first.Object == 0 {
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
    coalesce(l.pid, 0), coalesce(a.usename, '')::text, coalesce(a.application_name, ''),
    extract(epoch FROM clock_timestamp() - a.xact_start)::int, coalesce(l.relation, 0)
  FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
  WHERE l.granted AND l.pid IS DISTINCT FROM pg_backend_pid() AND a.usesysid IS DISTINCT FROM $1
    AND (l.pid IS NULL OR a.usesysid IS NOT NULL)
    AND (l.locktype = 'object' AND l.classid = 'pg_authid'::regclass AND l.objid = $1
      OR l.locktype = 'relation' AND EXISTS (
        SELECT FROM pg_shdepend d
        WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = $1 AND d.dbid = l.database
          AND d.classid = 'pg_class'::regclass AND d.objid = l.relation
          AND (d.deptype = 'o' AND $2 OR d.deptype = 'a' AND l.mode = 'AccessExclusiveLock')))
  ORDER BY a.xact_start NULLS LAST`
