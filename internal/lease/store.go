package lease

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rolecall/internal/control"
	"rolecall/internal/fault"
)

// Store keeps the rows of leases and credentials.
type Store struct {
	DB *control.DB
}

const (
	noID    = `'00000000-0000-0000-0000-000000000000'::uuid`
	never   = `'0001-01-01 00:00:00+00'::timestamptz`
	columns = `l.id, l.cluster_id, l.username, l.for_role, coalesce(l.account_guid, ''), l.account_name,
	coalesce(l.credential, ''), coalesce(l.token, ` + noID + `), l.note, l.ttl, l.databases,
	l.created_at, l.expires_at, l.max_expires_at, coalesce(l.renewed_at, ` + never + `), coalesce(l.ended_at, ` + never + `),
	l.state, coalesce(l.end_reason, ''), l.blocked_by, coalesce(l.role_oid, 0)`
)

func scan(row pgx.CollectableRow) (*Lease, error) {
	var l Lease
	err := row.Scan(&l.ID, &l.Cluster, &l.Username, &l.For, &l.Account, &l.AccountName,
		&l.Credential, &l.Token, &l.Note, &l.TTL, &l.Databases,
		&l.CreatedAt, &l.ExpiresAt, &l.MaxExpiresAt, &l.RenewedAt, &l.EndedAt,
		&l.State, &l.Reason, &l.BlockedBy, &l.RoleOID)
	return &l, err
}

func collect(ctx context.Context, q control.Querier, sql string, args ...any) ([]*Lease, error) {
	rows, err := q.Query(ctx, `SELECT `+columns+` FROM leases l `+sql, args...)
	if err != nil {
		return nil, control.Fault(err)
	}
	list, err := pgx.CollectRows(rows, scan)
	return list, control.Fault(err)
}

// Insert adds a lease.
func (s *Store) Insert(ctx context.Context, tx pgx.Tx, l *Lease) error {
	batch := &pgx.Batch{}
	s.QueueInsert(batch, l)
	return tx.SendBatch(ctx, batch).Close()
}

// QueueInsert is Insert as a statement of a batch.
func (s *Store) QueueInsert(batch *pgx.Batch, l *Lease) {
	batch.Queue(`
		INSERT INTO leases (id, cluster_id, username, for_role, account_guid, account_name, credential, token, note, ttl,
		  databases, created_at, expires_at, max_expires_at, role_oid)
		VALUES ($1, $2, $3, $4, nullif($5, ''), $6, nullif($7, ''), nullif($8, `+noID+`), $9, $10, $11, $12, $13, $14,
		  nullif($15::oid, 0))`,
		l.ID, l.Cluster, l.Username, l.For, l.Account, l.AccountName, l.Credential, l.Token, l.Note, l.TTL,
		append([]string{}, l.Databases...), l.CreatedAt, l.ExpiresAt, l.MaxExpiresAt, l.RoleOID)
}

// Get returns a lease.
func (s *Store) Get(ctx context.Context, id uuid.UUID) (*Lease, error) {
	return s.one(ctx, s.DB.Pool, id, `WHERE l.id = $1`)
}

// Lock returns a lease, and keeps others from changing it until the transaction ends.
func (s *Store) Lock(ctx context.Context, tx pgx.Tx, id uuid.UUID) (*Lease, error) {
	return s.one(ctx, tx, id, `WHERE l.id = $1 FOR NO KEY UPDATE`)
}

func (s *Store) one(ctx context.Context, q control.Querier, id uuid.UUID, sql string) (*Lease, error) {
	list, err := collect(ctx, q, sql, id)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, NotFound(id.String())
	}
	return list[0], nil
}

// NotFound is the fault that there is no lease of the id.
func NotFound(id string) error { return fault.New(fault.NotFound, "There is no lease %q.", id) }

// List returns the leases that the filter chooses, the newest first, and whether there are more than its limit.
func (s *Store) List(ctx context.Context, f Filter) (list []*Lease, more bool, err error) {
	sql, args := f.where()
	if f.Limit > 0 {
		sql += fmt.Sprintf(" LIMIT %d", f.Limit+1)
	}
	list, err = collect(ctx, s.DB.Pool, sql, args...)
	if err == nil && f.Limit > 0 && len(list) > f.Limit {
		return list[:f.Limit], true, nil
	}
	return list, false, err
}

