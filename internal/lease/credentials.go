package lease

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/control"
	"rolecall/internal/fault"
	"rolecall/internal/secret"
	"rolecall/internal/sqlstate"
)

const credentialColumns = `c.id, c.cluster_id, c.name, c.for_role, c.rotate_every, c.overlap, c.rotation_window,
	coalesce(c.lease_id, ` + noID + `), coalesce((SELECT l.username FROM leases l WHERE l.id = c.lease_id), ''),
	coalesce(c.next_lease_id, ` + noID + `), c.last_error, coalesce(c.rotated_at, ` + never + `),
	coalesce(c.rotates_at, ` + never + `), c.created_at, c.created_by, c.revision, c.password,
	coalesce(c.lease_since, c.rotated_at, ` + never + `), coalesce(c.next_since, ` + never + `), clock_timestamp()`

func scanCredential(row pgx.CollectableRow) (*Credential, error) {
	var c Credential
	err := row.Scan(&c.ID, &c.Cluster, &c.Name, &c.For, &c.RotateEvery, &c.Overlap, &c.Window,
		&c.Lease, &c.Username, &c.Next, &c.LastError, &c.RotatedAt,
		&c.RotatesAt, &c.CreatedAt, &c.CreatedBy, &c.Revision, &c.password,
		&c.LeaseSince, &c.NextSince, &c.Clock.shown)
	c.Clock.read = time.Now()
	if c.Next != uuid.Nil && c.NextSince.IsZero() { // by a release that did not store it
		c.NextSince = time.Unix(c.Next.Time().UnixTime())
	}
	return &c, err
}

func collectCredentials(ctx context.Context, q control.Querier, sql string, args ...any) ([]*Credential, error) {
	rows, err := q.Query(ctx, `SELECT `+credentialColumns+` FROM credentials c `+sql, args...)
	if err != nil {
		return nil, control.Fault(err)
	}
	list, err := pgx.CollectRows(rows, scanCredential)
	return list, control.Fault(err)
}

func oneCredential(ctx context.Context, q control.Querier, what, sql string, args ...any) (*Credential, error) {
	list, err := collectCredentials(ctx, q, sql, args...)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, fault.New(fault.NotFound, "There is no credential %q.", what)
	}
	return list[0], nil
}

// InsertCredential adds a credential, which has no lease yet.
func (s *Store) InsertCredential(ctx context.Context, tx pgx.Tx, c *Credential) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO credentials (id, cluster_id, name, for_role, rotate_every, overlap, rotation_window, created_by)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		c.ID, c.Cluster, c.Name, c.For, c.RotateEvery, c.Overlap, c.Window, c.CreatedBy)
	if sqlstate.Is(err, sqlstate.UniqueViolation) {
		return fault.New(fault.Exists, "There is a credential %q already.", c.Name)
	}
	return err
}

// UpdateCredential stores what a manager says of a credential, and when it rotates next.
func (s *Store) UpdateCredential(ctx context.Context, tx pgx.Tx, c *Credential) error {
	_, err := tx.Exec(ctx, `
		UPDATE credentials SET for_role = $2, rotate_every = $3, overlap = $4, rotation_window = $5,
		  rotates_at = nullif($6, `+never+`), revision = revision + 1
		WHERE id = $1`, c.ID, c.For, c.RotateEvery, c.Overlap, c.Window, c.RotatesAt)
	return err
}

// GetCredential returns a credential by its name.
func (s *Store) GetCredential(ctx context.Context, cluster uuid.UUID, name string) (*Credential, error) {
	return oneCredential(ctx, s.DB.Pool, name, `WHERE c.cluster_id = $1 AND c.name = $2`, cluster, name)
}

// CredentialByID returns a credential.
func (s *Store) CredentialByID(ctx context.Context, id uuid.UUID) (*Credential, error) {
	return oneCredential(ctx, s.DB.Pool, id.String(), `WHERE c.id = $1`, id)
}

// LockCredential returns a credential, and keeps others from changing it until the transaction ends.
func (s *Store) LockCredential(ctx context.Context, tx pgx.Tx, id uuid.UUID) (*Credential, error) {
	return oneCredential(ctx, tx, id.String(), `WHERE c.id = $1 FOR NO KEY UPDATE`, id)
}

// CredentialOf returns the id of the credential whose current lease it is; zero: none.
func (s *Store) CredentialOf(ctx context.Context, tx pgx.Tx, lease uuid.UUID) (id uuid.UUID, err error) {
	err = tx.QueryRow(ctx, `SELECT coalesce((SELECT id FROM credentials WHERE lease_id = $1), `+noID+`)`, lease).Scan(&id)
	return id, err
}

