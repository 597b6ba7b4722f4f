package pgrole

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/fault"
	"rolecall/internal/sqlstate"
)

// CreateDatabase makes a database that belongs to an unprotected role, to its own access role, or to the administering
// role; and its access roles if they are asked for. CREATE DATABASE cannot be part of a transaction: so it makes one of
// another name. In that the access roles are made and granted what they are to have. Last it gets its own name together with
// its owner, and the comment that says who made it. What is left of a call that was cut off is dropped by InspectDatabase.
func (s *Server) CreateDatabase(ctx context.Context, n NewDatabase, by Actor) (d *Database, err error) {
	if err := CheckDatabaseName(n.Name); err != nil {
		return nil, err
	}
	if n.Name == s.ControlDatabase {
		return nil, fault.New(fault.Invalid, "The name %q is reserved; choose another.", n.Name)
	}
	var names []string
	if n.AccessRoles {
		if names, err = s.accessNames(n.Name); err != nil {
			return nil, err
		}
		if n.Owner == "" {
			n.Owner = names[0]
		}
	}
	err = s.withAccessLocks(ctx, n.Name, names, func(conn *pgx.Conn) error {
		if err := s.checkNewDatabase(ctx, conn, n, names); err != nil {
			return err
		}
		unfinished := unfinishedPrefix + by.Attempt.String()
		if _, err := conn.Exec(ctx, createDatabase(unfinished)); err != nil {
			return err
		}
		d, err = s.finishDatabase(ctx, conn, n, unfinished, by)
		if _, lost := errors.AsType[*commitLost](err); lost && conn.IsClosed() {
			made, inspectErr := s.InspectDatabase(ctx, n.Name, by.Attempt)
			if inspectErr == nil && made != nil && made.Provenance.Attempt == by.Attempt {
				d = made
				return nil
			}
			return errors.Join(err, inspectErr)
		}
		if err != nil {
			// It was made a moment ago by this call and holds nothing.
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			return errors.Join(err, s.dropUnfinished(end, conn, n.Name, by.Attempt))
		}
		return nil
	})
	if err != nil {
		return nil, s.createDatabaseFault(ctx, n, err)
	}
	return d, nil
}

// createDatabaseFault says why a database could not be made.
func (s *Server) createDatabaseFault(ctx context.Context, n NewDatabase, err error) error {
	if _, explained := errors.AsType[*fault.Error](err); explained {
		return err
	}
	switch sqlstate.Code(err) {
	case sqlstate.DuplicateDatabase, sqlstate.UniqueViolation:
		return databaseExists(n.Name)
	case sqlstate.UndefinedObject:
		return noOwner(n.Owner).Because(err) // it was dropped a moment ago
	case sqlstate.ObjectInUse:
		return fault.New(fault.Unavailable, "No database can be made now, because the template database is in use%s.",
			s.usersOf(ctx, template)).After(2 * time.Second).Because(err)
	case sqlstate.InternalError:
		if mismatch := s.collationMismatch(ctx, err); mismatch != nil {
			return mismatch
		}
	case sqlstate.InsufficientPrivilege:
		if n.Owner == "" {
			return fault.New(fault.Forbidden, "Rolecall's administering role may not make a database: it needs CREATEDB. PostgreSQL "+
				"says: %s.", sqlstate.Message(err)).Because(err)
		}
		return fault.New(fault.Forbidden, "Rolecall's administering role may not make a database for %q: it needs CREATEDB, and "+
			"to be able to grant itself %s. PostgreSQL says: %s.", n.Owner, ident(n.Owner), sqlstate.Message(err)).Because(err)
	}
	return s.accessFault(err, n.Name)
}

// checkNewDatabase refuses a database whose name is taken, whose owner cannot be given one, or whose access roles have
// members from a former database of the name.
func (s *Server) checkNewDatabase(ctx context.Context, q querier, n NewDatabase, names []string) error {
	if n.Owner != "" && (len(names) == 0 || n.Owner != names[0]) {
		role, err := s.role(ctx, q, n.Owner)
		if err != nil {
			return err
		}
		if role == nil {
			return noOwner(n.Owner)
		}
		if role.System() {
			return fault.New(fault.Forbidden, "The role %q is a system role: it cannot be given a database here.", n.Owner)
		}
		if l := role.Lease(); l != nil {
			return fault.New(fault.Invalid, "The user %q is a lease, which ends: give the database to %q.", n.Owner, l.For)
		}
	}
	_, err := s.database(ctx, q, n.Name)
	if err == nil {
		return databaseExists(n.Name)
	}
	if !fault.Is(err, fault.NotFound) {
		return err
	}
	for _, name := range names {
		members, err := readMembers(ctx, q, name)
		if err != nil {
			return err
		}
		if len(members) > 0 {
			return fault.New(fault.Invalid, "There is a role %q already, and it has members, who would have access to the new "+
				"database %q: %s. Revoke the role from them, or drop it.", name, n.Name, some(members, len(members)))
		}
	}
	return nil
}

