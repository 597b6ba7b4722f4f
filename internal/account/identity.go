package account

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/audit"
	"rolecall/internal/control"
	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/sqlstate"
)

// Scopes are all scopes that there are, in the order in which they are shown.
var Scopes = []string{ScopeAdmin, ScopeAdminReadOnly, ScopeAuditor, ScopeRead, ScopeWrite, ScopeSCIMRead, ScopeSCIMWrite}

// DefaultScopes are those of a new person. By themselves they open nothing but what labels give.
var DefaultScopes = []string{ScopeRead, ScopeWrite}

// Identity is the identity of an account: of a person, or of an OAuth client.
type Identity struct {
	GUID, Username, Origin string
	Program                bool
	GivenName, FamilyName  string
	Emails                 []string // the primary one first
	Active, Verified       bool
	Scopes                 []string
	GrantTypes, UserScopes []string // of a program
	Version                int
	Created, Updated       time.Time
	SecretChanged          time.Time // zero: it has no password or secret

	id     int64
	issuer string // "": not of another issuer
}

// Identities manage other accounts by scim.write. So that this is no way to become an admin, whatever gives, takes or
// uses more than the default scopes needs cloud_controller.admin as well: to change them, and to change an account that
// has them, its password first of all.

// mayChange says whether the principal may do everything to an identity with these scopes.
func (p *Principal) mayChange(scopes []string) error {
	if !p.Has(ScopeSCIMWrite) {
		return fault.New(fault.Forbidden, "This needs the scope %s.", ScopeSCIMWrite)
	}
	for _, scope := range scopes {
		if !slices.Contains(DefaultScopes, scope) && !p.Has(ScopeAdmin) {
			return fault.New(fault.Forbidden, "This concerns the scope %s, so it requires the scope %s as well as %s.", scope,
				ScopeAdmin, ScopeSCIMWrite)
		}
	}
	return nil
}

// mayBecome checks whether the principal may gain control of an identity: setting its password allows signing in as it. The
// labels of its platform user are rights, too, which only admins give.
func (p *Principal) mayBecome(ctx context.Context, tx pgx.Tx, i *Identity) error {
	if p.Has(ScopeAdmin) {
		return nil
	}
	var labelled bool
	err := tx.QueryRow(ctx, `SELECT labels <> '{}' FROM accounts WHERE id = $1`, i.id).Scan(&labelled)
	if err == nil && labelled {
		err = errLabelled
	}
	return err
}

var errLabelled = fault.New(fault.Forbidden,
	"This account has labels that give it access to clusters, so it requires the scope %s as well as %s.", ScopeAdmin,
	ScopeSCIMWrite)

// mayRead says whether the principal may see an identity; "" stands for all of them.
func (p *Principal) mayRead(guid string) error {
	if p.Has(ScopeSCIMRead) || guid != "" && p.GUID == guid {
		return nil
	}
	return fault.New(fault.Forbidden, "This needs the scope %s.", ScopeSCIMRead)
}

// MayReadIdentities says whether the principal may read users, groups and clients at all.
func (p *Principal) MayReadIdentities() error { return p.mayRead("") }

// CheckUsername says what is wrong with a user name.
func CheckUsername(name string) error {
	switch {
	case name == "" || utf8.RuneCountInString(name) > 255:
		return fault.New(fault.Invalid, "A user name has 1 to 255 characters.")
	case !storable(name) || strings.ContainsFunc(name, unicode.IsControl):
		return fault.New(fault.Invalid, "A user name has no control characters.")
	case strings.TrimSpace(name) != name:
		return fault.New(fault.Invalid, "A user name does not begin or end with a space.")
	case strings.Contains(name, ":"):
		return fault.New(fault.Invalid, "A user name has no colon: it could not sign in with HTTP Basic.")
	}
	return nil
}

