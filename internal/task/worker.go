package task

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rolecall/internal/fault"
)

// claimed is a task that this replica has taken.
type claimed struct {
	Kind     string
	Key      uuid.UUID
	Cluster  uuid.UUID
	Due      time.Time
	Until    time.Time // when others may take it; it tells this claim from later ones
	Failures int
}

// failure is where errors are the same one: a task, or all of a kind in a cluster that does not answer.
type failure struct {
	kind string
	of   uuid.UUID
}

// Run does what is due until ctx ends. Handlers that run then have a moment to end.
func (w *Worker) Run(ctx context.Context) {
	handling, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var group sync.WaitGroup
	ended := make(chan struct{}, 1)
	tick := time.NewTicker(cmp.Or(w.Every, pollEvery))
	defer tick.Stop()
	failed := false
	for ctx.Err() == nil {
		tasks, err := w.claim(ctx)
		if err != nil && ctx.Err() == nil && !failed {
			w.Log.Warn("the tasks that are due cannot be read", "error", err)
		}
		failed = err != nil
		for _, t := range tasks {
			group.Go(func() {
				_ = w.do(handling, t) // it is logged
				select {
				case ended <- struct{}{}:
				default:
				}
			})
		}
		select {
		case <-tick.C:
		case <-ended: // more may be due than may run at a time
		case <-ctx.Done():
		}
	}
	stop := time.AfterFunc(grace, end)
	defer stop.Stop()
	group.Wait()
}

// RunDue does what is due, until nothing is, and returns how many tasks it has done and their errors.
func (w *Worker) RunDue(ctx context.Context) (n int, err error) {
	for {
		tasks, claimErr := w.claim(ctx)
		if claimErr != nil || len(tasks) == 0 {
			return n, errors.Join(err, claimErr)
		}
		n += len(tasks)
		failed := make([]error, len(tasks))
		var group sync.WaitGroup
		for i, t := range tasks {
			group.Go(func() { failed[i] = w.do(ctx, t) })
		}
		group.Wait()
		err = errors.Join(append(failed, err)...)
	}
}

// claim takes tasks that are due, as many as there is room for. Each cluster gets its share: the first of each comes before
// the second of any.
func (w *Worker) claim(ctx context.Context) ([]claimed, error) {
	kinds := make([]string, len(w.Kinds))
	for i, k := range w.Kinds {
		kinds[i] = k.Name
	}
	away := []uuid.UUID{}
	if w.Away != nil {
		away = append(away, w.Away()...)
	}
	w.mu.Lock()
	room := perReplica - w.total
	clusters, running := make([]uuid.UUID, 0, len(w.running)), make([]int, 0, len(w.running))
	for id, n := range w.running {
		clusters, running = append(clusters, id), append(running, n)
	}
	w.mu.Unlock()
	if room <= 0 {
		return nil, nil
	}
	// The index has the order, so only a few rows are read of the many that may be due. Without statistics PostgreSQL would
	// read and sort all of them. For the same reason it is now(), and not clock_timestamp().
	batch := &pgx.Batch{}
	batch.Queue(`SELECT set_config('enable_bitmapscan', 'off', true), set_config('enable_seqscan', 'off', true)`)
	var tasks []claimed
	batch.Queue(`
		WITH places AS (
		  SELECT c.id, $1::int - coalesce(r.n, 0) AS room
		  FROM (SELECT id FROM clusters UNION ALL SELECT '00000000-0000-0000-0000-000000000000') c
		  LEFT JOIN unnest($2::uuid[], $3::int[]) AS r (id, n) ON r.id = c.id
		  WHERE c.id <> ALL($4::uuid[]) AND $1 > coalesce(r.n, 0)
		), due AS (
		  SELECT t.kind, t.key, row_number() OVER (PARTITION BY p.id ORDER BY t.due) AS nth, t.due
		  FROM places p CROSS JOIN LATERAL (
		    SELECT kind, key, due FROM tasks
		    WHERE coalesce(cluster_id, '00000000-0000-0000-0000-000000000000') = p.id AND due <= now()
		      AND (claimed IS NULL OR claimed <= now()) AND kind = ANY($5)
		    ORDER BY due LIMIT p.room FOR UPDATE SKIP LOCKED
		  ) t
		), chosen AS (
		  SELECT kind, key FROM due ORDER BY nth, due LIMIT $6
		)
		UPDATE tasks t SET claimed = clock_timestamp() + $7::interval FROM chosen
		WHERE t.kind = chosen.kind AND t.key = chosen.key
		RETURNING t.kind, t.key, coalesce(t.cluster_id, '00000000-0000-0000-0000-000000000000'), t.due, t.claimed, t.failures`,
		cmp.Or(w.PerCluster, perCluster), clusters, running, away, kinds, room, cmp.Or(w.Claim, claimTime),
	).Query(func(rows pgx.Rows) (err error) {
		tasks, err = pgx.CollectRows(rows, pgx.RowToStructByPos[claimed])
		return err
	})
	if err := w.DB.Pool.SendBatch(ctx, batch).Close(); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running == nil {
		w.running, w.failing = map[uuid.UUID]int{}, map[failure]string{}
	}
	for _, t := range tasks {
		w.running[t.Cluster]++
		w.total++
	}
	return tasks, nil
}

