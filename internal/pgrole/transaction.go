package pgrole

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"rolecall/internal/fault"
	"rolecall/internal/pgwire"
	"rolecall/internal/primary"
	"rolecall/internal/scram"
	"rolecall/internal/sqlstate"
)

// transaction is an open transaction and the settings read when it began.
type transaction struct {
	*pgx.Conn
	pid        uint32 // the server's process
	now        time.Time
	iterations int  // of SCRAM verifiers, as the server is set
	version    int  // server_version_num
	superuser  bool // the administering role is one

	rowLost        bool // in the try before, SQL from elsewhere changed the role's row
	readsVerifiers bool // it may read pg_authid
}

// change runs f in a transaction under the role's lock, with the role, nil when there is none, and commits. When the
// connection is lost during COMMIT the role tells, by the attempt in its comment, whether it was done: the lock is taken
// first, because a COMMIT that waits for a standby is not visible while it still holds it.
func (s *Server) change(ctx context.Context, name string, by Actor, f func(ctx context.Context, tx *transaction,
	u *User) error) error {
	for i := 1; ; i++ {
		err := s.withRole(ctx, name, f)
		if _, lost := errors.AsType[*commitLost](err); !lost || i == attempts {
			return s.fault(s.explainDenied(ctx, err, name), name)
		}
		u, inspectErr := s.Inspect(ctx, name)
		if inspectErr != nil {
			return s.fault(errors.Join(err, inspectErr), name)
		}
		if u != nil && u.Provenance.Attempt == by.Attempt {
			return nil
		}
	}
}

// commitLost says that the connection failed while a COMMIT was in progress.
type commitLost struct{ cause error }

func (e *commitLost) Error() string {
	return "the connection was lost during COMMIT: " + e.cause.Error()
}
func (e *commitLost) Unwrap() error { return e.cause }

// withRole runs f in a transaction under the role's lock, with the role, nil when there is none, and again when it was
// rolled back for a passing reason.
func (s *Server) withRole(ctx context.Context, name string, f func(ctx context.Context, tx *transaction,
	u *User) error) error {
	lock, begun := roleLock(name), false
	err := s.retry(ctx, func(before error) error {
		conn, err := s.acquire(ctx)
		if err != nil {
			return err
		}
		defer conn.Release()
		var u *User
		read := func(b *pgx.Batch) {
			sql, args := s.selectRoles([]string{name})
			b.Queue(sql, args...).Query(func(rows pgx.Rows) (err error) {
				u, err = onlyUser(rows)
				return err
			})
		}
		by, err := s.watched(ctx, watch{pid: conn.Conn().PgConn().PID()}, func() error {
			return runTransaction(ctx, conn.Conn(), &lock, read, func(ctx context.Context, tx *transaction) error {
				begun = true
				s.Batcher.iterations.Store(int64(tx.iterations))
				_, tx.rowLost = errors.AsType[*rowChanged](before)
				return f(ctx, tx, u)
			})
		})
		if begun {
			return err
		}
		return withBlocker(err, by)
	})
	if !begun && sqlstate.Is(err, unwritable...) {
		return notFound(name)
	}
	return err
}

const selectSettings = `SELECT clock_timestamp(), current_setting('scram_iterations', true),
	current_setting('server_version_num')::int,
	(SELECT rolsuper FROM pg_roles WHERE rolname = current_user), ` + readsVerifiers

