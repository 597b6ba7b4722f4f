package account

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/audit"
	"rolecall/internal/control"
	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/sqlstate"
)

// The most labels and annotations that a platform user has.
const (
	MaxLabels      = 50
	MaxAnnotations = 200
)

// ErrTooManyLabels and ErrTooManyAnnotations are the causes of the faults about these limits, for the dialect that has
// codes of its own for them.
var (
	ErrTooManyLabels      = errors.New("too many labels")
	ErrTooManyAnnotations = errors.New("too many annotations")
)

// PlatformUser is the platform user of an account.
type PlatformUser struct {
	GUID             string
	Username, Origin string // both "" for a user known by its guid alone, and for a program
	// PresentationName is "" where the name that is shown follows from the others: see Presentation.
	PresentationName     string
	Labels, Annotations  map[string]string
	CreatedAt, UpdatedAt time.Time

	id, revision int64
	program      bool
	external     bool // its name is its identity provider's
	identity     bool // it has an identity, too
}

// Presentation is the name to show.
func (u *PlatformUser) Presentation() string {
	switch {
	case u.PresentationName != "":
		return u.PresentationName
	case u.Username != "":
		return u.Username
	}
	return u.GUID
}

// Tag names the state of the user. The row's id is in it because revisions start again when a guid is made again.
func (u *PlatformUser) Tag() string { return fmt.Sprintf("%d-%d", u.id, u.revision) }

// checkMatch refuses a user that is not in the state that the caller has read.
func (u *PlatformUser) checkMatch(m etag.Match) error {
	if m.Allows(u.Tag()) {
		return nil
	}
	return fault.New(fault.Stale, "The user has changed: its tag is now %q", u.Tag())
}

const platformColumns = `id, guid, coalesce(username, ''), coalesce(origin, ''), coalesce(presentation_name, ''),
	labels, annotations, platform_created_at, platform_updated_at, revision, program, issuer IS NOT NULL,
	identity_created_at IS NOT NULL`

func scanPlatform(row pgx.CollectableRow) (*PlatformUser, error) {
	var u PlatformUser
	err := row.Scan(&u.id, &u.GUID, &u.Username, &u.Origin, &u.PresentationName, &u.Labels, &u.Annotations,
		&u.CreatedAt, &u.UpdatedAt, &u.revision, &u.program, &u.external, &u.identity)
	return &u, err
}

var errNoPlatformUser = fault.New(fault.NotFound, "User not found")

// onePlatform returns the user that the query selects, or errNoPlatformUser.
func onePlatform(ctx context.Context, q querier, sql string, args ...any) (*PlatformUser, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	u, err := pgx.CollectExactlyOneRow(rows, scanPlatform)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, errNoPlatformUser
	}
	return u, err
}

