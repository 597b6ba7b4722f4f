package pgrole

import (
	"context"
	"runtime"

	"rolecall/internal/fault"
	"rolecall/internal/scram"
)

// Verifiers are made a few at a time, so that a core is left for reads. Those of more than manyIterations, which take
// longer than a request without them, wait for each other only.
var (
	hashing     = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1))
	longHashing = make(chan struct{}, 1)
)

const manyIterations = 65_536

// verifier makes the SCRAM verifier of a password with as many iterations as the server asks for, limited to one at a time
// per free core.
func (tx *transaction) verifier(ctx context.Context, password string) (string, error) {
	return tx.hash(ctx, func() (string, error) { return newVerifier(password, tx.iterations) })
}

// verifierFor is verifier for a role that may have the password already: then it keeps the verifier that it has, and what
// was made of that, such as the file of a pooler, stays right. It takes the right to read pg_authid.
func (tx *transaction) verifierFor(ctx context.Context, u *User, password string) (string, error) {
	if tx.readsVerifiers {
		var old string
		if err := tx.QueryRow(ctx, selectVerifier, u.oid).Scan(&old); err != nil {
			return "", err
		}
		kept, err := tx.hash(ctx, func() (string, error) {
			if !scram.Fits(old, password, tx.iterations) {
				return "", nil
			}
			return old, nil
		})
		if err != nil || kept != "" {
			return kept, err
		}
	}
	return tx.verifier(ctx, password)
}

// selectVerifier reads the verifier of a role ($1), "" if it has none or one that is too long to be one of ours.
const selectVerifier = `
	SELECT coalesce((SELECT rolpassword FROM pg_authid WHERE oid = $1 AND octet_length(rolpassword) <= 256), '')`

// hash runs f when there is a slot for it.
func (tx *transaction) hash(ctx context.Context, f func() (string, error)) (string, error) {
	slots := hashing
	if tx.iterations > manyIterations {
		slots = longHashing
	}
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
		return f()
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// newVerifier refuses more iterations than Rolecall makes.
func newVerifier(password string, iterations int) (string, error) {
	if iterations > scram.MaxIterations {
		return "", fault.New(fault.Forbidden, "The cluster asks for a SCRAM verifier of %d iterations (scram_iterations); "+
			"Rolecall makes none of more than %d.", iterations, scram.MaxIterations)
	}
	return scram.NewVerifier(password, iterations)
}
