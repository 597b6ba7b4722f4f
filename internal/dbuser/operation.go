package dbuser

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/fault"
	"rolecall/internal/lease"
	"rolecall/internal/pgrole"
)

// change is what is about to be done.
type change struct {
	action, target string
	detail         detail
	limit          time.Duration // once it runs
	adminOnly      bool
	oneTransaction bool // nothing of it is done unless that is committed
	// own says that it is about the principal's own lease, which it may change without a right in the cluster.
	own bool
	// ifExpired says that a lease is ended only if it has expired by the clock of the cluster.
	ifExpired bool
}

// detail is what the audit log keeps of an attempt or its outcome, beyond who did what to whom.
type detail struct {
	// Of attempts:
	Owner           string      `json:"owner,omitempty"`
	ReassignTo      string      `json:"reassignTo,omitempty"`
	WithMembers     bool        `json:"withMembers,omitempty"`
	OnBlocked       string      `json:"onBlocked,omitempty"` // "disable", or ""
	ValidUntil      **time.Time `json:"validUntil,omitempty"`
	ConnectionLimit *int        `json:"connectionLimit,omitempty"`
	EndSessions     bool        `json:"endSessions,omitempty"`
	Roles           []string    `json:"roles,omitzero"`   // exactly these
	Grant           string      `json:"grant,omitempty"`  // this role, too
	Revoke          string      `json:"revoke,omitempty"` // this role only
	// Of levels and access roles:
	Access      []userAccess   `json:"access,omitempty"` // of a new user
	Database    string         `json:"database,omitempty"`
	Level       **pgrole.Level `json:"level,omitempty"` // null: none any more
	AccessRoles bool           `json:"accessRoles,omitempty"`
	Schemas     []string       `json:"schemas,omitempty"`
	Adopt       *bool          `json:"adopt,omitempty"`
	// Of leases:
	Lease      uuid.UUID `json:"lease,omitzero"`
	For        string    `json:"for,omitempty"`
	Credential string    `json:"credential,omitempty"`
	TTL        string    `json:"ttl,omitempty"`
	Note       string    `json:"note,omitempty"`
	EndReason  string    `json:"endReason,omitempty"`
	ExpiresAt  time.Time `json:"expiresAt,omitzero"`
	BlockedBy  []string  `json:"blockedBy,omitempty"` // why its role was disabled and not dropped
	// Of credentials:
	RotateEvery string        `json:"rotateEvery,omitempty"`
	Overlap     string        `json:"overlap,omitempty"`
	Window      *lease.Window `json:"window,omitempty"`
	Username    string        `json:"username,omitempty"` // of the lease
	Replaces    string        `json:"replaces,omitempty"` // the user before
	// Of outcomes:
	Ended    *int     `json:"ended,omitempty"`    // sessions
	Users    *int     `json:"users,omitempty"`    // whose verifiers were read
	Members  []string `json:"members,omitempty"`  // that have lost what they had by a deleted user
	Disabled string   `json:"disabled,omitempty"` // why the user was disabled and not deleted
	Ran      *int     `json:"ran,omitempty"`      // statements, to complete access roles
	Reason   string   `json:"reason,omitempty"`   // why it was not done, or not all of it
	Settled  string   `json:"settled,omitempty"`  // what the settler has found
}

// userAccess is a level of a user in a database.
type userAccess struct {
	Database string       `json:"database"`
	Level    pgrole.Level `json:"level"`
}

// refusal is why the principal may not do it; nil when it may.
func (do *change) refusal(p *account.Principal, c *cluster.Cluster) error {
	writes := p.HasOn(c.ID, account.ScopeAdmin, account.ScopeWrite) // a token may have been given fewer scopes
	if err := access.Refusal(p, c); err != nil && (!do.own || !writes) {
		return err
	}
	if do.adminOnly && !p.Has(account.ScopeAdmin) { // on this cluster is not enough
		return fault.New(fault.Forbidden, "This is for admins: it needs the scope %s, which no token has that is read-only or "+
			"limited to clusters.", account.ScopeAdmin)
	}
	return nil
}

