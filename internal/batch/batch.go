// Package batch lets calls that come at the same time share the work of one: a query that reads eight rows costs a
// database little more than one that reads a single row, and a commit of eight rows no more than a commit of one.
package batch

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// Group answers questions, those together that come while others are being answered. No question waits for company:
// the first is asked at once. The zero value is not ready; all exported fields are needed.
type Group[Q, A any] struct {
	// Parallel is how many are answered at the same time, each with up to Longest questions.
	Parallel, Longest int
	// Timeout ends an answer. Who asks has a deadline of its own.
	Timeout time.Duration
	// SplitOn reports an error that is the fault of a single question: then each is asked again by itself.
	SplitOn func(error) bool

	mu      sync.Mutex
	waiting []*call[Q, A]
	running int
}

type call[Q, A any] struct {
	question Q
	answer   A
	err      error
	done     chan struct{}
}

// Do returns the answer to a question, or the context's error. answer must return as many answers as there are
// questions, in their order, or an error; it is called with questions of others too, and all calls on a group must give
// one that does the same. It begins after Do was called, so it sees what was true then, and it goes on when ctx ends,
// because others wait for it.
func (g *Group[Q, A]) Do(ctx context.Context, question Q,
	answer func(ctx context.Context, questions []Q) ([]A, error)) (A, error) {
	c := &call[Q, A]{question: question, done: make(chan struct{})}
	g.mu.Lock()
	g.waiting = append(g.waiting, c)
	lead := g.running < g.Parallel
	if lead {
		g.running++
	}
	g.mu.Unlock()
	if lead {
		g.lead(ctx, answer)
	}
	select {
	case <-c.done:
		return c.answer, c.err
	case <-ctx.Done():
		var none A
		return none, ctx.Err()
	}
}

// lead answers the first of those that wait, and leaves the rest to a goroutine: its caller is not to wait for others.
func (g *Group[Q, A]) lead(ctx context.Context, answer func(context.Context, []Q) ([]A, error)) {
	g.mu.Lock()
	n := min(len(g.waiting), g.Longest)
	calls := g.waiting[:n:n]
	g.waiting = g.waiting[n:]
	g.mu.Unlock()

	if n > 0 {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.Timeout)
		g.settle(ctx, calls, answer)
		cancel()
	}

	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting) == 0 {
		g.waiting = nil
		g.running--
		return
	}
	go g.lead(context.WithoutCancel(ctx), answer)
}

// guarded makes an error of a panic, which would leave all who wait, now and later, without an answer.
func guarded[Q, A any](ctx context.Context, questions []Q,
	answer func(context.Context, []Q) ([]A, error)) (answers []A, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return answer(ctx, questions)
}

func (g *Group[Q, A]) settle(ctx context.Context, calls []*call[Q, A], answer func(context.Context, []Q) ([]A, error)) {
	questions := make([]Q, len(calls))
	for i, c := range calls {
		questions[i] = c.question
	}
	answers, err := guarded(ctx, questions, answer)
	if err != nil && len(calls) > 1 && g.SplitOn(err) {
		for i := range calls {
			g.settle(ctx, calls[i:i+1], answer)
		}
		return
	}
	for i, c := range calls {
		if c.err = err; err == nil {
			c.answer = answers[i]
		}
		close(c.done)
	}
}
