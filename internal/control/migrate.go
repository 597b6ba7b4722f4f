package control

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/sqlstate"
)

// migrations are applied in the order of their names, 0001_….sql being version 1, each in a transaction of its own, and
// never changed once released. Each leaves the previous release working, which may still run beside this one, and holds
// up its requests for no longer than tableLockTimeout: one table is locked at a time, and not while data are rewritten.
//
// One that cannot do so is named 0009_….breaking.sql: releases that do not know it refuse to start.
//
//go:embed migrations/*.sql
var migrations embed.FS

// migrationLock is held while the schema changes, so that replicas which start at once migrate one after the
// other. Any constant that no other program uses would do: these are the bytes of "rolecall".
const migrationLock = 0x726f6c6563616c6c

func (db *DB) migrate(ctx context.Context) error {
	files, err := migrations.ReadDir("migrations")
	if err != nil {
		return err
	}
	version, err := schemaVersion(ctx, db.Pool)
	if err == nil && version > 0 {
		err = db.CheckKeys(ctx) // whose keys are others changes nothing here
	}
	if err == nil && version < len(files) {
		version, err = db.apply(ctx, files)
	}
	if err != nil || version <= len(files) {
		return err
	}
	db.Ahead = version - len(files)
	var breaking string
	err = db.Pool.QueryRow(ctx, `SELECT coalesce(min(name), '') FROM migrations WHERE version > $1 AND name LIKE `+
		`'%.breaking.sql'`, len(files)).Scan(&breaking)
	if err == nil && breaking != "" {
		err = fmt.Errorf("a newer release has changed the schema so that this one would do harm (%s); start that release, or a "+
			"newer one", breaking)
	}
	return err
}

// requireSchema fails if the schema is not that of this release, or if it is encrypted with other keys.
func (db *DB) requireSchema(ctx context.Context) error {
	files, err := migrations.ReadDir("migrations")
	if err != nil {
		return err
	}
	version, err := schemaVersion(ctx, db.Pool)
	if err != nil {
		return err
	}
	if version != len(files) {
		age := "an older"
		if version > len(files) {
			age = "a newer"
		}
		return fmt.Errorf("its schema is of %s release (version %d; this one has %d); use the rolecall that runs the server", age,
			version, len(files))
	}
	return db.CheckKeys(ctx)
}

// tableLockTimeout is how long a migration waits for a table, because all who come after it wait as well. It is less than
// their own lock_timeout, and then they go first.
const tableLockTimeout = "1s"

// apply applies the migrations that are missing, and returns the version that the schema has then.
func (db *DB) apply(ctx context.Context, files []fs.DirEntry) (version int, err error) {
	pooled, err := db.Pool.Acquire(ctx)
	if err != nil {
		return 0, err
	}
	// The lock waits for other replicas, and a migration for its data, so neither has a time limit but ctx. Settings and
	// lock end with the session, which therefore does not go back to the pool.
	conn := pooled.Hijack()
	defer conn.Close(context.WithoutCancel(ctx))
	ctx = unlimited(ctx)
	if _, err := conn.Exec(ctx, `SET lock_timeout = 0; SET statement_timeout = 0`); err != nil {
		return 0, err
	}
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1)`, int64(migrationLock)); err != nil {
		return 0, err
	}
	if _, err := conn.Exec(ctx, schema); err != nil {
		return 0, err
	}
	if version, err = schemaVersion(ctx, conn); err != nil {
		return 0, err
	}
	if _, err := conn.Exec(ctx, `SET lock_timeout = '`+tableLockTimeout+`'`); err != nil {
		return 0, err
	}
	for ; version < len(files); version++ {
		name := files[version].Name()
		sql, err := migrations.ReadFile("migrations/" + name)
		if err != nil {
			return 0, err
		}
		for {
			err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
				if _, err := tx.Exec(ctx, string(sql)); err != nil {
					return err
				}
				_, err := tx.Exec(ctx, `INSERT INTO migrations (version, name) VALUES ($1, $2)`, version+1, name)
				return err
			})
			if !sqlstate.Is(err, sqlstate.LockNotAvailable, sqlstate.DeadlockDetected) {
				break
			}
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return 0, err
			}
		}
		if err != nil {
			return 0, fmt.Errorf("migration %s: %w", name, err)
		}
	}
	return version, nil
}

// Newer returns how many migrations of a newer release the schema has now, which may be more than at the start.
func (db *DB) Newer(ctx context.Context) (int, error) {
	files, err := migrations.ReadDir("migrations")
	if err != nil {
		return 0, err
	}
	version, err := schemaVersion(ctx, db.Pool)
	return max(version-len(files), 0), err
}

// schemaVersion is the last migration that was applied, 0 before the first. A newer release may have gone further.
func schemaVersion(ctx context.Context, q interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}) (version int, err error) {
	err = q.QueryRow(ctx, `SELECT coalesce(max(version), 0) FROM migrations`).Scan(&version)
	if sqlstate.Is(err, sqlstate.UndefinedTable) {
		return 0, nil
	}
	return version, err
}

// schema makes the schema and shuts everybody else out of it. PUBLIC may connect to a new database; only its owner can
// end that, and a role that does not own the database is not asked to.
const schema = `
CREATE SCHEMA IF NOT EXISTS rolecall;
REVOKE ALL ON SCHEMA rolecall FROM PUBLIC;
DO $$
BEGIN
  IF (SELECT pg_has_role(datdba, 'USAGE') FROM pg_database WHERE datname = current_database()) THEN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
  END IF;
END
$$;
CREATE TABLE IF NOT EXISTS migrations (
  version    integer PRIMARY KEY,
  name       text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now()
)`
