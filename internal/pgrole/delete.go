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
	"github.com/jackc/pgx/v5/pgconn"

	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/sqlstate"
)

// Delete removes a user and destroys nothing else, in four phases. DropUnused is the short way for a user on which nothing
// depends. DROP OWNED is never run: it drops objects created after the check, and removes grants made by other roles.
//
//  1. Plan: read everything that depends on the role, in every database, and whether the administering role may move and
//     revoke it; refuse what must not be touched. Nothing has changed until here, and no session was ended.
//  2. NOLOGIN and the state "deleting", in one transaction. From here the call only goes forward: after a crash the same
//     call finishes it.
//  3. End its sessions. If something is to be reassigned and there is more than one database to visit, reassign in each
//     and roll back. Then, per database in one transaction each, revoke what it was granted, last in the databases where
//     the same transaction reassigns what it owns.
//  4. DROP ROLE, whose own check is the last guard.
//
// A blocker that appears between the phases gives the role its LOGIN back and is answered with InUse. So does a lock that is
// held for too long, as long as nothing was revoked or reassigned.
//
// previous is the attempt that changed the user last before this one, also when the deletion was aborted.
func (s *Server) Delete(ctx context.Context, name, reassignTo string, match etag.Match,
	by Actor) (previous uuid.UUID, err error) {
	return s.delete(ctx, &deletion{s: s, of: drop{name: name, match: match}, reassignTo: reassignTo, by: by})
}

// DeleteOrDisable is Delete, but a blocked deletion leaves the user disabled: NOLOGIN, without a password and without
// sessions, in the state "disabled". Then why says what blocked it, as a sentence for the caller; "" means that the user
// is gone. The same call, or Delete, deletes it later; SetPassword enables it again.
func (s *Server) DeleteOrDisable(ctx context.Context, name, reassignTo string, match etag.Match,
	by Actor) (why string, previous uuid.UUID, err error) {
	d := &deletion{s: s, of: drop{name: name, match: match}, reassignTo: reassignTo, orDisable: true, by: by}
	previous, err = s.delete(ctx, d)
	return d.disabled, previous, err
}

func (s *Server) delete(ctx context.Context, d *deletion) (previous uuid.UUID, err error) {
	name := d.of.name
	if d.reassignTo != "" {
		if err := CheckReassign(name, d.reassignTo); err != nil {
			return uuid.Nil, err
		}
	}
	// Held through all phases, so that a change of the same user waits for the end.
	conn, err := s.lockSession(ctx, roleLock(name), name)
	if err != nil {
		return uuid.Nil, s.fault(err, name)
	}
	defer conn.Release()
	defer unlock(ctx, conn.Conn(), roleLock(name))
	d.conn = conn.Conn()
	err = d.run(ctx)
	if d.user != nil && d.user.Provenance.Attempt == d.by.Attempt {
		previous = d.user.Provenance.Previous
	}
	return previous, s.fault(s.explainDenied(ctx, err, name), name)
}

// deletion is one Delete in progress.
type deletion struct {
	s          *Server
	of         drop
	conn       *pgx.Conn // in the registered database, holding the role's lock
	reassignTo string
	notTo      string // why what a lease owns cannot go to the role that it acts for, as a sentence
	orDisable  bool   // when it is blocked
	by         Actor
	user       *User
	revoked    Listing // what was taken away so far, for people
	ended      bool    // its sessions were ended
	disabling  bool    // the deletion was aborted by disabling the user
	disabled   string  // why the user was disabled instead
	blockedBy  *blocked
}

func (d *deletion) run(ctx context.Context) error {
	if err := d.readUser(ctx); err != nil {
		return err
	}
	resumed := d.user.Provenance.State == StateDeleting // its plan was made before, and it goes on
	var found *blocked
	if !resumed && (d.of.lease == uuid.Nil || d.disabledBefore()) {
		var err error
		if found, err = d.look(ctx); err != nil {
			return err
		}
		if found != nil && !d.orDisable {
			return d.inUse(found, "Nothing was changed.")
		}
		if found != nil && d.of.lease != uuid.Nil {
			d.disabling = true
			return d.aborted(found)
		}
	}
	if err := d.disable(ctx); err != nil {
		return err
	}
	err := d.finish(ctx, found)
	b, isBlocked := errors.AsType[*blocked](err)
	if isBlocked {
		if err = d.abort(ctx, d.orDisable); err == nil {
			return d.aborted(b)
		}
		err = errors.Join(err, b)
	}
	_, lost := errors.AsType[*commitLost](err)
	if lost && d.conn.IsClosed() {
		u, inspectErr := d.s.Inspect(ctx, d.of.name)
		switch {
		case inspectErr != nil:
		case u == nil || u.oid != d.user.oid:
			return d.s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error { return d.user.checkDropped(ctx, conn) })
		case isBlocked && u.Provenance.Attempt == d.by.Attempt && u.Provenance.State != StateDeleting:
			return d.aborted(b)
		}
	}
	if err == nil || fault.Is(err, fault.Stale) {
		return err
	}
	returns := d.of.lease == uuid.Nil // a lease is to end in any case
	return d.unfinished(ctx, err, returns && !resumed && !lost && !d.conn.IsClosed() && d.revoked.Count == 0)
}

