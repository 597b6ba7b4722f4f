package identity

import (
	"context"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// SetClock makes the service live at another time.
func (s *Service) SetClock(now func() time.Time) { s.now = now }

// Maintain is one round of Run.
func (s *Service) Maintain(ctx context.Context) error { return s.maintain(ctx) }

// Sign signs any claims with the key that signs now.
func (s *Service) Sign(ctx context.Context, c jwt.Claims) (string, error) {
	key, err := s.signingKey(ctx)
	if err != nil {
		return "", err
	}
	t := jwt.NewWithClaims(jwt.SigningMethodRS256, c)
	t.Header["kid"] = key.kid
	return t.SignedString(key.private)
}

const (
	KeyLead         = keyLead
	KeyAge          = keyAge
	LongestLifetime = longestLifetime
	RefreshLifetime = refreshLifetime
	FreshFor        = freshFor
)
