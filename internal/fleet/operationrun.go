package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/cluster"
	"rolecall/internal/dbuser"
	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/task"
)

// The limits of the work on an operation.
const (
	// workAtOnce is how many users of one operation are changed at a time in one cluster: half of what the queue of a cluster
	// lets run, so that people do not wait for operations.
	workAtOnce = 2
	// workTime is after what time a task begins with no other user. Then others of the cluster have their turn.
	workTime = 10 * time.Second
	// quickTime and deleteTime are how long one user may take. claimMargin later it is taken for cut off, and tried again.
	quickTime, deleteTime, claimMargin = 45 * time.Second, 150 * time.Second, 15 * time.Second
	// maxTries is how often a user is tried that is busy, at most. A cluster that is unreachable has another limit.
	maxTries = 10
	// maxRetryPause is the longest pause between two tries.
	maxRetryPause = 30 * time.Second
	// maxStale is how often a user is read again that others change at the same time.
	maxStale = 5
	// GiveUpAfter is for how long a cluster is tried that does not answer.
	GiveUpAfter = 24 * time.Hour
	// Kept is for how long an operation is shown after it has ended.
	Kept = 90 * 24 * time.Hour
	// tendEvery is how often an operation is checked as a whole, and tendEnded how often after its end.
	tendEvery, tendEnded = 10 * time.Second, 24 * time.Hour
)

// itemTime is how long one user may take.
func (a Action) itemTime() time.Duration {
	if a == Delete {
		return deleteTime
	}
	return quickTime
}

// work carries out the part of an operation in one cluster.
func (s *Service) work(ctx context.Context, id uuid.UUID) (again time.Duration, err error) {
	const done = -1
	w, err := s.readPartOf(ctx, id)
	if fault.Is(err, fault.NotFound) {
		return done, nil
	}
	if err != nil {
		return 0, err
	}
	until := time.Now().Add(workTime)
	var group errgroup.Group
	for range workAtOnce {
		group.Go(func() error { return s.workUntil(ctx, w, until) })
	}
	if err := group.Wait(); err != nil || ctx.Err() != nil {
		return 0, err
	}
	open, wait, err := s.open(ctx, id)
	if err != nil || open > 0 {
		return wait, err
	}
	return done, s.finish(ctx, w.operation.ID)
}

// workUntil changes one user after the other, until a time or until none is due.
func (s *Service) workUntil(ctx context.Context, w *operationPart, until time.Time) error {
	for ctx.Err() == nil && time.Now().Before(until) {
		p, c, err := s.actor(ctx, w)
		if fault.Is(err, fault.Forbidden) {
			return s.fail(ctx, w.operation.ID, fault.Of(err).Message)
		}
		if err != nil {
			return err
		}
		it, err := s.claim(ctx, w)
		if err != nil || it == nil {
			return err
		}
		if err := s.do(ctx, p, c, w, it); err != nil {
			return err
		}
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	return nil // the task's time is over, and it is due again
}

// fail ends an operation whose account may no longer do it.
func (s *Service) fail(ctx context.Context, id uuid.UUID, reason string) error {
	return s.DB.Tx(ctx, func(tx pgx.Tx) error {
		_, err := stop(ctx, tx, id, stateFailed, reason, reason)
		return err
	})
}

// actor returns the account of the operation and the cluster, with their current rights and rules. The error is Forbidden if
// the account may no longer manage the cluster.
func (s *Service) actor(ctx context.Context, w *operationPart) (*account.Principal, *cluster.Cluster, error) {
	p, err := s.Users.Accounts.Resume(ctx, &w.operation.as)
	if err != nil {
		return nil, nil, err
	}
	c, err := s.Users.Clusters.Get(w.cluster.String())
	if err != nil { // it is new to this replica; if it is gone, so is the task
		return nil, nil, fault.New(fault.Unavailable, "The cluster is not known.").Because(err)
	}
	if !access.MayManage(p, c) {
		return nil, nil, fault.New(fault.Forbidden, "The account may no longer manage the cluster %q.", c.DisplayName)
	}
	return p, c, nil
}

// do changes one user and stores the result. It returns an error if the cluster does not answer.
func (s *Service) do(ctx context.Context, p *account.Principal, c *cluster.Cluster, w *operationPart, it *item) error {
	// What is in progress when the task's time is over goes on. It ends when the replica is to stop.
	doing, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.operation.Action.itemTime())
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.Canceled) {
			cancel()
		}
	})()
	detail, err := s.apply(doing, p, c, w, it)
	storing, end := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer end()
	switch f := fault.Of(err); {
	case err == nil:
		return s.ended(storing, it, itemDone, detail)
	case errors.Is(err, errSkipped):
		return s.ended(storing, it, itemSkipped, detail)
	case errors.Is(ctx.Err(), context.Canceled):
		return cmp.Or(s.retry(storing, it, 0, 0, it.Detail), err)
	case f.Kind == fault.Unavailable && (f.Outage || c.Unreachable()):
		return cmp.Or(s.retry(storing, it, 0, 0, f.Message), s.stuck(storing, w.id, f.Message), err)
	case f.Kind == fault.Unavailable || f.Kind == fault.Stale || f.Kind == fault.Internal || f.Kind == fault.TooMany:
		if f.Kind == fault.Internal {
			s.Log.Error("a user of an operation has failed", "operation", w.operation.ID, "cluster", c.ID, "user", it.Name,
				"error", err)
		}
		if it.Tries+1 < maxTries {
			return s.retry(storing, it, 1, min(time.Second<<it.Tries, maxRetryPause), f.Message)
		}
	}
	return s.ended(storing, it, itemFailed, fault.Of(err).Message)
}

