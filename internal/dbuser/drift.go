package dbuser

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/account"
	"rolecall/internal/cluster"
	"rolecall/internal/pgrole"
)

// Unrecorded is users of a cluster that carry an attempt which the audit log does not have, though it was made while the
// cluster was registered: another Rolecall made it, or the control database was restored from an older backup.
type Unrecorded struct {
	Count  int
	Users  []string  // the first ten, the latest attempt first
	Latest time.Time // attempt; zero when there is none
}

// Problem is a sentence about it, "" if there is none.
func (u *Unrecorded) Problem() string {
	if u == nil || u.Count == 0 {
		return ""
	}
	names := make([]string, len(u.Users))
	for i, name := range u.Users {
		names[i] = fmt.Sprintf("%q", name)
	}
	which := strings.Join(names, ", ")
	if u.Count > len(names) {
		which = fmt.Sprintf("of %d, the latest being %s", u.Count, which)
	}
	return fmt.Sprintf("The last changes of some users (%s, at %s) are not in the audit log. Another Rolecall made them, or "+
		"the control database was restored from an older backup. Check these users. Each leaves this list with its next "+
		"change by this Rolecall.",
		which, u.Latest.Format(time.RFC3339))
}

// comparison is of a cluster with the audit log.
type comparison struct {
	found    *Unrecorded // as of looked; nil: the cluster has not answered yet
	expiring int         // users that expire soon
	looked,
	next time.Time
}

// How often a cluster is compared, compared again if it did not answer, and new registrations are looked for.
const (
	compareEvery = time.Hour
	compareRetry = 5 * time.Minute
	compareTick  = 10 * time.Second
)

// Compare compares the clusters with the audit log, each soon after the start or its registration and then every hour,
// until ctx ends. It looks, says what it has found, and changes nothing.
func (s *Service) Compare(ctx context.Context) {
	ticker := time.NewTicker(compareTick)
	defer ticker.Stop()
	for {
		for _, c := range s.Clusters.All() {
			if time.Now().After(s.compared(c.ID).next) && ctx.Err() == nil {
				_, _ = s.compare(ctx, c) // that the cluster does not answer is said elsewhere
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Unrecorded is what the last comparison of a cluster has found, nil when there was none since the start.
func (s *Service) Unrecorded(c *cluster.Cluster) *Unrecorded { return s.compared(c.ID).found }

// LastCompared is when a cluster was last compared; zero: not since the start.
func (s *Service) LastCompared(c *cluster.Cluster) time.Time { return s.compared(c.ID).looked }

func (s *Service) compared(id uuid.UUID) comparison {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.comparisons[id]
}

// recently is how old a comparison may be that an outcome is judged by.
const recently = 5 * time.Second

// unrecorded compares a cluster unless that has just been done.
func (s *Service) unrecorded(ctx context.Context, c *cluster.Cluster) (*Unrecorded, error) {
	if last := s.compared(c.ID); last.found != nil && time.Since(last.looked) < recently {
		return last.found, nil
	}
	return s.compare(ctx, c)
}

func (s *Service) compare(ctx context.Context, c *cluster.Cluster) (*Unrecorded, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	found, err := s.lookForUnrecorded(ctx, c)
	expiring := 0
	if err == nil {
		expiring, err = s.countExpiring(ctx, c)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	last, now := s.comparisons[c.ID], time.Now()
	if s.comparisons == nil {
		s.comparisons = map[uuid.UUID]comparison{}
	}
	if err != nil {
		last.next = now.Add(compareRetry)
		s.comparisons[c.ID] = last
		return nil, err
	}
	if found.Count > 0 && (last.found == nil || last.found.Count == 0) {
		s.Log.Warn("the last changes of users are not in the audit log: another Rolecall made them, or the control database "+
			"was restored from an older backup",
			"cluster", c.ID, "users", found.Count, "latest", found.Latest)
	}
	s.comparisons[c.ID] = comparison{found, expiring, now, now.Add(compareEvery)}
	return found, nil
}

func (s *Service) lookForUnrecorded(ctx context.Context, c *cluster.Cluster) (*Unrecorded, error) {
	on, err := s.server(ctx, c, &account.Principal{})
	if err != nil {
		return nil, err
	}
	// The cluster first: whatever it carries then has been recorded before. What is older than the registration is a
	// former Rolecall's.
	changes, err := on.LastChanges(ctx, c.CreatedAt)
	if err != nil {
		return nil, err
	}
	attempts := make([]uuid.UUID, len(changes))
	for i, change := range changes {
		attempts[i] = change.Attempt
	}
	ids, err := s.Audit.Missing(ctx, attempts)
	if err != nil {
		return nil, err
	}
	missing := make(map[uuid.UUID]bool, len(ids))
	for _, id := range ids {
		missing[id] = true
	}
	changes = slices.DeleteFunc(changes, func(change pgrole.LastChange) bool { return !missing[change.Attempt] })
	slices.SortFunc(changes, func(a, b pgrole.LastChange) int { return b.Time.Compare(a.Time) })
	found := &Unrecorded{Count: len(changes)}
	for _, change := range changes[:min(10, len(changes))] {
		found.Users = append(found.Users, change.Role)
	}
	if len(changes) > 0 {
		found.Latest = changes[0].Time
	}
	return found, nil
}