func (f *Filter) where() (sql string, args []any) {
	conditions := []string{"true"}
	add := func(condition string, arg any) {
		args = append(args, arg)
		conditions = append(conditions, strings.ReplaceAll(condition, "?", fmt.Sprintf("$%d", len(args))))
	}
	if f.Clusters != nil {
		condition := "l.cluster_id = ANY(?)"
		if f.Own != "" {
			args = append(args, f.Own)
			condition = fmt.Sprintf("(l.cluster_id = ANY(?) OR l.account_guid = $%d)", len(args))
		}
		add(condition, f.Clusters)
	}
	if f.Account != "" {
		add("(l.account_guid = ? OR l.account_name = ?)", f.Account)
	}
	if f.For != "" {
		add("l.for_role = ?", f.For)
	}
	if f.Username != "" {
		add("l.username = ?", f.Username)
	}
	if f.Credential != "" {
		add("l.credential = ?", f.Credential)
	}
	if f.Token != uuid.Nil {
		add("l.token = ?", f.Token)
	}
	if len(f.States) > 0 {
		add("l.state = ANY(?)", f.States)
	}
	if f.Live || len(f.States) > 0 && !slices.Contains(f.States, Ended) { // the index of the live ones is for this condition
		conditions = append(conditions, "l.state <> 'ended'")
	}
	if !f.ExpiresBefore.IsZero() {
		add("l.expires_at < ?", f.ExpiresBefore)
	}
	if f.After != uuid.Nil {
		add("l.id < ?", f.After)
	}
	return "WHERE " + strings.Join(conditions, " AND ") + " ORDER BY l.id DESC", args
}

// Live returns the leases of a cluster that have not ended.
func (s *Store) Live(ctx context.Context, cluster uuid.UUID) ([]*Lease, error) {
	list, _, err := s.List(ctx, Filter{Clusters: []uuid.UUID{cluster}, Live: true})
	return list, err
}

// CountLive returns how many leases of an account have not ended in a cluster. Until the transaction ends no other counts
// those of the same account.
func (s *Store) CountLive(ctx context.Context, tx pgx.Tx, accountGUID string, cluster uuid.UUID) (n int, err error) {
	batch := &pgx.Batch{}
	batch.Queue(`SELECT FROM accounts WHERE guid = $1 FOR NO KEY UPDATE`, accountGUID)
	batch.Queue(`SELECT count(*) FROM leases WHERE cluster_id = $1 AND account_guid = $2 AND state <> 'ended'`, cluster,
		accountGUID).QueryRow(func(row pgx.Row) error { return row.Scan(&n) })
	err = tx.SendBatch(ctx, batch).Close()
	return n, err
}

// QueueMade stores what the cluster knows of a lease whose role was made, by a statement of a batch.
func (s *Store) QueueMade(batch *pgx.Batch, l *Lease) {
	batch.Queue(`
		UPDATE leases SET created_at = $2, expires_at = $3, max_expires_at = $4, databases = $5, role_oid = $6
		WHERE id = $1`,
		l.ID, l.CreatedAt, l.ExpiresAt, l.MaxExpiresAt, append([]string{}, l.Databases...), l.RoleOID)
}

// Renewed stores another end of a lease, and when it was renewed; zero: that stays.
func (s *Store) Renewed(ctx context.Context, tx pgx.Tx, id uuid.UUID, expires, renewed time.Time) error {
	_, err := tx.Exec(ctx, `
		UPDATE leases SET expires_at = $2, max_expires_at = greatest(max_expires_at, $2),
		  renewed_at = coalesce(nullif($3, `+never+`), renewed_at)
		WHERE id = $1`, id, expires, renewed)
	return err
}

// SetState stores where a lease is on its way to its end. The first reason stays. One that has ended stays so, and one that
// is blocked is not ending again; changed is false then.
func (s *Store) SetState(ctx context.Context, tx pgx.Tx, id uuid.UUID, state State, reason Reason, blockedBy []string) (
	changed bool, err error) {
	if state == Active {
		return false, errors.New("a lease does not become active again")
	}
	batch := &pgx.Batch{}
	s.QueueState(batch, id, state, reason, blockedBy).Exec(func(tag pgconn.CommandTag) error {
		changed = tag.RowsAffected() > 0
		return nil
	})
	err = tx.SendBatch(ctx, batch).Close()
	return changed, err
}

