package pgrole

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/fault"
	"rolecall/internal/sqlstate"
)

// Database is a database of the cluster.
type Database struct {
	Name, Owner string
	Provenance  Provenance
	AccessRoles bool // it has the access role of own, which is there as long as it has any
	protected   bool
	oid         uint32
	userComment string // the part of its comment that is not ours
}

// NewDatabase is a database that is to be made.
type NewDatabase struct {
	Name        string
	Owner       string // "": with access roles the one of own, else the administering role
	AccessRoles bool
}

// System reports whether the database is protected: a template, the registered one, or the control database.
func (d *Database) System() bool { return d.protected }

// selectDatabases leaves out templates, which nobody uses, the control database, which is nobody's business ($1), and what
// the administering role has not finished. A comment that is longer than any of ours is left where it is: its writer is
// the owner, who may make it a gigabyte.
const selectDatabases = `
	SELECT d.datname::text, pg_get_userbyid(d.datdba)::text, CASE WHEN octet_length(c.description) <= 8192 THEN c.description
	  ELSE '' END, d.datname IN (current_database(), 'postgres'), d.oid,
	  (SELECT CASE WHEN octet_length(rc.description) <= 8192 THEN rc.description END FROM pg_roles r
	   JOIN pg_shdescription rc ON rc.objoid = r.oid AND rc.classoid = 'pg_authid'::regclass
	   WHERE octet_length(d.datname::text) <= 57 AND r.rolname = (d.datname::text || '_owner')::name)
	FROM pg_database d
	LEFT JOIN pg_shdescription c ON c.objoid = d.oid AND c.classoid = 'pg_database'::regclass
	WHERE NOT d.datistemplate AND d.datname <> $1
	  AND NOT (starts_with(d.datname::text, '` + unfinishedPrefix + `') AND pg_get_userbyid(d.datdba) = current_user)`

// Databases lists the databases in the order of their names' bytes, and says whether more follow.
func (s *Server) Databases(ctx context.Context, page Page) (databases []*Database, more bool, err error) {
	err = s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, selectDatabases+` ORDER BY d.datname LIMIT $2 OFFSET $3`, s.ControlDatabase, page.Limit+1,
			page.Offset)
		if err != nil {
			return err
		}
		databases, err = pgx.CollectRows(rows, scanDatabase)
		return err
	})
	if err != nil {
		return nil, false, err
	}
	if more = len(databases) > page.Limit; more {
		databases = databases[:page.Limit]
	}
	return databases, more, nil
}

// DatabasesAfter is Databases from the one after a name on, "" for the first.
func (s *Server) DatabasesAfter(ctx context.Context, after string, limit int) (list []*Database, more bool, err error) {
	if after != "" && !nameable(after) {
		return nil, false, fault.New(fault.Malformed, "No page of databases begins there.")
	}
	err = s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, selectDatabases+` AND namesend(d.datname) > $3::bytea ORDER BY namesend(d.datname) LIMIT $2`,
			s.ControlDatabase, limit+1, []byte(after))
		if err != nil {
			return err
		}
		list, err = pgx.CollectRows(rows, scanDatabase)
		return err
	})
	if more = len(list) > limit; more {
		list = list[:limit]
	}
	return list, more, err
}

func scanDatabase(row pgx.CollectableRow) (*Database, error) {
	var d Database
	var comment string
	var ofOwn *string // the comment on the role with the name of the access role of own
	err := row.Scan(&d.Name, &d.Owner, &comment, &d.protected, &d.oid, &ofOwn)
	d.userComment, d.Provenance = parseComment(comment)
	if ofOwn != nil {
		_, p := parseComment(*ofOwn)
		d.AccessRoles = p.Access != nil && p.Access.Database == d.Name && p.Access.Level == Own
	}
	return &d, err
}

// Database returns one database.
func (s *Server) Database(ctx context.Context, name string) (d *Database, err error) {
	err = s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		d, err = s.database(ctx, conn, name)
		return err
	})
	return d, err
}

func (s *Server) database(ctx context.Context, q querier, name string) (*Database, error) {
	if !nameable(name) {
		return nil, databaseNotFound(name)
	}
	sql, arg := ` AND d.datname = $2`, any(name)
	if !utf8.ValidString(name) {
		sql, arg = ` AND namesend(d.datname) = $2::bytea`, []byte(name)
	}
	rows, err := q.Query(ctx, selectDatabases+sql, s.ControlDatabase, arg)
	if err != nil {
		return nil, err
	}
	d, err := pgx.CollectExactlyOneRow(rows, scanDatabase)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, databaseNotFound(name)
	}
	return d, err
}

