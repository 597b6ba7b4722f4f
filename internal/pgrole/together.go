package pgrole

import (
	"time"

	"rolecall/internal/gather"
	"rolecall/internal/sqlstate"
)

// Together gathers what comes at the same time: eight roles in one query cost PostgreSQL a fifth of eight queries, the same
// page need not be read for each who asks for it, and roles are dropped in one transaction.
type Together struct {
	lookups gather.Group[string, *User]
	lists   gather.Keyed[list, []*User]
	drops   gather.Group[drop, dropped]
	ends    gather.Group[*User, struct{}]
}

// NewTogether returns one for all who work on a cluster under the same rules of protection.
func NewTogether() *Together {
	t := &Together{}
	t.lookups.Parallel, t.lookups.Longest, t.lookups.Timeout = 2, 64, 12*time.Second
	t.lookups.Alone = func(err error) bool { return sqlstate.Is(err, unwritable...) }
	t.lists.Parallel, t.lists.Timeout = 2, 12*time.Second
	t.drops.Parallel, t.drops.Longest, t.drops.Timeout = 1, 32, 15*time.Second
	t.drops.Alone = func(err error) bool { return sqlstate.Code(err) != "" && !sqlstate.Lost(err) && !sqlstate.Replica(err) }
	t.ends.Parallel, t.ends.Longest, t.ends.Timeout = 2, 32, 12*time.Second
	t.ends.Alone = func(error) bool { return false }
	return t
}
