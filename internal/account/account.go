// Package account is the accounts of the platform and the Principal, which is the account of one request.
// How an account proves who it is belongs to package identity.
package account

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/audit"
	"rolecall/internal/batch"
	"rolecall/internal/control"
	"rolecall/internal/fault"
	"rolecall/internal/secret"
)

// LocalOrigin is the origin of accounts whose password is kept here. The name is the one that the clients of the
// ecosystem send.
const LocalOrigin = "uaa"

// Account is what a sign-in needs of an account: of one person, of one OAuth client, or of somebody who is known by a guid
// alone. It can have an identity, which signs in and which /uaa shows, and be a platform user, which has labels and
// annotations and which /v3 shows. It is one of the two or both, and is so when that creation time is not zero.
type Account struct {
	ID       int64
	GUID     string // 1 to 200 characters, not necessarily a UUID
	Username string // "" for a platform user known by its guid alone, and for an OAuth client
	Origin   string
	Scopes   []string
	Epoch    uuid.UUID // what tokens are bound to

	IdentityCreatedAt time.Time
	OAuthClient       bool        // its client id is the guid
	PasswordHash      secret.Text // argon2id in PHC form; "" when it cannot sign in with a password or secret
	Active            bool
	GrantTypes        []string // of an OAuth client: the grants that it may use
	UserScopes        []string // of an OAuth client: the scopes that a user's token may carry through it
	// AccessValidity and RefreshValidity are those of an OAuth client, in seconds; 0: the usual time.
	AccessValidity, RefreshValidity int

	PlatformCreatedAt time.Time
	Labels            map[string]string
	LabelSources      map[string]string // the names of the issuers that set labels, by the keys of these
}

// ShownName is the name in the audit log.
func (a *Account) ShownName() string { return shownName(a.Username, a.Origin) }

// shownName is a local account's name, and origin:name of any other. No name has a colon, so neither looks like the other.
func shownName(username, origin string) string {
	if origin == LocalOrigin || origin == "" || username == "" {
		return username
	}
	return origin + ":" + username
}

// Store is the accounts in the control database.
type Store struct {
	DB    *control.DB
	Audit *audit.Log

	issuers       []Issuer
	lists         lists
	platformReads batch.Group[string, *Profile]
}

// NewStore returns the accounts of a control database, with its audit log. People of the issuers sign in, too.
func NewStore(db *control.DB, issuers ...Issuer) *Store {
	s := &Store{DB: db, Audit: &audit.Log{DB: db}, issuers: issuers}
	g := &s.platformReads
	g.Parallel, g.Slow, g.Longest, g.Timeout = 2, batch.Slow, maxPlatformReads, platformReadTimeout
	return s
}

// A query reads up to maxPlatformReads platform users: the annotations of each can be long. PostgreSQL ends it before
// platformReadTimeout.
const (
	maxPlatformReads    = 16
	platformReadTimeout = 10 * time.Second
)

const columns = `id, guid, coalesce(username, ''), coalesce(origin, ''), scopes, epoch,
	coalesce(identity_created_at, '0001-01-01'), program, coalesce(password_hash, ''), active, grant_types, user_scopes,
	access_validity, refresh_validity, coalesce(platform_created_at, '0001-01-01'), labels, label_sources`

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
	return each(guids, found, func(a *Account) string { return a.GUID }), nil
}

// each returns what was found under each of the guids, nil if nothing was.
func each[T any](guids []string, found []*T, guid func(*T) string) []*T {
	byGUID := make(map[string]*T, len(found))
	for _, a := range found {
		byGUID[guid(a)] = a
	}
	all := make([]*T, len(guids))
	for i, guid := range guids {
		if a := byGUID[guid]; a != nil {
			own := *a // who asked may change it
			all[i] = &own
		}
	}
	return all
}

// Resume returns what an earlier principal may do now: with the rights that its account has today, as far as its credential
// carried them. It is Forbidden if the account or the credential has ended since. A new password ends sign-ins, but not a
// personal access token.
func (s *Store) Resume(ctx context.Context, then *Principal) (*Principal, error) {
	a, err := s.ByGUID(ctx, then.GUID)
	switch {
	case fault.Is(err, fault.NotFound) || err == nil && a.IdentityCreatedAt.IsZero():
		return nil, fault.New(fault.Forbidden, "The account was deleted.")
	case err != nil:
		return nil, err
	case !a.Active:
		return nil, fault.New(fault.Forbidden, "The account was deactivated.")
	case then.Token == uuid.Nil && then.Epoch != uuid.Nil && then.Epoch != a.Epoch:
		return nil, fault.New(fault.Forbidden, "The account was signed out in the meantime, as by a new password.")
	}
	if then.Token != uuid.Nil || then.AccessToken != uuid.Nil {
		var ended bool
		err := s.DB.Pool.QueryRow(ctx, `
			SELECT EXISTS (SELECT FROM revoked_tokens WHERE id = $2)
			  OR $1::uuid <> '00000000-0000-0000-0000-000000000000' AND NOT EXISTS (
			    SELECT FROM personal_tokens WHERE id = $1 AND account_id = $3 AND (epoch IS NULL OR epoch = $4))`,
			then.Token, then.AccessToken, a.ID, a.Epoch).Scan(&ended)
		if err != nil {
			return nil, control.Fault(err)
		}
		if ended {
			return nil, fault.New(fault.Forbidden, "The token was revoked.")
		}
	}
	now := *then
	now.Username, now.Origin, now.Epoch, now.Scopes = a.Username, a.Origin, a.Epoch, nil
	now.Labels, now.LabelSources = a.Labels, a.LabelSources
	for _, scope := range a.Scopes {
		if slices.Contains(then.Scopes, scope) {
			now.Scopes = append(now.Scopes, scope)
		}
	}
	if then.Clusters != nil {
		now.Limit(then.Token, false, then.Clusters)
	}
	return &now, nil
}