func databaseNotFound(name string) error {
	return fault.New(fault.NotFound, "There is no database %q in this cluster.", name)
}

// reservedDatabases are names that PostgreSQL or Rolecall has taken, or that are sure to confuse.
var reservedDatabases = []string{"postgres", "template0", "template1", "rdsadmin", "cloudsqladmin", "azure_maintenance",
	"azure_sys"}

// unfinishedPrefix begins the name of a database that is being made, which ends with the id of the attempt.
const unfinishedPrefix = "rolecall_unfinished_"

func noOwner(owner string) *fault.Error {
	return fault.New(fault.Invalid, "There is no role %q to own the database.", owner)
}

// template is what new databases are copies of.
const template = "template1"

// collationMismatch says that the template's collations have changed with the operating system, which keeps databases from
// being made; nil if they have not. cause is what CREATE DATABASE has said.
func (s *Server) collationMismatch(ctx context.Context, cause error) error {
	var sentence string
	err := s.read(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		sentence, err = templateMismatch(ctx, conn)
		return err
	})
	if err != nil || sentence == "" {
		return nil
	}
	return fault.New(fault.Invalid, "No database can be made: %s", sentence).Because(cause)
}

// templateMismatch is what is wrong with the template's collations and how to fix it, in a sentence; "" for nothing. It
// needs PostgreSQL 15, before which nobody compares.
func templateMismatch(ctx context.Context, q querier) (string, error) {
	var recorded, actual *string
	err := q.QueryRow(ctx, `
		SELECT datcollversion, pg_database_collation_actual_version(oid) FROM pg_database WHERE datname = $1`,
		template).Scan(&recorded, &actual)
	if err != nil || recorded == nil || actual != nil && *actual == *recorded {
		return "", err
	}
	return fmt.Sprintf("The template database has a collation version mismatch, it was made with version %s: ALTER DATABASE "+
		"%s REFRESH COLLATION VERSION.", *recorded, template), nil
}

func databaseExists(name string) *fault.Error {
	return fault.New(fault.Exists, "There is a database %q in this cluster already.", name)
}

// InspectDatabase reads a database after waiting for changes of it that are in progress; nil when there is none. What an
// attempt to make it has left unfinished is dropped, with its access roles: nobody has ever seen that.
func (s *Server) InspectDatabase(ctx context.Context, name string, attempt uuid.UUID) (d *Database, err error) {
	err = s.withDatabaseLock(ctx, name, func(conn *pgx.Conn) error {
		if err := s.dropUnfinished(ctx, conn, name, attempt); err != nil {
			return err
		}
		return runTransaction(ctx, conn, nil, nil, func(ctx context.Context, tx *transaction) error {
			if d, err = s.database(ctx, tx, name); err != nil && !fault.Is(err, fault.NotFound) {
				return err
			}
			return tx.confirm(ctx)
		})
	})
	return d, s.fault(err, name)
}

// InspectDropped is InspectDatabase after an attempt to drop the database. The access roles that it has left are dropped.
func (s *Server) InspectDropped(ctx context.Context, name string) (d *Database, err error) {
	err = s.withDatabaseLock(ctx, name, func(conn *pgx.Conn) error {
		if d, err = s.database(ctx, conn, name); fault.Is(err, fault.NotFound) {
			_, err = s.dropAccessRoles(ctx, conn, name, uuid.Nil)
		}
		if err != nil {
			return err
		}
		return runTransaction(ctx, conn, nil, nil, func(ctx context.Context, tx *transaction) error { return tx.confirm(ctx) })
	})
	return d, s.fault(err, name)
}

