package pgrole

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
)

// Details is all that a user is.
type Details struct {
	*User
	State           string     // StateActive, StateDeleting or StateDisabled
	ValidUntil      *time.Time // when its password stops being taken; nil: never
	ConnectionLimit int        // -1: none
	MemberOf        []string   // the roles that it is a direct member of, in the order of their names' bytes
	PasswordKind    string
	Comment         string   // what people wrote as the role's comment
	Databases       []string // those that it may connect to, without templates and the control database
}

// StateActive is the usual state in Details, where Provenance has none.
const StateActive = "active"

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
		d, err = s.details(ctx, conn, u)
		return err
	})
	return d, err
}

// selectDetails brings times that JSON cannot write (-infinity, the year 10000) to the nearest that it can.
const selectDetails = `
	SELECT CASE WHEN r.rolvaliduntil <> 'infinity' THEN greatest(least(r.rolvaliduntil, '9999-12-31 23:59:59Z'), '0001-01-01 00:00:01Z') END,
	       r.rolconnlimit,
	       array(SELECT DISTINCT g.rolname FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid ORDER BY g.rolname)::text[],
	       array(SELECT d.datname FROM pg_database d
	             WHERE d.datallowconn AND NOT d.datistemplate AND d.datconnlimit <> -2 -- left by a DROP DATABASE that was cut off
	               AND d.datname <> $2 AND has_database_privilege(r.oid, d.oid, 'CONNECT') ORDER BY d.datname)::text[],
	       ` + readsVerifiers + `
	FROM pg_roles r WHERE r.oid = $1`

// passwordKind is the kind of the password of a row a of pg_authid.
const passwordKind = `CASE WHEN a.rolpassword IS NULL THEN 'none' WHEN a.rolpassword ~ '^SCRAM-SHA-256\$\d+:' THEN 'scram-sha-256'
	WHEN a.rolpassword ~ '^md5[0-9a-f]{32}$' THEN 'md5' ELSE 'unknown' END`

const selectPasswordKind = `SELECT ` + passwordKind + ` FROM pg_authid a WHERE a.oid = $1`

func (s *Server) details(ctx context.Context, q querier, u *User) (*Details, error) {
	d := &Details{User: u, State: u.Provenance.State, PasswordKind: PasswordUnknown, Comment: valid(u.human)}
	if d.State == "" {
		d.State = StateActive
	}
	var readable bool
	err := q.QueryRow(ctx, selectDetails, u.oid, s.ControlDatabase).Scan(&d.ValidUntil, &d.ConnectionLimit, &d.MemberOf, &d.Databases, &readable)
	if err == nil && readable {
		err = q.QueryRow(ctx, selectPasswordKind, u.oid).Scan(&d.PasswordKind)
	}
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, notFound(u.Name) // dropped a moment ago
	}
	if err != nil {
		return nil, err
	}
	if d.ValidUntil != nil {
		*d.ValidUntil = d.ValidUntil.UTC()
	}
	return d, nil
}
