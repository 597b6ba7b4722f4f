package dbuser

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
)

// settleEvery is the pause between two passes of the settler.
const settleEvery = 5 * time.Second

// Settle gives attempts that were cut off their outcome, until ctx ends.
func (s *Service) Settle(ctx context.Context) {
	ticker := time.NewTicker(settleEvery)
	defer ticker.Stop()
	for {
		if err := s.SettleOnce(ctx); err != nil && ctx.Err() == nil {
			s.Log.Warn("the settler could not work", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// SettleOnce does one pass.
func (s *Service) SettleOnce(ctx context.Context) error {
	settled, left, err := s.Audit.Settle(ctx, s.judge)
	if settled > 0 || left > 0 {
		s.Log.Info("settled attempts that were cut off", "settled", settled, "left", left)
	}
	if err == nil {
		s.mu.Lock()
		s.settled = time.Now()
		s.mu.Unlock()
	}
	return err
}

// LastSettled is when the settler of this process last worked, or found that another replica's does; zero: not yet.
func (s *Service) LastSettled() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settled
}

// judge finds out what became of an attempt.
func (s *Service) judge(ctx context.Context, a *audit.Attempt) (audit.Result, error) {
	var v verdict
	var err error
	switch a.Action {
	case audit.RotateCluster:
		v.outcome, v.why, err = s.Clusters.SettleRotation(ctx, s.Audit, a)
	case audit.ReadVerifiers:
		v = verdict{outcome: audit.Unknown, why: "reading leaves no trace"}
	case audit.PutCredential, audit.RotateStored:
		var d detail
		if err = json.Unmarshal(a.Stored, &d); err == nil {
			v, err = s.judgeRotation(ctx, a, d)
		}
	default:
		v, err = s.judgeChange(ctx, a)
	}
	found := detail{Settled: v.why}
	var asked detail
	if json.Unmarshal(a.Stored, &asked) == nil {
		found = found.of(asked)
	}
	return audit.Result{Outcome: v.outcome, Previous: v.previous, Detail: found}, err
}

// verdict is what became of an attempt, and why the settler thinks so.
type verdict struct {
	outcome  audit.Outcome
	why      string
	previous uuid.UUID
}

// judgeChange reads the cluster. The role carries the id of the last attempt that changed it, and later attempts name those
// that they found there.
func (s *Service) judgeChange(ctx context.Context, a *audit.Attempt) (verdict, error) {
	c, err := s.Clusters.Get(a.Cluster.String())
	if err != nil {
		return verdict{outcome: audit.Unknown, why: "the cluster is no longer registered"}, nil
	}
	server, err := s.server(ctx, c, &account.Principal{})
	if err != nil {
		return verdict{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	if strings.ContainsRune(a.Target, utf8.RuneError) {
		return verdict{outcome: audit.Unknown, why: "its name is not valid UTF-8, and could not be recorded as it is"}, nil
	}
	e := evidence{action: a.Action, own: a.ID, recorded: a.Time, identified: c.IdentifiedAt}
	if err := json.Unmarshal(a.Stored, &e.detail); err != nil {
		return verdict{outcome: audit.Unknown, why: "its record cannot be read"}, nil
	}
	e.role, err = inspect(ctx, server, a)
	if fault.Is(err, fault.Unavailable) && !pgrole.Busy(err) {
		return verdict{}, errors.Join(audit.ErrAway, err)
	}
	if err != nil {
		return verdict{}, err
	}
	if e.history, err = s.Audit.Follow(ctx, a, e.role.Attempt, e.role.Previous); err != nil {
		return verdict{}, err
	}
	if e.later, err = s.Audit.Later(ctx, a); err != nil {
		return verdict{}, err
	}
	unrecorded, err := s.unrecorded(ctx, c)
	if err != nil {
		return verdict{}, err
	}
	e.unrecorded = unrecorded.Latest
	v := verdict{}
	if v.outcome, v.why = e.outcome(); e.role.Attempt == a.ID {
		v.previous = e.role.Previous
	}
	return v, nil
}

// evidence is all that an outcome is decided by.
type evidence struct {
	action     string
	detail     detail
	own        uuid.UUID // the attempt
	recorded   time.Time // when the attempt was
	identified time.Time // since when the cluster is this one
	role       found
	history    audit.History
	later      bool      // a later attempt may have changed it
	unrecorded time.Time // the latest change of the cluster that the audit log does not have
}

// found is what the cluster shows of the role or database that an attempt was on.
type found struct {
	pgrole.Provenance
	exists bool
}

// outcome decides what became of the attempt, and why.
func (e *evidence) outcome() (audit.Outcome, string) {
	own := e.role.Attempt == e.own
	deletion, creation := audit.Deletes(e.action), audit.Creates(e.action)
	disables := e.detail.OnBlocked == "disable"
	switch {
	case e.history == audit.Found && e.action == audit.ChangeLimits && e.detail.EndSessions:
		return audit.Unknown, "the limits are set; whether its sessions were ended is not known"
	case e.history == audit.Found && e.action == audit.DisableUser:
		return audit.Unknown, "it is disabled; whether its sessions were ended is not known"
	case e.history == audit.Found && !deletion && own:
		return audit.Done, "the attempt is recorded with it"
	case e.history == audit.Found && !deletion:
		return audit.Done, "the change after it has found it"
	case e.history == audit.Found && !own && !disables:
		return audit.NotDone, "its deletion had begun; a later change has found it there"
	case e.recorded.Before(e.identified):
		return audit.Unknown, "another cluster has taken the place of the one that it was made in"
	case e.history == audit.Skipped:
		return audit.NotDone, "the changes before and after it follow on each other"
	case e.history == audit.Recreated && creation:
		return audit.NotDone, "it was made by a later attempt"
	case e.history == audit.Recreated && deletion && e.action != audit.DeleteDatabase:
		return audit.Done, "it was gone, and was made again"
	case e.later:
		return audit.Unknown, "later attempts have been made on it"
	case !e.role.exists && deletion:
		return audit.Done, "it is gone"
	case !e.role.exists && !creation && e.action != audit.MakeAccessRoles:
		return audit.Unknown, "it no longer exists"
	case e.unrecorded.After(e.recorded):
		return audit.Unknown, "the cluster has later changes that the audit log does not have"
	case e.role.exists && e.action == audit.DeleteDatabase && e.role.Created.After(e.recorded):
		return audit.Unknown, "it was made again"
	case e.action == audit.DropAccessRoles && own:
		return audit.NotDone, "their removal has begun; the same call finishes it"
	case e.action == audit.EndLease && e.role.State == pgrole.StateDeleting:
		return audit.NotDone, "its end has begun; another attempt finishes it"
	case e.action == audit.EndLease && e.role.State == pgrole.StateDisabled && own:
		return audit.Done, "something keeps its role from being dropped; it is disabled"
	case e.action == audit.DeleteUser && e.role.State == pgrole.StateDeleting:
		return audit.NotDone, "its deletion has begun; the same call finishes it"
	case e.action == audit.DeleteUser && e.role.State == pgrole.StateDisabled && own && disables:
		return audit.Done, "it was blocked; the user is disabled, as was asked for"
	case e.action == audit.DeleteUser && e.role.State == pgrole.StateDisabled && own:
		return audit.NotDone, "it was blocked; the user is disabled"
	case e.role.exists && e.role.Attempt == uuid.Nil:
		return audit.Unknown, "it carries no record"
	}
	return audit.NotDone, "the cluster shows no trace of it"
}

// inspect reads the role or database that an attempt was on, once changes in progress have ended.
func inspect(ctx context.Context, server *pgrole.Server, a *audit.Attempt) (found, error) {
	switch a.Action {
	case audit.CreateUser, audit.ChangePassword, audit.ChangeLimits, audit.ChangeRoles, audit.ChangeAccess, audit.DisableUser,
		audit.EnableUser, audit.DeleteUser, audit.CreateLease, audit.RenewLease, audit.EndLease:
		u, err := server.Inspect(ctx, a.Target)
		if err != nil || u == nil {
			return found{}, err
		}
		return found{u.Provenance, true}, nil
	case audit.MakeAccessRoles, audit.DropAccessRoles:
		own, err := server.InspectAccessRoles(ctx, a.Target)
		if err != nil || own == nil {
			return found{}, err
		}
		return found{own.Provenance, true}, nil
	case audit.DeleteDatabase:
		d, err := server.InspectDropped(ctx, a.Target)
		if err != nil || d == nil {
			return found{}, err
		}
		return found{d.Provenance, true}, nil
	case audit.CreateDatabase:
		d, err := server.InspectDatabase(ctx, a.Target, a.ID)
		if err != nil || d == nil {
			return found{}, err
		}
		return found{d.Provenance, true}, nil
	}
	return found{}, errors.New("the settler does not know the action " + a.Action)
}
