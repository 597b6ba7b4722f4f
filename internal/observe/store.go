// Package observe keeps what looking at the clusters again and again has shown about their roles.
package observe

import (
	"context"
	"errors"
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
	Outside     bool      // the password was changed by SQL
	OutsideAt   time.Time // zero: it was not
	LastSeen    time.Time // zero: never
}

// Get returns what is known of the roles with these OIDs, of all if they are nil. No time is later than now by the clock of
// the control database, which has set them all: it may have been ahead.
func (s *Store) Get(ctx context.Context, cluster uuid.UUID, oids []uint32) (*Cluster, map[uint32]*Role, error) {
	var c Cluster
	err := s.DB.Pool.QueryRow(ctx, `
		SELECT looks, verifiers, least(since, clock_timestamp()) FROM observed_clusters WHERE cluster_id = $1`, cluster).
		Scan(&c.Looks, &c.Verifiers, &c.Since)
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
		SELECT role_oid, name, attempt, recorded, fingerprint, outside, least(outside_at, now()), least(last_seen, now())
		FROM observations WHERE cluster_id = $1`+sql, args...)
	if err != nil {
		return nil, nil, control.Fault(err)
	}
	roles := map[uint32]*Role{}
	_, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (struct{}, error) {
		r := &Role{}
		var attempt *uuid.UUID
		var outsideAt, lastSeen *time.Time
		err := row.Scan(&r.OID, &r.Name, &attempt, &r.Recorded, &r.Fingerprint, &r.Outside, &outsideAt, &lastSeen)
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

// Clear removes what is known of the roles of a cluster that has taken another one's place: their OIDs are others.
func Clear(ctx context.Context, tx pgx.Tx, cluster uuid.UUID) error {
	_, err := tx.Exec(ctx, `
		WITH gone AS (DELETE FROM observed_clusters WHERE cluster_id = $1)
		DELETE FROM observations WHERE cluster_id = $1`, cluster)
	return err
}
