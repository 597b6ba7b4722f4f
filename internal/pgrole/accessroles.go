package pgrole

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/fault"
	"rolecall/internal/sqlstate"
)

// AccessRoles are the access roles of a database: NOLOGIN groups whose members may do what their level says.
type AccessRoles struct {
	Database string
	Roles    []AccessRoleState // of own, write and read; those that are there
	Schemas  []string          // as in AccessRecord
	Adopt    bool
	Complete bool // nothing is left to be run or granted
	// Problems are, in sentences, what the administering role may not grant, and what helps.
	Problems []string
	// Warning says, in ASCII, which users can no longer connect, or could not after it was run; "" if there are none.
	Warning string
	// Statements are what was run, or would be, but for Rolecall's records in the comments of the roles.
	Statements []Statement
	attempt    uuid.UUID // that changed the role of own last
}

// AccessRoleState is one access role.
type AccessRoleState struct {
	Level   Level
	Name    string
	Members []string // in the order of their names' bytes, leases among them
}

// AccessRolesWish is how the access roles of a database are to be made or completed.
type AccessRolesWish struct {
	Database string
	// Schemas are the names of those to be covered; nil: as it is, or all; "*" alone: all.
	Schemas []string
	// Adopt covers objects of other owners, and takes a role that has an access role's name; nil: as it is, or not.
	Adopt *bool
	// givenAway says that the administering role owns the database only until it is made.
	givenAway bool
}

// AccessRoles returns the access roles of a database. If it has none, the fault is NotFound.
func (s *Server) AccessRoles(ctx context.Context, database string) (*AccessRoles, error) {
	d, err := s.Database(ctx, database)
	if err != nil {
		return nil, err
	}
	if _, cannot := s.accessNames(database); cannot != nil || d.protected {
		return nil, noAccessRoles(database)
	}
	wish := AccessRolesWish{Database: database}
	p, err := s.readAccess(ctx, wish)
	if fault.Is(err, fault.Invalid) || fault.Is(err, fault.Forbidden) {
		p, err = s.readAccessOutside(ctx, wish, err)
	}
	if err != nil {
		return nil, err
	}
	all := p.result()
	if len(all.Roles) == 0 {
		return nil, noAccessRoles(database)
	}
	all.Statements, all.Warning = nil, ""
	return all, nil
}

func noAccessRoles(database string) error {
	return fault.New(fault.NotFound, "The database %q has no access roles.", database)
}

// PlanAccessRoles says what CompleteAccessRoles would run.
func (s *Server) PlanAccessRoles(ctx context.Context, wish AccessRolesWish) (*AccessRoles, error) {
	p, err := s.readAccess(ctx, wish)
	if err != nil {
		return nil, err
	}
	if err := p.checkRoles(); err != nil {
		return nil, err
	}
	return p.result(), nil
}

// readAccess reads what the access roles of a database lack.
func (s *Server) readAccess(ctx context.Context, wish AccessRolesWish) (p *accessPlan, err error) {
	if _, err := s.accessNames(wish.Database); err != nil {
		return nil, err
	}
	var to *openDatabase
	err = s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		to, err = s.openFor(ctx, conn, wish.Database)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = s.visit(ctx, to, func(conn *pgx.Conn) error {
		p, err = s.planAccess(ctx, conn, wish, to.name)
		return err
	})
	return p, s.fault(err, wish.Database)
}

// readAccessOutside reads the access roles of a database that Rolecall cannot connect to. why becomes a problem of the plan.
func (s *Server) readAccessOutside(ctx context.Context, wish AccessRolesWish, why error) (p *accessPlan, err error) {
	err = s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		p = &accessPlan{s: s, database: wish.Database, now: wish.Database, problems: []string{fault.Of(why).Message}}
		if p.names, err = s.accessNames(wish.Database); err != nil {
			return err
		}
		if err := p.readRoles(ctx, conn); err != nil {
			return err
		}
		return p.apply(wish)
	})
	return p, err
}

