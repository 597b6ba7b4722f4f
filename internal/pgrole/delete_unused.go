package pgrole

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/sqlstate"
)

// drop is a role to be dropped: a user, or the role of a lease.
type drop struct {
	name    string
	match   etag.Match
	lease   uuid.UUID // whose role it has to be; nil: a user
	oid     uint32    // of the role of the lease; 0: not known
	expired bool      // the lease has to have ended by the clock of the cluster
}

// check refuses a role that is not to be dropped. now is the clock of the cluster.
func (d drop) check(u *User, now time.Time) error {
	if d.lease == uuid.Nil {
		return checkChangeable(u, d.name, d.match)
	}
	if err := (LeaseKey{Name: d.name, ID: d.lease, OID: d.oid}).check(u); err != nil {
		return err
	}
	if d.expired && u.Provenance.Ends.After(now) {
		return &leaseLasts{u.Provenance.Ends.Sub(now)}
	}
	return d.checkNotProtected(u)
}

// checkNotProtected lets a lease end although the role that it acts for is protected now: then it has to.
func (d drop) checkNotProtected(u *User) error {
	if d.lease != uuid.Nil && u.protectedBy != u.Name {
		return nil
	}
	return checkNotProtected(u)
}

// dropped is what came of it. Without a user and an error the four phases of a deletion are needed, and nothing has changed.
type dropped struct {
	user  *User // that was dropped
	quiet bool  // after the COMMIT it had no session, and nobody was logging in
	lost  error // the COMMIT was not answered: it may be there
	err   error
}

// DropUnused drops a user on which nothing depends and which has no sessions, in one transaction, batched with others that
// are dropped at the same time. Most deleted users are such. It returns the user as it was; nil without an error means that
// the four phases of Delete are needed and nothing has changed.
func (s *Server) DropUnused(ctx context.Context, name string, match etag.Match) (*User, error) {
	if !utf8.ValidString(name) {
		return s.dropForeign(ctx, name, match)
	}
	if !storable(name) {
		return nil, notFound(name)
	}
	return s.dropUnused(ctx, drop{name: name, match: match})
}

func (s *Server) dropUnused(ctx context.Context, of drop) (*User, error) {
	d, err := s.Batcher.drops.Do(ctx, of, s.dropBatch)
	if err = cmp.Or(err, d.err); err != nil || d.user == nil {
		return nil, s.fault(err, of.name)
	}
	if d.lost != nil {
		if now, err := s.Inspect(ctx, of.name); err != nil || now != nil && now.oid == d.user.oid {
			return nil, err // it is there: the phases may do it
		}
		err := s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error { return d.user.checkDropped(ctx, conn) })
		if err != nil {
			return nil, err
		}
	}
	if d.quiet {
		return d.user, nil
	}
	return d.user, s.endDropped(ctx, d.user)
}

// dropForeign is DropUnused for a user whose name is not text. The phases of Delete cannot name it, so it is refused if they
// are needed.
func (s *Server) dropForeign(ctx context.Context, name string, match etag.Match) (*User, error) {
	var gone *User
	err := s.withRole(ctx, name, func(ctx context.Context, tx *transaction, u *User) error {
		err := checkChangeable(u, name, match)
		if !errors.Is(err, errForeign) {
			return err
		}
		rows, queryErr := tx.Query(ctx, selectAloneByOID, []uint32{u.oid})
		if queryErr != nil {
			return queryErr
		}
		alone, queryErr := pgx.CollectRows(rows, pgx.RowTo[string])
		if queryErr != nil || len(alone) == 0 {
			return cmp.Or(queryErr, err)
		}
		gone = u
		if _, err := tx.Exec(ctx, dropRoleByOID(u)); err != nil {
			return err
		}
		return u.checkDropped(ctx, tx)
	})
	if _, lost := errors.AsType[*commitLost](err); lost {
		err = s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error { return gone.checkDropped(ctx, conn) })
	}
	if err != nil {
		return nil, s.fault(s.explainDenied(ctx, err, valid(name)), valid(name))
	}
	return gone, s.endDropped(ctx, gone)
}

// endDropped ends the sessions of logins that were in progress when a user was dropped: one may already have resolved the
// role.
func (s *Server) endDropped(ctx context.Context, u *User) error {
	if _, err := s.Batcher.ends.Do(ctx, u, s.endLate); err != nil {
		return fault.New(fault.Unavailable, "The user %q was deleted, but it could not be made sure that it has no session left.",
			u.Name).Because(err)
	}
	return nil
}

