package identity

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"maps"
	"regexp"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/control"
	"rolecall/internal/fault"
	"rolecall/internal/invisible"
	"rolecall/internal/sqlstate"
)

// PersonalToken is a personal access token: a bearer credential that acts as the account that made it, with the scopes
// that it had then, within limits. The token itself is known to its holder only.
type PersonalToken struct {
	ID       uuid.UUID
	Name     string
	ReadOnly bool
	Clusters []uuid.UUID // the only ones that it reaches; nil: no limit
	// Credentials are the only stored credentials that it reads, and it does nothing else: <id of the cluster>/<name>; nil: no
	// such limit.
	Credentials []string
	Created     time.Time
	Expires     time.Time // zero: never
	LastUsed    time.Time // zero: never; up to a minute late
	// RenewableUntil is set if a sign-in gave the token, not its account: it is renewed up to then.
	RenewableUntil time.Time

	hash   []byte
	scopes []string
	guid   string    // of its account
	epoch  uuid.UUID // of its account at the sign-in, if a sign-in gave it
}

// ofSignIn reports whether a sign-in gave the token.
func (t *PersonalToken) ofSignIn() bool { return !t.RenewableUntil.IsZero() }

// personalPrefix begins every personal access token, which tells it from a JWT, and tells scanners for leaked secrets
// what they have found: rolecall_pat_[0-9a-f]{32}_[0-9a-f]{40}.
const personalPrefix = "rolecall_pat_"

var personalForm = regexp.MustCompile(`^` + personalPrefix + `([0-9a-f]{32})_[0-9a-f]{40}$`)

func newPersonalToken(id uuid.UUID) string {
	random := make([]byte, 20)
	_, _ = rand.Read(random) // never fails since Go 1.24
	return personalPrefix + hex.EncodeToString(id[:]) + "_" + hex.EncodeToString(random)
}

// The limits of personal access tokens.
const (
	maxPersonalTokens   = 100 // of an account
	maxTokenName        = 100
	maxTokenClusters    = 100
	maxTokenCredentials = 100
)

var errTokensByToken = fault.New(fault.Forbidden,
	"A personal access token may not create tokens, or revoke another one. Sign in for that.")

const personalColumns = `t.id, t.name, t.read_only, t.clusters, t.created_at, coalesce(t.expires_at, '0001-01-01'),
	coalesce(t.last_used_at, '0001-01-01'), t.secret_hash, t.scopes, a.guid, t.credentials,
	coalesce(t.renewable_until, '0001-01-01'), coalesce(t.epoch, '00000000-0000-0000-0000-000000000000')`

func scanPersonal(row pgx.CollectableRow) (*PersonalToken, error) {
	var t PersonalToken
	err := row.Scan(&t.ID, &t.Name, &t.ReadOnly, &t.Clusters, &t.Created, &t.Expires, &t.LastUsed, &t.hash, &t.scopes, &t.guid,
		&t.Credentials, &t.RenewableUntil, &t.epoch)
	return &t, err
}

// PersonalTokens returns the tokens that the principal has made, the newest first, those that have expired included.
func (s *Service) PersonalTokens(ctx context.Context, p *account.Principal) ([]*PersonalToken, error) {
	return s.personalTokensOf(ctx, p.GUID)
}

// PersonalTokensOf is PersonalTokens for an account, by its guid. Those of another account are for admins and auditors.
func (s *Service) PersonalTokensOf(ctx context.Context, p *account.Principal, guid string) ([]*PersonalToken, error) {
	if p.GUID != guid && !p.Has(account.ScopeAdmin, account.ScopeAdminReadOnly, account.ScopeAuditor) {
		return nil, fault.New(fault.Forbidden, "The tokens of another account require the scope %s, %s or %s.",
			account.ScopeAdmin, account.ScopeAdminReadOnly, account.ScopeAuditor)
	}
	return s.personalTokensOf(ctx, guid)
}

func (s *Service) personalTokensOf(ctx context.Context, guid string) ([]*PersonalToken, error) {
	rows, err := s.db.Pool.Query(ctx, `
		SELECT `+personalColumns+` FROM personal_tokens t JOIN accounts a ON a.id = t.account_id
		WHERE a.guid = $1 AND t.renewable_until IS NULL ORDER BY t.id DESC`, guid)
	if err != nil {
		return nil, control.Fault(err)
	}
	tokens, err := pgx.CollectRows(rows, scanPersonal)
	return tokens, control.Fault(err)
}

// NewPersonalToken is what a token is made with. That the principal may view the clusters and read the credentials is the
// caller's to see to: a token gives no right on them, it only takes away the right to others.
type NewPersonalToken struct {
	Name        string
	ReadOnly    bool
	Clusters    []uuid.UUID
	Credentials []string
	Expires     time.Time
}

