package account

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/audit"
	"rolecall/internal/control"
	"rolecall/internal/fault"
)

// Issuer is another issuer whose people sign in.
type Issuer struct {
	Name   string // as the source of labels
	Origin string // of its accounts
	// Links says that a subject without an account takes the one of its origin and name that no subject has yet.
	Links bool
	// LabelKeys are those of the labels that it sets: a key, or one like group.* for all keys that begin with group.
	LabelKeys []string
}

// AnyLabel is the end of a key that stands for many.
const AnyLabel = ".*"

// LabelKeysOverlap reports whether two keys, of which each may stand for many, are those of one label in some account.
func LabelKeysOverlap(a, b string) bool { return covers(a, b) || covers(b, a) }

// covers reports whether a key is another one, or stands for it.
func covers(many, key string) bool {
	base, stands := strings.CutSuffix(many, AnyLabel)
	if !stands {
		return many == key
	}
	rest, covered := strings.CutPrefix(key, base+".")
	return covered && rest != ""
}

// sets reports whether the issuer sets the label of that key.
func (i Issuer) sets(key string) bool {
	return slices.ContainsFunc(i.LabelKeys, func(k string) bool { return covers(k, key) })
}

// issuerOf is the issuer of the accounts of an origin; the zero one sets no labels.
func (s *Store) issuerOf(origin string) Issuer {
	for _, i := range s.issuers {
		if i.Origin == origin {
			return i
		}
	}
	return Issuer{}
}

// mayLabel refuses changes of labels of an account of that origin which its issuer sets: they would be lost at the next
// sign-in. What changes nothing is allowed, so that what was read can be sent back.
func (s *Store) mayLabel(origin string, is *Profile, labels map[string]*string) error {
	issuer := s.issuerOf(origin)
	_, changed := merge(is.Labels, labels)
	for _, key := range slices.Sorted(maps.Keys(changed)) {
		if issuer.sets(key) {
			return fault.New(fault.Invalid, "The label %q of this account is set by the issuer %q at each sign-in, and by nobody "+
				"else. Change the person's groups at the issuer, or the label's setting in --oidc-issuer.", key, issuer.Name)
		}
	}
	return nil
}

// mayPrepare refuses an account that the person whom it is for could never sign in to.
func (s *Store) mayPrepare(origin string) error {
	for _, i := range s.issuers {
		if i.Origin == origin && !i.Links {
			return fault.New(fault.Invalid, "An account of the origin %.200q is made when its person first signs in, and only "+
				"then: this server does not link people to accounts by their names. Change the account after that, or have the "+
				"server started with link=username for this issuer.", origin)
		}
	}
	return nil
}

// External is what is known of somebody whom another issuer vouches for.
type External struct {
	Issuer, Subject  string // who it is
	Origin, Username string // what it is called
	Links            bool   // as those of its Issuer
	Address          string
	// Labels are those that the claims of the token give, and Issued is the time of the token; zero: it has none.
	Labels map[string]string
	Issued time.Time
}

// maxSubject is the longest subject in bytes (OpenID Connect Core 1.0, 2). PostgreSQL indexes no text of many times that.
const maxSubject = 255

// External returns the account of an issuer and subject. At their first use it is the one that was prepared, if the issuer
// links. Else it is made, as a platform user with the default scopes. A name that is taken in the origin, or is not valid,
// is made unique by the beginning of the guid. An account that may sign in gets the labels of its issuer.
func (s *Store) External(ctx context.Context, x External) (*Account, error) {
	a, err := s.external(ctx, x)
	if err != nil || !a.Active {
		return a, err
	}
	return a, s.setIssuerLabels(ctx, a, x)
}

func (s *Store) external(ctx context.Context, x External) (*Account, error) {
	if !storable(x.Subject) || len(x.Subject) > maxSubject {
		return nil, fault.New(fault.Unauthenticated, "The subject of the token is not text of at most %d bytes.", maxSubject)
	}
	find := func() (*Account, error) { return s.one(ctx, `WHERE issuer = $1 AND subject = $2`, x.Issuer, x.Subject) }
	a, err := find()
	if !fault.Is(err, fault.NotFound) {
		return a, err
	}
	if x.Links && CheckUsername(x.Username) == nil {
		if err := s.link(ctx, x); err != nil {
			return nil, err
		}
		if a, err := find(); !fault.Is(err, fault.NotFound) {
			return a, err
		}
	}
	guid := uuid.NewString()
	names := []string{x.Username, x.Username + "-" + guid[:8], guid}
	for _, name := range names {
		if CheckUsername(name) != nil {
			continue
		}
		n := newProfile(guid, name, x.Origin, DefaultScopes)
		n.issuer, n.subject = x.Issuer, x.Subject
		var made *Profile
		err := s.DB.Tx(ctx, func(tx pgx.Tx) (err error) {
			if made, err = insert(ctx, tx, n, parts{identity: true, platform: true}, nil); err != nil || made == nil {
				return err
			}
			return s.Audit.Record(ctx, tx, audit.Entry{
				Action: audit.CreateAccount, AccountGUID: guid, AccountName: shownName(name, x.Origin), Target: guid, Address: x.Address,
				Detail: detail{Username: name, Origin: x.Origin, Issuer: x.Issuer, Reason: firstUse},
			})
		})
		if err != nil {
			return nil, err
		}
		// What is there now may be another request's work, for the same subject.
		if a, err := find(); made != nil || !fault.Is(err, fault.NotFound) {
			return a, err
		}
	}
	return nil, fmt.Errorf("no name is free for the subject of %s", x.Issuer)
}

