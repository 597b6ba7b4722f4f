package pgrole

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/sqlstate"
)

// CheckGrantable refuses roles that are not among those that may be granted.
func CheckGrantable(roles, grantable []string) error {
	for _, role := range roles {
		if !slices.Contains(grantable, role) {
			err := fault.New(fault.Invalid, "The role %q is not among those that can be granted in this cluster: %s.", role,
				cmp.Or(strings.Join(grantable, ", "), "there are none"))
			if slices.ContainsFunc(Levels, func(l Level) bool { return strings.HasSuffix(role, l.suffix()) }) {
				err = err.Add("The level of an access role is given by the access to its database.")
			}
			return err
		}
	}
	return nil
}

// notAccessRoles refuses access roles, also among those that may be granted: a level is given by access only, which keeps
// one level for each database. err says what else is wrong with the roles.
func (s *Server) notAccessRoles(ctx context.Context, roles []string, err error) error {
	for _, role := range roles {
		u, readErr := s.lookup(ctx, role)
		if readErr != nil {
			return cmp.Or(err, readErr)
		}
		if u != nil && u.Provenance.Access != nil {
			a := u.Provenance.Access
			return fault.New(fault.Invalid, "The role %q is the access role of the level %s in the database %q. Give or take that "+
				"level by the access to the database.", role, a.Level, a.Database)
		}
	}
	return err
}

// membership is a role that a user is a direct member of, by one grantor. From PostgreSQL 16 on there may be several.
type membership struct {
	role, grantor string
	inherited     bool // the user has the role's privileges by it
	admin         bool // the user may make others members
	access        bool // of an access role
}

// usable reports whether another grant would add nothing. Up to PostgreSQL 15 the user itself decides whether it inherits.
func (m *membership) usable(tx *transaction) bool { return m.inherited || tx.version < 160000 }

// SetRoles makes the user a member of roles, and of no others that are grantable: what is missing, or does not give the
// role's privileges, is granted, without ADMIN OPTION, and what is too much is revoked. Memberships outside the grantable
// list are left alone and returned as kept.
func (s *Server) SetRoles(ctx context.Context, name string, roles []string, match etag.Match,
	by Actor) (d *Details, kept []string, err error) {
	if err := s.notAccessRoles(ctx, roles, CheckGrantable(roles, s.Grantable)); err != nil {
		return nil, nil, err
	}
	err = s.change(ctx, name, by, func(ctx context.Context, tx *transaction, u *User) error {
		if err := checkOrdinary(u, name, match); err != nil {
			return err
		}
		for _, role := range roles {
			if err := s.checkGrant(ctx, tx, role, name); err != nil {
				return err
			}
		}
		all, err := s.lockMemberships(ctx, tx, u)
		if err != nil {
			return err
		}
		kept = nil
		var has []string
		for _, m := range all {
			switch {
			case slices.Contains(roles, m.role):
				if m.usable(tx) {
					has = append(has, m.role)
				}
			case slices.Contains(s.Grantable, m.role) && !m.access:
				if err := tx.revoke(ctx, m, name); err != nil {
					return err
				}
			case !slices.Contains(kept, m.role):
				kept = append(kept, m.role)
			}
		}
		for _, role := range roles {
			if err := s.grantUnless(ctx, tx, slices.Contains(has, role), role, name); err != nil {
				return err
			}
			has = append(has, role)
		}
		d, err = s.recordMemberships(ctx, tx, u, by)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	return d, kept, nil
}

// GrantRole makes the user a member of a grantable role, without ADMIN OPTION. A membership that already gives the role's
// privileges stays as it is, and so do all memberships in other roles.
func (s *Server) GrantRole(ctx context.Context, name, role string, match etag.Match, by Actor) (d *Details, err error) {
	roles := []string{role}
	if err := s.notAccessRoles(ctx, roles, CheckGrantable(roles, s.Grantable)); err != nil {
		return nil, err
	}
	err = s.change(ctx, name, by, func(ctx context.Context, tx *transaction, u *User) error {
		if err := checkOrdinary(u, name, match); err != nil {
			return err
		}
		if err := s.checkGrant(ctx, tx, role, name); err != nil {
			return err
		}
		all, err := s.lockMemberships(ctx, tx, u)
		if err != nil {
			return err
		}
		has := slices.ContainsFunc(all, func(m membership) bool { return m.role == role && m.usable(tx) })
		if err := s.grantUnless(ctx, tx, has, role, name); err != nil {
			return err
		}
		d, err = s.recordMemberships(ctx, tx, u, by)
		return err
	})
	if err != nil {
		return nil, err
	}
	return d, nil
}

// RevokeRole ends the user's memberships in a grantable role, by all its grantors. All other memberships stay.
func (s *Server) RevokeRole(ctx context.Context, name, role string, match etag.Match, by Actor) (d *Details, err error) {
	roles := []string{role}
	if err := s.notAccessRoles(ctx, roles, CheckGrantable(roles, s.Grantable)); err != nil {
		return nil, err
	}
	err = s.change(ctx, name, by, func(ctx context.Context, tx *transaction, u *User) error {
		if err := checkOrdinary(u, name, match); err != nil {
			return err
		}
		group, err := s.role(ctx, tx, role)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		if group != nil && group.dangerous {
			return fault.New(fault.Forbidden, "The role %q is a system role: its memberships cannot be changed here.", role)
		}
		all, err := s.lockMemberships(ctx, tx, u)
		if err != nil {
			return err
		}
		for _, m := range all {
			if m.role != role {
				continue
			}
			if err := tx.revoke(ctx, m, name); err != nil {
				return err
			}
		}
		d, err = s.recordMemberships(ctx, tx, u, by)
		return err
	})
	if err != nil {
		return nil, err
	}
	return d, nil
}

// lockMemberships locks the user's row, and returns all its memberships. What may refuse a change of them is checked before:
// the lock may end a blocking session.
func (s *Server) lockMemberships(ctx context.Context, tx *transaction, u *User) ([]membership, error) {
	if err := s.alter(ctx, tx, u, ""); err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, `
		SELECT g.rolname::text, pg_get_userbyid(m.grantor)::text, `+inherits("m", "u")+`, m.admin_option, `+recordOfGroup+`
		FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid JOIN pg_roles u ON u.oid = m.member
		WHERE m.member = $1 ORDER BY g.rolname, 2`, u.oid)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (m membership, err error) {
		var comment []byte
		err = row.Scan(&m.role, &m.grantor, &m.inherited, &m.admin, &comment)
		_, p := parseComment(string(comment))
		m.access = p.Access != nil
		return m, err
	})
}

