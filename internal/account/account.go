// Package account is the accounts of the platform, people and programs, and the Principal, the account of one request.
// How an account proves who it is belongs to package identity.
package account

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/control"
	"rolecall/internal/fault"
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

// Account is one identity of the platform.
type Account struct {
	ID           int64
	GUID         string // 1 to 200 characters, not necessarily a UUID
	Username     string
	Origin       string
	PasswordHash string // argon2id in PHC form; empty when it cannot sign in with a password
	Active       bool
	Scopes       []string
	Labels       map[string]string
	Epoch        uuid.UUID // what tokens are bound to
	CreatedAt    time.Time
	UpdatedAt    time.Time
}

// Principal is the authenticated account of one request, with the scopes that its credential carries.
type Principal struct {
	GUID, Username, Origin string
	Scopes                 []string
	Labels                 map[string]string
	// RequestID and Address say where the request came from, for the audit log.
	RequestID, Address string
}

// Has reports whether the principal has one of the scopes.
func (p *Principal) Has(scopes ...string) bool {
	return slices.ContainsFunc(scopes, func(s string) bool { return slices.Contains(p.Scopes, s) })
}

// Store is the accounts in the control database.
type Store struct {
	DB *control.DB
}

const columns = `id, guid, username, origin, coalesce(password_hash, ''), active, scopes, labels, epoch, created_at, updated_at`

// ByUsername finds an account by its name, in any case, and origin.
func (s *Store) ByUsername(ctx context.Context, username, origin string) (*Account, error) {
	return s.one(ctx, `WHERE lower(username) = lower($1) AND origin = $2`, username, origin)
}

// ByGUID finds an account by its guid.
func (s *Store) ByGUID(ctx context.Context, guid string) (*Account, error) {
	return s.one(ctx, `WHERE guid = $1`, guid)
}

func (s *Store) one(ctx context.Context, where string, args ...any) (*Account, error) {
	rows, err := s.DB.Pool.Query(ctx, `SELECT `+columns+` FROM accounts `+where, args...)
	if err != nil {
		return nil, control.Fault(err)
	}
	a, err := pgx.CollectExactlyOneRow(rows, scan)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fault.New(fault.NotFound, "There is no such account.")
	}
	return a, control.Fault(err)
}

func scan(row pgx.CollectableRow) (*Account, error) {
	var a Account
	err := row.Scan(&a.ID, &a.GUID, &a.Username, &a.Origin, &a.PasswordHash, &a.Active, &a.Scopes, &a.Labels, &a.Epoch, &a.CreatedAt, &a.UpdatedAt)
	return &a, err
}

// Create adds an account within tx and returns its guid: a fresh UUID when a.GUID is empty.
func (s *Store) Create(ctx context.Context, tx pgx.Tx, a *Account) error {
	if a.GUID == "" {
		a.GUID = uuid.NewString()
	}
	if a.Origin == "" {
		a.Origin = LocalOrigin
	}
	if a.Labels == nil {
		a.Labels = map[string]string{}
	}
	err := tx.QueryRow(ctx, `
		INSERT INTO accounts (guid, username, origin, password_hash, scopes, labels)
		VALUES ($1, $2, $3, nullif($4, ''), $5, $6)
		RETURNING id, active, epoch, created_at, updated_at`,
		a.GUID, a.Username, a.Origin, a.PasswordHash, a.Scopes, a.Labels).
		Scan(&a.ID, &a.Active, &a.Epoch, &a.CreatedAt, &a.UpdatedAt)
	if sqlstate.Is(err, sqlstate.UniqueViolation) {
		return fault.New(fault.Exists, "An account %q of origin %q exists already.", a.Username, a.Origin)
	}
	return err
}

// Reset gives an account a new password and scopes within tx, makes it active, and ends its tokens.
func (s *Store) Reset(ctx context.Context, tx pgx.Tx, id int64, passwordHash string, scopes []string) error {
	_, err := tx.Exec(ctx, `
		UPDATE accounts SET password_hash = $2, scopes = $3, active = true, epoch = gen_random_uuid(), updated_at = now()
		WHERE id = $1`, id, passwordHash, scopes)
	return err
}
