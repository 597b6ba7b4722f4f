// Package task does what is due at a time, once, on whichever replica takes it first: the end of leases, rotations, and the
// like. A task is a row of the control database that names what it is about; the handler of its kind decides what to do,
// from the state that it finds then. So a task that runs twice, or after a kill, does no harm.
package task

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/control"
)

// Task is what is to be done when.
type Task struct {
	Kind    string
	Key     uuid.UUID     // of what it is about
	Cluster uuid.UUID     // in which it is done, and with whose registration it ends; zero: in none
	In      time.Duration // from now, by the clock of the control database
}

// Kind is a kind of tasks.
type Kind struct {
	Name string
	// Do does what is due for the key. again is in how long it is due again; negative: it is done. If Set moves the task in the
	// meantime, that counts instead. After an error it is tried again, later and later, at most every 30 seconds.
	Do func(ctx context.Context, key uuid.UUID) (again time.Duration, err error)
}

// The limits of one replica.
const (
	// claimTime is how long a task is left to the replica that has taken it. A handler ends before that.
	claimTime = 30 * time.Second
	// perCluster and perReplica are how many tasks run at a time.
	perCluster, perReplica = 8, 32
	// pollEvery is the pause between looks at what is due.
	pollEvery = time.Second
	// grace is what running handlers get when the worker is to stop.
	grace = 2 * time.Second
	// maxBackoff is the longest pause after failures.
	maxBackoff = 30 * time.Second
	// storeTimeout ends a statement that stores what came of a task.
	storeTimeout = 5 * time.Second
	// maxFailing bounds what is remembered of errors that are logged.
	maxFailing = 10_000
)

// Worker takes what is due and does it, until Run ends.
type Worker struct {
	DB    *control.DB
	Log   *slog.Logger
	Kinds []Kind
	// Away returns the clusters that do not answer: what is due in them waits until they do. nil: all answer.
	Away func() []uuid.UUID
	// Every is the pause between looks at what is due; 0: a second.
	Every time.Duration
	// PerCluster is how many tasks run at a time in a cluster, or in none; 0: 8.
	PerCluster int
	// Claim is how long a task is left to the replica that has taken it; 0: 30 seconds. A handler has 5/6 of it.
	Claim time.Duration

	mu      sync.Mutex
	running map[uuid.UUID]int // tasks, by cluster
	total   int
	failing map[failure]string // errors that are logged
}

// Set schedules a task in the transaction that makes it necessary, or moves the one of the same kind and key.
func Set(ctx context.Context, tx pgx.Tx, t Task) error {
	batch := &pgx.Batch{}
	QueueSet(batch, t)
	return tx.SendBatch(ctx, batch).Close()
}

// QueueSet is Set as a statement of a batch.
func QueueSet(batch *pgx.Batch, t Task) {
	batch.Queue(`
		INSERT INTO tasks (kind, key, cluster_id, due)
		VALUES ($1, $2, nullif($3, '00000000-0000-0000-0000-000000000000'::uuid), clock_timestamp() + $4::interval)
		ON CONFLICT (kind, key) DO UPDATE SET due = excluded.due, failures = 0`, t.Kind, t.Key, t.Cluster, t.In)
}

// QueueRemove unschedules a task by a statement of a batch.
func QueueRemove(batch *pgx.Batch, kind string, key uuid.UUID) {
	batch.Queue(`DELETE FROM tasks WHERE kind = $1 AND key = $2`, kind, key)
}

// Remove unschedules a task.
func Remove(ctx context.Context, tx pgx.Tx, kind string, key uuid.UUID) error {
	batch := &pgx.Batch{}
	QueueRemove(batch, kind, key)
	return tx.SendBatch(ctx, batch).Close()
}

// Count is how many tasks of a kind wait in a cluster.
type Count struct {
	Kind    string
	Cluster uuid.UUID // zero: in none
	Due     int       // now
	Late    int       // of these: for more than a minute
}

// Counts returns how much is due, by kind and cluster.
func Counts(ctx context.Context, db *control.DB) ([]Count, error) {
	rows, err := db.Pool.Query(ctx, `
		SELECT kind, coalesce(cluster_id, '00000000-0000-0000-0000-000000000000'), count(*),
		  count(*) FILTER (WHERE due < now() - interval '1 minute')
		FROM tasks WHERE due <= now() GROUP BY 1, 2 ORDER BY 1, 2`)
	if err != nil {
		return nil, control.Fault(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Count])
	return list, control.Fault(err)
}
