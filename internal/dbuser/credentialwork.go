package dbuser

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/fault"
	"rolecall/internal/lease"
	"rolecall/internal/task"
)

// rotateStored is the kind of tasks that look after a credential, whose key is its id.
const rotateStored = "credential.rotate"

func scheduleRotation(ctx context.Context, tx pgx.Tx, cr *lease.Credential, in time.Duration) error {
	return task.Set(ctx, tx, task.Task{Kind: rotateStored, Key: cr.ID, Cluster: cr.Cluster, In: max(0, in)})
}

// tendCredential does what is due for a credential. Why it cannot is stored, for the people who look at the credential.
func (s *Service) tendCredential(ctx context.Context, id uuid.UUID) (again time.Duration, err error) {
	cr, err := s.LeaseStore.CredentialByID(ctx, id)
	if fault.Is(err, fault.NotFound) {
		return -1, nil
	}
	if err != nil {
		return 0, err
	}
	c, err := s.Clusters.Get(cr.Cluster.String())
	if err != nil {
		return 0, err // it was registered a moment ago, or is gone with its rows
	}
	again, err = s.tend(ctx, c, cr)
	why := ""
	if err != nil {
		why = fault.Of(err).Message
	}
	if stored := s.LeaseStore.SetError(ctx, id, why); err == nil {
		err = stored
	}
	return again, err
}

// tend finishes a rotation that was cut off, rotates a credential if it is time or if its password no longer works, and has
// replaced leases end.
func (s *Service) tend(ctx context.Context, c *cluster.Cluster, cr *lease.Credential) (again time.Duration, err error) {
	if cr.Next != uuid.Nil {
		if again, err := s.finishNext(ctx, c, cr); err != nil || again != 0 {
			return again, err
		}
	}
	others, err := s.liveOf(ctx, cr)
	if err != nil {
		return 0, err
	}
	if rotateIn := rotatesIn(cr, others); rotateIn > 0 {
		return s.endReplaced(ctx, cr, others, rotateIn)
	}
	// First without an attempt: that would be two rows of the audit log each time that it fails.
	server, err := s.server(ctx, c, rolecall)
	if err != nil {
		return 0, err
	}
	if err := server.CheckLeasable(ctx, cr.For); err != nil {
		return 0, err
	}
	_, now, err := s.rotate(ctx, rolecall, c, &rotation{action: audit.RotateStored, cr: cr, set: settingsOf(cr)})
	if err != nil {
		return 0, err
	}
	if others, err = s.liveOf(ctx, now); err != nil {
		return 0, err
	}
	return s.endReplaced(ctx, now, others, now.Clock.Until(now.RotatesAt))
}

// rotatesIn is in how long a credential is rotated; 0 or less: now. It is now if it is time or if the current lease is over.
// It is now as well if there is a later lease: then the control database was restored from an older backup.
func rotatesIn(cr *lease.Credential, live []*lease.Lease) time.Duration {
	live = slices.DeleteFunc(slices.Clone(live), func(l *lease.Lease) bool { return l.State != lease.Active })
	at := slices.IndexFunc(live, func(l *lease.Lease) bool { return l.ID == cr.Lease })
	if at < 0 {
		return 0
	}
	current := live[at]
	// The ids are of the clocks of replicas, these times of the clock of the cluster.
	if slices.ContainsFunc(live, func(l *lease.Lease) bool { return l.CreatedAt.After(current.CreatedAt) }) {
		return 0
	}
	rotates, now := cr.RotatesAt, cr.Clock.Now()
	if cr.Window != nil && !rotates.After(now) {
		// It is late. It waits for the next window if the password is valid until then.
		set := settingsOf(cr)
		if opens := cr.Window.Next(now); opens.Before(cr.Ends(current).Add(-set.lead())) {
			rotates = opens
		}
	}
	return rotates.Sub(now)
}

// endReplaced ends the replaced leases whose overlap is over, and returns in how long the credential is due again.
func (s *Service) endReplaced(ctx context.Context, cr *lease.Credential, live []*lease.Lease, rotateIn time.Duration) (
	again time.Duration, err error) {
	left := cr.Clock.Until(cr.RotatedAt.Add(cr.Overlap))
	var over []*lease.Lease
	for _, l := range live {
		if l.ID != cr.Lease && l.ID != cr.Next && l.State == lease.Active {
			over = append(over, l)
		}
	}
	switch {
	case len(over) == 0:
		return max(0, rotateIn), nil
	case left > 0:
		return max(0, min(left, rotateIn)), nil
	}
	err = s.LeaseStore.DB.Tx(ctx, func(tx pgx.Tx) error {
		for _, l := range over {
			if err := s.endSoon(ctx, tx, l, lease.ByCredential); err != nil {
				return err
			}
		}
		return nil
	})
	return max(0, rotateIn), err
}

