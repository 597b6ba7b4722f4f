package identity

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A known account waits for no more strangers than are at work already, however many there are.
func TestKnownAccountsGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHasher(PasswordCost{})
		work, done := make(chan struct{}), make(chan string, 2*hashQueue)
		enter := func(name string, q *queue) {
			leave, err := q.join()
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			defer leave()
			if err := q.wait(t.Context(), func() error { <-work; done <- name; return nil }); err != nil {
				done <- "refused: " + err.Error()
			}
		}
		for range hashQueue {
			go enter("stranger", h.strangers)
		}
		synctest.Wait()
		if _, err := h.strangers.join(); !errors.Is(err, errCrowded) {
			t.Errorf("one stranger too many: %v", err)
		}
		go enter("known", h.known)
		synctest.Wait()
		atOnce, before := cap(h.known.gates[0]), 0
		for ; ; before++ {
			work <- struct{}{}
			if <-done == "known" {
				break
			}
			if before == atOnce {
				t.Fatalf("a known account waited for more than %d strangers", before)
			}
			synctest.Wait()
		}
		// Nobody waits for longer than the maximum.
		began := time.Now()
		for range hashQueue - before - atOnce {
			if got := <-done; got == "stranger" || time.Since(began) != maxHashWait {
				t.Fatalf("%s after %s", got, time.Since(began))
			}
		}
		close(work)
	})
}
