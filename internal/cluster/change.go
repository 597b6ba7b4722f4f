package cluster

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/audit"
	"rolecall/internal/etag"
	"rolecall/internal/fault"
	"rolecall/internal/label"
	"rolecall/internal/lease"
	"rolecall/internal/moment"
	"rolecall/internal/observe"
	"rolecall/internal/pgrole"
	"rolecall/internal/sqlstate"
)

// DefaultSystemRoles are the protected names of a cluster whose admin said nothing of them.
var DefaultSystemRoles = []string{"postgres", "admin", "standby"}

// Settings are what an admin says of a cluster beyond its connection. nil is what was not said.
type Settings struct {
	DisplayName, Location            *string
	Manage, View                     *[]string // label selectors
	SystemRoles, MemberOf, Grantable *[]string
	SynchronousCommit                *string // of SynchronousCommits, or "": the server's
	Leases                           LeaseSettings
}

// LeaseSettings are what an admin says of the leases in a cluster. nil is what was not said.
type LeaseSettings struct {
	DefaultTTL, MaxTTL *time.Duration
	MaxPerAccount      *int
}

// SynchronousCommits are the settings of synchronous_commit that Rolecall's sessions may have. "off" is none of them: what
// was answered as done could be lost in a crash.
var SynchronousCommits = []string{"local", "remote_write", "on", "remote_apply"}

// The limits of Settings.
const (
	maxDisplayName = 100 // characters
	maxListed      = 100 // selectors, or names of roles
	mostLeases     = 100_000
)

// Check says what is wrong with the settings.
func (s *Settings) Check() error {
	if s.DisplayName != nil {
		if _, err := uuid.Parse(*s.DisplayName); err == nil {
			return fault.New(fault.Invalid, "The displayName looks like an id: it would be taken for another cluster's.").
				At("displayName")
		}
		if err := checkText("displayName", *s.DisplayName); err != nil {
			return err
		}
	}
	if s.Location != nil {
		if err := checkText("location", *s.Location); err != nil {
			return err
		}
	}
	for _, rules := range []struct {
		field string
		list  *[]string
	}{{"access.manage", s.Manage}, {"access.view", s.View}} {
		if rules.list == nil {
			continue
		}
		if len(*rules.list) > maxListed {
			return fault.New(fault.Invalid, "The field %s has more than %d selectors.", rules.field, maxListed).At(rules.field)
		}
		for i, text := range *rules.list {
			if _, err := label.ParseRule(text); err != nil {
				return fault.New(fault.Invalid, "The field %s[%d] is no selector: %s.", rules.field, i,
					strings.TrimSuffix(fault.Of(err).Message, ".")).At(rules.field)
			}
		}
	}
	for _, roles := range []struct {
		field string
		list  *[]string
	}{{"systemRoles", s.SystemRoles}, {"memberOf", s.MemberOf}, {"grantable", s.Grantable}} {
		if roles.list == nil {
			continue
		}
		if len(*roles.list) > maxListed {
			return fault.New(fault.Invalid, "The field %s has more than %d names.", roles.field, maxListed).At(roles.field)
		}
		for i, name := range *roles.list {
			if name == "" || len(name) > 63 || strings.ContainsFunc(name, unicode.IsControl) {
				return fault.New(fault.Invalid, "The field %s[%d] is no name of a role: it has 1 to 63 bytes and no control characters.",
					roles.field, i).At(roles.field)
			}
			if slices.Index(*roles.list, name) < i {
				return fault.New(fault.Invalid, "The field %s has %q twice.", roles.field, name).At(roles.field)
			}
		}
	}
	if v := s.SynchronousCommit; v != nil && *v != "" && !slices.Contains(SynchronousCommits, *v) {
		return fault.New(fault.Invalid, "The field synchronousCommit is null or one of %s.",
			strings.Join(SynchronousCommits, ", ")).At("synchronousCommit")
	}
	return nil
}