// disabledBefore reports whether the role is disabled, for instance by an earlier end of the same lease that was blocked.
// Any other lease ends whatever blocks its drop, so that is looked for when its sessions, and with them their temporary
// objects and locks, are gone.
func (d *deletion) disabledBefore() bool {
	return d.user.Provenance.State == StateDisabled && !d.user.login
}

// look is phase 1. It returns what blocks the deletion, nil if nothing does.
func (d *deletion) look(ctx context.Context) (*blocked, error) {
	p, err := d.plan(ctx)
	if err == nil {
		err = d.visitDatabases(ctx, p.databases, maxVisitors, nil)
	}
	if t, ok := errors.AsType[*outOfTime](err); ok {
		return nil, fault.New(fault.Unavailable, "Something depends on the user %q in %d databases, and there was time to read "+
			"%d of them. Nothing was changed. Delete it again when the cluster is less busy.", d.user.Name, t.of,
			t.visited).After(5 * time.Second).Because(err)
	}
	if err != nil {
		return nil, err
	}
	if found := p.blocked(); found != nil {
		return found, nil
	}
	held, err := d.awaitHolders(ctx, d.s.Waits.holders())
	switch {
	case err != nil || held == nil:
		return nil, err
	case d.orDisable:
		return &blocked{reasons: []string{held.Error()}}, nil
	}
	return nil, fault.New(fault.Unavailable, "The user %q cannot be deleted yet: %s. Nothing was changed.", d.user.Name, held).
		After(5 * time.Second).Because(held)
}

// unfinished is the answer to a deletion that has begun and failed for a reason that passes. If nothing was done, the role
// gets its LOGIN back; else the same call finishes it.
func (d *deletion) unfinished(ctx context.Context, err error, nothingDone bool) error {
	why := ""
	if held, ok := errors.AsType[*lockHeld](err); ok {
		why = fmt.Sprintf(" Now %s.", held)
	}
	if t, ok := errors.AsType[*outOfTime](err); ok {
		why += fmt.Sprintf(" Visited %d of %d databases.", t.visited, t.of)
	}
	if nothingDone && d.abort(ctx, false) == nil {
		return fault.New(fault.Unavailable,
			"The user %q could not be deleted.%s Nothing was changed%s.", d.user.Name, why,
			d.sessions(", but ")).After(5 * time.Second).Because(err)
	}
	if d.reassignTo != "" {
		why += " To keep it instead, delete it without reassigning, which is refused as long as it owns something and lets it " +
			"log in again."
	}
	return fault.New(fault.Unavailable, "The deletion of %q has begun but could not be finished: it can no longer log in. "+
		"Delete it again to finish.%s", d.user.Name, why).After(2 * time.Second).Because(err)
}

// readUser reads the user, and refuses one that is not deleted whatever depends on it.
func (d *deletion) readUser(ctx context.Context) (err error) {
	var now time.Time
	if err := d.conn.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now); err != nil {
		return err
	}
	if d.user, err = d.s.role(ctx, d.conn, d.of.name); err != nil {
		return err
	}
	if err := d.of.check(d.user, now); err != nil {
		return err
	}
	if d.of.lease != uuid.Nil {
		return d.findHeir(ctx)
	}
	return d.checkHeir(ctx)
}

// checkHeir refuses a role that cannot be given what the user owns.
func (d *deletion) checkHeir(ctx context.Context) error {
	if err := d.checkReassign(ctx); err != nil {
		return err
	}
	return d.checkRights(ctx)
}

