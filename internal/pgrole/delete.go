package pgrole

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/fault"
	"rolecall/internal/sqlstate"
)

// Delete removes a user and destroys nothing else. DROP OWNED is never run: it drops what appeared meanwhile, and
// reaches third parties. In four phases:
//
//  1. Plan: look at everything that depends on the role, in every database, and refuse what must not be touched. Nothing
//     has changed until here.
//  2. NOLOGIN and the state "deleting", in one transaction. From here the call only goes forward: cut off by a crash, it
//     is finished by the same call.
//  3. End its sessions; then per database, in one transaction each: reassign what it owns, if asked to, and revoke what
//     it was granted.
//  4. DROP ROLE, whose own check is the last guard.
//
// What turns up between the phases and blocks the deletion gives the role its LOGIN back and is answered with InUse.
func (s *Server) Delete(ctx context.Context, name, reassignTo string, match Match, stamp Stamp) error {
	return s.delete(ctx, name, match, &deletion{reassignTo: reassignTo, stamp: stamp})
}

// DeleteOrDisable is Delete, but what blocks the deletion, early or late, leaves the user disabled: NOLOGIN, without a
// password and without sessions, in the state "disabled". Then why says what blocked it, as a sentence for the caller;
// empty, the user is gone. The same call, or Delete, deletes it later; SetPassword enables it again.
func (s *Server) DeleteOrDisable(ctx context.Context, name, reassignTo string, match Match, stamp Stamp) (why string, err error) {
	d := &deletion{reassignTo: reassignTo, orDisable: true, stamp: stamp}
	err = s.delete(ctx, name, match, d)
	return d.disabled, err
}

func (s *Server) delete(ctx context.Context, name string, match Match, d *deletion) error {
	if d.reassignTo != "" {
		if err := CheckReassign(name, d.reassignTo); err != nil {
			return err
		}
	}
	// Held through all phases, so that a change of the same user waits for the end.
	conn, err := s.lockSession(ctx, roleLock(name))
	if err != nil {
		return s.fault(err, name)
	}
	defer conn.Release()
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if _, err := conn.Exec(end, `SELECT pg_advisory_unlock($1)`, roleLock(name)); err != nil {
			_ = conn.Conn().Close(end) // the lock ends with the session
		}
	}()
	d.s, d.conn = s, conn.Conn()
	return s.fault(d.run(ctx, name, match), name)
}

// deletion is one Delete under way.
type deletion struct {
	s          *Server
	conn       *pgx.Conn // in the registered database, holding the role's lock
	reassignTo string
	orDisable  bool // when it is blocked
	stamp      Stamp
	user       *User
	revoked    []string // what was taken away so far, for people
	disabling  bool     // what called it off disables the user
	disabled   string   // why the user was disabled instead
}

func (d *deletion) run(ctx context.Context, name string, match Match) error {
	var err error
	if d.user, err = d.s.changeable(ctx, d.conn, name, match); err != nil {
		return err
	}
	if err := d.checkReassign(ctx); err != nil {
		return err
	}
	p, err := d.plan(ctx)
	if err != nil {
		return err
	}
	if len(p.blockers) > 0 && d.user.Provenance.State != StateDeleting && !d.orDisable {
		return d.inUse(p.blockers, "Nothing was changed.")
	}
	if err := d.disable(ctx, match); err != nil {
		return err
	}
	err = d.finish(ctx)
	b, isBlocked := errors.AsType[*blocked](err)
	if isBlocked {
		if err = d.callOff(ctx); err == nil {
			return d.calledOff(b)
		}
		err = errors.Join(err, b)
	}
	if _, lost := errors.AsType[*commitLost](err); lost && d.conn.IsClosed() {
		u, inspectErr := d.s.Inspect(ctx, name)
		switch {
		case inspectErr != nil:
		case u == nil || u.oid != d.user.oid:
			return nil
		case isBlocked && u.Provenance.Attempt == d.stamp.Attempt && u.Provenance.State != StateDeleting:
			return d.calledOff(b)
		}
	}
	if err == nil || fault.Is(err, fault.Stale) {
		return err
	}
	return fault.New(fault.Unavailable, "The deletion of %q has begun but could not be finished: it can no longer log in. Delete it again to finish.", name).
		After(2 * time.Second).Because(err)
}

