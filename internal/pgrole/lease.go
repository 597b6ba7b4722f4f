package pgrole

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rolecall/internal/fault"
	"rolecall/internal/pgwire"
	"rolecall/internal/sqlstate"
)

// NewLease is a role that is to be made for a time. It acts for another role: it is a member of that, and its sessions run
// as that, so nothing depends on it.
type NewLease struct {
	ID         uuid.UUID
	For, Name  string
	TTL        time.Duration
	Credential string // that it belongs to; "": none
	// Installation is the one of Rolecall that makes it, so that others leave it alone.
	Installation uuid.UUID
}

// LeaseKey says which role is that of a lease: the one of this name and OID whose record has the id.
type LeaseKey struct {
	Name string
	ID   uuid.UUID
	OID  uint32 // 0: not known
}

// check refuses a role of the name, nil if there is none, that is not the lease's. SQL from elsewhere may have changed its
// comment, or may have copied that to another role: then people decide.
func (k LeaseKey) check(u *User) error {
	switch {
	case u == nil || k.ID == uuid.Nil:
		return errLeaseGone
	case u.Provenance.Lease == k.ID && (k.OID == 0 || k.OID == u.oid):
		return nil
	case u.Provenance.Lease == k.ID:
		return &notOfLease{fmt.Sprintf("The role %q has the record of the lease, but it is another role than the one that the "+
			"lease made: its OID is %d, not %d. Rolecall does not touch it. Drop it by SQL; then the lease ends.", k.Name, u.oid,
			k.OID)}
	case k.OID == u.oid:
		return &notOfLease{fmt.Sprintf("The comment of the role %q was changed by SQL, and no longer has the record of the "+
			"lease. Rolecall does not touch the role, which can log in until its VALID UNTIL. Drop it by SQL; then the lease ends.",
			k.Name)}
	}
	return errLeaseGone
}

// notOfLease says, in sentences, why a role is not touched at the end of a lease, and what to do about it.
type notOfLease struct{ why string }

func (e *notOfLease) Error() string { return e.why }

// Lease is what the record of a role says of the lease that it belongs to.
type Lease struct {
	ID         uuid.UUID
	For        string
	Ends       time.Time // by the clock of the cluster
	Credential string    // the name of the credential that it belongs to; "": none
	// Installation is the one of Rolecall that has made it; nil: an older release.
	Installation uuid.UUID
}

// Lease returns the lease that the role belongs to, nil if it is none.
func (u *User) Lease() *Lease {
	p := u.Provenance
	if p.Lease == uuid.Nil {
		return nil
	}
	return &Lease{ID: p.Lease, For: p.For, Ends: p.Ends.UTC(), Credential: p.Credential, Installation: p.Installation}
}

// LeaseRole is a role that a lease has made.
type LeaseRole struct {
	Lease
	Name      string
	OID       uint32
	CreatedBy string // guid of the account
	Created   time.Time
	Previous  uuid.UUID // attempt that changed the role before the last one
	Now       time.Time // by the clock of the cluster
	Databases []string  // that it may connect to; only after CreateLease
	// ForProblem is why nobody may hand the other role out any more, as a sentence: it is protected, disabled, being deleted
	// or gone. "": somebody may. ForGone says that it is gone, or has another name now.
	ForProblem string
	ForGone    bool
}

func leaseRole(u *User, now time.Time) *LeaseRole {
	return &LeaseRole{Lease: *u.Lease(), Name: u.Name, OID: u.oid, CreatedBy: u.Provenance.CreatedBy,
		Created: u.Provenance.Created.UTC(), Previous: u.Provenance.Previous, Now: now.UTC()}
}

// Key says which role it is.
func (l *LeaseRole) Key() LeaseKey { return LeaseKey{Name: l.Name, ID: l.ID, OID: l.OID} }

// checkNoLease refuses what would make something else of the role of a lease.
func checkNoLease(u *User) error {
	if u.Provenance.Lease == uuid.Nil {
		return nil
	}
	return fault.New(fault.Invalid, "The user %q is a lease: renew it, or take another one.", u.Name)
}

// ErrNoRole is a cause: there is no role that a lease could act for.
var ErrNoRole = errors.New("there is no such role")

// checkLeasable refuses a role that no lease acts for.
func (s *Server) checkLeasable(u *User, name string) error {
	if refused := s.notLeasable(u, name); refused != nil {
		return refused.At("for")
	}
	return nil
}

