package dbuser

import (
	"context"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/lease"
)

// Sweep is one sweep of a cluster.
func (s *Service) Sweep(ctx context.Context, clusterID string) error {
	c, err := s.Clusters.Get(clusterID)
	if err != nil {
		return err
	}
	return s.sweepCluster(ctx, c)
}

// NextRotation is when a credential that was rotated at a time rotates again.
func (set CredentialSettings) NextRotation(rotated time.Time, share float64) time.Time {
	return set.next(rotated, share)
}

// CreateLeaseNamed is CreateLease with the names that are tried.
func (s *Service) CreateLeaseNamed(ctx context.Context, p *account.Principal, clusterID string, n NewLease, names []string) (
	*lease.Lease, error) {
	_, l, _, err := s.createLeaseNamed(ctx, p, clusterID, n, names)
	return l, err
}

// Look is a look at a cluster; complete says that nothing was left for another one.
func (s *Service) Look(ctx context.Context, clusterID string) (complete bool, err error) {
	c, err := s.Clusters.Get(clusterID)
	if err != nil {
		return false, err
	}
	return s.lookAt(ctx, c)
}
