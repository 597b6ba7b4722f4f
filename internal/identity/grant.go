package identity

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/control"
	"rolecall/internal/fault"
	"rolecall/internal/secret"
)

// The OAuth clients that need no secret: command lines and libraries use them.
const (
	PublicClient = "cf"
	OwnClient    = "rolecall" // of our command line
)

// PublicClients are all of them.
var PublicClients = []string{PublicClient, OwnClient}

// The grants that are offered (RFC 6749, 4.3, 4.4 and 6).
const (
	GrantPassword    = "password"
	GrantCredentials = "client_credentials"
	GrantRefresh     = "refresh_token"
)

// The lifetime of refresh tokens.
const (
	refreshLifetime = account.MaxRefreshValidity // from the sign-in, not from the last refresh
	reuseGrace      = time.Minute                // in which a replaced token still works: its answer may have been lost
)

// The causes of a refused grant, which RFC 6749, 5.2 has words for.
var (
	ErrClient      = errors.New("the client is unknown, or its secret is wrong")
	ErrClientGrant = errors.New("the client may not use this grant")
	ErrGrant       = errors.New("the credential of the grant is not valid here")
	ErrScope       = errors.New("none of the scopes can be granted")
)

// Client is who asks for tokens: a public client, or an OAuth client that has proven its secret.
type Client struct {
	id      string
	account *account.Account // nil: a public client
}

// Client authenticates an OAuth client. The secret is given in each form in which the client may have encoded it.
func (s *Service) Client(ctx context.Context, id, address string, secrets ...string) (*Client, error) {
	if slices.Contains(PublicClients, id) && !slices.ContainsFunc(secrets, func(secret string) bool { return secret != "" }) {
		return &Client{id: id}, nil
	}
	a, err := s.VerifySecret(ctx, id, address, secrets...)
	if fault.Is(err, fault.Unauthenticated) {
		return nil, fault.Of(err).Because(ErrClient)
	}
	return &Client{id, a}, err
}

func (c *Client) may(grant string) error {
	allowed := []string{GrantPassword, GrantRefresh, GrantAssertion, GrantCode, GrantDevice}
	if c.account != nil {
		allowed = c.account.GrantTypes
	}
	if slices.Contains(allowed, grant) {
		return nil
	}
	return fault.New(fault.Forbidden, "The client %q may not use the grant %s.", c.id, grant).Because(ErrClientGrant)
}

// through is what of an account's scopes a token through the client may have.
func (c *Client) through(scopes []string) []string {
	if c.account == nil {
		return scopes
	}
	return common(scopes, c.account.UserScopes)
}

// access is how long an access token for the client is valid: the usual time, or less if the client has a shorter one.
func (c *Client) access(usual time.Duration) time.Duration {
	if c.account == nil {
		return usual
	}
	return shorter(usual, c.account.AccessValidity)
}

// refresh is how long a refresh token for the client is valid.
func (c *Client) refresh() time.Duration {
	if c.account == nil {
		return refreshLifetime
	}
	return shorter(refreshLifetime, c.account.RefreshValidity)
}

func shorter(usual time.Duration, seconds int) time.Duration {
	if seconds == 0 {
		return usual
	}
	return min(usual, time.Duration(seconds)*time.Second)
}

// Tokens is what a grant gives.
type Tokens struct {
	Access   secret.Text
	ID       string // of the access token
	Lifetime time.Duration
	Scopes   []string
	Refresh  secret.Text // "": none
}

// GrantWithPassword signs a person in through a client. Without requested scopes the token has all that it can have.
func (s *Service) GrantWithPassword(ctx context.Context, c *Client, username, password string, scopes []string,
	address string) (*Tokens, error) {
	if err := c.may(GrantPassword); err != nil {
		return nil, err
	}
	a, err := s.VerifyPassword(ctx, username, password, address)
	if err != nil {
		return nil, err
	}
	granted, err := narrow(c.through(a.Scopes), scopes)
	if err != nil {
		return nil, err
	}
	l := &login{a, c, GrantPassword, granted, uuid.New(), address}
	refresh, err := s.store(ctx, s.db.Pool, l)
	if err != nil {
		return nil, control.Fault(err)
	}
	return s.tokens(ctx, l, refresh)
}

// GrantToClient issues a token to an OAuth client itself, without a refresh token (RFC 6749, 4.4.3).
func (s *Service) GrantToClient(ctx context.Context, c *Client, scopes []string) (*Tokens, error) {
	if err := c.may(GrantCredentials); err != nil {
		return nil, err
	}
	granted, err := narrow(c.account.Scopes, scopes)
	if err != nil {
		return nil, err
	}
	t := &Tokens{Scopes: granted, Lifetime: c.access(clientTokenLifetime)}
	t.Access, t.ID, err = s.mint(ctx, c.account, c.id, GrantCredentials, granted, uuid.Nil, t.Lifetime)
	return t, err
}

func (s *Service) userTokens(ctx context.Context, a *account.Account, c *Client, grant string, scopes []string,
	family uuid.UUID) (t *Tokens, err error) {
	t = &Tokens{Scopes: scopes, Lifetime: c.access(userTokenLifetime)}
	t.Access, t.ID, err = s.mint(ctx, a, c.id, grant, scopes, family, t.Lifetime)
	return t, err
}

// narrow returns the requested scopes among those that the account has (RFC 6749, 3.3). No request means all.
func narrow(has, asked []string) ([]string, error) {
	if len(asked) == 0 {
		return has, nil
	}
	if granted := common(has, asked); len(granted) > 0 {
		return granted, nil
	}
	return nil, fault.New(fault.Invalid, "None of the requested scopes can be granted.").Because(ErrScope)
}

