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

// newPassword is a password to set, with the verifier that was made of it last.
type newPassword struct {
	text, verifier string
	iterations     int // of the verifier; 0: none is made yet
}

// newPassword makes the verifier of a password before the transaction that sets it, so that it is made outside of its locks.
// It has as many iterations as the last transaction of the cluster saw; as long as there was none, the transaction makes it.
func (s *Server) newPassword(ctx context.Context, text string) (*newPassword, error) {
	p := &newPassword{text: text}
	iterations := int(s.Batcher.iterations.Load())
	if iterations == 0 || iterations > scram.MaxIterations { // which the transaction refuses, if it still is so
		return p, nil
	}
	_, err := p.make(ctx, iterations)
	return p, err
}

// make returns the SCRAM verifier with a number of iterations. Verifiers are made one at a time per free core, and again
// only if the iterations are others than before.
func (p *newPassword) make(ctx context.Context, iterations int) (verifier string, err error) {
	if p.iterations == iterations {
		return p.verifier, nil
	}
	verifier, err = hash(ctx, iterations, func() (string, error) { return newVerifier(p.text, iterations) })
	if err == nil {
		p.verifier, p.iterations = verifier, iterations
	}
	return verifier, err
}

// verifier is that of a password with as many iterations as the server asks for.
func (tx *transaction) verifier(ctx context.Context, p *newPassword) (string, error) {
	return p.make(ctx, tx.iterations)
}

// verifierFor is verifier for a role that may have the password already: then it keeps the verifier that it has, and what
// was made of that, such as the file of a pooler, stays right. It takes the right to read pg_authid.
func (tx *transaction) verifierFor(ctx context.Context, u *User, p *newPassword) (string, error) {
	if tx.readsVerifiers {
		var old string
		if err := tx.QueryRow(ctx, selectVerifier, u.oid).Scan(&old); err != nil {
			return "", err
		}
		kept, err := hash(ctx, tx.iterations, func() (string, error) {
			if !scram.Fits(old, p.text, tx.iterations) {
				return "", nil
			}
			return old, nil
		})
		if err != nil || kept != "" {
			return kept, err
		}
	}
	return tx.verifier(ctx, p)
}

// selectVerifier reads the verifier of a role ($1), "" if it has none or one that is too long to be one of ours.
const selectVerifier = `
	SELECT coalesce((SELECT rolpassword FROM pg_authid WHERE oid = $1 AND octet_length(rolpassword) <= 256), '')`

// hash runs f, which takes a number of iterations, when there is a slot for it.
func hash(ctx context.Context, iterations int, f func() (string, error)) (string, error) {
	slots := hashing
	if iterations > manyIterations {
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
