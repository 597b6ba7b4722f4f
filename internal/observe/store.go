// Package observe keeps what looking at the clusters again and again has shown about their roles.
package observe

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/control"
)

// Store keeps the rows.
type Store struct {
	DB *control.DB
}

// Cluster is how a cluster was looked at last.
type Cluster struct {
	Looks     int64     // how often; 0: never
	Verifiers bool      // whether the administering role may read verifiers
	Since     time.Time // the first look
	Read      time.Time // when this was read, by the clock of the control database
}

// Role is what is known of a role.
type Role struct {
	OID uint32
	// Name, Attempt, Recorded and Fingerprint are those of the last look: the name's bytes, the attempt and the fingerprint in
	// the record ("": none), and the fingerprint of the verifier; nil: its verifier was not looked at yet.
	Name        []byte
	Attempt     uuid.UUID
	Recorded    []byte
	Fingerprint []byte
	// Good are the last two fingerprints of passwords that were not changed by SQL: a failover may bring the older one back.
	Good      [][]byte
	Outside   bool      // the password was changed by SQL
	OutsideAt time.Time // zero: it was not
	LastSeen  time.Time // zero: never
}

// Get returns what is known of the roles with these OIDs, of all if they are nil. No time is later than now by the clock of
// the control database, which has set them all: it may have been ahead.
func (s *Store) Get(ctx context.Context, cluster uuid.UUID, oids []uint32) (*Cluster, map[uint32]*Role, error) {
	var c Cluster
	err := s.DB.Pool.QueryRow(ctx, `
		SELECT looks, verifiers, least(since, clock_timestamp()), clock_timestamp()
		FROM observed_clusters WHERE cluster_id = $1`, cluster).
		Scan(&c.Looks, &c.Verifiers, &c.Since, &c.Read)
	if errors.Is(err, pgx.ErrNoRows) {
		return &Cluster{}, nil, nil
	}
	if err != nil {
		return nil, nil, control.Fault(err)
	}
	// Without a list of OIDs there is no condition that would keep the planner from the right index.
	sql, args := ``, []any{cluster}
	if oids != nil {
		sql, args = ` AND role_oid = ANY($2)`, append(args, oids)
	}
	rows, err := s.DB.Pool.Query(ctx, `
		SELECT role_oid, name, attempt, recorded, fingerprint, good, outside,
		  CASE WHEN outside_at > now() THEN now() ELSE outside_at END,
		  CASE WHEN last_seen > now() THEN now() ELSE last_seen END -- least would make now of null
		FROM observations WHERE cluster_id = $1`+sql, args...)
	if err != nil {
		return nil, nil, control.Fault(err)
	}
	roles := map[uint32]*Role{}
	_, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (struct{}, error) {
		r := &Role{}
		var attempt *uuid.UUID
		var outsideAt, lastSeen *time.Time
		err := row.Scan(&r.OID, &r.Name, &attempt, &r.Recorded, &r.Fingerprint, &r.Good, &r.Outside, &outsideAt, &lastSeen)
		if attempt != nil {
			r.Attempt = *attempt
		}
		if outsideAt != nil {
			r.OutsideAt = outsideAt.UTC()
		}
		if lastSeen != nil {
			r.LastSeen = lastSeen.UTC()
		}
		roles[r.OID] = r
		return struct{}{}, err
	})
	return &c, roles, control.Fault(err)
}

// Look is what a look at a cluster has changed.
type Look struct {
	Before    *Cluster // as it was read before the look
	Verifiers bool
	Changed   []*Role  // all of it but the times
	Active    []uint32 // the roles that have sessions
	Gone      []uint32
}

// seenAgain is how much older what is stored must be before it is stored again that a role has sessions. It is less than a
// minute, because the looks are half a minute apart, or a little more.
const seenAgain = 50 * time.Second