// change returns the limits with what was said of them. It says what is wrong with the result.
func (s *LeaseSettings) change(l lease.Limits) (lease.Limits, error) {
	if s.DefaultTTL != nil {
		l.DefaultTTL = s.DefaultTTL.Truncate(time.Microsecond) // as PostgreSQL keeps it
	}
	if s.MaxTTL != nil {
		l.MaxTTL = s.MaxTTL.Truncate(time.Microsecond)
	}
	if s.MaxPerAccount != nil {
		l.MaxPerAccount = *s.MaxPerAccount
	}
	switch {
	case l.DefaultTTL < lease.MinTTL:
		return l, fault.New(fault.Invalid, "The field leases.defaultTtl is %s; the shortest is %s.",
			moment.DurationText(l.DefaultTTL), moment.DurationText(lease.MinTTL)).At("leases.defaultTtl")
	case l.DefaultTTL > l.MaxTTL:
		return l, fault.New(fault.Invalid, "The field leases.defaultTtl is %s, longer than leases.maxTtl, which is %s.",
			moment.DurationText(l.DefaultTTL), moment.DurationText(l.MaxTTL)).At("leases.defaultTtl")
	case l.MaxPerAccount < 1 || l.MaxPerAccount > mostLeases:
		return l, fault.New(fault.Invalid, "The field leases.maxPerAccount is %d; it must be between 1 and %d.", l.MaxPerAccount,
			mostLeases).At("leases.maxPerAccount")
	}
	return l, nil
}

func checkText(field, text string) error {
	if text == "" || utf8.RuneCountInString(text) > maxDisplayName || strings.TrimSpace(text) != text ||
		strings.ContainsFunc(text, unicode.IsControl) {
		return fault.New(fault.Invalid, "The field %s has 1 to %d characters, no control characters, and no space at its ends.",
			field, maxDisplayName).At(field)
	}
	return nil
}

// canonical is the one way to write the selectors down.
func canonical(texts *[]string) *[]string {
	if texts == nil {
		return nil
	}
	written := make([]string, 0, len(*texts))
	for _, text := range *texts {
		s, err := label.ParseRule(text)
		if err != nil {
			panic("rules that were not checked: " + err.Error())
		}
		if rule := s.String(); !slices.Contains(written, rule) {
			written = append(written, rule)
		}
	}
	return &written
}

// Tag names the current state of the registration, for conditional requests.
func (c *Cluster) Tag() string { return strconv.FormatInt(c.Revision, 10) }

// CheckMatch is Stale when the client has not seen the current state of the registration.
func (c *Cluster) CheckMatch(m etag.Match) error {
	if m.Allows(c.Tag()) {
		return nil
	}
	return fault.New(fault.Stale, "The cluster has changed: it is at revision %d. Read it again before you change it.",
		c.Revision)
}

// errNotCompared says that a cluster of the same system identifier was registered, or moved, while another one was looked
// at.
var errNotCompared = errors.New("another cluster was registered or moved concurrently")

// found is what an inspection of a cluster has found.
type found struct {
	Facts
	Capabilities pgrole.Capabilities
	Compared     []comparedWith // clusters that this one is known not to be
}

// comparedWith is a cluster that another one was compared with, where it was then.
type comparedWith struct {
	ID  uuid.UUID
	URL string
}

