package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/audit"
	"rolecall/internal/control"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/secret"
)

// Rotation replaces the password of the administering role. Both passwords are known to the control database until the
// cluster has accepted the next one, so an interruption between any two steps loses nothing:
//
//	Propose        the next password is stored, encrypted, as pending
//	finish         the cluster gets it, if StillPending, and lets Rolecall log in with it
//	Adopt          it takes the place of the current one
//
// The next rotation or the settler repeats an interrupted one with the same password. So a replica that was only slow does
// no harm.
type Rotation struct {
	Current, Next    Connection
	Attempt          uuid.UUID // the recorded attempt
	id               uuid.UUID
	systemIdentifier string
}

// RotationTimeout ends a rotation.
const RotationTimeout = 40 * time.Second

// staleRotation is the age from which an interrupted rotation is not resumed. The settler only finds out which password the
// cluster accepts: a slow replica has ended, and the control database may have been restored from a backup.
const staleRotation = 5 * time.Minute

// lockRotation is the class of the advisory locks that keep two rotations of one credential apart. The bytes of "rota".
const lockRotation = 0x726f7461

var errRotating = fault.New(fault.InUse,
	"The credential of the cluster is being changed by another request. Try again when that has ended.")

// CheckRotatable says why the password of the administering role cannot be rotated, in any state of the cluster.
func (c *Cluster) CheckRotatable() error {
	if c.err != nil {
		return c.err
	}
	if c.controlRole == c.Role() {
		return fault.New(fault.Invalid, "Rolecall also reaches its control database as the role %q: with another password it "+
			"could not start any more. "+
			"Register the cluster with a role of its own.", c.controlRole)
	}
	return nil
}