// DropDatabase removes a database and all that is in it, which is what was asked for, and then its access roles: with their
// members they would apply to another database of that name. A database with sessions is refused, because they are never cut
// off, and one whose access roles something else depends on. If a call was cut off, the next one removes what it has left.
func (s *Server) DropDatabase(ctx context.Context, name string, by Actor) error {
	err := s.withDatabaseLock(ctx, name, func(conn *pgx.Conn) error {
		d, err := s.database(ctx, conn, name)
		if err == nil {
			if err := s.dropDatabase(ctx, conn, d, by); err != nil {
				return err
			}
			_, err = s.dropAccessRoles(ctx, conn, name, uuid.Nil)
			return err
		}
		if !fault.Is(err, fault.NotFound) {
			return err
		}
		left, dropErr := s.dropAccessRoles(ctx, conn, name, uuid.Nil)
		if dropErr == nil && left {
			return nil
		}
		return cmp.Or(dropErr, err)
	})
	switch {
	case sqlstate.Is(err, sqlstate.ObjectInUse):
		err = databaseInUse(name, s.usersOf(ctx, name)).Because(err)
	case sqlstate.Is(err, sqlstate.UndefinedDatabase):
		err = databaseNotFound(name)
	case sqlstate.Is(err, sqlstate.UndefinedObject):
		err = fault.New(fault.Unavailable, "The owner of the database %q was dropped or renamed concurrently. Nothing was "+
			"changed.", name).After(time.Second).Because(err)
	case sqlstate.Is(err, sqlstate.InsufficientPrivilege):
		err = fault.New(fault.Forbidden, "Rolecall's administering role may not drop the database %q: it needs to own it, or "+
			"to be able to grant itself its owner. PostgreSQL says: %s.", name, sqlstate.Message(err)).Because(err)
	}
	return s.fault(err, name)
}

// dropDatabase is DropDatabase under the lock, but for the access roles.
func (s *Server) dropDatabase(ctx context.Context, conn *pgx.Conn, d *Database, by Actor) error {
	if d.protected {
		return fault.New(fault.Forbidden, "The database %q is a system database: it cannot be deleted here.", d.Name)
	}
	if err := s.checkOwner(ctx, conn, d); err != nil {
		return err
	}
	if err := s.checkAccessUnused(ctx, conn, d); err != nil {
		return err
	}
	var may bool
	if err := conn.QueryRow(ctx, `SELECT pg_has_role(datdba, 'USAGE') FROM pg_database WHERE datname = $1`,
		d.Name).Scan(&may); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	if !may {
		return s.takeAndDrop(ctx, conn, d, by)
	}
	_, err := conn.Exec(ctx, dropDatabase(d.Name))
	return err
}

// checkAccessUnused refuses a database whose access roles would stay behind, because something elsewhere depends on them.
func (s *Server) checkAccessUnused(ctx context.Context, conn *pgx.Conn, d *Database) error {
	names, err := s.accessNames(d.Name)
	if err != nil {
		return nil // it cannot have any
	}
	for i, name := range names {
		u, err := s.role(ctx, conn, name)
		if err != nil || u == nil || !u.accessRole(d.Name, Levels[i]) {
			if err != nil && !fault.Is(err, fault.NotFound) {
				return err
			}
			continue
		}
		rows, err := conn.Query(ctx, selectElsewhere, u.oid, d.oid)
		if err != nil {
			return err
		}
		elsewhere, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return err
		}
		if len(elsewhere) > 0 {
			return fault.New(fault.InUse, "The access role %q of the database %q owns something, or was granted something, "+
				"elsewhere: %s. So it would stay, and its members would have access to another database of that name. Revoke that "+
				"first, or give it to another role. Nothing was changed.", name, d.Name, some(elsewhere, len(elsewhere)))
		}
	}
	return nil
}

// selectElsewhere says where something depends on a role ($1) that does not go with a database ($2).
const selectElsewhere = `
	SELECT DISTINCT CASE WHEN dep.dbid <> 0 THEN format('in the database "%s"', d.datname)
	  WHEN o.oid IS NOT NULL THEN format('the database "%s"', o.datname) ELSE 'a tablespace or the like' END
	FROM pg_shdepend dep LEFT JOIN pg_database d ON d.oid = dep.dbid
	LEFT JOIN pg_database o ON o.oid = dep.objid AND dep.classid = 'pg_database'::regclass
	WHERE dep.refclassid = 'pg_authid'::regclass AND dep.refobjid = $1 AND dep.dbid <> $2
	  AND dep.classid <> 'pg_auth_members'::regclass
	  AND NOT (dep.classid = 'pg_database'::regclass AND dep.objid = $2) ORDER BY 1`