// blocked says what keeps the role from being dropped once its deletion has begun.
type blocked struct {
	reasons []string
	cause   error
}

func (b *blocked) Error() string { return strings.Join(b.reasons, "; ") }
func (b *blocked) Unwrap() error { return b.cause }

func block(cause error, format string, args ...any) error {
	return &blocked{[]string{fmt.Sprintf(format, args...)}, cause}
}

func (d *deletion) inUse(reasons []string, end string) *fault.Error {
	hint := ""
	if d.reassignTo == "" && slices.ContainsFunc(reasons, func(r string) bool { return strings.HasPrefix(r, "it owns ") }) {
		hint = " Delete it with ?reassignTo=<role> to give what it owns to another role."
	}
	return fault.New(fault.InUse, "The user %q cannot be deleted: %s. %s%s", d.user.Name, strings.Join(reasons, "; "), end, hint)
}

func (d *deletion) checkReassign(ctx context.Context) error {
	if d.reassignTo == "" {
		return nil
	}
	to, err := d.s.role(ctx, d.conn, d.reassignTo)
	if err != nil {
		return err
	}
	if to == nil {
		return fault.New(fault.Invalid, "There is no role %q to reassign to.", d.reassignTo)
	}
	if to.System() {
		return fault.New(fault.Forbidden, "The role %q is a system role: nothing is reassigned to it.", d.reassignTo)
	}
	if !d.s.mayOwn(to) {
		return fault.New(fault.Forbidden, "The role %q is no user, and not among those that can be granted in this cluster: only an admin reassigns to it.", d.reassignTo)
	}
	return nil
}

// mayOwn reports whether objects may be reassigned to a role.
func (s *Server) mayOwn(to *User) bool {
	return !to.System() && (to.login || s.Reassignable == nil || slices.Contains(s.Reassignable, to.Name))
}

func (d *deletion) plan(ctx context.Context) (*plan, error) {
	return d.s.planDelete(ctx, d.conn, d.user, d.reassignTo != "")
}

// disable is phase 2. It reads the role again: SQL from elsewhere does not take our locks.
func (d *deletion) disable(ctx context.Context, match Match) error {
	return d.retry(ctx, func(tx *transaction) error {
		u, err := d.s.changeable(ctx, tx, d.user.Name, match)
		if err != nil {
			return err
		}
		if u.oid != d.user.oid {
			return d.replaced()
		}
		p := u.Provenance.changed(tx.now, d.stamp)
		if p.State != StateDeleting {
			p.Was, p.State = p.State, StateDeleting
		}
		d.user = u
		d.user.Provenance = p
		_, err = tx.Exec(ctx, alterLogin(u.Name, false)+commentOnRole(u.Name, p.comment(u.human)))
		return err
	})
}

func (d *deletion) replaced() error {
	return fault.New(fault.Stale, "The user %q was dropped and made again meanwhile. Read it again before you delete it.", d.user.Name)
}

// retry runs f in a transaction of the deletion's own connection, again when it was rolled back for a passing reason.
func (d *deletion) retry(ctx context.Context, f func(tx *transaction) error) error {
	return retryOn(ctx, d.conn, f)
}

func retryOn(ctx context.Context, conn *pgx.Conn, f func(tx *transaction) error) error {
	return again(ctx, func() error {
		return runTransaction(ctx, conn, nil, func(_ context.Context, tx *transaction) error { return f(tx) })
	}, sqlstate.Retry)
}

// finish is phases 3 and 4. What was granted meanwhile is planned and revoked again, a few times.
func (d *deletion) finish(ctx context.Context) error {
	for i := 1; ; i++ {
		if err := d.endSessions(ctx); err != nil {
			return err
		}
		p, err := d.plan(ctx)
		if err != nil {
			return err
		}
		if len(p.blockers) > 0 {
			return &blocked{reasons: p.blockers}
		}
		for _, dp := range p.databases {
			if err := d.clear(ctx, dp); err != nil {
				return err
			}
		}
		// A session that was let in just before NOLOGIN may have shown up only now.
		if err := d.endSessions(ctx); err != nil {
			return err
		}
		err = d.drop(ctx)
		if sqlstate.Is(err, sqlstate.InsufficientPrivilege) {
			return block(err, "Rolecall's administering role may not drop it")
		}
		if !sqlstate.Is(err, sqlstate.DependentObjects) {
			return err
		}
		if i == attempts {
			return block(err, "something that depends on it could not be found or revoked")
		}
	}
}

