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

// judge looks at the cluster to find out what came of an attempt. The role carries the id of the last attempt that
// changed it; a later attempt may have put its own there.
func (s *Service) judge(ctx context.Context, a *audit.Attempt) (audit.Outcome, string, error) {
	if a.Action == audit.RotateCluster {
		return s.judgeRotation(ctx, a)
	}
	if a.Action == audit.ReadVerifiers {
		return audit.Unknown, "reading leaves no trace", nil
	}
	c, err := s.Clusters.Get(a.Cluster.String())
	if err != nil {
		return audit.Unknown, "the cluster is no longer registered", nil
	}
	on, err := s.server(ctx, c, &account.Principal{})
	if err != nil {
		return "", "", err
	}
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	found, err := s.find(ctx, on, a)
	if fault.Is(err, fault.Unavailable) && !pgrole.Busy(err) {
		return "", "", errors.Join(audit.ErrAway, err)
	}
	if err != nil {
		return "", "", err
	}
	later, err := s.Audit.Later(ctx, a)
	if err != nil {
		return "", "", err
	}
	unrecorded, err := s.unrecorded(ctx, c)
	if err != nil {
		return "", "", err
	}
	switch {
	case found.attempt == a.ID.String() && a.Action == audit.ChangeLimits && a.Detail["endSessions"] == true:
		return audit.Unknown, "the limits are set; whether its sessions were ended is not known", nil
	case found.attempt == a.ID.String() && a.Action != audit.DeleteUser:
		return audit.Done, "the attempt is recorded with it", nil
	case later:
		return audit.Unknown, "later attempts have been made on it", nil
	case a.Time.Before(c.IdentifiedAt):
		return audit.Unknown, "another cluster has taken the place of the one that it was made in", nil
	case !found.exists && (a.Action == audit.DeleteUser || a.Action == audit.DeleteDatabase):
		return audit.Done, "it is gone", nil
	case !found.exists && a.Action != audit.CreateUser && a.Action != audit.CreateDatabase:
		return audit.Unknown, "it is not there any more", nil
	case unrecorded.Latest.After(a.Time):
		return audit.Unknown, "the cluster has later changes that the audit log does not have", nil
	case found.exists && a.Action == audit.DeleteDatabase && found.created.After(a.Time):
		return audit.Unknown, "it was made again", nil
	case a.Action == audit.DeleteUser && found.state == pgrole.StateDeleting:
		return audit.NotDone, "its deletion has begun; the same call finishes it", nil
	case a.Action == audit.DeleteUser && found.state == pgrole.StateDisabled && found.attempt == a.ID.String() && a.Detail["onBlocked"] == "disable":
		return audit.Done, "it was blocked; the user is disabled, as was asked for", nil
	case a.Action == audit.DeleteUser && found.state == pgrole.StateDisabled && found.attempt == a.ID.String():
		return audit.NotDone, "it was blocked; the user is disabled", nil
	case found.exists && found.attempt == "":
		return audit.Unknown, "it carries no record", nil
	}
	return audit.NotDone, "the cluster shows no trace of it", nil
}

type evidence struct {
	exists         bool
	attempt, state string
	created        time.Time
}

func (s *Service) find(ctx context.Context, on *pgrole.Server, a *audit.Attempt) (evidence, error) {
	switch a.Action {
	case audit.CreateUser, audit.ChangePassword, audit.ChangeLimits, audit.ChangeRoles, audit.DeleteUser:
		u, err := on.Inspect(ctx, a.Target)
		if err != nil || u == nil {
			return evidence{}, err
		}
		return evidence{true, u.Provenance.Attempt, u.Provenance.State, u.Provenance.Created}, nil
	case audit.CreateDatabase, audit.DeleteDatabase:
		d, err := on.InspectDatabase(ctx, a.Target, a.ID.String())
		if err != nil || d == nil {
			return evidence{}, err
		}
		return evidence{true, d.Provenance.Attempt, "", d.Provenance.Created}, nil
	}
	return evidence{}, errors.New("the settler does not know the action " + a.Action)
}
