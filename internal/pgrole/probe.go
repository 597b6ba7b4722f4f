package pgrole

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/sqlstate"
)

// Capabilities is what a server is, and what the administering role can do in it.
type Capabilities struct {
	Role             string // the administering role
	Version          int    // server_version_num: 150018
	VersionName      string // as the server says it: "15.18 (Debian 15.18-0+deb12u1)"
	SystemIdentifier string // the same for all servers of one cluster; empty when it may not be read
	Primary          bool   // takes writes: no standby, and not set to read only

	Superuser, CreateRole, CreateDB bool
	ManageUsers                     bool // it has made a role, set its password, commented on it and dropped it, and rolled all of it back
	ForeignRoles                    bool // it may change roles that others made: a superuser, and CREATEROLE up to PostgreSQL 15
	SignalBackend                   bool // it is a member of pg_signal_backend; without, it ends the sessions of the roles that it may change
	ReadVerifiers                   bool // it may read pg_authid, and so tell kinds of passwords and make a list for PgBouncer

	PasswordEncryption                string
	MaxConnections, SuperuserReserved int

	// Problems are sentences on what keeps Rolecall from its work, with the SQL that mends it where there is one.
	Problems []string
}

func (c *Capabilities) problem(format string, args ...any) {
	c.Problems = append(c.Problems, fmt.Sprintf(format, args...))
}

const selectCapabilities = `
	SELECT r.rolname::text, current_setting('server_version_num')::int, current_setting('server_version'),
	       has_function_privilege('pg_control_system()', 'EXECUTE'),
	       pg_is_in_recovery(), current_setting('transaction_read_only')::bool,
	       r.rolsuper, r.rolsuper OR r.rolcreaterole, r.rolsuper OR r.rolcreatedb,
	       pg_has_role('pg_signal_backend', 'USAGE'), ` + readsVerifiers + `,
	       current_setting('password_encryption'), current_setting('max_connections')::int, current_setting('superuser_reserved_connections')::int,
	       (SELECT count(*) FROM pg_roles o
	        WHERE o.rolcanlogin AND NOT (o.rolsuper OR o.rolreplication OR o.rolbypassrls OR o.rolcreaterole) AND NOT pg_has_role(o.oid, 'MEMBER WITH ADMIN OPTION'))
	FROM pg_roles r WHERE r.rolname = current_user`

// Probe finds out what the role of a connection can do, by trying it in a transaction that is rolled back.
func Probe(ctx context.Context, conn *pgx.Conn) (*Capabilities, error) {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = tx.Rollback(end)
	}()
	c := &Capabilities{}
	var identifiable, standby, readOnly bool
	var foreign int
	err = tx.QueryRow(ctx, selectCapabilities).Scan(&c.Role, &c.Version, &c.VersionName, &identifiable, &standby, &readOnly,
		&c.Superuser, &c.CreateRole, &c.CreateDB, &c.SignalBackend, &c.ReadVerifiers, &c.PasswordEncryption, &c.MaxConnections, &c.SuperuserReserved, &foreign)
	if err != nil {
		return nil, err
	}
	if identifiable {
		if err := tx.QueryRow(ctx, `SELECT system_identifier::text FROM pg_control_system()`).Scan(&c.SystemIdentifier); err != nil {
			return nil, err
		}
	} else {
		c.problem("The role may not read which cluster this is: GRANT EXECUTE ON FUNCTION pg_control_system() TO %s;", ident(c.Role))
	}
	c.Primary = !standby && !readOnly
	c.ForeignRoles = c.Superuser || c.CreateRole && c.Version < 160000
	if c.Version < 140000 {
		c.problem("The server is PostgreSQL %s, and Rolecall is made for %s and later: upgrade it.", c.VersionName, Majors[0])
	}
	switch {
	case standby:
		c.problem("The server is a standby, which takes no changes: register the primary, or several hosts with target_session_attrs=primary.")
	case readOnly:
		c.problem("The role's transactions are read only: ALTER ROLE %s SET default_transaction_read_only = off;", ident(c.Role))
	}
	switch {
	case !c.CreateRole:
		c.problem("The role may not make users: ALTER ROLE %s CREATEROLE;", ident(c.Role))
	case c.Primary:
		err := c.tryUser(ctx, tx)
		if c.ManageUsers = err == nil; !c.ManageUsers {
			if sqlstate.Code(err) == "" || sqlstate.Away(err) {
				return nil, err
			}
			c.problem("The role has CREATEROLE, but to make a user with a SCRAM verifier for a password was refused with SQLSTATE %s: an extension or a setting of the server forbids it; its log says which.", sqlstate.Code(err))
		}
	}
	if !c.CreateDB {
		c.problem("The role may not make databases: ALTER ROLE %s CREATEDB;", ident(c.Role))
	}
	if c.CreateRole && !c.ForeignRoles && foreign > 0 {
		c.problem("From PostgreSQL 16 on the role may change only users that it made, and %s not. For each that it is to change: GRANT <user> TO %s WITH ADMIN OPTION;", others(foreign), ident(c.Role))
	}
	return c, nil
}

func others(n int) string {
	if n == 1 {
		return "1 was"
	}
	return fmt.Sprintf("%d were", n)
}

// tryUser makes a user, sets its password, comments on it and drops it, and rolls that back.
func (c *Capabilities) tryUser(ctx context.Context, tx pgx.Tx) error {
	verifier, err := NewVerifier(rand.Text(), defaultIterations)
	if err != nil {
		return err
	}
	name := "rolecall_probe_" + strings.ToLower(rand.Text())
	try, err := tx.Begin(ctx)
	if err != nil {
		return err
	}
	_, err = try.Exec(ctx, createRole(name, verifier)+alterPassword(name, verifier, true)+commentOnRole(name, "probe")+dropRole(name))
	if rollbackErr := try.Rollback(ctx); err == nil {
		err = rollbackErr
	}
	return err
}
