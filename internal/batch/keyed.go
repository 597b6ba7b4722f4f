package batch

import (
	"context"
	"sync"
	"time"
)

// Keyed answers a question once for all concurrent callers that ask it. All exported fields are required, except Slow.
type Keyed[Q comparable, A any] struct {
	// Parallel is how many answers to one question are made at the same time.
	Parallel int
	// Slow is how long an answer is waited for before the next one to the same question begins beside it.
	Slow time.Duration
	// Timeout bounds an answer. Each caller has a deadline of its own.
	Timeout time.Duration

	mu     sync.Mutex
	groups map[Q]*keyed[A]
}

type keyed[A any] struct {
	Group[struct{}, A]
	unanswered int // calls
}

// Do returns the answer to a question, or ctx's error as soon as ctx ends. Callers share the answer and must not change it.
// answer begins after Do was called, so it sees what was true then. It does not end with ctx.
func (k *Keyed[Q, A]) Do(ctx context.Context, question Q, answer func(ctx context.Context) (A, error)) (A, error) {
	k.mu.Lock()
	g := k.groups[question]
	if g == nil {
		g = &keyed[A]{}
		g.Parallel, g.Slow, g.Longest, g.Timeout = k.Parallel, k.Slow, 1<<20, k.Timeout
		if k.groups == nil {
			k.groups = map[Q]*keyed[A]{}
		}
		k.groups[question] = g
	}
	g.unanswered++
	k.mu.Unlock()
	return g.Do(ctx, struct{}{}, func(ctx context.Context, all []struct{}) ([]A, error) {
		defer k.answered(question, g, len(all))
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

// answered removes a question when no call of it is left. Callers that have given up count until they are answered, so that
// Parallel bounds what comes after them.
func (k *Keyed[Q, A]) answered(question Q, g *keyed[A], calls int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if g.unanswered -= calls; g.unanswered == 0 {
		delete(k.groups, question)
	}
}
