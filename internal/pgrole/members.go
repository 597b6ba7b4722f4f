package pgrole

import (
	"context"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// losers is true for a membership m of a member u that gives it the role's privileges, and so would be missed. Superusers
// need none; one that the member granted itself, or that lets it only administer the role, came with making the role.
const losers = `NOT u.rolsuper AND u.rolname <> current_user AND m.member <> m.grantor
  AND (coalesce((to_jsonb(m) ->> 'inherit_option')::bool, true) OR coalesce((to_jsonb(m) ->> 'set_option')::bool, true))`

const selectMembers = `
	SELECT u.rolname::text FROM pg_auth_members m JOIN pg_roles u ON u.oid = m.member
	WHERE m.roleid = (SELECT oid FROM pg_roles WHERE rolname = $1) AND ` + losers + `
	GROUP BY u.rolname ORDER BY u.rolname`

// Members are the roles that would lose the privileges of a user if it were deleted, in the order of their names' bytes.
func (s *Server) Members(ctx context.Context, name string) (members []string, err error) {
	err = s.read(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		members, err = readMembers(ctx, conn, name)
		return err
	})
	return members, err
}

func readMembers(ctx context.Context, q querier, name string) ([]string, error) {
	rows, err := q.Query(ctx, selectMembers, name)
	if err != nil {
		return nil, err
	}
	members, err := pgx.CollectRows(rows, pgx.RowTo[string])
	for i := range members {
		members[i] = valid(members[i])
	}
	return members, err
}

// selectLeasesFor lists the members of a role ($1) that may be roles of leases, with their comments.
const selectLeasesFor = `
	SELECT u.oid, u.rolname::text, textsend(d.description) FROM pg_roles u
	JOIN pg_shdescription d ON d.objoid = u.oid AND d.classoid = 'pg_authid'::regclass
	WHERE u.oid IN (SELECT m.member FROM pg_auth_members m WHERE m.roleid = $1) AND ` + leaseRecord + ` ORDER BY u.rolname`

// readLeasesFor reads the roles of the leases that act for a role.
func readLeasesFor(ctx context.Context, q querier, role uint32) (leases []*User, err error) {
	rows, err := q.Query(ctx, selectLeasesFor, role)
	if err != nil {
		return nil, err
	}
	var u User
	var comment []byte
	_, err = pgx.ForEachRow(rows, []any{&u.oid, &u.Name, &comment}, func() error {
		if _, u.Provenance = parseComment(string(comment)); u.Provenance.Lease != uuid.Nil {
			leases = append(leases, &User{Name: u.Name, oid: u.oid, Provenance: u.Provenance})
		}
		return nil
	})
	return leases, err
}

// blockMembers is the part of a deletion's plan about the members of the user.
func (p *plan) blockMembers(ctx context.Context, d *deletion) error {
	roles, err := readLeasesFor(ctx, d.conn, d.user.oid)
	if err != nil {
		return err
	}
	var leases []string
	for _, l := range roles {
		leases = append(leases, l.Name)
	}
	if len(leases) > 0 {
		p.leases = true
		p.block("leases act for it, to be ended first: %s", some(leases, len(leases)))
	}
	if d.s.WithMembers {
		return nil
	}
	members, err := readMembers(ctx, d.conn, d.user.Name)
	members = slices.DeleteFunc(members, func(name string) bool { return slices.Contains(leases, name) })
	if len(members) > 0 {
		p.block("other roles are members of it and would lose what they have by it (withMembers or --with-members lets them): %s",
			some(members, len(members)))
	}
	return err
}
