package account

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/audit"
	"rolecall/internal/control"
	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/label"
	"rolecall/internal/sqlstate"
)

// Profile is an account as Rolecall's own API shows it: how it signs in, what it may do, and its labels. CreatedAt and
// UpdatedAt are those of the account as a whole.
type Profile struct {
	PlatformUser
	Active bool // it can sign in
	Scopes []string

	userScopes []string
	platform   bool // it has been used, or has metadata: /v3 shows it
	state      string
}

// Tag names the state of the account: the row's version in PostgreSQL, which every change makes another one.
func (a *Profile) Tag() string { return a.state }

// OAuthClient reports whether the account is an OAuth client, whose id is the guid.
func (a *Profile) OAuthClient() bool { return a.program }

// ID orders accounts by their creation.
func (a *Profile) ID() int64 { return a.id }

// allScopes are those of the account itself and those that pass through it.
func (a *Profile) allScopes() []string { return append(slices.Clone(a.Scopes), a.userScopes...) }

// An account that is known by its guid alone has no identity: it cannot sign in.
const profileColumns = `id, guid, coalesce(username, ''), coalesce(origin, ''), coalesce(presentation_name, ''),
	labels, annotations, least(identity_created_at, platform_created_at), greatest(identity_updated_at, platform_updated_at),
	program, issuer IS NOT NULL, identity_created_at IS NOT NULL, active AND identity_created_at IS NOT NULL, scopes,
	user_scopes, platform_created_at IS NOT NULL, xmin::text`

func scanProfile(row pgx.CollectableRow) (*Profile, error) {
	var a Profile
	err := row.Scan(&a.id, &a.GUID, &a.Username, &a.Origin, &a.PresentationName, &a.Labels, &a.Annotations,
		&a.CreatedAt, &a.UpdatedAt, &a.program, &a.external,
		&a.identity, &a.Active, &a.Scopes, &a.userScopes, &a.platform, &a.state)
	return &a, err
}

// readProfile returns the account of that guid if the principal sees it, by the scopes that show identities as well.
func readProfile(ctx context.Context, q querier, p *Principal, guid, lock string, scopes ...string) (*Profile, error) {
	if !storable(guid) {
		return nil, errNoAccount
	}
	c := &conditions{}
	c.add(`guid = `, c.arg(guid))
	c.visible(p, scopes...)
	rows, err := q.Query(ctx, `SELECT `+profileColumns+` FROM accounts WHERE `+strings.Join(c.clauses, ` AND `)+lock, c.args...)
	if err != nil {
		return nil, control.Fault(err)
	}
	a, err := pgx.CollectExactlyOneRow(rows, scanProfile)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, errNoAccount
	}
	return a, control.Fault(err)
}

// visible leaves the accounts that the principal sees: all of them with a scope that reads everything, those that can sign
// in with one of the scopes, and always itself.
func (c *conditions) visible(p *Principal, scopes ...string) {
	switch {
	case seesAll(p):
	case p.Has(scopes...):
		c.add(`(identity_created_at IS NOT NULL OR guid = `, c.arg(p.GUID), `)`)
	default:
		c.add(`guid = `, c.arg(p.GUID))
	}
}

// ProfileFilter selects accounts. Fields that are "" or nil select all.
type ProfileFilter struct {
	GUID, Username, Origin, Scope string
	Active                        *bool
	Selector                      label.Selector
}