// QueueState is SetState, to another state than Active, as a statement of a batch.
func (s *Store) QueueState(batch *pgx.Batch, id uuid.UUID, state State, reason Reason, blockedBy []string) *pgx.QueuedQuery {
	if state != Blocked {
		blockedBy = nil
	}
	return batch.Queue(`
		UPDATE leases SET state = $2, end_reason = coalesce(end_reason, $3), blocked_by = $4,
		  ended_at = CASE WHEN $2 = 'ended' THEN clock_timestamp() END
		WHERE id = $1 AND state <> 'ended' AND NOT (state = 'blocked' AND $2 = 'ending')`,
		id, state, reason, append([]string{}, blockedBy...))
}

// Delete removes a lease whose role was never made.
func (s *Store) Delete(ctx context.Context, tx pgx.Tx, id uuid.UUID) error {
	_, err := tx.Exec(ctx, `DELETE FROM leases WHERE id = $1`, id)
	return err
}

// DeleteEnded removes the leases that ended longer ago than age.
func (s *Store) DeleteEnded(ctx context.Context, age time.Duration) (n int, err error) {
	tag, err := s.DB.Pool.Exec(ctx,
		`DELETE FROM leases WHERE state = 'ended' AND ended_at < clock_timestamp() - $1::interval`, age)
	return int(tag.RowsAffected()), control.Fault(err)
}

// Count is how many leases of a cluster have not ended, by state, and how many credentials are stored for it.
type Count struct {
	Active, Ending, Blocked int
	Late                    int // of the active and ending ones: those whose end was more than a minute ago
	Credentials             int
	Failing                 int // of these: those that did not rotate the last time
}

// Counts returns how many leases and credentials there are, by cluster.
func (s *Store) Counts(ctx context.Context) (map[uuid.UUID]Count, error) {
	rows, err := s.DB.Pool.Query(ctx, `
		SELECT c.id, coalesce(l.active, 0), coalesce(l.ending, 0), coalesce(l.blocked, 0), coalesce(l.late, 0),
		  coalesce(s.stored, 0), coalesce(s.failing, 0)
		FROM clusters c
		LEFT JOIN (
		  SELECT cluster_id, count(*) FILTER (WHERE state = 'active') AS active,
		    count(*) FILTER (WHERE state = 'ending') AS ending, count(*) FILTER (WHERE state = 'blocked') AS blocked,
		    count(*) FILTER (WHERE state <> 'blocked' AND expires_at < now() - interval '1 minute') AS late
		  FROM leases WHERE state <> 'ended' GROUP BY cluster_id) l ON l.cluster_id = c.id
		LEFT JOIN (
		  SELECT cluster_id, count(*) AS stored, count(*) FILTER (WHERE last_error <> '') AS failing
		  FROM credentials GROUP BY cluster_id) s ON s.cluster_id = c.id`)
	if err != nil {
		return nil, control.Fault(err)
	}
	counts := map[uuid.UUID]Count{}
	var id uuid.UUID
	var n Count
	_, err = pgx.ForEachRow(rows, []any{&id, &n.Active, &n.Ending, &n.Blocked, &n.Late, &n.Credentials, &n.Failing},
		func() error {
			counts[id] = n
			return nil
		})
	return counts, control.Fault(err)
}

// Blocked returns the blocked leases of clusters, of each the oldest ones, at most a number of them.
func (s *Store) Blocked(ctx context.Context, clusters []uuid.UUID, most int) ([]*Lease, error) {
	return collect(ctx, s.DB.Pool, `
		WHERE l.id IN (
		  SELECT b.id FROM unnest($1::uuid[]) AS c (id) CROSS JOIN LATERAL (
		    SELECT id FROM leases WHERE cluster_id = c.id AND state = 'blocked' ORDER BY id LIMIT $2) b)
		ORDER BY l.id`, clusters, most)
}

// InUse returns how many leases of a cluster have not ended, and how many credentials are stored for it.
func InUse(ctx context.Context, tx pgx.Tx, cluster uuid.UUID) (leases, credentials int, err error) {
	err = tx.QueryRow(ctx, `
		SELECT (SELECT count(*) FROM leases WHERE cluster_id = $1 AND state <> 'ended'),
		  (SELECT count(*) FROM credentials WHERE cluster_id = $1)`, cluster).Scan(&leases, &credentials)
	return leases, credentials, err
}
