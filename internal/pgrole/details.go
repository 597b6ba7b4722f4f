package pgrole

import (
	"cmp"
	"context"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/fault"
)

// Details is all that a user is.
type Details struct {
	*User
	State           string     // StateActive, StateExpired, StateDeleting or StateDisabled
	ValidUntil      *time.Time // when its password stops being taken; nil: never
	ConnectionLimit int        // -1: none
	MemberOf        []string   // the roles that it is a direct member of, in the order of their names' bytes
	NotInherited    []string   // those of MemberOf whose privileges it does not have by itself
	PasswordKind    string
	Comment         string   // what people wrote as the role's comment
	Databases       []string // those that it may connect to, without templates and the control database
}

// StateActive is the usual state in Details, where Provenance has none.
const StateActive = "active"

// StateExpired is the state of a user that would be active, but whose VALID UNTIL has passed, by the cluster's
// clock.
const StateExpired = "expired"

// The kinds of passwords.
const (
	PasswordSCRAM   = "scram-sha-256"
	PasswordMD5     = "md5"
	PasswordNone    = "none"
	PasswordUnknown = "unknown" // the administering role may not read pg_authid
)

// Details returns all about one database user, protected or not.
func (s *Server) Details(ctx context.Context, name string) (d *Details, err error) {
	err = s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		// The revision is read first: what else is read may be newer, and a change that goes by it is then refused.
		u, err := s.role(ctx, conn, name)
		if err != nil {
			return err
		}
		if u == nil || !u.isUser() {
			return notFound(name)
		}
		d, err = s.detailsOf(ctx, conn, u)
		return err
	})
	return d, err
}

// DetailsList returns all about the database users in the order of their names' bytes, protected ones only if system is set:
// up to limit of those after a name, "" for the first. more says whether others follow.
func (s *Server) DetailsList(ctx context.Context, system bool, after string,
	limit int) (list []*Details, more bool, err error) {
	err = s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		users, err := s.usersAfter(ctx, conn, system, after, limit+1)
		if err != nil {
			return err
		}
		more = len(users) > limit
		list, err = s.details(ctx, conn, users[:min(len(users), limit)])
		return err
	})
	return list, more, err
}

// queryUsers asks for up to limit of the users from the place where a page begins.
func (s *Server) queryUsers(ctx context.Context, conn *pgx.Conn, system bool, page Page, limit int) (pgx.Rows, error) {
	if page.After != "" && !nameable(page.After) {
		return nil, fault.New(fault.Malformed, "No page of users begins there.")
	}
	plain, all, begin := selectUsersAfter, selectAllUsersAfter, any(page.After)
	switch {
	case page.After == "":
		plain, all, begin = selectUsers, selectAllUsers, page.Offset
	case !utf8.ValidString(page.After):
		plain, all, begin = selectUsersAfterBytes, selectAllUsersAfterBytes, []byte(page.After)
	}
	if system {
		plain = all
	}
	return conn.Query(ctx, plain, s.protection(limit, begin)...)
}

// usersAfter reads up to limit of the users after a name, "" for the first.
func (s *Server) usersAfter(ctx context.Context, conn *pgx.Conn, system bool, after string, limit int) ([]*User, error) {
	rows, err := s.queryUsers(ctx, conn, system, Page{After: after}, limit)
	if err != nil {
		return nil, err
	}
	return collectPage(rows, limit, scanListed)
}

// UsersAfter returns database users, protected ones as well, in the order of their names' bytes: up to limit of those after
// a name, "" for the first. It reads less than DetailsList, so that all users of a cluster can be read.
func (s *Server) UsersAfter(ctx context.Context, after string, limit int) (users []*User, err error) {
	err = s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		users, err = s.usersAfter(ctx, conn, true, after, limit)
		return err
	})
	return users, s.fault(err, "")
}