func (n *NewPersonalToken) check(now time.Time) error {
	switch {
	case n.Name == "" || utf8.RuneCountInString(n.Name) > maxTokenName:
		return fault.New(fault.Invalid, "The name of a token has 1 to %d characters.", maxTokenName)
	case !utf8.ValidString(n.Name) || invisible.In(n.Name):
		return fault.New(fault.Invalid, "The name of a token has only characters that are shown, and no control characters.")
	case n.Clusters != nil && len(n.Clusters) == 0, len(n.Clusters) > maxTokenClusters:
		return fault.New(fault.Invalid, "A token is limited to 1 to %d clusters, or has no such limit.", maxTokenClusters)
	case n.Credentials != nil && len(n.Credentials) == 0, len(n.Credentials) > maxTokenCredentials:
		return fault.New(fault.Invalid, "A token is limited to 1 to %d credentials, or has no such limit.", maxTokenCredentials)
	case n.Credentials != nil && n.ReadOnly:
		return fault.New(fault.Invalid, "A read-only token reads no password. A token that is limited to credentials changes "+
			"nothing anyway: leave readOnly out.")
	case !n.Expires.IsZero() && !n.Expires.After(now):
		return fault.New(fault.Invalid, "The token would have expired already.")
	case n.Expires.Year() > 9999:
		return fault.New(fault.Invalid, "The year of the expiry has four digits.")
	}
	return nil
}

