package control

import (
	"context"
	"time"
)

// OpenAsItIs is Open for an examination: it neither changes the schema nor requires one. Identity and the keys are not read.
func OpenAsItIs(ctx context.Context, url string, keys *Keyring) (*DB, error) {
	return open(ctx, url, keys, Waits{}, (*DB).requireDirect)
}

// Schema returns the version of the schema, 0 if there is none, and the version of this release.
func (db *DB) Schema(ctx context.Context) (version, known int, err error) {
	files, err := migrations.ReadDir("migrations")
	if err != nil {
		return 0, 0, err
	}
	version, err = schemaVersion(ctx, db.Pool)
	return version, len(files), err
}

// Skew is how much the clock of this machine is ahead of that of the database.
func (db *DB) Skew(ctx context.Context) (time.Duration, error) {
	var there time.Time
	before := time.Now()
	err := db.Pool.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&there)
	// The database has read its clock at some time in between.
	here := before.Add(time.Since(before) / 2)
	return here.Sub(there), Fault(err)
}
