package pgrole

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// MaxSessions is how many sessions of a user are listed at most.
const MaxSessions = 100

// Session is an open session of a database user.
type Session struct {
	PID         int32
	Database    string
	Application string    // as the client names itself
	Address     string    // of the client; "": a Unix socket, or not visible
	Since       time.Time // zero: not visible
	State       string    // as PostgreSQL names it: active, idle, …; "": not visible
}

// Sessions are the open sessions of a user.
type Sessions struct {
	List  []Session // the oldest first, up to MaxSessions
	Total int
	// Problem is why Address, Since and State are not visible, as a sentence; "": they are.
	Problem string
}

// selectSessions lists the sessions of a role ($1). If the administering role may not see them, PostgreSQL shows no time of
// their start.
// https://www.postgresql.org/docs/current/monitoring-stats.html
const selectSessions = `
	SELECT pid, coalesce(datname, '')::text, coalesce(application_name, ''), coalesce(host(client_addr), ''), backend_start,
	  coalesce(state, ''), count(*) OVER (), current_user::text
	FROM pg_stat_activity WHERE usesysid = $1 ORDER BY backend_start, pid LIMIT $2`

// Sessions returns the open sessions of a user, protected or not.
func (s *Server) Sessions(ctx context.Context, name string) (all *Sessions, err error) {
	err = s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		all = &Sessions{}
		u, err := s.role(ctx, conn, name)
		if err != nil {
			return err
		}
		if u == nil || !u.isUser() {
			return notFound(name)
		}
		rows, err := conn.Query(ctx, selectSessions, u.oid, MaxSessions)
		if err != nil {
			return err
		}
		var one Session
		var since *time.Time
		var role string
		_, err = pgx.ForEachRow(rows, []any{&one.PID, &one.Database, &one.Application, &one.Address, &since, &one.State,
			&all.Total, &role}, func() error {
			if since != nil {
				one.Since = since.UTC()
			} else {
				all.Problem = "Where its sessions come from is not visible. To see it, run GRANT pg_read_all_stats TO " +
					ident(valid(role)) + "."
			}
			one.Database, one.Application = valid(one.Database), valid(one.Application)
			all.List = append(all.List, one)
			one, since = Session{}, nil
			return nil
		})
		return err
	})
	return all, err
}

// SessionCounts is how many open sessions the roles of these oids have; those without one are not in it.
func (s *Server) SessionCounts(ctx context.Context, oids []uint32) (counts map[uint32]int, err error) {
	err = s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		counts = map[uint32]int{}
		rows, err := conn.Query(ctx,
			`SELECT usesysid, count(*) FROM pg_stat_activity WHERE usesysid = ANY ($1::oid[]) GROUP BY usesysid`, oids)
		if err != nil {
			return err
		}
		var oid uint32
		var n int
		_, err = pgx.ForEachRow(rows, []any{&oid, &n}, func() error { counts[oid] = n; return nil })
		return err
	})
	return counts, err
}
