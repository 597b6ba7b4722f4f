package pgrole

import (
	"context"
	"errors"
	"testing"
	"time"
)

// A change that waits to make a verifier gives up at its deadline, and costly verifiers do not delay others.
func TestVerifierSlots(t *testing.T) {
	usual, costly := &transaction{iterations: 4096}, &transaction{iterations: manyIterations + 1}
	for _, tt := range []struct {
		slots         chan struct{}
		waits, passes *transaction
	}{{hashing, usual, costly}, {longHashing, costly, usual}} {
		for range cap(tt.slots) {
			tt.slots <- struct{}{}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if _, err := tt.waits.verifier(ctx, &newPassword{text: "secret"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%d iterations: %v, want to wait", tt.waits.iterations, err)
		}
		cancel()
		if _, err := tt.passes.verifier(t.Context(), &newPassword{text: "secret"}); err != nil {
			t.Errorf("%d iterations: %v", tt.passes.iterations, err)
		}
		for range cap(tt.slots) {
			<-tt.slots
		}
		if _, err := tt.waits.verifier(t.Context(), &newPassword{text: "secret"}); err != nil {
			t.Errorf("%d iterations afterwards: %v", tt.waits.iterations, err)
		}
	}
}
