package pgrole

import (
	"context"
	"errors"
	"testing"
	"time"

	"rolecall/internal/scram"
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

// A verifier is made ahead with the iterations that the last transaction saw, and made again if this one sees others.
func TestVerifierAhead(t *testing.T) {
	s := &Server{Batcher: NewBatcher(time.Second)}
	for _, tt := range []struct {
		last, now int
		kept      bool
	}{{0, 4096, false}, {4096, 4096, true}, {4096, 5000, false}, {scram.MaxIterations + 1, 4096, false}} {
		s.Batcher.iterations.Store(int64(tt.last))
		p, err := s.newPassword(t.Context(), "secret")
		if err != nil {
			t.Fatal(err)
		}
		ahead := p.verifier
		tx := &transaction{iterations: tt.now}
		got, err := tx.verifier(t.Context(), p)
		if err != nil || !scram.Fits(got, "secret", tt.now) || (got == ahead) != tt.kept {
			t.Errorf("last %d, now %d: ahead %q, then %q, %v", tt.last, tt.now, ahead, got, err)
		}
		if again, err := tx.verifier(t.Context(), p); err != nil || again != got {
			t.Errorf("last %d, now %d: another try makes another verifier, %v", tt.last, tt.now, err)
		}
	}
}