// checkClientID keeps to what every client sends the same way: a % or + would be one character or another, depending on
// whether the client encodes its id as RFC 6749, 2.3.1 says.
func checkClientID(id string) error {
	if id == "" || utf8.RuneCountInString(id) > 200 || !storable(id) || strings.ContainsAny(id, `/\%+:`) ||
		strings.ContainsFunc(id, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }) {
		return fault.New(fault.Invalid, `A client id has 1 to 200 characters: no spaces, no control characters, none of / \ %% `+
			`+ and the colon.`)
	}
	return nil
}

// checkGUID says what is wrong with a guid that a new account is given.
func checkGUID(guid string) error {
	if audit.IsActor(guid) {
		return fault.New(fault.Invalid, "The guid %q is reserved for Rolecall itself. Choose another.", guid)
	}
	return nil
}

// allScopes are those of the identity itself and those that pass through it.
func (i *Identity) allScopes() []string { return append(slices.Clone(i.Scopes), i.UserScopes...) }

func (i *Identity) check() error {
	if i.Program {
		if err := checkClientID(i.GUID); err != nil {
			return err
		}
	} else if err := CheckUsername(i.Username); err != nil {
		return err
	}
	for _, text := range append([]string{i.GivenName, i.FamilyName, i.Origin}, i.Emails...) {
		if utf8.RuneCountInString(text) > 255 || !storable(text) || strings.ContainsFunc(text, unicode.IsControl) {
			return fault.New(fault.Invalid, "Names, e-mail addresses and the origin have at most 255 characters, and no control "+
				"characters.")
		}
	}
	if len(i.Emails) > 20 || slices.Contains(i.Emails, "") {
		return fault.New(fault.Invalid, "A user has at most 20 e-mail addresses, none of which is empty.")
	}
	return checkScopes(i.allScopes())
}

// Filter selects identities. One of the three is set; the zero Filter selects all.
type Filter struct {
	All, Any     []Filter
	Field, Value string // the value of the field is equal
}

// filterColumns are the fields of a filter.
var filterColumns = map[string]string{
	"guid":     "guid = %s",
	"username": "lower(username) = lower(%s)",
	"origin":   "origin = %s",
}

func (f Filter) sql(args *[]any) string {
	var parts []string
	for _, part := range append(slices.Clone(f.All), f.Any...) {
		parts = append(parts, part.sql(args))
	}
	switch {
	case f.All != nil:
		return "(" + strings.Join(parts, " AND ") + ")"
	case f.Any != nil:
		return "(" + strings.Join(parts, " OR ") + ")"
	case f.Field == "":
		return "true"
	}
	*args = append(*args, f.Value)
	return fmt.Sprintf(filterColumns[f.Field], fmt.Sprintf("$%d", len(*args)))
}

const identityColumns = `id, guid, coalesce(username, ''), coalesce(origin, ''), program, given_name, family_name,
	emails, active, verified, scopes, grant_types, user_scopes, identity_version, identity_created_at, identity_updated_at,
	coalesce(password_changed_at, '0001-01-01'), coalesce(issuer, '')`

func scanIdentity(row pgx.CollectableRow) (*Identity, error) {
	var i Identity
	err := row.Scan(&i.id, &i.GUID, &i.Username, &i.Origin, &i.Program, &i.GivenName, &i.FamilyName, &i.Emails, &i.Active,
		&i.Verified,
		&i.Scopes, &i.GrantTypes, &i.UserScopes, &i.Version, &i.Created, &i.Updated, &i.SecretChanged, &i.issuer)
	return &i, err
}

// Identities lists people, or programs, in the order in which they were made: at most limit from offset on, and how many
// there are in all.
func (s *Store) Identities(ctx context.Context, p *Principal, programs bool, f Filter,
	offset, limit int) (found []*Identity, total int, err error) {
	if err := p.mayRead(""); err != nil {
		return nil, 0, err
	}
	args := []any{programs}
	where := ` FROM accounts WHERE identity_created_at IS NOT NULL AND program = $1 AND ` + f.sql(&args)
	if err := s.DB.Pool.QueryRow(ctx, `SELECT count(*)`+where, args...).Scan(&total); err != nil {
		return nil, 0, control.Fault(err)
	}
	rows, err := s.DB.Pool.Query(ctx, `SELECT `+identityColumns+where+fmt.Sprintf(` ORDER BY id LIMIT %d OFFSET %d`, limit,
		offset), args...)
	if err != nil {
		return nil, 0, control.Fault(err)
	}
	found, err = pgx.CollectRows(rows, scanIdentity)
	return found, total, control.Fault(err)
}

