package dbuser

import (
	"context"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/cluster"
	"rolecall/internal/etag"
	"rolecall/internal/lease"
)

// CredentialSettings are what a manager says of a stored credential.
type CredentialSettings struct {
	For                  string
	RotateEvery, Overlap time.Duration
	Window               *lease.Window
}

// PutCredential makes a stored credential, with its first lease, or changes one.
func (s *Service) PutCredential(ctx context.Context, p *account.Principal, clusterID, name string, set CredentialSettings,
	match etag.Match) (c *cluster.Cluster, cr *lease.Credential, created bool, err error) {
	panic("not built")
}

// Credentials lists the stored credentials of a cluster after a name, in the order of their names' bytes.
func (s *Service) Credentials(ctx context.Context, p *account.Principal, clusterID, after string, limit int) (
	c *cluster.Cluster, list []*lease.Credential, more bool, err error) {
	panic("not built")
}

// Credential returns a stored credential, without its password.
func (s *Service) Credential(ctx context.Context, p *account.Principal, clusterID, name string) (
	*cluster.Cluster, *lease.Credential, error) {
	panic("not built")
}

// CurrentCredential returns the current password of a stored credential. Each read is recorded.
func (s *Service) CurrentCredential(ctx context.Context, p *account.Principal, clusterID, name string) (
	*cluster.Cluster, *lease.Current, error) {
	panic("not built")
}

// RotateStored gives a stored credential a new lease now. The password before it is accepted for the overlap.
func (s *Service) RotateStored(ctx context.Context, p *account.Principal, clusterID, name string) (
	*cluster.Cluster, *lease.Credential, error) {
	panic("not built")
}

// DeleteCredential ends a stored credential and its leases.
func (s *Service) DeleteCredential(ctx context.Context, p *account.Principal, clusterID, name string,
	match etag.Match) error {
	panic("not built")
}
