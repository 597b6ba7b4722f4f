package pgrole

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/fault"
	"rolecall/internal/sqlstate"
)

// plan is what stands between a role and its DROP, read from pg_shdepend, which PostgreSQL keeps for all databases and
// which DROP ROLE itself goes by.
type plan struct {
	// databases are those in which something depends on the role; the others need no visit.
	databases []*databasePlan
	// blockers are what a delete neither resolves nor steps over, as sentences without a full stop: those that can be told
	// from here. The databases have their own.
	blockers []string
	leases   bool // one of the blockers is that leases act for the role
}

// place is a database to visit. The shared objects, databases and tablespaces, are planned with the registered one.
type place struct {
	name       string
	encoding   string
	registered bool
	owns       bool // the role owns something there
	suspect    bool // something there is more than a privilege, and probably in the way
}

// databasePlan is the part of a plan in one database, as the last visit has found it.
type databasePlan struct {
	place
	visited  bool
	blockers []string
	cause    error          // of the blockers, for the log
	owned    Listing        // what it owns there, which reassigning moves
	shared   Listing        // the databases and tablespaces that it owns; only of the registered database
	definers Listing        // of what it owns, what runs with its owner's rights; only looked at to reassign
	grants   []grant        // privileges that the role was granted
	defaults []defaultGrant // default privileges that name the role
	revoked  Listing        // what the visit has taken away, for people
}

// grant is privileges on one object, granted to the role by grantor. They and the target are quoted: `SELECT (a)` on
// `TABLE public.t`.
type grant struct {
	privileges, target, grantor string
	shared                      bool // the object belongs to the cluster and to no database
}

// defaultGrant is one entry of pg_default_acl: what objects that owner makes are granted with.
type defaultGrant struct {
	owner, schema, objects string
	grantees               []string // "" is PUBLIC
	own                    bool     // owner is the role itself
}

// maxNamed is how many things of a kind a message names.
const maxNamed = 10

func (p *plan) block(format string, args ...any) {
	p.blockers = append(p.blockers, fmt.Sprintf(format, args...))
}

func (dp *databasePlan) block(format string, args ...any) {
	dp.blockers = append(dp.blockers, fmt.Sprintf(format, args...))
}

// blocked is nil when nothing stands in the way, as far as the databases were visited.
func (p *plan) blocked() *blocked {
	b := &blocked{reasons: p.blockers, leases: p.leases}
	for _, dp := range p.databases {
		b.reasons = slices.Concat(b.reasons, dp.blockers)
		b.owns = b.owns || dp.owned.Count+dp.shared.Count > 0
		b.cause = errors.Join(b.cause, dp.cause)
	}
	if len(b.reasons) == 0 {
		return nil
	}
	return b
}

// plan reads what can be told from the registered database alone, and which databases are to be visited. It waits for a
// database that is being dropped.
func (d *deletion) plan(ctx context.Context) (*plan, error) {
	for end := time.Now().Add(d.s.Waits.holders()); ; {
		p, dropping, err := d.planOnce(ctx)
		if err != nil || dropping == "" {
			return p, err
		}
		if time.Now().After(end) {
			return nil, fault.New(fault.Unavailable, "Something in database %q depends on the user %q, and the database is being "+
				"dropped. Delete the user when that is done.", valid(dropping), d.user.Name).After(2 * time.Second)
		}
		if err := pause(ctx, lookPause); err != nil {
			return nil, err
		}
	}
}

