package dbuser

import (
	"context"
	"time"

	"rolecall/internal/account"
	"rolecall/internal/cluster"
	"rolecall/internal/pgrole"
)

// ExpiresSoon is in how long a user expires that needs attention.
const ExpiresSoon = 14 * 24 * time.Hour

// countedAtOnce is how many users are read at a time.
const countedAtOnce = 1000

// Expiring is how many active users of a cluster, without leases, expire within ExpiresSoon, as the last comparison has
// found; 0: there was none since the start.
func (s *Service) Expiring(c *cluster.Cluster) int { return s.compared(c.ID).expiring }

func (s *Service) countExpiring(ctx context.Context, c *cluster.Cluster) (count int, err error) {
	on, err := s.server(ctx, c, &account.Principal{})
	if err != nil {
		return 0, err
	}
	no := false
	soon := &pgrole.Search{States: []string{pgrole.StateActive}, ExpiresBefore: time.Now().Add(ExpiresSoon), Lease: &no}
	at := pgrole.Stretch{Limit: countedAtOnce}
	for {
		hits, more, err := on.Search(ctx, soon, at)
		if err != nil {
			return 0, err
		}
		count += len(hits)
		if !more || len(hits) == 0 {
			return count, nil
		}
		at.After = hits[len(hits)-1].Name
	}
}
