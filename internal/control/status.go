package control

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Status is what the control database is, for an operator.
type Status struct {
	Identity
	Installation uuid.UUID
	Server       string // the version of its PostgreSQL
	Bytes        int64
	Unverified   bool // the URL lets another server take the place of the one that is meant
	// Migrations are those that were applied, the oldest first. Known is how many of them this release has.
	Migrations []Migration
	Known      int
	// Replicas are the addresses from which Rolecall has sessions here; a replica on the same machine has none, or a loopback
	// address.
	Replicas []string
	// MasterKeys are those that this replica has, the one that encrypts first, and then those that it lacks.
	MasterKeys []MasterKey
}

// Migration is a change of the schema.
type Migration struct {
	Version int
	Name    string
	Applied time.Time
}

// MasterKey is a key that encrypts stored secrets.
type MasterKey struct {
	ID      string
	Secrets int  // that are encrypted with it
	Present bool // in the master key file of this replica
}

// Status reads what the control database is.
func (db *DB) Status(ctx context.Context) (*Status, error) {
	files, err := migrations.ReadDir("migrations")
	if err != nil {
		return nil, err
	}
	st := &Status{Identity: db.Identity, Installation: db.Installation, Unverified: db.Unverified, Known: len(files)}
	err = db.Pool.QueryRow(ctx, `SELECT current_setting('server_version'), pg_database_size(current_database())`).
		Scan(&st.Server, &st.Bytes)
	if err != nil {
		return nil, Fault(err)
	}
	rows, err := db.Pool.Query(ctx, `SELECT version, name, applied_at FROM migrations ORDER BY version`)
	if err == nil {
		st.Migrations, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Migration])
	}
	if err != nil {
		return nil, Fault(err)
	}
	rows, err = db.Pool.Query(ctx, `
		SELECT DISTINCT coalesce(host(client_addr), 'local socket') FROM pg_stat_activity
		WHERE datname = current_database() AND usename = current_user AND application_name = 'rolecall' ORDER BY 1`)
	if err == nil {
		st.Replicas, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if err != nil {
		return nil, Fault(err)
	}
	if st.MasterKeys, err = db.masterKeys(ctx); err != nil {
		return nil, Fault(err)
	}
	return st, nil
}

// masterKeys counts the stored secrets by the key that encrypts them.
func (db *DB) masterKeys(ctx context.Context) ([]MasterKey, error) {
	var columns []string
	for _, c := range sealedColumns {
		columns = append(columns, fmt.Sprintf(`SELECT substring(%s FROM 2 FOR %d) AS key FROM %s WHERE %[1]s IS NOT NULL`,
			c.column, keyIDSize, c.table))
	}
	rows, err := db.Pool.Query(ctx, `SELECT key, count(*) FROM (`+strings.Join(columns, " UNION ALL ")+`) s GROUP BY key`)
	if err != nil {
		return nil, err
	}
	secrets := map[string]int{}
	var id []byte
	var count int
	if _, err := pgx.ForEachRow(rows, []any{&id, &count}, func() error {
		secrets[hex.EncodeToString(id)] = count
		return nil
	}); err != nil {
		return nil, err
	}
	var keys []MasterKey
	for _, k := range db.Keys.keys {
		id := hex.EncodeToString(k.id[:])
		keys = append(keys, MasterKey{id, secrets[id], true})
		delete(secrets, id)
	}
	var missing []MasterKey
	for id, count := range secrets {
		missing = append(missing, MasterKey{id, count, false})
	}
	slices.SortFunc(missing, func(a, b MasterKey) int { return cmp.Compare(a.ID, b.ID) })
	return append(keys, missing...), nil
}
