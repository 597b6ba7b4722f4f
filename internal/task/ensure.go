package task

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Ensure schedules a task, unless one of the same kind and key is scheduled.
func Ensure(ctx context.Context, tx pgx.Tx, t Task) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO tasks (kind, key, cluster_id, due)
		VALUES ($1, $2, nullif($3, '00000000-0000-0000-0000-000000000000'::uuid), clock_timestamp() + $4::interval)
		ON CONFLICT (kind, key) DO NOTHING`, t.Kind, t.Key, t.Cluster, t.In)
	return err
}
