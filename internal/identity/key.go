package identity

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/audit"
	"rolecall/internal/control"
)

// The lifetime of a signing key. The key is published first, so that every replica and resource server has it before a token
// is signed with it. Then it signs until its successor does, and verifies until the last token that it signed has expired.
const (
	keyLead     = time.Hour
	keyAge      = 30 * 24 * time.Hour // then its successor is made
	keysFresh   = time.Minute         // after which a replica reads the keys again
	unknownWait = time.Second         // between two queries for an unknown key
)

// keySet is the signing keys in memory.
type keySet struct {
	mu     sync.RWMutex
	keys   []*signingKey // the newest first
	read   time.Time
	looked time.Time
}

type signingKey struct {
	kid     string
	private *rsa.PrivateKey
	created time.Time
}

// PublicKey is a key that verifies tokens.
type PublicKey struct {
	ID  string
	Key *rsa.PublicKey
}

// PublicKeys returns all keys that verify, the one that signs now first.
func (s *Service) PublicKeys(ctx context.Context) ([]PublicKey, error) {
	keys, err := s.currentKeys(ctx)
	if err != nil {
		return nil, err
	}
	signs := signer(keys, s.now())
	public := []PublicKey{{signs.kid, &signs.private.PublicKey}}
	for _, k := range keys {
		if k != signs {
			public = append(public, PublicKey{k.kid, &k.private.PublicKey})
		}
	}
	return public, nil
}

func (s *Service) signingKey(ctx context.Context) (*signingKey, error) {
	keys, err := s.currentKeys(ctx)
	if err != nil {
		return nil, err
	}
	return signer(keys, s.now()), nil
}

// signer is the newest key that has been published for long enough. The very first key signs at once.
func signer(keys []*signingKey, now time.Time) *signingKey {
	for _, k := range keys {
		if now.Sub(k.created) >= keyLead {
			return k
		}
	}
	return keys[len(keys)-1]
}

// currentKeys returns the keys, read again when they are a minute old. While the control database is unreachable, the
// cached ones are used: a new key signs an hour after its creation.
func (s *Service) currentKeys(ctx context.Context) ([]*signingKey, error) {
	s.keys.mu.RLock()
	keys, age := s.keys.keys, s.now().Sub(s.keys.read)
	s.keys.mu.RUnlock()
	if age < keysFresh {
		return keys, nil
	}
	if err := s.loadKeys(ctx); err != nil && (keys == nil || age > keyLead) {
		return nil, err
	}
	s.keys.mu.RLock()
	defer s.keys.mu.RUnlock()
	return s.keys.keys, nil
}

// verifyingKey finds a public key. An unknown kid may belong to a key that another replica has just made, so the keys are
// read again, at most once a second because anybody can send any kid.
func (s *Service) verifyingKey(ctx context.Context, kid string) (*rsa.PublicKey, error) {
	for {
		s.keys.mu.Lock()
		for _, k := range s.keys.keys {
			if k.kid == kid {
				s.keys.mu.Unlock()
				return &k.private.PublicKey, nil
			}
		}
		now := s.now()
		again := now.Sub(s.keys.looked) >= unknownWait
		if again {
			s.keys.looked = now
		}
		s.keys.mu.Unlock()
		if !again {
			return nil, errors.New("the token is signed by an unknown key")
		}
		if err := s.loadKeys(ctx); err != nil {
			return nil, err
		}
	}
}

// loadKeys reads the signing keys, and makes the first one if there is none.
func (s *Service) loadKeys(ctx context.Context) error {
	keys, err := s.readKeys(ctx)
	if err == nil && len(keys) == 0 {
		if _, err = s.makeKey(ctx, ownEntry, func(newest time.Time) bool { return newest.IsZero() }); err == nil {
			keys, err = s.readKeys(ctx)
		}
	}
	if err != nil {
		return err
	}
	s.keys.mu.Lock()
	defer s.keys.mu.Unlock()
	s.keys.keys, s.keys.read = keys, s.now()
	return nil
}

// readKeys returns the keys, the newest first.
func (s *Service) readKeys(ctx context.Context) ([]*signingKey, error) {
	rows, err := s.db.Pool.Query(ctx, `SELECT kid, private_key, created_at FROM signing_keys ORDER BY created_at DESC, kid`)
	if err != nil {
		return nil, control.Fault(err)
	}
	keys, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*signingKey, error) {
		var k signingKey
		var sealed []byte
		if err := row.Scan(&k.kid, &sealed, &k.created); err != nil {
			return nil, err
		}
		der, err := s.db.Keys.Open(sealPlace(k.kid), sealed)
		if err != nil {
			return nil, err
		}
		private, err := x509.ParsePKCS8PrivateKey(der)
		if err != nil {
			return nil, err
		}
		k.private = private.(*rsa.PrivateKey)
		return &k, nil
	})
	return keys, control.Fault(err)
}