// endSessions ends the role's sessions and waits until there are none. Dropping the role would leave them running.
func (d *deletion) endSessions(ctx context.Context) error {
	_, err := endSessions(ctx, d.conn, d.user, true)
	if sqlstate.Is(err, sqlstate.InsufficientPrivilege) {
		return block(err, "it has sessions that Rolecall's administering role may not end (GRANT pg_signal_backend TO it)")
	}
	return err
}

// clear is phase 3 in one database.
func (d *deletion) clear(ctx context.Context, dp *databasePlan) error {
	run := func(conn *pgx.Conn) error {
		var revoked []string
		err := retryOn(ctx, conn, func(tx *transaction) (err error) {
			revoked, err = d.clearIn(ctx, tx, dp)
			return err
		})
		if sqlstate.Is(err, goneCodes...) {
			return nil // dropped since the plan; the next plan will not name it, nor what was not revoked for it
		}
		if sqlstate.Is(err, sqlstate.CharacterNotInRepertoire) {
			return block(err, "the encoding %s of database %q cannot write all the names that are needed to revoke its privileges there", dp.encoding, valid(dp.name))
		}
		if err == nil {
			d.revoked = append(d.revoked, revoked...)
		}
		return err
	}
	var err error
	if dp.registered {
		err = run(d.conn)
	} else {
		err = d.s.visit(ctx, dp.name, dp.encoding, run)
	}
	if sqlstate.Is(err, sqlstate.UndefinedDatabase) {
		return nil // dropped meanwhile
	}
	return err
}

func (d *deletion) clearIn(ctx context.Context, tx *transaction, dp *databasePlan) (revoked []string, err error) {
	var name string
	err = tx.QueryRow(ctx, `SELECT rolname::text FROM pg_roles WHERE oid = $1`, d.user.oid).Scan(&name)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil // dropped by somebody else
	}
	if err == nil && name != d.user.Name {
		return nil, d.replaced()
	}
	if err != nil {
		return nil, err
	}
	// Reassigning many objects takes longer than a statement usually may.
	if _, err := tx.Exec(ctx, `SET LOCAL statement_timeout = '45s'`); err != nil {
		return nil, err
	}
	if dp.owned.Count > 0 && d.reassignTo != "" {
		to, err := d.s.role(ctx, tx, d.reassignTo)
		if err != nil {
			return nil, err
		}
		if to == nil || !d.s.mayOwn(to) {
			return nil, block(nil, "%q, to which its objects should go, was dropped or can no longer be given them", d.reassignTo)
		}
		err = tx.asMember(ctx, []string{d.user.Name, d.reassignTo}, func() error {
			_, err := tx.Exec(ctx, reassignOwned(d.user.Name, d.reassignTo))
			return err
		})
		if sqlstate.Is(err, sqlstate.InsufficientPrivilege) {
			return nil, block(err, "Rolecall's administering role may not reassign objects from %q to %q in database %q: it needs CREATE on the database for schemas, and %[2]q CREATE on the schemas for functions", d.user.Name, d.reassignTo, valid(dp.name))
		}
		if err != nil {
			return nil, err
		}
		revoked = append(revoked, fmt.Sprintf("what it owned in database %q went to %q", valid(dp.name), d.reassignTo))
	}
	if len(dp.grants)+len(dp.defaults) > 0 {
		// Every grant on an object, above all on the database or a schema, changes the same row, for which concurrent
		// deletes would fight.
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, databaseLock(dp.name)); err != nil {
			return nil, err
		}
	}
	for _, g := range dp.grants {
		err := tx.as(ctx, g.grantor, func() error {
			_, err := tx.Exec(ctx, revokeAll(g.target, d.user.Name))
			return err
		})
		if sqlstate.Is(err, sqlstate.InsufficientPrivilege, sqlstate.DependentObjects, sqlstate.InvalidGrant) {
			return nil, block(err, "privileges on %s in database %q were granted by %q, for whom Rolecall's administering role may not revoke them", valid(g.target), valid(dp.name), valid(g.grantor))
		}
		if err != nil {
			return nil, err
		}
		revoked = append(revoked, fmt.Sprintf("its privileges on %s in database %q", valid(g.target), valid(dp.name)))
	}
	for _, def := range dp.defaults {
		err := tx.as(ctx, def.owner, func() error { return clearDefault(ctx, tx, def) })
		if sqlstate.Is(err, sqlstate.InsufficientPrivilege, sqlstate.InvalidGrant) {
			return nil, block(err, "default privileges of %q in database %q name it, which Rolecall's administering role may not change", valid(def.owner), valid(dp.name))
		}
		if err != nil {
			return nil, err
		}
		revoked = append(revoked, fmt.Sprintf("default privileges of %q in database %q", valid(def.owner), valid(dp.name)))
	}
	return revoked, nil
}

