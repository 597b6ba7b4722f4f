package dbuser

import (
	"context"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/etag"
	"rolecall/internal/pgrole"
)

// DisableUser takes the right to log in from a database user, which keeps its password, ends its sessions and, soon, the
// leases that act for it. ended is how many sessions there were. If the user was disabled but its sessions could not be
// ended, the error says so.
func (s *Service) DisableUser(ctx context.Context, p *account.Principal, clusterID, name string, match etag.Match) (
	c *cluster.Cluster, d *pgrole.Details, ended int, err error) {
	op, err := s.beginSwitch(ctx, p, clusterID, audit.DisableUser, name)
	if err != nil {
		return nil, nil, 0, err
	}
	defer op.release()
	changing, err := op.waitAndDetach(ctx)
	if err == nil {
		d, ended, err = op.server.Disable(changing, name, match, op.by())
	}
	if d != nil {
		s.endLeasesFor(ctx, op.cluster, name)
	}
	d, err = op.endUser(ctx, d, detail{Ended: &ended}, err)
	return op.cluster, d, ended, err
}

// EnableUser gives a disabled database user the right to log in back.
func (s *Service) EnableUser(ctx context.Context, p *account.Principal, clusterID, name string, match etag.Match) (
	*cluster.Cluster, *pgrole.Details, error) {
	op, err := s.beginSwitch(ctx, p, clusterID, audit.EnableUser, name)
	if err != nil {
		return nil, nil, err
	}
	defer op.release()
	var d *pgrole.Details
	changing, err := op.waitAndDetach(ctx)
	if err == nil {
		d, err = op.server.Enable(changing, name, match, op.by())
	}
	d, err = op.endUser(ctx, d, detail{}, err)
	return op.cluster, d, err
}

// beginSwitch is begin for a change of whether a user may log in.
func (s *Service) beginSwitch(ctx context.Context, p *account.Principal, clusterID, action, name string) (*operation,
	error) {
	c, err := s.Cluster(p, clusterID)
	if err != nil {
		return nil, err
	}
	return s.begin(ctx, p, c, change{action: action, target: name, limit: changeTimeout, oneTransaction: true},
		s.checkUserName(ctx, p, clusterID, name))
}
