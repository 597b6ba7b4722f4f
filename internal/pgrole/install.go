package pgrole

import (
	"context"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/scram"
	"rolecall/internal/sqlstate"
)

// Install makes a role that Rolecall itself uses, or gives it the password again. conn is a superuser's.
func Install(ctx context.Context, conn *pgx.Conn, name, password string, superuser bool) error {
	verifier, err := scram.NewVerifier(password, scram.DefaultIterations)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, createRole(name, verifier))
	if sqlstate.Is(err, sqlstate.DuplicateObject) {
		_, err = conn.Exec(ctx, alterPassword(name, verifier, true))
	}
	if err == nil && superuser {
		_, err = conn.Exec(ctx, alterSuperuser(name))
	}
	return err
}

// InstallDatabase makes a database that only its owner may connect to.
func InstallDatabase(ctx context.Context, conn *pgx.Conn, name, owner string) error {
	_, err := conn.Exec(ctx, createDatabaseOf(name, owner))
	if err != nil && !sqlstate.Is(err, sqlstate.DuplicateDatabase) {
		return err
	}
	_, err = conn.Exec(ctx, closeDatabase(name))
	return err
}