// Failing returns the credentials of clusters that did not rotate the last time, of each the first ones by name, at most a
// number of them.
func (s *Store) Failing(ctx context.Context, clusters []uuid.UUID, most int) ([]*Credential, error) {
	return collectCredentials(ctx, s.DB.Pool, `
		WHERE c.id IN (
		  SELECT f.id FROM unnest($1::uuid[]) AS u (id) CROSS JOIN LATERAL (
		    SELECT id FROM credentials WHERE cluster_id = u.id AND last_error <> '' ORDER BY name LIMIT $2) f)
		ORDER BY c.name`, clusters, most)
}

// LeasesOf returns the leases of a credential that have not ended.
func (s *Store) LeasesOf(ctx context.Context, tx pgx.Tx, c *Credential) ([]*Lease, error) {
	return collect(ctx, tx, `WHERE l.cluster_id = $1 AND l.credential = $2 AND l.state <> 'ended' ORDER BY l.id DESC`,
		c.Cluster, c.Name)
}

// CredentialNamed returns the id of a credential by its name; zero: there is none.
func (s *Store) CredentialNamed(ctx context.Context, tx pgx.Tx, cluster uuid.UUID, name string) (id uuid.UUID, err error) {
	err = tx.QueryRow(ctx, `
		SELECT coalesce((SELECT id FROM credentials WHERE cluster_id = $1 AND name = $2), `+noID+`)`,
		cluster, name).Scan(&id)
	return id, err
}

// ListCredentials returns the credentials of a cluster after a name, in the order of their names' bytes, but for those whose
// first lease is being made. limit 0: all.
func (s *Store) ListCredentials(ctx context.Context, cluster uuid.UUID, after string, limit int) (
	list []*Credential, more bool, err error) {
	sql := `WHERE c.cluster_id = $1 AND c.name COLLATE "C" > $2 AND c.lease_id IS NOT NULL ORDER BY c.name COLLATE "C"`
	if limit > 0 {
		sql += fmt.Sprintf(" LIMIT %d", limit+1)
	}
	list, err = collectCredentials(ctx, s.DB.Pool, sql, cluster, after)
	if err == nil && limit > 0 && len(list) > limit {
		return list[:limit], true, nil
	}
	return list, false, err
}

// SetNext stores the lease that is to replace the current one, and its password, before the role is made.
func (s *Store) SetNext(ctx context.Context, tx pgx.Tx, id, lease uuid.UUID, password secret.Text) error {
	_, err := tx.Exec(ctx, `
		UPDATE credentials SET next_lease_id = $2, next_password = $3, next_since = clock_timestamp() WHERE id = $1`,
		id, lease, s.DB.Keys.Seal(place(id, lease), []byte(password)))
	return err
}

// ClearNext removes the next lease, whose role was not made.
func (s *Store) ClearNext(ctx context.Context, tx pgx.Tx, id, lease uuid.UUID) error {
	_, err := tx.Exec(ctx, `
		UPDATE credentials SET next_lease_id = NULL, next_password = NULL, next_since = NULL
		WHERE id = $1 AND next_lease_id = $2`, id, lease)
	return err
}

// Promote makes the next lease the current one, and returns the one before; zero: none. The last rotation has worked then.
// If another lease is next, nothing is changed, and the fault is Stale.
func (s *Store) Promote(ctx context.Context, tx pgx.Tx, id, next uuid.UUID, rotates time.Time) (
	before uuid.UUID, err error) {
	c, err := s.LockCredential(ctx, tx, id)
	if err != nil {
		return uuid.Nil, err
	}
	if c.Next != next {
		return uuid.Nil, fault.New(fault.Stale, "The credential %q was rotated concurrently.", c.Name)
	}
	_, err = tx.Exec(ctx, `
		UPDATE credentials SET lease_id = next_lease_id, password = next_password, next_lease_id = NULL, next_password = NULL,
		  lease_since = next_since, next_since = NULL, rotated_at = clock_timestamp(), rotates_at = $2, last_error = ''
		WHERE id = $1`, id, rotates)
	return c.Lease, err
}

// SetError stores why the last rotation of a credential has failed; "": it worked.
func (s *Store) SetError(ctx context.Context, id uuid.UUID, text string) error {
	_, err := s.DB.Pool.Exec(ctx, `UPDATE credentials SET last_error = $2 WHERE id = $1 AND last_error <> $2`, id, text)
	return control.Fault(err)
}

// DeleteCredential removes a credential. Its leases stay.
func (s *Store) DeleteCredential(ctx context.Context, tx pgx.Tx, id uuid.UUID) error {
	_, err := tx.Exec(ctx, `DELETE FROM credentials WHERE id = $1`, id)
	return err
}

// Password opens the password of the current lease.
func (s *Store) Password(c *Credential) (secret.Text, error) {
	password, err := s.DB.Keys.Open(place(c.ID, c.Lease), c.password)
	return secret.Text(password), err
}

// place is what a sealed password is for: it opens for that lease of that credential only. Package control knows it, too.
func place(credential, lease uuid.UUID) string {
	return "credentials/" + credential.String() + "/" + lease.String() + "/password"
}