// Profiles lists at most limit of the accounts that the principal sees and the filter selects, those behind an id, in the
// order of their creation. more says whether others follow.
func (s *Store) Profiles(ctx context.Context, p *Principal, f ProfileFilter, after int64,
	limit int) (found []*Profile, more bool, err error) {
	c := &conditions{}
	c.add(`id > `, c.arg(after))
	c.visible(p, ScopeSCIMRead)
	if f.GUID != "" {
		c.add(`guid = `, c.arg(f.GUID))
	}
	if f.Username != "" {
		c.add(`username IS NOT NULL AND lower(username) = lower(`, c.arg(f.Username), `)`)
	}
	if f.Origin != "" {
		c.add(`origin = `, c.arg(f.Origin))
	}
	if f.Scope != "" {
		c.add(c.arg(f.Scope), ` = ANY (scopes)`)
	}
	if f.Active != nil {
		c.add(`(active AND identity_created_at IS NOT NULL) = `, c.arg(*f.Active))
	}
	for _, r := range f.Selector {
		c.requirement(r)
	}
	rows, err := s.DB.Pool.Query(ctx, `SELECT `+profileColumns+` FROM accounts WHERE `+strings.Join(c.clauses, ` AND `)+
		fmt.Sprintf(` ORDER BY id LIMIT %d`, limit+1), planned(c.args)...)
	if err != nil {
		return nil, false, control.Fault(err)
	}
	if found, err = pgx.CollectRows(rows, scanProfile); err != nil {
		return nil, false, control.Fault(err)
	}
	if len(found) > limit {
		return found[:limit], true, nil
	}
	return found, false, nil
}

// Profile returns an account that the principal sees.
func (s *Store) Profile(ctx context.Context, p *Principal, guid string) (*Profile, error) {
	return readProfile(ctx, s.DB.Pool, p, guid, ``, ScopeSCIMRead)
}

var errAdminOnly = fault.New(fault.Forbidden, "This needs the scope %s.", ScopeAdmin)

// mayChangeSignIn says whether the principal may change how accounts with these scopes sign in. Admins may; the others
// need what they need for identities.
func (p *Principal) mayChangeSignIn(scopes []string) error {
	switch {
	case p.Token != uuid.Nil:
		return errTokenIdentity
	case p.Has(ScopeAdmin):
		return nil
	}
	return p.mayChange(scopes)
}

// mayOpen says whether the principal may open the way to an account: labels are rights, which only admins give.
func (p *Principal) mayOpen(a *Profile) error {
	if len(a.Labels) > 0 && !p.Has(ScopeAdmin) {
		return errLabelled
	}
	return nil
}

// NewProfile is an account that is to be created. A label or annotation that is nil is left out.
type NewProfile struct {
	Username, Origin    string
	Scopes              []string // nil: the default ones
	Labels, Annotations map[string]*string
}

func (n *NewProfile) check(withPassword bool) error {
	if err := CheckUsername(n.Username); err != nil {
		return err
	}
	switch {
	case n.Origin == "" || utf8.RuneCountInString(n.Origin) > 255 || !storable(n.Origin) ||
		strings.ContainsFunc(n.Origin, unicode.IsControl):
		return fault.New(fault.Invalid, "The origin has 1 to 255 characters, and no control characters.")
	case withPassword && n.Origin != LocalOrigin:
		return fault.New(fault.Invalid, "An account of the origin %q has no password here.", n.Origin)
	}
	return checkScopes(n.Scopes)
}

func checkScopes(scopes []string) error {
	for _, scope := range scopes {
		if !slices.Contains(Scopes, scope) {
			return fault.New(fault.Invalid, "There is no scope %.100q. There are: %s.", scope, strings.Join(Scopes, ", "))
		}
	}
	return nil
}

// CreateProfile creates an account that can sign in and has metadata, under a fresh guid.
func (s *Store) CreateProfile(ctx context.Context, p *Principal, n NewProfile, secret Secret) (made *Profile, err error) {
	if n.Scopes == nil {
		n.Scopes = DefaultScopes
	}
	e := p.Entry(audit.CreateAccount, uuid.NewString(), nil)
	err = p.mayChangeSignIn(n.Scopes)
	if err == nil && len(n.Labels)+len(n.Annotations) > 0 && !p.Has(ScopeAdmin) {
		err = errAdminOnly
	}
	if err != nil {
		return nil, s.refuse(ctx, e, err)
	}
	if err := n.check(secret != nil); err != nil {
		return nil, err
	}
	var blank PlatformUser
	detail, err := blank.mergeMetadata(n.Labels, n.Annotations)
	if err != nil {
		return nil, err
	}
	n.Scopes = inOrder(n.Scopes)
	detail["username"], detail["origin"], detail["scopes"] = n.Username, n.Origin, n.Scopes
	e.Detail = detail
	hash, err := secret.hash(ctx)
	if err != nil {
		return nil, err
	}
	err = s.DB.Tx(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `
			INSERT INTO accounts (guid, username, origin, scopes, emails, labels, annotations, password_hash, password_changed_at,
			  identity_created_at, identity_updated_at, platform_created_at, platform_updated_at)
			VALUES ($1, $2, $3, $4, ARRAY[$2], $5, $6, $7, CASE WHEN $7::text IS NOT NULL THEN now() END, now(), now(), now(),
			  now())`,
			e.Target, n.Username, n.Origin, n.Scopes, blank.Labels, blank.Annotations, hash)
		if err != nil {
			return nameConflict(err, n.Username, n.Origin)
		}
		if made, err = readProfile(ctx, tx, p, e.Target, ``, ScopeSCIMWrite); err != nil {
			return err
		}
		return audit.Record(ctx, tx, e)
	})
	return made, err
}

