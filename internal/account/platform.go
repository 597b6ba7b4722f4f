package account

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/audit"
	"rolecall/internal/control"
	"rolecall/internal/etag"
	"rolecall/internal/fault"
)

// The most labels and annotations that a platform user has.
const (
	MaxLabels      = 50
	MaxAnnotations = 200
)

// TooMany is the cause of the fault that an account would have too many labels or annotations.
type TooMany struct {
	Kind        string // labels or annotations
	Given, Most int
}

// Error implements error.
func (t TooMany) Error() string { return "too many " + t.Kind }

// The causes of other faults about platform users, for an API that has words of its own for them.
var (
	ErrNoPlatformUser = errors.New("there is no such platform user")
	ErrNoJob          = errors.New("there is no such job")
	ErrExternalName   = errors.New("the name is the identity provider's")
	ErrClientName     = errors.New("an OAuth client has no name")
	ErrNoUsername     = errors.New("an origin without a user name")
	ErrNoOrigin       = errors.New("a user name without an origin")
)

var errNoPlatformUser = fault.New(fault.NotFound, "There is no such user.").Because(ErrNoPlatformUser)

func (a *Profile) checkPlatformTag(m etag.Match) error {
	if m.Allows(a.PlatformTag()) {
		return nil
	}
	return fault.New(fault.Stale, "The user has changed: its tag is now %q", a.PlatformTag())
}

func readPlatform(ctx context.Context, q control.Querier, guid, lock string) (*Profile, error) {
	if !storable(guid) {
		return nil, errNoPlatformUser
	}
	a, err := one(ctx, q,
		`SELECT `+withAnnotations+` FROM accounts WHERE guid = $1 AND platform_created_at IS NOT NULL `+lock, guid)
	if err == nil && a == nil {
		err = errNoPlatformUser
	}
	return a, err
}

// Platform returns a platform user that the principal may see: all of them with one of the scopes for that, else itself.
// Any other does not exist as far as it can tell. Fields that only the identity has are empty.
func (s *Store) Platform(ctx context.Context, p *Principal, guid string) (*Profile, error) {
	if !seesAll(p) && guid != p.GUID || !storable(guid) {
		return nil, errNoPlatformUser
	}
	a, err := s.platformReads.Do(ctx, guid, s.readPlatforms)
	if err == nil && a == nil {
		err = errNoPlatformUser
	}
	return a, control.Fault(err)
}

// selectPlatforms takes its guids from a sub-select, which hides their number from the planner: where it knows that there
// are fewer than it assumes for a plan that is kept, it plans each query again, which takes longer than to answer it.
const selectPlatforms = `SELECT ` + platformColumns + ` FROM accounts
	WHERE guid = ANY (ARRAY(SELECT unnest($1::text[]))) AND platform_created_at IS NOT NULL`

// readPlatforms reads platform users in one query, nil for each that does not exist.
func (s *Store) readPlatforms(ctx context.Context, guids []string) ([]*Profile, error) {
	rows, err := s.DB.Pool.Query(ctx, selectPlatforms, guids)
	if err != nil {
		return nil, err
	}
	found, err := pgx.CollectRows(rows, scanPlatform)
	return each(guids, found, func(a *Profile) string { return a.GUID }), err
}

// RefusePlatform records a change that a principal may not make who is no admin, and returns the refusal. A principal that
// may write learns only of a user that it may see.
func (s *Store) RefusePlatform(ctx context.Context, p *Principal, action, guid string) error {
	if guid != "" && p.Has(ScopeWrite) {
		if _, err := s.Platform(ctx, p, guid); err != nil {
			return err
		}
	}
	return s.refuse(ctx, p.Entry(action, guid, nil), errAdminOnly)
}

var errAdminOnly = fault.New(fault.Forbidden, "This needs the scope %s.", ScopeAdmin)

// NewPlatformUser is who is to be created: a guid, or a user name and its origin. A label or annotation that is nil is
// left out.
type NewPlatformUser struct {
	GUID                string
	Username, Origin    string
	Labels, Annotations map[string]*string
}