// CompleteAccessRoles makes the access roles of a database, or what they lack: a second call runs nothing. Nothing is taken
// from anybody but CONNECT on the database, and CREATE on the schema public, from PUBLIC. All is done in one transaction in
// the database, which ends by writing the attempt into the record of the role of own, if anything was run.
func (s *Server) CompleteAccessRoles(ctx context.Context, wish AccessRolesWish, by Actor) (all *AccessRoles, err error) {
	names, err := s.accessNames(wish.Database)
	if err != nil {
		return nil, err
	}
	err = s.withAccessLocks(ctx, wish.Database, names, func(locked *pgx.Conn) error {
		to, err := s.openFor(ctx, locked, wish.Database)
		if err != nil {
			return err
		}
		all, err = s.completeSurely(ctx, to, wish, by)
		return err
	})
	if err != nil {
		return nil, s.accessFault(err, wish.Database)
	}
	return all, nil
}

// completeSurely is CompleteAccessRoles under the locks. When the connection is lost during COMMIT, what is committed is
// found complete by another try, which waits for the transaction of the one before.
func (s *Server) completeSurely(ctx context.Context, to *openDatabase, wish AccessRolesWish, by Actor) (
	all *AccessRoles, err error) {
	for i := 1; ; i++ {
		before := all
		all, err = s.completeIn(ctx, to, wish, by)
		if _, lost := errors.AsType[*commitLost](err); lost && i < attempts {
			continue
		}
		if err == nil && len(all.Statements) == 0 && before != nil && all.attempt == by.Attempt {
			all.Statements, all.Warning = before.Statements, before.Warning
		}
		return all, err
	}
}

// completeIn is one try of completeSurely. With a commitLost it returns what was to be done.
func (s *Server) completeIn(ctx context.Context, to *openDatabase, wish AccessRolesWish, by Actor) (
	all *AccessRoles, err error) {
	err = s.visit(ctx, to, func(conn *pgx.Conn) error {
		return s.inTries(ctx, conn, to.name, func() error {
			once := func(tx *transaction) error {
				p, err := s.completeOnce(ctx, tx, wish, to.name, by)
				if p != nil {
					all = p.result()
					all.Complete = len(p.problems) == 0
				}
				return err
			}
			err := retryOn(ctx, conn, once)
			_, explained := errors.AsType[*fault.Error](err)
			if !explained && (sqlstate.Is(err, goneCodes...) || sqlstate.Is(err, sqlstate.InsufficientPrivilege)) {
				err = retryOn(ctx, conn, once) // an object was made or dropped, or got another owner, after it was read
			}
			return err
		})
	})
	return all, err
}

// completeOnce is one try in a transaction of the database.
func (s *Server) completeOnce(ctx context.Context, tx *transaction, wish AccessRolesWish, now string, by Actor) (
	*accessPlan, error) {
	// Deletions in this database, which change the privileges of the same objects, have this lock, too.
	if _, err := tx.Exec(ctx, setTimeouts(s.Waits.statement(), max(s.Waits.lock(), s.Waits.lockTry()))); err != nil {
		return nil, err
	}
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, databaseLock(now)); err != nil {
		return nil, err
	}
	if _, err := tx.Exec(ctx, setTimeouts(s.Waits.statement(), s.Waits.lockTry())); err != nil {
		return nil, err
	}
	p, err := s.planAccess(ctx, tx, wish, now)
	if err != nil {
		return nil, err
	}
	if err := p.checkRoles(); err != nil {
		return nil, err
	}
	if err := p.run(ctx, tx, by); err != nil {
		return nil, err
	}
	if len(p.steps) == 0 {
		if err := tx.confirm(ctx); err != nil {
			return nil, err
		}
	}
	return p, p.readRoles(ctx, tx)
}

