package dbuser

import (
	"context"

	"rolecall/internal/account"
	"rolecall/internal/cluster"
	"rolecall/internal/pgrole"
)

// SearchUsers returns the first users of a cluster that match in a stretch of the names, and says whether others follow.
func (s *Service) SearchUsers(ctx context.Context, p *account.Principal, clusterID string, q *pgrole.Search,
	at pgrole.Stretch) (c *cluster.Cluster, hits []pgrole.Hit, more bool, err error) {
	ctx, r, err := s.read(ctx, p, clusterID)
	if err != nil {
		return nil, nil, false, err
	}
	defer r.end()
	hits, more, err = r.server.Search(ctx, q, at)
	return r.cluster, hits, more, err
}

// DetailsOf returns all about the users of these oids, in no order, without those that are no longer there.
func (s *Service) DetailsOf(ctx context.Context, p *account.Principal, clusterID string, oids []uint32) (
	c *cluster.Cluster, list []*pgrole.Details, err error) {
	ctx, r, err := s.read(ctx, p, clusterID)
	if err != nil {
		return nil, nil, err
	}
	defer r.end()
	list, err = r.server.DetailsOf(ctx, oids)
	return r.cluster, list, err
}

// Sessions returns the open sessions of a database user.
func (s *Service) Sessions(ctx context.Context, p *account.Principal, clusterID, name string) (*pgrole.Sessions, error) {
	ctx, r, err := s.read(ctx, p, clusterID)
	if err != nil {
		return nil, err
	}
	defer r.end()
	return r.server.Sessions(ctx, name)
}

// SessionCounts is how many open sessions the users of these oids have, those that have any.
func (s *Service) SessionCounts(ctx context.Context, p *account.Principal, clusterID string, oids []uint32) (
	map[uint32]int, error) {
	ctx, r, err := s.read(ctx, p, clusterID)
	if err != nil {
		return nil, err
	}
	defer r.end()
	return r.server.SessionCounts(ctx, oids)
}