// recordMemberships records a change of the user's memberships, and reads the user back.
func (s *Server) recordMemberships(ctx context.Context, tx *transaction, u *User, by Actor) (*Details, error) {
	p := u.Provenance.changed(tx.now, by)
	if _, err := tx.Exec(ctx, commentOnRole(u.Name, p.comment(u.userComment))); err != nil {
		return nil, err
	}
	return s.readDetailsBack(ctx, tx, u)
}

// checkGrant refuses a role that does not exist, and one whose members Rolecall would protect: a user could do harm as a
// member, and could no longer be deleted.
func (s *Server) checkGrant(ctx context.Context, tx *transaction, role, member string) error {
	u, err := s.role(ctx, tx, role)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	switch {
	case u == nil:
		return fault.New(fault.Invalid, "There is no role %q in this cluster for %q to be a member of.", role, member)
	case role == "pg_database_owner":
		return fault.New(fault.Invalid, "PostgreSQL lets %q have no members.", role)
	case u.dangerous && u.protectedBy == role:
		return fault.New(fault.Forbidden, "The role %q is a system role: %q cannot be made a member of it here.", role, member)
	case u.dangerous:
		return fault.New(fault.Forbidden, "The role %q is a member of the system role %q: %q cannot be made a member of it here.",
			role, u.protectedBy, member)
	case u.Provenance.Lease != uuid.Nil:
		return fault.New(fault.Invalid, "The role %q is a lease, which ends: make %q a member of %q.", role, member,
			u.Provenance.For)
	}
	return nil
}

// grantUnless grants the role if the member does not have it yet. A role that may not be granted is refused in any case.
func (s *Server) grantUnless(ctx context.Context, tx *transaction, has bool, role, member string) error {
	if has {
		return s.checkGrant(ctx, tx, role, member)
	}
	return s.grant(ctx, tx, role, member)
}

// grant makes member a member of role that has its privileges.
func (s *Server) grant(ctx context.Context, tx *transaction, role, member string) error {
	if err := s.checkGrant(ctx, tx, role, member); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, tx.grantRole(role, member))
	return grantRefused(err, role, member)
}

// grantRole is the statement by which a member gets the privileges of a role.
func (tx *transaction) grantRole(role, member string) string {
	if tx.version < 160000 {
		return grantRole(role, member)
	}
	return grantRoleToUse(role, member)
}

// grantRefused says why a role was not granted to a member.
func grantRefused(err error, role, member string) error {
	switch sqlstate.Code(err) {
	case sqlstate.InvalidGrant:
		return fault.New(fault.Invalid, "The user %q cannot be made a member of %q, which is a member of %[1]q.", member,
			role).Because(err)
	case sqlstate.InsufficientPrivilege:
		return fault.New(fault.Forbidden, "Rolecall's administering role may not make members of %q: GRANT %s TO "+
			"<administering role> WITH ADMIN OPTION.", role, ident(role)).Because(err)
	case sqlstate.UndefinedObject:
		return fault.New(fault.Invalid, "There is no role %q in this cluster for %q to be a member of.", role, member).Because(err)
	}
	return err
}

// revoke ends one membership. From PostgreSQL 16 on only its grantor can.
func (tx *transaction) revoke(ctx context.Context, m membership, member string) error {
	sql := revokeRole(m.role, member)
	f := func() error {
		_, err := tx.Exec(ctx, sql)
		return err
	}
	var err error
	if tx.version < 160000 {
		err = f()
	} else {
		sql = revokeRoleAsGrantor(m.role, member)
		err = tx.asRole(ctx, m.grantor, f)
	}
	switch sqlstate.Code(err) {
	case sqlstate.DependentObjects:
		return fault.New(fault.InUse, "The user %q has made others members of %q, which has to be revoked first.", member,
			valid(m.role)).Because(err)
	case sqlstate.InsufficientPrivilege, sqlstate.InvalidGrant:
		return fault.New(fault.Forbidden, "The user %q was made a member of %q by %q, for whom Rolecall's administering role "+
			"may not revoke it.", member, valid(m.role), valid(m.grantor)).Because(err)
	}
	return err
}
