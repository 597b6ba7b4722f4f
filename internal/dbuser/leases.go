package dbuser

import (
	"context"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/cluster"
	"rolecall/internal/lease"
	"rolecall/internal/secret"
)

// NewLease is what a lease is made with.
type NewLease struct {
	For         string
	TTL, MaxTTL time.Duration // 0: as the cluster is set
	Note        string
}

// CreateLease makes a lease. The password is known to the caller only.
func (s *Service) CreateLease(ctx context.Context, p *account.Principal, clusterID string, n NewLease) (
	c *cluster.Cluster, l *lease.Lease, password secret.Text, err error) {
	panic("not built")
}

// Lease returns a lease that is the principal's, or of a cluster that it may view.
func (s *Service) Lease(ctx context.Context, p *account.Principal, id string) (*cluster.Cluster, *lease.Lease, error) {
	panic("not built")
}

// Leases lists the leases, the newest first, of one cluster, or with "" of all that the principal may view and its own.
func (s *Service) Leases(ctx context.Context, p *account.Principal, clusterID string, f lease.Filter) (
	list []*lease.Lease, more bool, err error) {
	panic("not built")
}

// RenewLease moves the end of a lease to ttl from now, 0: the ttl that it was made with, but not beyond its last end, and
// never to an earlier one. cut says that the last end was nearer.
func (s *Service) RenewLease(ctx context.Context, p *account.Principal, id string, ttl time.Duration) (
	c *cluster.Cluster, l *lease.Lease, cut bool, err error) {
	panic("not built")
}

// EndLease ends a lease now. If something keeps its role from being dropped, the lease is returned, blocked.
func (s *Service) EndLease(ctx context.Context, p *account.Principal, id string) (
	*cluster.Cluster, *lease.Lease, error) {
	panic("not built")
}

// EndLeasesOfToken ends, soon, the leases that were made with a token.
func (s *Service) EndLeasesOfToken(ctx context.Context, token uuid.UUID) error { panic("not built") }
