package fleet

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rolecall/internal/account"
	"rolecall/internal/control"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/task"
)

// Options are what an action may be given, as it is stored.
type Options struct {
	ValidUntil *time.Time `json:"validUntil,omitempty"` // of Expire
	ReassignTo string     `json:"reassignTo,omitempty"` // of Delete
	OnBlocked  string     `json:"onBlocked,omitempty"`  // of Delete: "disable", or ""
}

func optionsOf(r *Request) (o Options) {
	if r.Action == Expire {
		at := r.ValidUntil.UTC()
		o.ValidUntil = &at
	}
	o.ReassignTo = r.ReassignTo
	if r.Disable {
		o.OnBlocked = "disable"
	}
	return o
}

// clock is the time of the control database.
func clock(ctx context.Context, q control.Querier) (now time.Time, err error) {
	err = q.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now)
	return now, err
}

// maxOpen is how many operations of an account are in progress, at most.
const maxOpen = 100

// checkOpen refuses one more operation of an account that has maxOpen in progress.
func checkOpen(ctx context.Context, tx pgx.Tx, p *account.Principal) error {
	var open int
	err := tx.QueryRow(ctx, `SELECT count(*) FROM operations WHERE account_guid = $1 AND ended_at IS NULL`, p.GUID).Scan(&open)
	if err == nil && open >= maxOpen {
		return fault.New(fault.Invalid, "Your account has %d operations in progress, which is the most. Wait for one of them to "+
			"end, or cancel one.", open)
	}
	return err
}

