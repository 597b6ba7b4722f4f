package pgrole

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/fault"
	"rolecall/internal/sqlstate"
)

// Database is a database of the cluster.
type Database struct {
	Name, Owner string
	Provenance  Provenance
	protected   bool
}

// System reports whether the database is protected: a template, the registered one, or the control database.
func (d *Database) System() bool { return d.protected }

// selectDatabases leaves out templates, which nobody uses, the control database, which is nobody's business ($1), and what
// is not finished. A comment that is longer than any of ours is left where it is: its writer is the owner, who may make it
// a gigabyte.
const selectDatabases = `
	SELECT d.datname::text, pg_get_userbyid(d.datdba)::text, CASE WHEN octet_length(c.description) <= 8192 THEN c.description
	  ELSE '' END, d.datname IN (current_database(), 'postgres')
	FROM pg_database d
	LEFT JOIN pg_shdescription c ON c.objoid = d.oid AND c.classoid = 'pg_database'::regclass
	WHERE NOT d.datistemplate AND d.datname <> $1 AND NOT starts_with(d.datname::text, '` + unfinishedPrefix + `')`

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

func scanDatabase(row pgx.CollectableRow) (*Database, error) {
	var d Database
	var comment string
	err := row.Scan(&d.Name, &d.Owner, &comment, &d.protected)
	_, d.Provenance = parseComment(comment)
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
	if !storable(name) {
		return nil, databaseNotFound(name)
	}
	rows, err := q.Query(ctx, selectDatabases+` AND d.datname = $2`, s.ControlDatabase, name)
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

// CreateDatabase makes a database that belongs to an unprotected role. CREATE DATABASE cannot be part of a transaction:
// so it makes one of another name, which gets its own together with its owner, and the comment that says who made it.
// What is left of a call that was cut off is dropped by InspectDatabase.
func (s *Server) CreateDatabase(ctx context.Context, name, owner string, by Actor) (*Database, error) {
	if err := CheckDatabaseName(name); err != nil {
		return nil, err
	}
	if name == s.ControlDatabase {
		return nil, fault.New(fault.Invalid, "The name %q is reserved; choose another.", name)
	}
	var d *Database
	err := s.withDatabaseLock(ctx, name, func(conn *pgx.Conn) error {
		role, err := s.role(ctx, conn, owner)
		if err != nil {
			return err
		}
		if role == nil {
			return fault.New(fault.Invalid, "There is no role %q to own the database.", owner)
		}
		if role.System() {
			return fault.New(fault.Forbidden, "The role %q is a system role: it cannot be given a database here.", owner)
		}
		if _, err := s.database(ctx, conn, name); !fault.Is(err, fault.NotFound) {
			return cmp.Or(err, error(databaseExists(name)))
		}
		// Made by the administering role and handed over in one transaction: a plain CREATEDB role may give a database only
		// to a role that it is a member of, and that membership must not outlive the call.
		unfinished := unfinishedPrefix + by.Attempt.String()
		if _, err := conn.Exec(ctx, createDatabase(unfinished)); err != nil {
			return err
		}
		err = runTransaction(ctx, conn, nil, nil, func(ctx context.Context, tx *transaction) error {
			p := Provenance{Created: tx.now, CreatedBy: by.Account}.changed(tx.now, by)
			if _, err := tx.Exec(ctx, renameDatabase(unfinished, name)+`; `+commentOnDatabase(name, p.comment(""))); err != nil {
				return err
			}
			err := tx.withMembership(ctx, []string{owner}, func() error {
				_, err := tx.Exec(ctx, alterDatabaseOwner(name, owner))
				return err
			})
			if err != nil {
				return err
			}
			d, err = s.database(ctx, tx, name)
			return err
		})
		if _, lost := errors.AsType[*commitLost](err); lost {
			made, inspectErr := s.InspectDatabase(ctx, name, by.Attempt)
			if inspectErr == nil && made != nil && made.Provenance.Attempt == by.Attempt {
				return nil
			}
			return errors.Join(err, inspectErr)
		}
		if err != nil {
			// It was made a moment ago by this call and holds nothing.
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			_, dropErr := conn.Exec(end, dropDatabase(unfinished))
			return errors.Join(err, dropErr)
		}
		return nil
	})
	switch {
	case sqlstate.Is(err, sqlstate.DuplicateDatabase, sqlstate.UniqueViolation):
		err = databaseExists(name)
	case sqlstate.Is(err, sqlstate.ObjectInUse):
		err = fault.New(fault.Unavailable,
			"The template database is in use, so no database can be made now.").After(2 * time.Second).Because(err)
	case sqlstate.Is(err, sqlstate.InsufficientPrivilege):
		err = fault.New(fault.Forbidden, "Rolecall's administering role may not make a database for %q: it needs CREATEDB, and "+
			"to be able to grant itself %s.", owner, ident(owner)).Because(err)
	}
	return d, s.fault(err, name)
}

func databaseExists(name string) *fault.Error {
	return fault.New(fault.Exists, "There is a database %q in this cluster already.", name)
}

// InspectDatabase reads a database after waiting for changes of it that are in progress; nil when there is none. What an
// attempt to make it has left unfinished is dropped: nobody has ever seen that.
func (s *Server) InspectDatabase(ctx context.Context, name string, attempt uuid.UUID) (d *Database, err error) {
	err = s.withDatabaseLock(ctx, name, func(conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, dropDatabaseIfExists(unfinishedPrefix+attempt.String())); err != nil {
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

// DropDatabase removes a database and all that is in it, which is what was asked for. One with sessions is refused: they
// are never cut off.
func (s *Server) DropDatabase(ctx context.Context, name string) error {
	err := s.withDatabaseLock(ctx, name, func(conn *pgx.Conn) error {
		d, err := s.database(ctx, conn, name)
		if err != nil {
			return err
		}
		if d.protected {
			return fault.New(fault.Forbidden, "The database %q is a system database: it cannot be deleted here.", name)
		}
		if err := s.checkOwner(ctx, conn, d); err != nil {
			return err
		}
		// Taken over in a transaction of its own: DROP DATABASE cannot be part of one, and a plain role drops only what it
		// owns. If the drop then fails, its owner gets it back.
		restore, err := s.takeOver(ctx, conn, d)
		if err != nil {
			return err
		}
		_, err = conn.Exec(ctx, dropDatabase(name))
		if err != nil && restore != nil {
			return errors.Join(err, restore(ctx))
		}
		return err
	})
	switch {
	case sqlstate.Is(err, sqlstate.ObjectInUse):
		err = fault.New(fault.InUse, "The database %q is in use: it has open sessions, prepared transactions or subscriptions. "+
			"End them first.", name).Because(err)
	case sqlstate.Is(err, sqlstate.UndefinedDatabase):
		err = databaseNotFound(name)
	case sqlstate.Is(err, sqlstate.InsufficientPrivilege):
		err = fault.New(fault.Forbidden, "Rolecall's administering role may not drop the database %q: it needs to own it, or "+
			"to be able to grant itself its owner.", name).Because(err)
	}
	return s.fault(err, name)
}

// checkOwner refuses to drop what belongs to a system role, which could not have been given it here. What belongs to the
// administering role itself may have been taken over to be dropped, by a call that was cut off.
func (s *Server) checkOwner(ctx context.Context, conn *pgx.Conn, d *Database) error {
	owner, err := s.role(ctx, conn, d.Owner)
	if err != nil || owner == nil || !owner.System() {
		return err
	}
	var own bool
	if err := conn.QueryRow(ctx, `SELECT current_user = $1`, d.Owner).Scan(&own); err != nil || own {
		return err
	}
	return fault.New(fault.Forbidden, "The database %q belongs to the system role %q: it cannot be deleted here.", d.Name,
		d.Owner)
}

// takeOver makes the administering role the owner of a database, unless it may drop it already.
func (s *Server) takeOver(ctx context.Context, conn *pgx.Conn,
	d *Database) (restore func(context.Context) error, err error) {
	var may bool
	var self string
	err = conn.QueryRow(ctx, `SELECT pg_has_role(datdba, 'USAGE'), current_user::text FROM pg_database WHERE datname = $1`,
		d.Name).Scan(&may, &self)
	if err != nil || may {
		return nil, err
	}
	give := func(ctx context.Context, to string) error {
		return runTransaction(ctx, conn, nil, nil, func(ctx context.Context, tx *transaction) error {
			return tx.withMembership(ctx, []string{d.Owner}, func() error {
				_, err := tx.Exec(ctx, alterDatabaseOwner(d.Name, to))
				return err
			})
		})
	}
	if err := give(ctx, self); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		return give(ctx, d.Owner)
	}, nil
}

// withDatabaseLock runs f on a connection that holds the lock of a database's name, outside a transaction.
func (s *Server) withDatabaseLock(ctx context.Context, name string, f func(conn *pgx.Conn) error) error {
	pooled, err := s.lockSession(ctx, databaseLock(name))
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