// Identity returns one person, or one program.
func (s *Store) Identity(ctx context.Context, p *Principal, program bool, guid string) (*Identity, error) {
	if err := p.mayRead(guid); err != nil {
		return nil, err
	}
	return readIdentity(ctx, s.DB.Pool, program, guid, "")
}

// querier is the pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func readIdentity(ctx context.Context, q querier, program bool, guid, lock string) (*Identity, error) {
	missing := fault.New(fault.NotFound, "There is no user %.100q.", guid)
	if program {
		missing = fault.New(fault.NotFound, "There is no client %.100q.", guid)
	}
	if !storable(guid) {
		return nil, missing
	}
	rows, err := q.Query(ctx, `SELECT `+identityColumns+`
		FROM accounts WHERE guid = $1 AND identity_created_at IS NOT NULL AND program = $2 `+lock, guid, program)
	if err != nil {
		return nil, control.Fault(err)
	}
	i, err := pgx.CollectExactlyOneRow(rows, scanIdentity)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, missing
	}
	return i, control.Fault(err)
}

// Secret makes what is stored of a new password or client secret. It is called once it is clear that it is wanted: it
// takes a while. nil: none.
type Secret func(ctx context.Context) (hash string, err error)

func (f Secret) hash(ctx context.Context) (*string, error) {
	if f == nil {
		return nil, nil
	}
	hash, err := f(ctx)
	return &hash, err
}

// CreateIdentity makes a person, under a fresh guid and with the default scopes, or a program with those that it is
// given. A program may be the identity of a platform user whose guid is known already, and then has what its labels give,
// so that needs an admin.
func (s *Store) CreateIdentity(ctx context.Context, p *Principal, n Identity, secret Secret) (made *Identity, err error) {
	if !n.Program {
		n.GUID, n.Scopes = uuid.NewString(), DefaultScopes
	}
	// What nobody could make is no attempt, and not recorded: it may be as long as a body.
	if err := cmp.Or(n.check(), checkGUID(n.GUID)); err != nil {
		if p.Token != uuid.Nil {
			return nil, errTokenIdentity
		}
		return nil, cmp.Or(p.mayChange(nil), err)
	}
	n.Scopes, n.UserScopes = inOrder(n.Scopes), inOrder(n.UserScopes)
	detail := map[string]any{"facet": "identity", "program": n.Program, "username": n.Username, "origin": n.Origin,
		"scopes": n.Scopes}
	err = s.record(ctx, p, audit.CreateAccount, n.GUID, detail,
		func(ctx context.Context, within func(func(pgx.Tx) error) error) error {
			if err := p.mayChange(n.allScopes()); err != nil {
				return err
			}
			hash, err := secret.hash(ctx)
			if err != nil {
				return err
			}
			return within(func(tx pgx.Tx) error {
				made, err = createIdentity(ctx, tx, p, n, hash)
				return err
			})
		})
	return made, err
}

