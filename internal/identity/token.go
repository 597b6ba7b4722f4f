package identity

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/account"
	"rolecall/internal/audit"
	"rolecall/internal/control"
	"rolecall/internal/fault"
)

// Audience is the `aud` that a token for this product must have. The name is the one that resource servers of the
// ecosystem look for.
const Audience = "cloud_controller"

// claims are the UAA's, as its clients and resource servers read them, and the epoch that binds a token to its account.
type claims struct {
	jwt.RegisteredClaims
	UserID   string   `json:"user_id,omitempty"`
	UserName string   `json:"user_name,omitempty"`
	Origin   string   `json:"origin,omitempty"`
	ClientID string   `json:"client_id,omitempty"`
	Scope    []string `json:"scope"`
	Epoch    string   `json:"rolecall_epoch"`
}

// Mint returns a token of the account that carries its scopes and ends after the lifetime.
func (s *Service) Mint(ctx context.Context, a *account.Account, lifetime time.Duration) (string, error) {
	key, err := s.signingKey(ctx)
	if err != nil {
		return "", err
	}
	now := time.Now()
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer:    s.issuer,
			Subject:   a.GUID,
			Audience:  jwt.ClaimStrings{Audience},
			IssuedAt:  jwt.NewNumericDate(now),
			ExpiresAt: jwt.NewNumericDate(now.Add(lifetime)),
			ID:        strings.ReplaceAll(uuid.NewString(), "-", ""),
		},
		UserID:   a.GUID,
		UserName: a.Username,
		Origin:   a.Origin,
		ClientID: "cf",
		Scope:    a.Scopes,
		Epoch:    a.Epoch.String(),
	})
	token.Header["kid"] = key.kid
	return token.SignedString(key.private)
}

func (s *Service) bearer(ctx context.Context, token string) (*knownCredential, error) {
	var c claims
	var away error
	_, err := jwt.ParseWithClaims(token, &c, func(t *jwt.Token) (any, error) {
		kid, _ := t.Header["kid"].(string)
		key, err := s.verifyingKey(ctx, kid)
		if fault.Is(err, fault.Unavailable) {
			away = err
		}
		return key, err
	}, jwt.WithValidMethods([]string{"RS256"}), jwt.WithIssuer(s.issuer), jwt.WithAudience(Audience), jwt.WithExpirationRequired())
	if away != nil {
		return nil, away
	}
	// A jti that ends in -r marks a refresh token in the UAA's convention.
	if err != nil || c.UserID == "" || strings.HasSuffix(c.ID, "-r") {
		return nil, errWrong
	}
	a, err := s.accounts.ByGUID(ctx, c.UserID)
	if fault.Is(err, fault.NotFound) {
		return nil, errWrong
	}
	if err != nil {
		return nil, err
	}
	if !a.Active || epochBinding(a) != c.Epoch {
		return nil, errWrong
	}
	return &knownCredential{account: a, scopes: c.Scope, expires: c.ExpiresAt.Time, binding: epochBinding, bound: c.Epoch}, nil
}

// keySet is the signing keys in memory.
type keySet struct {
	mu      sync.RWMutex
	newest  *signingKey
	byKid   map[string]*signingKey
	refresh time.Time
}

type signingKey struct {
	kid     string
	private *rsa.PrivateKey
}

func (s *Service) signingKey(ctx context.Context) (*signingKey, error) {
	s.keys.mu.RLock()
	defer s.keys.mu.RUnlock()
	if s.keys.newest == nil {
		return nil, errors.New("no signing key is loaded")
	}
	return s.keys.newest, nil
}

// verifyingKey finds a public key. A kid that is not known may be that of a key which another replica has just made, so
// the keys are read again, at most once a second.
func (s *Service) verifyingKey(ctx context.Context, kid string) (*rsa.PublicKey, error) {
	s.keys.mu.RLock()
	key, stale := s.keys.byKid[kid], time.Since(s.keys.refresh) > time.Second
	s.keys.mu.RUnlock()
	if key == nil && stale {
		if err := s.loadKeys(ctx); err != nil {
			return nil, err
		}
		s.keys.mu.RLock()
		key = s.keys.byKid[kid]
		s.keys.mu.RUnlock()
	}
	if key == nil {
		return nil, errors.New("the token is signed by an unknown key")
	}
	return &key.private.PublicKey, nil
}

// loadKeys reads the signing keys, and makes the first one when there is none.
func (s *Service) loadKeys(ctx context.Context) error {
	keys, err := s.readKeys(ctx)
	if err == nil && len(keys) == 0 {
		if err = s.makeFirstKey(ctx); err == nil {
			keys, err = s.readKeys(ctx)
		}
	}
	if err != nil {
		return err
	}
	s.keys.mu.Lock()
	defer s.keys.mu.Unlock()
	s.keys.byKid = map[string]*signingKey{}
	for _, k := range keys {
		s.keys.byKid[k.kid] = k
	}
	s.keys.newest = keys[0]
	s.keys.refresh = time.Now()
	return nil
}

// readKeys returns the keys, the newest first.
func (s *Service) readKeys(ctx context.Context) ([]*signingKey, error) {
	rows, err := s.db.Pool.Query(ctx, `SELECT kid, private_key FROM signing_keys ORDER BY created_at DESC, kid`)
	if err != nil {
		return nil, control.Fault(err)
	}
	keys, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*signingKey, error) {
		var kid string
		var sealed []byte
		if err := row.Scan(&kid, &sealed); err != nil {
			return nil, err
		}
		der, err := s.db.Keys.Open(sealPlace(kid), sealed)
		if err != nil {
			return nil, err
		}
		private, err := x509.ParsePKCS8PrivateKey(der)
		if err != nil {
			return nil, err
		}
		return &signingKey{kid, private.(*rsa.PrivateKey)}, nil
	})
	return keys, control.Fault(err)
}

func (s *Service) makeFirstKey(ctx context.Context) error {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	random := make([]byte, 8)
	_, _ = rand.Read(random)
	kid := "rolecall-" + hex.EncodeToString(random)
	return s.db.Tx(ctx, func(tx pgx.Tx) error {
		// Replicas that start at once each make a key; the lock lets one of them keep it.
		if _, err := tx.Exec(ctx, `LOCK TABLE signing_keys IN SHARE ROW EXCLUSIVE MODE`); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `
			INSERT INTO signing_keys (kid, private_key) SELECT $1, $2 WHERE NOT EXISTS (SELECT FROM signing_keys)`,
			kid, s.db.Keys.Seal(sealPlace(kid), der))
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		return audit.Record(ctx, tx, audit.Entry{Action: audit.MakeSigningKey, AccountGUID: "rolecall", AccountName: "rolecall", Target: kid})
	})
}

func sealPlace(kid string) string { return "signing_keys/" + kid + "/private_key" }