// insertOperation stores an operation with its parts, items and tasks.
func insertOperation(ctx context.Context, tx pgx.Tx, id uuid.UUID, p *account.Principal, r *Request, plan []Planned) error {
	scopes := p.Scopes
	if p.Clusters != nil {
		scopes = p.ClusterScopes
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO operations (id, action, options, account_guid, account_name, token, access_token, scopes, clusters,
		  request_id, address, epoch)
		VALUES ($1, $2, $3, $4, $5, nullif($6, `+noID+`), nullif($7, `+noID+`), $8, $9, $10, $11, nullif($12, `+noID+`))`,
		id, r.Action, optionsOf(r), p.GUID, p.Entry("", "", nil).AccountName, p.Token, p.AccessToken,
		append([]string{}, scopes...), p.Clusters, p.RequestID, p.Address, p.Epoch)
	if err != nil {
		return err
	}
	parts, order := partsOf(plan)
	for _, part := range order {
		_, err := tx.Exec(ctx, `
			INSERT INTO operation_parts (id, operation_id, cluster_id, cluster_name, total, skipped)
			VALUES ($1, $2, $3, $4, $5, $6)`, part.id, id, part.cluster, part.name, part.total, part.skipped)
		if err != nil {
			return err
		}
		if part.skipped < part.total {
			if err := scheduleWork(ctx, tx, part.id, part.cluster); err != nil {
				return err
			}
		}
	}
	_, err = tx.CopyFrom(ctx, pgx.Identifier{"operation_items"},
		[]string{"operation_id", "position", "part_id", "name", "role_oid", "state", "detail"},
		pgx.CopyFromSlice(len(plan), func(i int) ([]any, error) {
			u, state := plan[i], "pending"
			if u.Skipped != "" {
				state = "skipped"
			}
			var oid *uint32
			if u.OID != 0 {
				oid = &u.OID
			}
			return []any{id, int32(i), parts[u.Cluster.ID].id, pgrole.Storable(u.Name), oid, state, u.Skipped}, nil
		}))
	if err != nil {
		return err
	}
	// An operation without anything to do ends with its first look.
	return task.Set(ctx, tx, task.Task{Kind: tendTask, Key: id})
}

const noID = `'00000000-0000-0000-0000-000000000000'::uuid`

// newPart is the part of a plan in one cluster.
type newPart struct {
	id, cluster    uuid.UUID
	name           string
	total, skipped int
}

// partsOf are the parts of a plan, by the id of the cluster and in the order of the plan.
func partsOf(plan []Planned) (parts map[uuid.UUID]*newPart, order []*newPart) {
	parts = map[uuid.UUID]*newPart{}
	for _, u := range plan {
		part := parts[u.Cluster.ID]
		if part == nil {
			part = &newPart{id: uuid.New(), cluster: u.Cluster.ID, name: u.Cluster.DisplayName}
			parts[u.Cluster.ID] = part
			order = append(order, part)
		}
		part.total++
		if u.Skipped != "" {
			part.skipped++
		}
	}
	return parts, order
}

// The states of an operation, and of its items; one that is running is shown as pending.
const (
	stateRunning  = "running"
	stateDone     = "done"
	stateFailed   = "failed"
	stateCanceled = "cancelled"

	itemDone    = "done"
	itemFailed  = "failed"
	itemSkipped = "skipped"
)

// Operation is what is done to many users.
type Operation struct {
	ID          uuid.UUID
	Action      Action
	Options     Options
	Account     string // guid
	AccountName string
	State       string // one of those above
	Reason      string // why it failed
	CreatedAt   time.Time
	EndedAt     time.Time // zero: something of it is still in progress
	Counts      Counts
	Stuck       []Stuck // clusters in which it does not go on

	as account.Principal // who does it, as far as it was at the start
}

// Counts are how many users an operation has, and how many of them have ended how.
type Counts struct{ Total, Done, Failed, Skipped int }

// Stuck says why an operation does not go on in a cluster.
type Stuck struct {
	Cluster uuid.UUID `json:"cluster"`
	Name    string    `json:"name"`
	Error   string    `json:"error"`
}

const operationColumns = `o.id, o.action, o.options, o.account_guid, o.account_name, o.state, o.reason, o.created_at,
	coalesce(o.ended_at, '0001-01-01 00:00:00+00'), coalesce(o.token, ` + noID + `), coalesce(o.access_token, ` + noID + `),
	coalesce(o.epoch, ` + noID + `), o.scopes, o.clusters, o.request_id, o.address,
	(SELECT coalesce(sum(total), 0) FROM operation_parts WHERE operation_id = o.id),
	(SELECT coalesce(sum(done), 0) FROM operation_parts WHERE operation_id = o.id),
	(SELECT coalesce(sum(failed), 0) FROM operation_parts WHERE operation_id = o.id),
	(SELECT coalesce(sum(skipped), 0) FROM operation_parts WHERE operation_id = o.id),
	coalesce((SELECT jsonb_agg(jsonb_build_object('cluster', cluster_id, 'name', cluster_name, 'error', last_error)
	    ORDER BY cluster_name)
	  FROM operation_parts
	  WHERE operation_id = o.id AND last_error <> '' AND done + failed + skipped < total), '[]')`

func scanOperation(row pgx.CollectableRow) (*Operation, error) {
	var o Operation
	err := row.Scan(&o.ID, &o.Action, &o.Options, &o.Account, &o.AccountName, &o.State, &o.Reason, &o.CreatedAt,
		&o.EndedAt, &o.as.Token, &o.as.AccessToken, &o.as.Epoch,
		&o.as.Scopes, &o.as.Clusters, &o.as.RequestID, &o.as.Address,
		&o.Counts.Total, &o.Counts.Done, &o.Counts.Failed, &o.Counts.Skipped, &o.Stuck)
	o.as.GUID, o.as.Operation = o.Account, o.ID
	return &o, err
}

func notFound(id string) error { return fault.New(fault.NotFound, "There is no operation %.64q.", id) }

// operation returns an operation and the time of the control database.
func (s *Service) operation(ctx context.Context, id uuid.UUID) (*Operation, time.Time, error) {
	now, err := clock(ctx, s.DB.Pool)
	if err != nil {
		return nil, now, control.Fault(err)
	}
	rows, err := s.DB.Pool.Query(ctx, `SELECT `+operationColumns+` FROM operations o WHERE o.id = $1`, id)
	if err != nil {
		return nil, now, control.Fault(err)
	}
	o, err := pgx.CollectExactlyOneRow(rows, scanOperation)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, now, notFound(id.String())
	}
	return o, now, control.Fault(err)
}

// operationPart is what is to be done of an operation in one cluster.
type operationPart struct {
	id, cluster uuid.UUID
	operation   *Operation

	// Of openParts only:
	registered bool
	idle       time.Duration // since an item of it last ended
	lastError  string
}

// readPartOf returns a part of an operation that runs.
func (s *Service) readPartOf(ctx context.Context, id uuid.UUID) (*operationPart, error) {
	w := &operationPart{id: id}
	var of uuid.UUID
	err := s.DB.Pool.QueryRow(ctx, `SELECT operation_id, cluster_id FROM operation_parts WHERE id = $1`, id).
		Scan(&of, &w.cluster)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, notFound(id.String())
	}
	if err != nil {
		return nil, control.Fault(err)
	}
	w.operation, _, err = s.operation(ctx, of)
	return w, err
}

// item is one user of an operation, as this replica has taken it.
type item struct {
	Operation uuid.UUID
	Position  int
	Name      string
	OID       uint32
	Tries     int
	Detail    string
	Begun     bool      // it was tried before, and may have been done
	CutOff    bool      // nobody has stored what came of that
	BegunAt   time.Time // when it was tried first
	claim     uuid.UUID
}

// claim takes the next user of a part whose operation runs; nil: there is none to begin with now.
func (s *Service) claim(ctx context.Context, w *operationPart) (*item, error) {
	it := &item{Operation: w.operation.ID, claim: uuid.New()}
	err := s.DB.Pool.QueryRow(ctx, `
		WITH next AS (
		  SELECT i.operation_id, i.position, i.begun_at IS NOT NULL AS begun, i.state = 'running' AS cut FROM operation_items i
		  WHERE i.part_id = $1 AND i.state IN ('pending', 'running') AND i.due <= clock_timestamp()
		    AND EXISTS (SELECT FROM operations WHERE id = i.operation_id AND state = 'running')
		  ORDER BY i.position LIMIT 1 FOR UPDATE SKIP LOCKED
		)
		UPDATE operation_items i SET state = 'running', claim = $2, due = clock_timestamp() + $3::interval,
		  begun_at = coalesce(begun_at, clock_timestamp())
		FROM next WHERE i.operation_id = next.operation_id AND i.position = next.position
		RETURNING i.position, i.name, coalesce(i.role_oid, 0), i.tries, i.detail, next.begun, next.cut, i.begun_at`,
		w.id, it.claim, w.operation.Action.itemTime()+claimMargin).
		Scan(&it.Position, &it.Name, &it.OID, &it.Tries, &it.Detail, &it.Begun, &it.CutOff, &it.BegunAt)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return it, control.Fault(err)
}

// ended stores how an item has ended, unless another replica has taken it in the meantime.
func (s *Service) ended(ctx context.Context, it *item, state, detail string) error {
	_, err := s.DB.Pool.Exec(ctx, `
		WITH item AS (
		  UPDATE operation_items SET state = $4, detail = $5, claim = NULL
		  WHERE operation_id = $1 AND position = $2 AND claim = $3 AND state = 'running' RETURNING part_id
		)
		UPDATE operation_parts p SET done = done + ($4 = 'done')::int, failed = failed + ($4 = 'failed')::int,
		  skipped = skipped + ($4 = 'skipped')::int, progressed_at = clock_timestamp(), last_error = ''
		FROM item WHERE p.id = item.part_id`, it.Operation, it.Position, it.claim, state, pgrole.Storable(detail))
	return control.Fault(err)
}

// retry has an item tried again after a pause. tries is 1 if this try counts, detail why it is tried again.
func (s *Service) retry(ctx context.Context, it *item, tries int, in time.Duration, detail string) error {
	_, err := s.DB.Pool.Exec(ctx, `
		UPDATE operation_items SET state = 'pending', claim = NULL, tries = tries + $4, detail = $6,
		  due = clock_timestamp() + $5::interval
		WHERE operation_id = $1 AND position = $2 AND claim = $3 AND state = 'running'`,
		it.Operation, it.Position, it.claim, tries, in, pgrole.Storable(detail))
	return control.Fault(err)
}

// stuck stores why a part makes no progress.
func (s *Service) stuck(ctx context.Context, part uuid.UUID, why string) error {
	_, err := s.DB.Pool.Exec(ctx, `UPDATE operation_parts SET last_error = $2 WHERE id = $1 AND last_error <> $2`, part,
		pgrole.Storable(why))
	return control.Fault(err)
}

// open is how many items of a part have not ended, and in how long one of them may be tried.
func (s *Service) open(ctx context.Context, part uuid.UUID) (n int, in time.Duration, err error) {
	err = s.DB.Pool.QueryRow(ctx, `
		SELECT count(*), greatest(coalesce(min(due) - clock_timestamp(), '0'), '0') FROM operation_items
		WHERE part_id = $1 AND state IN ('pending', 'running')
		  AND EXISTS (SELECT FROM operations WHERE id = operation_id AND state = 'running')`, part).Scan(&n, &in)
	return n, in, control.Fault(err)
}

// finish ends an operation of which nothing is open.
func (s *Service) finish(ctx context.Context, id uuid.UUID) error {
	_, err := s.DB.Pool.Exec(ctx, `
		UPDATE operations SET ended_at = clock_timestamp(), state = CASE WHEN state = 'running' THEN 'done' ELSE state END
		WHERE id = $1 AND ended_at IS NULL AND NOT EXISTS (
		  SELECT FROM operation_parts p JOIN operation_items i ON i.part_id = p.id AND i.state IN ('pending', 'running')
		  WHERE p.operation_id = $1)`, id)
	return control.Fault(err)
}

// remove removes an operation, with all that belongs to it. The report of an offboarding keeps its operation.
func (s *Service) remove(ctx context.Context, id uuid.UUID) error {
	_, err := s.DB.Pool.Exec(ctx, `
		DELETE FROM operations o WHERE id = $1 AND NOT EXISTS (SELECT FROM offboardings WHERE operation = o.id)`, id)
	return control.Fault(err)
}

// executor is the pool or a transaction.
type executor interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// endItems ends items that are open, by a condition on them, and counts them.
func endItems(ctx context.Context, db executor, condition, state, detail string, of uuid.UUID) error {
	_, err := db.Exec(ctx, `
		WITH ended AS (
		  UPDATE operation_items SET state = $2, detail = $3, claim = NULL WHERE `+condition+` RETURNING part_id
		), counted AS (
		  SELECT part_id, count(*)::int AS n FROM ended GROUP BY part_id
		)
		UPDATE operation_parts p SET failed = failed + CASE WHEN $2 = 'failed' THEN n ELSE 0 END,
		  skipped = skipped + CASE WHEN $2 = 'skipped' THEN n ELSE 0 END
		FROM counted WHERE p.id = counted.part_id`, of, state, pgrole.Storable(detail))
	return control.Fault(err)
}

// stop ends a running operation before all is done, and says whether it was running. What is in progress goes on to its end.
// reason is that of the operation, rest that of what is not done.
func stop(ctx context.Context, tx pgx.Tx, id uuid.UUID, state, reason, rest string) (stopped bool, err error) {
	tag, err := tx.Exec(ctx, `UPDATE operations SET state = $2, reason = $3 WHERE id = $1 AND state = 'running'`, id, state,
		pgrole.Storable(reason))
	if err != nil || tag.RowsAffected() == 0 {
		return false, err
	}
	return true, endItems(ctx, tx, `operation_id = $1 AND state = 'pending'`, itemSkipped, rest, id)
}

// endRest ends what is left of an operation that was stopped: what was tried again at that moment, and what was cut off.
func (s *Service) endRest(ctx context.Context, o *Operation) error {
	return s.DB.Tx(ctx, func(tx pgx.Tx) error {
		err := endItems(ctx, tx, `operation_id = $1 AND state = 'pending'`, itemSkipped, o.rest(), o.ID)
		if err != nil {
			return err
		}
		return endItems(ctx, tx, `operation_id = $1 AND state = 'running' AND due <= clock_timestamp()`, itemFailed,
			"It was cut off. The audit log says whether it was done.", o.ID)
	})
}

// rest is what is said of the users of a stopped operation that were not done.
func (o *Operation) rest() string {
	if o.State == stateCanceled {
		return "The operation was canceled."
	}
	return o.Reason
}

// giveUp ends what is open in a part of an operation, but for what is in progress.
func (s *Service) giveUp(ctx context.Context, part uuid.UUID, why string) error {
	return endItems(ctx, s.DB.Pool, `part_id = $1 AND (state = 'pending' OR state = 'running' AND due <= clock_timestamp())`,
		itemFailed, why, part)
}

// openParts are the parts of an operation of which something is open.
func (s *Service) openParts(ctx context.Context, id uuid.UUID) ([]*operationPart, error) {
	rows, err := s.DB.Pool.Query(ctx, `
		SELECT p.id, p.cluster_id, c.id IS NOT NULL, clock_timestamp() - p.progressed_at, p.last_error
		FROM operation_parts p LEFT JOIN clusters c ON c.id = p.cluster_id
		WHERE p.operation_id = $1 AND p.done + p.failed + p.skipped < p.total`, id)
	if err != nil {
		return nil, control.Fault(err)
	}
	parts, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*operationPart, error) {
		var w operationPart
		return &w, row.Scan(&w.id, &w.cluster, &w.registered, &w.idle, &w.lastError)
	})
	return parts, control.Fault(err)
}