func createIdentity(ctx context.Context, tx pgx.Tx, p *Principal, n Identity, hash *string) (*Identity, error) {
	taken := fault.New(fault.Exists, "The user name %q is taken in the origin %q.", n.Username, n.Origin)
	insert := insertIdentity
	if n.Program {
		taken = fault.New(fault.Exists, "The client id %q is taken.", n.GUID)
		var free bool
		err := tx.QueryRow(ctx, `
			SELECT identity_created_at IS NULL AND username IS NULL FROM accounts WHERE guid = $1 FOR UPDATE`, n.GUID).Scan(&free)
		switch {
		case errors.Is(err, pgx.ErrNoRows) && uuid.Validate(n.GUID) == nil:
			// It may have been somebody's, whose rows the audit log would show.
			return nil, fault.New(fault.Invalid, "The client id %q is a UUID: those are the guids of people. Choose another.", n.GUID)
		case errors.Is(err, pgx.ErrNoRows):
		case err != nil:
			return nil, err
		case !free:
			return nil, taken
		case !p.Has(ScopeAdmin):
			return nil, fault.New(fault.Forbidden, "A platform user has this guid: a client with it requires the scope %s.",
				ScopeAdmin)
		default:
			insert += ofPlatformUser // which is locked; one that comes now is a conflict
		}
	}
	_, err := tx.Exec(ctx, insert,
		n.GUID, n.Username, n.Origin, n.Program, n.GivenName, n.FamilyName, notNull(n.Emails), n.Active, n.Verified,
		notNull(n.Scopes),
		notNull(n.GrantTypes), notNull(n.UserScopes), hash)
	if sqlstate.Is(err, sqlstate.UniqueViolation) {
		return nil, taken
	}
	if err != nil {
		return nil, err
	}
	return readIdentity(ctx, tx, n.Program, n.GUID, "")
}

const (
	insertIdentity = `
		INSERT INTO accounts (guid, username, origin, program, given_name, family_name, emails, active, verified, scopes,
		  grant_types, user_scopes, password_hash, password_changed_at, identity_created_at, identity_updated_at)
		VALUES ($1, nullif($2, ''), nullif($3, ''), $4, $5, $6, $7, $8, $9, $10, $11, $12, $13,
		  CASE WHEN $13::text IS NOT NULL THEN now() END, now(), now())`
	ofPlatformUser = `
		ON CONFLICT (guid) DO UPDATE SET program = excluded.program, active = excluded.active, scopes = excluded.scopes,
		  grant_types = excluded.grant_types, user_scopes = excluded.user_scopes, epoch = gen_random_uuid(),
		  password_hash = excluded.password_hash, password_changed_at = excluded.password_changed_at,
		  identity_created_at = now(), identity_updated_at = now(), identity_version = 0`
)

func (i *Identity) checkMatch(m etag.Match) error {
	if m.Allows(strconv.Itoa(i.Version)) {
		return nil
	}
	return fault.New(fault.Stale, "It was changed concurrently: its version is %d.", i.Version)
}

// UpdateIdentity changes an identity by f. People may change their own names and e-mail addresses, and nothing else.
// An identity that is made inactive loses its tokens.
func (s *Store) UpdateIdentity(ctx context.Context, p *Principal, program bool, guid string, match etag.Match,
	f func(*Identity) error) (changed *Identity, err error) {
	err = s.inTx(ctx, p, audit.UpdateAccount, guid, map[string]any{"facet": "identity"}, func(tx pgx.Tx) error {
		i, err := s.changeable(ctx, tx, p, program, guid)
		if err != nil {
			return err
		}
		before := *i
		if err := f(i); err != nil {
			return err
		}
		if err := i.check(); err != nil {
			return err
		}
		i.Scopes, i.UserScopes = inOrder(i.Scopes), inOrder(i.UserScopes)
		err = p.mayChange(append(before.allScopes(), i.allScopes()...))
		if err == nil && i.Active && !before.Active {
			err = p.mayBecome(ctx, tx, &before)
		}
		if err != nil {
			if program || p.GUID != guid {
				return err
			}
			if i.Username != before.Username || i.Active != before.Active || i.Verified != before.Verified {
				return fault.New(fault.Forbidden, "You may change only your own name and e-mail addresses.")
			}
		}
		if err := before.checkMatch(match); err != nil {
			return err
		}
		if i.Origin != before.Origin || before.issuer != "" && i.Username != before.Username {
			return fault.New(fault.Invalid, "The origin cannot be changed, and neither can the user name that another issuer gives.")
		}
		_, err = tx.Exec(ctx, `
			UPDATE accounts SET username = nullif($2, ''), given_name = $3, family_name = $4, emails = $5, active = $6, verified = $7,
			  scopes = $8, grant_types = $9, user_scopes = $10, identity_version = identity_version + 1, identity_updated_at = now(),
			  epoch = CASE WHEN active AND NOT $6 THEN gen_random_uuid() ELSE epoch END
			WHERE id = $1`, i.id, i.Username, i.GivenName, i.FamilyName, notNull(i.Emails), i.Active, i.Verified,
			notNull(i.Scopes), notNull(i.GrantTypes), notNull(i.UserScopes))
		err = nameConflict(err, i.Username, i.Origin)
		if err == nil && before.Active && !i.Active {
			err = endPersonalTokens(ctx, tx, i.id)
		}
		if err != nil {
			return err
		}
		changed, err = readIdentity(ctx, tx, program, guid, "")
		return err
	})
	return changed, err
}

