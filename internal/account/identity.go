package account

import (
	"cmp"
	"context"
	"fmt"
	"maps"
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
	"rolecall/internal/invisible"
)

// shownOnly is what names consist of.
const shownOnly = "only characters that are shown: no control characters, and none of zero width or of text direction"

// CheckUsername says what is wrong with a user name.
func CheckUsername(name string) error {
	switch {
	case name == "" || utf8.RuneCountInString(name) > 255:
		return fault.New(fault.Invalid, "A user name has 1 to 255 characters.")
	case !storable(name) || invisible.In(name):
		return fault.New(fault.Invalid, "A user name has %s.", shownOnly)
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
		strings.ContainsFunc(id, unicode.IsSpace) || invisible.In(id) {
		return fault.New(fault.Invalid, `A client id has 1 to 200 characters: no spaces, none of / \ %% + and the colon, and %s.`,
			shownOnly)
	}
	return nil
}

// checkGUID says what is wrong with a guid that a new account is given.
func checkGUID(guid string) error {
	if audit.IsActor(guid) {
		return fault.New(fault.Invalid, "The guid %q is reserved for Rolecall itself. Choose another.", guid)
	}
	if invisible.In(guid) {
		return fault.New(fault.Invalid, "A guid has %s.", shownOnly)
	}
	return nil
}

// names are those of a person or of an OAuth client, all but the one that it signs in with.
func (a *Profile) names() []string {
	return append([]string{a.GivenName, a.FamilyName, a.Origin, a.Client.Name}, a.Emails...)
}

// check says what is wrong with how an account is to sign in. Names that it had before stay valid: the rules were fewer.
// A new account had none.
func (a *Profile) check(before *Profile) error {
	var err error
	switch {
	case a.OAuthClient && (a.GUID != before.GUID || a.GUID == ""):
		err = checkClientID(a.GUID)
	case !a.OAuthClient && (a.Username != before.Username || a.Username == ""):
		err = CheckUsername(a.Username)
	}
	if err != nil {
		return err
	}
	if err := a.Client.check(); err != nil {
		return err
	}
	for _, text := range a.names() {
		if !slices.Contains(before.names(), text) {
			if err := checkText("Names, e-mail addresses and the origin have", text); err != nil {
				return err
			}
		}
	}
	if len(a.Emails) > 20 || slices.Contains(a.Emails, "") {
		return fault.New(fault.Invalid, "A user has at most 20 e-mail addresses, none of which is empty.")
	}
	return checkScopes(a.allScopes())
}

func checkText(what, text string) error {
	if utf8.RuneCountInString(text) > 255 || !storable(text) || invisible.In(text) {
		return fault.New(fault.Invalid, "%s at most 255 characters, and %s.", what, shownOnly)
	}
	return nil
}

// The longest times for which tokens are valid. Clients may have shorter ones.
const (
	MaxAccessValidity  = 12 * time.Hour
	MaxRefreshValidity = 30 * 24 * time.Hour
)

func (c ClientSettings) check() error {
	for _, v := range []struct {
		what    string
		seconds int
		longest time.Duration
	}{
		{"access", c.AccessValidity, MaxAccessValidity},
		{"refresh", c.RefreshValidity, MaxRefreshValidity},
	} {
		if most := int(v.longest.Seconds()); v.seconds < 0 || v.seconds > most {
			return fault.New(fault.Invalid, "The validity of %s tokens must be 1 to %d seconds, or 0 for the usual time, not %d.",
				v.what, most, v.seconds)
		}
	}
	return nil
}

func checkScopes(scopes []string) error {
	for _, scope := range scopes {
		if !slices.Contains(Scopes, scope) {
			return fault.New(fault.Invalid, "There is no scope %.100q. There are: %s.", scope, strings.Join(Scopes, ", "))
		}
	}
	return nil
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
	"active":   "active = (%s = 'true')",
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

// Order is the order of a list of identities; the zero Order is that in which they were made.
type Order struct {
	Field      string
	Descending bool
}

// orderColumns are the fields of an Order.
var orderColumns = map[string]string{
	"":         "id",
	"guid":     "guid",
	"username": "lower(username)",
	"origin":   "origin",
	"updated":  "identity_updated_at",
	"active":   "active",
}

func (o Order) sql() string {
	direction := "ASC"
	if o.Descending {
		direction = "DESC"
	}
	return fmt.Sprintf(" ORDER BY %s %s, id %[2]s", orderColumns[o.Field], direction)
}

// Identities lists people, or OAuth clients: at most limit from offset on, and how many there are in all.
func (s *Store) Identities(ctx context.Context, p *Principal, clients bool, f Filter, o Order, offset, limit int) (
	found []*Profile, total int, err error) {
	if err := p.mayRead(""); err != nil {
		return nil, 0, err
	}
	args := []any{clients}
	where := ` FROM accounts WHERE identity_created_at IS NOT NULL AND program = $1 AND ` + f.sql(&args)
	if err := s.DB.Pool.QueryRow(ctx, `SELECT count(*)`+where, args...).Scan(&total); err != nil {
		return nil, 0, control.Fault(err)
	}
	rows, err := s.DB.Pool.Query(ctx,
		`SELECT `+withoutAnnotations+where+o.sql()+fmt.Sprintf(` LIMIT %d OFFSET %d`, limit, offset), args...)
	if err != nil {
		return nil, 0, control.Fault(err)
	}
	found, err = pgx.CollectRows(rows, scanProfile)
	return found, total, control.Fault(err)
}

// Identity returns one person, or one OAuth client.
func (s *Store) Identity(ctx context.Context, p *Principal, client bool, guid string) (*Profile, error) {
	if err := p.mayRead(guid); err != nil {
		return nil, err
	}
	return readIdentity(ctx, s.DB.Pool, client, guid, "")
}

func readIdentity(ctx context.Context, q control.Querier, client bool, guid, lock string) (*Profile, error) {
	missing := fault.New(fault.NotFound, "There is no user %.100q.", guid)
	if client {
		missing = fault.New(fault.NotFound, "There is no client %.100q.", guid)
	}
	if !storable(guid) {
		return nil, missing
	}
	a, err := one(ctx, q, `SELECT `+withoutAnnotations+` FROM accounts
		WHERE guid = $1 AND identity_created_at IS NOT NULL AND program = $2 `+lock, guid, client)
	if err == nil && a == nil {
		err = missing
	}
	return a, err
}

// changeable reads an identity for a change of the principal's. A principal that may change no identity does not learn
// whether there is one.
func changeable(ctx context.Context, tx pgx.Tx, p *Principal, client bool, guid string) (*Profile, error) {
	if err := p.mayChange(nil); err != nil && p.GUID != guid {
		return nil, err
	}
	return readIdentity(ctx, tx, client, guid, "FOR UPDATE")
}

// Unlock records that the waits of a person after failed sign-ins end, and returns the account. They are not stored here.
func (s *Store) Unlock(ctx context.Context, p *Principal, guid string) (unlocked *Profile, err error) {
	e := p.Entry(audit.UpdateAccount, guid, detail{Part: identityPart, Unlocked: true})
	if err := p.mayChangeIdentity(nil); err != nil {
		return nil, s.refuse(ctx, e, err)
	}
	err = s.DB.Tx(ctx, func(tx pgx.Tx) error {
		if unlocked, err = readIdentity(ctx, tx, false, guid, ""); err != nil {
			return err
		}
		if err := p.mayChange(unlocked.allScopes()); err != nil {
			return err
		}
		return s.Audit.Record(ctx, tx, e)
	})
	return unlocked, s.refuse(ctx, e, err)
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

// IdentityChange is what is to be different of an identity. What is nil stays.
type IdentityChange struct {
	Username, Origin, GivenName, FamilyName *string
	Active, Verified                        *bool
	Emails, Scopes, GrantTypes, UserScopes  *[]string
	ClientName                              *string
	AccessValidity, RefreshValidity         *int
}

// withIdentity returns the account as the change wants it. An empty origin stands for the one that the account has.
func (a *Profile) withIdentity(c IdentityChange) *Profile {
	want := *a
	set(&want.Username, c.Username)
	set(&want.GivenName, c.GivenName)
	set(&want.FamilyName, c.FamilyName)
	set(&want.Active, c.Active)
	set(&want.Verified, c.Verified)
	set(&want.Emails, c.Emails)
	set(&want.GrantTypes, c.GrantTypes)
	set(&want.Scopes, c.Scopes)
	set(&want.UserScopes, c.UserScopes)
	set(&want.Client.Name, c.ClientName)
	set(&want.Client.AccessValidity, c.AccessValidity)
	set(&want.Client.RefreshValidity, c.RefreshValidity)
	want.Scopes, want.UserScopes = inOrder(want.Scopes), inOrder(want.UserScopes)
	if c.Origin != nil && *c.Origin != "" {
		want.Origin = *c.Origin
	}
	return &want
}

// set gives a field a new value, if there is one.
func set[T any](field, to *T) {
	if to != nil {
		*field = *to
	}
}

// CreateUser makes a person, under a fresh guid and with the default scopes.
func (s *Store) CreateUser(ctx context.Context, p *Principal, c IdentityChange, secret Secret) (*Profile, error) {
	n := newProfile(uuid.NewString(), "", LocalOrigin, DefaultScopes).withIdentity(c)
	if n.Emails == nil {
		n.Emails = []string{n.Username}
	}
	if secret != nil && n.Origin != LocalOrigin {
		return nil, fault.New(fault.Invalid, "A user of the origin %q has no password here.", n.Origin)
	}
	if err := s.mayPrepare(n.Origin); err != nil {
		return nil, cmp.Or(p.mayChangeIdentity(nil), err)
	}
	return s.createIdentity(ctx, p, n, secret)
}

// CreateClient makes an OAuth client with the scopes that it is given. It may be the identity of a platform user whose guid
// is known already, and then has what its labels give, so that needs an admin.
func (s *Store) CreateClient(ctx context.Context, p *Principal, id string, c IdentityChange, secret Secret) (
	*Profile, error) {
	n := newProfile(id, "", "", nil).withIdentity(c)
	n.OAuthClient = true
	return s.createIdentity(ctx, p, n, secret)
}

func (s *Store) createIdentity(ctx context.Context, p *Principal, n *Profile, secret Secret) (*Profile, error) {
	e := p.Entry(audit.CreateAccount, n.GUID, detail{
		Part: identityPart, OAuthClient: n.OAuthClient, Username: orNil(n.Username), Origin: orNil(n.Origin), Scopes: n.Scopes,
	})
	// What nobody could make is no attempt, and not recorded: it may be as long as a body.
	if err := cmp.Or(n.check(&Profile{}), checkGUID(n.GUID)); err != nil {
		if p.Token != uuid.Nil {
			return nil, errTokenIdentity
		}
		return nil, cmp.Or(p.mayChange(nil), err)
	}
	if err := p.mayChangeIdentity(n.allScopes()); err != nil {
		return nil, s.refuse(ctx, e, err)
	}
	hash, err := secret.hash(ctx)
	if err != nil {
		return nil, err
	}
	var made *Profile
	err = s.DB.Tx(ctx, func(tx pgx.Tx) error {
		if made, err = addIdentity(ctx, tx, p, n, hash); err != nil {
			return err
		}
		return s.Audit.Record(ctx, tx, e)
	})
	return made, s.refuse(ctx, e, err)
}

// addIdentity adds an account or, to a platform user that is known by its guid alone, an OAuth client.
func addIdentity(ctx context.Context, tx pgx.Tx, p *Principal, n *Profile, hash *string) (*Profile, error) {
	if !n.OAuthClient {
		made, err := insert(ctx, tx, n, parts{identity: true}, hash)
		if err == nil && made == nil {
			err = taken(n.Username, n.Origin)
		}
		return made, err
	}
	is, err := one(ctx, tx, `SELECT `+withoutAnnotations+` FROM accounts WHERE guid = $1 FOR UPDATE`, n.GUID)
	clash := fault.New(fault.Exists, "The client id %q is taken.", n.GUID)
	switch {
	case err != nil:
		return nil, err
	case is == nil && uuid.Validate(n.GUID) == nil:
		// It may have been somebody's, whose rows the audit log would show.
		return nil, fault.New(fault.Invalid, "The client id %q is a UUID: those are the guids of people. Choose another.", n.GUID)
	case is == nil:
		if err := mayReuse(ctx, tx, p, n.GUID); err != nil {
			return nil, err
		}
		made, err := insert(ctx, tx, n, parts{identity: true}, hash)
		if err == nil && made == nil {
			err = clash
		}
		return made, err
	case is.HasIdentity() || is.Username != "":
		return nil, clash
	case !p.Has(ScopeAdmin):
		return nil, fault.New(fault.Forbidden, "A platform user has this guid: a client with it requires the scope %s.",
			ScopeAdmin)
	}
	return one(ctx, tx, `
		UPDATE accounts SET program = true, active = $2, scopes = $3, grant_types = $4, user_scopes = $5,
		  epoch = gen_random_uuid(),
		  password_hash = $6, password_changed_at = CASE WHEN $6::text IS NOT NULL THEN now() END,
		  client_name = $7, access_validity = $8, refresh_validity = $9,
		  identity_created_at = now(), identity_updated_at = now(), identity_version = 0
		WHERE id = $1 RETURNING `+withoutAnnotations,
		is.ID, n.Active, notNull(n.Scopes), notNull(n.GrantTypes), notNull(n.UserScopes), hash,
		n.Client.Name, n.Client.AccessValidity, n.Client.RefreshValidity)
}

// mayReuse keeps the rows of the audit log about what a deleted account did from a new one of its guid, which reads its own.
// An admin reads all of them.
func mayReuse(ctx context.Context, tx pgx.Tx, p *Principal, guid string) error {
	if p.Has(ScopeAdmin) {
		return nil
	}
	known, err := audit.Knows(ctx, tx, guid)
	if err == nil && known {
		err = fault.New(fault.Forbidden, "The client id %q was that of an account whose changes are in the audit log. To use it "+
			"again requires the scope %s. Choose another.", guid, ScopeAdmin)
	}
	return err
}

func (a *Profile) checkVersion(m etag.Match) error {
	if m.Allows(strconv.Itoa(a.Version)) {
		return nil
	}
	return fault.New(fault.Stale, "It was changed concurrently: its version is %d.", a.Version)
}

// UpdateIdentity changes an identity. People may change their own names and e-mail addresses, and nothing else. An identity
// that is made inactive loses its tokens.
func (s *Store) UpdateIdentity(ctx context.Context, p *Principal, client bool, guid string, m etag.Match, c IdentityChange) (
	changed *Profile, err error) {
	e := p.Entry(audit.UpdateAccount, guid, detail{Part: identityPart})
	if p.Token != uuid.Nil {
		return nil, s.refuse(ctx, e, errTokenIdentity)
	}
	err = s.DB.Tx(ctx, func(tx pgx.Tx) error {
		is, err := changeable(ctx, tx, p, client, guid)
		if err != nil {
			return err
		}
		want := is.withIdentity(c)
		if err := want.check(is); err != nil {
			return err
		}
		if err := p.mayUpdateIdentity(is, want); err != nil {
			return err
		}
		if err := is.checkVersion(m); err != nil {
			return err
		}
		if want.Origin != is.Origin || is.isExternal() && want.Username != is.Username {
			return fault.New(fault.Invalid, "The origin cannot be changed, and neither can the user name that another issuer gives.")
		}
		changed, err = s.save(ctx, tx, want, parts{identity: true}, e)
		return err
	})
	return changed, s.refuse(ctx, e, err)
}

// mayUpdateIdentity says whether the principal may make an identity what it is to be.
func (p *Principal) mayUpdateIdentity(is, want *Profile) error {
	err := p.mayChange(append(is.allScopes(), want.allScopes()...))
	if err == nil && want.Active && !is.Active {
		err = p.mayOpen(is)
	}
	if err == nil || is.OAuthClient || p.GUID != is.GUID {
		return err
	}
	if want.Username != is.Username || want.Active != is.Active || want.Verified != is.Verified {
		return fault.New(fault.Forbidden, "You may change only your own name and e-mail addresses.")
	}
	return nil
}

// DeleteIdentity takes the identity from an account and returns what it was. The platform user stays, if there is one,
// known by its guid alone. Database users are never touched.
func (s *Store) DeleteIdentity(ctx context.Context, p *Principal, client bool, guid string, match etag.Match) (
	deleted *Profile, err error) {
	e := p.Entry(audit.DeleteAccount, guid, detail{Part: identityPart})
	if p.Token != uuid.Nil {
		return nil, s.refuse(ctx, e, errTokenIdentity)
	}
	err = s.DB.Tx(ctx, func(tx pgx.Tx) error {
		if deleted, err = changeable(ctx, tx, p, client, guid); err != nil {
			return err
		}
		if err := p.mayChange(deleted.allScopes()); err != nil {
			return err
		}
		if err := deleted.checkVersion(match); err != nil {
			return err
		}
		if err := removeIdentity(ctx, tx, deleted); err != nil {
			return err
		}
		d := detail{Part: identityPart, Username: deleted.Username, Origin: deleted.Origin}
		if removed := deleted.issuerLabels(); len(removed) > 0 {
			d.Labels = removed
		}
		e.Detail = d
		return s.Audit.Record(ctx, tx, e)
	})
	return deleted, s.refuse(ctx, e, err)
}

func removeIdentity(ctx context.Context, tx pgx.Tx, a *Profile) error {
	if !a.IsPlatformUser() {
		_, err := tx.Exec(ctx, `DELETE FROM accounts WHERE id = $1`, a.ID)
		return err
	}
	for _, signIns := range []string{"refresh_tokens", "console_sessions"} {
		if _, err := tx.Exec(ctx, `DELETE FROM `+signIns+` WHERE account_id = $1`, a.ID); err != nil {
			return err
		}
	}
	if err := endPersonalTokens(ctx, tx, a.ID); err != nil {
		return err
	}
	// The name is free again, and who takes it gets a guid and labels of their own. The scopes go: they were given to
	// the identity, and the next one of this guid must not find them. So do the labels that its issuer has set.
	_, err := tx.Exec(ctx, `
		UPDATE accounts SET identity_created_at = NULL, identity_updated_at = NULL, identity_version = 0,
		  epoch = gen_random_uuid(), username = NULL, origin = NULL, issuer = NULL, subject = NULL, program = false,
		  password_hash = NULL, password_changed_at = NULL,
		  active = true, verified = true, given_name = '', family_name = '', emails = '{}',
		  scopes = '{}', grant_types = '{}', user_scopes = '{}',
		  client_name = '', access_validity = 0, refresh_validity = 0,
		  labels = labels - ARRAY(SELECT jsonb_object_keys(label_sources)), label_sources = '{}',
		  platform_updated_at = now(), revision = revision + 1
		WHERE id = $1`, a.ID)
	return err
}

// SetSecret gives an identity a new password or client secret, and ends its tokens, the personal ones only if it is
// somebody else's. The principal may do that to itself when it has proven the old one, and only then: a stolen token must
// not be enough.
func (s *Store) SetSecret(ctx context.Context, p *Principal, client bool, guid string, proven bool, secret Secret) error {
	e := p.Entry(audit.ChangeSecret, guid, nil)
	a, err := s.secretOf(ctx, p, client, guid)
	if err == nil {
		_, err = s.setSecret(ctx, p, a, nil, proven, secret, e)
	}
	return s.refuse(ctx, e, err)
}

func (s *Store) secretOf(ctx context.Context, p *Principal, client bool, guid string) (*Profile, error) {
	if err := p.mayChangeIdentity(nil); err != nil && (p.Token != uuid.Nil || p.GUID != guid) {
		return nil, err
	}
	return readIdentity(ctx, s.DB.Pool, client, guid, "")
}

// setSecret gives an account that was read a new password or secret.
func (s *Store) setSecret(
	ctx context.Context, p *Principal, a *Profile, m etag.Match, proven bool, secret Secret, e audit.Entry,
) (changed *Profile, err error) {
	if err := p.maySetSecret(a, proven); err != nil {
		return nil, err
	}
	hash, err := secret.hash(ctx)
	if err != nil {
		return nil, err
	}
	err = s.DB.Tx(ctx, func(tx pgx.Tx) error {
		is, err := one(ctx, tx, `SELECT `+withoutAnnotations+` FROM accounts WHERE id = $1 FOR UPDATE`, a.ID)
		if err == nil && is == nil {
			err = errNoAccount
		}
		if err != nil {
			return err
		}
		if err := p.maySetSecret(is, proven); err != nil { // it may have changed while the hash was computed
			return err
		}
		if err := is.checkTag(m); err != nil {
			return err
		}
		if p.GUID != is.GUID {
			if err := endPersonalTokens(ctx, tx, is.ID); err != nil {
				return err
			}
		}
		changed, err = one(ctx, tx, `
			UPDATE accounts SET password_hash = $2, password_changed_at = now(), epoch = gen_random_uuid(),
			  identity_version = identity_version + 1, identity_updated_at = now()
			WHERE id = $1 RETURNING `+withAnnotations, is.ID, hash)
		if err != nil {
			return err
		}
		return s.Audit.Record(ctx, tx, e)
	})
	return changed, err
}

// maySetSecret says whether the principal may set the password or secret of an account.
func (p *Principal) maySetSecret(a *Profile, proven bool) error {
	var err error
	switch {
	case p.Token != uuid.Nil:
		err = errTokenIdentity
	case p.GUID != a.GUID:
		err = cmp.Or(p.mayChange(a.allScopes()), p.mayOpen(a))
	case !proven:
		err = fault.New(fault.Forbidden, "To change your own password or secret, send the current one, too.")
	}
	switch {
	case err != nil:
		return err
	case !a.HasIdentity():
		return errCannotSignIn
	case !a.OAuthClient && a.Origin != LocalOrigin:
		return fault.New(fault.Invalid, "The password of this account is kept by its origin, %s.", a.Origin)
	}
	return nil
}

// Grant gives a person a scope; Exists if it has it.
func (s *Store) Grant(ctx context.Context, p *Principal, guid, scope string) (*Profile, error) {
	return s.setScope(ctx, p, audit.GrantScope, guid, scope)
}

// Revoke takes a scope from a person; NotFound if it does not have it.
func (s *Store) Revoke(ctx context.Context, p *Principal, guid, scope string) (*Profile, error) {
	return s.setScope(ctx, p, audit.RevokeScope, guid, scope)
}

func (s *Store) setScope(ctx context.Context, p *Principal, action, guid, scope string) (changed *Profile, err error) {
	e := p.Entry(action, guid, detail{Scope: scope})
	if err := p.mayChangeIdentity([]string{scope}); err != nil {
		return nil, s.refuse(ctx, e, err)
	}
	err = s.DB.Tx(ctx, func(tx pgx.Tx) error {
		changed, err = s.changeScope(ctx, tx, p, e, guid, scope)
		return err
	})
	return changed, s.refuse(ctx, e, err)
}

// changeScope grants or revokes a scope, as the entry for the audit log says.
func (s *Store) changeScope(ctx context.Context, tx pgx.Tx, p *Principal, e audit.Entry, guid, scope string) (
	*Profile, error) {
	if err := lockMembers(ctx, tx, scope); err != nil {
		return nil, err
	}
	is, err := readIdentity(ctx, tx, false, guid, "FOR UPDATE")
	if err != nil {
		return nil, err
	}
	if err := p.mayChange(is.allScopes()); err != nil {
		return nil, err
	}
	want := *is
	switch has := slices.Contains(is.Scopes, scope); {
	case e.Action == audit.GrantScope && has:
		return nil, fault.New(fault.Exists, "The user %q is a member already.", guid)
	case e.Action == audit.GrantScope:
		want.Scopes = inOrder(append(slices.Clone(is.Scopes), scope))
	case !has:
		return nil, fault.New(fault.NotFound, "The user %q is not a member.", guid)
	default:
		want.Scopes = slices.DeleteFunc(slices.Clone(is.Scopes), func(s string) bool { return s == scope })
	}
	return s.save(ctx, tx, &want, parts{}, e) // no version moves: the groups of a user are not its own
}

// lockMembers makes changes of the members of one scope follow each other, to the end of the transaction.
func lockMembers(ctx context.Context, tx pgx.Tx, scope string) error {
	_, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('rolecall members ' || $1, 0))`, scope)
	return err
}

// Member is a person who has a scope.
type Member struct{ GUID, Origin string }

// Members lists the people who have a scope, in the order in which they were made.
func (s *Store) Members(ctx context.Context, p *Principal, scope string) ([]Member, error) {
	if err := p.mayRead(""); err != nil {
		return nil, err
	}
	members, err := members(ctx, s.DB.Pool, scope)
	return members, control.Fault(err)
}

func members(ctx context.Context, q control.Querier, scope string) ([]Member, error) {
	rows, err := q.Query(ctx, `
		SELECT guid, coalesce(origin, '') FROM accounts
		WHERE $1 = ANY (scopes) AND identity_created_at IS NOT NULL AND NOT program ORDER BY id`, scope)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Member])
}

// SetMembers makes these people the only ones who have a scope, all or nothing. allowed decides whether the members are
// those that the change is for.
func (s *Store) SetMembers(ctx context.Context, p *Principal, scope string, guids []string,
	allowed func(are []Member) error) (now []Member, err error) {
	e := p.Entry(audit.GrantScope, "", detail{Scope: scope})
	if err := p.mayChangeIdentity([]string{scope}); err != nil {
		return nil, s.refuse(ctx, e, err)
	}
	err = s.DB.Tx(ctx, func(tx pgx.Tx) error {
		if err := lockMembers(ctx, tx, scope); err != nil {
			return err
		}
		are, err := members(ctx, tx, scope)
		if err != nil {
			return err
		}
		if err := allowed(are); err != nil {
			return err
		}
		want, has := map[string]bool{}, map[string]bool{}
		for _, guid := range guids {
			want[guid] = true
		}
		for _, m := range are {
			has[m.GUID] = true
		}
		// Two such changes lock accounts in the same order, so that neither waits for the other without end.
		for _, guid := range slices.Sorted(maps.Keys(union(want, has))) {
			if want[guid] == has[guid] {
				continue
			}
			action, concurrently := audit.RevokeScope, fault.NotFound
			if want[guid] {
				action, concurrently = audit.GrantScope, fault.Exists
			}
			_, err := s.changeScope(ctx, tx, p, p.Entry(action, guid, detail{Scope: scope}), guid, scope)
			if err != nil && !fault.Is(err, concurrently) {
				return err
			}
		}
		if now, err = members(ctx, tx, scope); err == nil && scope == ScopeAdmin && len(now) == 0 {
			return fault.New(fault.Invalid, "Nobody would be left who has the scope %s. Give it to somebody else first.", scope)
		}
		return err
	})
	return now, s.refuse(ctx, e, err)
}

func union(a, b map[string]bool) map[string]bool {
	both := maps.Clone(a)
	maps.Copy(both, b)
	return both
}