// CreatePlatform makes the account of that guid or name a platform user. An account that is not there is made: by guid
// without an identity, by name with one that cannot sign in with a password here. Only admins may.
func (s *Store) CreatePlatform(ctx context.Context, p *Principal, n NewPlatformUser) (made *Profile, err error) {
	if !p.Has(ScopeAdmin) {
		return nil, s.RefusePlatform(ctx, p, audit.CreateAccount, "")
	}
	add := newProfile(n.GUID, "", "", nil)
	with := parts{platform: true}
	if n.GUID == "" {
		add, with.identity = newProfile(uuid.NewString(), n.Username, n.Origin, DefaultScopes), true
		err = add.check(&Profile{})
	} else {
		err = checkGUID(n.GUID)
	}
	if err != nil {
		return nil, err
	}
	add, d, err := add.withMetadata(n.Labels, n.Annotations)
	if err != nil {
		return nil, err
	}
	d.Part = platformPart
	err = s.DB.Tx(ctx, func(tx pgx.Tx) error {
		made, err = insert(ctx, tx, add, with, nil)
		if err == nil && made != nil {
			if err := cmp.Or(s.mayPrepare(made.Origin), s.mayLabel(made.Origin, &Profile{}, n.Labels)); err != nil {
				return err
			}
			d.Username, d.Origin = orNil(made.Username), orNil(made.Origin)
			return s.Audit.Record(ctx, tx, p.Entry(audit.CreateAccount, made.GUID, d))
		}
		var is *Profile
		if err == nil {
			is, err = one(ctx, tx, `SELECT `+withAnnotations+` FROM accounts
				WHERE CASE WHEN $1 = '' THEN lower(username) = lower($2) AND origin = $3 ELSE guid = $1 END FOR UPDATE`,
				n.GUID, n.Username, n.Origin)
		}
		switch {
		case err != nil:
			return err
		case is == nil || is.IsPlatformUser():
			return fault.New(fault.Exists, "There is such a user already.").Because(Taken{n.GUID, n.Username, n.Origin})
		}
		if err := s.mayLabel(is.Origin, &Profile{}, n.Labels); err != nil {
			return err
		}
		want := *is
		want.Labels, want.Annotations, want.PresentationName = add.Labels, add.Annotations, ""
		d.Username, d.Origin = orNil(is.Username), orNil(is.Origin)
		made, err = s.save(ctx, tx, &want, parts{platform: true}, p.Entry(audit.CreateAccount, is.GUID, d))
		return err
	})
	return made, err
}