// changeable reads an identity for a change by the principal. A principal that may change no identity does not learn whether
// it exists.
func (s *Store) changeable(ctx context.Context, tx pgx.Tx, p *Principal, program bool, guid string) (*Identity, error) {
	if err := p.mayChange(nil); err != nil && p.GUID != guid {
		return nil, err
	}
	return readIdentity(ctx, tx, program, guid, "FOR UPDATE")
}

// DeleteIdentity takes the identity from an account and returns what it was. The platform user stays, if there is one,
// known by its guid alone. Database users are never touched.
func (s *Store) DeleteIdentity(ctx context.Context, p *Principal, program bool, guid string,
	match etag.Match) (deleted *Identity, err error) {
	detail := map[string]any{"facet": "identity"}
	err = s.inTx(ctx, p, audit.DeleteAccount, guid, detail, func(tx pgx.Tx) error {
		deleted, err = s.changeable(ctx, tx, p, program, guid)
		if err != nil {
			return err
		}
		detail["username"], detail["origin"] = deleted.Username, deleted.Origin
		if err := p.mayChange(deleted.allScopes()); err != nil {
			return err
		}
		if err := deleted.checkMatch(match); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `DELETE FROM accounts WHERE id = $1 AND platform_created_at IS NULL`, deleted.id)
		if err != nil || tag.RowsAffected() == 1 {
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM refresh_tokens WHERE account_id = $1`, deleted.id); err != nil {
			return err
		}
		if err := endPersonalTokens(ctx, tx, deleted.id); err != nil {
			return err
		}
		// The name is free again, and who takes it gets a guid and labels of their own. The scopes go: they were given to
		// the identity, and the next one of this guid must not find them.
		_, err = tx.Exec(ctx, `
			UPDATE accounts SET identity_created_at = NULL, identity_updated_at = NULL, identity_version = 0, epoch =
			  gen_random_uuid(),
			  username = NULL, origin = NULL, issuer = NULL, subject = NULL, program = false, password_hash = NULL,
			    password_changed_at = NULL,
			  active = true, verified = true, given_name = '', family_name = '', emails = '{}', scopes = '{}', grant_types = '{}',
			    user_scopes = '{}',
			  platform_updated_at = now(), revision = revision + 1
			WHERE id = $1`, deleted.id)
		return err
	})
	return deleted, err
}

// SetSecret gives an identity a new password or client secret, and ends its tokens, the personal ones only if it is
// somebody else's. The principal may do that to itself when it has proven the old one, and only then: a stolen token must
// not be enough.
func (s *Store) SetSecret(ctx context.Context, p *Principal, program bool, guid string, proven bool, secret Secret) error {
	return s.record(ctx, p, audit.ChangeSecret, guid, nil, func(ctx context.Context,
		within func(func(pgx.Tx) error) error) error {
		own := p.GUID == guid
		if err := p.mayChange(nil); err != nil && !own {
			return err
		}
		if own && !proven {
			return fault.New(fault.Forbidden, "To change your own, send the old one too.")
		}
		hash, err := secret.hash(ctx)
		if err != nil {
			return err
		}
		return within(func(tx pgx.Tx) error {
			i, err := readIdentity(ctx, tx, program, guid, "FOR UPDATE")
			if err != nil {
				return err
			}
			if !own {
				if err := cmp.Or(p.mayChange(i.allScopes()), p.mayBecome(ctx, tx, i)); err != nil {
					return err
				}
			}
			if !program && i.Origin != LocalOrigin {
				return fault.New(fault.Invalid, "The password of this user is kept by its origin, %s.", i.Origin)
			}
			return writeSecret(ctx, tx, i.id, hash, own)
		})
	})
}

// writeSecret stores the hash of a new password or secret and ends the tokens, the personal ones unless it is the account's
// own change.
func writeSecret(ctx context.Context, tx pgx.Tx, id int64, hash *string, own bool) error {
	_, err := tx.Exec(ctx, `
		UPDATE accounts SET password_hash = $2, password_changed_at = now(), epoch = gen_random_uuid(),
		  identity_version = identity_version + 1, identity_updated_at = now()
		WHERE id = $1`, id, hash)
	if err == nil && !own {
		err = endPersonalTokens(ctx, tx, id)
	}
	return err
}

// Grant gives a person a scope; Exists if it has it.
func (s *Store) Grant(ctx context.Context, p *Principal, guid, scope string) (*Identity, error) {
	return s.setScope(ctx, p, audit.GrantScope, guid, scope, func(i *Identity) ([]string, error) {
		if slices.Contains(i.Scopes, scope) {
			return nil, fault.New(fault.Exists, "The user %q is a member already.", guid)
		}
		return inOrder(append(slices.Clone(i.Scopes), scope)), nil
	})
}

// Revoke takes a scope from a person; NotFound if it does not have it.
func (s *Store) Revoke(ctx context.Context, p *Principal, guid, scope string) (*Identity, error) {
	return s.setScope(ctx, p, audit.RevokeScope, guid, scope, func(i *Identity) ([]string, error) {
		if !slices.Contains(i.Scopes, scope) {
			return nil, fault.New(fault.NotFound, "The user %q is not a member.", guid)
		}
		return slices.DeleteFunc(slices.Clone(i.Scopes), func(s string) bool { return s == scope }), nil
	})
}

func (s *Store) setScope(ctx context.Context, p *Principal, action, guid, scope string,
	f func(*Identity) ([]string, error)) (i *Identity, err error) {
	err = s.inTx(ctx, p, action, guid, map[string]any{"scope": scope}, func(tx pgx.Tx) error {
		if err := p.mayChange([]string{scope}); err != nil {
			return err
		}
		if i, err = readIdentity(ctx, tx, false, guid, "FOR UPDATE"); err != nil {
			return err
		}
		if err := p.mayChange(i.allScopes()); err != nil {
			return err
		}
		scopes, err := f(i)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE accounts SET scopes = $2 WHERE id = $1`, i.id, scopes)
		return err
	})
	return i, err
}