// notLeasable is why no lease acts for a role; nil if leases do.
func (s *Server) notLeasable(u *User, name string) *fault.Error {
	switch {
	case u == nil:
		return fault.New(fault.Invalid, "There is no role %q in this cluster.", name).Because(ErrNoRole)
	case u.protectedBy == u.Name:
		return fault.New(fault.Forbidden, "The role %q is a system role: there are no leases for it.", name)
	case u.System():
		return fault.New(fault.Forbidden, "The role %q is a member of the system role %q: there are no leases for it.", name,
			u.protectedBy)
	case u.Provenance.Lease != uuid.Nil:
		return fault.New(fault.Invalid, "The role %q is a lease itself: take one for %q.", name, u.Provenance.For)
	case u.Provenance.State == StateDeleting:
		return fault.New(fault.Invalid, "The user %q is being deleted: there are no leases for it.", name)
	case u.Provenance.State == StateDisabled && u.Provenance.Password == PasswordKept:
		return fault.New(fault.Invalid, "The user %q is disabled: enable it before you take leases for it.", name)
	case u.Provenance.State == StateDisabled:
		return fault.New(fault.Invalid, "The user %q is disabled: give it a new password before you take leases for it.", name)
	case !u.isUser() && u.Provenance.Access == nil && !slices.Contains(s.Grantable, name) && !slices.Contains(s.MemberOf, name):
		return fault.New(fault.Invalid, "The role %q is no user, no access role, and not among those that can be granted in this "+
			"cluster: there are no leases for it.", name)
	}
	return nil
}

// CheckLeasable refuses a role that no lease acts for, as CreateLease would.
func (s *Server) CheckLeasable(ctx context.Context, name string) error {
	if !storable(name) {
		return s.checkLeasable(nil, name)
	}
	var u *User
	err := s.read(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		u, err = s.role(ctx, conn, name)
		return err
	})
	if err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	return s.checkLeasable(u, name)
}

// CreateLease makes the role of a lease. It may log in with the password until the lease ends, and acts for the other role
// from then on. It is made a member of no other role.
func (s *Server) CreateLease(ctx context.Context, n NewLease, password string, by Actor) (l *LeaseRole, err error) {
	if !storable(n.For) {
		return nil, s.checkLeasable(nil, n.For)
	}
	if err := cmp.Or(CheckName(n.Name, s.SystemRoles), CheckPassword(password)); err != nil {
		return nil, cmp.Or(s.CheckLeasable(ctx, n.For), err) // the name begins like that of the other role
	}
	given, err := s.newPassword(ctx, password)
	if err != nil {
		return nil, s.fault(err, n.Name)
	}
	err = s.change(ctx, n.Name, by, func(ctx context.Context, tx *transaction, existing *User) error {
		if existing != nil {
			return exists(n.Name)
		}
		verifier, err := tx.verifier(ctx, given)
		if err != nil {
			return err
		}
		of, begins, err := s.lockFor(ctx, tx, n.For)
		if err != nil {
			return err
		}
		now := begins.now
		ends := now.Add(n.TTL).Truncate(time.Microsecond)
		p := Provenance{Created: now, CreatedBy: by.Account, Lease: n.ID, For: n.For, Ends: ends,
			Credential: n.Credential, Installation: n.Installation, Fingerprint: s.fingerprint(verifier)}.changed(now, by)
		made := &User{Name: n.Name, Provenance: p}
		if made.oid, err = tx.make(ctx, n.Name, createLease(n.Name, verifier, timestamp(ends), n.For)+
			commentOnRole(n.Name, p.comment(""))); err != nil {
			return err
		}
		begin := ""
		for i, database := range begins.in {
			begin += setRoleIn(n.Name, database, begins.as[i]) + `; `
		}
		// What PostgreSQL lets connect goes by the privileges, and the new role will have those of the other one.
		l = leaseRole(made, now)
		l.Databases = begins.databases
		// Last, because from PostgreSQL 16 on it locks the other role until the end of the transaction.
		err = tx.commit(ctx, begin+tx.grantRole(n.For, n.Name)+`; `+checkRole(of))
		if sqlstate.Is(err, sqlstate.DivisionByZero) {
			return of.replaced()
		}
		return grantRefused(err, n.For, n.Name)
	})
	if err != nil {
		return nil, notEncodable(err, n.Name)
	}
	return l, nil
}

