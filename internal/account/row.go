package account

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/audit"
	"rolecall/internal/control"
	"rolecall/internal/fault"
	"rolecall/internal/sqlstate"
)

// Profile is an account with all but its password. Each API shows its part: /uaa how it signs in, /v3 its metadata, and our
// own API both.
type Profile struct {
	ID               int64 // in the order of creation
	GUID             string
	Username, Origin string // both "" for an account known by its guid alone, and for an OAuth client

	// The identity; IdentityCreated is zero if there is none.
	IdentityCreated, IdentityUpdated time.Time
	Version                          int
	OAuthClient                      bool
	GivenName, FamilyName            string
	Emails                           []string // the primary one first
	Active, Verified                 bool
	Scopes                           []string
	GrantTypes, UserScopes           []string // of an OAuth client
	Client                           ClientSettings
	SecretChanged                    time.Time // zero: it has no password or secret

	// The platform user; PlatformCreated is zero if there is none.
	PlatformCreated, PlatformUpdated time.Time
	PresentationName                 string // "" where the name that is shown follows from the others: see Presentation
	Labels                           map[string]string
	LabelSources                     map[string]string // the names of the issuers that set labels, by the keys of these
	Annotations                      map[string]string // read for /v3 and our own API only: they can be long

	issuer, subject string // of another issuer's account
	revision        int64  // of the platform user
	state           string // of the row, for PostgreSQL
}

// ClientSettings are what only an OAuth client has.
type ClientSettings struct {
	Name string
	// AccessValidity and RefreshValidity are how many seconds its tokens are valid. They only shorten; 0: the usual time.
	AccessValidity, RefreshValidity int
}

// newProfile is an account that is to be created.
func newProfile(guid, username, origin string, scopes []string) *Profile {
	n := &Profile{GUID: guid, Username: username, Origin: origin, Scopes: scopes, Active: true, Verified: true}
	if username != "" {
		n.Emails = []string{username}
	}
	return n
}

// HasIdentity reports whether the account can sign in at all.
func (a *Profile) HasIdentity() bool { return !a.IdentityCreated.IsZero() }

// isExternal reports whether its name and origin are another identity provider's, also before its first sign-in.
func (a *Profile) isExternal() bool { return a.Origin != "" && a.Origin != LocalOrigin }

// IsPlatformUser reports whether /v3 shows the account.
func (a *Profile) IsPlatformUser() bool { return !a.PlatformCreated.IsZero() }

// Presentation is the name to show.
func (a *Profile) Presentation() string {
	switch {
	case a.PresentationName != "":
		return a.PresentationName
	case a.Username != "":
		return a.Username
	}
	return a.GUID
}

// PlatformTag names the state of the platform user. The row's id is in it because revisions start again when a guid is made
// again.
func (a *Profile) PlatformTag() string { return fmt.Sprintf("%d-%d", a.ID, a.revision) }

// Tag names the state of the account as a whole: every change makes it another row for PostgreSQL.
func (a *Profile) Tag() string { return a.state }

// allScopes are those of the account itself and those that pass through it.
func (a *Profile) allScopes() []string { return append(slices.Clone(a.Scopes), a.UserScopes...) }

const (
	identityColumns = `id, guid, coalesce(username, ''), coalesce(origin, ''),
	coalesce(identity_created_at, '0001-01-01'), coalesce(identity_updated_at, '0001-01-01'), identity_version, program,
	given_name, family_name, emails, active, verified, scopes, grant_types, user_scopes,
	client_name, access_validity, refresh_validity, coalesce(password_changed_at, '0001-01-01'),
	coalesce(platform_created_at, '0001-01-01'), coalesce(platform_updated_at, '0001-01-01'), coalesce(presentation_name, ''),
	labels, label_sources, coalesce(issuer, ''), revision, xmin::text, `
	withoutAnnotations = identityColumns + `'{}'::jsonb`
	withAnnotations    = identityColumns + `annotations`
)

// platformColumns are those of a platform user, without what only the identity has.
const platformColumns = `id, guid, coalesce(username, ''), coalesce(origin, ''),
	coalesce(platform_created_at, '0001-01-01'), coalesce(platform_updated_at, '0001-01-01'), coalesce(presentation_name, ''),
	labels, annotations, revision`