func (s *Server) dropBatch(ctx context.Context, drops []drop) ([]dropped, error) {
	names, locks := make([]string, len(drops)), make([]int64, len(drops))
	for i, d := range drops {
		names[i], locks[i] = d.name, roleLock(d.name)
	}
	var results []dropped
	err := s.retry(ctx, func(error) error {
		conn, err := s.acquire(ctx)
		if err != nil {
			return err
		}
		defer conn.Release()
		var ours, alone []string
		var users []*User
		read := func(b *pgx.Batch) {
			// Skip locked roles: waiting would delay the whole batch.
			b.Queue(tryLocks, names, locks).Query(collect(&ours, pgx.RowTo[string]))
			b.Queue(selectRoles, s.protection(names)...).Query(collect(&users, scanUser))
			b.Queue(selectAlone, names).Query(collect(&alone, pgx.RowTo[string]))
		}
		return runTransaction(ctx, conn.Conn(), nil, read, func(ctx context.Context, tx *transaction) error {
			results = make([]dropped, len(drops))
			var all []*User
			for i, d := range drops {
				if !slices.Contains(ours, d.name) || slices.Contains(names[:i], d.name) {
					continue
				}
				var u *User
				if at := slices.IndexFunc(users, func(u *User) bool { return u.Name == d.name }); at >= 0 {
					u = users[at]
				}
				if results[i].err = d.check(u, tx.now); results[i].err != nil {
					continue
				}
				if slices.Contains(alone, d.name) && u.Provenance.State != StateDeleting {
					results[i].user = u
					all = append(all, u)
				}
			}
			if len(all) == 0 {
				return errNobody // nothing to commit
			}
			quiet, err := tx.commitDrops(ctx, all)
			for i := range results {
				results[i].quiet = quiet
			}
			return err
		})
	})
	_, lost := errors.AsType[*commitLost](err)
	switch {
	case errors.Is(err, errNobody):
		return results, nil
	case lost:
		for i := range results {
			results[i].lost = err
		}
		return results, nil
	case len(drops) == 1 && (refusal(err) || sqlstate.Retry(err) || sqlstate.Is(err, sqlstate.LockNotAvailable)):
		return make([]dropped, 1), nil // the phases can do more, and say why not where they cannot
	}
	return results, err
}

// commitDrops drops the roles and commits. In the same round trip it ends the sessions of logins that were in progress.
// quiet says that there was none, and that nobody was logging in; else endDropped sees to it that they end.
func (tx *transaction) commitDrops(ctx context.Context, all []*User) (quiet bool, err error) {
	look, err := lookForLate(ctx, tx.Conn, all)
	if err != nil {
		return false, err
	}
	results, err := tx.PgConn().Exec(ctx, dropRoles(all)+`COMMIT;`+look).ReadAll()
	at := slices.IndexFunc(results, func(r *pgconn.Result) bool { return r.CommandTag.String() == "COMMIT" })
	switch {
	case at >= 0: // whatever came of the rest
		late := results[at+1:]
		return err == nil && len(late) == 3 && len(late[0].Rows)+len(late[2].Rows) == 0, nil
	case sqlstate.Lost(err):
		return false, &commitLost{err}
	case err == nil:
		return false, pgx.ErrTxCommitRollback
	}
	return false, err
}

// lookForLate returns what endSessions sends first, as text for a message of several statements.
func lookForLate(ctx context.Context, conn *pgx.Conn, of []*User) (string, error) {
	logins, err := prepared(ctx, conn, selectLogins)
	if err != nil {
		return "", err
	}
	sessions, err := prepared(ctx, conn, terminateSessions)
	if err != nil {
		return "", err
	}
	return execute(logins, `NULL`) + clearSessions + `;` + execute(sessions, oidsOf(of), `NULL`, `''`), nil
}

var errNobody = errors.New("something depends on each of the roles")

// endLate ends the sessions of logins that were in progress when their role was dropped.
func (s *Server) endLate(ctx context.Context, gone []*User) ([]struct{}, error) {
	err := s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := endSessions(ctx, conn, gone, whichSessions{all: true})
		return err
	})
	return make([]struct{}, len(gone)), err
}

// collect is for a query in a batch.
func collect[T any](into *[]T, scan pgx.RowToFunc[T]) func(pgx.Rows) error {
	return func(rows pgx.Rows) (err error) {
		*into, err = pgx.CollectRows(rows, scan)
		return err
	}
}

// tryLocks returns those of the names ($1) whose lock ($2) is free, and takes it.
const tryLocks = `SELECT name FROM unnest($1::text[], $2::bigint[]) AS role (name, lock) WHERE ` +
	`pg_try_advisory_xact_lock(lock)`

// selectAlone finds those of the names ($1) that nothing depends on. It also asks whether a session that comes at the last
// moment can be ended: that of a dropped role only by those who may end any. Its parts are LIMITed so that each is looked
// up by index for the few roles, and its lists are read once; the view pg_prepared_xacts would read all roles.
var (
	selectAlone      = aloneWhere(`r.rolname = ANY ($1::name[])`)
	selectAloneByOID = aloneWhere(`r.oid = ANY ($1::oid[])`)
)

func aloneWhere(condition string) string {
	return `
  SELECT r.rolname::text FROM pg_roles r
  WHERE ` + condition + `
    AND (SELECT true FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass AND refobjid = r.oid LIMIT 1) IS NULL
    AND r.oid <> ALL (ARRAY(SELECT DISTINCT grantor FROM pg_auth_members))
    AND (SELECT true FROM pg_auth_members m JOIN pg_roles u ON u.oid = m.member WHERE m.roleid = r.oid AND ` + losers + `
      ORDER BY m.member LIMIT 1) IS NULL
    AND r.oid <> ALL (ARRAY(SELECT ownerid FROM pg_prepared_xact()))
    AND r.oid <> ALL (ARRAY(SELECT usesysid FROM pg_stat_activity WHERE usesysid IS NOT NULL))
    AND (SELECT pg_has_role('pg_signal_backend', 'USAGE') OR rolsuper FROM pg_roles WHERE rolname = current_user)`
}
