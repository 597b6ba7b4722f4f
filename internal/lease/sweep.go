package lease

import (
	"context"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/control"
)

// WithIDs returns those of the leases that are in a cluster, ended or not.
func (s *Store) WithIDs(ctx context.Context, cluster uuid.UUID, ids []uuid.UUID) ([]*Lease, error) {
	return collect(ctx, s.DB.Pool, `WHERE l.cluster_id = $1 AND l.id = ANY ($2)`, cluster, ids)
}

// FoundAgain adds a lease whose role is there, unless there is such a row. An account's name is added if it has one.
func (s *Store) FoundAgain(ctx context.Context, tx pgx.Tx, l *Lease) (added bool, err error) {
	var exists bool
	err = tx.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM leases WHERE id = $1),
		       coalesce((SELECT username FROM accounts WHERE guid = $2), '')`, l.ID, l.Account).Scan(&exists, &l.AccountName)
	if err != nil || exists {
		return false, err
	}
	return true, s.Insert(ctx, tx, l)
}

// Reopen has a lease end once more whose role is there, under this name and OID.
func (s *Store) Reopen(ctx context.Context, tx pgx.Tx, id uuid.UUID, username string, oid uint32) error {
	_, err := tx.Exec(ctx,
		`UPDATE leases SET state = 'ending', ended_at = NULL, username = $2, role_oid = $3 WHERE id = $1 AND state = 'ended'`,
		id, username, oid)
	return err
}

// Identify stores the name and the OID that the role of a lease has.
func (s *Store) Identify(ctx context.Context, tx pgx.Tx, id uuid.UUID, username string, oid uint32) error {
	_, err := tx.Exec(ctx, `UPDATE leases SET username = $2, role_oid = $3 WHERE id = $1`, id, username, oid)
	return err
}

// ClearRoles removes what is known of the OIDs of a cluster that has taken another one's place.
func ClearRoles(ctx context.Context, tx pgx.Tx, cluster uuid.UUID) error {
	_, err := tx.Exec(ctx, `UPDATE leases SET role_oid = NULL WHERE cluster_id = $1 AND role_oid IS NOT NULL`, cluster)
	return err
}

// CredentialNames returns the names of the credentials of a cluster, also of those that are being made.
func (s *Store) CredentialNames(ctx context.Context, cluster uuid.UUID) (map[string]bool, error) {
	rows, err := s.DB.Pool.Query(ctx, `SELECT name FROM credentials WHERE cluster_id = $1`, cluster)
	if err != nil {
		return nil, control.Fault(err)
	}
	names := map[string]bool{}
	var name string
	_, err = pgx.ForEachRow(rows, []any{&name}, func() error {
		names[name] = true
		return nil
	})
	return names, control.Fault(err)
}