// runTransaction runs f in one transaction of conn and commits it, unless f has. The transaction has a lock, if lock is not
// nil, and what read asks for before f begins: all in one round trip, for each costs as much as the work of most statements.
func runTransaction(ctx context.Context, conn *pgx.Conn, lock *int64, read func(*pgx.Batch),
	f func(ctx context.Context, tx *transaction) error) error {
	t := &transaction{Conn: conn, pid: conn.PgConn().PID()}
	defer func() {
		if conn.PgConn().TxStatus() == 'I' || conn.IsClosed() {
			return
		}
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if _, err := conn.Exec(end, `ROLLBACK`); err != nil {
			_ = conn.Close(end) // the transaction ends with the session
		}
	}()
	begin := &pgx.Batch{}
	// A server, database or role may have another default, and a snapshot from before the lock was taken would not show
	// what it waited for.
	begin.Queue(`BEGIN ISOLATION LEVEL READ COMMITTED`)
	sql, args := selectSettings, []any(nil)
	if lock != nil {
		// What is read for the change comes in later statements: they see what was committed while this one waited.
		sql, args = `WITH l AS MATERIALIZED (SELECT pg_advisory_xact_lock($1)) `+selectSettings+` FROM l`, []any{*lock}
	}
	var iterations *string
	begin.Queue(sql, args...).QueryRow(func(row pgx.Row) error {
		return row.Scan(&t.now, &iterations, &t.version, &t.superuser, &t.readsVerifiers)
	})
	if read != nil {
		read(begin)
	}
	err := conn.SendBatch(ctx, begin).Close()
	if err != nil {
		return err
	}
	if !primary.TakesWrites(conn.PgConn()) {
		return primary.Refusal(conn.PgConn()) // what f would read to decide by may be old
	}
	t.now = t.now.UTC()
	t.iterations = scram.DefaultIterations
	if iterations != nil {
		if t.iterations, err = strconv.Atoi(*iterations); err != nil {
			return fmt.Errorf("scram_iterations is %q", *iterations)
		}
	}
	if err := f(ctx, t); err != nil || conn.PgConn().TxStatus() == 'I' {
		return err
	}
	return t.commit(ctx, "")
}

// commit does what is last and commits, in one round trip. Nothing is committed unless all is done.
func (tx *transaction) commit(ctx context.Context, last string) error {
	tag, err := tx.Exec(ctx, last+`COMMIT`)
	switch {
	case sqlstate.Lost(err):
		return &commitLost{err}
	case err != nil:
		return err
	case tag.String() != "COMMIT": // of a transaction that has failed
		return pgx.ErrTxCommitRollback
	}
	return nil
}

// confirm makes COMMIT wait until a synchronous standby, if there is one, has everything read in this transaction. What
// another transaction has committed can be seen although its own wait was broken off, by a connection that was
// lost: then no standby may have it. The wait goes by what is written to the WAL, and a COMMIT of nothing writes nothing.
// https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-REPLICATION
func (tx *transaction) confirm(ctx context.Context) error {
	_, err := tx.Exec(ctx, emitMessage)
	return err
}

// emitMessage writes to the WAL and changes nothing.
const emitMessage = `SELECT pg_logical_emit_message(true, 'rolecall', '')`

func (s *Server) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.Waits.acquire())
	defer cancel()
	return s.Pool.Acquire(ctx)
}

// read runs f on a connection, again when the connection turned out to be dead, or to be that of a former primary.
func (s *Server) read(ctx context.Context, f func(ctx context.Context, conn *pgx.Conn) error) error {
	err := s.retry(ctx, func(error) error {
		conn, err := s.acquire(ctx)
		if err != nil {
			return err
		}
		defer conn.Release()
		err = f(ctx, conn.Conn())
		if !primary.Readable(conn.Conn().PgConn()) {
			return primary.ErrReplica // what was read, or was not found, may be old
		}
		return err
	})
	return s.fault(err, "")
}

