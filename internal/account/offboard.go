package account

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/audit"
	"rolecall/internal/control"
	"rolecall/internal/fault"
)

// MayOffboard says whether the principal may offboard accounts. That ends how they sign in, so no personal access token may.
func (p *Principal) MayOffboard() error {
	switch {
	case p.Token != uuid.Nil:
		return errTokenIdentity
	case !p.Has(ScopeAdmin):
		return errAdminOnly
	}
	return nil
}

// ToOffboard returns an account that the principal is about to offboard, or why it may not.
func (s *Store) ToOffboard(ctx context.Context, p *Principal, guid string) (*Profile, error) {
	var a *Profile
	err := s.DB.Tx(ctx, func(tx pgx.Tx) (err error) {
		a, err = s.LockToOffboard(ctx, tx, p, guid)
		return err
	})
	return a, err
}

// LockToOffboard is ToOffboard with locks: until the transaction ends, the account, the principal's and those of all admins
// stay as they are.
func (s *Store) LockToOffboard(ctx context.Context, tx pgx.Tx, p *Principal, guid string) (*Profile, error) {
	if !storable(guid) {
		return nil, errNoAccount
	}
	remain, err := lockAdmins(ctx, tx, guid, p.GUID)
	if err != nil {
		return nil, err
	}
	if err := s.CheckActive(ctx, tx, p); err != nil {
		return nil, err
	}
	a, err := readProfile(ctx, tx, p, guid, ``)
	switch {
	case err != nil:
		return nil, err
	case a.GUID == p.GUID:
		return nil, fault.New(fault.Invalid, "You cannot offboard your own account: what is done to its database users is done "+
			"in your name. Have another admin do it.")
	case a.CanSignIn() && slices.Contains(a.Scopes, ScopeAdmin) && !remain:
		return nil, errLastAdmin
	}
	return a, nil
}

var errLastAdmin = fault.New(fault.Invalid, "This is the last active admin. Give another account the scope %s first.",
	ScopeAdmin)

// lockAdmins locks two accounts and those of all people who are active admins, and reports whether there are such people
// beside the first account.
func lockAdmins(ctx context.Context, tx pgx.Tx, guid, principal string) (remain bool, err error) {
	// In one order, so that two admins who change each other wait for each other, but not without end.
	rows, err := tx.Query(ctx, `
		SELECT guid, $3 = ANY (scopes) AND active AND identity_created_at IS NOT NULL AND NOT program FROM accounts
		WHERE guid IN ($1, $2) OR $3 = ANY (scopes) AND active AND identity_created_at IS NOT NULL AND NOT program
		ORDER BY guid FOR NO KEY UPDATE`, guid, principal, ScopeAdmin)
	if err != nil {
		return false, err
	}
	var other string
	var admin bool
	_, err = pgx.ForEachRow(rows, []any{&other, &admin}, func() error {
		remain = remain || admin && other != guid
		return nil
	})
	return remain, err
}

// isAdmin reports whether the account is that of a person who is an active admin.
func (a *Profile) isAdmin() bool {
	return a.CanSignIn() && !a.OAuthClient && slices.Contains(a.Scopes, ScopeAdmin)
}

// ShownName is the name in the audit log.
func (a *Profile) ShownName() string { return shownName(a.Username, a.Origin) }

// Offboard makes an account that is locked inactive, which ends its tokens, and records the entry.
func (s *Store) Offboard(ctx context.Context, tx pgx.Tx, a *Profile, e audit.Entry) error {
	if !a.CanSignIn() {
		return s.Audit.Record(ctx, tx, e)
	}
	want := *a
	want.Active = false
	_, err := s.save(ctx, tx, &want, parts{identity: true}, e)
	return err
}

// TokenName is a personal access token by its id and name.
type TokenName struct {
	ID   uuid.UUID `json:"id"`
	Name string    `json:"name"`
}

// SignedIn is how often an account is signed in with a client, and when it last signed in or was renewed.
type SignedIn struct {
	Client string    `json:"client"`
	Count  int       `json:"count"`
	LastAt time.Time `json:"lastAt"`
}

// vaultClient stands for the clients of HashiCorp Vault, whose sign-ins name none.
const vaultClient = "vault"

// consoleClient stands for sessions in a browser.
const consoleClient = "console"

// SignIns returns the personal access tokens of an account, and what it is signed in with.
func (s *Store) SignIns(ctx context.Context, q control.Querier, id int64) (tokens []TokenName, sessions []SignedIn,
	err error) {
	rows, err := q.Query(ctx, `
		SELECT id, name FROM personal_tokens
		WHERE account_id = $1 AND renewable_until IS NULL AND (expires_at IS NULL OR expires_at > now()) ORDER BY name, id`, id)
	if err != nil {
		return nil, nil, err
	}
	if tokens, err = pgx.CollectRows(rows, pgx.RowToStructByPos[TokenName]); err != nil {
		return nil, nil, err
	}
	rows, err = q.Query(ctx, `
		SELECT client, count(*)::int, max(at) FROM (
		  SELECT r.client_id AS client, r.created_at AS at FROM refresh_tokens r JOIN accounts a ON a.id = r.account_id
		  WHERE a.id = $1 AND a.active AND r.epoch = a.epoch AND r.replaced_at IS NULL AND r.expires_at > now()
		  UNION ALL
		  SELECT $2::text, coalesce(t.last_used_at, t.created_at) FROM personal_tokens t JOIN accounts a ON a.id = t.account_id
		  WHERE a.id = $1 AND a.active AND t.renewable_until IS NOT NULL AND t.epoch = a.epoch AND t.expires_at > now()
		  UNION ALL
		  SELECT $3::text, c.last_used_at FROM console_sessions c JOIN accounts a ON a.id = c.account_id
		  WHERE a.id = $1 AND a.active AND c.epoch = a.epoch AND c.expires_at > now()) s
		GROUP BY client ORDER BY client`, id, vaultClient, consoleClient)
	if err != nil {
		return nil, nil, err
	}
	sessions, err = pgx.CollectRows(rows, pgx.RowToStructByPos[SignedIn])
	for i := range sessions {
		sessions[i].LastAt = sessions[i].LastAt.UTC()
	}
	return tokens, sessions, err
}
