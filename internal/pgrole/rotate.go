package pgrole

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/fault"
	"rolecall/internal/sqlstate"
)

// SetOwnPassword gives the role that logged in on a connection another password, which it may always do. Its sessions stay.
// If the connection is lost at the end, either password may be valid, and for a moment the old one although the COMMIT is
// still in progress: log in with the one that is accepted and set the same new password again.
//
// due runs just before COMMIT, while we hold the role's row lock: its error aborts the change. So a slow rotation that was
// overtaken by another does no harm.
func SetOwnPassword(ctx context.Context, conn *pgx.Conn, newPassword string, due func(ctx context.Context) error) error {
	err := retryOn(ctx, conn, func(tx *transaction) error {
		verifier, err := newVerifier(newPassword, tx.iterations)
		if err != nil {
			return err
		}
		if _, err = tx.Exec(ctx, alterOwnPassword(verifier)); err != nil {
			return err
		}
		return due(ctx)
	})
	if _, lost := errors.AsType[*commitLost](err); lost {
		return fault.New(fault.Unavailable, "The connection to the cluster was lost at the end of the change: the old password "+
			"may count, or the new one.").
			After(2 * time.Second).Because(err)
	}
	switch {
	case sqlstate.Is(err, sqlstate.InsufficientPrivilege):
		return fault.New(fault.Forbidden,
			"The cluster does not let Rolecall's administering role change its own password.").Because(err)
	case sqlstate.Away(err), sqlstate.Retry(err):
		return fault.New(fault.Unavailable,
			"The cluster did not answer in time. The password was not changed.").After(2 * time.Second).Because(err)
	}
	return err
}

// AwaitOwnPassword waits until no other session is about to set a password of the role that logged in on a connection, not
// even a session whose client is gone and whose COMMIT still waits for a standby. The password that is valid then is as
// durable as an acknowledged change; only a login shows which one it is.
func AwaitOwnPassword(ctx context.Context, conn *pgx.Conn, password string) error {
	err := SetOwnPassword(ctx, conn, password, func(context.Context) error { return errAwaited })
	if !errors.Is(err, errAwaited) && !fault.Is(err, fault.Forbidden) { // if it may not be set, no session is about to set it
		return err
	}
	return retryOn(ctx, conn, func(tx *transaction) error { return tx.confirm(ctx) })
}

var errAwaited = errors.New("nobody else sets the password")
