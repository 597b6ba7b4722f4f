package dbuser

import (
	"cmp"
	"context"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
)

// SetLimits changes what limits the logins of a database user. With endSessions it then ends the sessions that the user has,
// which the limits do not touch, and returns how many there were. If one of the two fails the other is done all the same,
// and the error says so.
func (s *Service) SetLimits(ctx context.Context, p *account.Principal, clusterID, name string, limits pgrole.Limits,
	endSessions bool, match etag.Match) (c *cluster.Cluster, d *pgrole.Details, ended int, err error) {
	c, err = s.Cluster(p, clusterID)
	if err != nil {
		return nil, nil, 0, err
	}
	op, err := s.begin(ctx, p, c, change{
		action:         audit.ChangeLimits,
		target:         name,
		detail:         detail{ValidUntil: limits.ValidUntil, ConnectionLimit: limits.ConnectionLimit, EndSessions: endSessions},
		limit:          changeTimeout,
		oneTransaction: true,
	}, cmp.Or(s.checkUserName(ctx, p, clusterID, name), pgrole.CheckLimits(limits)))
	if err != nil {
		return nil, nil, 0, err
	}
	defer op.release()
	changing, err := op.waitAndDetach(ctx)
	if err == nil {
		d, err = op.server.SetLimits(changing, name, limits, match, op.by())
	}
	var outcome detail
	if endSessions && fault.Is(err, fault.Unavailable) && changing != nil {
		if u, readErr := op.server.Changeable(changing, name, match); readErr == nil {
			ended, readErr = op.server.EndSessions(changing, u)
			if readErr == nil {
				outcome.Ended = &ended
				err = fault.Of(err).Add("Its open sessions were ended all the same: %d.", ended)
			}
		}
	}
	if err != nil {
		return nil, nil, 0, op.end(ctx, uuid.Nil, outcome, err)
	}
	var endErr error
	if endSessions {
		ended, endErr = op.server.EndSessions(changing, d.User)
		outcome.Ended = &ended
	}
	if endErr != nil {
		outcome.Reason = fault.Of(endErr).Message
	}
	return op.cluster, d, ended, cmp.Or(op.end(ctx, d.Provenance.Previous, outcome, nil), endErr)
}