func orNil(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// PlatformChange is what is to be different. What is nil stays; a label or annotation that is nil goes.
type PlatformChange struct {
	Username, Origin *string
	// PresentationName is the name to show; "" goes back to the one that follows from the others.
	PresentationName    *string
	Labels, Annotations map[string]*string
	Expected            Expected
}

// Expected is how a change expects the user to be, so that what was read can be sent back. The zero value expects nothing.
type Expected struct {
	GUID                 *string
	CreatedAt, UpdatedAt *time.Time // compared to the second
	NoUsername, NoOrigin bool
}

// Differences are the expectations that are wrong. They are the cause of an Invalid fault.
type Differences struct{ GUID, CreatedAt, UpdatedAt, Username, Origin bool }

// Error implements error.
func (Differences) Error() string { return "the user is not as expected" }

// check refuses a user that is not as expected.
func (e Expected) check(a *Profile) error {
	differ := func(expected *time.Time, is time.Time) bool {
		return expected != nil && !expected.Equal(is.Truncate(time.Second))
	}
	d := Differences{
		GUID:      e.GUID != nil && *e.GUID != a.GUID,
		CreatedAt: differ(e.CreatedAt, a.PlatformCreated),
		UpdatedAt: differ(e.UpdatedAt, a.PlatformUpdated),
		Username:  e.NoUsername && a.Username != "",
		Origin:    e.NoOrigin && a.Origin != "",
	}
	if d == (Differences{}) {
		return nil
	}
	return fault.New(fault.Invalid, "The change is not one of the user as it is.").Because(d)
}

// UpdatePlatform changes a user. The revision and the time of the last change move only if something is different. Only
// admins may, users not even themselves: labels decide who may manage which cluster.
func (s *Store) UpdatePlatform(ctx context.Context, p *Principal, guid string, m etag.Match, c PlatformChange) (
	changed *Profile, err error) {
	if !p.Has(ScopeAdmin) {
		return nil, s.RefusePlatform(ctx, p, audit.UpdateAccount, guid)
	}
	e := p.Entry(audit.UpdateAccount, guid, nil)
	err = s.DB.Tx(ctx, func(tx pgx.Tx) error {
		is, err := readPlatform(ctx, tx, guid, `FOR NO KEY UPDATE`)
		if err != nil {
			return err
		}
		if err := c.Expected.check(is); err != nil {
			return err
		}
		if err := is.checkPlatformTag(m); err != nil {
			return err
		}
		want, d, err := is.withPlatform(c)
		if err != nil {
			return err
		}
		if err := s.mayLabel(want.Origin, is, c.Labels); err != nil {
			return err
		}
		renamed := want.Username != is.Username || want.Origin != is.Origin
		if want.Origin != is.Origin {
			if err := s.mayPrepare(want.Origin); err != nil {
				return err
			}
		}
		switch {
		case d.none():
			changed = is
			return nil
		case renamed && p.Token != uuid.Nil:
			return errTokenIdentity
		}
		d.Part = platformPart
		e := e
		e.Detail = d
		// /uaa shows the name, too, so the version of the identity moves with it.
		changed, err = s.save(ctx, tx, want, parts{platform: true, identity: renamed && is.HasIdentity()}, e)
		return err
	})
	return changed, s.refuse(ctx, e, err)
}

// withPlatform returns the account as the change wants it, and for the audit log what is different.
func (a *Profile) withPlatform(c PlatformChange) (want *Profile, d detail, err error) {
	if want, d, err = a.withMetadata(c.Labels, c.Annotations); err != nil {
		return nil, d, err
	}
	set(&want.Username, c.Username)
	set(&want.Origin, c.Origin)
	if want.Username != a.Username || want.Origin != a.Origin {
		if err := a.mayBeRenamed(want.Username, want.Origin); err != nil {
			return nil, d, err
		}
		d.Username, d.Origin = fromTo{a.Username, want.Username}, fromTo{a.Origin, want.Origin}
	}
	d.PresentationName, err = want.present(c.PresentationName, a)
	return want, d, err
}

// present sets the name to show, and returns what is different for the audit log, nil if nothing is. The name that is shown
// anyway is not kept: who sends back what was read asks for no change.
func (a *Profile) present(name *string, before *Profile) (change any, err error) {
	if name == nil {
		return nil, nil
	}
	if a.PresentationName = ""; a.Presentation() != *name {
		a.PresentationName = *name
	}
	if a.PresentationName == before.PresentationName {
		return nil, nil
	}
	return fromTo{before.PresentationName, a.PresentationName}, checkText("A presentation name has", a.PresentationName)
}

func (a *Profile) mayBeRenamed(username, origin string) error {
	switch {
	case a.isExternal():
		return fault.New(fault.Invalid,
			"The user name of this account comes from its identity provider and cannot be changed.").Because(ErrExternalName)
	case a.OAuthClient:
		return fault.New(fault.Invalid, "This account is an OAuth client: it has no user name.").Because(ErrClientName)
	case username == "":
		return fault.New(fault.Invalid, "An origin goes with a user name.").Because(ErrNoUsername)
	case origin == "":
		return fault.New(fault.Invalid, "A user name goes with an origin.").Because(ErrNoOrigin)
	}
	return cmp.Or(CheckUsername(username), checkText("An origin has", origin))
}

// withMetadata returns the account with the labels and annotations that are named changed, and for the audit log what is
// different.
func (a *Profile) withMetadata(labels, annotations map[string]*string) (want *Profile, d detail, err error) {
	with := *a
	var changed map[string]fromTo
	with.Labels, changed = merge(a.Labels, labels)
	with.LabelSources = maps.Clone(a.LabelSources)
	maps.DeleteFunc(with.LabelSources, func(key, _ string) bool { _, admins := changed[key]; return admins })
	if grew(changed) > 0 && len(with.Labels) > MaxLabels {
		return nil, d, tooMany("labels", len(labels), MaxLabels)
	}
	if len(changed) > 0 {
		d.Labels = changed
	}
	with.Annotations, changed = merge(a.Annotations, annotations)
	if grew(changed) > 0 && len(with.Annotations) > MaxAnnotations {
		return nil, d, tooMany("annotations", len(annotations), MaxAnnotations)
	}
	d.Annotations = slices.Sorted(maps.Keys(changed))
	return &with, d, nil
}

func tooMany(kind string, given, most int) error {
	return fault.New(fault.Invalid, "An account has at most %d %s.", most, kind).Because(TooMany{kind, given, most})
}

func merge(current map[string]string, changes map[string]*string) (merged map[string]string, changed map[string]fromTo) {
	merged, changed = maps.Clone(current), map[string]fromTo{}
	if merged == nil {
		merged = map[string]string{}
	}
	for key, value := range changes {
		old, exists := merged[key]
		switch {
		case value == nil && exists:
			delete(merged, key)
			changed[key] = fromTo{From: old}
		case value != nil && !exists:
			merged[key] = *value
			changed[key] = fromTo{To: *value}
		case value != nil && *value != old:
			merged[key] = *value
			changed[key] = fromTo{old, *value}
		}
	}
	return merged, changed
}

// grew is by how many entries a merge made the map longer. Who has too many already may still change and remove some.
func grew(changed map[string]fromTo) (by int) {
	for _, c := range changed {
		if c.From == nil {
			by++
		}
		if c.To == nil {
			by--
		}
	}
	return by
}

// DeletePlatform takes the platform user from an account, and ends its tokens. An account without an identity is gone with
// it. The returned job is done. Only admins may.
func (s *Store) DeletePlatform(ctx context.Context, p *Principal, guid string, m etag.Match) (*Job, error) {
	if !p.Has(ScopeAdmin) {
		return nil, s.RefusePlatform(ctx, p, audit.DeleteAccount, guid)
	}
	job := Job{Operation: "user.delete"}
	err := s.DB.Tx(ctx, func(tx pgx.Tx) error {
		a, err := readPlatform(ctx, tx, guid, `FOR UPDATE`)
		if err != nil {
			return err
		}
		if err := a.checkPlatformTag(m); err != nil {
			return err
		}
		if err := removePlatform(ctx, tx, a); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, insertJob, job.Operation).Scan(&job.GUID, &job.CreatedAt); err != nil {
			return err
		}
		kept := a.HasIdentity()
		d := detail{Part: platformPart, IdentityKept: &kept, Username: orNil(a.Username), Origin: orNil(a.Origin)}
		if len(a.Labels) > 0 {
			d.Labels = a.Labels
		}
		return s.Audit.Record(ctx, tx, p.Entry(audit.DeleteAccount, a.GUID, d))
	})
	if err != nil {
		return nil, err
	}
	return &job, nil
}

