package lease

import (
	"context"
	"time"

	"rolecall/internal/control"
)

// Clock is the clock of the control database, as it was read. When credentials rotate goes by it alone: the clocks of the
// replicas differ, and so does that of the cluster, by which their leases end.
type Clock struct {
	shown time.Time
	read  time.Time // by the monotonic clock of this process
}

// Now is what the clock shows now.
func (c Clock) Now() time.Time { return c.shown.Add(time.Since(c.read)) }

// Until is how long it takes until the clock shows a time.
func (c Clock) Until(t time.Time) time.Duration { return t.Sub(c.Now()) }

// Clock reads the clock.
func (s *Store) Clock(ctx context.Context) (Clock, error) {
	var shown time.Time
	if err := s.DB.Pool.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&shown); err != nil {
		return Clock{}, control.Fault(err)
	}
	return Clock{shown.UTC(), time.Now()}, nil
}