// claimPlace is errNotCompared when there is a cluster of the same system identifier that this one was not compared with,
// where it is now. Of two that register or move a cluster at once one waits here for the end of the other's tx, so that not
// both find the place free.
func claimPlace(ctx context.Context, tx pgx.Tx, found *found, except uuid.UUID) error {
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(lockPlaces)); err != nil {
		return err
	}
	ids, urls := []uuid.UUID{}, []string{}
	for _, c := range found.Compared {
		ids, urls = append(ids, c.ID), append(urls, c.URL)
	}
	var unknown bool
	err := tx.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM clusters c WHERE c.system_identifier = $1 AND c.id <> $2
		  AND NOT EXISTS (SELECT FROM unnest($3::uuid[], $4::text[]) AS compared (id, url) WHERE compared.id = c.id AND
		  compared.url = c.url))`,
		found.SystemIdentifier, except, ids, urls).Scan(&unknown)
	if err == nil && unknown {
		err = errNotCompared
	}
	return err
}

// lockPlaces is the key of the advisory lock that is held while a cluster gets its place. The bytes of "places".
const lockPlaces = 0x706c61636573

// add registers a cluster that was inspected.
func (r *Registry) add(ctx context.Context, s Settings, to Connection, found *found, by audit.Entry) (*Cluster, error) {
	id := uuid.New()
	limits, err := s.Leases.change(lease.DefaultLimits)
	if err != nil {
		return nil, err
	}
	sealed, err := r.seal(sealPlace(id), credential{Password: string(to.Password), Key: string(to.Key)})
	if err != nil {
		return nil, err
	}
	err = r.db.Tx(ctx, func(tx pgx.Tx) error {
		if err := claimPlace(ctx, tx, found, id); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `
			INSERT INTO clusters (id, display_name, location, url, tls, credential, system_identifier, capabilities,
			  system_roles, member_of, grantable, manage, view, created_by, synchronous_commit, lease_default_ttl, lease_max_ttl,
			  lease_max_per_account)
			VALUES ($1, $2, coalesce($3, 'local'), $4, $5, $6, $7, $8, coalesce($9, $14::text[]), coalesce($10::text[],
			  '{}'), coalesce($11::text[], '{}'),
			  coalesce($12::text[], '{}'), coalesce($13::text[], '{}'), $15, nullif($16, ''), $17, $18, $19)`,
			id, s.DisplayName, s.Location, to.URL, to.TLS, sealed, found.SystemIdentifier, found.Capabilities,
			s.SystemRoles, s.MemberOf, s.Grantable, canonical(s.Manage), canonical(s.View), DefaultSystemRoles, by.AccountGUID,
			s.SynchronousCommit, limits.DefaultTTL, limits.MaxTTL, limits.MaxPerAccount)
		if err != nil {
			return explainTaken(err, s.DisplayName)
		}
		d := s.detail()
		d.URL = to.URL
		if to.TLS.AllowPlaintext {
			d.AllowPlaintext = &to.TLS.AllowPlaintext
		}
		by.Action, by.Cluster, by.Target, by.Detail = audit.RegisterCluster, id, *s.DisplayName, d
		return r.record(ctx, tx, by)
	})
	if err != nil {
		return nil, err
	}
	if err := r.changed(ctx); err != nil {
		return nil, err
	}
	return r.Get(id.String())
}

// change changes a cluster that the caller has read as c. to is its new connection, which found was found behind; both
// are nil when it stays. The identity becomes that which was found: the caller has made sure of it.
func (r *Registry) change(ctx context.Context, c *Cluster, match etag.Match, s Settings, to *Connection, found *found,
	by audit.Entry) (*Cluster, error) {
	err := r.db.Tx(ctx, func(tx pgx.Tx) error {
		if to != nil {
			if err := claimPlace(ctx, tx, found, c.ID); err != nil {
				return err
			}
		}
		now, err := r.locked(ctx, tx, c.ID)
		if err != nil {
			return err
		}
		if err := now.CheckMatch(match); err != nil {
			return err
		}
		limits, err := s.Leases.change(now.Leases)
		if err != nil {
			return err
		}
		moved := to != nil && *to != now.Connection
		d := s.detail()
		if to != nil {
			if now.Connection != c.Connection {
				return fault.New(fault.Stale, "The connection of the cluster was changed concurrently. Read it again before you "+
					"change it.")
			}
			given := credential{Password: string(to.Password), Key: string(to.Key)}
			if to.Password == now.Connection.Password {
				given.Attempt = now.rotatedBy
			}
			sealed, err := r.seal(sealPlace(c.ID), given)
			if err != nil {
				return err
			}
			_, err = tx.Exec(ctx, `UPDATE clusters SET url = $2, tls = $3, credential = $4, pending = NULL, capabilities = $5 `+
				`WHERE id = $1`,
				c.ID, to.URL, to.TLS, sealed, found.Capabilities)
			if err != nil {
				return err
			}
			changed := to.Password != now.Connection.Password
			d.URL, d.Password = to.URL, &changed
			if to.TLS.AllowPlaintext != now.Connection.TLS.AllowPlaintext {
				d.AllowPlaintext = &to.TLS.AllowPlaintext
			}
			if found.SystemIdentifier != now.SystemIdentifier {
				_, err := tx.Exec(ctx, `UPDATE clusters SET system_identifier = $2, identified_at = clock_timestamp() WHERE id = $1`,
					c.ID, found.SystemIdentifier)
				if err == nil {
					err = lease.ClearRoles(ctx, tx, c.ID) // roles that were restored from a dump have other OIDs
				}
				if err == nil {
					err = observe.Clear(ctx, tx, c.ID)
				}
				if err != nil {
					return err
				}
				d.SystemIdentifier, d.SystemIdentifierBefore, moved = found.SystemIdentifier, now.SystemIdentifier, true
			}
		}
		tag, err := tx.Exec(ctx, `
			UPDATE clusters SET display_name = coalesce($2, display_name), location = coalesce($3, location),
			  system_roles = coalesce($4, system_roles), member_of = coalesce($5, member_of), grantable = coalesce($6, grantable),
			  manage = coalesce($7, manage), view = coalesce($8, view),
			  synchronous_commit = nullif(coalesce($10, synchronous_commit), ''),
			  lease_default_ttl = $11, lease_max_ttl = $12, lease_max_per_account = $13,
			  revision = revision + 1, updated_at = clock_timestamp()
			WHERE id = $1 AND ($9 OR
			  (display_name, location, system_roles, member_of, grantable, manage, view, synchronous_commit,
			   lease_default_ttl, lease_max_ttl, lease_max_per_account) IS DISTINCT FROM
			  (coalesce($2, display_name), coalesce($3, location), coalesce($4, system_roles), coalesce($5, member_of),
			   coalesce($6, grantable), coalesce($7, manage), coalesce($8, view), nullif(coalesce($10, synchronous_commit), ''),
			   $11, $12, $13))`,
			c.ID, s.DisplayName, s.Location, s.SystemRoles, s.MemberOf, s.Grantable, canonical(s.Manage), canonical(s.View), moved,
			s.SynchronousCommit, limits.DefaultTTL, limits.MaxTTL, limits.MaxPerAccount)
		if err != nil {
			return explainTaken(err, s.DisplayName)
		}
		if tag.RowsAffected() == 0 {
			return nil // it is so already
		}
		if s.Manage != nil {
			d.ManageBefore = rules(now.Manage)
		}
		if s.View != nil {
			d.ViewBefore = rules(now.View)
		}
		by.Action, by.Cluster, by.Target, by.Detail = audit.UpdateCluster, c.ID, now.DisplayName, d
		return r.record(ctx, tx, by)
	})
	if err != nil {
		return nil, err
	}
	if err := r.changed(ctx); err != nil {
		return nil, err
	}
	return r.Get(c.ID.String())
}

// record writes the audit row of a change beside it. What cannot be recorded is not done.
func (r *Registry) record(ctx context.Context, tx pgx.Tx, e audit.Entry) error {
	if err := r.audit.Record(ctx, tx, e); err != nil {
		return fault.New(fault.Unavailable, "The audit log cannot be written, so nothing was done.").After(
			5 * time.Second).Because(err)
	}
	return nil
}

// explainTaken says that the name is taken, if that is what err says.
func explainTaken(err error, displayName *string) error {
	if sqlstate.Is(err, sqlstate.UniqueViolation) {
		return taken(*displayName)
	}
	return err
}

func taken(displayName string) error {
	return fault.New(fault.Exists, "There is a cluster %q already.", displayName).At("displayName")
}

// detail is what the audit log keeps of a change of a registration. nil was not given.
type detail struct {
	DisplayName            *string   `json:"displayName,omitempty"`
	Location               *string   `json:"location,omitempty"`
	SynchronousCommit      *string   `json:"synchronousCommit,omitempty"`
	Manage                 *[]string `json:"manage,omitempty"`
	ManageBefore           []string  `json:"manageBefore,omitzero"`
	View                   *[]string `json:"view,omitempty"`
	ViewBefore             []string  `json:"viewBefore,omitzero"`
	SystemRoles            *[]string `json:"systemRoles,omitempty"`
	MemberOf               *[]string `json:"memberOf,omitempty"`
	Grantable              *[]string `json:"grantable,omitempty"`
	Leases                 *leases   `json:"leases,omitempty"`
	URL                    string    `json:"url,omitempty"`
	Password               *bool     `json:"password,omitempty"` // whether it has changed
	AllowPlaintext         *bool     `json:"allowPlaintext,omitempty"`
	SystemIdentifier       string    `json:"systemIdentifier,omitempty"`
	SystemIdentifierBefore string    `json:"systemIdentifierBefore,omitempty"`
}

// leases are the limits of leases as the audit log keeps them.
type leases struct {
	DefaultTTL    string `json:"defaultTtl,omitempty"`
	MaxTTL        string `json:"maxTtl,omitempty"`
	MaxPerAccount int    `json:"maxPerAccount,omitempty"`
}

func (s *LeaseSettings) detail() *leases {
	if *s == (LeaseSettings{}) {
		return nil
	}
	var d leases
	if s.DefaultTTL != nil {
		d.DefaultTTL = moment.DurationText(*s.DefaultTTL)
	}
	if s.MaxTTL != nil {
		d.MaxTTL = moment.DurationText(*s.MaxTTL)
	}
	if s.MaxPerAccount != nil {
		d.MaxPerAccount = *s.MaxPerAccount
	}
	return &d
}

// removed is what the audit log keeps of a registration that has ended.
type removed struct {
	URL         string   `json:"url"`
	Manage      []string `json:"manage"`
	View        []string `json:"view"`
	Leases      int      `json:"leases,omitempty"`      // that were left
	Credentials int      `json:"credentials,omitempty"` // that were left
}

func (s *Settings) detail() detail {
	return detail{
		DisplayName: s.DisplayName, Location: s.Location, SynchronousCommit: s.SynchronousCommit,
		Manage: canonical(s.Manage), View: canonical(s.View),
		SystemRoles: s.SystemRoles, MemberOf: s.MemberOf, Grantable: s.Grantable, Leases: s.Leases.detail(),
	}
}

func rules(selectors []label.Selector) []string {
	texts := make([]string, len(selectors))
	for i, s := range selectors {
		texts[i] = s.String()
	}
	return texts
}

// Remove unregisters a cluster, which itself is not touched. Requests that work on it go on with its pool. Unless leases are
// to be left as they are, it must have none that have not ended, and no stored credentials.
func (r *Registry) Remove(ctx context.Context, id uuid.UUID, match etag.Match, leave bool, by audit.Entry) error {
	unlock, err := r.LockCredential(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	err = r.db.Tx(ctx, func(tx pgx.Tx) error {
		now, err := r.locked(ctx, tx, id)
		if err != nil {
			return err
		}
		if err := now.CheckMatch(match); err != nil {
			return err
		}
		leases, credentials, err := lease.InUse(ctx, tx, id)
		if err != nil {
			return err
		}
		if !leave && leases+credentials > 0 {
			return fault.New(fault.Invalid, "The cluster %q has leases that have not ended (%d) and stored credentials (%d). With "+
				"endLeases=true they are ended first. With endLeases=false their roles stay in the cluster, and nobody drops "+
				"them.", now.DisplayName, leases, credentials)
		}
		if _, err := tx.Exec(ctx, `DELETE FROM clusters WHERE id = $1`, id); err != nil {
			return err
		}
		by.Action, by.Cluster, by.Target = audit.RemoveCluster, id, now.DisplayName
		by.Detail = removed{now.Connection.URL, rules(now.Manage), rules(now.View), leases, credentials}
		return r.record(ctx, tx, by)
	})
	if err != nil {
		return err
	}
	return r.changed(ctx)
}

// update runs a statement on a cluster's row and reads the registry again.
func (r *Registry) update(ctx context.Context, sql string, args ...any) error {
	err := r.db.Tx(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, sql, args...)
		return err
	})
	if err != nil {
		return err
	}
	return r.changed(ctx)
}