// make runs the statements that make a role, and returns its OID.
func (tx *transaction) make(ctx context.Context, name, sql string) (oid uint32, err error) {
	results, err := tx.PgConn().Exec(ctx, sql+selectOID(name)).ReadAll()
	if err != nil {
		return 0, err
	}
	if oid, ok := lastOID(results); ok {
		return oid, nil
	}
	return 0, fmt.Errorf("the role %q cannot be read back", name)
}

// lastOID is the value that the last statement has returned, if it is one and an OID. A server may answer anything.
func lastOID(results []*pgconn.Result) (oid uint32, ok bool) {
	if len(results) == 0 {
		return 0, false
	}
	rows := results[len(results)-1].Rows
	if len(rows) != 1 || len(rows[0]) != 1 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(rows[0][0]), 10, 32)
	return uint32(n), err == nil && n > 0
}

// leaseBegins is what a new lease for a role needs to know of it.
type leaseBegins struct {
	now       time.Time // by the clock of the cluster
	databases []string  // that the role may connect to
	// in are the databases in which it has a default role, which is that of its lease there, too, and as are those roles: what
	// a lease for a user with the level own makes belongs to the access role.
	in, as []string
}

// selectBegins reads the clock, and the rest of leaseBegins of a role ($1). $2 is the control database.
var selectBegins = `
	WITH of AS (SELECT oid FROM pg_roles WHERE rolname = $1),
	begin AS (SELECT d.datname, substr(c, length('role=') + 1) AS role
	  FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) c
	  WHERE s.setrole = (SELECT oid FROM of) AND starts_with(c, 'role='))
	SELECT clock_timestamp(), ` + connectable("(SELECT oid FROM of)") + `,
	  array(SELECT datname::text FROM begin ORDER BY datname), array(SELECT role FROM begin ORDER BY datname)`

// lockFor reads a role that a lease is to act for under a lock for which a change of the role waits: no lease comes into
// being for a role that is being deleted. Leases for the same role need not wait for each other.
func (s *Server) lockFor(ctx context.Context, tx *transaction, name string) (u *User, b *leaseBegins, err error) {
	b = &leaseBegins{}
	batch := &pgx.Batch{}
	batch.Queue(`SELECT pg_advisory_xact_lock_shared($1)`, roleLock(name))
	sql, args := s.selectRoles([]string{name})
	batch.Queue(sql, args...).Query(func(rows pgx.Rows) (err error) {
		u, err = onlyUser(rows)
		return err
	})
	batch.Queue(selectBegins, name, s.ControlDatabase).QueryRow(func(row pgx.Row) error {
		return row.Scan(&b.now, &b.databases, &b.in, &b.as)
	})
	if err := tx.SendBatch(ctx, batch).Close(); err != nil && !sqlstate.Is(err, unwritable...) {
		return nil, nil, err
	}
	b.now = b.now.UTC()
	return u, b, s.checkLeasable(u, name)
}

// LeaseEnd is a new end of a lease.
type LeaseEnd struct {
	In  time.Duration // from now, by the clock of the cluster
	Max time.Time     // it is not after this; zero: no limit
	// Shorten makes the lease end earlier than before, and never later; else it is the other way around.
	Shorten bool
}

// of is the end that follows an end, at a time.
func (e LeaseEnd) of(old, now time.Time) time.Time {
	end := now.Add(e.In)
	if !e.Max.IsZero() && end.After(e.Max) {
		end = e.Max
	}
	if e.Shorten == end.After(old) {
		end = old
	}
	return end.UTC().Truncate(time.Microsecond)
}

