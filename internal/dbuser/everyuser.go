package dbuser

import (
	"context"

	"rolecall/internal/account"
	"rolecall/internal/cluster"
	"rolecall/internal/pgrole"
)

// everyPage is how many users are read at a time where all are read.
const everyPage = 1000

// EveryUser returns all database users of a cluster, protected ones as well, in the order of their names' bytes.
func (s *Service) EveryUser(ctx context.Context, p *account.Principal, clusterID string) (
	c *cluster.Cluster, users []*pgrole.User, err error) {
	ctx, r, err := s.read(ctx, p, clusterID)
	if err != nil {
		return nil, nil, err
	}
	defer r.end()
	for after := ""; ; {
		page, err := r.server.UsersAfter(ctx, after, everyPage)
		if err != nil {
			return nil, nil, err
		}
		users = append(users, page...)
		if len(page) < everyPage {
			return r.cluster, users, nil
		}
		after = page[len(page)-1].Name
	}
}
