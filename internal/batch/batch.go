// Package batch lets concurrent calls share the work of one: a query that reads eight rows costs a database little more than
// one that reads a single row, and a commit of eight rows no more than a commit of one.
package batch

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// Group answers questions; those asked while others are being answered are answered in one batch. No question waits for a
// batch to fill: the first is answered at once. All exported fields are required.
type Group[Q, A any] struct {
	// Parallel is how many batches are answered at the same time, each with up to Longest questions.
	Parallel, Longest int
	// Timeout bounds the answer to one batch. Each caller has a deadline of its own.
	Timeout time.Duration
	// SplitOn reports an error that a single question causes: then each question of the batch is answered by itself.
	SplitOn func(error) bool

	mu      sync.Mutex
	waiting []*call[Q, A]
	running int
}

type call[Q, A any] struct {
	values   context.Context // of the caller, without its deadline
	question Q
	ask      func(ctx context.Context, questions []Q) ([]A, error)
	answer   A
	err      error
	done     chan struct{}
}

// Do returns the answer to a question, or ctx's error as soon as ctx ends. answer must return as many answers as there are
// questions, in their order, or an error. It is called with questions of other callers too, so all callers of a group must
// pass one that does the same: a batch uses that of its first caller, with the values of that caller's context. It begins
// after Do was called, so it sees what was true then. It does not end with ctx, because other callers wait for it.
func (g *Group[Q, A]) Do(ctx context.Context, question Q,
	answer func(ctx context.Context, questions []Q) ([]A, error)) (A, error) {
	c := &call[Q, A]{values: context.WithoutCancel(ctx), question: question, ask: answer, done: make(chan struct{})}
	g.mu.Lock()
	g.waiting = append(g.waiting, c)
	if g.running < g.Parallel {
		g.running++
		go g.run()
	}
	g.mu.Unlock()
	return c.wait(ctx)
}

// wait prefers the answer if ctx has ended, too.
func (c *call[Q, A]) wait(ctx context.Context) (A, error) {
	select {
	case <-c.done:
		return c.answer, c.err
	case <-ctx.Done():
	}
	select {
	case <-c.done:
		return c.answer, c.err
	default:
		var none A
		return none, ctx.Err()
	}
}

// run answers one batch after the other until no question waits.
func (g *Group[Q, A]) run() {
	for calls := g.next(); len(calls) > 0; calls = g.next() {
		ctx, cancel := context.WithTimeout(calls[0].values, g.Timeout)
		g.settle(ctx, calls)
		cancel()
	}
}

// next takes the questions that wait, as many as one batch may have. If there are none, one batch less is running.
func (g *Group[Q, A]) next() []*call[Q, A] {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := min(len(g.waiting), g.Longest)
	calls := g.waiting[:n:n]
	g.waiting = g.waiting[n:]
	if n == 0 {
		g.waiting = nil // which frees the array of past calls
		g.running--
	}
	return calls
}

// guarded turns a panic of answer into an error: else all current and later callers would wait for ever.
func guarded[Q, A any](ctx context.Context, questions []Q,
	answer func(context.Context, []Q) ([]A, error)) (answers []A, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return answer(ctx, questions)
}

// settle answers the calls of one batch.
func (g *Group[Q, A]) settle(ctx context.Context, calls []*call[Q, A]) {
	questions := make([]Q, len(calls))
	for i, c := range calls {
		questions[i] = c.question
	}
	answers, err := guarded(ctx, questions, calls[0].ask)
	if err == nil && len(answers) != len(calls) {
		err = fmt.Errorf("%d answers to %d questions", len(answers), len(calls))
	}
	if err != nil && len(calls) > 1 && g.SplitOn(err) {
		for i := range calls {
			g.settle(ctx, calls[i:i+1])
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