// fault says what PostgreSQL's refusal means to the caller. name is the role or database that was to be changed.
func (s *Server) fault(err error, name string) error {
	if err == nil {
		return nil
	}
	if _, lost := errors.AsType[*commitLost](err); lost {
		if errors.Is(err, context.DeadlineExceeded) {
			return fault.New(fault.Unavailable, "The cluster did not confirm the end of the change in time. Read %q to see whether "+
				"it was done.", name).After(2 * time.Second).Because(err)
		}
		return fault.New(fault.Unavailable, "The connection to the cluster was lost at the end of the change. Read %q to see "+
			"whether it was done.", name).
			After(2 * time.Second).Because(err)
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	if refused, ok := errors.AsType[*pgwire.Refused](err); ok {
		return fault.New(fault.Unavailable, "The answer of the cluster was not accepted: %s.", refused).AsOutage().
			After(time.Minute).Because(err)
	}
	if s, ok := errors.AsType[*blockedBy](err); ok {
		return fault.New(fault.Unavailable, "%q cannot be changed: %s. Nothing was changed.", name, s.by).
			After(5 * time.Second).Because(err)
	}
	if sqlstate.LoginRefused(err) && sqlstate.Is(err, sqlstate.InvalidPassword) {
		return fault.New(fault.Unavailable, "The cluster rejects the password of Rolecall's administering role (SQLSTATE %s). It "+
			"was changed since, or the control database was restored from a backup from before its last rotation. An admin gives "+
			"the role a new password in the cluster, and updates the registration with it.", sqlstate.InvalidPassword).
			AsOutage().After(-1).Because(err)
	}
	if sqlstate.LoginRefused(err) {
		return fault.New(fault.Unavailable, "The cluster does not let Rolecall's administering role in (SQLSTATE %s). An admin "+
			"finds the cause with a probe of the cluster.", sqlstate.Code(err)).AsOutage().After(-1).Because(err)
	}
	switch sqlstate.Code(err) {
	case sqlstate.DuplicateObject, sqlstate.UniqueViolation:
		return exists(name)
	case sqlstate.UndefinedObject:
		return notFound(name)
	case sqlstate.ReservedName, sqlstate.InvalidName, sqlstate.NameTooLong, sqlstate.CharacterNotInRepertoire,
		sqlstate.UntranslatableCharacter:
		return fault.New(fault.Invalid, "PostgreSQL rejects the name %q.", name).Because(err)
	case sqlstate.DependentObjects:
		return fault.New(fault.InUse, "Objects in the cluster still depend on %q.", name).Because(err)
	case sqlstate.InsufficientPrivilege:
		return fault.New(fault.Forbidden, "Rolecall's administering role may not do this to %q. PostgreSQL says: %s.", name,
			sqlstate.Message(err)).Because(err)
	case sqlstate.LockNotAvailable, sqlstate.QueryCanceled:
		if name == "" {
			return fault.New(fault.Unavailable, "The cluster is busy and did not answer in time.").After(2 * time.Second).Because(err)
		}
		return fault.New(fault.Unavailable, "The cluster is busy: something else holds %q locked. Nothing was changed.",
			name).After(2 * time.Second).Because(err)
	case sqlstate.TooManyConnections:
		return fault.New(fault.Unavailable, "The cluster has no connection left.").After(2 * time.Second).Because(err)
	}
	if sqlstate.Retry(err) {
		return fault.New(fault.Unavailable, "The cluster is busy: %q is being changed by others. Nothing was changed.",
			name).After(time.Second).Because(err)
	}
	if errors.Is(err, primary.ErrReadOnly) {
		f := fault.New(fault.Unavailable, "The cluster is set to read only: default_transaction_read_only is on for the "+
			"server, the database or Rolecall's administering role. Nothing was changed.").Because(err)
		if s.OneHost {
			return f.AsOutage().After(-1)
		}
		return f.After(5 * time.Second) // another host may be promoted
	}
	if primary.Missing(err) {
		return fault.New(fault.Unavailable, "The cluster has no primary at the moment: the servers that answer take no writes. "+
			"A failover may be in progress.").
			After(2 * time.Second).Because(err)
	}
	if sqlstate.Away(err) {
		return fault.New(fault.Unavailable, "The cluster does not answer.").AsOutage().After(5 * time.Second).Because(err)
	}
	if name != "" && sqlstate.Refusal(err) {
		return fault.New(fault.Invalid, "PostgreSQL, or an extension in it, refuses to do this to %q: %s (SQLSTATE %s).", name,
			sqlstate.Message(err), sqlstate.Code(err)).Because(err)
	}
	return err
}

// explainDenied looks up why a change of a role was denied with SQLSTATE 42501: that is also what hooks and rules of a cloud
// say. Other errors are returned as they are.
func (s *Server) explainDenied(ctx context.Context, err error, name string) error {
	if _, explained := errors.AsType[*fault.Error](err); explained || !sqlstate.Is(err, sqlstate.InsufficientPrivilege) ||
		sqlstate.LoginRefused(err) {
		return err
	}
	remedy, readErr := s.lacks(ctx, name)
	if readErr != nil {
		return err
	}
	if remedy == "" {
		remedy = fmt.Sprintf("PostgreSQL, or an extension in it, says: %s. A probe of the cluster may show more.",
			sqlstate.Message(err))
	}
	return fault.New(fault.Forbidden, "Rolecall's administering role may not do this to %q. %s", name, remedy).Because(err)
}

// lacks says what the administering role lacks to change a role, with the remedy; "" if nothing.
func (s *Server) lacks(ctx context.Context, name string) (string, error) {
	var self, loggedIn string
	var createRole, mayChange bool
	err := s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, selectDenied, name).Scan(&self, &loggedIn, &createRole, &mayChange)
	})
	switch {
	case err != nil:
		return "", err
	case !createRole && self != loggedIn:
		return fmt.Sprintf("Its sessions run as %q, which has no CREATEROLE, because a setting of the server, the database or "+
			"the role says so: ALTER ROLE %s RESET role, and see pg_db_role_setting.", valid(self), valid(ident(loggedIn))), nil
	case !createRole:
		return fmt.Sprintf("It has no CREATEROLE: ALTER ROLE %s CREATEROLE.", valid(ident(self))), nil
	case !mayChange:
		return fmt.Sprintf("From PostgreSQL 16 on it needs ADMIN OPTION on roles that it did not make: GRANT %s TO %s WITH "+
			"ADMIN OPTION.", ident(name), valid(ident(self))), nil
	}
	return "", nil
}

