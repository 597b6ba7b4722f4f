package batch

import (
	"context"
	"sync"
	"time"
)

// Keyed answers the same question of several callers once. The zero value is not ready; all exported fields are needed.
type Keyed[Q comparable, A any] struct {
	// Parallel is how many answers to one question are made at the same time.
	Parallel int
	// Timeout ends an answer. Who asks has a deadline of its own.
	Timeout time.Duration

	mu     sync.Mutex
	groups map[Q]*keyed[A]
}

type keyed[A any] struct {
	Group[struct{}, A]
	asking int
}

// Do returns the answer to a question, which others may have as well and so must not change, or the context's error.
// answer begins after Do was called, so it sees what was true then, and it goes on when ctx ends.
func (k *Keyed[Q, A]) Do(ctx context.Context, question Q, answer func(ctx context.Context) (A, error)) (A, error) {
	k.mu.Lock()
	g := k.groups[question]
	if g == nil {
		g = &keyed[A]{}
		g.Parallel, g.Longest, g.Timeout, g.SplitOn = k.Parallel, 1<<20, k.Timeout, func(error) bool { return false }
		if k.groups == nil {
			k.groups = map[Q]*keyed[A]{}
		}
		k.groups[question] = g
	}
	g.asking++
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if g.asking--; g.asking == 0 {
			delete(k.groups, question)
		}
	}()
	return g.Do(ctx, struct{}{}, func(ctx context.Context, all []struct{}) ([]A, error) {
		a, err := answer(ctx)
		if err != nil {
			return nil, err
		}
		answers := make([]A, len(all))
		for i := range answers {
			answers[i] = a
		}
		return answers, nil
	})
}
