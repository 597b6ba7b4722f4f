package account

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/audit"
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
}

// maxSubject is the longest subject in bytes (OpenID Connect Core 1.0, 2). PostgreSQL indexes no text of many times that.
const maxSubject = 255

// External returns the account of an issuer and subject. At their first use it is the one that was prepared, if the issuer
// links. Else it is made, as a platform user with the default scopes. A name that is taken in the origin, or is not valid,
// is made unique by the beginning of the guid.
func (s *Store) External(ctx context.Context, x External) (*Account, error) {
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
