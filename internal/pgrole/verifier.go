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
	slots := hashing
	if tx.iterations > manyIterations {
		slots = longHashing
	}
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
		return newVerifier(password, tx.iterations)
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