// CheckActive refuses a principal whose account is gone, or may no longer sign in, or whose token was revoked. Until the
// transaction ends, the account and a personal access token stay as they are.
func (s *Store) CheckActive(ctx context.Context, tx pgx.Tx, p *Principal) error {
	var active, revoked bool
	err := tx.QueryRow(ctx, `
		SELECT active AND identity_created_at IS NOT NULL, EXISTS (SELECT FROM revoked_tokens WHERE id IN ($2, $3))
		FROM accounts WHERE guid = $1 FOR NO KEY UPDATE`, p.GUID, p.AccessToken, p.Family).Scan(&active, &revoked)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	if !active {
		return fault.New(fault.Forbidden, "Your account was deactivated or deleted.")
	}
	if p.Token != uuid.Nil {
		tag, err := tx.Exec(ctx, `SELECT FROM personal_tokens WHERE id = $1 FOR KEY SHARE`, p.Token)
		if err != nil {
			return err
		}
		revoked = tag.RowsAffected() == 0
	}
	if revoked {
		return fault.New(fault.Forbidden, "Your token was revoked.")
	}
	return nil
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
		&a.IdentityCreatedAt, &a.OAuthClient, &a.PasswordHash, &a.Active, &a.GrantTypes, &a.UserScopes,
		&a.AccessValidity, &a.RefreshValidity, &a.PlatformCreatedAt, &a.Labels, &a.LabelSources)
	return &a, err
}

// Create adds an account that signs in and is a platform user within tx, under a fresh guid.
func (s *Store) Create(ctx context.Context, tx pgx.Tx, username, hash string, scopes []string) (guid string, err error) {
	if err := CheckUsername(username); err != nil {
		return "", err
	}
	n := newProfile(uuid.NewString(), username, LocalOrigin, scopes)
	made, err := insert(ctx, tx, n, parts{identity: true, platform: true}, &hash)
	if err == nil && made == nil {
		err = fault.New(fault.Exists, "An account %q of origin %q exists already.", username, LocalOrigin)
	}
	return n.GUID, err
}

// HasAdmin reports whether somebody can sign in as an admin. OAuth clients do not count.
func (s *Store) HasAdmin(ctx context.Context, q control.Querier) (has bool, err error) {
	err = q.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM accounts WHERE $1 = ANY (scopes) AND active AND identity_created_at IS NOT NULL
		  AND NOT program)`, ScopeAdmin).Scan(&has)
	return has, control.Fault(err)
}

// Reset gives an account a new password and scopes within tx, makes it an active identity and a platform user, and ends its
// tokens.
func (s *Store) Reset(ctx context.Context, tx pgx.Tx, id int64, passwordHash string, scopes []string) error {
	_, err := tx.Exec(ctx, `
		UPDATE accounts SET password_hash = $2, password_changed_at = now(), scopes = $3, active = true, epoch = gen_random_uuid(),
		  identity_created_at = coalesce(identity_created_at, now()), identity_updated_at = now(),
		  identity_version = identity_version + 1,
		  platform_created_at = coalesce(platform_created_at, now()), platform_updated_at = now()
		WHERE id = $1`, id, passwordHash, scopes)
	if err != nil {
		return err
	}
	return endPersonalTokens(ctx, tx, id)
}

// EnsurePlatformUser gives an identity that signs in and has no platform user one. Accounts that have one are left alone.
func (s *Store) EnsurePlatformUser(ctx context.Context, a *Account, address string) error {
	if !a.PlatformCreatedAt.IsZero() {
		return nil
	}
	return s.DB.Tx(ctx, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, `
			UPDATE accounts SET platform_created_at = now(), platform_updated_at = now(), revision = revision + 1
			WHERE id = $1 AND platform_created_at IS NULL AND identity_created_at IS NOT NULL RETURNING platform_created_at`, a.ID).
			Scan(&a.PlatformCreatedAt)
		if errors.Is(err, pgx.ErrNoRows) { // another request was faster, or it is gone
			return nil
		}
		if err != nil {
			return err
		}
		return s.Audit.Record(ctx, tx, audit.Entry{
			Action: audit.CreateAccount, AccountGUID: a.GUID, AccountName: a.ShownName(), Target: a.GUID, Address: address,
			Detail: detail{Part: platformPart, Reason: firstUse},
		})
	})
}
