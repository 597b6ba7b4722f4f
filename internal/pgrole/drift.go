package pgrole

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// LastChange is the recorded attempt that changed a role last, as the role carries it.
type LastChange struct {
	Role    string
	Attempt uuid.UUID
	Time    time.Time // when the attempt was recorded, which its id says
}

const selectRecords = `
	SELECT r.rolname::text, d.description FROM pg_shdescription d JOIN pg_roles r ON r.oid = d.objoid
	WHERE d.classoid = 'pg_authid'::regclass AND CASE WHEN octet_length(d.description) <= 8192
	    THEN d.description ELSE '' END LIKE '%' || $1 || '%'`

// LastChanges returns the last changes that were attempted after a time, of roles in no order. Databases are left out:
// the owner of a database writes its comment.
func (s *Server) LastChanges(ctx context.Context, after time.Time) (changes []LastChange, err error) {
	err = s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, selectRecords, marker)
		if err != nil {
			return err
		}
		changes = nil // this may be another try
		var role, comment string
		_, err = pgx.ForEachRow(rows, []any{&role, &comment}, func() error {
			_, p := parseComment(comment)
			if p.Attempt.Version() == 7 {
				if at := recordedAt(p.Attempt); at.After(after) {
					changes = append(changes, LastChange{role, p.Attempt, at})
				}
			}
			return nil
		})
		return err
	})
	return changes, err
}

// recordedAt is the time in a UUIDv7.
func recordedAt(id uuid.UUID) time.Time {
	sec, nsec := id.Time().UnixTime()
	return time.Unix(sec, nsec).UTC()
}