func scanPlatform(row pgx.CollectableRow) (*Profile, error) {
	var a Profile
	err := row.Scan(&a.ID, &a.GUID, &a.Username, &a.Origin, &a.PlatformCreated, &a.PlatformUpdated, &a.PresentationName,
		&a.Labels, &a.Annotations, &a.revision)
	return &a, err
}

func scanProfile(row pgx.CollectableRow) (*Profile, error) {
	var a Profile
	err := row.Scan(&a.ID, &a.GUID, &a.Username, &a.Origin,
		&a.IdentityCreated, &a.IdentityUpdated, &a.Version, &a.OAuthClient,
		&a.GivenName, &a.FamilyName, &a.Emails, &a.Active, &a.Verified, &a.Scopes, &a.GrantTypes, &a.UserScopes,
		&a.Client.Name, &a.Client.AccessValidity, &a.Client.RefreshValidity, &a.SecretChanged,
		&a.PlatformCreated, &a.PlatformUpdated, &a.PresentationName,
		&a.Labels, &a.LabelSources, &a.issuer, &a.revision, &a.state, &a.Annotations)
	return &a, err
}

// one returns the account that the statement selects, nil if there is none.
func one(ctx context.Context, q control.Querier, sql string, args ...any) (*Profile, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, control.Fault(err)
	}
	a, err := pgx.CollectExactlyOneRow(rows, scanProfile)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return a, control.Fault(err)
}

