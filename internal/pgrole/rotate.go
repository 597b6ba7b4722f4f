package pgrole

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/fault"
	"rolecall/internal/scram"
	"rolecall/internal/sqlstate"
)

// SetOwnPassword gives the role that logged in on a connection another password, which it may always do. Sessions that
// it has stay. When the connection is lost at the end, either password may count, and for a moment the old one although
// the COMMIT is still under way: log in with the one that is taken and set the same new password again.
//
// due is asked before the COMMIT, when nobody else can set a password of the role any more: an error calls it off. So one
// who was slow, and has been overtaken, does no harm.
func SetOwnPassword(ctx context.Context, conn *pgx.Conn, newPassword string, due func(ctx context.Context) error) error {
	err := retryOn(ctx, conn, func(tx *transaction) error {
		verifier, err := scram.NewVerifier(newPassword, tx.iterations)
		if err != nil {
			return err
		}
		if _, err = tx.Exec(ctx, alterOwnPassword(verifier)); err != nil {
			return err
		}
		return due(ctx)
	})
	if _, lost := errors.AsType[*commitLost](err); lost {
		return fault.New(fault.Unavailable, "The connection to the cluster was lost at the end of the change: the old password may count, or the new one.").
			After(2 * time.Second).Because(err)
	}
	switch {
	case sqlstate.Is(err, sqlstate.InsufficientPrivilege):
		return fault.New(fault.Forbidden, "The cluster does not let Rolecall's administering role change its own password.").Because(err)
	case sqlstate.Away(err), sqlstate.Retry(err):
		return fault.New(fault.Unavailable, "The cluster did not answer in time. The password was not changed.").After(2 * time.Second).Because(err)
	}
	return err
}

// AwaitOwnPassword waits until no other session is about to set a password of the role that logged in on a connection, not
// even one whose client is gone and whose COMMIT still waits for a standby; and until what counts then is as safe as what a
// change has answered. Which password that is, only logging in tells.
func AwaitOwnPassword(ctx context.Context, conn *pgx.Conn, password string) error {
	err := SetOwnPassword(ctx, conn, password, func(context.Context) error { return errAwaited })
	if !errors.Is(err, errAwaited) && !fault.Is(err, fault.Forbidden) { // where nobody may set it nobody does
		return err
	}
	return retryOn(ctx, conn, func(tx *transaction) error { return tx.confirm(ctx) })
}

var errAwaited = errors.New("nobody else sets the password")