func removePlatform(ctx context.Context, tx pgx.Tx, a *Profile) error {
	if !a.HasIdentity() {
		_, err := tx.Exec(ctx, `DELETE FROM accounts WHERE id = $1`, a.ID)
		return err
	}
	if err := endPersonalTokens(ctx, tx, a.ID); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `
		UPDATE accounts SET platform_created_at = NULL, platform_updated_at = NULL, presentation_name = NULL,
		  labels = '{}', label_sources = '{}', annotations = '{}', revision = revision + 1, epoch = gen_random_uuid()
		WHERE id = $1`, a.ID)
	if err != nil {
		return err
	}
	// The next token of the issuer sets its labels again, also one that was issued before.
	_, err = tx.Exec(ctx, `DELETE FROM label_times WHERE account_id = $1`, a.ID)
	return err
}

// Job is a deletion, which is over when there is a job.
type Job struct {
	GUID      uuid.UUID
	Operation string
	CreatedAt time.Time
}

// insertJob also deletes a few jobs of the day before, which nobody polls any more.
const insertJob = `
	WITH deleted AS (
	  DELETE FROM jobs WHERE guid IN (
	    SELECT guid FROM jobs WHERE created_at < now() - interval '1 day' ORDER BY created_at LIMIT 20 FOR UPDATE SKIP LOCKED))
	INSERT INTO jobs (operation) VALUES ($1) RETURNING guid, created_at`

// Job returns a job. Its guid is the only right that it asks for.
func (s *Store) Job(ctx context.Context, guid string) (*Job, error) {
	var job Job
	id, err := uuid.Parse(guid)
	if err == nil {
		err = s.DB.Pool.QueryRow(ctx, `SELECT guid, operation, created_at FROM jobs WHERE guid = $1`, id).
			Scan(&job.GUID, &job.Operation, &job.CreatedAt)
		if err == nil {
			return &job, nil
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return nil, control.Fault(err)
		}
	}
	return nil, fault.New(fault.NotFound, "There is no such job.").Because(ErrNoJob)
}
