package pgrole

import (
	"context"
	"time"

	"github.com/google/uuid"
)

// NewLease is a role that is to be made for a time. It acts for another role: it is a member of that, and its sessions run
// as that, so nothing depends on it.
type NewLease struct {
	ID         uuid.UUID
	For, Name  string
	TTL        time.Duration
	Credential string // that it belongs to; "": none
}

// LeaseRole is a role that a lease has made.
type LeaseRole struct {
	Name string
	ID   uuid.UUID // of the lease
	For  string    // as the record says
	// Credential is the name of the credential that it belongs to; "": none.
	Credential string
	CreatedBy  string // guid of the account
	Created    time.Time
	Ends       time.Time
	Now        time.Time // by the clock of the cluster
	Databases  []string  // that it may connect to; only after CreateLease
	// ForProblem is why nobody may hand the other role out any more, as a sentence: it is protected, disabled, being deleted
	// or gone. "": somebody may. ForGone says that it is gone, or has another name now.
	ForProblem string
	ForGone    bool
}

// CreateLease makes the role of a lease.
func (s *Server) CreateLease(ctx context.Context, n NewLease, password string, by Actor) (*LeaseRole, error) {
	panic("not built")
}

// LeaseEnd is a new end of a lease.
type LeaseEnd struct {
	In  time.Duration // from now, by the clock of the cluster
	Max time.Time     // it is not after this; zero: no limit
	// Shorten lets the lease end earlier than before; else the later end counts.
	Shorten bool
}

// ChangeLeaseEnd sets the end of a lease. The role is the one of that name only if it is the lease's: else NotFound.
func (s *Server) ChangeLeaseEnd(ctx context.Context, name string, id uuid.UUID, end LeaseEnd, by Actor) (*LeaseRole, error) {
	panic("not built")
}

// LeaseRoles returns all roles that leases have made and that are still there.
func (s *Server) LeaseRoles(ctx context.Context) ([]*LeaseRole, error) { panic("not built") }

// EndedLease is what came of the end of a lease.
type EndedLease struct {
	Previous  uuid.UUID // attempt that changed the role before
	Gone      bool      // there was no role of the lease any more
	BlockedBy []string  // sentences; the role is disabled then
	// Remaining is how long the lease still lasts, by the clock of the cluster, if only an expired one was to be ended.
	Remaining time.Duration
}

// DropLease ends a lease the short way: its role is dropped, batched with others that are dropped at the same time, if
// nothing depends on it and it has no session. Else done is false, nothing has changed, and EndLease is needed. Only the
// role of the name whose record has the lease's id is touched; if there is none, the lease is Gone. If expired is set, a
// lease that has not expired by the cluster's clock is left alone, and is done with its Remaining.
func (s *Server) DropLease(ctx context.Context, name string, id uuid.UUID, expired bool) (
	e EndedLease, done bool, err error) {
	panic("not built")
}

// EndLease is DropLease the long way, in the phases of Delete: sessions are ended, what the role owns goes to the role that
// it acts for, and if it cannot be dropped it is disabled. A cluster bounds how many do this at a time.
func (s *Server) EndLease(ctx context.Context, name string, id uuid.UUID, expired bool, by Actor) (EndedLease, error) {
	panic("not built")
}
