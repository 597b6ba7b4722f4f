package dbuser

import (
	"cmp"
	"context"
	"slices"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
)

// UserDetails returns all about one database user.
func (s *Service) UserDetails(ctx context.Context, p *account.Principal, clusterID, name string) (c *cluster.Cluster, d *pgrole.Details, err error) {
	c, err = s.view(ctx, p, clusterID, func(ctx context.Context, on *pgrole.Server) error {
		d, err = on.Details(ctx, name)
		return err
	})
	return c, d, err
}

// SetLimits changes what limits the logins of a database user, and returns how many sessions it has ended.
func (s *Service) SetLimits(ctx context.Context, p *account.Principal, clusterID, name string, limits pgrole.Limits, match etag.Match) (c *cluster.Cluster, d *pgrole.Details, ended int, err error) {
	detail, outcome := map[string]any{}, map[string]any{}
	if limits.ValidUntil != nil {
		detail["validUntil"] = *limits.ValidUntil
	}
	if limits.ConnectionLimit != nil {
		detail["connectionLimit"] = *limits.ConnectionLimit
	}
	if limits.EndSessions {
		detail["endSessions"] = true
	}
	var after error
	c, err = s.manage(ctx, p, clusterID, change{
		action:         audit.ChangeLimits,
		target:         name,
		detail:         detail,
		outcome:        outcome,
		limit:          changeTimeout,
		oneTransaction: true,
		check: func(*cluster.Cluster) error {
			return cmp.Or(pgrole.CheckStorable(name), pgrole.CheckLimits(limits))
		},
	}, func(ctx context.Context, on *pgrole.Server, stamp pgrole.Stamp) (string, error) {
		d, ended, err = on.SetLimits(ctx, name, limits, match, stamp)
		if limits.EndSessions {
			outcome["ended"] = ended
		}
		if d == nil {
			return "", err
		}
		if err != nil {
			// The limits are set; what failed is to end sessions.
			after, outcome["reason"] = err, fault.Of(err).Message
		}
		return d.Provenance.Previous, nil
	})
	return c, d, ended, cmp.Or(err, after)
}

// SetRoles makes a database user a member of these roles of the cluster's grantable ones, and of no others of them. It
// returns the memberships that it has left alone because nobody may grant them here.
func (s *Service) SetRoles(ctx context.Context, p *account.Principal, clusterID, name string, roles []string, match etag.Match) (c *cluster.Cluster, d *pgrole.Details, kept []string, err error) {
	// As often as a name is sent, it is recorded and granted once.
	roles = slices.Compact(slices.Sorted(slices.Values(roles)))
	var grantable []string
	c, err = s.manage(ctx, p, clusterID, change{
		action:         audit.ChangeRoles,
		target:         name,
		detail:         map[string]any{"roles": append([]string{}, roles...)},
		limit:          changeTimeout,
		oneTransaction: true,
		check: func(c *cluster.Cluster) error {
			grantable = c.Grantable
			return cmp.Or(pgrole.CheckStorable(name), pgrole.CheckGrantable(roles, grantable))
		},
	}, func(ctx context.Context, on *pgrole.Server, stamp pgrole.Stamp) (string, error) {
		if d, kept, err = on.SetRoles(ctx, name, roles, grantable, match, stamp); err != nil {
			return "", err
		}
		return d.Provenance.Previous, nil
	})
	return c, d, kept, err
}

// DeletionPlan says what DeleteUser would do. It takes the right to do it, and records nothing.
func (s *Service) DeletionPlan(ctx context.Context, p *account.Principal, clusterID, name, reassignTo string) (plan *pgrole.DeletionPlan, err error) {
	c, err := s.Cluster(p, clusterID)
	if err != nil {
		return nil, err
	}
	if !mayManage(p, c) {
		return nil, refusal(p)
	}
	queue := s.sharedOf(c).bulkhead.long
	leave, err := queue.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	done, err := queue.turn(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	if c, err = s.Cluster(p, clusterID); err != nil { // its rules may have changed in the meantime
		return nil, err
	}
	if !mayManage(p, c) {
		return nil, refusal(p)
	}
	on, err := s.server(ctx, c, p)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, planTimeout)
	defer cancel()
	return on.Plan(ctx, name, reassignTo)
}

// DeleteOrDisableUser is DeleteUser, but a user that cannot be deleted is disabled, and returned.
func (s *Service) DeleteOrDisableUser(ctx context.Context, p *account.Principal, clusterID, name, reassignTo string, match etag.Match) (c *cluster.Cluster, disabled *pgrole.User, err error) {
	do := deleteUser(name, reassignTo)
	do.detail["onBlocked"], do.outcome = "disable", map[string]any{}
	var after error
	c, err = s.manage(ctx, p, clusterID, do, func(ctx context.Context, on *pgrole.Server, stamp pgrole.Stamp) (string, error) {
		why, previous, err := on.DeleteOrDisable(ctx, name, reassignTo, match, stamp)
		if err == nil && why != "" {
			do.outcome["disabled"] = why
			disabled, after = on.User(ctx, name)
		}
		return previous, err
	})
	return c, disabled, cmp.Or(err, after)
}

// Userlist returns the users of a cluster and their verifiers, protected ones left out. It is for admins, and recorded
// like a change: who has a verifier can try passwords on it, and pose as the server.
func (s *Service) Userlist(ctx context.Context, p *account.Principal, clusterID string) (list []pgrole.Credential, err error) {
	outcome := map[string]any{}
	_, err = s.manage(ctx, p, clusterID, change{
		action:  audit.ReadVerifiers,
		outcome: outcome,
		limit:   changeTimeout,
		admin:   true,
		check:   func(*cluster.Cluster) error { return nil },
	}, func(ctx context.Context, on *pgrole.Server, _ pgrole.Stamp) (string, error) {
		list, err = on.Userlist(ctx)
		outcome["users"] = len(list)
		return "", err
	})
	return list, err
}

// PasswordProblems returns the users of a cluster whose passwords are to be renewed: up to limit of those after a name,
// and whether more follow. It is for those who can renew them: what is easiest to break is no reading for others. So
// protected ones, whose passwords are set in SQL, are for admins only.
func (s *Service) PasswordProblems(ctx context.Context, p *account.Principal, clusterID, after string, limit int) (problems []pgrole.PasswordProblem, more bool, err error) {
	c, err := s.Cluster(p, clusterID)
	if err != nil {
		return nil, false, err
	}
	if !mayManage(p, c) {
		return nil, false, refusal(p)
	}
	_, err = s.view(ctx, p, clusterID, func(ctx context.Context, on *pgrole.Server) error {
		problems, more, err = on.PasswordProblems(ctx, p.HasOn(c.ID, account.ScopeAdmin), after, limit)
		return err
	})
	return problems, more, err
}