// do does a task, and stores what came of it.
func (w *Worker) do(ctx context.Context, t claimed) error {
	defer w.ended(t)
	again, err := w.handle(ctx, t)
	if err != nil && ctx.Err() != nil {
		return errors.Join(err, w.release(ctx, t)) // it was stopped, which is no failure
	}
	w.report(t, err)
	switch {
	case err != nil:
		return errors.Join(err, w.retry(ctx, t))
	case again < 0:
		return w.done(ctx, t)
	}
	return w.reschedule(ctx, t, again)
}

// handle calls the handler of the task's kind. Its panic is an error.
func (w *Worker) handle(ctx context.Context, t claimed) (again time.Duration, err error) {
	defer func() {
		if p := recover(); p != nil {
			w.Log.Error("a task has panicked", "kind", t.Kind, "key", t.Key, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(w.Claim, claimTime)*5/6)
	defer cancel()
	i := slices.IndexFunc(w.Kinds, func(k Kind) bool { return k.Name == t.Kind })
	return w.Kinds[i].Do(ctx, t.Key)
}

// backoff is the pause after a failure, by the number of those before it.
func backoff(failures int) time.Duration {
	return min(time.Second<<min(failures, 10), maxBackoff)
}

// done removes a task, unless it was moved while it was done.
func (w *Worker) done(ctx context.Context, t claimed) error {
	tag, err := w.exec(ctx, `DELETE FROM tasks WHERE kind = $1 AND key = $2 AND claimed = $3 AND due = $4`,
		t.Kind, t.Key, t.Until, t.Due)
	if err != nil || tag.RowsAffected() > 0 {
		return err
	}
	return w.release(ctx, t)
}

// reschedule makes a task due again, unless it was moved while it was done.
func (w *Worker) reschedule(ctx context.Context, t claimed, in time.Duration) error {
	_, err := w.exec(ctx, `
		UPDATE tasks SET claimed = NULL, failures = 0, due = CASE WHEN due = $4 THEN clock_timestamp() + $5::interval ELSE due END
		WHERE kind = $1 AND key = $2 AND claimed = $3`, t.Kind, t.Key, t.Until, t.Due, in)
	return err
}

// retry makes a task due again after a failure. A handler may have moved it in case of a kill: the earlier time counts.
func (w *Worker) retry(ctx context.Context, t claimed) error {
	_, err := w.exec(ctx, `
		UPDATE tasks SET claimed = NULL, failures = $5,
		  due = least(nullif(due, $4), clock_timestamp() + $6::interval)
		WHERE kind = $1 AND key = $2 AND claimed = $3`, t.Kind, t.Key, t.Until, t.Due, t.Failures+1, backoff(t.Failures))
	return err
}

// release leaves a task to others.
func (w *Worker) release(ctx context.Context, t claimed) error {
	_, err := w.exec(ctx, `UPDATE tasks SET claimed = NULL WHERE kind = $1 AND key = $2 AND claimed = $3`, t.Kind, t.Key,
		t.Until)
	return err
}

// exec stores what came of a task, also when the worker is to stop. If it fails, the claim ends by itself.
func (w *Worker) exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	return w.DB.Pool.Exec(ctx, sql, args...)
}

// ended makes room for another task.
func (w *Worker) ended(t claimed) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.total--
	if w.running[t.Cluster]--; w.running[t.Cluster] == 0 {
		delete(w.running, t.Cluster)
	}
}

// report logs the error of a task once, and again when it is another one. A cluster that cannot be
// reached is one failure, however many tasks meet it.
func (w *Worker) report(t claimed, err error) {
	task, outage := failure{t.Kind, t.Key}, failure{t.Kind, t.Cluster}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		delete(w.failing, task)
		delete(w.failing, outage)
		return
	}
	at := task
	if fault.Is(err, fault.Unavailable) {
		at = outage
	}
	if len(w.failing) > maxFailing {
		clear(w.failing) // of tasks that other replicas have done
	}
	if w.failing[at] == err.Error() {
		return
	}
	w.failing[at] = err.Error()
	w.Log.Warn("a task has failed and is tried again", "kind", t.Kind, "key", t.Key, "cluster", t.Cluster, "error", err)
}