// queue is where the change waits until it may run.
func (do *change) queue(c *cluster.Cluster) *cluster.Queue {
	if do.limit > changeTimeout {
		return c.Queues().Long
	}
	return c.Queues().Quick
}

// operation is one recorded change in progress: begin, wait, the change itself, end.
type operation struct {
	service   *Service
	principal *account.Principal
	do        change
	cluster   *cluster.Cluster // as of begin or, later, wait
	server    *pgrole.Server
	queue     *cluster.Queue
	attempt   *audit.Attempt
	recorded  time.Time // when the attempt was, by the wall clock
	late      time.Duration
	leave     func() // gives the slot in the queue back
	done      func() // lets the next change run; nil before wait
	cancel    context.CancelFunc
}

// by is who makes the change, for the role's comment.
func (op *operation) by() pgrole.Actor {
	return pgrole.Actor{Account: op.principal.GUID, Attempt: op.attempt.ID}
}

// begin checks the access rule and records the attempt. invalid is why the change cannot be done in any state of the
// cluster, nil if it may: that is no attempt, and is answered after the rule has been checked. Without an error the caller
// must call end, and release in any case.
func (s *Service) begin(ctx context.Context, p *account.Principal, c *cluster.Cluster, do change, invalid error) (
	*operation, error) {
	entry := p.Entry(do.action, do.target, do.detail)
	entry.Cluster = c.ID
	if refused := do.refusal(p, c); refused != nil {
		return nil, s.Audit.Refuse(ctx, entry, refused)
	}
	if invalid != nil {
		return nil, invalid
	}
	op := &operation{service: s, principal: p, do: do, cluster: c, queue: do.queue(c), late: settleMargin / 2}
	var err error
	if op.server, err = s.server(ctx, c, p); err != nil {
		return nil, err
	}
	if op.leave, err = op.queue.Enter(); err != nil {
		return nil, err
	}
	limit := op.queue.MaxWait + do.limit
	if ends, ok := ctx.Deadline(); ok && inBackground(p) { // its task ends before
		limit = min(limit, time.Until(ends))
	}
	if op.attempt, err = s.Audit.Begin(ctx, entry, limit+settleMargin); err != nil {
		op.leave()
		return nil, err
	}
	op.recorded = wallClock()
	return op, nil
}

// wait waits for the change's turn and checks the access rule again: it, and what is protected, may have changed in the
// meantime.
func (op *operation) wait(ctx context.Context) error {
	turn, err := op.service.waitTurn(ctx, op.principal, op.cluster.ID.String(), op.queue, &op.do)
	if err != nil {
		return err
	}
	op.cluster, op.server, op.done = turn.cluster, turn.server, turn.done
	op.late += op.queue.MaxWait
	return nil
}

// detach returns the context of the change itself, which ends with its limit and not with the client.
func (op *operation) detach(ctx context.Context) (context.Context, error) {
	if wallClock().Sub(op.recorded) > op.late {
		return nil, errLate
	}
	limit := op.do.limit
	if op.done == nil {
		limit += op.queue.MaxWait // it waits in the queue only if it needs to
	}
	if !inBackground(op.principal) { // whose work is done again
		ctx = context.WithoutCancel(ctx)
	}
	ctx, op.cancel = context.WithTimeout(ctx, limit)
	return ctx, nil
}

// waitAndDetach is wait, then detach.
func (op *operation) waitAndDetach(ctx context.Context) (context.Context, error) {
	if err := op.wait(ctx); err != nil {
		return nil, err
	}
	return op.detach(ctx)
}

// end records what became of the change and returns err. previous is the attempt that changed the user last before this
// one, if it is known. An outcome that err leaves open is for the settler.
func (op *operation) end(ctx context.Context, previous uuid.UUID, outcome detail, err error) error {
	op.finish() // the next change need not wait for the record of this one
	if !leavesOpen(err) || op.do.oneTransaction && !pgrole.Uncertain(err) {
		op.service.record(ctx, op.attempt, previous, op.do.detail, outcome, err)
	}
	if pgrole.Uncertain(err) && errors.Is(err, context.DeadlineExceeded) {
		if problem := op.cluster.Unconfirmed(ctx).Problem; problem != "" {
			return fault.Of(err).Add("%s", problem)
		}
	}
	return err
}

