// Package account is the accounts of the platform, of people and of OAuth clients, and the Principal, the account of one
// request. Package identity authenticates them.
package account

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/audit"
	"rolecall/internal/control"
	"rolecall/internal/fault"
	"rolecall/internal/secret"
	"rolecall/internal/sqlstate"
)

// LocalOrigin is the origin of accounts whose password is kept here. The name is the one that the clients of the
// ecosystem send.
const LocalOrigin = "uaa"

// The scopes of the platform. Their names are Cloud Foundry's.
const (
	ScopeAdmin         = "cloud_controller.admin"
	ScopeAdminReadOnly = "cloud_controller.admin_read_only"
	ScopeAuditor       = "cloud_controller.global_auditor"
	ScopeRead          = "cloud_controller.read"
	ScopeWrite         = "cloud_controller.write"
	ScopeSCIMRead      = "scim.read"
	ScopeSCIMWrite     = "scim.write"
)

// AdminScopes are the scopes of an account that may do everything.
var AdminScopes = []string{ScopeAdmin, ScopeRead, ScopeWrite, ScopeSCIMRead, ScopeSCIMWrite}

// Account is one account of the platform. It has an identity, which signs in, a platform user, which has labels and
// annotations, or both. Each exists if its creation time is not zero.
type Account struct {
	ID       int64
	GUID     string // 1 to 200 characters, not necessarily a UUID
	Username string // "" for a platform user known by its guid alone, and for a program
	Origin   string
	Scopes   []string
	Epoch    uuid.UUID // what tokens are bound to

	IdentityCreatedAt time.Time
	Program           bool        // an OAuth client, whose id is the guid
	PasswordHash      secret.Text // argon2id in PHC form; "" when it cannot sign in with a password or secret
	Active            bool
	GrantTypes        []string // of a program: the OAuth grants that it may use
	UserScopes        []string // of a program: the scopes that a user's token may carry through it

	PlatformCreatedAt time.Time
	Labels            map[string]string
}

// Principal is the authenticated account of one request, with the scopes that its credential carries.
type Principal struct {
	GUID, Username, Origin string
	Scopes                 []string
	Labels                 map[string]string
	// Epoch is the account's when the credential was last verified.
	Epoch uuid.UUID
	// Token is the personal access token that the request came with; zero: another credential.
	Token uuid.UUID
	// ReadOnly says that the token changes nothing. No scope to change with is among Scopes then; CouldWrite says that one
	// would be, so that the token reads what its account may read because it manages it.
	ReadOnly, CouldWrite bool
	// Clusters are the only ones that the token reaches; nil: no limit. A token with a limit opens nothing beyond them, so
	// the scopes that would are not among Scopes: ClusterScopes has them, and HasOn counts them on these clusters alone.
	Clusters      []uuid.UUID
	ClusterScopes []string
	// RequestID and Address say where the request came from, for the audit log.
	RequestID, Address string
}

// Has reports whether the principal has one of the scopes.
func (p *Principal) Has(scopes ...string) bool {
	return slices.ContainsFunc(scopes, func(s string) bool { return slices.Contains(p.Scopes, s) })
}

// Reaches reports whether the principal's credential is not limited to other clusters.
func (p *Principal) Reaches(cluster uuid.UUID) bool {
	return p.Clusters == nil || slices.Contains(p.Clusters, cluster)
}

// HasOn is Has for what is done on one cluster.
func (p *Principal) HasOn(cluster uuid.UUID, scopes ...string) bool {
	if !p.Reaches(cluster) {
		return false
	}
	return p.Has(scopes...) || slices.ContainsFunc(scopes, func(s string) bool { return slices.Contains(p.ClusterScopes, s) })
}

// Limit makes the principal that of a personal access token. It keeps the scopes that the limits leave, so that a check
// of a scope need not consider tokens.
func (p *Principal) Limit(token uuid.UUID, readOnly bool, clusters []uuid.UUID) {
	p.Token, p.ReadOnly, p.Clusters = token, readOnly, clusters
	if readOnly {
		p.CouldWrite = p.Has(ScopeAdmin, ScopeWrite)
		var reads []string
		for _, s := range p.Scopes {
			switch s {
			case ScopeAdmin:
				reads = append(reads, ScopeAdminReadOnly)
			case ScopeWrite, ScopeSCIMWrite:
			default:
				reads = append(reads, s)
			}
		}
		p.Scopes = inOrder(reads)
	}
	if clusters != nil {
		p.ClusterScopes = p.Scopes
		p.Scopes = slices.DeleteFunc(slices.Clone(p.Scopes), func(s string) bool { return !slices.Contains(DefaultScopes, s) })
	}
}

// Entry is what the audit log is told of something that the principal does.
func (p *Principal) Entry(action, target string, detail any) audit.Entry {
	return audit.Entry{
		Action:      action,
		AccountGUID: p.GUID,
		AccountName: p.Username,
		Token:       p.Token,
		Target:      target,
		RequestID:   p.RequestID,
		Address:     p.Address,
		Detail:      detail,
	}
}

