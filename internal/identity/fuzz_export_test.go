package identity

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
)

// SignBytes signs anything with the key that signs now (RS256), and returns the key's id with it.
func (s *Service) SignBytes(ctx context.Context, data string) (kid string, signature []byte, err error) {
	key, err := s.signingKey(ctx)
	if err != nil {
		return "", nil, err
	}
	sum := sha256.Sum256([]byte(data))
	signature, err = rsa.SignPKCS1v15(nil, key.private, crypto.SHA256, sum[:])
	return key.kid, signature, err
}
