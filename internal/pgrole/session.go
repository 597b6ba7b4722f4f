package pgrole

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// SessionSettings are the run-time parameters of every session that a Server works in. statement_timeout ends a statement on
// the server before the request's own deadline would break the connection, so that its outcome is known.
func SessionSettings() map[string]string {
	return map[string]string{
		"client_encoding":                     "UTF8",
		"search_path":                         "pg_catalog",
		"timezone":                            "UTC",
		"standard_conforming_strings":         "on",
		"jit":                                 "off",                // compiling a short query takes longer than running it
		"plan_cache_mode":                     "force_generic_plan", // no parameter changes a plan, and planning takes longer
		"lock_timeout":                        "4s",
		"statement_timeout":                   "8s",
		"idle_in_transaction_session_timeout": "20s",
		"idle_session_timeout":                "0", // a session that holds a lock is idle while databases are visited
		// The owner of the database may have set these for all who connect to it; what is asked for here takes precedence.
		"role":                    "none",
		"local_preload_libraries": "",
	}
}

// ConnectTo opens a connection of its own to another database of the cluster. Names in it are read and written in the
// database's own encoding, as bytes: role names are shared by all databases but stored once, so in a LATIN1 database a
// converted name would be another one.
func ConnectTo(ctx context.Context, config *pgx.ConnConfig, database, encoding string) (*pgx.Conn, error) {
	own := config.Copy()
	own.Database = database
	own.RuntimeParams["client_encoding"] = encoding
	// In the database that is registered this is respected: a former primary may be fenced with it.
	own.RuntimeParams["default_transaction_read_only"] = "off"
	return pgx.ConnectConfig(ctx, own)
}
