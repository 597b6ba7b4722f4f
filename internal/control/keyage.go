package control

import (
	"context"
	"encoding/hex"
)

// noteKey records when this installation first used the master key that encrypts, unless that is recorded already.
func (db *DB) noteKey(ctx context.Context) error {
	name := "master key " + hex.EncodeToString(db.Keys.keys[0].id[:])
	_, err := db.Pool.Exec(ctx, `INSERT INTO watermarks VALUES ($1, clock_timestamp()) ON CONFLICT DO NOTHING`, name)
	if err != nil {
		return err
	}
	return db.Pool.QueryRow(ctx, `SELECT time FROM watermarks WHERE name = $1`, name).Scan(&db.KeyFirstUsed)
}
