// Package control is the control database, Rolecall's own state: the pool, transactions, migrations and the seal over
// stored secrets. Tables are read and written by the packages whose nouns they hold; no other SQL belongs here, but for
// Reseal, which must see all that is sealed.
package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"rolecall/internal/fault"
	"rolecall/internal/sqlstate"
)

// DB is the control database.
type DB struct {
	Pool *pgxpool.Pool
	Keys *Keyring
	// Identity says where the control database lies, so that it can be kept out of reach when that is a managed cluster.
	Identity Identity
}

// Identity is the place of the control database.
type Identity struct {
	System   string // system identifier of its PostgreSQL cluster
	Database string
	Role     string
}

// The limits of every statement on the control database. A request holds a connection for a few of them.
const (
	lockTimeout      = "3s"
	statementTimeout = "5s"
)

// Open connects, brings the schema up to date and returns the database. The URL may name several hosts; the one that
// takes writes is used. Several replicas may open one database at once.
func Open(ctx context.Context, url string, keys *Keyring) (*DB, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		// pgx redacts what it takes for the password, but a malformed URL hides one anywhere.
		return nil, errors.New("the URL of the control database cannot be read; it has the form postgres://user:password@host:5432/database?sslmode=verify-full")
	}
	params := config.ConnConfig.RuntimeParams
	params["application_name"] = "rolecall"
	params["search_path"] = "rolecall"
	params["timezone"] = "UTC"
	params["lock_timeout"] = lockTimeout
	params["statement_timeout"] = statementTimeout
	params["idle_in_transaction_session_timeout"] = "10s"
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = 5 * time.Second
	}
	if config.ConnConfig.ValidateConnect == nil {
		config.ConnConfig.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	config.MaxConns = max(config.MaxConns, 8)
	config.MaxConnIdleTime = 5 * time.Minute
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	db := &DB{Pool: pool, Keys: keys}
	if err := db.prepare(ctx); err != nil {
		pool.Close()
		return nil, err
	}
	return db, nil
}

func (db *DB) prepare(ctx context.Context) error {
	if err := db.migrate(ctx); err != nil {
		return fmt.Errorf("control database: %w", err)
	}
	err := db.Pool.QueryRow(ctx, `SELECT system_identifier::text, current_database(), current_user FROM pg_control_system()`).
		Scan(&db.Identity.System, &db.Identity.Database, &db.Identity.Role)
	if err != nil {
		return fmt.Errorf("control database: %w", err)
	}
	return nil
}

// Close ends all connections.
func (db *DB) Close() { db.Pool.Close() }

// Tx runs f in one transaction. What f returns decides: nil commits. Failures of PostgreSQL come back as faults.
func (db *DB) Tx(ctx context.Context, f func(tx pgx.Tx) error) error {
	return Fault(pgx.BeginFunc(ctx, db.Pool, f))
}

// Fault turns a failure to reach the control database into Unavailable. Faults pass through; the rest stays internal.
func Fault(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	if sqlstate.Away(err) {
		return fault.New(fault.Unavailable, "The control database does not answer. Nothing was changed.").After(5 * time.Second).Because(err)
	}
	return err
}

// Away reports that an error is the control database not answering, rather than refusing.
func Away(err error) bool {
	return sqlstate.Away(err) && !sqlstate.Is(err, sqlstate.InvalidPassword, sqlstate.InvalidAuthorization, sqlstate.UndefinedDatabase)
}
