package pgrole

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/fault"
)

// dropAlone drops a user on which nothing depends and which has no sessions, in a single transaction: most that are
// deleted are such. It reports false, and has changed nothing, where the four phases of a deletion are needed.
func (s *Server) dropAlone(ctx context.Context, name string, match Match) (dropped bool, err error) {
	var u *User
	err = s.inTransaction(ctx, roleLock(name), func(ctx context.Context, tx *transaction) error {
		if u, err = s.changeable(ctx, tx, name, match); err != nil {
			return err
		}
		var alone bool
		if err := tx.QueryRow(ctx, selectAlone, u.oid, u.Name).Scan(&alone); err != nil {
			return err
		}
		if !alone || u.Provenance.State == StateDeleting {
			return errNotAlone
		}
		if _, err := tx.Exec(ctx, dropRole(name)); err != nil {
			return err
		}
		return u.gone(ctx, tx)
	})
	if _, lost := errors.AsType[*commitLost](err); lost {
		now, inspectErr := s.Inspect(ctx, name)
		if inspectErr != nil || now != nil && now.oid == u.oid {
			return false, inspectErr // it is there: the phases may do it
		}
		err = s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error { return u.gone(ctx, conn) })
	}
	switch {
	case errors.Is(err, errNotAlone), refusal(err):
		return false, nil // the phases can do more, and say why not where they cannot
	case err != nil:
		return false, s.fault(err, name)
	}
	// One that was being let in may have found the role.
	err = s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := endSessions(ctx, conn, u, true)
		return err
	})
	if err != nil {
		return false, fault.New(fault.Unavailable, "The user %q was deleted, but it could not be made sure that it has no session left.", name).Because(err)
	}
	return true, nil
}

var errNotAlone = errors.New("something depends on the role")

// selectAlone also asks whether a session that comes at the last moment can be ended: that of a dropped role only by those
// who may end any.
const selectAlone = `
  SELECT NOT EXISTS (SELECT FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass AND refobjid = $1)
     AND NOT EXISTS (SELECT FROM pg_auth_members WHERE grantor = $1)
     AND NOT EXISTS (SELECT FROM pg_prepared_xacts WHERE owner = $2::name)
     AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE usesysid = $1)
     AND (pg_has_role('pg_signal_backend', 'USAGE') OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user))`