// shownValidUntil brings times that JSON cannot write (-infinity, the year 10000) to the nearest that it can.
const shownValidUntil = `CASE WHEN r.rolvaliduntil <> 'infinity'
	  THEN greatest(least(r.rolvaliduntil, '9999-12-31 23:59:59Z'), '0001-01-01 00:00:01Z') END`

// connectable lists the databases that a role may connect to, without templates and the control database ($2).
func connectable(role string) string {
	return `array(SELECT d.datname FROM pg_database d
	             WHERE d.datallowconn AND NOT d.datistemplate
	               AND d.datconnlimit <> -2 -- left by an interrupted DROP DATABASE
	               AND d.datname <> $2 AND has_database_privilege(` + role + `, d.oid, 'CONNECT') ORDER BY d.datname)::text[]`
}

var selectDetails = `
	SELECT r.oid, (r.rolvaliduntil <= clock_timestamp()) IS TRUE,
	       ` + shownValidUntil + `, r.rolconnlimit,
	       array(SELECT DISTINCT g.rolname FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid
	         ORDER BY g.rolname)::text[],
	       array(SELECT g.rolname FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid
	         GROUP BY g.rolname HAVING NOT bool_or(` + inherits("m", "r") + `) ORDER BY g.rolname)::text[],
	       ` + connectable("r.oid") + `,
	       ` + readsVerifiers + `
	FROM pg_roles r WHERE r.oid = ANY ($1)`

// passwordKind is the kind of the password of a row a of pg_authid.
const passwordKind = `CASE WHEN a.rolpassword IS NULL THEN 'none'
	WHEN octet_length(a.rolpassword) > ` + maxVerifier + ` THEN 'unknown'
	WHEN a.rolpassword ~ '^SCRAM-SHA-256\$\d+:' THEN 'scram-sha-256'
	WHEN a.rolpassword ~ '^md5[0-9a-f]{32}$' THEN 'md5' ELSE 'unknown' END`

const selectPasswordKinds = `SELECT a.oid, ` + passwordKind + ` FROM pg_authid a WHERE a.oid = ANY ($1)`

func (s *Server) detailsOf(ctx context.Context, q querier, u *User) (*Details, error) {
	list, err := s.details(ctx, q, []*User{u})
	if err == nil && len(list) == 0 {
		return nil, notFound(u.Name) // dropped a moment ago
	}
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// details returns all about the users in their order, without those that were dropped concurrently.
func (s *Server) details(ctx context.Context, q querier, users []*User) ([]*Details, error) {
	oids := make([]uint32, len(users))
	for i, u := range users {
		oids[i] = u.oid
	}
	byOID := make(map[uint32]*Details, len(users))
	var oid uint32
	var readable, expired bool
	var d Details
	rows, err := q.Query(ctx, selectDetails, oids, s.ControlDatabase)
	if err != nil {
		return nil, err
	}
	_, err = pgx.ForEachRow(rows, []any{&oid, &expired, &d.ValidUntil, &d.ConnectionLimit, &d.MemberOf, &d.NotInherited,
		&d.Databases, &readable},
		func() error {
			found := d
			found.PasswordKind, found.State = PasswordUnknown, StateActive
			if expired {
				found.State = StateExpired
			}
			byOID[oid], d = &found, Details{}
			return nil
		})
	if err != nil {
		return nil, err
	}
	if readable {
		var kind string
		rows, err := q.Query(ctx, selectPasswordKinds, oids)
		if err != nil {
			return nil, err
		}
		_, err = pgx.ForEachRow(rows, []any{&oid, &kind}, func() error {
			if d := byOID[oid]; d != nil {
				d.PasswordKind = kind
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	var list []*Details
	for _, u := range users {
		d := byOID[u.oid]
		if d == nil {
			continue
		}
		d.User, d.State, d.Comment = u, cmp.Or(u.Provenance.State, d.State), valid(u.userComment)
		if d.ValidUntil != nil {
			*d.ValidUntil = d.ValidUntil.UTC()
		}
		list = append(list, d)
	}
	return list, nil
}
