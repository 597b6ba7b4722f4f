package dbuser

import (
	"cmp"
	"context"
	"slices"

	"github.com/google/uuid"

	"rolecall/internal/access"
	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
)

// AccessRoles returns the access roles of a database.
func (s *Service) AccessRoles(ctx context.Context, p *account.Principal, clusterID, database string) (
	*pgrole.AccessRoles, error) {
	ctx, r, err := s.read(ctx, p, clusterID)
	if err != nil {
		return nil, err
	}
	defer r.end()
	return r.server.AccessRoles(ctx, database)
}

// EffectiveAccess says what a database user can do in each database, and why.
func (s *Service) EffectiveAccess(ctx context.Context, p *account.Principal, clusterID, name string) (
	*pgrole.Effective, error) {
	ctx, r, err := s.read(ctx, p, clusterID)
	if err != nil {
		return nil, err
	}
	defer r.end()
	return r.server.EffectiveAccess(ctx, name)
}

// checkWish refuses access roles that no database can have.
func checkWish(wish pgrole.AccessRolesWish) error {
	if err := pgrole.CheckStorableDatabase(wish.Database); err != nil {
		return err
	}
	if _, err := pgrole.AccessRole(wish.Database, pgrole.Own); err != nil {
		return err
	}
	switch all := slices.Contains(wish.Schemas, "*"); {
	case wish.Schemas != nil && len(wish.Schemas) == 0:
		return fault.New(fault.Invalid, `The list of schemas is empty: name those that the access roles cover, or send ["*"] for `+
			`all.`)
	case all && len(wish.Schemas) > 1:
		return fault.New(fault.Invalid,
			`The list of schemas has "*", which is all, and others: send ["*"] alone, or leave it out.`)
	}
	for _, schema := range wish.Schemas {
		if pgrole.CheckStorable(schema) != nil {
			return fault.New(fault.Invalid, "There is no schema %.100q in the database %q.", schema, wish.Database)
		}
	}
	return nil
}

// unique returns the texts in order, each once; nil stays nil.
func unique(texts []string) []string {
	if texts == nil {
		return nil
	}
	return append([]string{}, slices.Compact(slices.Sorted(slices.Values(texts)))...)
}

// PlanAccessRoles says what CompleteAccessRoles would run. It takes the right to do it, and records nothing.
func (s *Service) PlanAccessRoles(ctx context.Context, p *account.Principal, clusterID string,
	wish pgrole.AccessRolesWish) (*pgrole.AccessRoles, error) {
	c, err := s.Cluster(p, clusterID)
	if err != nil {
		return nil, err
	}
	wish.Schemas = unique(wish.Schemas)
	if err := cmp.Or(access.Refusal(p, c), checkWish(wish)); err != nil {
		return nil, err
	}
	ctx, r, err := s.plan(ctx, p, c)
	if err != nil {
		return nil, err
	}
	defer r.end()
	return r.server.PlanAccessRoles(ctx, wish)
}

// CompleteAccessRoles makes the access roles of a database, or what they lack.
func (s *Service) CompleteAccessRoles(ctx context.Context, p *account.Principal, clusterID string,
	wish pgrole.AccessRolesWish) (*pgrole.AccessRoles, error) {
	c, err := s.Cluster(p, clusterID)
	if err != nil {
		return nil, err
	}
	wish.Schemas = unique(wish.Schemas)
	op, err := s.begin(ctx, p, c, change{action: audit.MakeAccessRoles, target: wish.Database,
		detail: detail{Schemas: wish.Schemas, Adopt: wish.Adopt}, limit: databaseTimeout},
		cmp.Or(s.checkDatabaseName(ctx, p, clusterID, wish.Database), checkWish(wish)))
	if err != nil {
		return nil, err
	}
	defer op.release()
	var roles *pgrole.AccessRoles
	var outcome detail
	changing, err := op.waitAndDetach(ctx)
	if err == nil {
		roles, err = op.server.CompleteAccessRoles(changing, wish, op.by())
	}
	if err == nil {
		ran := len(roles.Statements)
		outcome.Ran = &ran
	}
	return roles, op.end(ctx, uuid.Nil, outcome, err)
}

// RemoveAccessRoles drops the access roles of a database. What they own goes to the role reassignTo; if it is empty, roles
// that own something are refused.
func (s *Service) RemoveAccessRoles(ctx context.Context, p *account.Principal, clusterID, database,
	reassignTo string) error {
	c, err := s.Cluster(p, clusterID)
	if err != nil {
		return err
	}
	invalid := s.checkDatabaseName(ctx, p, clusterID, database)
	if role, err := pgrole.AccessRole(database, pgrole.Own); invalid == nil && reassignTo != "" {
		invalid = cmp.Or(err, pgrole.CheckReassign(role, reassignTo))
	}
	op, err := s.begin(ctx, p, c, change{action: audit.DropAccessRoles, target: database,
		detail: detail{ReassignTo: reassignTo}, limit: deleteTimeout}, invalid)
	if err != nil {
		return err
	}
	defer op.release()
	changing, err := op.waitAndDetach(ctx)
	if err == nil {
		err = op.server.RemoveAccessRoles(changing, database, reassignTo, op.by())
	}
	return op.end(ctx, uuid.Nil, detail{}, err)
}

// SetAccess gives a database user exactly one level in a database that has access roles; nil: none any more.
func (s *Service) SetAccess(ctx context.Context, p *account.Principal, clusterID, name, database string,
	level *pgrole.Level, match etag.Match) (*pgrole.Details, error) {
	c, err := s.Cluster(p, clusterID)
	if err != nil {
		return nil, err
	}
	invalid := cmp.Or(s.checkUserName(ctx, p, clusterID, name), s.checkDatabaseName(ctx, p, clusterID, database))
	if invalid == nil && level != nil {
		invalid = pgrole.CheckLevel(*level)
	}
	op, err := s.begin(ctx, p, c, change{action: audit.ChangeAccess, target: name,
		detail: detail{Database: database, Level: &level}, limit: changeTimeout, oneTransaction: true}, invalid)
	if err != nil {
		return nil, err
	}
	defer op.release()
	changing, err := op.waitAndDetach(ctx)
	var d *pgrole.Details
	switch {
	case err != nil:
	case level == nil:
		d, err = op.server.RemoveAccess(changing, name, database, match, op.by())
	default:
		d, err = op.server.SetAccess(changing, name, pgrole.Access{Database: database, Level: *level}, match, op.by())
	}
	return op.endUser(ctx, d, detail{}, err)
}

// endUser is end for a change of a user, d as it is after it. With d, an error is about what follows the change, such as the
// end of sessions.
func (op *operation) endUser(ctx context.Context, d *pgrole.Details, outcome detail, err error) (*pgrole.Details, error) {
	if d == nil {
		return nil, op.end(ctx, uuid.Nil, detail{}, err)
	}
	if err != nil {
		outcome.Reason = fault.Of(err).Message
	}
	if err := cmp.Or(err, op.end(ctx, d.Provenance.Previous, outcome, nil)); err != nil {
		return nil, err
	}
	return d, nil
}