// nameConflict words the conflict of a user name that is taken.
func nameConflict(err error, username, origin string) error {
	if sqlstate.Is(err, sqlstate.UniqueViolation) {
		return fault.New(fault.Exists, "The user name %q is taken in the origin %q.", username, origin)
	}
	return err
}

// refuse records a change that the principal may not make, and returns the refusal.
func (s *Store) refuse(ctx context.Context, e audit.Entry, why error) error {
	if !storable(e.Target) {
		e.Target = ""
	}
	return (&audit.Log{DB: s.DB}).Refuse(ctx, e, why)
}

// ProfileChange is what is to be different. What is nil stays; a label or annotation that is nil is removed.
type ProfileChange struct {
	Active           *bool
	Scopes           *[]string
	Username         *string
	PresentationName *string // "": the name that follows from the others
	Labels           map[string]*string
	Annotations      map[string]*string
}

// with returns the account as the change wants it, and for the audit log what is different of how it signs in and of its
// metadata.
func (a *Profile) with(c ProfileChange) (want Profile, signIn, metadata map[string]any, err error) {
	want, signIn = *a, map[string]any{}
	if name := c.PresentationName; name != nil && (utf8.RuneCountInString(*name) > 255 ||
		strings.ContainsFunc(*name, unicode.IsControl)) {
		return want, nil, nil, fault.New(fault.Invalid, "A presentation name has at most 255 characters, and no control "+
			"characters.")
	}
	if !a.identity && (c.Active != nil && *c.Active || c.Username != nil || c.Scopes != nil && len(*c.Scopes) > 0) {
		return want, nil, nil, errCannotSignIn
	}
	want.PlatformUser, metadata, err = a.PlatformUser.with(PlatformChange{
		PresentationName: c.PresentationName, Labels: c.Labels, Annotations: c.Annotations,
	})
	if err != nil {
		return want, nil, nil, err
	}
	if c.Active != nil && *c.Active != a.Active {
		want.Active, signIn["active"] = *c.Active, fromTo{a.Active, *c.Active}
	}
	if c.Scopes != nil {
		if err := checkScopes(*c.Scopes); err != nil {
			return want, nil, nil, err
		}
		want.Scopes = inOrder(*c.Scopes)
		if !slices.Equal(want.Scopes, inOrder(a.Scopes)) {
			signIn["scopes"] = fromTo{a.Scopes, want.Scopes}
		}
	}
	if c.Username != nil && *c.Username != a.Username {
		switch {
		case a.program:
			return want, nil, nil, fault.New(fault.Invalid, "This account is an OAuth client: it has no user name.")
		case a.external:
			return want, nil, nil, fault.New(fault.Invalid, "The user name of this account comes from its identity provider and "+
				"cannot be changed.")
		}
		want.Username, signIn["username"] = *c.Username, fromTo{a.Username, *c.Username}
		err = CheckUsername(want.Username)
	}
	return want, signIn, metadata, err
}

var errCannotSignIn = fault.New(fault.Invalid,
	"This account is known by its guid alone and cannot sign in: it has no user name, scopes or password, and is not active.")

