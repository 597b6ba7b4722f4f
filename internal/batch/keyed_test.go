package batch

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

// A caller whose question is being answered waits for the next answer, which all later callers share. Another question does
// not wait, and nothing is kept.
func TestKeyed(t *testing.T) {
	k := &Keyed[string, int]{Parallel: 1, Timeout: time.Minute}
	failed := errors.New("failed")
	begun, release := make(chan struct{}), make(chan struct{})
	calls := 0
	slow := func(context.Context) (int, error) {
		if calls++; calls == 1 {
			close(begun)
			<-release
			return 1, nil
		}
		return 0, failed
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if a, err := k.Do(t.Context(), "slow", slow); a != 1 || err != nil {
			t.Errorf("the first: %d, %v", a, err)
		}
	})
	<-begun
	const later = 10
	for range later {
		wg.Go(func() {
			if _, err := k.Do(t.Context(), "slow", slow); !errors.Is(err, failed) {
				t.Errorf("a later one: %v", err)
			}
		})
	}
	k.mu.Lock()
	g := k.groups["slow"]
	k.mu.Unlock()
	until(&g.Group, func() bool { return len(g.waiting) == later })
	if a, err := k.Do(t.Context(), "other", func(context.Context) (int, error) { return 2, nil }); a != 2 || err != nil {
		t.Errorf("another question: %d, %v", a, err)
	}
	close(release)
	wg.Wait()
	if calls != 2 || len(k.groups) != 0 {
		t.Errorf("answered %d times, %d questions are kept", calls, len(k.groups))
	}
}

// Callers that give up leave running answers behind, which go on to bound what comes after them.
func TestKeyedBoundsAbandonedAnswers(t *testing.T) {
	k := Keyed[string, int]{Parallel: 2, Timeout: time.Minute}
	release := make(chan struct{})
	var mu sync.Mutex
	running, most := 0, 0
	for range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		_, err := k.Do(ctx, "slow", func(context.Context) (int, error) {
			mu.Lock()
			running++
			most = max(most, running)
			mu.Unlock()
			<-release
			mu.Lock()
			running--
			mu.Unlock()
			return 1, nil
		})
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	}
	close(release)
	if a, err := k.Do(t.Context(), "slow", func(context.Context) (int, error) { return 2, nil }); err != nil || a == 0 {
		t.Errorf("afterwards: %d, %v", a, err)
	}
	for k.mu.Lock(); len(k.groups) > 0; k.mu.Lock() {
		k.mu.Unlock()
		time.Sleep(time.Millisecond)
	}
	k.mu.Unlock()
	mu.Lock()
	defer mu.Unlock()
	if most > k.Parallel {
		t.Errorf("%d answers ran at a time, want %d at most", most, k.Parallel)
	}
}
