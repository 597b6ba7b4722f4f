// Package control is the control database, Rolecall's own state: the pool, transactions, migrations and the seal over
// stored secrets. Tables are read and written by the packages whose nouns they hold; no other SQL belongs here, but for
// Reseal, which must see all that is sealed.
package control

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"rolecall/internal/failpoint"
	"rolecall/internal/fault"
	"rolecall/internal/primary"
	"rolecall/internal/secret"
	"rolecall/internal/sqlstate"
)

// DB is the control database.
type DB struct {
	Pool *pgxpool.Pool
	// SignIn is kept for looks at whether a credential still holds, and whether the database is there: neither lists nor a
	// flood can use it up, so what it says of the database is not said of the load.
	SignIn *pgxpool.Pool
	Keys   *Keyring
	// Installation sets this control database apart from others, also from those that manage the same clusters. A restored
	// backup has the same one.
	Installation uuid.UUID
	// FingerprintKey is the key of the fingerprints of verifiers that this installation writes into the records of roles.
	FingerprintKey secret.Text
	// Identity says where the control database lies, so that it can be kept out of reach when that is a managed cluster.
	Identity Identity
	// Ahead is how many migrations a newer release has made that this one does not know, and can do with.
	Ahead int
	// Unverified says that the URL lets another server take the place of the one that is meant.
	Unverified bool
	// KeyFirstUsed is when this installation first used the master key that encrypts; zero: the schema was left alone.
	KeyFirstUsed time.Time

	waits Waits
}

// Identity is the place of the control database.
type Identity struct {
	System   string // system identifier of its PostgreSQL cluster
	Database string
	Role     string
}

// Open connects, brings the schema up to date and returns the database. The URL may name several hosts; the one that
// takes writes is used. Several replicas may open one database at once.
func Open(ctx context.Context, url string, keys *Keyring, w Waits) (*DB, error) {
	return open(ctx, url, keys, w, func(db *DB, ctx context.Context) error { return db.prepare(ctx, (*DB).upgrade) })
}

// OpenUnchanged is Open for a command beside a running server. It leaves the schema alone, and fails if that is not this
// release's.
func OpenUnchanged(ctx context.Context, url string, keys *Keyring) (*DB, error) {
	prepare := func(db *DB, ctx context.Context) error { return db.prepare(ctx, (*DB).requireSchema) }
	return open(ctx, url, keys, Waits{}, prepare)
}

func open(ctx context.Context, url string, keys *Keyring, w Waits, prepare func(*DB, context.Context) error) (*DB, error) {
	config, err := parse(url)
	if err != nil {
		return nil, explainURL(err)
	}
	params := config.ConnConfig.RuntimeParams
	params["application_name"] = "rolecall"
	params["search_path"] = "rolecall"
	params["timezone"] = "UTC"
	params["lock_timeout"] = strconv.FormatInt(w.lock().Milliseconds(), 10)
	params["statement_timeout"] = strconv.FormatInt(w.statement().Milliseconds(), 10)
	params["idle_in_transaction_session_timeout"] = "10s"
	params["idle_session_timeout"] = "0" // one that holds a lock sits idle while a cluster is worked on
	params["default_transaction_isolation"] = "read committed"
	// The session of a replica that has vanished ends, and with it the locks that it held.
	params["tcp_keepalives_idle"] = "15"
	params["tcp_keepalives_interval"] = "5"
	params["tcp_keepalives_count"] = "3"
	if config.ConnConfig.ConnectTimeout == 0 {
		// It counts for each host: one that hangs must leave time for the others.
		config.ConnConfig.ConnectTimeout = max(w.connect()/time.Duration(1+len(config.ConnConfig.Fallbacks)), time.Second)
	}
	config.ConnConfig.DialFunc = primary.Dialer(config.ConnConfig.ConnectTimeout)
	config.ConnConfig.ValidateConnect = primary.Require
	config.ConnConfig.Tracer = &limits{w.connect(), w.hang()}
	failpoint.On(config.ConnConfig)
	config.MaxConns = max(config.MaxConns, 8)
	config.MaxConnIdleTime = 5 * time.Minute
	pool, err := primary.NewPool(ctx, config)
	if err != nil {
		return nil, err
	}
	config.MaxConns, config.MinConns, config.MinIdleConns = signInConns, 0, 0
	signIn, err := primary.NewPool(ctx, config)
	if err != nil {
		pool.Close()
		return nil, err
	}
	db := &DB{Pool: pool, SignIn: signIn, Keys: keys, waits: w, Unverified: unverified(config.ConnConfig)}
	if err := prepare(db, ctx); err != nil {
		db.Close()
		return nil, fmt.Errorf("control database: %w", err)
	}
	return db, nil
}

func (db *DB) prepare(ctx context.Context, schema func(*DB, context.Context) error) error {
	if err := db.requireDirect(ctx); err != nil {
		return err
	}
	if err := schema(db, ctx); err != nil {
		return err
	}
	return db.Pool.QueryRow(ctx, `
		SELECT (SELECT id FROM installation), system_identifier::text, current_database(), current_user FROM pg_control_system()`).
		Scan(&db.Installation, &db.Identity.System, &db.Identity.Database, &db.Identity.Role)
}

// upgrade brings the schema and the keys in it up to date.
func (db *DB) upgrade(ctx context.Context) error {
	if err := db.migrate(ctx); err != nil {
		return err
	}
	if err := db.PrepareAuditKey(ctx, db.Pool); err != nil {
		return err
	}
	if err := db.prepareFingerprintKey(ctx); err != nil {
		return err
	}
	return db.noteKey(ctx)
}

// SignIn is used by SignInLooks queries at a time, and by checks of whether the database is reachable. The other connections
// are a reserve: a connection that hangs occupies its place until it is given up.
const (
	SignInLooks = 2
	signInConns = 4
)

// Hang is how long a statement takes at most.
func (db *DB) Hang() time.Duration { return db.waits.hang() }

// Close ends all connections.
func (db *DB) Close() {
	db.Pool.Close()
	db.SignIn.Close()
}

// Tx runs f in one transaction. What f returns decides: nil commits. Failures of PostgreSQL come back as faults.
func (db *DB) Tx(ctx context.Context, f func(tx pgx.Tx) error) error {
	committing := false
	err := pgx.BeginFunc(ctx, db.Pool, func(tx pgx.Tx) error {
		err := f(tx)
		committing = err == nil
		return err
	})
	if committing && sqlstate.Lost(err) {
		return lostAtEnd(err)
	}
	return Fault(err)
}

// Send runs the statements of a batch in one transaction, in one round trip.
func (db *DB) Send(ctx context.Context, batch *pgx.Batch) error {
	err := db.Pool.SendBatch(ctx, batch).Close()
	if sqlstate.Lost(err) {
		return lostAtEnd(err)
	}
	return Fault(err)
}

// lostAtEnd is the fault that a transaction may have been committed, or not.
func lostAtEnd(err error) error {
	return fault.New(fault.Unavailable, "The control database was lost at the end of the change. Read to see whether it was "+
		"done.").After(5 * time.Second).Because(err)
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
		return fault.New(fault.Unavailable, "The control database does not answer. Nothing was changed.").AsOutage().
			After(5 * time.Second).Because(err)
	}
	return err
}

// Away reports that an error is the control database not answering, rather than refusing.
func Away(err error) bool {
	return sqlstate.Away(err) && !sqlstate.Is(err, sqlstate.InvalidPassword, sqlstate.InvalidAuthorization,
		sqlstate.UndefinedDatabase)
}