// CreatePersonalToken creates a token of the principal and returns it, with the secret that is shown only once.
func (s *Service) CreatePersonalToken(ctx context.Context, p *account.Principal, n NewPersonalToken) (
	t *PersonalToken, secret string, err error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, "", err
	}
	detail := map[string]any{"name": n.Name, "readOnly": n.ReadOnly}
	if n.Clusters != nil {
		detail["clusters"] = n.Clusters
	}
	if n.Credentials != nil {
		detail["credentials"] = n.Credentials
	}
	if !n.Expires.IsZero() {
		detail["expiresAt"] = n.Expires
	}
	if p.Token != uuid.Nil {
		return nil, "", s.audit.Refuse(ctx, p.Entry(audit.CreateToken, "", nil), errTokensByToken)
	}
	n.Expires = n.Expires.Truncate(time.Microsecond) // as PostgreSQL keeps it
	if err := n.check(s.now()); err != nil {
		return nil, "", err
	}
	secret = newPersonalToken(id)
	err = s.db.Tx(ctx, func(tx pgx.Tx) error {
		var accountID int64
		// The lock of the account enforces the limit, and that no token is created after the account has lost its tokens:
		// the credential of this request may still be remembered.
		err := tx.QueryRow(ctx, `
			SELECT id FROM accounts
			WHERE guid = $1 AND epoch = $2 AND active AND identity_created_at IS NOT NULL FOR UPDATE`, p.GUID, p.Epoch).
			Scan(&accountID)
		if errors.Is(err, pgx.ErrNoRows) {
			return errWrong
		}
		if err != nil {
			return err
		}
		var count int
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM personal_tokens WHERE account_id = $1 AND renewable_until IS NULL`,
			accountID).Scan(&count); err != nil {
			return err
		}
		if count >= maxPersonalTokens {
			return fault.New(fault.Invalid, "An account has at most %d personal access tokens. Revoke one first.", maxPersonalTokens)
		}
		_, err = tx.Exec(ctx, `
			INSERT INTO personal_tokens (id, account_id, name, secret_hash, scopes, read_only, clusters, credentials, created_at,
			  expires_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, nullif($10, '0001-01-01'::timestamptz))`,
			id, accountID, n.Name, tokenHash(secret), append([]string{}, p.Scopes...), n.ReadOnly, n.Clusters, n.Credentials, s.now(),
			n.Expires)
		if sqlstate.Is(err, sqlstate.UniqueViolation) {
			return fault.New(fault.Exists, "There is a token of the name %q already.", n.Name)
		}
		if err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `
			SELECT `+personalColumns+` FROM personal_tokens t JOIN accounts a ON a.id = t.account_id WHERE t.id = $1`, id)
		if err != nil {
			return err
		}
		if t, err = pgx.CollectExactlyOneRow(rows, scanPersonal); err != nil {
			return err
		}
		return s.audit.Record(ctx, tx, p.Entry(audit.CreateToken, id.String(), detail))
	})
	if err != nil {
		return nil, "", err
	}
	return t, secret, nil
}

// RevokePersonalToken ends a token of the principal, within 5 seconds on every replica. Even a read-only token may end
// itself: giving a right up takes no right.
func (s *Service) RevokePersonalToken(ctx context.Context, p *account.Principal, id string) error {
	missing := fault.New(fault.NotFound, "You have no token %.64q.", id)
	parsed, err := uuid.Parse(id)
	if err != nil || len(id) != 36 {
		return missing
	}
	if p.Token != uuid.Nil && p.Token != parsed {
		return s.audit.Refuse(ctx, p.Entry(audit.RevokeToken, parsed.String(), nil), errTokensByToken)
	}
	return s.db.Tx(ctx, func(tx pgx.Tx) error {
		var name string
		err := tx.QueryRow(ctx, `
			DELETE FROM personal_tokens t USING accounts a WHERE t.id = $1 AND a.id = t.account_id AND a.guid = $2 RETURNING t.name`,
			parsed, p.GUID).Scan(&name)
		if errors.Is(err, pgx.ErrNoRows) {
			return missing
		}
		if err != nil {
			return err
		}
		return s.audit.Record(ctx, tx, p.Entry(audit.RevokeToken, parsed.String(), map[string]any{"name": name}))
	})
}

// personalBearer verifies a personal access token.
func (s *Service) personalBearer(ctx context.Context, token string) (*verifiedCredential, error) {
	form := personalForm.FindStringSubmatch(token)
	if form == nil {
		return nil, errWrong
	}
	t, err := s.personalToken(ctx, uuid.MustParse(form[1]))
	if fault.Is(err, fault.NotFound) {
		return nil, errWrong
	}
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(t.hash, tokenHash(token)) != 1 || !t.Expires.IsZero() && !s.now().Before(t.Expires) {
		return nil, errWrong
	}
	a, err := s.accounts.ByGUID(ctx, t.guid)
	if fault.Is(err, fault.NotFound) {
		return nil, errWrong
	}
	if err != nil {
		return nil, err
	}
	if !a.Active || a.IdentityCreatedAt.IsZero() || t.ofSignIn() && t.epoch != a.Epoch {
		return nil, errWrong
	}
	v := &verifiedCredential{account: a, personal: t, scopes: t.scopes, issued: t.Created, expires: t.Expires,
		binding: createdBinding, bound: createdBinding(a)}
	if t.ofSignIn() {
		v.binding, v.bound = epochBinding, epochBinding(a)
	}
	return v, nil
}

// createdBinding is for tokens that a new password does not end. Whatever ends them deletes them.
func createdBinding(a *account.Account) string {
	return a.IdentityCreatedAt.UTC().Format(time.RFC3339Nano)
}

func (s *Service) personalToken(ctx context.Context, id uuid.UUID) (*PersonalToken, error) {
	rows, err := s.db.Pool.Query(ctx, `
		SELECT `+personalColumns+` FROM personal_tokens t JOIN accounts a ON a.id = t.account_id WHERE t.id = $1`, id)
	if err != nil {
		return nil, control.Fault(err)
	}
	t, err := pgx.CollectExactlyOneRow(rows, scanPersonal)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fault.New(fault.NotFound, "There is no such token.")
	}
	return t, control.Fault(err)
}

// tokenUse is when each token and session was used last, until that is stored: a write for each request would cost more than
// the request.
type tokenUse struct {
	mu   sync.Mutex
	last map[uuid.UUID]time.Time
}

func (u *tokenUse) note(token uuid.UUID, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.last == nil {
		u.last = map[uuid.UUID]time.Time{}
	}
	if at.After(u.last[token]) {
		u.last[token] = at
	}
}

// latest is the later one of when a token was used by what is stored, and by what is not stored yet.
func (u *tokenUse) latest(token uuid.UUID, stored time.Time) time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	if last := u.last[token]; last.After(stored) {
		return last
	}
	return stored
}

func (u *tokenUse) take() map[uuid.UUID]time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	last := u.last
	u.last = nil
	return last
}

// flushUses stores when tokens, sign-ins through clients and sessions were used. After a failure the times are kept for
// later.
func (s *Service) flushUses(ctx context.Context) error {
	last := s.tokenUse.take()
	if len(last) == 0 {
		return nil
	}
	ids := slices.SortedFunc(maps.Keys(last), func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	times := make([]time.Time, len(ids))
	for i, id := range ids {
		times[i] = last[id]
	}
	// Rows are locked in order, because other replicas write them, too.
	var err error
	for _, table := range []string{"personal_tokens", "console_sessions"} {
		_, failed := s.db.Pool.Exec(ctx, `
			WITH locked AS (SELECT id FROM `+table+` WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE)
			UPDATE `+table+` t SET last_used_at = greatest(t.last_used_at, u.at)
			FROM locked JOIN unnest($1::uuid[], $2::timestamptz[]) AS u(id, at) USING (id)
			WHERE t.id = locked.id`, ids, times)
		err = errors.Join(err, failed)
	}
	_, failed := s.db.Pool.Exec(ctx, `
		WITH locked AS (SELECT token_hash, family FROM refresh_tokens WHERE family = ANY ($1) AND replaced_at IS NULL
		  ORDER BY token_hash FOR NO KEY UPDATE)
		UPDATE refresh_tokens t SET last_used_at = greatest(t.last_used_at, u.at)
		FROM locked JOIN unnest($1::uuid[], $2::timestamptz[]) AS u(id, at) ON u.id = locked.family
		WHERE t.token_hash = locked.token_hash`, ids, times)
	err = errors.Join(err, failed)
	if err != nil {
		for id, at := range last {
			s.tokenUse.note(id, at)
		}
	}
	return control.Fault(err)
}

// personalTokensLeft returns which of the tokens have not been revoked.
func (s *Service) personalTokensLeft(ctx context.Context, ids []uuid.UUID) ([]uuid.UUID, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	rows, err := s.db.SignIn.Query(ctx, `SELECT id FROM personal_tokens WHERE id = ANY ($1)`, ids)
	if err != nil {
		return nil, control.Fault(err)
	}
	left, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	return left, control.Fault(err)
}
