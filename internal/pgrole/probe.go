package pgrole

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/pgwire"
	"rolecall/internal/scram"
	"rolecall/internal/sqlstate"
)

// Capabilities is what a server is, and what the administering role can do in it.
type Capabilities struct {
	Role        string // the administering role
	Version     int    // server_version_num: 150018
	VersionName string // as the server says it: "15.18 (Debian 15.18-0+deb12u1)"

	Superuser, CreateRole, CreateDB bool
	// it has made a role, set its password, commented on it and dropped it, and rolled all of it back
	ManageUsers bool
	// it may change roles that others made: a superuser, and CREATEROLE up to PostgreSQL 15
	ForeignRoles bool
	// it is a member of pg_signal_backend; without, it ends the sessions of the roles that it may change
	SignalBackend bool
	ReadVerifiers bool // it may read pg_authid, and so tell kinds of passwords and make a list for PgBouncer

	MaxConnections int

	// Problems are sentences about what keeps Rolecall from its work, with the SQL that fixes it if there is any. Remedies are
	// that SQL for each of them, "" if there is none.
	Problems, Remedies []string
}

// Purpose is what the administering role is to do in a server besides making users.
type Purpose struct {
	MemberOf, Grantable          []string // roles to make users members of
	SystemRoles                  []string // globs of names that it is to leave alone
	ControlDatabase, ControlRole string   // Rolecall's own, when they lie there: never shown
}

// problem adds a sentence without a remedy. All of them are stored with the cluster, and names in them come from its server.
func (c *Capabilities) problem(format string, args ...any) {
	c.fixable("", fmt.Sprintf(format, args...))
}

// fixable adds a sentence, at whose end stands the SQL that fixes what it says.
func (c *Capabilities) fixable(remedy, sentence string) {
	if len(c.Problems) >= maxProblems {
		return
	}
	if remedy != "" {
		sentence += ": " + remedy
	}
	if utf8.RuneCountInString(sentence) > maxProblem {
		sentence, remedy = fmt.Sprintf("%.*s", maxProblem, sentence), "" // half a statement fixes nothing
	}
	c.Problems, c.Remedies = append(c.Problems, sentence), append(c.Remedies, remedy)
}

// maxProblem is more characters than a sentence with ten names has, and maxProblems more than there are roles to look at.
const (
	maxProblem  = 3000
	maxProblems = 250
)

const selectCapabilities = `
	SELECT r.rolname::text, current_setting('server_version_num')::int, current_setting('server_version'),
	       has_function_privilege('pg_control_system()', 'EXECUTE'),
	       r.rolsuper, r.rolsuper OR r.rolcreaterole, r.rolsuper OR r.rolcreatedb,
	       pg_has_role('pg_signal_backend', 'USAGE'), ` + readsVerifiers + `,
	       current_setting('password_encryption'),
	       current_setting('max_connections')::int,
	       (SELECT count(*) FROM pg_roles o
	        WHERE o.rolcanlogin AND NOT (o.rolsuper OR o.rolreplication OR o.rolbypassrls OR o.rolcreaterole) AND NOT
	          pg_has_role(o.oid, 'MEMBER WITH ADMIN OPTION')
	          AND o.rolname <> $1 AND NOT o.rolname::text LIKE ANY ($2))
	FROM pg_roles r WHERE r.rolname = current_user`

// selectClosed lists the databases in which the administering role cannot look for what a user has there. $1 is those
// that are never shown.
const selectClosed = `
	SELECT datname::text FROM pg_database
	WHERE datallowconn AND NOT datistemplate AND NOT has_database_privilege(oid, 'CONNECT') AND datname <> ALL ($1)
	ORDER BY datname`

// selectGranted says of the roles $1 whether there is one, whether the administering role can grant it, for which up to
// PostgreSQL 15 CREATEROLE suffices ($2) unless it is a superuser, and whether it reads verifiers.
const selectGranted = `
	SELECT n.name, r.oid IS NULL,
	       r.oid IS NOT NULL AND NOT pg_has_role(r.oid, 'MEMBER WITH ADMIN OPTION') AND NOT ($2 AND NOT r.rolsuper),
	       r.oid IS NOT NULL AND has_table_privilege(r.oid, 'pg_authid', 'SELECT')
	FROM (SELECT DISTINCT unnest($1::text[])) n(name) LEFT JOIN pg_roles r ON r.rolname = n.name
	ORDER BY n.name`