func common(a, b []string) []string {
	both := []string{}
	for _, s := range a {
		if slices.Contains(b, s) {
			both = append(both, s)
		}
	}
	return both
}

const insertRefresh = `
	INSERT INTO refresh_tokens (token_hash, family, account_id, epoch, client_id, scopes, created_at, expires_at, address)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`

// newRefreshToken returns 256 random bits. The suffix marks a refresh token, as in the UAA.
func newRefreshToken() string { return randomID() + randomID() + "-r" }

// tokenHash is what is stored of a token. Tokens are random, so a fast hash is as good as a slow one.
func tokenHash(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}

// errRefresh is the one answer to every refresh token that fails verification.
var errRefresh = fault.New(fault.Invalid, "The refresh token is unknown, expired or revoked. Sign in again.").
	Because(ErrGrant)

// refreshToken is a stored one.
type refreshToken struct {
	hash     []byte
	family   uuid.UUID
	guid     string
	epoch    uuid.UUID
	clientID string
	scopes   []string
	expires  time.Time
	address  string // that used it last
}

// findRefresh returns a stored token; pgx.ErrNoRows if there is none.
func findRefresh(ctx context.Context, q interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}, token string) (*refreshToken, error) {
	r := refreshToken{hash: tokenHash(token)}
	err := q.QueryRow(ctx, `
		SELECT r.family, a.guid, r.epoch, r.client_id, r.scopes, r.expires_at, r.address
		FROM refresh_tokens r JOIN accounts a ON a.id = r.account_id WHERE r.token_hash = $1`, r.hash).
		Scan(&r.family, &r.guid, &r.epoch, &r.clientID, &r.scopes, &r.expires, &r.address)
	return &r, err
}

// GrantWithRefresh issues a new access token to a person who signed in before. A public client keeps its refresh token,
// because its commands run concurrently and share it; for any other client the token is replaced.
func (s *Service) GrantWithRefresh(ctx context.Context, c *Client, token string, scopes []string, address string) (
	*Tokens, error) {
	if err := c.may(GrantRefresh); err != nil {
		return nil, err
	}
	r, err := findRefresh(ctx, s.db.Pool, token)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, errRefresh
	}
	if err != nil {
		return nil, control.Fault(err)
	}
	a, err := s.accounts.ByGUID(ctx, r.guid)
	if fault.Is(err, fault.NotFound) {
		return nil, errRefresh
	}
	if err != nil {
		return nil, err
	}
	if r.clientID != c.id || !s.now().Before(r.expires) || !a.Active || a.IdentityCreatedAt.IsZero() || a.Epoch != r.epoch {
		return nil, errRefresh
	}
	granted, err := narrow(common(c.through(a.Scopes), r.scopes), scopes)
	if err != nil {
		return nil, err
	}
	if c.account != nil {
		if token, err = s.replaceRefresh(ctx, a, r, address); err != nil {
			return nil, err
		}
	} else if err := s.noteRefresh(ctx, r, address); err != nil {
		return nil, err
	}
	t, err := s.userTokens(ctx, a, c, GrantRefresh, granted, r.family)
	if err != nil {
		return nil, err
	}
	t.Refresh = secret.Text(token)
	return t, nil
}

// noteRefresh notes that a token that is not replaced was used.
func (s *Service) noteRefresh(ctx context.Context, r *refreshToken, address string) error {
	s.tokenUse.note(r.family, s.now())
	if r.address == address {
		return nil
	}
	_, err := s.db.Pool.Exec(ctx, `UPDATE refresh_tokens SET address = $2 WHERE token_hash = $1`, r.hash, address)
	return control.Fault(err)
}

// maxLive is how many tokens of a family are valid at once. More than one are only because each use of a replaced token in
// its minute of grace adds one.
const maxLive = 5

// replaceRefresh replaces the token r, which stays valid for another minute. Its use after that means that somebody has a
// copy of it, and revokes the family (RFC 9700, 4.14.2).
func (s *Service) replaceRefresh(ctx context.Context, a *account.Account, r *refreshToken, address string) (
	token string, err error) {
	now := s.now()
	token = newRefreshToken()
	err = s.db.Tx(ctx, func(tx pgx.Tx) error {
		if err := lockFamily(ctx, tx, r.family); err != nil {
			return err
		}
		var replaced *time.Time
		var live int
		err := tx.QueryRow(ctx, `
			SELECT replaced_at, (SELECT count(*) FROM refresh_tokens WHERE family = $2 AND replaced_at IS NULL)
			FROM refresh_tokens WHERE token_hash = $1`, r.hash, r.family).Scan(&replaced, &live)
		if errors.Is(err, pgx.ErrNoRows) {
			return errRefresh
		}
		if err != nil {
			return err
		}
		if replaced != nil && now.Sub(*replaced) > reuseGrace {
			token = ""
			if err := s.endFamily(ctx, tx, r.family); err != nil {
				return err
			}
			return s.audit.Record(ctx, tx, audit.Entry{
				Action: audit.RevokeTokens, AccountGUID: a.GUID, AccountName: a.ShownName(), Target: a.GUID,
				Detail: map[string]any{"client": r.clientID, "reason": "a replaced refresh token was used again"},
			})
		}
		if replaced != nil && live >= maxLive {
			return errRefresh
		}
		if replaced == nil {
			if _, err := tx.Exec(ctx, `UPDATE refresh_tokens SET replaced_at = $2 WHERE token_hash = $1`, r.hash, now); err != nil {
				return err
			}
		}
		_, err = tx.Exec(ctx, insertRefresh, tokenHash(token), r.family, a.ID, a.Epoch, r.clientID, r.scopes, now, r.expires,
			address)
		return err
	})
	if err == nil && token == "" {
		err = errRefresh
	}
	return token, err
}