// planOnce is plan, and names a database that is being dropped instead of waiting for it.
func (d *deletion) planOnce(ctx context.Context) (p *plan, dropping string, err error) {
	p = &plan{}
	if err := p.list(ctx, d.conn, `SELECT array(SELECT format('%s in database %s (there: ROLLBACK PREPARED %L)', gid, database,
		gid) FROM pg_prepared_xacts WHERE owner = $1 ORDER BY 1)`, d.user.Name,
		"it has prepared transactions, to be committed or rolled back first: %s"); err != nil {
		return nil, "", err
	}
	if err := p.list(ctx, d.conn, `SELECT array(SELECT format('%s to %s (REVOKE %1$s FROM %2$s%3$s)', roleid::regrole,
		member::regrole, CASE WHEN current_setting('server_version_num')::int >= 160000 THEN ' GRANTED BY ' || grantor::regrole
		END) FROM pg_auth_members
		WHERE grantor = $1 AND member <> $1 AND roleid <> $1 ORDER BY 1)`, d.user.oid,
		"it has granted memberships to others, to be revoked or granted by another role first: %s"); err != nil {
		return nil, "", err
	}
	if err := p.list(ctx, d.conn, selectSessionsThatStay, d.user.oid, "it has sessions that Rolecall's administering role may "+
		"not end, of the process %s (GRANT pg_signal_backend TO it)"); err != nil {
		return nil, "", err
	}
	if err := p.blockMembers(ctx, d); err != nil {
		return nil, "", err
	}
	rows, err := d.conn.Query(ctx, selectPlaces, d.user.oid, d.reassignTo != "")
	if err != nil {
		return nil, "", err
	}
	var pl place
	var allowed, beingDropped bool
	var limit int
	_, err = pgx.ForEachRow(rows, []any{&pl.name, &pl.encoding, &pl.registered, &pl.owns, &pl.suspect, &allowed, &limit,
		&beingDropped}, func() error {
		switch name := valid(pl.name); {
		case limit == invalidDatabase && beingDropped:
			dropping = pl.name
		case limit == invalidDatabase:
			p.block("something in database %q depends on it, whose removal was cut off (DROP DATABASE %s finishes it)", name,
				valid(ident(pl.name)))
		case !allowed || limit == 0:
			p.block("something in database %q depends on it, which takes no connections (ALTER DATABASE %s ALLOW_CONNECTIONS true "+
				"CONNECTION LIMIT -1 lets Rolecall read it)", name, valid(ident(pl.name)))
		default:
			p.databases = append(p.databases, &databasePlan{place: pl})
		}
		return nil
	})
	return p, dropping, err
}

// list blocks, if a query finds something, with all that it finds in one sentence.
func (p *plan) list(ctx context.Context, conn *pgx.Conn, sql string, arg any, format string) error {
	var found []string
	if err := conn.QueryRow(ctx, sql, arg).Scan(&found); err != nil {
		return err
	}
	if len(found) > 0 {
		p.block(format, some(found, len(found)))
	}
	return nil
}

// pause waits, and fails if the context ends before.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// lookPause is how long to wait before the server is asked again for what it will show sooner or later.
const lookPause = 50 * time.Millisecond

// invalidDatabase is the connection limit of a database that is being dropped, or in which DROP DATABASE was interrupted.
// https://www.postgresql.org/docs/current/catalog-pg-database.html
const invalidDatabase = -2

// maxVisitors is how many databases one deletion visits at the same time, at most.
const maxVisitors = 6

