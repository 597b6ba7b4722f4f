package pgrole

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"rolecall/internal/scram"
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
		found = make(map[string]*User, len(names)) // what an earlier try has read may be gone
		left := names
		if s.Batcher.quick.try() {
			var err error
			if left, err = s.rolesQuickly(ctx, conn, names, found); err != nil || len(left) == 0 {
				return err
			}
		}
		sql, args := s.selectRoles(left)
		rows, err := conn.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		users, err := collectPage(rows, len(left), scanUser)
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

// rolesQuickly adds roles of the names to found, and returns the names that are left to selectRoles.
func (s *Server) rolesQuickly(ctx context.Context, conn *pgx.Conn, names []string, found map[string]*User) (left []string,
	err error) {
	quick := make([]string, 0, len(names))
	for _, name := range names {
		switch {
		case !nameable(name): // PostgreSQL would refuse the query
		case scram.IsASCII(name):
			quick = append(quick, name)
		default:
			left = append(left, name) // what a glob matches depends on the encoding of the database
		}
	}
	if len(quick) == 0 {
		return left, nil
	}
	rows, err := conn.Query(ctx, selectRolesQuickly, quick)
	if err != nil {
		return nil, err
	}
	roles, err := collectPage(rows, len(quick), scanQuickly)
	vain := false
	for _, r := range roles {
		switch u := r.User; {
		case !u.dangerous && s.protectsName(u.Name):
			u.protectedBy, u.dangerous = u.Name, true
			found[u.Name] = u
		case !u.dangerous && r.mayBeProtected:
			left, vain = append(left, u.Name), true
		default:
			found[u.Name] = u
		}
	}
	s.Batcher.quick.note(vain)
	return left, err
}

// quickUser is a row of selectRolesQuickly.
type quickUser struct {
	*User
	mayBeProtected bool
}

func scanQuickly(row pgx.CollectableRow) (r quickUser, err error) {
	raw, err := readRawRole(row)
	if err != nil {
		return r, err
	}
	r.User, err = raw.user(maxComment)
	r.mayBeProtected = raw.mayBeProtected()
	return r, err
}

// protectsName reports whether a role is protected by its name, which is ASCII. The SQL for it is that of protectedItself.
func (s *Server) protectsName(name string) bool {
	return slices.Contains(alwaysDangerous, name) || name == s.ControlRole || matches(s.SystemRoles, name)
}

// UsersNamed returns the database users of the names, nil where there is none.
func (s *Server) UsersNamed(ctx context.Context, names []string) ([]*User, error) {
	users, err := s.roles(ctx, names)
	if err != nil {
		return nil, s.fault(err, "")
	}
	for i, u := range users {
		if u != nil && !u.isUser() {
			users[i] = nil
		}
	}
	return users, nil
}

// ValidUntil is when the user's password is no longer accepted, as near as JSON can write it; nil: never.
func (u *User) ValidUntil() *time.Time {
	if !u.validUntil.Valid || u.validUntil.InfinityModifier == pgtype.Infinity {
		return nil
	}
	at, first, last := u.validUntil.Time.UTC(), time.Date(1, 1, 1, 0, 0, 1, 0, time.UTC),
		time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	switch {
	case u.validUntil.InfinityModifier == pgtype.NegativeInfinity || at.Before(first):
		at = first
	case at.After(last):
		at = last
	}
	return &at
}

// Protection is why no call changes or deletes the user; nil: calls may.
func (u *User) Protection() error { return checkNotProtected(u) }

// Unchangeable is why the user is neither disabled nor enabled, nor its limits changed, whatever its state; nil: it may be.
func (u *User) Unchangeable() error { return cmp.Or(checkNotProtected(u), checkNoLease(u)) }
