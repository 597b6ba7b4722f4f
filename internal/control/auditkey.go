package control

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// UpgradeWindow is how long replicas of a release whose audit rows have no MAC may run beside this one, or in its place
// after a step back. It begins when this release first opens the control database.
const UpgradeWindow = 7 * 24 * time.Hour

// A key of the audit log is randomSize random bytes and the time from which on every row needs a MAC, in seconds since 1970.
// The time is in the encrypted value: the owner of the control database can neither change nor remove it. Keys of releases
// before the MACs are the random bytes alone.
const randomSize, auditKeySize = 32, 32 + 8

// MACsRequired returns the time from which on every row of the audit log needs a MAC; false: the key is older than the MACs.
func MACsRequired(secret []byte) (from time.Time, ok bool) {
	if len(secret) != auditKeySize {
		return time.Time{}, false
	}
	return time.Unix(int64(binary.BigEndian.Uint64(secret[randomSize:])), 0), true
}

// auditKeyPlace is what a key of the audit log is encrypted for.
func auditKeyPlace(id int) string { return fmt.Sprintf("audit_keys/%d/key", id) }

// OpenAuditKey decrypts a key of the audit log.
func (k *Keyring) OpenAuditKey(id int, sealed []byte) ([]byte, error) {
	return k.Open(auditKeyPlace(id), sealed)
}

// Querier is a pool, a connection or a transaction of the control database.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// PrepareAuditKey makes sure that the newest key of the audit log says from when on its rows need MACs: at once in a new
// database; else after the UpgradeWindow.
func (db *DB) PrepareAuditKey(ctx context.Context, q Querier) error {
	var id int
	var sealed []byte
	err := q.QueryRow(ctx, `SELECT id, key FROM audit_keys ORDER BY id DESC LIMIT 1`).Scan(&id, &sealed)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	if id > 0 {
		secret, err := db.Keys.OpenAuditKey(id, sealed)
		if err != nil {
			return err
		}
		if _, ok := MACsRequired(secret); ok {
			return nil
		}
	}
	var used bool
	var now time.Time // of the database, as the times of rows
	if err := q.QueryRow(ctx, `SELECT EXISTS (SELECT FROM audit), clock_timestamp()`).Scan(&used, &now); err != nil {
		return err
	}
	secret := make([]byte, randomSize, auditKeySize)
	_, _ = rand.Read(secret) // never fails since Go 1.24
	required := int64(0)
	if used || id > 0 {
		required = now.Add(UpgradeWindow).Unix()
	}
	return db.insertAuditKey(ctx, q, id+1, binary.BigEndian.AppendUint64(secret, uint64(required)))
}

// RestoreAuditKey inserts a key of the audit log that a failover has lost, from a copy of its encrypted value.
func (db *DB) RestoreAuditKey(ctx context.Context, q Querier, id int, sealed []byte) error {
	secret, err := db.Keys.OpenAuditKey(id, sealed)
	if err != nil {
		return err
	}
	return db.insertAuditKey(ctx, q, id, secret)
}

// insertAuditKey keeps the key that another replica has inserted in the meantime.
func (db *DB) insertAuditKey(ctx context.Context, q Querier, id int, secret []byte) error {
	err := q.QueryRow(ctx, `INSERT INTO audit_keys (id, key) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING id`, id,
		db.Keys.Seal(auditKeyPlace(id), secret)).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	return err
}
