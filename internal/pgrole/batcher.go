package pgrole

import (
	"sync"
	"sync/atomic"
	"time"

	"rolecall/internal/batch"
	"rolecall/internal/primary"
	"rolecall/internal/sqlstate"
)

// Batcher gathers what comes at the same time: eight roles in one query cost PostgreSQL a fifth of eight queries, the same
// page need not be read for each who asks for it, and roles are dropped in one transaction.
type Batcher struct {
	lookups batch.Group[string, *User]
	lists   batch.Keyed[list, *Listed]
	drops   batch.Group[drop, dropped]
	ends    batch.Group[*User, struct{}]
	quick   backoff // for selectRolesQuickly

	// iterations of SCRAM verifiers, as the last transaction of the cluster found them; 0: none has yet.
	iterations atomic.Int64
}

// backoff avoids tries that are in vain: after each one in a row it skips about twice as many, up to 63.
type backoff struct {
	mu          sync.Mutex
	left, skips int
}

// try reports whether to try now.
func (b *backoff) try() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left > 0 {
		b.left--
		return false
	}
	return true
}

// note notes whether a try was in vain.
func (b *backoff) note(vain bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if vain {
		b.skips = min(2*b.skips+1, 63)
	} else {
		b.skips = 0
	}
	b.left = b.skips
}

// NewBatcher returns one for all who work on a cluster under the same rules of protection. A query may take as long as wait,
// a transaction that drops roles a quarter longer.
func NewBatcher(wait time.Duration) *Batcher {
	t := &Batcher{}
	t.lookups.Parallel, t.lookups.Longest, t.lookups.Slow, t.lookups.Timeout = 2, 64, batch.Slow, wait
	t.lookups.SplitOn = func(err error) bool { return sqlstate.Is(err, unwritable...) }
	t.lists.Parallel, t.lists.Slow, t.lists.Timeout = 2, batch.Slow, wait
	t.drops.Parallel, t.drops.Longest, t.drops.Timeout = 1, 32, wait*5/4
	t.drops.SplitOn = func(err error) bool { return sqlstate.Code(err) != "" && !sqlstate.Lost(err) && !primary.Missing(err) }
	t.ends.Parallel, t.ends.Longest, t.ends.Slow, t.ends.Timeout = 2, 32, batch.Slow, wait
	return t
}
