package pgrole

import (
	"cmp"
	"context"
	"strconv"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/sqlstate"
)

// alter changes a role by sql, and locks the role's row in pg_authid before, in the same round trip. sql may be empty. From
// then on to the end of the transaction the name means this role: SQL from elsewhere waits.
//
// Every user may change its own row at any time (ALTER ROLE CURRENT_USER PASSWORD …), in a transaction that it leaves open
// or in many short ones, which would hold up its own deletion. So while the statement waits, the sessions of the role that
// it waits for are terminated; and in a further try all sessions of the role that are changing a role.
func (s *Server) alter(ctx context.Context, tx *transaction, u *User, sql string) error {
	err := s.watchedRow(ctx, tx, u, func() error {
		_, err := tx.Exec(ctx, lockRole(u)+sql)
		return err
	})
	if sqlstate.Is(err, sqlstate.DivisionByZero) {
		return u.replaced()
	}
	return err
}

// alterLast is alter, and commits in the same round trip, unless the role has become protected: SQL from elsewhere may have
// made it a member of another role in the meantime.
func (s *Server) alterLast(ctx context.Context, tx *transaction, u *User, sql string) error {
	unprotected, err := s.checkUnprotected(ctx, tx.Conn, u)
	if err != nil {
		return err
	}
	err = s.watchedRow(ctx, tx, u, func() error { return tx.commit(ctx, lockRole(u)+sql+unprotected) })
	if !sqlstate.Is(err, sqlstate.DivisionByZero) {
		return err
	}
	if _, err := tx.Exec(ctx, `ROLLBACK`); err != nil {
		return err
	}
	now, err := s.role(ctx, tx, u.Name)
	if err == nil && now != nil && now.oid == u.oid {
		err = checkNotProtected(now)
	}
	return cmp.Or(err, u.replaced())
}

// watchedRow is watched for statements that lock the row of a role.
func (s *Server) watchedRow(ctx context.Context, tx *transaction, u *User, f func() error) error {
	by, err := s.watched(ctx, watch{pid: tx.pid, row: u, lost: tx.rowLost}, f)
	if sqlstate.Retry(err) {
		return &rowChanged{err}
	}
	return withBlocker(err, by)
}

// rowChanged says that SQL from elsewhere changed the role's row while it was waited for.
type rowChanged struct{ cause error }

func (e *rowChanged) Error() string { return e.cause.Error() }
func (e *rowChanged) Unwrap() error { return e.cause }

// checkUnprotected is a statement that fails (division by zero) if a role is protected. It executes a prepared statement:
// to plan it costs more than all else that a change does.
func (s *Server) checkUnprotected(ctx context.Context, conn *pgx.Conn, u *User) (string, error) {
	name, err := prepared(ctx, conn, selectUnprotected)
	if err != nil {
		return "", err
	}
	p := s.protection()
	return execute(name, arrayOf(p[0].([]string), "text"), arrayOf(p[1].([]string), "name"), arrayOf(p[2].([]string), "name"),
		strconv.FormatUint(uint64(u.oid), 10)), nil
}

// prepared prepares a statement on a connection, unless that was done before, and returns its name for EXECUTE.
func prepared(ctx context.Context, conn *pgx.Conn, sql string) (name string, err error) {
	statement, err := conn.Prepare(ctx, sql, sql)
	if err != nil {
		return "", err
	}
	return statement.Name, nil
}
