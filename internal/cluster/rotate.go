package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/control"
	"rolecall/internal/fault"
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
//	          the cluster is told of it, and lets Rolecall in with it
//	Adopt     it takes the place of the current one
//
// What was cut off is gone through again from the first step that is not in doubt, with the same password: one who was
// only slow, and not dead, does no harm then.
type Rotation struct {
	Current, Next Connection
	Attempt       string // id of the recorded attempt
	id            uuid.UUID
}

// Rotation returns the rotation that is pending, nil when there is none; and the id of the attempt that made the current
// password, if one did.
func (r *Registry) Rotation(ctx context.Context, id uuid.UUID) (pending *Rotation, madeBy string, err error) {
	err = r.db.Tx(ctx, func(tx pgx.Tx) error {
		c, err := r.locked(ctx, tx, id)
		if err != nil {
			return err
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
		pending = &Rotation{Current: c.Connection, Next: c.Connection, Attempt: s.Attempt, id: id}
		pending.Next.Password = s.Password
		return nil
	})
	return pending, madeBy, err
}

// Propose stores a fresh password as pending, for a cluster that has none pending.
func (r *Registry) Propose(ctx context.Context, id uuid.UUID, attempt string) (*Rotation, error) {
	sealed, err := r.seal(pendingPlace(id), secret{Password: rand.Text(), Attempt: attempt})
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

// Adopt makes the next password the current one.
func (r *Registry) Adopt(ctx context.Context, p *Rotation) error {
	sealed, err := r.seal(sealPlace(p.id), secret{Password: p.Next.Password, Key: p.Next.Key, Attempt: p.Attempt})
	if err != nil {
		return err
	}
	return r.end(ctx, p, `
		UPDATE clusters SET credential = $2, pending = NULL, revision = revision + 1, updated_at = clock_timestamp()
		WHERE id = $1`, sealed)
}

// Drop forgets the next password, which the cluster has refused.
func (r *Registry) Drop(ctx context.Context, p *Rotation) error {
	return r.end(ctx, p, `UPDATE clusters SET pending = NULL WHERE id = $1`)
}

// end runs the statement that ends a rotation, unless that is no longer pending. What is pending is compared opened: its
// seal may have been made anew meanwhile.
func (r *Registry) end(ctx context.Context, p *Rotation, sql string, args ...any) error {
	err := r.db.Tx(ctx, func(tx pgx.Tx) error {
		var sealed []byte
		err := tx.QueryRow(ctx, `SELECT pending FROM clusters WHERE id = $1 FOR UPDATE`, p.id).Scan(&sealed)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil || sealed == nil {
			return err
		}
		s, err := r.open(pendingPlace(p.id), sealed)
		if err != nil || s.Password != p.Next.Password || s.Attempt != p.Attempt {
			return err
		}
		_, err = tx.Exec(ctx, sql, append([]any{p.id}, args...)...)
		return err
	})
	if err != nil {
		return err
	}
	return r.Reload(ctx)
}
