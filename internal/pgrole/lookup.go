package pgrole

import (
	"context"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/sqlstate"
)

// unwritable are the codes for a name that the encoding of a database has not all the characters of. No role there has it.
var unwritable = []string{sqlstate.CharacterNotInRepertoire, sqlstate.UntranslatableCharacter}

// lookup reads a role, batched with concurrent lookups; nil when there is none of that name.
func (s *Server) lookup(ctx context.Context, name string) (*User, error) {
	if !nameable(name) {
		return nil, nil
	}
	u, err := s.Batcher.lookups.Do(ctx, name, s.roles)
	if sqlstate.Is(err, unwritable...) {
		return nil, nil
	}
	return u, s.fault(err, "")
}

// roles reads the roles of the names, nil where there is none.
func (s *Server) roles(ctx context.Context, names []string) ([]*User, error) {
	var found map[string]*User
	err := s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		sql, args := s.selectRoles(names)
		rows, err := conn.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		users, err := collectPage(rows, len(names), scanUser)
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