// blocked says what keeps the role from being dropped once its deletion has begun.
type blocked struct {
	reasons []string
	owns    bool // one of the reasons is that the role owns something
	leases  bool // one of the reasons is that leases act for it
	cause   error
}

func (b *blocked) Error() string { return strings.Join(b.reasons, "; ") }
func (b *blocked) Unwrap() error { return b.cause }

func block(cause error, format string, args ...any) error {
	return &blocked{reasons: []string{fmt.Sprintf(format, args...)}, cause: cause}
}

func (d *deletion) inUse(b *blocked, end string) *fault.Error {
	because := strings.Join(b.reasons[:min(len(b.reasons), maxNamed)], "; ")
	if more := len(b.reasons) - maxNamed; more > 0 {
		because += fmt.Sprintf("; and for %d more reasons", more)
	}
	kind := fault.InUse
	if b.leases { // whose users are ended by another call
		kind = fault.Invalid
	}
	err := fault.New(kind, "The user %q cannot be deleted: %s. %s", d.user.Name, because, end)
	if d.reassignTo == "" && b.owns {
		err = err.Suggest(fault.Reassign)
	}
	return err
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
	if to.Provenance.State == StateDeleting {
		return fault.New(fault.Invalid, "The user %q is being deleted itself: nothing is reassigned to it.", d.reassignTo)
	}
	if to.Provenance.Lease != uuid.Nil {
		return fault.New(fault.Invalid, "The user %q is a lease, which ends: reassign to %q.", d.reassignTo, to.Provenance.For)
	}
	if a := to.Provenance.Access; a != nil && a.Level != Own && d.user.Provenance.Lease == uuid.Nil {
		return fault.New(fault.Invalid, "The role %q is the access role of the level %s, whose members own nothing: reassign to "+
			"%q.", d.reassignTo, a.Level, a.Database+Own.suffix())
	}
	if !d.s.mayOwn(to) {
		return fault.New(fault.Forbidden, "The role %q is no user, and not among those that can be granted in this cluster: "+
			"only an admin reassigns to it.", d.reassignTo)
	}
	return nil
}

// mayOwn reports whether objects may be reassigned to a role. All who may reassign also give users the level own.
func (s *Server) mayOwn(to *User) bool {
	own := to.Provenance.Access != nil && to.Provenance.Access.Level == Own
	return !to.System() && (to.login || own || s.Reassignable == nil || slices.Contains(s.Reassignable, to.Name))
}

// disable is phase 2. It reads the role again: SQL from elsewhere ignores our locks.
func (d *deletion) disable(ctx context.Context) error {
	var u *User
	err := d.retry(ctx, func(tx *transaction) (err error) {
		if u, err = d.s.role(ctx, tx, d.user.Name); err != nil {
			return err
		}
		if err := d.of.check(u, tx.now); err != nil {
			return err
		}
		if u.oid != d.user.oid {
			return d.user.replaced()
		}
		p := u.Provenance.changed(tx.now, d.by)
		if p.State != StateDeleting {
			p.FormerState, p.FormerRevision, p.State = p.State, u.Revision(), StateDeleting
		}
		u.Provenance = p
		if err := d.s.alter(ctx, tx, u, alterLogin(u.Name, false)+commentOnRole(u.Name, p.comment(u.userComment))); err != nil {
			return err
		}
		return d.checkName(ctx, tx)
	})
	if err == nil {
		d.user = u
	}
	return err
}

// checkName fails when the name means another role now. SQL from elsewhere may rename roles between our
// statements, and no lock prevents that; so the name is checked before the transaction commits.
func (d *deletion) checkName(ctx context.Context, q querier) error {
	var same bool
	err := q.QueryRow(ctx, `SELECT rolname = $2 FROM pg_roles WHERE oid = $1`, d.user.oid, d.user.Name).Scan(&same)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && !same {
		return d.user.replaced()
	}
	return err
}