// selectDenied says who the administering role is, whether it has CREATEROLE, and whether that lets it change a role ($1);
// if there is none of that name it does.
const selectDenied = `
	SELECT current_user::text, session_user::text, a.rolsuper OR a.rolcreaterole,
	       a.rolsuper OR current_setting('server_version_num')::int < 160000
	       OR coalesce((SELECT pg_has_role(r.oid, 'MEMBER WITH ADMIN OPTION') FROM pg_roles r WHERE r.rolname = $1), true)
	FROM pg_roles a WHERE a.rolname = current_user`

// Uncertain reports that a change that takes one transaction may have been done although it has failed.
func Uncertain(err error) bool {
	_, lost := errors.AsType[*commitLost](err)
	return lost
}

// Busy reports that an Unavailable came from a cluster that answers, but where a lock or a statement took too long.
func Busy(err error) bool {
	return sqlstate.Is(err, sqlstate.LockNotAvailable, sqlstate.QueryCanceled)
}

// protection is the parameters of a query that tells protected roles: patterns and names of system roles, and the names
// of roles that make their members protected, too. The query's own parameters follow.
func (s *Server) protection(own ...any) []any {
	patterns, names, dangerous := []string{}, []string{}, alwaysDangerous
	for _, glob := range s.SystemRoles {
		switch {
		case strings.ContainsAny(glob, "*?"):
			patterns = append(patterns, likePattern(glob))
		case storable(glob):
			names = append(names, glob)
		}
	}
	if s.ControlRole != "" {
		dangerous = append(slices.Clip(dangerous), s.ControlRole)
	}
	return append([]any{patterns, names, dangerous}, own...)
}