// Store stores a look, unless another one was stored after Before was read: then stored is false.
func (s *Store) Store(ctx context.Context, tx pgx.Tx, cluster uuid.UUID, l *Look) (stored bool, err error) {
	tag, err := tx.Exec(ctx, `
		INSERT INTO observed_clusters AS c (cluster_id, looks, verifiers) SELECT $1, 1, $2
		WHERE $3 = 0 OR EXISTS (SELECT FROM observed_clusters WHERE cluster_id = $1)
		ON CONFLICT (cluster_id) DO UPDATE SET looks = c.looks + 1, verifiers = excluded.verifiers WHERE c.looks = $3`,
		cluster, l.Verifiers, l.Before.Looks)
	if err != nil || tag.RowsAffected() == 0 {
		return false, err
	}
	if _, err := tx.Exec(ctx, `DELETE FROM observations WHERE cluster_id = $1 AND role_oid = ANY($2)`, cluster,
		l.Gone); err != nil {
		return false, err
	}
	for some := range slices.Chunk(l.Changed, 5000) {
		if err := storeRoles(ctx, tx, cluster, some); err != nil {
			return false, err
		}
	}
	// A clock that jumps moves nothing back, and what it has moved into the future is not shown.
	_, err = tx.Exec(ctx, `
		INSERT INTO observations AS o (cluster_id, role_oid, last_seen)
		SELECT $1, a.oid, clock_timestamp() FROM unnest($2::oid[]) a(oid)
		ON CONFLICT (cluster_id, role_oid) DO UPDATE SET last_seen = excluded.last_seen
		WHERE o.last_seen IS NULL OR o.last_seen < excluded.last_seen`, cluster, l.Active)
	return err == nil, err
}

func storeRoles(ctx context.Context, tx pgx.Tx, cluster uuid.UUID, roles []*Role) error {
	n := len(roles)
	oids, names, attempts := make([]uint32, n), make([][]byte, n), make([]uuid.UUID, n)
	recorded, fingerprints, outside := make([][]byte, n), make([][]byte, n), make([]bool, n)
	last, former := make([][]byte, n), make([][]byte, n)
	for i, r := range roles {
		oids[i], names[i], attempts[i] = r.OID, r.Name, r.Attempt
		recorded[i], fingerprints[i], outside[i] = r.Recorded, r.Fingerprint, r.Outside
		if len(r.Good) > 0 {
			last[i] = r.Good[0]
		}
		if len(r.Good) > 1 {
			former[i] = r.Good[1]
		}
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO observations AS o (cluster_id, role_oid, name, attempt, recorded, fingerprint, outside, outside_at, good)
		SELECT $1, oid, name, attempt, recorded, fingerprint, outside, CASE WHEN outside THEN clock_timestamp() END,
		  array_remove(ARRAY[last, former], NULL)
		FROM unnest($2::oid[], $3::bytea[], $4::uuid[], $5::bytea[], $6::bytea[], $7::bool[], $8::bytea[], $9::bytea[])
		  r(oid, name, attempt, recorded, fingerprint, outside, last, former)
		ON CONFLICT (cluster_id, role_oid) DO UPDATE SET name = excluded.name, attempt = excluded.attempt,
		  recorded = excluded.recorded, fingerprint = excluded.fingerprint, outside = excluded.outside,
		  outside_at = CASE WHEN excluded.outside THEN coalesce(o.outside_at, excluded.outside_at) END, good = excluded.good`,
		cluster, oids, names, attempts, recorded, fingerprints, outside, last, former)
	return err
}

// SeenLongAgo returns those of the active roles of which it was last stored so long ago that it is stored again.
func SeenLongAgo(active []uint32, roles map[uint32]*Role, now time.Time) []uint32 {
	return slices.DeleteFunc(slices.Clone(active), func(oid uint32) bool {
		r := roles[oid]
		return r != nil && now.Sub(r.LastSeen) < seenAgain
	})
}

// Clear removes what is known of the roles of a cluster that has taken another one's place: their OIDs are others.
func Clear(ctx context.Context, tx pgx.Tx, cluster uuid.UUID) error {
	_, err := tx.Exec(ctx, `
		WITH gone AS (DELETE FROM observed_clusters WHERE cluster_id = $1)
		DELETE FROM observations WHERE cluster_id = $1`, cluster)
	return err
}