// CheckName refuses a database that cannot be dropped here, because no statement can have its name.
func (d *Database) CheckName() error {
	if !utf8.ValidString(d.Name) {
		return foreign("database", fmt.Sprintf("datname FROM pg_database WHERE oid = %d", d.oid))
	}
	return nil
}

func databaseInUse(name, users string) *fault.Error {
	return fault.New(fault.InUse, "The database %q is in use%s. End these first.", name, users)
}

// checkOwner refuses to drop what belongs to a system role, which could not have been given it here. What belongs to the
// administering role itself, and has our comment, was taken over to be dropped by a call that was cut off.
func (s *Server) checkOwner(ctx context.Context, conn *pgx.Conn, d *Database) error {
	owner, err := s.role(ctx, conn, d.Owner)
	if err != nil || owner == nil || !owner.System() {
		return err
	}
	var own bool
	if err := conn.QueryRow(ctx, `SELECT current_user = $1`, d.Owner).Scan(&own); err != nil {
		return err
	}
	if own && d.Provenance.Managed() {
		return nil
	}
	return fault.New(fault.Forbidden, "The database %q belongs to the system role %q: it cannot be deleted here.", d.Name,
		d.Owner)
}

// takeAndDrop drops a database as its owner, for a plain role drops only what it owns. DROP DATABASE cannot be part of a
// transaction; so the database is taken over in one of its own, with a comment that says so, and its owner gets it back
// if the drop fails.
func (s *Server) takeAndDrop(ctx context.Context, conn *pgx.Conn, d *Database, by Actor) error {
	if err := awaitUnused(ctx, conn, d.Name); err != nil {
		return err
	}
	var self string
	var long bool // a comment that is too long to be kept while ours is there
	var granted []databaseGrant
	look := &pgx.Batch{}
	look.Queue(`
		SELECT current_user::text, coalesce(octet_length(shobj_description(oid, 'pg_database')) > 8192, false)
		FROM pg_database WHERE datname = $1`, d.Name).QueryRow(func(row pgx.Row) error { return row.Scan(&self, &long) })
	look.Queue(`
		SELECT x.privilege_type, x.is_grantable FROM pg_database d, aclexplode(d.datacl) x, pg_roles r
		WHERE d.datname = $1 AND x.grantee = r.oid AND r.rolname = current_user`,
		d.Name).Query(collect(&granted, pgx.RowToStructByPos[databaseGrant]))
	if err := conn.SendBatch(ctx, look).Close(); err != nil {
		return err
	}
	comment := func(now time.Time, taken bool) string {
		switch p := d.Provenance; {
		case long:
			return ""
		case taken:
			p = p.changed(now, by)
			p.State = StateDeleting
			return commentOnDatabase(d.Name, p.comment(d.userComment))
		case p.Managed():
			return commentOnDatabase(d.Name, p.comment(d.userComment))
		default:
			return commentOnDatabase(d.Name, d.userComment) // the empty one removes it
		}
	}
	err := runTransaction(ctx, conn, nil, nil, func(ctx context.Context, tx *transaction) error {
		return tx.withMembership(ctx, []string{d.Owner}, func() error {
			_, err := tx.Exec(ctx, alterDatabaseOwner(d.Name, self)+`;`+comment(tx.now, true))
			return err
		})
	})
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, dropDatabase(d.Name))
	if err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return errors.Join(err, runTransaction(ctx, conn, nil, nil, func(ctx context.Context, tx *transaction) error {
		return tx.withMembership(ctx, []string{d.Owner}, func() error {
			if _, err := tx.Exec(ctx, comment(tx.now, false)+alterDatabaseOwner(d.Name, d.Owner)); err != nil {
				return err
			}
			// ALTER DATABASE … OWNER has merged what the administering role had been granted with what it had as the owner.
			return tx.asRole(ctx, d.Owner, func() error {
				for _, g := range granted {
					if _, err := tx.Exec(ctx, grantOnDatabase(g.Privilege, d.Name, self, g.Grantable)); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}))
}

// databaseGrant is a privilege on a database.
type databaseGrant struct {
	Privilege string // as PostgreSQL names it
	Grantable bool
}

// unusedWait is how long DROP DATABASE waits for sessions to end by themselves.
const unusedWait = 5 * time.Second

// awaitUnused waits as DROP DATABASE does, before anything is changed for it.
func awaitUnused(ctx context.Context, conn *pgx.Conn, name string) error {
	for end := time.Now().Add(unusedWait); ; {
		users, err := readDatabaseUsers(ctx, conn, name)
		if err != nil || len(users) == 0 {
			return err
		}
		onlySessions := !slices.ContainsFunc(users, func(u databaseUser) bool { return u.Kind != "session" })
		if !onlySessions || time.Now().After(end) {
			return databaseInUse(name, inWords(users))
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// databaseUser is what keeps a database from being dropped or copied.
type databaseUser struct{ Kind, Name, Role, Application string }

func (u databaseUser) String() string {
	switch {
	case u.Kind == "session" && u.Application != "":
		return fmt.Sprintf("process %s of %q (%s)", u.Name, valid(u.Role), valid(u.Application))
	case u.Kind == "session":
		return fmt.Sprintf("process %s of %q", u.Name, valid(u.Role))
	}
	return fmt.Sprintf("%q of %q", valid(u.Name), valid(u.Role))
}

// selectDatabaseUsers leaves out workers of autovacuum, which have no user and are ended when somebody waits for them.
const selectDatabaseUsers = `
	SELECT 'session', pid::text, coalesce(usename, '')::text, coalesce(application_name, '')
	FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid() AND usesysid IS NOT NULL
	UNION ALL
	SELECT 'prepared transaction', gid, owner::text, '' FROM pg_prepared_xacts WHERE database = $1
	UNION ALL
	SELECT 'subscription', subname::text, pg_get_userbyid(subowner)::text, ''
	FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = $1)
	UNION ALL
	SELECT 'replication slot', slot_name::text, '', '' FROM pg_replication_slots WHERE database = $1 AND active
	ORDER BY 1, 2`

func readDatabaseUsers(ctx context.Context, q querier, name string) ([]databaseUser, error) {
	rows, err := q.Query(ctx, selectDatabaseUsers, name)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[databaseUser])
}

// usersOf says what a database is used by, to follow the words "is in use"; "" if there is nothing to be seen any more.
func (s *Server) usersOf(ctx context.Context, name string) string {
	var users []databaseUser
	err := s.read(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		users, err = readDatabaseUsers(ctx, conn, name)
		return err
	})
	if err != nil {
		return ""
	}
	return inWords(users)
}

func inWords(users []databaseUser) string {
	var kinds []string
	for len(users) > 0 {
		kind := users[0].Kind
		var of []string
		for len(users) > 0 && users[0].Kind == kind {
			of, users = append(of, users[0].String()), users[1:]
		}
		if len(of) > 1 {
			kind += "s"
		}
		kinds = append(kinds, fmt.Sprintf("%d %s (%s)", len(of), kind, some(of, len(of))))
	}
	if len(kinds) == 0 {
		return ""
	}
	return ", by " + strings.Join(kinds, " and ")
}

// withDatabaseLock runs f on a connection that holds the lock of a database's name, outside a transaction.
func (s *Server) withDatabaseLock(ctx context.Context, name string, f func(conn *pgx.Conn) error) error {
	pooled, err := s.lockSession(ctx, databaseLock(name), "")
	if err != nil {
		return err
	}
	conn := pooled.Hijack() // it gets settings of its own and is closed, with the lock, at the end
	defer conn.Close(context.WithoutCancel(ctx))
	// Copying a template and flushing a database to disk take their time.
	if _, err := conn.Exec(ctx, `SET statement_timeout = '50s'`); err != nil {
		return err
	}
	return f(conn)
}

// DatabaseSizes returns how many bytes the databases of these names have on disk, without those whose size the administering
// role may not read.
func (s *Server) DatabaseSizes(ctx context.Context, names []string) (bytes map[string]int64, err error) {
	err = s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `
			SELECT datname::text, CASE WHEN has_database_privilege(oid, 'CONNECT') OR pg_has_role('pg_read_all_stats', 'USAGE')
			  THEN pg_database_size(oid) END
			FROM pg_database WHERE datname = ANY ($1::name[])`, names)
		if err != nil {
			return err
		}
		bytes = map[string]int64{}
		var name string
		var size *int64
		_, err = pgx.ForEachRow(rows, []any{&name, &size}, func() error {
			if size != nil {
				bytes[name] = *size
			}
			return nil
		})
		return err
	})
	return bytes, s.fault(err, "")
}