// ChangeLeaseEnd sets the end of a lease. If there is no such role, or if it is not the lease's, the fault is NotFound. A
// lease that has ended gets no later end.
func (s *Server) ChangeLeaseEnd(ctx context.Context, of LeaseKey, end LeaseEnd, by Actor) (l *LeaseRole, err error) {
	name := of.Name
	if !storable(name) {
		return nil, noLease(name)
	}
	err = s.change(ctx, name, by, func(ctx context.Context, tx *transaction, u *User) error {
		notIts := of.check(u)
		switch {
		case notIts != nil:
			return fault.Of(noLease(name)).Because(notIts)
		case u.Provenance.State != "" || !u.Provenance.Ends.After(tx.now):
			return fault.New(fault.Invalid, "The lease %q has ended: take another one.", name)
		}
		if !end.Shorten {
			if err := checkNotProtected(u); err != nil {
				return err
			}
		}
		p := u.Provenance.changed(tx.now, by)
		p.Ends = end.of(p.Ends, tx.now)
		at := timestamp(p.Ends)
		if err := s.alter(ctx, tx, u, alterLimits(name, &at, nil)+commentOnRole(name, p.comment(u.userComment))); err != nil {
			return err
		}
		u.Provenance = p
		l = leaseRole(u, tx.now)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

func noLease(name string) error {
	return fault.New(fault.NotFound, "There is no role %q of this lease in this cluster.", name)
}

// selectLeases finds the roles of leases by their comments. Those are looked through once, and before all else: left to
// itself the planner compares each role with all comments.
var selectLeases = `
	SELECT r.oid, r.rolname, textsend(d.description), clock_timestamp(),
	  array(SELECT DISTINCT m.roleid FROM pg_auth_members m WHERE m.member = r.oid)
	FROM pg_roles r JOIN pg_shdescription d ON d.objoid = r.oid AND d.classoid = 'pg_authid'::regclass
	WHERE r.oid = ANY (ARRAY(SELECT d.objoid FROM pg_shdescription d
	    WHERE d.classoid = 'pg_authid'::regclass AND ` + leaseRecord + `))
	  AND ` + leaseRecord + `
	ORDER BY r.rolname`

// LeaseRoles returns all roles that leases have made and that are still there.
func (s *Server) LeaseRoles(ctx context.Context) (list []*LeaseRole, err error) {
	err = s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		list = nil // this may be another try
		rows, err := conn.Query(ctx, selectLeases)
		if err != nil {
			return err
		}
		var u User
		var comment []byte
		var now time.Time
		var of []uint32
		actsFor := map[string]map[uint32]bool{} // by the name of the lease
		all := map[uint32]bool{}
		_, err = pgx.ForEachRow(rows, []any{&u.oid, &u.Name, &comment, &now, &of}, func() error {
			if len(comment) > maxComment || len(u.Name) > maxColumn {
				return pgwire.Refuse("it shows a role that is longer than a role can be")
			}
			if _, u.Provenance = parseComment(string(comment)); u.Provenance.Lease == uuid.Nil {
				return nil
			}
			list, actsFor[u.Name] = append(list, leaseRole(&u, now)), map[uint32]bool{}
			for _, role := range of {
				actsFor[u.Name][role], all[role] = true, true
			}
			return nil
		})
		if err != nil || len(list) == 0 {
			return err
		}
		if rows, err = conn.Query(ctx, selectRolesOfOIDs, s.protection(slices.Collect(maps.Keys(all)))...); err != nil {
			return err
		}
		roles, err := collectPage(rows, len(all), scanUser)
		if err != nil {
			return err
		}
		byName := make(map[string]*User, len(roles))
		for _, role := range roles {
			byName[role.Name] = role
		}
		for _, l := range list {
			role := byName[l.For]
			if role != nil && !actsFor[l.Name][role.oid] {
				role = nil // another one, to which the name was given
			}
			l.ForGone = role == nil
			if err := s.checkLeasable(role, l.For); err != nil {
				l.ForProblem = fault.Of(err).Message
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// EndedLease is what came of the end of a lease.
type EndedLease struct {
	Previous uuid.UUID // attempt that changed the role before
	Gone     bool      // there was no role of the lease any more
	// BlockedBy are sentences. The role is disabled then, unless it is protected itself, may not be changed, or is not the
	// lease's by its comment and OID.
	BlockedBy []string
	// Remaining is how long the lease still lasts, by the clock of the cluster, if only an expired one was to be ended.
	Remaining time.Duration
}

// DropLease ends a lease the short way: its role is dropped, batched with others that are dropped at the same time, if
// nothing depends on it and it has no session. Else done is false, nothing has changed, and EndLease is needed. Only the
// lease's role is touched; if there is none, the lease is Gone. If expired is set, a lease that has not expired by the
// cluster's clock is left alone, and is done with its Remaining.
func (s *Server) DropLease(ctx context.Context, of LeaseKey, expired bool) (e EndedLease, done bool, err error) {
	if !storable(of.Name) || of.ID == uuid.Nil {
		return EndedLease{Gone: true}, true, nil
	}
	u, err := s.dropUnused(ctx, of.drop(expired))
	if u != nil && err == nil {
		return EndedLease{Previous: u.Provenance.Attempt}, true, nil
	}
	if e, ok := endedBefore(err); ok {
		return e, true, nil
	}
	if fault.Is(err, fault.Forbidden) {
		err = nil // EndLease says what it is
	}
	return EndedLease{}, false, err
}

// EndLease is DropLease the long way, in the phases of Delete: sessions are ended, what the role owns goes to the role that
// it acts for, and if it cannot be dropped it is disabled. A cluster bounds how many do this at a time.
func (s *Server) EndLease(ctx context.Context, of LeaseKey, expired bool, by Actor) (EndedLease, error) {
	if !storable(of.Name) || of.ID == uuid.Nil {
		return EndedLease{Gone: true}, nil
	}
	// What the lease owns went through the hands of somebody who could act as the other role anyway, and nobody else is to
	// keep the lease alive by being a member of its role.
	own := *s
	own.Reassignable, own.WithMembers = nil, true
	d := &deletion{s: &own, of: of.drop(expired), orDisable: true, by: by}
	previous, err := s.delete(ctx, d)
	if e, ok := endedBefore(err); ok {
		return e, nil
	}
	e := EndedLease{Previous: previous}
	switch {
	case fault.Is(err, fault.Forbidden):
		e.BlockedBy = []string{fault.Of(err).Message}
	case err != nil:
		return EndedLease{}, err
	case d.disabled != "":
		for _, reason := range d.blockedBy.reasons {
			e.BlockedBy = append(e.BlockedBy, sentence(reason))
		}
		if d.blockedBy.owns && d.notTo != "" {
			e.BlockedBy = append(e.BlockedBy, d.notTo)
		}
	}
	return e, nil
}

// endedBefore is what came of a lease of which nothing was to be dropped.
func endedBefore(err error) (e EndedLease, ok bool) {
	if lasts, ok := errors.AsType[*leaseLasts](err); ok {
		return EndedLease{Remaining: lasts.remaining}, true
	}
	if not, ok := errors.AsType[*notOfLease](err); ok {
		return EndedLease{BlockedBy: []string{not.why}}, true
	}
	return EndedLease{Gone: true}, errors.Is(err, errLeaseGone)
}

func (k LeaseKey) drop(expired bool) drop {
	return drop{name: k.Name, lease: k.ID, oid: k.OID, expired: expired}
}

// FindLease looks whether the role of a lease is there. It is Gone, or BlockedBy says why the one of its name is not
// touched.
func (s *Server) FindLease(ctx context.Context, of LeaseKey) (e EndedLease, err error) {
	if !storable(of.Name) {
		return EndedLease{Gone: true}, nil
	}
	var u *User
	err = s.read(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		u, err = s.role(ctx, conn, of.Name)
		return err
	})
	if err != nil && !fault.Is(err, fault.NotFound) {
		return EndedLease{}, err
	}
	if err := of.check(u); err != nil {
		e, _ = endedBefore(err)
	}
	return e, nil
}

// errLeaseGone says that there is no role of the name that belongs to the lease.
var errLeaseGone = errors.New("the role of the lease is gone")

// leaseLasts says that a lease has not expired.
type leaseLasts struct{ remaining time.Duration }

func (e *leaseLasts) Error() string { return "the lease lasts for another " + e.remaining.String() }

// findHeir finds the role to which goes what the lease owns: the one that it acts for, also under another name. Most own
// nothing, so it is no failure if there is none that can be given objects.
func (d *deletion) findHeir(ctx context.Context) error {
	rows, err := d.conn.Query(ctx, selectActsFor, d.user.oid, d.user.Provenance.For)
	if err != nil {
		return err
	}
	roles, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	if len(roles) == 1 || len(roles) > 1 && roles[0] == d.user.Provenance.For {
		d.reassignTo = roles[0]
		err = d.checkHeir(ctx)
		if !fault.Is(err, fault.Invalid) && !fault.Is(err, fault.Forbidden) {
			return err
		}
		d.notTo = fault.Of(err).Message
	} else {
		d.notTo = fmt.Sprintf("The role %q, to which it would go, is gone.", d.user.Provenance.For)
	}
	d.reassignTo = ""
	return d.checkHeir(ctx)
}

// selectActsFor lists the roles that a role ($1) is a member of, the one of a name ($2) first.
const selectActsFor = `
	SELECT g.rolname::text FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = $1
	GROUP BY g.rolname ORDER BY g.rolname <> $2, g.rolname`