// finish lets the next change run.
func (op *operation) finish() {
	if op.cancel != nil {
		op.cancel()
	}
	if op.done != nil {
		op.done()
		op.done = nil
	}
}

// release gives back all that the operation holds, also after a panic.
func (op *operation) release() {
	op.finish()
	op.leave()
}

// turn is a change's right to run.
type turn struct {
	cluster *cluster.Cluster
	server  *pgrole.Server
	done    func()
}

// waitTurn waits for a turn in the queue, and then reads the cluster and its rules again.
func (s *Service) waitTurn(ctx context.Context, p *account.Principal, clusterID string, q *cluster.Queue, do *change) (
	*turn, error) {
	done, err := q.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	t := &turn{done: done}
	if do.own {
		t.cluster, err = s.Clusters.Get(clusterID)
	} else {
		t.cluster, err = s.Cluster(p, clusterID)
	}
	if err == nil {
		err = do.refusal(p, t.cluster)
	}
	if err == nil {
		t.server, err = s.server(ctx, t.cluster, p)
	}
	if err != nil {
		done()
		return nil, err
	}
	return t, nil
}

// wallClock goes on while the machine sleeps; the clock that ends contexts does not.
func wallClock() time.Time { return time.Now().Round(0) }

// errLate keeps a change from beginning when the settler may have judged it already.
var errLate = fault.New(fault.Unavailable,
	"The server was stopped for a while, and the time for this request is over. Nothing was changed.").
	After(time.Second).Because(cluster.ErrNoTurn)

// settleMargin is how long after the limit of a change its attempt counts as cut off.
const settleMargin = 20 * time.Second

// leavesOpen reports that a failure does not tell whether the change was made.
func leavesOpen(err error) bool {
	if err == nil || errors.Is(err, cluster.ErrNoTurn) {
		return false
	}
	f := fault.Of(err)
	return f.Kind == fault.Unavailable || f.Kind == fault.Internal
}

// of adds what an attempt was about to the detail of its outcome, so that an outcome says by itself what was done.
func (d detail) of(attempt detail) detail {
	all, was := reflect.ValueOf(&d).Elem(), reflect.ValueOf(attempt)
	for i := range all.NumField() {
		if all.Field(i).IsZero() {
			all.Field(i).Set(was.Field(i))
		}
	}
	return d
}

// shown are the actions that a cluster shows to be done, by the record of the role or because it is gone. If all that their
// outcome says is that they are done, the settler finds it again.
var shown = []string{audit.CreateUser, audit.ChangePassword, audit.DeleteUser, audit.EndLease}

// record adds the outcome of an attempt, whose detail was asked. One that cannot be written is left to the settler: the
// answer to the caller stays what it is.
func (s *Service) record(ctx context.Context, attempt *audit.Attempt, previous uuid.UUID, asked, outcome detail,
	err error) {
	result := audit.Result{Outcome: audit.Done, Previous: previous}
	if err != nil {
		f := fault.Of(err)
		result.Outcome = audit.NotDone
		outcome = detail{Reason: f.Message, Ended: outcome.Ended}
		if f.Kind == fault.Forbidden || errors.Is(err, access.ErrNoView) {
			result.Outcome = audit.Denied
		}
	}
	end := s.Audit.End
	if err == nil && slices.Contains(shown, attempt.Action) && reflect.ValueOf(outcome).IsZero() {
		end = s.Audit.EndSoon
	}
	result.Detail = outcome.of(asked)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := end(ctx, attempt, result); err != nil {
		s.Log.Warn("an outcome is left to the settler", "request", attempt.RequestID, "attempt", attempt.ID, "error", err)
	}
}