// LockCredential keeps all other requests, on every replica, from changing the cluster's credential until unlock is called.
// If another request holds the lock, the fault is InUse.
func (r *Registry) LockCredential(ctx context.Context, id uuid.UUID) (unlock func(), err error) {
	pooled, err := r.db.Pool.Acquire(ctx)
	if err != nil {
		return nil, control.Fault(err)
	}
	// The lock ends with its session. That is not one of the pool's, because the holder waits for a cluster.
	conn := pooled.Hijack()
	var ours bool
	err = conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1, hashtext($2))`, lockRotation, id.String()).Scan(&ours)
	if err == nil && !ours {
		err = errRotating
	}
	if err != nil {
		closeConn(conn)
		return nil, control.Fault(err)
	}
	return func() {
		// It would end with the session, but that ends a moment after its connection.
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_, _ = conn.Exec(end, `SELECT pg_advisory_unlock($1, hashtext($2))`, lockRotation, id.String())
		closeConn(conn)
	}, nil
}

// Rotate gives the administering role a random password, after it has finished a rotation that was interrupted. The caller
// holds the lock of the credential.
func (r *Registry) Rotate(ctx context.Context, id, attempt uuid.UUID) error {
	interrupted, _, err := r.Rotation(ctx, id)
	if err != nil {
		return err
	}
	if interrupted != nil {
		if err := r.finish(ctx, interrupted); err != nil {
			return err
		}
	}
	pending, err := r.Propose(ctx, id, attempt)
	if err != nil {
		return err
	}
	return r.finish(ctx, pending)
}

// finish completes a rotation from wherever it stands: the cluster may have the next password already. A failure that is
// not Unavailable means that the cluster has refused it. Then the current password is the only one again.
func (r *Registry) finish(ctx context.Context, p *Rotation) error {
	conn, err := p.Open(ctx, &p.Current)
	if fault.Is(err, fault.Invalid) {
		next, nextErr := p.Open(ctx, &p.Next)
		if fault.Is(nextErr, fault.Invalid) {
			return fault.New(fault.Invalid, "The cluster accepts neither the current password nor the next one. %s",
				fault.Of(err).Message).Because(err)
		}
		conn, err = next, nextErr
	}
	if err != nil {
		return err
	}
	defer closeConn(conn)
	stillPending := func(ctx context.Context) error { return r.StillPending(ctx, p) }
	if err := pgrole.SetOwnPassword(ctx, conn, string(p.Next.Password), stillPending); err != nil {
		return r.refused(ctx, p, err)
	}
	test, err := p.Open(ctx, &p.Next)
	if err != nil {
		return r.refused(ctx, p, err)
	}
	closeConn(test)
	return r.Adopt(ctx, p)
}

// refused drops the next password if the cluster has refused it, and still accepts the current one.
func (r *Registry) refused(ctx context.Context, p *Rotation, why error) error {
	if fault.Is(why, fault.Unavailable) || fault.Is(why, fault.InUse) {
		return why
	}
	conn, err := p.Open(ctx, &p.Current)
	if err != nil {
		return fault.New(fault.Unavailable, "The rotation could not be finished, and is tried again.").Because(
			errors.Join(why, err))
	}
	closeConn(conn)
	if err := r.Drop(ctx, p); err != nil {
		return err
	}
	if fault.Is(why, fault.Internal) {
		return fault.New(fault.Invalid,
			"The cluster refuses the new password, and keeps the current one; its log says why.").Because(why)
	}
	return fault.New(fault.Invalid, "The cluster keeps the current password. %s", fault.Of(why).Message).Because(why)
}

// SettleRotation finishes the rotation of an attempt that was interrupted, and returns its outcome and the reason for it.
func (r *Registry) SettleRotation(ctx context.Context, log *audit.Log, a *audit.Attempt) (audit.Outcome, string, error) {
	unlock, err := r.LockCredential(ctx, a.Cluster)
	if err != nil {
		return "", "", err
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(ctx, RotationTimeout)
	defer cancel()
	pending, madeBy, err := r.Rotation(ctx, a.Cluster)
	switch {
	case fault.Is(err, fault.NotFound):
		return audit.Unknown, "the cluster is no longer registered", nil
	case err != nil:
		return "", "", err
	case madeBy == a.ID:
		return audit.Done, "its password is the current one", nil
	case pending != nil && pending.Attempt == a.ID && time.Since(a.Time) > staleRotation:
		return r.resolve(ctx, pending)
	case pending != nil && pending.Attempt == a.ID:
		err := r.finish(ctx, pending)
		if left, _, leftErr := r.Rotation(ctx, a.Cluster); leftErr != nil || left != nil {
			return "", "", errors.Join(err, leftErr)
		}
		if err != nil {
			return audit.NotDone, fault.Of(err).Message, nil
		}
		return audit.Done, "it was finished", nil
	}
	later, err := log.Later(ctx, a)
	switch {
	case err != nil:
		return "", "", err
	case later:
		return audit.Unknown, "later attempts have been made on it", nil
	}
	return audit.NotDone, "no password of it is known", nil
}

// resolve finds out which of the two passwords the cluster accepts, and drops the other.
func (r *Registry) resolve(ctx context.Context, p *Rotation) (audit.Outcome, string, error) {
	// The next one is tried again after the current one: a change in progress has ended then.
	for _, with := range []*Connection{&p.Next, &p.Current, &p.Next} {
		conn, err := p.Open(ctx, with)
		if err == nil {
			err = pgrole.AwaitOwnPassword(ctx, conn, string(with.Password))
			closeConn(conn)
			if err == nil && with == &p.Next {
				return audit.Done, "the cluster takes its password", r.Adopt(ctx, p)
			}
		}
		if err != nil && !fault.Is(err, fault.Invalid) {
			return "", "", err
		}
	}
	conn, err := p.Open(ctx, &p.Current)
	if fault.Is(err, fault.Invalid) {
		return audit.Unknown, "the cluster takes neither its password nor the one from before", nil
	}
	if err != nil {
		return "", "", err
	}
	closeConn(conn)
	return audit.NotDone, "the cluster takes the password from before", r.Drop(ctx, p)
}

// awaitRotation waits until no session is about to set a password of the connection's role.
func (c *Connection) awaitRotation(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, _, err := c.Open(ctx)
	if err != nil {
		return unacceptable(err)
	}
	defer closeConn(conn)
	if err := pgrole.AwaitOwnPassword(ctx, conn, string(c.Password)); err != nil {
		return fault.New(fault.InUse, "A rotation of the cluster's credential is still in progress in the cluster. Try again "+
			"when it has ended there.").Because(err)
	}
	return nil
}

// choosePassword puts the password into config that the cluster accepts, while there are two: the credential is being
// rotated, or a rotation was interrupted.
func (l *connector) choosePassword(ctx context.Context, config *pgx.ConnConfig) error {
	l.mu.Lock()
	pending := l.pending
	l.mu.Unlock()
	if pending == "" {
		return nil
	}
	try := config.Copy()
	try.Password, try.Tracer = pending, nil // signIns does not count it
	conn, err := connect(ctx, try)
	if err != nil {
		return nil // then it is the current one, and an unreachable cluster fails the caller's own attempt
	}
	config.Password = pending
	return conn.Close(ctx)
}

// Open connects to the registered cluster, and to no other, with one of the two. The caller closes the connection. The
// fault is Invalid if the cluster rejected the password.
func (p *Rotation) Open(ctx context.Context, with *Connection) (*pgx.Conn, error) {
	conn, facts, err := with.Open(ctx)
	if err == nil && p.systemIdentifier != "" && facts.SystemIdentifier != p.systemIdentifier {
		closeConn(conn)
		return nil, otherCluster(p.systemIdentifier, facts.SystemIdentifier)
	}
	return conn, err
}

// Rotation returns the rotation that is pending, nil if there is none; and the attempt that made the current password, zero
// if none did.
func (r *Registry) Rotation(ctx context.Context, id uuid.UUID) (pending *Rotation, madeBy uuid.UUID, err error) {
	err = r.db.Tx(ctx, func(tx pgx.Tx) error {
		c, err := r.locked(ctx, tx, id)
		if err != nil {
			return err
		}
		if c.err != nil {
			return c.err
		}
		madeBy = c.rotatedBy
		var sealed []byte
		if err := tx.QueryRow(ctx, `SELECT pending FROM clusters WHERE id = $1`, id).Scan(&sealed); err != nil || sealed == nil {
			return err
		}
		s, err := r.open(pendingPlace(id), sealed)
		if err != nil {
			return err
		}
		pending = &Rotation{Current: c.Connection, Next: c.Connection, Attempt: s.Attempt, id: id,
			systemIdentifier: c.SystemIdentifier}
		pending.Next.Password = secret.Text(s.Password)
		return nil
	})
	return pending, madeBy, err
}

// Propose stores a random password as pending, for a cluster that has none pending.
func (r *Registry) Propose(ctx context.Context, id, attempt uuid.UUID) (*Rotation, error) {
	sealed, err := r.seal(pendingPlace(id), credential{Password: rand.Text(), Attempt: attempt})
	if err != nil {
		return nil, err
	}
	if err := r.update(ctx, `UPDATE clusters SET pending = $2 WHERE id = $1 AND pending IS NULL`, id, sealed); err != nil {
		return nil, err
	}
	pending, _, err := r.Rotation(ctx, id)
	if err == nil && (pending == nil || pending.Attempt != attempt) {
		err = errRotating
	}
	return pending, err
}

// StillPending is nil as long as the cluster may be given the next password: it is pending, or another replica has finished
// the rotation and made it the current one. Otherwise the session of the lock was lost and another request has changed the
// credential concurrently: the fault is InUse.
func (r *Registry) StillPending(ctx context.Context, p *Rotation) error {
	return r.db.Tx(ctx, func(tx pgx.Tx) error {
		now, err := r.locked(ctx, tx, p.id)
		if err != nil || now.Connection.Password == p.Next.Password {
			return err
		}
		ours, err := r.isPending(ctx, tx, p)
		if err == nil && !ours {
			err = errRotating
		}
		return err
	})
}

// Adopt makes the next password, which the cluster has just accepted, the current one. If it is not pending any more,
// another request has changed the credential concurrently, after the session of the lock was lost. Which password came last
// is not known then: it is pending again, beside the current one, and the fault is InUse.
func (r *Registry) Adopt(ctx context.Context, p *Rotation) error {
	kept := false
	err := r.db.Tx(ctx, func(tx pgx.Tx) error {
		now, err := r.locked(ctx, tx, p.id)
		if err != nil || now.Connection.Password == p.Next.Password {
			return err
		}
		ours, err := r.isPending(ctx, tx, p)
		if err != nil {
			return err
		}
		place, sql := sealPlace(p.id), `UPDATE clusters SET credential = $2, pending = NULL, revision = revision + 1, `+
			`updated_at = clock_timestamp() WHERE id = $1`
		if kept = !ours; kept {
			place, sql = pendingPlace(p.id), `UPDATE clusters SET pending = $2 WHERE id = $1`
		}
		sealed, err := r.seal(place, credential{Password: string(p.Next.Password), Key: string(now.Connection.Key),
			Attempt: p.Attempt})
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, sql, p.id, sealed)
		return err
	})
	if err == nil {
		err = r.changed(ctx)
	}
	if err == nil && kept {
		err = fault.New(fault.InUse, "The credential of the cluster was changed by another request concurrently. "+
			"Both passwords are kept; rotate it again to be left with one.")
	}
	return err
}

// Drop deletes the next password, which the cluster has refused, unless another one is pending now.
func (r *Registry) Drop(ctx context.Context, p *Rotation) error {
	err := r.db.Tx(ctx, func(tx pgx.Tx) error {
		if _, err := r.locked(ctx, tx, p.id); err != nil {
			return err
		}
		ours, err := r.isPending(ctx, tx, p)
		if err != nil || !ours {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE clusters SET pending = NULL WHERE id = $1`, p.id)
		return err
	})
	if err != nil {
		return err
	}
	return r.changed(ctx)
}

// isPending reports whether a rotation is the one that is pending. It compares the secrets: they may have been re-encrypted
// in the meantime.
func (r *Registry) isPending(ctx context.Context, tx pgx.Tx, p *Rotation) (bool, error) {
	var sealed []byte
	if err := tx.QueryRow(ctx, `SELECT pending FROM clusters WHERE id = $1`, p.id).Scan(&sealed); err != nil || sealed == nil {
		return false, err
	}
	s, err := r.open(pendingPlace(p.id), sealed)
	return err == nil && s.Password == string(p.Next.Password) && s.Attempt == p.Attempt, err
}
