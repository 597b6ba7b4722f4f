package pgrole

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

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

// unwritable are the codes for a name that the encoding of a database has not all the characters of. No role there has it.
var unwritable = []string{sqlstate.CharacterNotInRepertoire, sqlstate.UntranslatableCharacter}

// lookup reads a role, nil when there is none of that name, in the company of others.
func (s *Server) lookup(ctx context.Context, name string) (*User, error) {
	if !storable(name) {
		return nil, nil
	}
	u, err := s.Together.lookups.Ask(ctx, name, s.roles)
	if sqlstate.Is(err, unwritable...) {
		return nil, nil
	}
	return u, s.fault(err, "")
}

// roles reads the roles of the names, nil where there is none.
func (s *Server) roles(ctx context.Context, names []string) ([]*User, error) {
	var found map[string]*User
	err := s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, selectRoles, s.protection(names)...)
		if err != nil {
			return err
		}
		users, err := pgx.CollectRows(rows, scanUser)
		found = make(map[string]*User, len(names)) // what an earlier try has read may be gone
		for _, u := range users {
			found[u.Name] = u
		}
		return err
	})
	users := make([]*User, len(names))
	for i, name := range names {
		users[i] = found[name]
	}
	return users, err
}
