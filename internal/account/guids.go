package account

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/control"
	"rolecall/internal/fault"
	"rolecall/internal/label"
)

// GUIDsNamed returns the guids of the accounts of a name, in any case, that is as the audit log shows it.
func (s *Store) GUIDsNamed(ctx context.Context, name string) ([]string, error) {
	if !storable(name) {
		return nil, nil
	}
	origin := LocalOrigin
	if i := strings.LastIndexByte(name, ':'); i >= 0 {
		origin, name = name[:i], name[i+1:]
	}
	return s.guids(ctx, `lower(username) = lower($1) AND origin = $2`, name, origin)
}

// GUIDsSelected returns the guids of the accounts with labels that a selector matches. It is for principals that may see the
// labels of others.
func (s *Store) GUIDsSelected(ctx context.Context, p *Principal, selector label.Selector) ([]string, error) {
	if !seesAll(p) {
		return nil, fault.New(fault.Forbidden, "To choose by the labels of accounts, which you may not see, needs one of the "+
			"scopes %s. Choose by the account with createdBy instead.", strings.Join([]string{ScopeAdmin, ScopeAdminReadOnly,
			ScopeAuditor}, ", "))
	}
	c := &conditions{}
	for _, r := range selector {
		c.requirement(r)
	}
	return s.guids(ctx, strings.Join(c.clauses, ` AND `), planned(c.args)...)
}

// AnyLabeled reports whether an account has a label.
func (s *Store) AnyLabeled(ctx context.Context) (any bool, err error) {
	err = s.DB.Pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM accounts WHERE labels <> '{}')`).Scan(&any)
	return any, control.Fault(err)
}

func (s *Store) guids(ctx context.Context, where string, args ...any) ([]string, error) {
	rows, err := s.DB.Pool.Query(ctx, `SELECT guid FROM accounts WHERE `+where, args...)
	if err != nil {
		return nil, control.Fault(err)
	}
	guids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return guids, control.Fault(err)
}

// Names returns the names of those accounts that the principal sees, by guid, as the audit log shows them.
func (s *Store) Names(ctx context.Context, p *Principal, guids []string) (map[string]string, error) {
	// They may be from comments, which anybody writes.
	guids = slices.DeleteFunc(slices.Clone(guids), func(guid string) bool { return !storable(guid) })
	c := &conditions{}
	c.visible(p, ScopeSCIMRead)
	c.add(`guid = ANY (`, c.arg(guids), `)`)
	rows, err := s.DB.Pool.Query(ctx, `SELECT guid, coalesce(username, ''), coalesce(origin, '') FROM accounts WHERE `+
		strings.Join(c.clauses, ` AND `), planned(c.args)...)
	if err != nil {
		return nil, control.Fault(err)
	}
	names := map[string]string{}
	var guid, username, origin string
	_, err = pgx.ForEachRow(rows, []any{&guid, &username, &origin}, func() error {
		names[guid] = cmp.Or(shownName(username, origin), guid)
		return nil
	})
	return names, control.Fault(err)
}