// mayUpdate says whether the principal may make a change of an account.
func (p *Principal) mayUpdate(before, want *Profile, signIn, metadata bool) error {
	if metadata && !p.Has(ScopeAdmin) {
		return errAdminOnly
	}
	if !signIn {
		return nil
	}
	if err := p.mayChangeSignIn(append(before.allScopes(), want.allScopes()...)); err != nil {
		return err
	}
	if want.Active && !before.Active {
		return p.mayOpen(before)
	}
	return nil
}

// UpdateProfile changes an account. An account that is made inactive loses its tokens.
func (s *Store) UpdateProfile(ctx context.Context, p *Principal, guid string, m etag.Match,
	c ProfileChange) (changed *Profile, err error) {
	err = s.changeProfile(ctx, p, audit.UpdateAccount, guid, m, func(tx pgx.Tx, before *Profile) (map[string]any, error) {
		want, signIn, metadata, err := before.with(c)
		if err == nil {
			err = p.mayUpdate(before, &want, len(signIn) > 0, len(metadata) > 0)
		}
		if err == nil && len(signIn)+len(metadata) > 0 {
			renamed := want.Username != before.Username && before.platform
			err = want.write(ctx, tx, len(signIn) > 0, len(metadata) > 0 || renamed)
		}
		if err != nil {
			return nil, nameConflict(err, want.Username, want.Origin)
		}
		if before.Active && !want.Active {
			if err := endPersonalTokens(ctx, tx, before.id); err != nil {
				return nil, err
			}
		}
		changed, err = readProfile(ctx, tx, p, guid, ``, ScopeSCIMRead, ScopeSCIMWrite)
		for key, value := range metadata {
			signIn[key] = value
		}
		return signIn, err
	})
	return changed, err
}

// write stores the account. identity and platform say whether /uaa and /v3 show something different now. It takes the
// clock's time, not the transaction's: that may be older than the last change, which this one waited for.
func (a *Profile) write(ctx context.Context, tx pgx.Tx, identity, platform bool) error {
	_, err := tx.Exec(ctx, `
		UPDATE accounts SET username = nullif($2, ''), scopes = $3, active = CASE WHEN identity_created_at IS NULL THEN active
		  ELSE $4 END,
		  epoch = CASE WHEN active AND NOT $4 THEN gen_random_uuid() ELSE epoch END,
		  presentation_name = nullif($5, ''), labels = $6, annotations = $7,
		  identity_version = identity_version + CASE WHEN $8 THEN 1 ELSE 0 END,
		  identity_updated_at = CASE WHEN $8 THEN clock_timestamp() ELSE identity_updated_at END,
		  revision = revision + CASE WHEN $9 THEN 1 ELSE 0 END,
		  platform_created_at = CASE WHEN $9 THEN coalesce(platform_created_at, clock_timestamp()) ELSE platform_created_at END,
		  platform_updated_at = CASE WHEN $9 THEN clock_timestamp() ELSE platform_updated_at END
		WHERE id = $1`,
		a.id, a.Username, notNull(a.Scopes), a.Active, a.PresentationName, a.Labels, a.Annotations, identity, platform)
	return err
}

// changeProfile has change make a change of an account that the principal sees, in one transaction with its row of the audit
// log, whose detail change returns; nil: nothing was changed. A change that is refused is recorded as well.
func (s *Store) changeProfile(ctx context.Context, p *Principal, action, guid string, m etag.Match,
	change func(pgx.Tx, *Profile) (detail map[string]any, err error)) error {
	err := s.DB.Tx(ctx, func(tx pgx.Tx) error {
		a, err := readProfile(ctx, tx, p, guid, ` FOR UPDATE`, ScopeSCIMRead, ScopeSCIMWrite)
		if err != nil {
			return err
		}
		if !p.Has(ScopeAdmin, ScopeSCIMWrite) {
			return errMayNotChange
		}
		if !m.Allows(a.Tag()) {
			return fault.New(fault.Stale, "The account was changed concurrently. Read it again before you change it.")
		}
		detail, err := change(tx, a)
		if err != nil || len(detail) == 0 {
			return err
		}
		return audit.Record(ctx, tx, p.Entry(action, a.GUID, detail))
	})
	if fault.Is(err, fault.Forbidden) {
		return s.refuse(ctx, p.Entry(action, guid, nil), err)
	}
	return err
}