// visitDatabases reads databases, a few at a time but no more than most, and runs then, unless it is nil, in each that has
// no blocker. It stops starting visits at the first error (or blocker, if then is set); running visits finish.
func (d *deletion) visitDatabases(ctx context.Context, databases []*databasePlan, most int,
	then func(ctx context.Context, conn *pgx.Conn, dp *databasePlan) error) error {
	visitors := 1
	if len(databases) > 1 && most > 1 {
		if err := d.conn.QueryRow(ctx, selectVisitors, most).Scan(&visitors); err != nil {
			return err
		}
	}
	if end, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(end)*3/4) // leave a quarter of the time for the following phases
		defer cancel()
	}
	free := make(chan struct{}, visitors)
	var wg sync.WaitGroup
	var mu sync.Mutex // guards what follows
	var visited int
	var stop bool
	var failed error
	for _, dp := range databases {
		free <- struct{}{}
		mu.Lock()
		end := stop || ctx.Err() != nil
		mu.Unlock()
		if end {
			break
		}
		wg.Go(func() {
			defer func() { <-free }()
			err := d.visitOne(ctx, dp, then)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				visited++
			}
			failed = cmp.Or(failed, err)
			stop = stop || err != nil || then != nil && len(dp.blockers) > 0
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil && visited < len(databases) {
		return &outOfTime{visited, len(databases), cmp.Or(failed, err)}
	}
	return failed
}

// outOfTime says how many of the databases were visited.
type outOfTime struct {
	visited, of int
	cause       error
}

func (e *outOfTime) Error() string {
	return fmt.Sprintf("visited %d of %d databases: %v", e.visited, e.of, e.cause)
}
func (e *outOfTime) Unwrap() error { return e.cause }

func (d *deletion) visitOne(ctx context.Context, dp *databasePlan, then func(ctx context.Context, conn *pgx.Conn,
	dp *databasePlan) error) error {
	*dp = databasePlan{place: dp.place}
	conn := d.conn
	if !dp.registered {
		var err error
		if conn, err = d.s.connect(ctx, dp.name, dp.encoding); err != nil {
			return dp.refused(err)
		}
		defer closeConn(ctx, conn)
	}
	err := d.readDependencies(ctx, conn, dp)
	if sqlstate.Is(err, sqlstate.CharacterNotInRepertoire) {
		dp.block("something in database %q depends on it, whose encoding %s cannot write its name; drop it by hand",
			valid(dp.name), dp.encoding)
		return nil
	}
	if err != nil || then == nil || len(dp.blockers) > 0 {
		return err
	}
	err = then(ctx, conn, dp)
	if b, ok := errors.AsType[*blocked](err); ok {
		dp.blockers, dp.cause = b.reasons, b.cause
		return nil
	}
	return err
}

// refused turns what the server says instead of a connection into a blocker, if it will not pass.
func (dp *databasePlan) refused(err error) error {
	name := valid(dp.name)
	switch code := sqlstate.Code(err); {
	case code == sqlstate.UndefinedDatabase:
		return nil // dropped concurrently, with all that was in it
	case code == sqlstate.UndefinedFile:
		dp.block("something in database %q depends on it, whose settings keep every session out: %s (ALTER DATABASE %s RESET "+
			"session_preload_libraries)", name, sqlstate.Message(err), valid(ident(dp.name)))
	case code == "" || slices.Contains([]string{"08", "53", "57", "58"}, code[:2]):
		return err
	case slices.Contains([]string{sqlstate.InsufficientPrivilege, sqlstate.InvalidAuthorization, sqlstate.InvalidPassword},
		code):
		dp.block("something in database %q depends on it, to which Rolecall's administering role may not connect: %s, "+
			"SQLSTATE %s (GRANT CONNECT ON DATABASE %s TO it, or see pg_hba.conf)", name, sqlstate.Message(err), code,
			valid(ident(dp.name)))
	default:
		dp.block("something in database %q depends on it, which refuses Rolecall's sessions, perhaps by an event trigger for "+
			"logins: %s (SQLSTATE %s)", name, sqlstate.Message(err), code)
	}
	dp.cause = err
	return nil
}

// connect opens a connection to another database, and waits for one as long as acquire does when the server has none.
func (s *Server) connect(ctx context.Context, database, encoding string) (*pgx.Conn, error) {
	for end := time.Now().Add(s.Waits.acquire()); ; {
		conn, err := s.Connect(ctx, database, encoding)
		if !sqlstate.Is(err, sqlstate.TooManyConnections) || time.Now().After(end) {
			return conn, err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// closeConn closes a connection, also after ctx has ended. The server gets a second to answer.
func closeConn(ctx context.Context, conn *pgx.Conn) {
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = conn.Close(end)
}

// readDependencies reads what depends on the role in the connection's database, and what of it the administering role may
// neither move nor revoke.
func (d *deletion) readDependencies(ctx context.Context, conn *pgx.Conn, dp *databasePlan) error {
	dp.visited = true
	// A database in another encoding may not take the bytes of the name, and then nothing there can be revoked.
	if _, err := conn.Exec(ctx, `SELECT $1::text`, d.user.Name); err != nil {
		return err
	}
	reassign := d.reassignTo != ""
	if err := dp.readOwned(ctx, conn, d.user); err != nil {
		return err
	}
	if dp.owned.Count > 0 && !reassign {
		dp.block("it owns %s in database %q: %s", objects(dp.owned.Count), valid(dp.name), some(dp.owned.First, dp.owned.Count))
	}
	if dp.shared.Count > 0 && !reassign {
		dp.block("it owns %s", some(dp.shared.First, dp.shared.Count))
	}
	if reassign {
		var err error
		if dp.definers, err = describe(ctx, conn, selectDefiners, d.user, dp); err != nil {
			return err
		}
		if err := d.readUnmovable(ctx, conn, dp); err != nil {
			return err
		}
	}
	named, err := describe(ctx, conn, selectNamed, d.user, dp)
	if err != nil {
		return err
	}
	if named.Count > 0 {
		dp.block("%s in database %q would have to be changed or dropped first: %s", objects(named.Count), valid(dp.name),
			some(named.First, named.Count))
	}
	if err := dp.readGrants(ctx, conn, d.user); err != nil {
		return err
	}
	rows, err := conn.Query(ctx, selectDefaults, d.user.oid, dp.registered)
	if err != nil {
		return err
	}
	dp.defaults, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (d defaultGrant, err error) {
		return d, row.Scan(&d.owner, &d.schema, &d.objects, &d.grantees, &d.own)
	})
	if err != nil {
		return err
	}
	return d.readIrrevocable(ctx, conn, dp)
}

func (dp *databasePlan) readOwned(ctx context.Context, conn *pgx.Conn, u *User) error {
	rows, err := conn.Query(ctx, selectOwned, u.oid, dp.registered, maxNamed)
	if err != nil {
		return err
	}
	var count int
	var shared bool
	var name *string
	_, err = pgx.ForEachRow(rows, []any{&count, &shared, &name}, func() error {
		of := &dp.owned
		if shared {
			of = &dp.shared
		}
		if name != nil { // else it was dropped a moment ago
			of.Count, of.First = count, append(of.First, valid(*name))
		}
		return nil
	})
	return err
}

func describe(ctx context.Context, conn *pgx.Conn, sql string, u *User, dp *databasePlan) (l Listing, err error) {
	rows, err := conn.Query(ctx, sql, u.oid, dp.registered, maxNamed)
	if err != nil {
		return l, err
	}
	var count int
	var name *string
	_, err = pgx.ForEachRow(rows, []any{&count, &name}, func() error {
		if name != nil { // else it was dropped a moment ago
			l.Count, l.First = count, append(l.First, valid(*name))
		}
		return nil
	})
	return l, err
}

func (dp *databasePlan) readGrants(ctx context.Context, conn *pgx.Conn, u *User) error {
	// pg_parameter_acl came with PostgreSQL 15, and a query cannot name a table that is not there.
	var parameters bool
	if err := conn.QueryRow(ctx, `SELECT to_regclass('pg_parameter_acl') IS NOT NULL`).Scan(&parameters); err != nil {
		return err
	}
	rows, err := conn.Query(ctx, selectGrants(parameters), u.oid, dp.registered)
	if err != nil {
		return err
	}
	var given []string
	var g grant
	var grantee string
	var by bool
	var owner *string // of a temporary object, or of one where no REVOKE acts for the grantor
	var pids []int32  // of the owner's sessions there; nil if the object is not temporary
	_, err = pgx.ForEachRow(rows, []any{&g.target, &g.privileges, &g.grantor, &grantee, &by, &g.shared, &owner, &pids},
		func() error {
			switch {
			case owner != nil && pids == nil && !by:
				dp.block("privileges on %s were granted by %q, for whom no REVOKE acts as long as it is a superuser or a member of the "+
					"owner (ALTER ROLE %s NOSUPERUSER, or REVOKE %s FROM %[3]s)", dp.in(g.target, g.shared), valid(g.grantor),
					valid(ident(g.grantor)), valid(ident(*owner)))
			case owner != nil && pids != nil:
				dp.block("the temporary %s in database %q names it in its privileges, and goes with %s", valid(g.target), valid(dp.name),
					sessionsOf(*owner, pids))
			case by:
				given = append(given, fmt.Sprintf("%s to %s (as %s: REVOKE %s ON %[1]s FROM %[2]s)", g.target, grantee, ident(u.Name),
					g.privileges))
			default:
				dp.grants = append(dp.grants, g)
			}
			return nil
		})
	if len(given) > 0 {
		dp.block("it has granted privileges to others in database %q, to be revoked or granted by another role first: %s",
			valid(dp.name), some(given, len(given)))
	}
	return err
}

// in says where an object is, for people.
func (dp *databasePlan) in(target string, shared bool) string {
	if shared {
		return valid(target)
	}
	return fmt.Sprintf("%s in database %q", valid(target), valid(dp.name))
}

// sessionsOf names the sessions of a role with which a temporary object goes.
func sessionsOf(role string, pids []int32) string {
	if len(pids) == 0 {
		return fmt.Sprintf("no session: a crashed one of %q left it (DROP it as a superuser)", valid(role))
	}
	return fmt.Sprintf("a session of %q (process %s)", valid(role), strings.Trim(strings.Join(strings.Fields(fmt.Sprint(pids)),
		" or "), "[]"))
}

// objects says a number of objects.
func objects(n int) string {
	if n == 1 {
		return "1 object"
	}
	return fmt.Sprintf("%d objects", n)
}

// valid makes a name fit for a message: one from a database in another encoding may not be UTF-8.
func valid(name string) string { return strings.ToValidUTF8(name, "\uFFFD") }

// some lists the first names of a list, of which there are count.
func some(names []string, count int) string {
	names = names[:min(len(names), maxNamed)]
	list := valid(strings.Join(names, ", "))
	if count > len(names) {
		list += fmt.Sprintf(" and %d more", count-len(names))
	}
	return list
}