// finishDatabase makes a database of an unfinished one. A plain CREATEDB role may give a database only to a role that it is
// a member of, and that membership must not outlive the call.
func (s *Server) finishDatabase(ctx context.Context, conn *pgx.Conn, n NewDatabase, unfinished string, by Actor) (
	d *Database, err error) {
	if n.AccessRoles {
		to := &openDatabase{name: unfinished}
		err := conn.QueryRow(ctx, `SELECT pg_encoding_to_char(encoding)::text FROM pg_database WHERE datname = $1`, unfinished).
			Scan(&to.encoding)
		if err != nil {
			return nil, err
		}
		if _, err := s.completeSurely(ctx, to, AccessRolesWish{Database: n.Name, givenAway: true}, by); err != nil {
			return nil, err
		}
	}
	return d, runTransaction(ctx, conn, nil, nil, func(ctx context.Context, tx *transaction) error {
		p := Provenance{Created: tx.now, CreatedBy: by.Account}.changed(tx.now, by)
		if _, err := tx.Exec(ctx, renameDatabase(unfinished, n.Name)+`; `+commentOnDatabase(n.Name, p.comment(""))); err != nil {
			return err
		}
		if n.Owner != "" {
			err := tx.withMembership(ctx, []string{n.Owner}, func() error {
				_, err := tx.Exec(ctx, alterDatabaseOwner(n.Name, n.Owner))
				return err
			})
			if err != nil {
				return err
			}
		}
		if n.AccessRoles && !tx.superuser {
			if err := tx.keepConnect(ctx, n.Name, n.Owner); err != nil {
				return err
			}
		}
		d, err = s.database(ctx, tx, n.Name)
		return err
	})
}

// keepConnect lets the administering role connect to a database that it has given away, and that PUBLIC may not connect to.
func (tx *transaction) keepConnect(ctx context.Context, database, owner string) error {
	var self string
	if err := tx.QueryRow(ctx, `SELECT current_user::text`).Scan(&self); err != nil || self == owner {
		return err
	}
	return tx.asRole(ctx, owner, func() error {
		_, err := tx.Exec(ctx, grantTo("CONNECT", targetDatabase(database), []string{self}))
		return err
	})
}

// dropUnfinished drops what an attempt to make a database has left: the unfinished one, and the access roles that were made
// for it, if there is none of the name.
func (s *Server) dropUnfinished(ctx context.Context, conn *pgx.Conn, name string, attempt uuid.UUID) error {
	if _, err := conn.Exec(ctx, dropDatabaseIfExists(unfinishedPrefix+attempt.String())); err != nil {
		return err
	}
	_, err := s.database(ctx, conn, name)
	if !fault.Is(err, fault.NotFound) {
		return err
	}
	_, err = s.dropAccessRoles(ctx, conn, name, attempt)
	return err
}

// dropAccessRoles drops the access roles that are left of a database that is gone: those that an attempt has made, or, if it
// is nil, all. One on which something else depends stays. dropped says that there were any that do not.
func (s *Server) dropAccessRoles(ctx context.Context, conn *pgx.Conn, database string, attempt uuid.UUID) (dropped bool,
	err error) {
	names, err := s.accessNames(database)
	if err != nil {
		return false, nil // it cannot have had any
	}
	for i, name := range names {
		gone := false
		err := retryOn(ctx, conn, func(tx *transaction) error {
			u, err := s.role(ctx, tx, name)
			if err != nil || u == nil || u.System() || u.isUser() || !u.accessRole(database, Levels[i]) ||
				attempt != uuid.Nil && u.Provenance.Attempt != attempt {
				return err
			}
			if _, err := tx.Exec(ctx, dropRole(name)); err != nil {
				return err
			}
			gone = true
			return u.checkDropped(ctx, tx)
		})
		if err != nil && !sqlstate.Is(err, sqlstate.DependentObjects, sqlstate.InsufficientPrivilege) {
			return dropped, err
		}
		dropped = dropped || gone && err == nil
	}
	return dropped, nil
}
