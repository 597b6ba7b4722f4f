package control

import (
	"context"
	"crypto/rand"

	"rolecall/internal/secret"
)

// fingerprintKeyPlace is what the key of fingerprints is encrypted for.
const fingerprintKeyPlace = "fingerprint_keys/1/key"

// prepareFingerprintKey reads the key of the fingerprints of verifiers, and makes it before that if there is none.
func (db *DB) prepareFingerprintKey(ctx context.Context) error {
	key := make([]byte, randomSize)
	_, _ = rand.Read(key) // never fails since Go 1.24
	if _, err := db.Pool.Exec(ctx, `INSERT INTO fingerprint_keys VALUES (1, $1) ON CONFLICT DO NOTHING`,
		db.Keys.Seal(fingerprintKeyPlace, key)); err != nil {
		return err
	}
	var sealed []byte
	if err := db.Pool.QueryRow(ctx, `SELECT key FROM fingerprint_keys`).Scan(&sealed); err != nil {
		return err
	}
	key, err := db.Keys.Open(fingerprintKeyPlace, sealed)
	db.FingerprintKey = secret.Text(key)
	return err
}
