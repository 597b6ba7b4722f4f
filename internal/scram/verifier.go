// Package scram makes SCRAM-SHA-256 verifiers of passwords, as PostgreSQL makes and stores them. It knows nothing of SQL.
package scram

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// DefaultIterations is what PostgreSQL uses before version 16, where there is no setting.
const DefaultIterations = 4096

// MaxIterations is how many iterations a verifier made here has at most. PostgreSQL can be set to more, which nothing could
// interrupt.
const MaxIterations = 10_000_000

// NewVerifier returns the SCRAM-SHA-256 verifier (RFC 5802, RFC 7677) of password with a new random salt, in the form in
// which PostgreSQL stores it and accepts it in place of a clear password:
//
//	SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>
//
// The last three are base64; the whole is ASCII without quotes or backslashes. A password that looks like a verifier or an
// md5 hash is hashed like any other.
//
// libpq logs in with password, typed in UTF-8, exactly when it would if PostgreSQL had made the verifier. Some other
// clients prepare a password beyond ASCII in their own way, and fail with both verifiers alike: see Portable.
//
// iterations is 1 to MaxIterations. RFC 7677 asks for 4096 at least, PostgreSQL's default. The time taken is proportional:
// 4096 cost about 0.6 ms here, the same work again in PostgreSQL when it stores the verifier, and again in the client at
// each login.
//
// The empty password is an error: PostgreSQL accepts its verifier, and then removes the role's password. So is one that
// Check refuses. No error contains password.
func NewVerifier(password string, iterations int) (string, error) {
	if password == "" {
		return "", errors.New("make a SCRAM verifier: the password is empty")
	}
	if iterations < 1 || iterations > MaxIterations {
		return "", fmt.Errorf("make a SCRAM verifier of %d iterations: the maximum is %d", iterations, MaxIterations)
	}
	if err := Check(password); err != nil {
		return "", err
	}
	salt := make([]byte, 16) // as long as PostgreSQL's
	rand.Read(salt)          // never fails
	return verifierWithSalt(password, salt, iterations)
}

// Fits reports whether a verifier is one of the password and has this number of iterations. If it has, that takes as long as
// NewVerifier.
func Fits(verifier, password string, iterations int) bool {
	rest, ok := strings.CutPrefix(verifier, fmt.Sprintf("SCRAM-SHA-256$%d:", iterations))
	encoded, _, keys := strings.Cut(rest, "$")
	if !ok || !keys || password == "" || iterations < 1 || iterations > MaxIterations || Check(password) != nil {
		return false
	}
	salt, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return false
	}
	made, err := verifierWithSalt(password, salt, iterations)
	return err == nil && hmac.Equal([]byte(made), []byte(verifier))
}

func verifierWithSalt(password string, salt []byte, iterations int) (string, error) {
	salted, err := pbkdf2.Key(sha256.New, saslprep(password), salt, iterations, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("make a SCRAM verifier: %w", err) // the standard library's texts hold no password
	}
	stored := sha256.Sum256(hmacSHA256(salted, "Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s",
		iterations, b64(salt), b64(stored[:]), b64(hmacSHA256(salted, "Server Key"))), nil
}

func hmacSHA256(key []byte, message string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(message))
	return h.Sum(nil)
}