// link gives the account of the subject's origin and name to the subject, unless there is none or another subject has it.
func (s *Store) link(ctx context.Context, x External) error {
	return s.DB.Tx(ctx, func(tx pgx.Tx) error {
		e := audit.Entry{Action: audit.UpdateAccount, Address: x.Address,
			Detail: detail{Part: identityPart, Issuer: x.Issuer, Reason: firstUse}}
		var username string
		err := tx.QueryRow(ctx, `
			UPDATE accounts SET issuer = $1, subject = $2,
			  identity_version = identity_version + 1, identity_updated_at = clock_timestamp()
			WHERE origin = $3 AND lower(username) = lower($4) AND issuer IS NULL AND identity_created_at IS NOT NULL AND NOT program
			RETURNING guid, username`, x.Issuer, x.Subject, x.Origin, x.Username).Scan(&e.AccountGUID, &username)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		e.AccountName, e.Target = shownName(username, x.Origin), e.AccountGUID
		return s.Audit.Record(ctx, tx, e)
	})
}

// issuerLabels are the labels that an issuer has set.
func (a *Profile) issuerLabels() map[string]string {
	labels := maps.Clone(a.Labels)
	maps.DeleteFunc(labels, func(key, _ string) bool { return a.LabelSources[key] == "" })
	return labels
}

// labels replaces the labels that the issuer has set, or is to set, by those of its last token. The rest are the admins'.
func (i Issuer) labels(are, sources, given map[string]string) (labels, from map[string]string) {
	labels, from = maps.Clone(are), map[string]string{}
	maps.DeleteFunc(labels, func(key, _ string) bool { return sources[key] != "" || i.sets(key) })
	for key, value := range given {
		labels[key], from[key] = value, i.Name
	}
	return labels, from
}

// setIssuerLabels gives an account the labels of a token in place of those of the last one. A token that is older than the
// last changes nothing: else a person could keep a label with it that the issuer has taken away.
func (s *Store) setIssuerLabels(ctx context.Context, a *Account, x External) error {
	issuer := s.issuerOf(x.Origin)
	if len(issuer.LabelKeys) == 0 && len(a.LabelSources) == 0 {
		return nil
	}
	var last time.Time
	err := s.DB.Pool.QueryRow(ctx, `
		SELECT coalesce((SELECT issued_at FROM label_times WHERE account_id = $1), '0001-01-01')`, a.ID).Scan(&last)
	if err != nil {
		return control.Fault(err)
	}
	labels, sources := issuer.labels(a.Labels, a.LabelSources, x.Labels)
	same := maps.Equal(labels, a.Labels) && maps.Equal(sources, a.LabelSources)
	if last.After(x.Issued) || last.Equal(x.Issued) && same {
		return nil
	}
	if err := s.EnsurePlatformUser(ctx, a, x.Address); err != nil {
		return err
	}
	return s.DB.Tx(ctx, func(tx pgx.Tx) error {
		is, err := one(ctx, tx, `SELECT `+withAnnotations+` FROM accounts WHERE id = $1 FOR NO KEY UPDATE`, a.ID)
		if err != nil || is == nil { // it is gone, which the next look finds
			return err
		}
		tag, err := tx.Exec(ctx, `
			INSERT INTO label_times (account_id, issued_at) VALUES ($1, $2) ON CONFLICT (account_id) DO UPDATE
			SET issued_at = excluded.issued_at WHERE label_times.issued_at <= excluded.issued_at`, a.ID, x.Issued)
		if err != nil {
			return err
		}
		want := *is
		if tag.RowsAffected() > 0 { // else a newer token was faster
			want.Labels, want.LabelSources = issuer.labels(is.Labels, is.LabelSources, x.Labels)
		}
		a.Labels, a.LabelSources = want.Labels, want.LabelSources
		changed := differences(is.Labels, want.Labels)
		if len(changed) == 0 && maps.Equal(is.LabelSources, want.LabelSources) {
			return nil
		}
		d := detail{Part: platformPart, Issuer: x.Issuer, Reason: byClaims}
		if len(changed) > 0 {
			d.Labels = changed
		}
		_, err = s.save(ctx, tx, &want, parts{platform: true}, audit.Entry{
			Action: audit.UpdateAccount, AccountGUID: a.GUID, AccountName: a.ShownName(), Target: a.GUID, Address: x.Address,
			Detail: d,
		})
		return err
	})
}

// differences are the changes from some labels to others.
func differences(from, to map[string]string) map[string]fromTo {
	changes := map[string]*string{}
	for key := range from {
		changes[key] = nil
	}
	for key, value := range to {
		changes[key] = &value
	}
	_, changed := merge(from, changes)
	return changed
}