// accessFault says why access roles were not completed or removed.
func (s *Server) accessFault(err error, database string) error {
	if held, ok := errors.AsType[*lockHeld](err); ok {
		return fault.New(fault.Unavailable, "The access roles of the database %q cannot be changed now: %s. Nothing was changed.",
			database, held).After(5 * time.Second).Because(err)
	}
	if _, lost := errors.AsType[*commitLost](err); !lost && sqlstate.Is(err, goneCodes...) {
		return fault.New(fault.Unavailable,
			"Something in the database %q was dropped or renamed concurrently. Nothing was changed.",
			database).After(time.Second).Because(err)
	}
	if sqlstate.Is(err, sqlstate.DuplicateObject, sqlstate.UniqueViolation) {
		return fault.New(fault.Unavailable, "A role with the name of an access role of the database %q was made concurrently. "+
			"Nothing was changed.", database).After(time.Second).Because(err)
	}
	return s.fault(err, database)
}

// withAccessLocks runs f on a connection that holds the locks of a database and of its access roles: so nobody is made a
// member of a role that is being removed, and no lease for it is made.
func (s *Server) withAccessLocks(ctx context.Context, database string, names []string, f func(conn *pgx.Conn) error) error {
	return s.withDatabaseLock(ctx, database, func(conn *pgx.Conn) error {
		for _, name := range names {
			by, err := s.watched(ctx, watch{pid: conn.PgConn().PID(), name: name}, func() error {
				_, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1)`, roleLock(name))
				return err
			})
			if err != nil {
				return withBlocker(err, by)
			}
		}
		return f(conn)
	})
}

// openDatabase is a database that accepts connections.
type openDatabase struct{ name, encoding string }

// openFor refuses a database that has no access roles, whatever is in it. q is in the registered database.
func (s *Server) openFor(ctx context.Context, q querier, name string) (*openDatabase, error) {
	d, err := s.database(ctx, q, name)
	if err != nil {
		return nil, err
	}
	if d.protected {
		return nil, fault.New(fault.Forbidden, "The database %q is a system database: it has no access roles.", name)
	}
	to := &openDatabase{name: name}
	var allowed, super bool
	var limit int
	err = q.QueryRow(ctx, `
		SELECT pg_encoding_to_char(encoding), datallowconn, datconnlimit,
		  (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) FROM pg_database WHERE oid = $1`, d.oid).Scan(
		&to.encoding, &allowed, &limit, &super)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, databaseNotFound(name)
	case err != nil:
		return nil, err
	case limit == invalidDatabase:
		return nil, fault.New(fault.Invalid, "The removal of the database %q was cut off: DROP DATABASE %s finishes it.", name,
			ident(name))
	case !allowed || limit == 0 && !super:
		return nil, fault.New(fault.Invalid, "The database %q takes no connections: ALTER DATABASE %s ALLOW_CONNECTIONS true "+
			"CONNECTION LIMIT -1 lets Rolecall in.", name, ident(name))
	}
	return to, nil
}

// visit runs f on a connection to a database.
func (s *Server) visit(ctx context.Context, to *openDatabase, f func(conn *pgx.Conn) error) error {
	conn, err := s.connect(ctx, to.name, to.encoding)
	switch code := sqlstate.Code(err); {
	case code == sqlstate.UndefinedDatabase:
		return databaseNotFound(to.name)
	case code != "" && !slices.Contains([]string{"08", "53", "57", "58"}, code[:2]) || code == sqlstate.UndefinedFile:
		return fault.New(fault.Forbidden, "Rolecall's administering role may not connect to the database %q: %s (SQLSTATE %s). "+
			"GRANT CONNECT ON DATABASE %s TO it, or see pg_hba.conf and the settings of the database.", to.name,
			sqlstate.Message(err), code, ident(to.name)).Because(err)
	case err != nil:
		return err
	}
	defer closeConn(ctx, conn)
	return f(conn)
}

// RemoveAccessRoles takes back what the access roles of a database were granted, and drops them. It refuses if one of them
// has a member, or owns something and reassignTo is "". What was begun and cut off is finished by the same call. Of a
// database that is gone the roles are removed, too. The role of own goes last.
func (s *Server) RemoveAccessRoles(ctx context.Context, database, reassignTo string, by Actor) error {
	names, err := s.accessNames(database)
	if err != nil {
		return err
	}
	if slices.Contains(names, reassignTo) {
		return fault.New(fault.Invalid, "What the access roles own cannot be reassigned to %q, which is one of them.", reassignTo)
	}
	if reassignTo != "" {
		if err := CheckReassign(names[0], reassignTo); err != nil {
			return err
		}
	}
	err = s.withAccessLocks(ctx, database, names, func(conn *pgx.Conn) error {
		return s.removeAccess(ctx, conn, database, reassignTo, names, by)
	})
	if b, ok := errors.AsType[*blocked](err); ok {
		return notRemoved(database, b, "What is left is removed by the same call.")
	}
	if _, part := errors.AsType[*removedInPart](err); part {
		if held, ok := errors.AsType[*lockHeld](err); ok {
			return fault.New(fault.Unavailable, "The access roles of the database %q are removed only in part: %s. The same call "+
				"removes what is left.", database, held).After(5 * time.Second).Because(err)
		}
	}
	return s.accessFault(err, database)
}

// removeAccess is RemoveAccessRoles under the locks. The role of own goes last, because its record says what PUBLIC gets
// back.
func (s *Server) removeAccess(ctx context.Context, conn *pgx.Conn, database, reassignTo string, names []string,
	by Actor) error {
	d, err := s.database(ctx, conn, database)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	var removals []*deletion
	own := *s
	own.WithMembers = true // those that there may be have been refused
	for i := len(Levels) - 1; i >= 0; i-- {
		u, err := s.role(ctx, conn, names[i])
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		if u == nil || !u.accessRole(database, Levels[i]) {
			continue
		}
		if err := checkRemovable(ctx, conn, u); err != nil {
			return err
		}
		removals = append(removals, &deletion{s: &own, of: drop{name: u.Name}, conn: conn, reassignTo: reassignTo, by: by,
			user: u})
	}
	if len(removals) == 0 {
		if d == nil {
			return databaseNotFound(database)
		}
		return noAccessRoles(database)
	}
	found := &blocked{}
	for _, removal := range removals {
		if err := removal.checkHeir(ctx); err != nil {
			return err
		}
		b, err := removal.look(ctx)
		if err != nil {
			return err
		}
		if b != nil {
			for _, reason := range b.reasons {
				found.reasons = append(found.reasons, fmt.Sprintf("of %q, %s", removal.user.Name, reason))
			}
			found.owns = found.owns || b.owns
		}
	}
	if len(found.reasons) > 0 {
		if reassignTo != "" {
			found.owns = false
		}
		return notRemoved(database, found, "Nothing was changed.")
	}
	mayConnect, err := readConnecting(ctx, conn, d)
	if err != nil {
		return err
	}
	// None of them may connect: they are of a former database of the name, or their removal went that far before.
	its := slices.ContainsFunc(removals, func(r *deletion) bool { return slices.Contains(mayConnect, r.user.oid) })
	if last := removals[len(removals)-1].user; its && last.Name == names[0] {
		if err := s.giveBack(ctx, conn, database, last.Provenance.Access); err != nil {
			return err
		}
	}
	for _, removal := range removals {
		if err := removal.finish(ctx, nil); err != nil {
			return &removedInPart{err}
		}
	}
	return nil
}

// removedInPart is an error after which PUBLIC may have back what it had, and some of the access roles be gone.
type removedInPart struct{ cause error }

func (e *removedInPart) Error() string { return e.cause.Error() }
func (e *removedInPart) Unwrap() error { return e.cause }

// notRemoved says what keeps access roles from being removed.
func notRemoved(database string, b *blocked, end string) *fault.Error {
	err := fault.New(fault.Invalid, "The access roles of the database %q cannot be removed: %s. %s", database,
		strings.Join(b.reasons[:min(len(b.reasons), maxNamed)], "; "), end).Because(b.cause)
	if b.owns {
		err = err.Suggest(fault.Reassign)
	}
	return err
}

// checkRemovable refuses an access role that is in use.
func checkRemovable(ctx context.Context, q querier, u *User) error {
	if u.System() {
		return fault.New(fault.Forbidden, "The role %q is a system role: it cannot be removed here.", u.Name)
	}
	members, err := readMembers(ctx, q, u.Name)
	if err != nil {
		return err
	}
	if len(members) > 0 {
		return fault.New(fault.Invalid,
			"The access role %q has members: %s. First remove the level of each user, end each lease, and delete each stored "+
				"credential. Nothing was changed.", u.Name, some(members, len(members)))
	}
	return nil
}

// giveBack grants PUBLIC again what was revoked for the access roles.
func (s *Server) giveBack(ctx context.Context, locked *pgx.Conn, database string, record *AccessRecord) error {
	if !record.TookConnect && !record.TookCreate {
		return nil
	}
	to, err := s.openFor(ctx, locked, database)
	if err != nil {
		return err
	}
	return s.visit(ctx, to, func(conn *pgx.Conn) error {
		return s.inTries(ctx, conn, to.name, func() error {
			return retryOn(ctx, conn, func(tx *transaction) error {
				if _, err := tx.Exec(ctx, setTimeouts(s.Waits.statement(), s.Waits.lockTry())); err != nil {
					return err
				}
				return giveBackIn(ctx, tx, database, record)
			})
		})
	})
}

func giveBackIn(ctx context.Context, tx *transaction, database string, record *AccessRecord) error {
	var owner, self string
	var schemaOwner *string
	err := tx.QueryRow(ctx, `SELECT pg_get_userbyid(datdba)::text, current_user::text,
		(SELECT pg_get_userbyid(nspowner)::text FROM pg_namespace WHERE nspname = 'public')
		FROM pg_database WHERE datname = current_database()`).Scan(&owner, &self, &schemaOwner)
	if err != nil {
		return err
	}
	type grant struct{ as, sql string }
	var grants []grant
	if record.TookConnect {
		target := targetDatabase(database)
		grants = append(grants, grant{owner, grantToPublic("CONNECT", target)})
		if record.GaveConnect && owner != self {
			grants = append(grants, grant{owner, revoke("CONNECT", target, self)})
		}
	}
	if record.TookCreate && schemaOwner != nil {
		grants = append(grants, grant{*schemaOwner, grantToPublic("CREATE", targetSchema("public"))})
	}
	for _, g := range grants {
		err := tx.asRole(ctx, g.as, func() error {
			_, err := tx.Exec(ctx, g.sql)
			return err
		})
		if sqlstate.Is(err, sqlstate.InsufficientPrivilege) {
			return fault.New(fault.Forbidden,
				"Rolecall's administering role cannot act for %q, to whom the database %q or its schema "+
					"public belongs, to give PUBLIC back what was revoked: %s. Nothing was changed.", valid(g.as), database, valid(g.sql)).
				Because(err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// InspectAccessRoles reads the role of own after waiting for changes of the access roles that are in progress; nil when
// there is none. Its Provenance says which attempt has changed the access roles last.
func (s *Server) InspectAccessRoles(ctx context.Context, database string) (own *User, err error) {
	names, err := s.accessNames(database)
	if err != nil {
		return nil, err
	}
	err = s.withAccessLocks(ctx, database, names, func(conn *pgx.Conn) error {
		to, err := s.openFor(ctx, conn, database)
		if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Forbidden) || fault.Is(err, fault.Invalid) {
			own, err = s.role(ctx, conn, names[0]) // nothing can be in progress there
			return err
		}
		if err != nil {
			return err
		}
		return s.visit(ctx, to, func(conn *pgx.Conn) error {
			lock := databaseLock(database)
			return runTransaction(ctx, conn, &lock, nil, func(ctx context.Context, tx *transaction) error {
				if own, err = s.role(ctx, tx, names[0]); err != nil {
					return err
				}
				return tx.confirm(ctx)
			})
		})
	})
	if own != nil && !own.accessRole(database, Own) {
		own = nil
	}
	return own, s.fault(err, database)
}