// exists reports whether the role still exists, under this name or another.
func (u *User) exists(ctx context.Context, q querier) (exists bool, err error) {
	err = q.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_roles WHERE oid = $1)`, u.oid).Scan(&exists)
	return exists, err
}

// checkDropped fails if the role still exists. It does not matter who has dropped it.
func (u *User) checkDropped(ctx context.Context, q querier) error {
	exists, err := u.exists(ctx, q)
	if err == nil && exists {
		return u.replaced()
	}
	return err
}

func (u *User) replaced() error {
	return fault.New(fault.Stale, "The user %q was dropped or renamed concurrently. Read it again before you change or "+
		"delete it.", u.Name)
}

// retry is retryOn the deletion's own connection.
func (d *deletion) retry(ctx context.Context, f func(tx *transaction) error) error {
	return retryOn(ctx, d.conn, f)
}

// finish is phases 3 and 4. It plans and revokes again, a few times, if something was granted concurrently. found is what
// blocked the deletion before it began.
func (d *deletion) finish(ctx context.Context, found *blocked) error {
	for i := 1; ; i++ {
		if err := d.endSessions(ctx); err != nil {
			return err
		}
		d.ended = true
		if d.of.lease != uuid.Nil && i == 1 {
			var err error
			if found, err = d.look(ctx); err != nil {
				return err
			}
		}
		if found != nil {
			return found
		}
		if err := d.clear(ctx); err != nil {
			return err
		}
		// A login that was in progress at NOLOGIN may have become a session only now.
		if err := d.endSessions(ctx); err != nil {
			return err
		}
		err := d.drop(ctx)
		if sqlstate.Is(err, sqlstate.DependentObjects) && i < attempts {
			continue
		}
		switch {
		case sqlstate.Is(err, sqlstate.DependentObjects):
			return block(err, "something that depends on it could not be found or revoked")
		case sqlstate.Is(err, sqlstate.InsufficientPrivilege):
			return block(err, "Rolecall's administering role may not drop it: %s", sqlstate.Message(err))
		case refusal(err):
			return block(err, "PostgreSQL refuses to drop it: %s (SQLSTATE %s)", sqlstate.Message(err), sqlstate.Code(err))
		}
		return err
	}
}

// refusal reports that PostgreSQL would answer the same again. A lock table that is too small for a transaction stays so.
func refusal(err error) bool {
	return sqlstate.Code(err) != "" && !sqlstate.Retry(err) && (!sqlstate.Away(err) || sqlstate.Is(err, sqlstate.OutOfMemory))
}

// endSessions ends the role's sessions and waits until there are none. Dropping the role would leave them running.
func (d *deletion) endSessions(ctx context.Context) error {
	_, err := endSessions(ctx, d.conn, []*User{d.user}, whichSessions{all: true})
	if sqlstate.Is(err, sqlstate.InsufficientPrivilege) {
		return block(err, "it has sessions that Rolecall's administering role may not end (GRANT pg_signal_backend TO it)")
	}
	return err
}

// clear is phase 3 after the sessions. Each visit reads a database again and clears it, so that a call which runs out of
// time has made progress, and the next one visits the rest.
func (d *deletion) clear(ctx context.Context) error {
	p, err := d.plan(ctx)
	if err != nil {
		return err
	}
	// Where more than privileges depends on it comes first, so that nothing is revoked for a deletion that is blocked.
	var suspects []*databasePlan
	for _, dp := range p.databases {
		if dp.suspect {
			suspects = append(suspects, dp)
		}
	}
	err = d.visitDatabases(ctx, suspects, maxVisitors, nil)
	if b := p.blocked(); b != nil {
		return b
	}
	if err != nil {
		return err
	}
	var owning, others []*databasePlan
	for _, dp := range p.databases {
		if dp.owns && d.reassignTo != "" {
			owning = append(owning, dp)
		} else {
			others = append(others, dp)
		}
	}
	if len(owning) > 0 && len(p.databases) > 1 {
		err = d.visitDatabases(ctx, owning, 1, d.rehearse)
		if b := p.blocked(); b != nil {
			return b
		}
		if err != nil {
			return err
		}
	}
	if err := d.clearDatabases(ctx, p, others, maxVisitors); err != nil {
		return err
	}
	return d.clearDatabases(ctx, p, owning, 1)
}

// clearDatabases revokes and reassigns in some of the plan's databases. Several that reassign at the same time would wait
// for each other: all of them move the shared objects, and become members of the same roles.
func (d *deletion) clearDatabases(ctx context.Context, p *plan, some []*databasePlan, most int) error {
	err := d.visitDatabases(ctx, some, most, d.clearDatabase)
	for _, dp := range some {
		d.revoked.join(dp.revoked)
	}
	if b := p.blocked(); b != nil {
		return b
	}
	return err
}

// rehearse reassigns in a database and rolls back: what is refused in the last of several databases should be known before
// anything has moved in the first.
func (d *deletion) rehearse(ctx context.Context, conn *pgx.Conn, dp *databasePlan) error {
	err := d.s.inTries(ctx, conn, dp.name, func() error {
		return retryOn(ctx, conn, func(tx *transaction) error {
			if _, err := tx.Exec(ctx, setTimeouts(d.s.Waits.statement(), d.s.Waits.lockTry())); err != nil {
				return err
			}
			if err := d.reassign(ctx, tx, dp); err != nil {
				return err
			}
			return errRehearsed
		})
	})
	if errors.Is(err, errRehearsed) {
		return nil
	}
	return d.visitError(dp, err)
}

var errRehearsed = errors.New("reassigning succeeds")

// maxGrants is how many privileges one transaction revokes at most, and maxStatements how many statements go to the server
// at a time. Grants are cheap to make, so a user may have any number of them.
const (
	maxGrants     = 5000
	maxStatements = 500
)

func (d *deletion) clearDatabase(ctx context.Context, conn *pgx.Conn, dp *databasePlan) error {
	granted, err := dp.grantedTo(d.user.Name)
	if err != nil {
		return err
	}
	for len(granted) > maxGrants {
		if err := d.clearPart(ctx, conn, dp, granted[:maxGrants], false); err != nil {
			return d.visitError(dp, err)
		}
		granted = granted[maxGrants:]
	}
	return d.visitError(dp, d.clearPart(ctx, conn, dp, granted, dp.owns && d.reassignTo != ""))
}

// clearPart revokes in one transaction, and in the same transaction reassigns what the user owns in the database, if asked.
func (d *deletion) clearPart(ctx context.Context, conn *pgx.Conn, dp *databasePlan, granted []grantedTo,
	reassign bool) error {
	var revoked Listing
	err := d.s.inTries(ctx, conn, dp.name, func() error {
		return retryOn(ctx, conn, func(tx *transaction) (err error) {
			revoked, err = d.revokeIn(ctx, conn, tx, dp, granted, reassign)
			return err
		})
	})
	if err == nil {
		dp.revoked.join(revoked)
	}
	return err
}

// visitError turns what PostgreSQL refuses in a database into a blocker.
func (d *deletion) visitError(dp *databasePlan, err error) error {
	if _, ok := errors.AsType[*blocked](err); ok {
		return err
	}
	if s, ok := errors.AsType[*blockedBy](err); ok {
		return block(err, "its privileges in database %q cannot be revoked: %s", valid(dp.name), s.by)
	}
	switch {
	case err == nil:
		return nil
	case sqlstate.Is(err, goneCodes...):
		return nil // dropped concurrently; the next plan has neither it nor what was not revoked because of it
	case sqlstate.Is(err, sqlstate.CharacterNotInRepertoire):
		return block(err,
			"the encoding %s of database %q cannot write all the names that are needed to revoke its privileges there", dp.encoding,
			valid(dp.name))
	case sqlstate.Is(err, sqlstate.OutOfMemory):
		return block(err, "what depends on it in database %q needs more memory or more locks than the server has: %s (raise "+
			"max_locks_per_transaction, or move a part of it with ALTER … OWNER TO first)", valid(dp.name), sqlstate.Message(err))
	case refusal(err):
		return block(err, "PostgreSQL refuses to move or revoke what depends on it in database %q: %s (SQLSTATE %s)",
			valid(dp.name), sqlstate.Message(err), sqlstate.Code(err))
	}
	return err
}

// reassign gives what the user owns in a database, and shared objects, to another role. The schemas go first: then the new
// owner may create in them, which PostgreSQL asks of who gets functions there.
func (d *deletion) reassign(ctx context.Context, tx *transaction, dp *databasePlan) error {
	to, err := d.s.role(ctx, tx, d.reassignTo)
	if err != nil {
		return err
	}
	if to == nil || !d.s.mayOwn(to) || to.Provenance.State == StateDeleting {
		return block(nil, "%q, to which its objects should go, was dropped or can no longer be given them", d.reassignTo)
	}
	err = tx.withMembership(ctx, []string{d.user.Name, d.reassignTo}, func() error {
		var schemas []string
		if !tx.superuser {
			err := tx.QueryRow(ctx, `SELECT array(SELECT nspname::text FROM pg_namespace WHERE nspowner = $1)`,
				d.user.oid).Scan(&schemas)
			if err != nil {
				return err
			}
		}
		sql := ""
		for _, schema := range schemas {
			sql += alterSchemaOwner(schema, d.reassignTo)
		}
		_, err := tx.Exec(ctx, sql+reassignOwned(d.user.Name, d.reassignTo))
		return err
	})
	if sqlstate.Is(err, sqlstate.InsufficientPrivilege) {
		return block(err, "Rolecall's administering role may not reassign objects from %q to %q in database %q: %s", d.user.Name,
			d.reassignTo, valid(dp.name), sqlstate.Message(err))
	}
	return err
}

func (d *deletion) revokeIn(ctx context.Context, conn *pgx.Conn, tx *transaction, dp *databasePlan, granted []grantedTo,
	reassign bool) (revoked Listing, err error) {
	if exists, err := d.user.exists(ctx, tx); err != nil || !exists {
		return Listing{}, err // dropped by somebody else
	}
	if err := d.checkName(ctx, tx); err != nil {
		return Listing{}, err
	}
	// Reassigning many objects takes longer than a statement usually may.
	if _, err := tx.Exec(ctx, setTimeouts(d.s.Waits.statement(), max(d.s.Waits.lock(), d.s.Waits.lockTry()))); err != nil {
		return Listing{}, err
	}
	if len(granted) > 0 {
		// Every grant on an object, above all on the database or a schema, changes the same row, for which concurrent
		// deletes would fight.
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, databaseLock(dp.name)); err != nil {
			return Listing{}, err
		}
	}
	if _, err := tx.Exec(ctx, setTimeouts(d.s.Waits.statement(), d.s.Waits.lockTry())); err != nil {
		return Listing{}, err
	}
	if reassign {
		if err := d.reassign(ctx, tx, dp); err != nil {
			return Listing{}, err
		}
		revoked.add("what it owned in database %q went to %q", valid(dp.name), d.reassignTo)
	}
	for len(granted) > 0 {
		grantor, n := granted[0].grantor, 1
		for n < min(len(granted), maxStatements) && granted[n].grantor == grantor {
			n++
		}
		var failed grantedTo
		err := tx.asRole(ctx, grantor, func() (err error) {
			failed, err = revokeAllOf(ctx, conn, granted[:n])
			return err
		})
		if sqlstate.Is(err, sqlstate.InsufficientPrivilege, sqlstate.DependentObjects, sqlstate.InvalidGrant) {
			if failed.what == "" { // it could not even become the grantor
				failed = granted[0]
			}
			return Listing{}, block(err, "%s were granted by %q, for whom Rolecall's administering role may not revoke them: %s",
				failed.what, valid(grantor), sqlstate.Message(err))
		}
		if err != nil {
			return Listing{}, err
		}
		for _, g := range granted[:n] {
			revoked.add("revoked %s", g.what)
		}
		granted = granted[n:]
	}
	return revoked, d.checkName(ctx, tx)
}

// revokeAllOf revokes in one round trip. With an error it returns what could not be revoked.
func revokeAllOf(ctx context.Context, conn *pgx.Conn, granted []grantedTo) (failed grantedTo, err error) {
	batch := &pgconn.Batch{}
	var of []grantedTo
	for _, g := range granted {
		for _, sql := range g.revokes {
			batch.ExecParams(sql, nil, nil, nil, nil)
			of = append(of, g)
		}
	}
	results := conn.PgConn().ExecBatch(ctx, batch)
	for i := 0; results.NextResult(); i++ {
		if _, err := results.ResultReader().Close(); err != nil && failed.what == "" {
			failed = of[i]
		}
	}
	return failed, results.Close()
}

// grantedTo is something that the role was granted, and the statements by which its grantor revokes it.
type grantedTo struct {
	grantor, what string
	revokes       []string
}

// grantedTo lists what the user was granted, ordered by grantor. All transactions become the grantors in this order: from
// PostgreSQL 16 on SET ROLE after GRANT takes a lock on the role.
func (dp *databasePlan) grantedTo(user string) ([]grantedTo, error) {
	var all []grantedTo
	for _, g := range dp.grants {
		all = append(all, grantedTo{g.grantor, "privileges on " + dp.in(g.target, g.shared),
			[]string{revoke(g.privileges, g.target, user)}})
	}
	for _, def := range dp.defaults {
		statements, err := clearDefault(def)
		if err != nil {
			return nil, err
		}
		all = append(all, grantedTo{def.owner, fmt.Sprintf("default privileges of %q in database %q", valid(def.owner),
			valid(dp.name)), statements})
	}
	slices.SortStableFunc(all, func(a, b grantedTo) int { return strings.Compare(a.grantor, b.grantor) })
	return all, nil
}

// goneCodes mean that an object or grantor was dropped concurrently. A dropped one is printed as its OID, hence the syntax
// error.
var goneCodes = []string{sqlstate.UndefinedObject, sqlstate.UndefinedTable, sqlstate.UndefinedSchema,
	sqlstate.UndefinedFunction, sqlstate.SyntaxError, sqlstate.InvalidParameterValue}

// defaultKinds are the kinds of objects that have default privileges.
var defaultKinds = map[string]string{"r": "TABLES", "S": "SEQUENCES", "f": "ROUTINES", "T": "TYPES", "n": "SCHEMAS",
	"L": "LARGE OBJECTS"}

// clearDefault brings an entry of pg_default_acl back to what PostgreSQL has built in, which removes the entry. Without
// a schema the built-in rights are those of the owner, and of PUBLIC for routines and types.
// https://www.postgresql.org/docs/current/sql-alterdefaultprivileges.html
func clearDefault(def defaultGrant) (statements []string, err error) {
	objects, ok := defaultKinds[def.objects]
	if !ok {
		return nil, fmt.Errorf("default privileges of the unknown kind %q", def.objects)
	}
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
	return statements, nil
}

// drop is phase 4.
func (d *deletion) drop(ctx context.Context) error {
	return d.s.inTries(ctx, d.conn, d.conn.Config().Database, func() error {
		return d.retry(ctx, func(tx *transaction) error {
			u, err := d.s.role(ctx, tx, d.user.Name)
			if err != nil {
				return err
			}
			if u == nil || u.oid != d.user.oid {
				return d.user.checkDropped(ctx, tx)
			}
			if err := d.of.checkNotProtected(u); err != nil {
				return &blocked{reasons: []string{err.Error()}, cause: err}
			}
			if _, err = tx.Exec(ctx, setTimeouts(d.s.Waits.statement(), d.s.Waits.lockTry())+`; `+dropRole(d.user.Name)); err != nil {
				return err
			}
			return d.user.checkDropped(ctx, tx) // one that was replaced comes back with the end of the transaction
		})
	})
}

// abort gives the role its LOGIN back, or its former state, or disables it.
func (d *deletion) abort(ctx context.Context, disable bool) error {
	return d.retry(ctx, func(tx *transaction) error {
		u, err := d.s.role(ctx, tx, d.user.Name)
		if err != nil {
			return err
		}
		if u == nil || u.oid != d.user.oid {
			return d.user.replaced()
		}
		p := u.Provenance.changed(tx.now, d.by)
		p.State, p.FormerState, p.FormerRevision = d.user.Provenance.FormerState, "", ""
		sql := alterLogin(u.Name, p.State == "")
		// A role that has become protected in the meantime gets back what this call has taken, and is not disabled.
		if d.disabling = disable && d.of.checkNotProtected(u) == nil; d.disabling {
			p.State, p.Password, p.Fingerprint = StateDisabled, "", d.s.fingerprint("")
			sql = disableRole(u.Name)
		}
		if err := d.s.alter(ctx, tx, u, sql+commentOnRole(u.Name, p.comment(u.userComment))); err != nil {
			return err
		}
		return d.checkName(ctx, tx)
	})
}

// aborted says why the role was not deleted, and what was revoked already.
func (d *deletion) aborted(b *blocked) error {
	d.blockedBy = b
	if d.disabling {
		d.disabled = d.inUse(b, d.done("It was disabled instead.")).Message
		return nil
	}
	end := "It may log in again" + d.sessions("; ") + "."
	if d.user.Provenance.FormerState != "" {
		end = "It is " + d.user.Provenance.FormerState + ", as before" + d.sessions("; ") + "."
	}
	return d.inUse(b, d.done(end)).Because(b.cause)
}

// sessions says after a conjunction that the user's sessions were ended, if they were.
func (d *deletion) sessions(and string) string {
	if !d.ended {
		return ""
	}
	return and + "its sessions were ended"
}

// done adds to how a deletion ended what it has done.
func (d *deletion) done(end string) string {
	if d.revoked.Count == 0 {
		return end
	}
	return end + " Already done: " + some(d.revoked.First, d.revoked.Count) + "."
}
