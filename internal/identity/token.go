package identity

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"rolecall/internal/account"
	"rolecall/internal/fault"
	"rolecall/internal/secret"
)

// Audience is the `aud` that a token for this product must have. The name is the one that resource servers of the
// ecosystem look for.
const Audience = "cloud_controller"

// The lifetimes are those of the UAA in the ecosystem: its client cf, and its default.
const (
	userTokenLifetime    = 20 * time.Minute
	programTokenLifetime = 12 * time.Hour
	// longestLifetime is how long a signing key must verify after it last signed.
	longestLifetime = 12 * time.Hour
)

// claims are the UAA's, as its clients and resource servers read them, and the epoch that binds a token to its account.
type claims struct {
	jwt.RegisteredClaims
	UserID    string   `json:"user_id,omitempty"`
	UserName  string   `json:"user_name,omitempty"`
	Origin    string   `json:"origin,omitempty"`
	ClientID  string   `json:"client_id"`
	CID       string   `json:"cid"`
	ZoneID    string   `json:"zid"`
	GrantType string   `json:"grant_type"`
	Scope     []string `json:"scope"`
	Epoch     string   `json:"rolecall_epoch"`
}

// MintFor returns a token of a local account, for those who hold the signing keys anyway.
func (s *Service) MintFor(ctx context.Context, username string, lifetime time.Duration) (string, error) {
	a, err := s.accounts.ByUsername(ctx, username, account.LocalOrigin)
	if err != nil {
		return "", err
	}
	token, _, err := s.mint(ctx, a, PublicClient, "password", a.Scopes, lifetime)
	return string(token), err
}

// mint returns a token of the account, and the token's id.
func (s *Service) mint(ctx context.Context, a *account.Account, clientID, grantType string, scopes []string,
	lifetime time.Duration) (token secret.Text, id string, err error) {
	key, err := s.signingKey(ctx)
	if err != nil {
		return "", "", err
	}
	now := s.now()
	id = randomID()
	c := claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer:    s.issuer,
			Subject:   a.GUID,
			Audience:  audience(scopes, clientID),
			IssuedAt:  jwt.NewNumericDate(now),
			ExpiresAt: jwt.NewNumericDate(now.Add(min(lifetime, longestLifetime))),
			ID:        id,
		},
		ClientID:  clientID,
		CID:       clientID,
		ZoneID:    account.LocalOrigin,
		GrantType: grantType,
		Scope:     append([]string{}, scopes...), // never null
		Epoch:     a.Epoch.String(),
	}
	if !a.Program {
		c.UserID, c.UserName, c.Origin = a.GUID, a.Username, a.Origin
	}
	t := jwt.NewWithClaims(jwt.SigningMethodRS256, c)
	t.Header["kid"] = key.kid
	signed, err := t.SignedString(key.private)
	return secret.Text(signed), id, err
}

// audience is who a token is meant for: what stands before the last dot of each scope, as the UAA has it, and this
// product in any case.
func audience(scopes []string, clientID string) jwt.ClaimStrings {
	aud := jwt.ClaimStrings{Audience}
	for _, scope := range scopes {
		if i := strings.LastIndex(scope, "."); i > 0 && !slices.Contains(aud, scope[:i]) {
			aud = append(aud, scope[:i])
		}
	}
	if !slices.Contains(aud, clientID) {
		aud = append(aud, clientID)
	}
	return aud
}

func randomID() string {
	random := make([]byte, 16)
	_, _ = rand.Read(random) // never fails since Go 1.24
	return hex.EncodeToString(random)
}

// bearer verifies a personal access token, or a token of this service or of one of the other issuers. Until its signature is
// verified, the issuer
// that it names decides only whose keys it is held against.
func (s *Service) bearer(ctx context.Context, token, address string) (*verifiedCredential, error) {
	if strings.HasPrefix(token, personalPrefix) {
		return s.personalBearer(ctx, token)
	}
	var named jwt.RegisteredClaims
	if _, _, err := jwt.NewParser().ParseUnverified(token, &named); err != nil {
		return nil, errWrong
	}
	if e := s.external[named.Issuer]; e != nil {
		return s.externalBearer(ctx, e, token, address)
	}
	return s.ownBearer(ctx, token)
}

// claims are those of a token that was made here and is for access, whatever has become of its account since.
func (s *Service) claims(ctx context.Context, token string) (*claims, error) {
	var c claims
	var away error
	_, err := jwt.ParseWithClaims(token, &c, func(t *jwt.Token) (any, error) {
		kid, _ := t.Header["kid"].(string)
		key, err := s.verifyingKey(ctx, kid)
		if fault.Is(err, fault.Unavailable) {
			away = err
		}
		return key, err
	},
		jwt.WithValidMethods([]string{"RS256"}), // RFC 8725, 3.1: the token does not choose its algorithm
		jwt.WithIssuer(s.issuer), jwt.WithAudience(Audience), jwt.WithExpirationRequired(), jwt.WithTimeFunc(s.now))
	if away != nil {
		return nil, away
	}
	// A jti that ends in -r marks a refresh token in the UAA's convention.
	if err != nil || strings.HasSuffix(c.ID, "-r") {
		return nil, errWrong
	}
	return &c, nil
}

func (s *Service) ownBearer(ctx context.Context, token string) (*verifiedCredential, error) {
	c, err := s.claims(ctx, token)
	if err != nil {
		return nil, err
	}
	guid, program := c.UserID, false
	if guid == "" {
		guid, program = c.ClientID, true
	}
	a, err := s.accounts.ByGUID(ctx, guid)
	if fault.Is(err, fault.NotFound) {
		return nil, errWrong
	}
	if err != nil {
		return nil, err
	}
	if !a.Active || a.IdentityCreatedAt.IsZero() || a.Program != program || epochBinding(a) != c.Epoch {
		return nil, errWrong
	}
	return &verifiedCredential{account: a, scopes: c.Scope, expires: c.ExpiresAt.Time, binding: epochBinding, bound: c.Epoch},
		nil
}
