package dbuser

import (
	"context"
	"errors"
	"time"

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
	return err
}

// judge finds out what came of an attempt, and what goes on record about it.
func (s *Service) judge(ctx context.Context, a *audit.Attempt) (audit.Outcome, map[string]any, error) {
	var outcome audit.Outcome
	var why, previous string
	var err error
	switch a.Action {
	case audit.RotateCluster:
		outcome, why, err = s.judgeRotation(ctx, a)
	case audit.ReadVerifiers:
		outcome, why = audit.Unknown, "reading leaves no trace"
	default:
		outcome, why, previous, err = s.judgeChange(ctx, a)
	}
	detail := map[string]any{"settled": why}
	if previous != "" {
		detail[audit.Previous] = previous
	}
	return outcome, detail, err
}

// judgeChange looks at the cluster. The role carries the id of the last attempt that changed it, and later ones name those
// that they found there.
func (s *Service) judgeChange(ctx context.Context, a *audit.Attempt) (outcome audit.Outcome, why, previous string, err error) {
	c, err := s.Clusters.Get(a.Cluster.String())
	if err != nil {
		return audit.Unknown, "the cluster is no longer registered", "", nil
	}
	on, err := s.server(ctx, c, &account.Principal{})
	if err != nil {
		return "", "", "", err
	}
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	found, err := s.find(ctx, on, a)
	if fault.Is(err, fault.Unavailable) && !pgrole.Busy(err) {
		return "", "", "", errors.Join(audit.ErrAway, err)
	}
	if err != nil {
		return "", "", "", err
	}
	trail, err := s.Audit.Follow(ctx, a, found.attempt, found.previous)
	if err != nil {
		return "", "", "", err
	}
	later, err := s.Audit.Later(ctx, a)
	if err != nil {
		return "", "", "", err
	}
	unrecorded, err := s.unrecorded(ctx, c)
	if err != nil {
		return "", "", "", err
	}
	if found.attempt == a.ID.String() {
		previous = found.previous
	}
	outcome, why = found.tell(a, trail, later, c.IdentifiedAt, unrecorded.Latest)
	return outcome, why, previous, nil
}

// tell concludes from what was found what came of the attempt.
func (found *evidence) tell(a *audit.Attempt, trail audit.Trail, later bool, identified, unrecorded time.Time) (audit.Outcome, string) {
	own := found.attempt == a.ID.String()
	deletion := a.Action == audit.DeleteUser || a.Action == audit.DeleteDatabase
	creation := a.Action == audit.CreateUser || a.Action == audit.CreateDatabase
	switch {
	case trail == audit.Named && a.Action == audit.ChangeLimits && a.Detail["endSessions"] == true:
		return audit.Unknown, "the limits are set; whether its sessions were ended is not known"
	case trail == audit.Named && !deletion && own:
		return audit.Done, "the attempt is recorded with it"
	case trail == audit.Named && !deletion:
		return audit.Done, "the change after it has found it"
	case trail == audit.Named && !own && a.Detail["onBlocked"] != "disable":
		return audit.NotDone, "its deletion had begun; a later change has found it there"
	case a.Time.Before(identified):
		return audit.Unknown, "another cluster has taken the place of the one that it was made in"
	case trail == audit.Passed:
		return audit.NotDone, "the changes before and after it follow on each other"
	case trail == audit.MadeNew && creation:
		return audit.NotDone, "it was made by a later attempt"
	case trail == audit.MadeNew && a.Action == audit.DeleteUser:
		return audit.Done, "it was gone, and was made again"
	case later:
		return audit.Unknown, "later attempts have been made on it"
	case !found.exists && deletion:
		return audit.Done, "it is gone"
	case !found.exists && !creation:
		return audit.Unknown, "it is not there any more"
	case unrecorded.After(a.Time):
		return audit.Unknown, "the cluster has later changes that the audit log does not have"
	case found.exists && a.Action == audit.DeleteDatabase && found.created.After(a.Time):
		return audit.Unknown, "it was made again"
	case a.Action == audit.DeleteUser && found.state == pgrole.StateDeleting:
		return audit.NotDone, "its deletion has begun; the same call finishes it"
	case a.Action == audit.DeleteUser && found.state == pgrole.StateDisabled && own && a.Detail["onBlocked"] == "disable":
		return audit.Done, "it was blocked; the user is disabled, as was asked for"
	case a.Action == audit.DeleteUser && found.state == pgrole.StateDisabled && own:
		return audit.NotDone, "it was blocked; the user is disabled"
	case found.exists && found.attempt == "":
		return audit.Unknown, "it carries no record"
	}
	return audit.NotDone, "the cluster shows no trace of it"
}

// evidence is what the cluster shows of what an attempt was on.
type evidence struct {
	exists                   bool
	attempt, previous, state string
	created                  time.Time
}

func (s *Service) find(ctx context.Context, on *pgrole.Server, a *audit.Attempt) (evidence, error) {
	switch a.Action {
	case audit.CreateUser, audit.ChangePassword, audit.ChangeLimits, audit.ChangeRoles, audit.DeleteUser:
		u, err := on.Inspect(ctx, a.Target)
		if err != nil || u == nil {
			return evidence{}, err
		}
		return evidenceOf(u.Provenance), nil
	case audit.CreateDatabase, audit.DeleteDatabase:
		d, err := on.InspectDatabase(ctx, a.Target, a.ID.String())
		if err != nil || d == nil {
			return evidence{}, err
		}
		return evidenceOf(d.Provenance), nil
	}
	return evidence{}, errors.New("the settler does not know the action " + a.Action)
}

func evidenceOf(p pgrole.Provenance) evidence {
	return evidence{true, p.Attempt, p.Previous, p.State, p.Created}
}
