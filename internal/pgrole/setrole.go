package pgrole

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
)

// asRole runs f as another role: only the role that granted something, or a member of it, can revoke it. The administering
// role makes itself a member, if it is none, within the transaction. Nobody can be made a member of pg_database_owner, which
// owns the schema public: the owner of the database is its only member.
func (tx *transaction) asRole(ctx context.Context, role string, f func() error) error {
	var own bool
	err := tx.QueryRow(ctx, `
		SELECT name, name = current_user FROM pg_database d, LATERAL (SELECT CASE $1 WHEN 'pg_database_owner' THEN
		  pg_get_userbyid(datdba) ELSE $1 END) role (name)
		WHERE datname = current_database()`, role).Scan(&role, &own)
	if err != nil {
		return err
	}
	if own {
		return f()
	}
	return tx.withMembership(ctx, []string{role}, func() error {
		if _, err := tx.Exec(ctx, setRole(role)); err != nil {
			return err
		}
		if err := f(); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `RESET ROLE`)
		return err
	})
}

// withMembership runs f while the administering role is a member of the roles. Memberships that it did not have end in the
// same transaction, so no other session ever sees them. A superuser needs none.
func (tx *transaction) withMembership(ctx context.Context, roles []string, f func() error) error {
	if tx.superuser || len(roles) == 0 {
		return f()
	}
	end, err := tx.becomeMember(ctx, roles[0])
	if err != nil {
		return err
	}
	if err := tx.withMembership(ctx, roles[1:], f); err != nil {
		return err
	}
	if end != "" {
		_, err = tx.Exec(ctx, end)
	}
	return err
}

// becomeMember makes the administering role a member of a role, if it is none, and returns the statement that ends that.
//
// Up to PostgreSQL 15 there is one membership of a role in a role, so one that exists is left alone. From 16 on there is
// one for each grantor, each with its own options, and only the one that the administering role granted itself is ours
// to change and to put back.
func (tx *transaction) becomeMember(ctx context.Context, role string) (end string, err error) {
	if tx.version < 160000 {
		var member bool
		err := tx.QueryRow(ctx, `SELECT pg_has_role($1::name, 'MEMBER')`, role).Scan(&member) // an error if there is no such role
		if err != nil || member {
			return "", err
		}
		_, err = tx.Exec(ctx, grantMembership(role))
		return revokeMembership(role), err
	}
	var member bool
	err = tx.QueryRow(ctx, `SELECT pg_has_role($1::name, 'SET') AND pg_has_role($1::name, 'USAGE')`, role).Scan(&member)
	if err != nil || member {
		return "", err
	}
	var inherit, set bool
	err = tx.QueryRow(ctx, `
		SELECT m.inherit_option, m.set_option FROM pg_auth_members m
		JOIN pg_roles g ON g.oid = m.roleid AND g.rolname = $1
		JOIN pg_roles u ON u.oid = m.member AND u.oid = m.grantor AND u.rolname = current_user`, role).Scan(&inherit, &set)
	switch {
	case err == nil:
		end = grantMembershipWith(role, inherit, set)
	case errors.Is(err, pgx.ErrNoRows):
		end = revokeOwnMembership(role)
	default:
		return "", err
	}
	_, err = tx.Exec(ctx, grantMembershipWith(role, true, true))
	return end, err
}
