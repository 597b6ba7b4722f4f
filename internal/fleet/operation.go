package fleet

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/sqlstate"
	"rolecall/internal/task"
)

// Action is what an operation does to each of its users.
type Action string

// The actions.
const (
	Disable          Action = "disable"
	Enable           Action = "enable"
	EndSessions      Action = "endSessions"
	Expire           Action = "expire"
	RotateCredential Action = "rotateCredential"
	Delete           Action = "delete"
)

// Actions are all of them.
var Actions = []Action{Disable, Enable, EndSessions, Expire, RotateCredential, Delete}

// Target is a database user, or with RotateCredential a stored credential, by the id of its cluster.
type Target struct {
	Cluster string
	Name    string
}

// Request is an action and its targets. Exactly one of Filter and Targets is set.
type Request struct {
	Action     Action
	Filter     *Filter
	Targets    []Target
	ValidUntil time.Time     // of Expire
	After      time.Duration // of Expire, in place of ValidUntil: so long after the start
	ReassignTo string        // of Delete
	Disable    bool          // of Delete: a user that cannot be deleted is disabled
}

// check refuses a request without an action or without targets, and options of another action.
func (r *Request) check() error {
	at, after := !r.ValidUntil.IsZero(), r.After != 0
	switch {
	case !slices.Contains(Actions, r.Action):
		return fault.New(fault.Invalid, "There is no action %.50q.", r.Action)
	case (r.Filter == nil) == (r.Targets == nil):
		return fault.New(fault.Invalid, "Choose the users by a filter or by a list, and not by both.")
	case r.Filter != nil && r.Filter.Empty():
		return fault.New(fault.Invalid, "The filter has no condition, so it would match every user. Give at least one condition.")
	case r.Targets != nil && len(r.Targets) == 0:
		return fault.New(fault.Invalid, "The list is empty. Name at least one.")
	case r.Action == Expire && at == after:
		return fault.New(fault.Invalid, "The action expire needs exactly one of the options after and validUntil.")
	case r.Action != Expire && (at || after):
		return fault.New(fault.Invalid, "The options after and validUntil are for the action expire.")
	case r.After < 0:
		return fault.New(fault.Invalid, "The option after is negative. Give validUntil for a time in the past.")
	case r.ReassignTo != "" && pgrole.CheckReassign("", r.ReassignTo) != nil:
		return pgrole.CheckReassign("", r.ReassignTo)
	case r.Action != Delete && (r.ReassignTo != "" || r.Disable):
		return fault.New(fault.Invalid, "The options reassignTo and onBlocked are for the action delete.")
	case r.Action == RotateCredential && r.Filter != nil && !r.Filter.ofCredentials():
		return fault.New(fault.Invalid, "A filter of stored credentials has the conditions name and cluster only.")
	}
	until := &r.ValidUntil
	return pgrole.CheckLimits(pgrole.Limits{ValidUntil: &until})
}

// ofCredentials reports whether a filter has only the conditions that stored credentials have.
func (f *Filter) ofCredentials() bool {
	others := *f
	others.Name, others.Cluster = "", ""
	return others.Empty() && !others.System
}

// Planned is what an operation will do to one user, or why it will not.
type Planned struct {
	Cluster    *cluster.Cluster
	Name       string
	OID        uint32 // 0: not known, and then any user of that name is meant
	Action     Action
	ValidUntil *time.Time // of Expire: that of now; nil: none
	Blockers   []string   // why it could not be done now
	Skipped    string     // why it is left out, in a sentence; ""
	lease      bool
}

// The kinds of tasks: one carries out the part of an operation in one cluster, one checks the whole operation.
const (
	workTask = "operation.work"
	tendTask = "operation.tend"
)

// Tasks are the kinds of work in the background.
func (s *Service) Tasks() []task.Kind {
	return []task.Kind{{Name: workTask, Do: s.work}, {Name: tendTask, Do: s.tend}}
}

// Start stores an operation, which any replica then carries out on behalf of the principal's account.
func (s *Service) Start(ctx context.Context, p *account.Principal, r Request) (id uuid.UUID, plan *Plan, err error) {
	if plan, err = s.Plan(ctx, p, r); err != nil {
		return uuid.Nil, nil, err
	}
	r.ValidUntil = plan.ValidUntil
	err = s.DB.Tx(ctx, func(tx pgx.Tx) error {
		if err := checkOpen(ctx, tx, p); err != nil {
			return err
		}
		id, err = s.add(ctx, tx, p, r, plan.Users)
		return err
	})
	return id, plan, err
}

// add stores an operation, with its tasks and a row of the audit log, in the transaction that makes it necessary. What the
// plan says is taken as it is.
func (s *Service) add(ctx context.Context, tx pgx.Tx, p *account.Principal, r Request, plan []Planned) (uuid.UUID, error) {
	id := uuid.Must(uuid.NewV7())
	if r.Action == Expire && r.ValidUntil.IsZero() {
		now, err := clock(ctx, tx)
		if err != nil {
			return uuid.Nil, err
		}
		r.ValidUntil = now.Add(r.After)
	}
	err := insertOperation(ctx, tx, id, p, &r, plan)
	if sqlstate.Is(err, sqlstate.ForeignKeyViolation) {
		return uuid.Nil, fault.New(fault.Unavailable, "A cluster of the operation was unregistered in the meantime. Nothing was "+
			"started. Send the request again.").After(time.Second).Because(err)
	}
	if err != nil {
		return uuid.Nil, err
	}
	entry := p.Entry(audit.StartOperation, id.String(), startDetail{r.Action, len(plan), optionsOf(&r)})
	entry.Operation = id
	return id, s.Users.Audit.Record(ctx, tx, entry)
}

// startDetail is what the audit log keeps of the start of an operation.
type startDetail struct {
	Action Action `json:"operationAction"`
	Users  int    `json:"users"`
	Options
}

// scheduleWork schedules the task that carries out a part of an operation.
func scheduleWork(ctx context.Context, tx pgx.Tx, part, cluster uuid.UUID) error {
	return task.Set(ctx, tx, task.Task{Kind: workTask, Key: part, Cluster: cluster})
}
