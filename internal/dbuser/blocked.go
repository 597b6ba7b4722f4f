package dbuser

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"rolecall/internal/account"
	"rolecall/internal/cluster"
	"rolecall/internal/fault"
	"rolecall/internal/lease"
)

// maxBlocked is how many blocked leases of a cluster are among its problems, and how many credentials that do not rotate.
const maxBlocked = 10

// ClusterProblems says what is wrong with a cluster of that health, in a sentence each. The problems of its capabilities and
// LeaseProblems come in addition.
func (s *Service) ClusterProblems(c *cluster.Cluster, h cluster.Health) []string {
	problems := []string{s.Unrecorded(c).Problem(), h.Problem, c.Connection.PlaintextProblem()}
	return slices.DeleteFunc(problems, func(problem string) bool { return problem == "" })
}

// LeaseProblems says of clusters which of their leases have ended though the roles cannot be dropped, and which of their
// stored credentials did not rotate: a sentence for each, by cluster. Clusters are shown also without the control database,
// and then it says nothing.
func (s *Service) LeaseProblems(ctx context.Context, clusters ...*cluster.Cluster) (map[uuid.UUID][]string, error) {
	ids := make([]uuid.UUID, len(clusters))
	for i, c := range clusters {
		ids[i] = c.ID
	}
	blocked, err := s.LeaseStore.Blocked(ctx, ids, maxBlocked+1)
	var failing []*lease.Credential
	if err == nil {
		failing, err = s.LeaseStore.Failing(ctx, ids, maxBlocked+1)
	}
	if fault.Is(err, fault.Unavailable) {
		return nil, nil
	}
	problems := map[uuid.UUID][]string{}
	for _, l := range blocked {
		if len(problems[l.Cluster]) == maxBlocked {
			problems[l.Cluster] = append(problems[l.Cluster],
				"More leases have ended though their roles cannot be dropped: list those in the state blocked.")
			continue
		}
		problems[l.Cluster] = append(problems[l.Cluster],
			fmt.Sprintf("The lease %s (user %q) has ended but its role cannot be dropped: %s",
				l.ID, l.Username, strings.Join(l.BlockedBy, " ")))
	}
	credentials := map[uuid.UUID]int{}
	for _, cr := range failing {
		problem := fmt.Sprintf("The stored credential %q does not rotate: %s", cr.Name, cr.LastError)
		if credentials[cr.Cluster]++; credentials[cr.Cluster] > maxBlocked {
			problem = "More stored credentials do not rotate: list those in the state failing."
		}
		problems[cr.Cluster] = append(problems[cr.Cluster], problem)
	}
	return problems, err
}

// CountProblems is how many sentences LeaseProblems has for a cluster.
func CountProblems(n lease.Count) int {
	return min(n.Blocked, maxBlocked+1) + min(n.Failing, maxBlocked+1)
}

// endAllTimeout bounds how long the leases of a cluster take to end, endAtOnce how many end at a time.
const (
	endAllTimeout = 90 * time.Second
	endAtOnce     = 8
)

// endAllLeases deletes the stored credentials of a cluster and ends its leases now.
func (s *Service) endAllLeases(ctx context.Context, p *account.Principal, c *cluster.Cluster) error {
	ctx, cancel := context.WithTimeout(ctx, endAllTimeout)
	defer cancel()
	credentials, _, err := s.LeaseStore.ListCredentials(ctx, c.ID, "", 0)
	if err != nil {
		return err
	}
	for _, one := range credentials {
		if err := s.DeleteCredential(ctx, p, c.ID.String(), one.Name, nil); err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
	}
	live, err := s.LeaseStore.Live(ctx, c.ID)
	if err != nil {
		return err
	}
	group, ending := errgroup.WithContext(ctx)
	group.SetLimit(endAtOnce)
	for _, l := range live {
		group.Go(func() error {
			_, _, err := s.EndLease(ending, p, l.ID.String())
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	blocked, err := s.LeaseProblems(ctx, c)
	if err != nil || len(blocked[c.ID]) == 0 {
		return err
	}
	return fault.New(fault.Invalid, "The cluster %q stays registered. %s", c.DisplayName, strings.Join(blocked[c.ID], " "))
}
