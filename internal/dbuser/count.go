package dbuser

import (
	"context"
	"sync"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/cluster"
)

// The limits of counting users in many clusters: how long all of it takes, and how many clusters are asked at a time.
const (
	countTimeout = 2 * time.Second
	maxCounted   = 32
)

// CountUsers counts the database users of clusters, without protected ones, by the id of the cluster. A cluster that does
// not answer within 2 seconds, or did not answer when it was last asked, is missing.
func (s *Service) CountUsers(ctx context.Context, p *account.Principal, clusters []*cluster.Cluster) map[uuid.UUID]int {
	ctx, cancel := context.WithTimeout(ctx, countTimeout)
	defer cancel()
	counts, slots := map[uuid.UUID]int{}, make(chan struct{}, maxCounted)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, c := range clusters {
		if c.Unreachable() {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			ctx, r, err := s.read(ctx, p, c.ID.String())
			if err != nil {
				return
			}
			defer r.end()
			count, err := r.server.CountUsers(ctx)
			if err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			counts[c.ID] = count
		})
	}
	wg.Wait()
	return counts
}
