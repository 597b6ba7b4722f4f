package lease

import (
	"context"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/control"
)

// Known is a stored credential that an account knows of.
type Known struct {
	Cluster   uuid.UUID
	Name, For string
	Made      bool      // by the account
	Read      uuid.UUID // the lease whose password it has read and that is still valid; zero: none
	Username  string    // of that lease, or else of the current one; "": none
}

// KnownCredentials returns the stored credentials that an account has made, and those with a valid lease among those whose
// password it has read. They are in the order of the clusters' ids and the names.
func (s *Store) KnownCredentials(ctx context.Context, account string, read []uuid.UUID) ([]Known, error) {
	rows, err := s.DB.Pool.Query(ctx, `
		SELECT c.cluster_id, c.name, c.for_role, c.created_by = $1, coalesce(l.id, `+noID+`),
		  coalesce(l.username, (SELECT username FROM leases WHERE id = c.lease_id), '')
		FROM credentials c LEFT JOIN LATERAL (
		  SELECT id, username FROM leases
		  WHERE cluster_id = c.cluster_id AND credential = c.name AND id = ANY ($2) AND state IN ('active', 'ending')
		  ORDER BY id DESC LIMIT 1) l ON true
		WHERE c.created_by = $1 OR l.id IS NOT NULL ORDER BY c.cluster_id, c.name COLLATE "C"`, account, read)
	if err != nil {
		return nil, control.Fault(err)
	}
	known, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Known])
	return known, control.Fault(err)
}
