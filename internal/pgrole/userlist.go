package pgrole

import (
	"context"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/fault"
	"rolecall/internal/pgwire"
	"rolecall/internal/secret"
	"rolecall/internal/sqlstate"
)

// Credential is a user and its verifier, which lets PgBouncer take its password and pass it on.
type Credential struct {
	Name     string
	Verifier secret.Text
}

// String and GoString leave the verifier out.
func (c Credential) String() string   { return c.Name }
func (c Credential) GoString() string { return c.Name }

// readsVerifiers reports whether the administering role may read passwords' verifiers.
const readsVerifiers = `(has_column_privilege('pg_authid', 'oid', 'SELECT') AND has_column_privilege('pg_authid', ` +
	`'rolpassword', 'SELECT'))`

// Userlist returns the users that may log in with a password now and are not protected, in the order of their names'
// bytes. Nothing is quoted.
func (s *Server) Userlist(ctx context.Context) (list []Credential, err error) {
	err = s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, selectUserlist, s.protection()...)
		if err != nil {
			return err
		}
		list, err = pgx.CollectRows(rows, scanCredential)
		return verifiersHidden(err)
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

func scanCredential(row pgx.CollectableRow) (c Credential, err error) {
	if err = row.Scan(&c.Name, &c.Verifier); err == nil && max(len(c.Name), len(c.Verifier)) > maxColumn {
		return c, pgwire.Refuse("it shows a role that is longer than a role can be")
	}
	return c, err
}

// verifiersHidden explains that pg_authid may not be read.
func verifiersHidden(err error) error {
	if sqlstate.Is(err, sqlstate.InsufficientPrivilege) {
		return fault.New(fault.Forbidden,
			"Rolecall's administering role may not read the users' verifiers: only a superuser may.").Because(err)
	}
	return err
}
