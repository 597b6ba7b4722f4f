package control

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/fault"
)

// sealedColumn is a column that holds sealed values, each for the place "table/id/as". The id is an expression.
type sealedColumn struct{ table, id, column, as string }

// sealedColumns lists all encrypted columns. Add each new one, or its values are lost with the master key that encrypted
// them; a test finds missing ones.
var sealedColumns = []sealedColumn{
	{"signing_keys", "kid", "private_key", "private_key"},
	{"clusters", "id::text", "credential", "credential"},
	{"clusters", "id::text", "pending", "pending"},
	{"audit_keys", "id::text", "key", "key"},
	{"fingerprint_keys", "id::text", "key", "key"},
	// The next password becomes the current one as it is, so both have one place, of the lease.
	{"credentials", "id || '/' || lease_id", "password", "password"},
	{"credentials", "id || '/' || next_lease_id", "next_password", "password"},
	{"idempotency_keys", "id", "sealed", "sealed"},
	// After a rotation the current secret is the previous one as it is.
	{"webhooks", "id::text", "secret", "secret"},
	{"webhooks", "id::text", "previous_secret", "secret"},
}

// CheckKeys returns an error if a key of the audit log cannot be decrypted with the configured master keys. The log has a
// key from the start, and none is ever removed: if all can be decrypted, no master key of this database is missing.
func (db *DB) CheckKeys(ctx context.Context) error {
	rows, err := db.Pool.Query(ctx, `SELECT 'audit_keys/' || id || '/key', key FROM audit_keys ORDER BY id`)
	if err != nil {
		return err
	}
	var place string
	var sealed []byte
	var wrong error
	_, err = pgx.ForEachRow(rows, []any{&place, &sealed}, func() error {
		_, openErr := db.Keys.Open(place, sealed)
		wrong = errors.Join(wrong, openErr)
		return nil
	})
	return errors.Join(err, wrong)
}

// Resealed is what Reseal did.
type Resealed struct {
	Key    string         // id of the master key that seals everything now
	Counts map[string]int // of re-encrypted values, by "table.column"
}

// Total is the number of re-encrypted values.
func (r *Resealed) Total() (n int) {
	for _, count := range r.Counts {
		n += count
	}
	return n
}

// Reseal opens every sealed value and seals it again under the first master key, all or nothing; what is sealed with
// that already is left alone. record is called last within the transaction. What else a row holds stays as it is.
func (db *DB) Reseal(ctx context.Context, record func(tx pgx.Tx, done *Resealed) error) (*Resealed, error) {
	done := &Resealed{Key: hex.EncodeToString(db.Keys.keys[0].id[:]), Counts: map[string]int{}}
	err := db.Tx(ctx, func(tx pgx.Tx) error {
		for _, c := range sealedColumns {
			n, err := db.reseal(ctx, tx, c)
			if err != nil {
				return err
			}
			done.Counts[c.table+"."+c.column] = n
		}
		return record(tx, done)
	})
	if err != nil {
		return nil, err
	}
	return done, nil
}

func (db *DB) reseal(ctx context.Context, tx pgx.Tx, c sealedColumn) (n int, err error) {
	// The lock of an UPDATE, in one order. A stronger one would hold up the sealer of the audit log, whose rows refer to
	// their key.
	rows, err := tx.Query(ctx, fmt.Sprintf(`SELECT %s, %s FROM %s WHERE %[2]s IS NOT NULL ORDER BY %[1]s FOR NO KEY `+
		`UPDATE`, c.id, c.column, c.table))
	if err != nil {
		return 0, err
	}
	type value struct {
		ID     string
		Sealed []byte
	}
	values, err := pgx.CollectRows(rows, pgx.RowToStructByPos[value])
	if err != nil {
		return 0, err
	}
	for _, v := range values {
		if db.Keys.sealedByFirst(v.Sealed) {
			continue
		}
		place := c.table + "/" + v.ID + "/" + c.as
		secret, err := db.Keys.Open(place, v.Sealed)
		if err != nil {
			return 0, fault.New(fault.Invalid, "Nothing was re-encrypted: %s.", err)
		}
		if _, err := tx.Exec(ctx, fmt.Sprintf(`UPDATE %s SET %s = $2 WHERE %s = $1`, c.table, c.column, c.id), v.ID,
			db.Keys.Seal(place, secret)); err != nil {
			return 0, err
		}
		n++
	}
	return n, nil
}

// sealedByFirst says whether a value has the seal of the first key, which Seal would use.
func (k *Keyring) sealedByFirst(sealed []byte) bool {
	return bytes.HasPrefix(sealed, append([]byte{sealVersion}, k.keys[0].id[:]...))
}