// errSkipped says that there was nothing to do.
var errSkipped = errors.New("there was nothing to do")

// apply makes one change in the name of a principal, and returns what is to be said of it. One that was made before a kill
// is made again, which changes nothing more.
func (s *Service) apply(ctx context.Context, p *account.Principal, c *cluster.Cluster, w *operationPart, it *item) (
	detail string, err error) {
	if w.operation.Action == RotateCredential {
		return "", s.rotate(ctx, p, c, it)
	}
	if it.CutOff {
		// Others may have changed the user since it was done: that is not undone.
		if did, err := s.Users.Audit.DidIn(ctx, w.operation.ID, c.ID, it.Name); err != nil || did {
			return "", err
		}
	}
	for range maxStale {
		_, u, err := s.Users.User(ctx, p, c.ID.String(), it.Name)
		gone := fault.Is(err, fault.NotFound) || err == nil && it.OID != 0 && it.OID != u.OID()
		switch {
		case gone && w.operation.Action == Delete && it.Begun:
			return "", nil // it was deleted before a kill
		case fault.Is(err, fault.NotFound) && w.operation.Action == Delete:
			return fault.Of(err).Message, errSkipped
		case err != nil:
			return "", err
		case gone:
			return "", fault.New(fault.InUse, "The user %q is another user now: it was deleted and made again.", it.Name)
		}
		detail, err = s.change(ctx, p, c.ID.String(), u, w.operation)
		if !fault.Is(err, fault.Stale) {
			return detail, err
		}
	}
	return "", fault.New(fault.Unavailable, "The user %q is being changed by others all the time.", it.Name)
}

// change does the action of an operation to a user, if the user is still as it was read.
func (s *Service) change(ctx context.Context, p *account.Principal, clusterID string, u *pgrole.User, o *Operation) (
	detail string, err error) {
	match := etag.Match{u.Revision()}
	switch o.Action {
	case Disable:
		_, _, ended, err := s.Users.DisableUser(ctx, p, clusterID, u.Name, match)
		return endedSessions(ended), err
	case Enable:
		_, _, err = s.Users.EnableUser(ctx, p, clusterID, u.Name, match)
	case EndSessions:
		_, _, ended, err := s.Users.SetLimits(ctx, p, clusterID, u.Name, pgrole.Limits{}, true, match)
		return endedSessions(ended), err
	case Expire:
		_, _, _, err = s.Users.SetLimits(ctx, p, clusterID, u.Name, pgrole.Limits{ValidUntil: &o.Options.ValidUntil}, false,
			match)
	case Delete:
		how := dbuser.Deletion{ReassignTo: o.Options.ReassignTo}
		if o.Options.OnBlocked == "" {
			return "", s.Users.DeleteUser(ctx, p, clusterID, u.Name, how, match)
		}
		_, disabled, err := s.Users.DeleteOrDisableUser(ctx, p, clusterID, u.Name, how, match)
		if disabled != nil {
			return "It could not be deleted, and was disabled.", err
		}
		return "", err
	}
	return "", err
}

func endedSessions(n int) string {
	switch n {
	case 0:
		return ""
	case 1:
		return "1 session was ended."
	}
	return fmt.Sprintf("%d sessions were ended.", n)
}

// rotate rotates a stored credential, unless that was done before a kill.
func (s *Service) rotate(ctx context.Context, p *account.Principal, c *cluster.Cluster, it *item) error {
	if it.Begun {
		_, cr, err := s.Users.Credential(ctx, p, c.ID.String(), it.Name)
		if err != nil || cr.RotatedAt.After(it.BegunAt) {
			return err
		}
	}
	_, _, err := s.Users.RotateStored(ctx, p, c.ID.String(), it.Name)
	return err
}

// tend checks an operation as a whole: it gives up parts, ends the operation, and removes it long after that.
func (s *Service) tend(ctx context.Context, id uuid.UUID) (again time.Duration, err error) {
	const done = -1
	o, now, err := s.operation(ctx, id)
	switch {
	case fault.Is(err, fault.NotFound):
		return done, nil
	case err != nil:
		return 0, err
	case !o.EndedAt.IsZero() && now.Sub(o.EndedAt) >= Kept:
		return done, s.remove(ctx, id)
	case !o.EndedAt.IsZero():
		return min(Kept-now.Sub(o.EndedAt), tendEnded), nil
	}
	if o.State == stateRunning {
		err = s.tendParts(ctx, id)
	} else {
		err = s.endRest(ctx, o)
	}
	return tendEvery, cmp.Or(err, s.finish(ctx, id))
}

// tendParts checks the open parts of a running operation.
func (s *Service) tendParts(ctx context.Context, id uuid.UUID) error {
	parts, err := s.openParts(ctx, id)
	if err != nil {
		return err
	}
	for _, w := range parts {
		c, err := s.Users.Clusters.Get(w.cluster.String())
		switch {
		case !w.registered:
			err = s.giveUp(ctx, w.id, "The cluster is no longer registered.")
		case w.idle >= GiveUpAfter:
			err = s.giveUp(ctx, w.id, "It could not be done within 24 hours. "+w.lastError)
		case err == nil && c.Unreachable():
			err = s.stuck(ctx, w.id, "The cluster does not answer.")
		default:
			err = nil
		}
		if err == nil && w.registered {
			err = s.DB.Tx(ctx, func(tx pgx.Tx) error {
				return task.Ensure(ctx, tx, task.Task{Kind: workTask, Key: w.id, Cluster: w.cluster})
			})
		}
		if err != nil {
			return err
		}
	}
	return nil
}
