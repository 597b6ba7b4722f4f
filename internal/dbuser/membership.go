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
	c, err = s.Cluster(p, clusterID)
	if err != nil {
		return nil, nil, nil, err
	}
	roles = append([]string{}, slices.Compact(slices.Sorted(slices.Values(roles)))...)
	op, err := s.begin(ctx, p, c, change{
		action:         audit.ChangeRoles,
		target:         name,
		detail:         detail{Roles: roles},
		limit:          changeTimeout,
		oneTransaction: true,
	}, cmp.Or(pgrole.CheckStorable(name), pgrole.CheckGrantable(roles, c.Grantable)))
	if err != nil {
		return nil, nil, nil, err
	}
	defer op.release()
	var previous uuid.UUID
	changing, err := op.waitAndDetach(ctx)
	if err == nil {
		d, kept, err = op.server.SetRoles(changing, name, roles, match, op.by())
	}
	if err == nil {
		previous = d.Provenance.Previous
	}
	return op.cluster, d, kept, op.end(ctx, previous, detail{}, err)
}