// storable reports whether PostgreSQL can hold the text. What it cannot hold, no user has.
func storable(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

func seesAll(p *Principal) bool { return p.Has(ScopeAdmin, ScopeAdminReadOnly, ScopeAuditor) }

// Platform returns a platform user that the principal may see: all of them with one of the scopes for that, else itself.
// Any other does not exist as far as it can tell.
func (s *Store) Platform(ctx context.Context, p *Principal, guid string) (*PlatformUser, error) {
	if !storable(guid) || !seesAll(p) && guid != p.GUID {
		return nil, errNoPlatformUser
	}
	u, err := onePlatform(ctx, s.DB.Pool,
		`SELECT `+platformColumns+` FROM accounts WHERE guid = $1 AND platform_created_at IS NOT NULL`, guid)
	return u, control.Fault(err)
}

// RefusePlatform records a change that a principal may not make who is no admin, and returns the refusal. A principal that
// may write learns only of a user that it may see.
func (s *Store) RefusePlatform(ctx context.Context, p *Principal, action, guid string) error {
	if guid != "" && p.Has(ScopeWrite) {
		if _, err := s.Platform(ctx, p, guid); err != nil {
			return err
		}
	}
	if !storable(guid) {
		guid = ""
	}
	return (&audit.Log{DB: s.DB}).Refuse(ctx, p.Entry(action, guid, nil), errPlatformAdminOnly)
}

var errPlatformAdminOnly = fault.New(fault.Forbidden, "Only an admin may change platform users.")

// platformFacet distinguishes changes of the platform user from those of the identity in the audit log.
const platformFacet = "platform user"

// NewPlatformUser is who is to be created: a guid, or a user name and its origin. A label or annotation that is nil is
// left out.
type NewPlatformUser struct {
	GUID                string
	Username, Origin    string
	Labels, Annotations map[string]*string
}

// CreatePlatform adds the platform user to the account of that guid or name. If there is no account, it is created: by guid
// without an identity, by name with one that cannot sign in with a password here. Only admins may.
func (s *Store) CreatePlatform(ctx context.Context, p *Principal, n NewPlatformUser) (*PlatformUser, error) {
	if !p.Has(ScopeAdmin) {
		return nil, s.RefusePlatform(ctx, p, audit.CreateAccount, "")
	}
	check := checkGUID(n.GUID)
	if n.GUID == "" {
		check = CheckUsername(n.Username)
	}
	if check != nil {
		return nil, check
	}
	var blank PlatformUser
	detail, err := blank.mergeMetadata(n.Labels, n.Annotations)
	if err != nil {
		return nil, err
	}
	detail["facet"] = platformFacet
	var u *PlatformUser
	err = s.DB.Tx(ctx, func(tx pgx.Tx) error {
		if n.GUID != "" {
			u, err = onePlatform(ctx, tx, insertByGUID, n.GUID, blank.Labels, blank.Annotations)
			if errors.Is(err, errNoPlatformUser) {
				err = fault.New(fault.Exists, "User with guid '%s' already exists.", n.GUID)
			}
		} else {
			u, err = onePlatform(ctx, tx, insertByName, uuid.NewString(), blank.Labels, blank.Annotations, n.Username, n.Origin,
				DefaultScopes)
			if errors.Is(err, errNoPlatformUser) {
				err = nameTaken(n.Username, n.Origin)
			}
		}
		if err != nil {
			return err
		}
		if u.Username != "" {
			detail["username"], detail["origin"] = u.Username, u.Origin
		}
		return audit.Record(ctx, tx, p.Entry(audit.CreateAccount, u.GUID, detail))
	})
	return u, err
}

func nameTaken(username, origin string) error {
	return fault.New(fault.Exists, "User with username '%s' and origin '%s' already exists.", username, origin)
}

// Both return no row if the account has a platform user already.
const (
	insertByGUID = `
		INSERT INTO accounts (guid, labels, annotations, platform_created_at, platform_updated_at)
		VALUES ($1, $2, $3, now(), now())
		ON CONFLICT (guid) ` + addFacet
	insertByName = `
		INSERT INTO accounts (guid, labels, annotations, platform_created_at, platform_updated_at,
		  username, origin, emails, scopes, identity_created_at, identity_updated_at)
		VALUES ($1, $2, $3, now(), now(), $4, $5, ARRAY[$4], $6, now(), now())
		ON CONFLICT (lower(username), origin) WHERE username IS NOT NULL ` + addFacet
	addFacet = `
		DO UPDATE SET platform_created_at = now(), platform_updated_at = now(), revision = accounts.revision + 1,
		  labels = excluded.labels, annotations = excluded.annotations, presentation_name = NULL
		WHERE accounts.platform_created_at IS NULL
		RETURNING ` + platformColumns
)

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
func (e Expected) check(u *PlatformUser) error {
	differ := func(expected *time.Time, is time.Time) bool {
		return expected != nil && !expected.Equal(is.Truncate(time.Second))
	}
	d := Differences{
		GUID:      e.GUID != nil && *e.GUID != u.GUID,
		CreatedAt: differ(e.CreatedAt, u.CreatedAt),
		UpdatedAt: differ(e.UpdatedAt, u.UpdatedAt),
		Username:  e.NoUsername && u.Username != "",
		Origin:    e.NoOrigin && u.Origin != "",
	}
	if d == (Differences{}) {
		return nil
	}
	return fault.New(fault.Invalid, "The change is not one of the user as it is.").Because(d)
}

// UpdatePlatform changes a user. The revision and the time of the last change move only if something is different. Only
// admins may, users not even themselves: labels decide who may manage which cluster.
func (s *Store) UpdatePlatform(ctx context.Context, p *Principal, guid string, m etag.Match,
	c PlatformChange) (*PlatformUser, error) {
	if !p.Has(ScopeAdmin) {
		return nil, s.RefusePlatform(ctx, p, audit.UpdateAccount, guid)
	}
	if !storable(guid) {
		return nil, errNoPlatformUser
	}
	var changed *PlatformUser
	err := s.DB.Tx(ctx, func(tx pgx.Tx) error {
		u, err := lockPlatform(ctx, tx, guid, `FOR NO KEY UPDATE`)
		if err != nil {
			return err
		}
		if err := c.Expected.check(u); err != nil {
			return err
		}
		if err := u.checkMatch(m); err != nil {
			return err
		}
		want, detail, err := u.with(c)
		if err != nil {
			return err
		}
		if len(detail) == 0 {
			changed = u
			return nil
		}
		renamed := want.Username != u.Username || want.Origin != u.Origin
		if renamed && p.Token != uuid.Nil {
			return errTokenIdentity
		}
		detail["facet"] = platformFacet
		batch := &pgx.Batch{}
		batch.Queue(update, u.id, want.Username, want.Origin, want.PresentationName, want.Labels, want.Annotations, renamed).
			Query(func(rows pgx.Rows) (err error) {
				changed, err = pgx.CollectExactlyOneRow(rows, scanPlatform)
				return err
			})
		audit.Queue(batch, p.Entry(audit.UpdateAccount, u.GUID, detail))
		err = tx.SendBatch(ctx, batch).Close()
		if sqlstate.Is(err, sqlstate.UniqueViolation) {
			return nameTaken(want.Username, want.Origin)
		}
		return err
	})
	if fault.Is(err, fault.Forbidden) {
		err = (&audit.Log{DB: s.DB}).Refuse(ctx, p.Entry(audit.UpdateAccount, guid, nil), err)
	}
	if err != nil {
		return nil, err
	}
	return changed, nil
}

// update takes the clock's time, not the transaction's: that may be older than the last change, which this one waited
// for. The name belongs to the identity, too, so the identity's version changes with it.
const update = `
	UPDATE accounts SET username = nullif($2, ''), origin = nullif($3, ''), presentation_name = nullif($4, ''),
	  labels = $5, annotations = $6, revision = revision + 1, platform_updated_at = clock_timestamp(),
	  identity_version = identity_version + CASE WHEN $7 AND identity_created_at IS NOT NULL THEN 1 ELSE 0 END,
	  identity_updated_at = CASE WHEN $7 AND identity_created_at IS NOT NULL THEN clock_timestamp() ELSE identity_updated_at END
	WHERE id = $1
	RETURNING ` + platformColumns

func lockPlatform(ctx context.Context, tx pgx.Tx, guid, lock string) (*PlatformUser, error) {
	return onePlatform(ctx, tx,
		`SELECT `+platformColumns+` FROM accounts WHERE guid = $1 AND platform_created_at IS NOT NULL `+lock, guid)
}

// with returns the user as the change wants it, and for the audit log what is different, nothing when nothing is.
func (u *PlatformUser) with(c PlatformChange) (want PlatformUser, detail map[string]any, err error) {
	want = *u
	if detail, err = want.mergeMetadata(c.Labels, c.Annotations); err != nil {
		return want, nil, err
	}
	if c.Username != nil {
		want.Username = *c.Username
	}
	if c.Origin != nil {
		want.Origin = *c.Origin
	}
	if want.Username != u.Username || want.Origin != u.Origin {
		if err := u.mayBeRenamed(want.Username, want.Origin); err != nil {
			return want, nil, err
		}
		detail["username"], detail["origin"] = fromTo{u.Username, want.Username}, fromTo{u.Origin, want.Origin}
	}
	if c.PresentationName != nil {
		// The name that is shown anyway is not kept: who sends back what was read asks for no change.
		if want.PresentationName = ""; want.Presentation() != *c.PresentationName {
			want.PresentationName = *c.PresentationName
		}
		if want.PresentationName != u.PresentationName {
			detail["presentation_name"] = fromTo{u.PresentationName, want.PresentationName}
		}
	}
	return want, detail, nil
}

func (u *PlatformUser) mayBeRenamed(username, origin string) error {
	switch {
	case u.external:
		return fault.New(fault.Invalid, "Username and origin of this user are its identity provider's and cannot be changed")
	case u.program:
		return fault.New(fault.Invalid, "This user is a client: it has no username and origin")
	case username == "":
		return fault.New(fault.Invalid, "Origin can only be provided together with 'username'")
	case origin == "":
		return fault.New(fault.Invalid, "Username can only be provided together with 'origin'")
	}
	return CheckUsername(username)
}

// fromTo is a change in the audit log.
type fromTo struct {
	From any `json:"from"`
	To   any `json:"to"`
}

// mergeMetadata changes the labels and annotations that are named. The audit log gets the values of labels, which give
// rights, and only the keys of annotations, which may hold anything.
func (u *PlatformUser) mergeMetadata(labels, annotations map[string]*string) (detail map[string]any, err error) {
	detail = map[string]any{}
	var changed map[string]fromTo
	u.Labels, changed = merge(u.Labels, labels)
	if grew(changed) > 0 && len(u.Labels) > MaxLabels {
		return nil, fault.New(fault.Invalid, "Failed to add %d labels because it would exceed maximum of %d", len(labels),
			MaxLabels).Because(ErrTooManyLabels)
	}
	if len(changed) > 0 {
		detail["labels"] = changed
	}
	u.Annotations, changed = merge(u.Annotations, annotations)
	if grew(changed) > 0 && len(u.Annotations) > MaxAnnotations {
		return nil, fault.New(fault.Invalid, "Failed to add %d annotations because it would exceed maximum of %d",
			len(annotations), MaxAnnotations).Because(ErrTooManyAnnotations)
	}
	if len(changed) > 0 {
		detail["annotations"] = slices.Sorted(maps.Keys(changed))
	}
	return detail, nil
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

// DeletePlatform deletes the platform user of an account, and ends its tokens. An account without an identity is gone then.
// The returned job is done. Only admins may.
func (s *Store) DeletePlatform(ctx context.Context, p *Principal, guid string, m etag.Match) (*Job, error) {
	if !p.Has(ScopeAdmin) {
		return nil, s.RefusePlatform(ctx, p, audit.DeleteAccount, guid)
	}
	if !storable(guid) {
		return nil, errNoPlatformUser
	}
	job := Job{Operation: "user.delete"}
	err := s.DB.Tx(ctx, func(tx pgx.Tx) error {
		u, err := lockPlatform(ctx, tx, guid, `FOR UPDATE`)
		if err != nil {
			return err
		}
		if err := u.checkMatch(m); err != nil {
			return err
		}
		end := `DELETE FROM accounts WHERE id = $1`
		if u.identity {
			if err := endPersonalTokens(ctx, tx, u.id); err != nil {
				return err
			}
			end = `
				UPDATE accounts SET platform_created_at = NULL, platform_updated_at = NULL, presentation_name = NULL,
				  labels = '{}', annotations = '{}', revision = revision + 1, epoch = gen_random_uuid()
				WHERE id = $1`
		}
		if _, err := tx.Exec(ctx, end, u.id); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, insertJob, job.Operation).Scan(&job.GUID, &job.CreatedAt); err != nil {
			return err
		}
		detail := map[string]any{"facet": platformFacet, "identity_kept": u.identity}
		if u.Username != "" {
			detail["username"], detail["origin"] = u.Username, u.Origin
		}
		if len(u.Labels) > 0 {
			detail["labels"] = u.Labels
		}
		return audit.Record(ctx, tx, p.Entry(audit.DeleteAccount, u.GUID, detail))
	})
	if err != nil {
		return nil, err
	}
	return &job, nil
}

// Job is a deletion, which is over when there is a job.
type Job struct {
	GUID      uuid.UUID
	Operation string
	CreatedAt time.Time
}

// insertJob also deletes a few jobs of the day before, which no client polls any more.
const insertJob = `
	WITH expired AS (
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
	return nil, fault.New(fault.NotFound, "Job not found")
}
