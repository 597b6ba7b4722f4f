package cluster

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/control"
	"rolecall/internal/fault"
	"rolecall/internal/secret"
)

// lockRotation is the class of the advisory locks that keep two rotations of one credential apart. The bytes of "rota".
const lockRotation = 0x726f7461

var errRotating = fault.New(fault.InUse, "The credential of the cluster is being changed by another request. Try again when that has ended.")

// Exclusive keeps everybody else, on this and on other replicas, from changing the cluster's credential, until release is
// called. When somebody else does that already, the fault is InUse.
func (r *Registry) Exclusive(ctx context.Context, id uuid.UUID) (release func(), err error) {
	pooled, err := r.db.Pool.Acquire(ctx)
	if err != nil {
		return nil, control.Fault(err)
	}
	// The lock ends with its session, which is not one of the pool's: what it is held for waits for a cluster, and the
	// pool is everybody's.
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

// Rotation is a credential on its way to be replaced. Both passwords are known to the control database until the cluster
// has shown that it takes the next one, so being cut off between any two steps loses nothing:
//
//	Propose   the next password is stored, sealed, as pending
//	Due       the cluster is told of it, if nobody has been quicker, and lets Rolecall in with it
//	Adopt     it takes the place of the current one
//
// What was cut off is gone through again from the first step that is not in doubt, with the same password: one who was
// only slow, and not dead, does no harm then.
type Rotation struct {
	Current, Next    Connection
	Attempt          string // id of the recorded attempt
	id               uuid.UUID
	systemIdentifier string
}

// Open connects to the registered cluster, and to no other, with one of the two. The caller closes the connection. The
// fault is Invalid when the cluster did not let Rolecall in.
func (p *Rotation) Open(ctx context.Context, with *Connection) (*pgx.Conn, error) {
	conn, facts, err := with.Open(ctx)
	if err == nil && p.systemIdentifier != "" && facts.SystemIdentifier != p.systemIdentifier {
		closeConn(conn)
		return nil, otherCluster(p.systemIdentifier, facts.SystemIdentifier)
	}
	return conn, err
}

// Rotation returns the rotation that is pending, nil when there is none; and the id of the attempt that made the current
// password, if one did.
func (r *Registry) Rotation(ctx context.Context, id uuid.UUID) (pending *Rotation, madeBy string, err error) {
	err = r.db.Tx(ctx, func(tx pgx.Tx) error {
		c, err := r.locked(ctx, tx, id)
		if err != nil {
			return err
		}
		if c.unusable != nil {
			return c.unusable
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
		pending = &Rotation{Current: c.Connection, Next: c.Connection, Attempt: s.Attempt, id: id, systemIdentifier: c.SystemIdentifier}
		pending.Next.Password = secret.Text(s.Password)
		return nil
	})
	return pending, madeBy, err
}

// Propose stores a fresh password as pending, for a cluster that has none pending.
func (r *Registry) Propose(ctx context.Context, id uuid.UUID, attempt string) (*Rotation, error) {
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

// Due is nil as long as the cluster may be given the next password: it is pending, or somebody who has finished the rotation
// has made it the current one already. Else, when the session of the lock was lost and another request has changed the
// credential meanwhile, the fault is InUse.
func (r *Registry) Due(ctx context.Context, p *Rotation) error {
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

// Adopt makes the next password, with which the cluster has just let Rolecall in, the current one. When it is not pending
// any more, because another request has changed the credential meanwhile (which takes that the session of the lock was
// lost), nobody can tell whose password came last: then it is pending again, beside what is current, and the fault is InUse.
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
		place, sql := sealPlace(p.id), `UPDATE clusters SET credential = $2, pending = NULL, revision = revision + 1, updated_at = clock_timestamp() WHERE id = $1`
		if kept = !ours; kept {
			place, sql = pendingPlace(p.id), `UPDATE clusters SET pending = $2 WHERE id = $1`
		}
		sealed, err := r.seal(place, credential{Password: string(p.Next.Password), Key: string(now.Connection.Key), Attempt: p.Attempt})
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
		err = fault.New(fault.InUse, "The credential of the cluster was changed by another request meanwhile. Both passwords are kept; rotate it again to be left with one.")
	}
	return err
}

// Drop forgets the next password, which the cluster has refused, unless another one is pending by now.
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

// isPending reports whether a rotation is the one that is pending. It compares what was sealed: the seal itself may have
// been made anew meanwhile.
func (r *Registry) isPending(ctx context.Context, tx pgx.Tx, p *Rotation) (bool, error) {
	var sealed []byte
	if err := tx.QueryRow(ctx, `SELECT pending FROM clusters WHERE id = $1`, p.id).Scan(&sealed); err != nil || sealed == nil {
		return false, err
	}
	s, err := r.open(pendingPlace(p.id), sealed)
	return err == nil && s.Password == string(p.Next.Password) && s.Attempt == p.Attempt, err
}