// storable reports whether PostgreSQL can hold the text. What it cannot hold, no account has.
func storable(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// parts are those parts of an account that a statement makes or changes.
type parts struct{ identity, platform bool }

// insert adds an account and returns it, nil if its guid, user name or subject is taken.
func insert(ctx context.Context, tx pgx.Tx, n *Profile, with parts, hash *string) (*Profile, error) {
	return one(ctx, tx, `
		INSERT INTO accounts (guid, username, origin, issuer, subject, program, given_name, family_name, emails, active, verified,
		  scopes, grant_types, user_scopes, labels, annotations, password_hash, password_changed_at,
		  client_name, access_validity, refresh_validity,
		  identity_created_at, identity_updated_at, platform_created_at, platform_updated_at)
		VALUES ($1, nullif($2, ''), nullif($3, ''), nullif($4, ''), nullif($5, ''), $6, $7, $8, $9, $10, $11,
		  $12, $13, $14, $15, $16, $17, CASE WHEN $17::text IS NOT NULL THEN now() END,
		  $18, $19, $20,
		  CASE WHEN $21 THEN now() END, CASE WHEN $21 THEN now() END, CASE WHEN $22 THEN now() END, CASE WHEN $22 THEN now() END)
		ON CONFLICT DO NOTHING
		RETURNING `+withAnnotations,
		n.GUID, n.Username, n.Origin, n.issuer, n.subject, n.OAuthClient, n.GivenName, n.FamilyName, notNull(n.Emails),
		n.Active, n.Verified, notNull(n.Scopes), notNull(n.GrantTypes), notNull(n.UserScopes),
		entries(n.Labels), entries(n.Annotations), hash,
		n.Client.Name, n.Client.AccessValidity, n.Client.RefreshValidity,
		with.identity, with.platform)
}

// save stores an account that is locked, and the row of the audit log. The versions of the parts that changed move on; a
// platform part that there was not is made. An account that is no longer active loses its tokens. It takes the clock's time,
// not the transaction's: that may be older than the last change, which this one waited for.
func (s *Store) save(ctx context.Context, tx pgx.Tx, want *Profile, changed parts,
	e audit.Entry) (saved *Profile, err error) {
	batch := &pgx.Batch{}
	if !want.Active {
		batch.Queue(`DELETE FROM personal_tokens t USING accounts a WHERE t.account_id = a.id AND a.id = $1 AND a.active`, want.ID)
	}
	batch.Queue(`
		UPDATE accounts SET username = nullif($2, ''), origin = nullif($3, ''), given_name = $4, family_name = $5, emails = $6,
		  active = $7, verified = $8, scopes = $9, grant_types = $10, user_scopes = $11,
		  epoch = CASE WHEN active AND NOT $7 THEN gen_random_uuid() ELSE epoch END,
		  identity_version = identity_version + CASE WHEN $12 THEN 1 ELSE 0 END,
		  identity_updated_at = CASE WHEN $12 THEN clock_timestamp() ELSE identity_updated_at END,
		  presentation_name = nullif($13, ''), labels = $14, annotations = CASE WHEN $16 THEN $15 ELSE annotations END,
		  revision = revision + CASE WHEN $16 THEN 1 ELSE 0 END,
		  platform_created_at = CASE WHEN $16 THEN coalesce(platform_created_at, clock_timestamp()) ELSE platform_created_at END,
		  platform_updated_at = CASE WHEN $16 THEN clock_timestamp() ELSE platform_updated_at END,
		  client_name = $17, access_validity = $18, refresh_validity = $19, label_sources = $20
		WHERE id = $1
		RETURNING `+withAnnotations,
		want.ID, want.Username, want.Origin, want.GivenName, want.FamilyName, notNull(want.Emails),
		want.Active, want.Verified, notNull(want.Scopes), notNull(want.GrantTypes), notNull(want.UserScopes),
		changed.identity, want.PresentationName, want.Labels, want.Annotations, changed.platform,
		want.Client.Name, want.Client.AccessValidity, want.Client.RefreshValidity, entries(want.LabelSources),
	).Query(func(rows pgx.Rows) (err error) {
		saved, err = pgx.CollectExactlyOneRow(rows, scanProfile)
		return err
	})
	err = s.Audit.Send(ctx, tx, batch, e)
	if sqlstate.Is(err, sqlstate.UniqueViolation) {
		return nil, taken(want.Username, want.Origin)
	}
	return saved, err
}

func notNull(list []string) []string { return append([]string{}, list...) }

func entries(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// Taken is the cause of the fault that a guid, or a user name in its origin, is taken.
type Taken struct{ GUID, Username, Origin string }

// Error implements error.
func (Taken) Error() string { return "there is such an account already" }

// taken words the conflict of a user name.
func taken(username, origin string) error {
	return fault.New(fault.Exists, "The user name %q is taken in the origin %q.", username, origin).
		Because(Taken{Username: username, Origin: origin})
}

// detail is what the audit log keeps of a change, beside who made it. A change from one value to another is a fromTo. The
// names of stored keys do not change: programs read them.
type detail struct {
	Part             string   `json:"facet,omitempty"` // what of the account is meant, if not all of it
	OAuthClient      bool     `json:"program,omitempty"`
	Username         any      `json:"username,omitempty"`
	Origin           any      `json:"origin,omitempty"`
	Active           any      `json:"active,omitempty"`
	Scopes           any      `json:"scopes,omitempty"`
	Scope            string   `json:"scope,omitempty"` // that is granted or revoked
	PresentationName any      `json:"presentation_name,omitempty"`
	Labels           any      `json:"labels,omitempty"`      // with their values, which give rights
	Annotations      []string `json:"annotations,omitempty"` // their keys alone: they may hold anything
	IdentityKept     *bool    `json:"identity_kept,omitempty"`
	Issuer           string   `json:"issuer,omitempty"`
	Reason           string   `json:"reason,omitempty"`
	Unlocked         bool     `json:"unlocked,omitempty"`
}

// none reports whether nothing is different.
func (d *detail) none() bool {
	return d.Username == nil && d.Active == nil && d.Scopes == nil && d.PresentationName == nil && d.Labels == nil &&
		len(d.Annotations) == 0
}

const (
	identityPart = "identity"
	platformPart = "platform user"
	firstUse     = "first use of a token"
	byClaims     = "claims of a token"
)

// fromTo is a change in the audit log.
type fromTo struct {
	From any `json:"from"`
	To   any `json:"to"`
}

// refuse records a change that the principal may not make, and returns the refusal. It returns any other error as it is.
func (s *Store) refuse(ctx context.Context, e audit.Entry, err error) error {
	if !fault.Is(err, fault.Forbidden) {
		return err
	}
	if !storable(e.Target) {
		e.Target = ""
	}
	return s.Audit.Refuse(ctx, e, err)
}

// endPersonalTokens ends the personal access tokens of an account. They end with its right to sign in, with its identity,
// with its platform user, and when another account sets its password, which may be how a stolen account is taken back. They
// stay when the account changes its own: they are there so that a program need not know it.
func endPersonalTokens(ctx context.Context, tx pgx.Tx, id int64) error {
	_, err := tx.Exec(ctx, `DELETE FROM personal_tokens WHERE account_id = $1`, id)
	return err
}
