package account

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/audit"
	"rolecall/internal/control"
	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/label"
)

// readProfile returns the account of that guid if the principal sees it, by the scopes that show identities as well.
func readProfile(ctx context.Context, q control.Querier, p *Principal, guid, lock string, scopes ...string) (*Profile,
	error) {
	if !storable(guid) {
		return nil, errNoAccount
	}
	c := &conditions{}
	c.add(`guid = `, c.arg(guid))
	c.visible(p, scopes...)
	a, err := one(ctx, q, `SELECT `+withAnnotations+` FROM accounts WHERE `+strings.Join(c.clauses, ` AND `)+lock, c.args...)
	if err == nil && a == nil {
		err = errNoAccount
	}
	return a, err
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

// shownTo is the account as the principal sees it. Labels and annotations are for those who see everything, and the account
// itself: no scope for identities shows them.
func (a *Profile) shownTo(p *Principal) *Profile {
	if a == nil || seesAll(p) || a.GUID == p.GUID {
		return a
	}
	shown := *a
	shown.Labels, shown.LabelSources, shown.Annotations = nil, nil, nil
	return &shown
}

// ProfileFilter selects accounts. Fields that are "" or nil select all.
type ProfileFilter struct {
	GUID, Username, Origin, Scope string
	// Search is a part of the user name or the shown name, in any case, or the whole guid.
	Search   string
	Active   *bool
	Selector label.Selector
}

// Profiles lists at most limit of the accounts that the principal sees and the filter selects, those behind an id, in the
// order of their creation. more says whether others follow.
func (s *Store) Profiles(ctx context.Context, p *Principal, f ProfileFilter, after int64, limit int) (
	found []*Profile, more bool, err error) {
	c := &conditions{}
	c.add(`id > `, c.arg(after))
	c.visible(p, ScopeSCIMRead)
	if f.GUID != "" {
		c.add(`guid = `, c.arg(f.GUID))
	}
	if f.Username != "" {
		c.add(`username IS NOT NULL AND lower(username) = lower(`, c.arg(f.Username), `)`)
	}
	if f.Search != "" {
		part := c.arg(f.Search)
		c.add(`(guid = `, part, ` OR strpos(lower(coalesce(username, '')), lower(`, part,
			`)) > 0 OR strpos(lower(coalesce(presentation_name, '')), lower(`, part, `)) > 0)`)
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
	if len(f.Selector) > 0 && !seesAll(p) {
		c.add(`guid = `, c.arg(p.GUID)) // labels of others are not shown
	}
	for _, r := range f.Selector {
		c.requirement(r)
	}
	rows, err := s.DB.Pool.Query(ctx, `SELECT `+withAnnotations+` FROM accounts WHERE `+strings.Join(c.clauses, ` AND `)+
		fmt.Sprintf(` ORDER BY id LIMIT %d`, limit+1), planned(c.args)...)
	if err != nil {
		return nil, false, control.Fault(err)
	}
	if found, err = pgx.CollectRows(rows, scanProfile); err != nil {
		return nil, false, control.Fault(err)
	}
	for i, a := range found {
		found[i] = a.shownTo(p)
	}
	if len(found) > limit {
		return found[:limit], true, nil
	}
	return found, false, nil
}

// Profile returns an account that the principal sees.
func (s *Store) Profile(ctx context.Context, p *Principal, guid string) (*Profile, error) {
	a, err := readProfile(ctx, s.DB.Pool, p, guid, ``, ScopeSCIMRead)
	return a.shownTo(p), err
}

// CanSignIn reports whether the account signs in when it proves who it is.
func (a *Profile) CanSignIn() bool { return a.Active && a.HasIdentity() }

// Created is when the account was created.
func (a *Profile) Created() time.Time {
	if a.HasIdentity() && (!a.IsPlatformUser() || a.IdentityCreated.Before(a.PlatformCreated)) {
		return a.IdentityCreated
	}
	return a.PlatformCreated
}

// Updated is when the account was last changed.
func (a *Profile) Updated() time.Time {
	if a.IdentityUpdated.After(a.PlatformUpdated) {
		return a.IdentityUpdated
	}
	return a.PlatformUpdated
}

// whole is the principal as our own API takes it: an admin needs no scim.write beside.
func (p *Principal) whole() *Principal {
	if !p.Has(ScopeAdmin) {
		return p
	}
	w := *p
	w.Scopes = append(slices.Clone(p.Scopes), ScopeSCIMWrite)
	return &w
}

// NewProfile is an account that is to be created. A label or annotation that is nil is left out.
type NewProfile struct {
	Username, Origin    string
	Scopes              []string // nil: the default ones
	Labels, Annotations map[string]*string
}

// CreateProfile creates an account that can sign in and has metadata, under a fresh guid.
func (s *Store) CreateProfile(ctx context.Context, p *Principal, n NewProfile, secret Secret) (made *Profile, err error) {
	p = p.whole()
	if n.Scopes == nil {
		n.Scopes = DefaultScopes
	}
	add := newProfile(uuid.NewString(), n.Username, n.Origin, inOrder(n.Scopes))
	e := p.Entry(audit.CreateAccount, add.GUID, nil)
	invalid := add.check(&Profile{})
	if err = p.mayChangeIdentity(nil); err == nil && invalid == nil {
		err = p.mayChangeIdentity(n.Scopes)
	}
	if err == nil && len(n.Labels)+len(n.Annotations) > 0 && !p.Has(ScopeAdmin) {
		err = errAdminOnly
	}
	if err != nil {
		return nil, s.refuse(ctx, e, err)
	}
	if invalid != nil { // what nobody could make is no attempt, and not recorded
		return nil, invalid
	}
	switch {
	case n.Origin == "":
		return nil, fault.New(fault.Invalid, "The origin is empty.")
	case secret != nil && n.Origin != LocalOrigin:
		return nil, fault.New(fault.Invalid, "An account of the origin %q has no password here.", n.Origin)
	}
	if err := cmp.Or(s.mayPrepare(n.Origin), s.mayLabel(n.Origin, &Profile{}, n.Labels)); err != nil {
		return nil, err
	}
	add, d, err := add.withMetadata(n.Labels, n.Annotations)
	if err != nil {
		return nil, err
	}
	d.Username, d.Origin, d.Scopes = n.Username, n.Origin, add.Scopes
	e.Detail = d
	hash, err := secret.hash(ctx)
	if err != nil {
		return nil, err
	}
	err = s.DB.Tx(ctx, func(tx pgx.Tx) error {
		made, err = insert(ctx, tx, add, parts{identity: true, platform: true}, hash)
		if err == nil && made == nil {
			err = taken(n.Username, n.Origin)
		}
		if err != nil {
			return err
		}
		return s.Audit.Record(ctx, tx, e)
	})
	return made, err
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

// mayEndAdmin reports whether an admin may be none after the change.
func (c *ProfileChange) mayEndAdmin() bool {
	return c.Active != nil && !*c.Active || c.Scopes != nil && !slices.Contains(*c.Scopes, ScopeAdmin)
}

// with returns the account as the change wants it, and for the audit log what is different.
func (a *Profile) with(c ProfileChange) (want *Profile, d detail, err error) {
	if !a.HasIdentity() {
		if c.Active != nil && *c.Active || c.Username != nil || c.Scopes != nil && len(*c.Scopes) > 0 {
			return nil, d, errCannotSignIn
		}
		c.Active, c.Scopes = nil, nil
	}
	if want, d, err = a.withMetadata(c.Labels, c.Annotations); err != nil {
		return nil, d, err
	}
	want = want.withIdentity(IdentityChange{Username: c.Username, Active: c.Active, Scopes: c.Scopes})
	if want.Username != a.Username {
		if err := cmp.Or(CheckUsername(want.Username), a.mayBeRenamed(want.Username, a.Origin)); err != nil {
			return nil, d, err
		}
		d.Username = fromTo{a.Username, want.Username}
	}
	if d.PresentationName, err = want.present(c.PresentationName, a); err != nil {
		return nil, d, err
	}
	if want.Active != a.Active {
		d.Active = fromTo{a.Active, want.Active}
	}
	if !slices.Equal(want.Scopes, inOrder(a.Scopes)) {
		d.Scopes = fromTo{a.Scopes, want.Scopes}
	}
	return want, d, checkScopes(want.Scopes)
}

var errCannotSignIn = fault.New(fault.Invalid,
	"This account is known by its guid alone and cannot sign in: it has no user name, scopes or password, and is not active.")

// mayUpdate says whether the principal may make an account what it is to be. signIn and metadata say what is different.
func (p *Principal) mayUpdate(is, want *Profile, signIn, metadata bool) error {
	if metadata && !p.Has(ScopeAdmin) {
		return errAdminOnly
	}
	if !signIn && p.Has(ScopeAdmin) {
		return nil
	}
	if err := p.mayChangeIdentity(append(is.allScopes(), want.allScopes()...)); err != nil {
		return err
	}
	if want.Active && !is.Active {
		return p.mayOpen(is)
	}
	return nil
}

// UpdateProfile changes an account. An account that is made inactive loses its tokens. The last active admin stays one.
func (s *Store) UpdateProfile(ctx context.Context, p *Principal, guid string, m etag.Match, c ProfileChange) (
	changed *Profile, err error) {
	p = p.whole()
	e := p.Entry(audit.UpdateAccount, guid, nil)
	err = s.DB.Tx(ctx, func(tx pgx.Tx) error {
		admins := true // beside it
		if c.mayEndAdmin() {
			if admins, err = otherAdmins(ctx, tx, p, guid); err != nil {
				return err
			}
		}
		is, err := changeableProfile(ctx, tx, p, guid, m)
		if err != nil {
			return err
		}
		want, d, err := is.with(c)
		if err != nil {
			return err
		}
		signIn := d.Username != nil || d.Active != nil || d.Scopes != nil
		metadata := d.Labels != nil || len(d.Annotations) > 0 || d.PresentationName != nil
		// What a change asks for decides, and not what differs: else its answer would tell what is there.
		asksMetadata := len(c.Labels)+len(c.Annotations) > 0 || c.PresentationName != nil
		if err := p.mayUpdate(is, want, signIn, asksMetadata); err != nil {
			return err
		}
		if err := s.mayLabel(is.Origin, is, c.Labels); err != nil {
			return err
		}
		if !admins && is.isAdmin() && !want.isAdmin() {
			return errLastAdmin
		}
		if !signIn && !metadata {
			changed = is
			return nil
		}
		e := e
		e.Detail = d
		renamed := d.Username != nil && is.IsPlatformUser()
		changed, err = s.save(ctx, tx, want, parts{identity: signIn, platform: metadata || renamed}, e)
		return err
	})
	return changed.shownTo(p), s.refuse(ctx, e, err)
}

// otherAdmins locks an account that may be an admin's, and the admins, and reports whether there are others. Without a right
// to change accounts it locks nothing.
func otherAdmins(ctx context.Context, tx pgx.Tx, p *Principal, guid string) (bool, error) {
	if p.MayChangeAccounts() != nil || !storable(guid) {
		return true, nil
	}
	return lockAdmins(ctx, tx, guid, guid)
}

// changeableProfile reads an account for a change. A principal learns only of an account that it may see.
func changeableProfile(ctx context.Context, tx pgx.Tx, p *Principal, guid string, m etag.Match) (*Profile, error) {
	a, err := readProfile(ctx, tx, p, guid, ` FOR UPDATE`, ScopeSCIMRead, ScopeSCIMWrite)
	if err != nil {
		return nil, err
	}
	if err := p.MayChangeAccounts(); err != nil {
		return nil, err
	}
	return a, a.checkTag(m)
}

var errNoChange = fault.New(fault.Forbidden, "This needs the scope %s or %s.", ScopeAdmin, ScopeSCIMWrite)

// MayChangeAccounts says whether the principal may change accounts at all. What it may change depends on the change.
func (p *Principal) MayChangeAccounts() error {
	if !p.Has(ScopeAdmin, ScopeSCIMWrite) {
		return errNoChange
	}
	return nil
}

// MayChangeMetadata says whether the principal may change labels and annotations.
func (p *Principal) MayChangeMetadata() error {
	if !p.Has(ScopeAdmin) {
		return errAdminOnly
	}
	return nil
}

// MayChangeProfile says whether the principal may change an account, or with no guid create one, at all. What it may change
// depends on the change. A refusal is recorded.
func (s *Store) MayChangeProfile(ctx context.Context, p *Principal, action, guid string) error {
	if p.MayChangeAccounts() == nil {
		return nil
	}
	if guid != "" {
		if _, err := readProfile(ctx, s.DB.Pool, p, guid, ``, ScopeSCIMRead, ScopeSCIMWrite); err != nil {
			return err
		}
	}
	return s.refuse(ctx, p.Entry(action, guid, nil), errNoChange)
}

func (a *Profile) checkTag(m etag.Match) error {
	if m.Allows(a.Tag()) {
		return nil
	}
	return fault.New(fault.Stale, "The account was changed concurrently. Read it again before you change it.")
}

// DeleteProfile deletes an account with all that it has, and ends its tokens. Database users are never touched. The last
// active admin stays.
func (s *Store) DeleteProfile(ctx context.Context, p *Principal, guid string, m etag.Match) error {
	p = p.whole()
	e := p.Entry(audit.DeleteAccount, guid, nil)
	err := s.DB.Tx(ctx, func(tx pgx.Tx) error {
		admins, err := otherAdmins(ctx, tx, p, guid)
		if err != nil {
			return err
		}
		a, err := changeableProfile(ctx, tx, p, guid, m)
		if err != nil {
			return err
		}
		if err := p.mayDelete(a); err != nil {
			return err
		}
		if !admins && a.isAdmin() {
			return errLastAdmin
		}
		if _, err := tx.Exec(ctx, `DELETE FROM accounts WHERE id = $1`, a.ID); err != nil {
			return err
		}
		e := e
		e.Detail = detail{Username: orNil(a.Username), Origin: orNil(a.Origin), Scopes: a.Scopes, Labels: a.Labels}
		return s.Audit.Record(ctx, tx, e)
	})
	return s.refuse(ctx, e, err)
}

// mayDelete says whether the principal may delete an account. Metadata is for admins to delete.
func (p *Principal) mayDelete(a *Profile) error {
	if len(a.Labels)+len(a.Annotations) > 0 && !p.Has(ScopeAdmin) {
		return errAdminOnly
	}
	if !a.HasIdentity() {
		return nil
	}
	return p.mayChangeIdentity(a.allScopes())
}

// SetPassword gives an account a new password or, to an OAuth client, a new secret, and ends its tokens, the personal ones
// only if it is somebody else's. proven says that the principal has proven its own current one.
func (s *Store) SetPassword(ctx context.Context, p *Principal, guid string, m etag.Match, proven bool, secret Secret) (
	changed *Profile, err error) {
	p = p.whole()
	e := p.Entry(audit.ChangeSecret, guid, nil)
	a, err := readProfile(ctx, s.DB.Pool, p, guid, ``, ScopeSCIMRead, ScopeSCIMWrite)
	if err != nil {
		return nil, err
	}
	changed, err = s.setSecret(ctx, p, a, m, proven, secret, e)
	return changed.shownTo(p), s.refuse(ctx, e, err)
}
