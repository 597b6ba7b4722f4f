package pgrole

import (
	"context"

	"rolecall/internal/sqlstate"
)

// alter changes a role by sql, and locks the role's row in pg_authid before, in the same round trip. sql may be empty. From
// then on to the end of the transaction the name means this role: SQL from elsewhere waits.
//
// Every user may change its own row at any time (ALTER ROLE CURRENT_USER PASSWORD …), in a transaction that it leaves open
// or in many short ones, which would hold up its own deletion. So while the statement waits, the sessions of the role that
// it waits for are terminated; and in a further try all sessions of the role that are changing a role.
func (s *Server) alter(ctx context.Context, tx *transaction, u *User, sql string) error {
	by, err := s.watched(ctx, watch{pid: tx.pid, row: u, lost: tx.rowLost}, func() error {
		_, err := tx.Exec(ctx, lockRole(u)+sql)
		return err
	})
	switch {
	case sqlstate.Is(err, sqlstate.DivisionByZero):
		return u.replaced()
	case sqlstate.Retry(err):
		return &rowChanged{err}
	}
	return withBlocker(err, by)
}

// rowChanged says that SQL from elsewhere changed the role's row while it was waited for.
type rowChanged struct{ cause error }

func (e *rowChanged) Error() string { return e.cause.Error() }
func (e *rowChanged) Unwrap() error { return e.cause }
