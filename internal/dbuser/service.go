// Package dbuser is what a principal does to the users and databases of a cluster. Each change is authorized, recorded,
// made, and its outcome recorded, in this order and for every surface. No SQL of a managed cluster and nothing of HTTP is
// here.
package dbuser

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/cluster"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
)

// Service manages users and databases.
type Service struct {
	Clusters *cluster.Registry
	Audit    *audit.Log
	Accounts *account.Store
	Log      *slog.Logger

	mu          sync.Mutex
	shared      map[*cluster.Cluster]*shared
	comparisons map[uuid.UUID]comparison // by id of the cluster
}

// shared is what the requests to a cluster share.
type shared struct {
	batcher *pgrole.Batcher
	queues  *queues
}

// ViewableClusters returns the clusters that the principal may view, in the order of their display names.
func (s *Service) ViewableClusters(p *account.Principal) []*cluster.Cluster {
	var viewable []*cluster.Cluster
	for _, c := range s.Clusters.All() {
		if access.MayView(p, c) {
			viewable = append(viewable, c)
		}
	}
	return viewable
}

// Cluster returns a cluster that the principal may view. Any other does not exist as far as it can tell.
func (s *Service) Cluster(p *account.Principal, id string) (*cluster.Cluster, error) {
	c, err := s.Clusters.Get(id)
	if err != nil {
		return nil, err
	}
	if !access.MayView(p, c) {
		return nil, fault.Of(cluster.NotFound(id)).Because(access.ErrNoView)
	}
	return c, nil
}

// ExplainAccess says what an account, by its guid or, of a local one, its user name, may do in a cluster, and why. It is
// for admins.
func (s *Service) ExplainAccess(ctx context.Context, p *account.Principal, id, who string) (*access.Explanation, error) {
	c, err := s.Cluster(p, id)
	if err != nil {
		return nil, err
	}
	if !p.Has(account.ScopeAdmin) {
		return nil, access.ErrAdminOnly
	}
	a, err := s.Accounts.ByGUID(ctx, who)
	if fault.Is(err, fault.NotFound) {
		a, err = s.Accounts.ByUsername(ctx, who, account.LocalOrigin)
	}
	if fault.Is(err, fault.NotFound) {
		return nil, fault.New(fault.NotFound, "There is no account %.100q. Give its guid, or its user name of origin %s.", who, account.LocalOrigin)
	}
	if err != nil {
		return nil, err
	}
	return access.Explain(a, c), nil
}

// server is the cluster as pgrole works on it for the principal.
func (s *Service) server(ctx context.Context, c *cluster.Cluster, p *account.Principal) (*pgrole.Server, error) {
	pool, err := c.Pool(ctx)
	if err != nil {
		return nil, err
	}
	database, role := s.Clusters.Control(c)
	var reassignable []string // nil: any
	if !p.HasOn(c.ID, account.ScopeAdmin) {
		reassignable = slices.Concat([]string{}, c.Grantable, c.MemberOf)
	}
	return &pgrole.Server{
		Pool:            pool,
		Connect:         c.Connect,
		SystemRoles:     c.SystemRoles,
		MemberOf:        c.MemberOf,
		Grantable:       c.Grantable,
		Reassignable:    reassignable,
		ControlDatabase: database,
		ControlRole:     role,
		Batcher:         s.sharedOf(c).batcher,
	}, nil
}

// sharedOf is kept as long as the cluster stays as it is: what is protected there is the same for all reads of one query.
func (s *Service) sharedOf(c *cluster.Cluster) *shared {
	s.mu.Lock()
	defer s.mu.Unlock()
	if of := s.shared[c]; of != nil {
		return of
	}
	current := s.Clusters.All()
	if len(s.shared) > 2*len(current) || s.shared == nil {
		was := s.shared
		s.shared = make(map[*cluster.Cluster]*shared, len(current))
		for _, now := range current {
			if of := was[now]; of != nil {
				s.shared[now] = of
			}
		}
	}
	of := &shared{pgrole.NewBatcher(), newQueues()}
	s.shared[c] = of
	return of
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

// reading is a read of a cluster under way.
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
	leave, err := s.sharedOf(c).queues.reads.enter()
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
