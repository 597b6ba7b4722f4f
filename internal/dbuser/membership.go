package dbuser

import (
	"cmp"
	"context"
	"slices"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/etag"
	"rolecall/internal/pgrole"
)

// SetRoles makes a database user a member of exactly these of the cluster's grantable roles. It returns the memberships
// that it has left alone because nobody may grant them here.
func (s *Service) SetRoles(ctx context.Context, p *account.Principal, clusterID, name string, roles []string,
	match etag.Match) (c *cluster.Cluster, d *pgrole.Details, kept []string, err error) {
	roles = append([]string{}, slices.Compact(slices.Sorted(slices.Values(roles)))...)
	c, d, err = s.changeRoles(ctx, p, clusterID, name, detail{Roles: roles}, roles,
		func(changing context.Context, op *operation) (d *pgrole.Details, err error) {
			d, kept, err = op.server.SetRoles(changing, name, roles, match, op.by())
			return d, err
		})
	return c, d, kept, err
}

// GrantRole makes a database user a member of one of the cluster's grantable roles.
func (s *Service) GrantRole(ctx context.Context, p *account.Principal, clusterID, name, role string,
	match etag.Match) (*cluster.Cluster, *pgrole.Details, error) {
	return s.changeRoles(ctx, p, clusterID, name, detail{Grant: role}, []string{role},
		func(changing context.Context, op *operation) (*pgrole.Details, error) {
			return op.server.GrantRole(changing, name, role, match, op.by())
		})
}

// RevokeRole ends the membership of a database user in one of the cluster's grantable roles.
func (s *Service) RevokeRole(ctx context.Context, p *account.Principal, clusterID, name, role string,
	match etag.Match) (*cluster.Cluster, *pgrole.Details, error) {
	return s.changeRoles(ctx, p, clusterID, name, detail{Revoke: role}, []string{role},
		func(changing context.Context, op *operation) (*pgrole.Details, error) {
			return op.server.RevokeRole(changing, name, role, match, op.by())
		})
}

// changeRoles records a change of memberships in roles and makes it by f.
func (s *Service) changeRoles(ctx context.Context, p *account.Principal, clusterID, name string, attempt detail,
	roles []string, f func(ctx context.Context, op *operation) (*pgrole.Details, error)) (*cluster.Cluster, *pgrole.Details,
	error) {
	c, err := s.Cluster(p, clusterID)
	if err != nil {
		return nil, nil, err
	}
	op, err := s.begin(ctx, p, c, change{
		action:         audit.ChangeRoles,
		target:         name,
		detail:         attempt,
		limit:          changeTimeout,
		oneTransaction: true,
	}, cmp.Or(s.checkUserName(ctx, p, clusterID, name), pgrole.CheckGrantable(roles, c.Grantable)))
	if err != nil {
		return nil, nil, err
	}
	defer op.release()
	var d *pgrole.Details
	var previous uuid.UUID
	changing, err := op.waitAndDetach(ctx)
	if err == nil {
		d, err = f(changing, op)
	}
	if err == nil {
		previous = d.Provenance.Previous
	}
	return op.cluster, d, op.end(ctx, previous, detail{}, err)
}