// ownEntry is the actor of what the service does by itself.
var ownEntry = audit.Entry{AccountGUID: audit.ActorRolecall, AccountName: audit.ActorRolecall}

// RotateKey publishes a new signing key now, which signs an hour from now. The entry says who asked for it.
func (s *Service) RotateKey(ctx context.Context, by audit.Entry) (kid string, err error) {
	if kid, err = s.makeKey(ctx, by, func(time.Time) bool { return true }); err != nil {
		return "", err
	}
	return kid, s.loadKeys(ctx)
}

// makeKey creates a key if it is wanted, given the creation time of the newest. A lock makes only one replica create it.
func (s *Service) makeKey(ctx context.Context, by audit.Entry, wanted func(newest time.Time) bool) (kid string, err error) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return "", err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", err
	}
	kid = "rolecall-" + randomID()[:16]
	return kid, s.db.Tx(ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `LOCK TABLE signing_keys IN SHARE ROW EXCLUSIVE MODE`); err != nil {
			return err
		}
		var newest *time.Time
		if err := tx.QueryRow(ctx, `SELECT max(created_at) FROM signing_keys`).Scan(&newest); err != nil {
			return err
		}
		if newest == nil {
			newest = &time.Time{}
		}
		if !wanted(*newest) {
			return nil
		}
		if _, err := tx.Exec(ctx, `INSERT INTO signing_keys (kid, private_key, created_at) VALUES ($1, $2, $3)`,
			kid, s.db.Keys.Seal(sealPlace(kid), der), s.now()); err != nil {
			return err
		}
		by.Action, by.Target = audit.MakeSigningKey, kid
		return s.audit.Record(ctx, tx, by)
	})
}

// Run renews and retires keys, deletes expired refresh tokens, and stores when personal access tokens were used, until ctx
// ends.
func (s *Service) Run(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		if err := s.maintain(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("the maintenance of signing keys and refresh tokens failed and is repeated", "error", err)
		}
		if err := s.flushUses(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("the last uses of personal access tokens could not be stored yet", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			if err := s.flushUses(end); err != nil {
				s.log.Warn("the last uses of personal access tokens are lost", "error", err)
			}
			return
		}
	}
}

func (s *Service) maintain(ctx context.Context) error {
	if err := s.loadKeys(ctx); err != nil {
		return err
	}
	s.keys.mu.RLock()
	keys := slices.Clone(s.keys.keys)
	s.keys.mu.RUnlock()
	old := func(newest time.Time) bool { return s.now().Sub(newest) >= keyAge }
	if old(keys[0].created) {
		if _, err := s.makeKey(ctx, ownEntry, old); err != nil {
			return err
		}
	}
	for i, k := range keys[1:] {
		// Its successor is keys[i]. The margin of an hour is for replicas that read the keys late.
		if s.now().Sub(keys[i].created) >= keyLead+longestLifetime+time.Hour {
			if err := s.retireKey(ctx, k.kid); err != nil {
				return err
			}
		}
	}
	if _, err := s.db.Pool.Exec(ctx, `DELETE FROM refresh_tokens WHERE expires_at < $1`, s.now()); err != nil {
		return control.Fault(err)
	}
	// The clock of another replica, to which the token is still valid, may be behind.
	margin := s.now().Add(-expiryMargin)
	if _, err := s.db.Pool.Exec(ctx, `DELETE FROM personal_tokens WHERE renewable_until IS NOT NULL AND expires_at < $1`,
		margin); err != nil {
		return control.Fault(err)
	}
	if _, err := s.db.Pool.Exec(ctx, `DELETE FROM console_sessions WHERE expires_at < $1 OR last_used_at < $2`,
		margin, margin.Add(-SessionIdle)); err != nil {
		return control.Fault(err)
	}
	_, err := s.db.Pool.Exec(ctx, `DELETE FROM revoked_tokens WHERE expires_at < $1`, margin)
	if err != nil {
		return control.Fault(err)
	}
	for _, codes := range []struct {
		table string
		kept  time.Duration // after they have expired
	}{{"authorization_codes", codeMemory}, {"device_codes", expiryMargin}, {"passcodes", expiryMargin}} {
		_, err := s.db.Pool.Exec(ctx, `DELETE FROM `+codes.table+` WHERE expires_at < $1`, s.now().Add(-codes.kept))
		if err != nil {
			return control.Fault(err)
		}
	}
	return s.loadKeys(ctx)
}

// expiryMargin is for how long revoked tokens are remembered that have expired by this replica's clock.
const expiryMargin = 5 * time.Minute

func (s *Service) retireKey(ctx context.Context, kid string) error {
	return s.db.Tx(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `DELETE FROM signing_keys WHERE kid = $1`, kid)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		entry := ownEntry
		entry.Action, entry.Target = audit.RetireKey, kid
		return s.audit.Record(ctx, tx, entry)
	})
}

func sealPlace(kid string) string { return "signing_keys/" + kid + "/private_key" }