// Probe finds out what the role of a connection can do, by trying it in a transaction that is rolled back.
func Probe(ctx context.Context, conn *pgx.Conn, purpose Purpose) (*Capabilities, error) {
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
	var identifiable bool
	var passwordEncryption string
	var foreign int
	system := make([]string, len(purpose.SystemRoles))
	for i, glob := range purpose.SystemRoles {
		system[i] = likePattern(glob)
	}
	err = tx.QueryRow(ctx, selectCapabilities, purpose.ControlRole, system).Scan(&c.Role, &c.Version, &c.VersionName,
		&identifiable, &c.Superuser, &c.CreateRole, &c.CreateDB, &c.SignalBackend, &c.ReadVerifiers, &passwordEncryption,
		&c.MaxConnections, &foreign)
	if err != nil {
		return nil, err
	}
	if max(len(c.Role), len(c.VersionName), len(passwordEncryption)) > maxColumn {
		return nil, pgwire.Refuse("it has a name or a version that is longer than %d bytes", maxColumn)
	}
	if !identifiable {
		c.fixable(fmt.Sprintf("GRANT EXECUTE ON FUNCTION pg_control_system() TO %s;", ident(c.Role)),
			"The role may not read which cluster this is")
	}
	c.ForeignRoles = c.Superuser || c.CreateRole && c.Version < 160000
	if c.Version < 140000 {
		c.problem("The server is PostgreSQL %s, and Rolecall is made for %s and later: upgrade it.", c.VersionName, Majors[0])
	}
	if !c.CreateRole {
		c.fixable(c.createRoleRemedy(), "The role may not make users")
	} else {
		err := c.tryUser(ctx, tx)
		if c.ManageUsers = err == nil; !c.ManageUsers {
			if sqlstate.Code(err) == "" || sqlstate.Away(err) {
				return nil, err
			}
			c.problem("The role has CREATEROLE, but PostgreSQL, or an extension in it, refuses to make a user with a SCRAM "+
				"verifier for a password: %s (SQLSTATE %s). With credcheck, set credcheck.encrypted_password_allowed = on.",
				sqlstate.Message(err), sqlstate.Code(err))
		}
	}
	if !c.CreateDB {
		c.fixable(c.createDBRemedy(), "The role may not make databases")
	}
	if passwordEncryption == "md5" {
		c.fixable("ALTER SYSTEM SET password_encryption = 'scram-sha-256';", "Passwords that are set with SQL are stored as md5 "+
			"hashes, which PostgreSQL gives up; those that are set here are not")
	}
	if c.CreateRole && !c.ForeignRoles && foreign > 0 {
		c.fixable(c.foreignRolesRemedy(), fmt.Sprintf("From PostgreSQL 16 on the role may change only users that it made, and %s "+
			"not. For each that it is to change", others(foreign)))
	}
	return c, errors.Join(c.lookForClosed(ctx, tx, purpose), c.lookAtGranted(ctx, tx, purpose), c.lookAtTemplate(ctx, tx))
}

// lookAtTemplate says what keeps databases from being made.
func (c *Capabilities) lookAtTemplate(ctx context.Context, tx pgx.Tx) error {
	if c.Version >= 150000 {
		mismatch, err := templateMismatch(ctx, tx)
		if err != nil {
			return err
		}
		if mismatch != "" {
			c.problem("No database can be made: %s", mismatch)
		}
	}
	users, err := readDatabaseUsers(ctx, tx, template)
	if err == nil && len(users) > 0 {
		c.problem("No database can be made while the database %s is in use%s.", template, inWords(users))
	}
	return err
}

// lookForClosed names at most ten databases, as a plan of a deletion does.
func (c *Capabilities) lookForClosed(ctx context.Context, tx pgx.Tx, purpose Purpose) error {
	rows, err := tx.Query(ctx, selectClosed, append([]string{purpose.ControlDatabase}, reservedDatabases...))
	if err != nil {
		return err
	}
	closed, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(closed) == 0 {
		return err
	}
	first := closed[:min(10, len(closed))]
	which := "some databases"
	if len(closed) > len(first) {
		which = fmt.Sprintf("%d databases, of which these are the first", len(closed))
	}
	c.problem("The role may not connect to %s: %s. A user that has anything there cannot be deleted. To let it be deleted, "+
		"run GRANT CONNECT ON DATABASE … TO %s; but not for a control database of Rolecall, in which no user has anything.",
		which, idents(first), ident(c.Role))
	return nil
}

// lookAtGranted looks at the roles that users are made members of.
func (c *Capabilities) lookAtGranted(ctx context.Context, tx pgx.Tx, purpose Purpose) error {
	rows, err := tx.Query(ctx, selectGranted, slices.Concat(purpose.MemberOf, purpose.Grantable), c.CreateRole &&
		c.Version < 160000)
	if err != nil {
		return err
	}
	var ungrantable []string
	var name string
	var absent, closed, reads bool
	_, err = pgx.ForEachRow(rows, []any{&name, &absent, &closed, &reads}, func() error {
		if absent {
			c.fixable(fmt.Sprintf("CREATE ROLE %s;", ident(name)),
				fmt.Sprintf("Users are to be made members of %q, and there is no such role", name))
		}
		if closed {
			ungrantable = append(ungrantable, name)
		}
		if reads {
			c.problem("Members of %q may read pg_authid, where the verifiers of all passwords are, as all may that read all data.",
				name)
		}
		return nil
	})
	if len(ungrantable) > 0 {
		c.fixable(fmt.Sprintf("GRANT %s TO %s WITH ADMIN OPTION;", idents(ungrantable), ident(c.Role)),
			"The role may not make users members of some roles")
	}
	return err
}

func others(n int) string {
	if n == 1 {
		return "1 was"
	}
	return fmt.Sprintf("%d were", n)
}

// tryUser makes a user, sets its password, comments on it and drops it, and rolls that back.
func (c *Capabilities) tryUser(ctx context.Context, tx pgx.Tx) error {
	verifier, err := scram.NewVerifier(rand.Text(), scram.DefaultIterations)
	if err != nil {
		return err
	}
	name := "rolecall_probe_" + strings.ToLower(rand.Text())
	try, err := tx.Begin(ctx)
	if err != nil {
		return err
	}
	_, err = try.Exec(ctx, createRole(name, verifier)+alterPassword(name, verifier, true)+commentOnRole(name,
		"probe")+dropRole(name))
	if rollbackErr := try.Rollback(ctx); err == nil {
		err = rollbackErr
	}
	return err
}