// Member is a person who has a scope.
type Member struct{ GUID, Origin string }

// Members lists the people who have a scope, in the order in which they were made.
func (s *Store) Members(ctx context.Context, p *Principal, scope string) ([]Member, error) {
	if err := p.mayRead(""); err != nil {
		return nil, err
	}
	rows, err := s.DB.Pool.Query(ctx, `
		SELECT guid, coalesce(origin, '') FROM accounts
		WHERE $1 = ANY (scopes) AND identity_created_at IS NOT NULL AND NOT program ORDER BY id`, scope)
	if err != nil {
		return nil, control.Fault(err)
	}
	members, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Member])
	return members, control.Fault(err)
}

// External is what is known of somebody whom another issuer vouches for.
type External struct {
	Issuer, Subject  string // who it is
	Origin, Username string // what it is called
	Address          string
}

// External returns the account of an issuer and subject. At the first use it is created, with identity, platform user and
// the default scopes. If the name is not valid, or in use in the origin, the beginning of the guid makes it unique.
func (s *Store) External(ctx context.Context, x External) (*Account, error) {
	if !storable(x.Subject) {
		return nil, fault.New(fault.Unauthenticated, "The subject of the token is not text.")
	}
	find := func() (*Account, error) { return s.one(ctx, `WHERE issuer = $1 AND subject = $2`, x.Issuer, x.Subject) }
	a, err := find()
	if !fault.Is(err, fault.NotFound) {
		return a, err
	}
	guid := uuid.NewString()
	names := []string{x.Username, x.Username + "-" + guid[:8], guid}
	for _, name := range names {
		if CheckUsername(name) != nil {
			continue
		}
		made := false
		err := s.DB.Tx(ctx, func(tx pgx.Tx) error {
			tag, err := tx.Exec(ctx, `
				INSERT INTO accounts (guid, username, origin, issuer, subject, scopes, emails,
				  identity_created_at, identity_updated_at, platform_created_at, platform_updated_at)
				VALUES ($1, $2, $3, $4, $5, $6, ARRAY[$2], now(), now(), now(), now())
				ON CONFLICT DO NOTHING`, guid, name, x.Origin, x.Issuer, x.Subject, DefaultScopes)
			if made = tag.RowsAffected() == 1; err != nil || !made {
				return err
			}
			return audit.Record(ctx, tx, audit.Entry{
				Action: audit.CreateAccount, AccountGUID: guid, AccountName: name, Target: guid, Address: x.Address,
				Detail: map[string]any{"username": name, "origin": x.Origin, "issuer": x.Issuer, "reason": "first use of a token"},
			})
		})
		if err != nil {
			return nil, err
		}
		// What is there now may be another request's work, for the same subject.
		if a, err := find(); made || !fault.Is(err, fault.NotFound) {
			return a, err
		}
	}
	return nil, fmt.Errorf("no name is free for the subject of %s", x.Issuer)
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
		return audit.Record(ctx, tx, audit.Entry{
			Action: audit.CreateAccount, AccountGUID: a.GUID, AccountName: a.Username, Target: a.GUID, Address: address,
			Detail: map[string]any{"facet": "platform user", "reason": "first use of a token"},
		})
	})
}

