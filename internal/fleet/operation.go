package fleet

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/account"
	"rolecall/internal/cluster"
)

// Action is what an operation does to each of its users.
type Action string

// The actions.
const (
	Disable          Action = "disable"
	Enable           Action = "enable"
	EndSessions      Action = "endSessions"
	Expire           Action = "expire"
	RotateCredential Action = "rotateCredential"
	Delete           Action = "delete"
)

// Target is a database user, or with RotateCredential a stored credential, by the name of its cluster's id.
type Target struct {
	Cluster string
	Name    string
}

// Request is what is to be done to whom. Exactly one of Filter and Targets is set.
type Request struct {
	Action     Action
	Filter     *Filter
	Targets    []Target
	ValidUntil time.Time // of Expire
	ReassignTo string    // of Delete
	Disable    bool      // of Delete: a user that cannot be deleted is disabled
}

// Planned is what an operation will do to one user, or why it will not.
type Planned struct {
	Cluster    *cluster.Cluster
	Name       string
	OID        uint32
	Action     Action
	ValidUntil *time.Time // of Expire: that of now; nil: none
	Blockers   []string   // why it could not be done now
	Skipped    string     // why it is left out, in a sentence; ""
}

// Plan says what Start would do, and stores nothing.
func (s *Service) Plan(ctx context.Context, p *account.Principal, r Request) ([]Planned, []Unreachable, error) {
	panic("lane operations")
}

// Start stores an operation, which any replica then carries out on behalf of the principal's account.
func (s *Service) Start(ctx context.Context, p *account.Principal, r Request) (uuid.UUID, []Planned, []Unreachable, error) {
	panic("lane operations")
}

// add stores an operation in the transaction that makes it necessary.
func (s *Service) add(ctx context.Context, tx pgx.Tx, p *account.Principal, r Request, plan []Planned) (uuid.UUID, error) {
	panic("lane operations")
}
