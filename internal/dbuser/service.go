// Package dbuser is what a principal does to the users and databases of a cluster. Each change is authorized, recorded,
// made, and its outcome recorded, in this order and for every surface. No SQL of a managed cluster and nothing of HTTP is
// here.
package dbuser

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/lease"
	"rolecall/internal/observe"
	"rolecall/internal/pgrole"
)

// Service manages users and databases.
type Service struct {
	Clusters   *cluster.Registry
	Audit      *audit.Log
	Accounts   *account.Store
	LeaseStore *lease.Store
	// ObserveStore keeps what was observed of the users.
	ObserveStore *observe.Store
	Log          *slog.Logger

	mu             sync.Mutex
	comparisons    map[uuid.UUID]comparison // by id of the cluster
	changedOutside map[uuid.UUID]int64      // by id of the cluster
	settled        time.Time                // when the settler last worked
}

// ErrNoRole is a cause: there is no role that a lease could act for.
var ErrNoRole = pgrole.ErrNoRole

// server is the cluster as pgrole works on it for the principal.
func (s *Service) server(ctx context.Context, c *cluster.Cluster, p *account.Principal) (*pgrole.Server, error) {
	if p.HasOn(c.ID, account.ScopeAdmin) {
		return c.Server(ctx, nil)
	}
	return c.Server(ctx, append(append([]string{}, c.Grantable...), c.MemberOf...)) // not nil, which would mean any
}

// readTimeout ends a read, and planTimeout one that may visit many databases; changeTimeout, deleteTimeout and
// databaseTimeout end a change. A change goes on when its client hangs up: an abandoned change is better than half a one.
const (
	readTimeout     = 12 * time.Second
	planTimeout     = 40 * time.Second
	changeTimeout   = 15 * time.Second
	deleteTimeout   = 90 * time.Second
	databaseTimeout = 90 * time.Second
)

// reading is a read of a cluster, or the plan of a change, in progress.
type reading struct {
	cluster *cluster.Cluster
	server  *pgrole.Server
	end     func()
}

// read begins a read of a cluster that the principal may view. The returned context ends it.
func (s *Service) read(ctx context.Context, p *account.Principal, clusterID string) (context.Context, *reading, error) {
	c, err := s.Cluster(p, clusterID)
	if err != nil {
		return nil, nil, err
	}
	leave, err := c.Queues().Reads.Enter()
	if err != nil {
		return nil, nil, err
	}
	server, err := s.server(ctx, c, p)
	if err != nil {
		leave()
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	return ctx, &reading{c, server, func() { cancel(); leave() }}, nil
}

// plan begins the plan of a change of a cluster that the principal may make, once it has a slot of the queue, and records
// nothing. The returned context ends it.
func (s *Service) plan(ctx context.Context, p *account.Principal, c *cluster.Cluster) (context.Context, *reading, error) {
	queue := c.Queues().Long
	leave, err := queue.Enter()
	if err != nil {
		return nil, nil, err
	}
	turn, err := s.waitTurn(ctx, p, c.ID.String(), queue, &change{})
	if err != nil {
		leave()
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, planTimeout)
	return ctx, &reading{turn.cluster, turn.server, func() { cancel(); turn.done(); leave() }}, nil
}