// goneCodes say that an object is not there any more.
var goneCodes = []string{sqlstate.UndefinedObject, sqlstate.UndefinedTable, sqlstate.UndefinedSchema, sqlstate.UndefinedFunction}

// defaultKinds are the kinds of objects that have default privileges.
var defaultKinds = map[string]string{"r": "TABLES", "S": "SEQUENCES", "f": "ROUTINES", "T": "TYPES", "n": "SCHEMAS", "L": "LARGE OBJECTS"}

// clearDefault brings an entry of pg_default_acl back to what PostgreSQL has built in, which removes the entry. Without
// a schema the built-in rights are those of the owner, and of PUBLIC for routines and types.
// https://www.postgresql.org/docs/current/sql-alterdefaultprivileges.html
func clearDefault(ctx context.Context, tx *transaction, def defaultGrant) error {
	objects, ok := defaultKinds[def.objects]
	if !ok {
		return fmt.Errorf("default privileges of the unknown kind %q", def.objects)
	}
	var statements []string
	for _, grantee := range def.grantees {
		statements = append(statements, revokeDefault(def.owner, def.schema, objects, grantee))
	}
	if def.schema == "" && def.own {
		statements = append(statements, grantDefault(def.owner, objects, "ALL PRIVILEGES", def.owner))
		switch def.objects {
		case "f":
			statements = append(statements, grantDefault(def.owner, objects, "EXECUTE", ""))
		case "T":
			statements = append(statements, grantDefault(def.owner, objects, "USAGE", ""))
		}
	}
	for _, sql := range statements {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// drop is phase 4.
func (d *deletion) drop(ctx context.Context) error {
	return d.retry(ctx, func(tx *transaction) error {
		u, err := d.s.role(ctx, tx, d.user.Name)
		if err != nil {
			return err
		}
		if u == nil {
			return nil // dropped by somebody else, which is what was asked for
		}
		if u.oid != d.user.oid {
			return d.replaced()
		}
		if err := checkChangeable(u); err != nil {
			return &blocked{reasons: []string{err.Error()}, cause: err}
		}
		_, err = tx.Exec(ctx, dropRole(d.user.Name))
		return err
	})
}

// callOff gives the role its LOGIN back, or the state that it had, or disables it; calledOff says why it was not deleted,
// and what it has lost already.
func (d *deletion) callOff(ctx context.Context) error {
	return d.retry(ctx, func(tx *transaction) error {
		u, err := d.s.role(ctx, tx, d.user.Name)
		if err != nil || u == nil || u.oid != d.user.oid {
			return err
		}
		p := u.Provenance.changed(tx.now, d.stamp)
		p.State, p.Was = d.user.Provenance.Was, ""
		sql := alterLogin(u.Name, p.State == "")
		// One that has become protected meanwhile gets back what this call has taken, and no more is done to it.
		if d.disabling = d.orDisable && !u.System(); d.disabling {
			p.State = StateDisabled
			sql = disableRole(u.Name)
		}
		_, err = tx.Exec(ctx, sql+commentOnRole(u.Name, p.comment(u.human)))
		return err
	})
}

func (d *deletion) calledOff(b *blocked) error {
	if d.disabling {
		d.disabled = d.inUse(b.reasons, d.done("It was disabled instead.")).Message
		return nil
	}
	end := "It may log in again; its sessions were ended."
	if d.user.Provenance.Was != "" {
		end = "It is " + d.user.Provenance.Was + ", as before; its sessions were ended."
	}
	return d.inUse(b.reasons, d.done(end)).Because(b.cause)
}

// done adds to how a deletion ended what it has done.
func (d *deletion) done(end string) string {
	if len(d.revoked) == 0 {
		return end
	}
	return end + " Already done: " + some(d.revoked, len(d.revoked)) + "."
}