// errTokenIdentity keeps a personal access token, which may have leaked, from becoming another way to sign in.
var errTokenIdentity = fault.New(fault.Forbidden, "A personal access token may not change identities, user names, "+
	"passwords, scopes or clients. Sign in for that.")

// record runs f, which makes its change in the transaction that within gives it, and puts the audit row beside the
// change. A change that is refused is recorded as well.
func (s *Store) record(ctx context.Context, p *Principal, action, target string, detail map[string]any,
	f func(ctx context.Context, within func(func(pgx.Tx) error) error) error) error {
	e := p.Entry(action, target, detail)
	if p.Token != uuid.Nil {
		f = func(context.Context, func(func(pgx.Tx) error) error) error { return errTokenIdentity }
	}
	err := f(ctx, func(change func(pgx.Tx) error) error {
		return s.DB.Tx(ctx, func(tx pgx.Tx) error {
			if err := change(tx); err != nil {
				return err
			}
			return audit.Record(ctx, tx, e)
		})
	})
	if fault.Is(err, fault.Forbidden) {
		if !storable(target) {
			e.Target = ""
		}
		err = (&audit.Log{DB: s.DB}).Refuse(ctx, e, err)
	}
	return err
}

// inTx is record for a change that is nothing but its transaction.
func (s *Store) inTx(ctx context.Context, p *Principal, action, target string, detail map[string]any,
	change func(pgx.Tx) error) error {
	return s.record(ctx, p, action, target, detail, func(_ context.Context, within func(func(pgx.Tx) error) error) error {
		return within(change)
	})
}

// inOrder returns the scopes in the order in which they are shown, each once. Those that do not exist come last.
func inOrder(scopes []string) []string {
	ordered, left := []string{}, make(map[string]bool, len(scopes)) // a request may hold thousands
	for _, scope := range scopes {
		left[scope] = true
	}
	for _, scope := range append(slices.Clone(Scopes), scopes...) {
		if left[scope] {
			ordered, left[scope] = append(ordered, scope), false
		}
	}
	return ordered
}

func notNull(list []string) []string { return append([]string{}, list...) }