// endPersonalTokens ends the personal access tokens of an account. They end when the account may no longer sign in, when its
// identity or platform user is deleted, and when someone else sets its password, because that may be the answer to a theft.
// They stay when the account changes its own password: services use them in place of it, and they are revoked one by one.
func endPersonalTokens(ctx context.Context, tx pgx.Tx, id int64) error {
	_, err := tx.Exec(ctx, `DELETE FROM personal_tokens WHERE account_id = $1`, id)
	return err
}

// Store is the accounts in the control database.
type Store struct {
	DB *control.DB

	lists lists
}

const columns = `id, guid, coalesce(username, ''), coalesce(origin, ''), scopes, epoch,
	coalesce(identity_created_at, '0001-01-01'), program, coalesce(password_hash, ''), active, grant_types, user_scopes,
	coalesce(platform_created_at, '0001-01-01'), labels`

// ByUsername finds an account by its name, in any case, and origin.
func (s *Store) ByUsername(ctx context.Context, username, origin string) (*Account, error) {
	return s.one(ctx, `WHERE lower(username) = lower($1) AND origin = $2`, username, origin)
}

// ByGUID finds an account by its guid.
func (s *Store) ByGUID(ctx context.Context, guid string) (*Account, error) {
	return s.one(ctx, `WHERE guid = $1`, guid)
}

// Again finds the accounts of credentials that were verified before, nil for each that is gone, over the connections that
// are kept for that.
func (s *Store) Again(ctx context.Context, guids []string) ([]*Account, error) {
	rows, err := s.DB.SignIn.Query(ctx, `SELECT `+columns+` FROM accounts WHERE guid = ANY ($1)`, guids)
	if err != nil {
		return nil, control.Fault(err)
	}
	found, err := pgx.CollectRows(rows, scan)
	if err != nil {
		return nil, control.Fault(err)
	}
	byGUID := make(map[string]*Account, len(found))
	for _, a := range found {
		byGUID[a.GUID] = a
	}
	accounts := make([]*Account, len(guids))
	for i, guid := range guids {
		if a := byGUID[guid]; a != nil {
			own := *a // who asked may change it
			accounts[i] = &own
		}
	}
	return accounts, nil
}

var errNoAccount = fault.New(fault.NotFound, "There is no such account.")

func (s *Store) one(ctx context.Context, where string, args ...string) (*Account, error) {
	values := make([]any, len(args))
	for i, arg := range args {
		if !storable(arg) {
			return nil, errNoAccount
		}
		values[i] = arg
	}
	rows, err := s.DB.Pool.Query(ctx, `SELECT `+columns+` FROM accounts `+where, values...)
	if err != nil {
		return nil, control.Fault(err)
	}
	a, err := pgx.CollectExactlyOneRow(rows, scan)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, errNoAccount
	}
	return a, control.Fault(err)
}

func scan(row pgx.CollectableRow) (*Account, error) {
	var a Account
	err := row.Scan(&a.ID, &a.GUID, &a.Username, &a.Origin, &a.Scopes, &a.Epoch,
		&a.IdentityCreatedAt, &a.Program, &a.PasswordHash, &a.Active, &a.GrantTypes, &a.UserScopes, &a.PlatformCreatedAt,
		&a.Labels)
	return &a, err
}

// Create adds an account with identity and platform user within tx, with a new guid.
func (s *Store) Create(ctx context.Context, tx pgx.Tx, username, passwordHash string,
	scopes []string) (guid string, err error) {
	err = tx.QueryRow(ctx, `
		INSERT INTO accounts (guid, username, origin, password_hash, password_changed_at, scopes, emails,
		  identity_created_at, identity_updated_at, platform_created_at, platform_updated_at)
		VALUES ($1, $2, $3, $4, now(), $5, ARRAY[$2], now(), now(), now(), now())
		RETURNING guid`, uuid.NewString(), username, LocalOrigin, passwordHash, scopes).Scan(&guid)
	if sqlstate.Is(err, sqlstate.UniqueViolation) {
		err = fault.New(fault.Exists, "An account %q of origin %q exists already.", username, LocalOrigin)
	}
	return guid, err
}

// Reset gives an account a new password and scopes within tx, creates its identity or platform user if missing, activates
// it, and ends its tokens.
func (s *Store) Reset(ctx context.Context, tx pgx.Tx, id int64, passwordHash string, scopes []string) error {
	_, err := tx.Exec(ctx, `
		UPDATE accounts SET password_hash = $2, password_changed_at = now(), scopes = $3, active = true, epoch = gen_random_uuid(),
		  identity_created_at = coalesce(identity_created_at, now()), identity_updated_at = now(), identity_version =
		    identity_version + 1,
		  platform_created_at = coalesce(platform_created_at, now()), platform_updated_at = now()
		WHERE id = $1`, id, passwordHash, scopes)
	if err != nil {
		return err
	}
	return endPersonalTokens(ctx, tx, id)
}