var errMayNotChange = fault.New(fault.Forbidden, "This needs the scope %s or %s.", ScopeAdmin, ScopeSCIMWrite)

// DeleteProfile deletes an account with all that it has, and ends its tokens. Database users are never touched. Metadata is
// for admins to delete.
func (s *Store) DeleteProfile(ctx context.Context, p *Principal, guid string, m etag.Match) error {
	return s.changeProfile(ctx, p, audit.DeleteAccount, guid, m, func(tx pgx.Tx, a *Profile) (map[string]any, error) {
		var refusal error
		if a.identity {
			refusal = p.mayChangeSignIn(a.allScopes())
		}
		if len(a.Labels)+len(a.Annotations) > 0 && !p.Has(ScopeAdmin) {
			refusal = cmp.Or(refusal, error(errAdminOnly))
		}
		if refusal != nil {
			return nil, refusal
		}
		_, err := tx.Exec(ctx, `DELETE FROM accounts WHERE id = $1`, a.id)
		return map[string]any{"username": a.Username, "origin": a.Origin, "scopes": a.Scopes, "labels": a.Labels}, err
	})
}

// SetPassword gives an account a new password or, to an OAuth client, a new secret, and ends its tokens, the personal ones
// only if it is somebody else's. proven says that the principal has proven its own current one.
func (s *Store) SetPassword(ctx context.Context, p *Principal, guid string, proven bool, secret Secret) (*Profile, error) {
	e := p.Entry(audit.ChangeSecret, guid, nil)
	changed, err := s.setPassword(ctx, p, guid, proven, secret, e)
	if fault.Is(err, fault.Forbidden) {
		return nil, s.refuse(ctx, e, err)
	}
	return changed, err
}

func (s *Store) setPassword(ctx context.Context, p *Principal, guid string, proven bool, secret Secret,
	e audit.Entry) (changed *Profile, err error) {
	a, err := readProfile(ctx, s.DB.Pool, p, guid, ``, ScopeSCIMRead, ScopeSCIMWrite)
	if err != nil {
		return nil, err
	}
	if err := p.maySetPassword(a, proven); err != nil {
		return nil, err
	}
	hash, err := secret.hash(ctx)
	if err != nil {
		return nil, err
	}
	err = s.DB.Tx(ctx, func(tx pgx.Tx) error {
		a, err := readProfile(ctx, tx, p, guid, ` FOR UPDATE`, ScopeSCIMRead, ScopeSCIMWrite)
		if err != nil {
			return err
		}
		if err := p.maySetPassword(a, proven); err != nil { // it may have changed while the hash was computed
			return err
		}
		if err := writeSecret(ctx, tx, a.id, hash, p.GUID == guid); err != nil {
			return err
		}
		if changed, err = readProfile(ctx, tx, p, guid, ``, ScopeSCIMRead, ScopeSCIMWrite); err != nil {
			return err
		}
		return audit.Record(ctx, tx, e)
	})
	return changed, err
}

// maySetPassword checks whether the principal may set the password of an account, and so sign in as it.
func (p *Principal) maySetPassword(a *Profile, proven bool) error {
	switch own := p.GUID == a.GUID; {
	case p.Token != uuid.Nil:
		return errTokenIdentity
	case own && !proven:
		return fault.New(fault.Forbidden, "To change your own password, send the current one too, as currentPassword.")
	case !own && !p.Has(ScopeAdmin, ScopeSCIMWrite):
		return errMayNotChange
	case !own:
		if err := cmp.Or(p.mayChangeSignIn(a.allScopes()), p.mayOpen(a)); err != nil {
			return err
		}
	}
	switch {
	case !a.identity:
		return errCannotSignIn
	case !a.program && a.Origin != LocalOrigin:
		return fault.New(fault.Invalid, "The password of this account is kept by its origin, %s.", a.Origin)
	}
	return nil
}
