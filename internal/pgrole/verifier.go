package pgrole

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"

	"rolecall/internal/fault"
)

// NewVerifier returns the SCRAM-SHA-256 verifier (RFC 5802, RFC 7677) of password with a new random salt, in the
// form in which PostgreSQL stores it and takes it in place of a clear password:
//
//	SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>
//
// The last three are base64; the whole is ASCII without quotes or backslashes. Whatever password looks like, a verifier
// or an md5 hash, it is hashed.
//
// libpq logs in with password, typed in UTF-8, exactly when it would if PostgreSQL had made the verifier. Some other
// clients prepare a password beyond ASCII in their own way, and fail with both verifiers alike: see Portable.
//
// iterations is 1 to 10 million. RFC 7677 asks for 4096 at least, PostgreSQL's default. The time taken is proportional:
// 4096 cost about 0.6 ms here, the same work again in PostgreSQL when it stores the verifier, and again in the client at
// each login. PostgreSQL can be set to more than is allowed here, which nothing could interrupt, and pgx would not do.
//
// The empty password is an error: PostgreSQL takes its verifier without an error, and removes the role's password.
// No error contains password.
func NewVerifier(password string, iterations int) (string, error) {
	if password == "" {
		return "", errors.New("make a SCRAM verifier: the password is empty")
	}
	if iterations < 1 || iterations > maxIterations {
		return "", fault.New(fault.Forbidden, "The cluster wants a SCRAM verifier of %d iterations (scram_iterations), and Rolecall makes none of more than %d.", iterations, maxIterations)
	}
	salt := make([]byte, 16) // as long as PostgreSQL's
	rand.Read(salt)          // never fails
	return verifierWithSalt(password, salt, iterations)
}

const maxIterations = 10_000_000

// Verifiers are made a few at a time, so that a core is left for reads. Those of more than manyIterations, which take
// longer than a request without them, wait for each other only.
var (
	hashing     = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1))
	longHashing = make(chan struct{}, 1)
)

const manyIterations = 65_536

// verifier is NewVerifier for the server that the transaction is in, when its turn has come.
func (tx *transaction) verifier(ctx context.Context, password string) (string, error) {
	turns := hashing
	if tx.iterations > manyIterations {
		turns = longHashing
	}
	select {
	case turns <- struct{}{}:
		defer func() { <-turns }()
		return NewVerifier(password, tx.iterations)
	case <-ctx.Done():
		return "", ctx.Err()
	}
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
