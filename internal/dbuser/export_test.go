package dbuser

import (
	"context"
)

// Sweep is one sweep of a cluster.
func (s *Service) Sweep(ctx context.Context, clusterID string) error {
	c, err := s.Clusters.Get(clusterID)
	if err != nil {
		return err
	}
	return s.sweepCluster(ctx, c)
}