// finishNext finishes a rotation that was cut off, if its role was made and the settings are the same, or takes it back. If
// again is not 0, there is nothing else to do for the credential now.
func (s *Service) finishNext(ctx context.Context, c *cluster.Cluster, cr *lease.Credential) (
	again time.Duration, err error) {
	l, err := s.LeaseStore.Get(ctx, cr.Next)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return 0, err
	}
	if err == nil && l.State == lease.Active && l.For == cr.For {
		server, err := s.server(ctx, c, rolecall)
		if err != nil {
			return 0, err
		}
		role, err := server.Inspect(ctx, l.Username)
		if err != nil {
			return 0, err
		}
		if role != nil && role.Provenance.Lease == l.ID {
			return s.finishRotation(ctx, c, cr, l)
		}
	}
	if left := cr.Clock.Until(cr.NextSince.Add(unmade)); left > 0 {
		return left, nil // it may be in progress
	}
	err = s.LeaseStore.DB.Tx(ctx, func(tx pgx.Tx) error {
		now, err := s.LeaseStore.LockCredential(ctx, tx, cr.ID)
		if err != nil || now.Next != cr.Next {
			return err // another replica has done it
		}
		if err := s.LeaseStore.ClearNext(ctx, tx, cr.ID, cr.Next); err != nil {
			return err
		}
		if l != nil {
			if err := s.endSoon(ctx, tx, l, lease.ByCredential); err != nil {
				return err
			}
		}
		if now.Lease == uuid.Nil { // it was to be made, which nobody was told of
			return s.removeCredential(ctx, tx, cr)
		}
		return nil
	})
	if err != nil || cr.Lease == uuid.Nil {
		return -1, err
	}
	cr.Next = uuid.Nil
	return 0, nil
}

// finishRotation makes the next lease, whose role is there, the current one.
func (s *Service) finishRotation(ctx context.Context, c *cluster.Cluster, cr *lease.Credential, l *lease.Lease) (
	again time.Duration, err error) {
	r := &rotation{action: audit.RotateStored, cr: cr, set: settingsOf(cr), lease: l, clock: cr.Clock}
	ends := cr.NextSince.Add(l.ExpiresAt.Sub(l.CreatedAt))
	r.rotates = r.set.nextWithin(ends, cr.NextSince, rand.Float64())
	op, err := s.begin(ctx, rolecall, c, r.change(), nil)
	if err != nil {
		return 0, err
	}
	defer op.release()
	changing, err := op.waitAndDetach(ctx)
	if err == nil {
		err = op.promote(changing, r)
	}
	if err != nil {
		return 0, op.end(ctx, uuid.Nil, detail{}, err)
	}
	op.endOthers(changing, r)
	return time.Millisecond, nil // then it is seen when the ones before have to end
}

// rotateInstead has a credential rotated now whose current lease has ended otherwise.
func (s *Service) rotateInstead(ctx context.Context, tx pgx.Tx, l *lease.Lease) error {
	if l.Account != "" {
		return nil
	}
	id, err := s.LeaseStore.CredentialOf(ctx, tx, l.ID)
	if err != nil || id == uuid.Nil {
		return err
	}
	return task.Set(ctx, tx, task.Task{Kind: rotateStored, Key: id, Cluster: l.Cluster})
}

// rotateFound has the credential rotated of which a lease was found again: it does not know the password of that.
func (s *Service) rotateFound(ctx context.Context, tx pgx.Tx, l *lease.Lease) error {
	if l.Credential == "" {
		return nil
	}
	id, err := s.LeaseStore.CredentialNamed(ctx, tx, l.Cluster, l.Credential)
	if err != nil || id == uuid.Nil {
		return err
	}
	return task.Set(ctx, tx, task.Task{Kind: rotateStored, Key: id, Cluster: l.Cluster})
}

// judgeRotation finds out what became of a rotation that was cut off. Its outcome is recorded in the transaction that makes
// the lease the current one, so another attempt has done that.
func (s *Service) judgeRotation(ctx context.Context, a *audit.Attempt, d detail) (verdict, error) {
	cr, err := s.LeaseStore.GetCredential(ctx, a.Cluster, a.Target)
	switch {
	case fault.Is(err, fault.NotFound):
		return verdict{outcome: audit.NotDone, why: "there is no such credential"}, nil
	case err != nil:
		return verdict{}, err
	case cr.Lease == d.Lease:
		return verdict{outcome: audit.Done, why: "it was finished: its lease is the current one"}, nil
	case cr.Next == d.Lease:
		return verdict{}, isRotating(cr.Name) // it is finished or taken back soon
	}
	return verdict{outcome: audit.NotDone, why: "its lease is not the current one"}, nil
}
