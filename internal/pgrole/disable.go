package pgrole

import (
	"context"
)

// Disable takes a user's LOGIN and password, and ends its sessions. It stays a database user: SetPassword enables it
// again, Delete deletes it.
func (s *Server) Disable(ctx context.Context, name string, match Match, stamp Stamp) (u *User, err error) {
	err = s.change(ctx, name, stamp, func(ctx context.Context, tx *transaction) error {
		old, err := s.changeable(ctx, tx, name, match)
		if err != nil {
			return err
		}
		if err := checkNotDeleting(old); err != nil {
			return err
		}
		p := old.Provenance.changed(tx.now, stamp)
		p.State = StateDisabled
		if _, err := tx.Exec(ctx, disableRole(name)+commentOnRole(name, p.comment(old.human))); err != nil {
			return err
		}
		u, err = s.readBack(ctx, tx, name)
		return err
	})
	if err != nil {
		return nil, err
	}
	_, err = s.endSessionsOf(ctx, u, true)
	return u, err
}
