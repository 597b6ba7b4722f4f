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

// Slow is a usual value of Group.Slow: longer than a query for a few rows, or a commit, takes on a server that is near.
const Slow = 5 * time.Millisecond

// Group answers questions; those asked while others are being answered are answered in one batch. No question waits for a
// batch to fill: the first is answered at once. All exported fields are required, except Slow and SplitOn.
type Group[Q, A any] struct {
	// Parallel is how many batches are answered at the same time, each with up to Longest questions.
	Parallel, Longest int
	// Slow is how long a batch is waited for before the next one begins beside it. One batch of eight costs less than two of
	// four, but a batch that takes its time must not hold up all that come after it. Zero: the next one begins at once.
	Slow time.Duration
	// Timeout bounds the answer to one batch. Each caller has a deadline of its own.
	Timeout time.Duration
	// SplitOn reports an error that a single question causes: then each question of the batch is answered by itself. Nil: no
	// question causes one.
	SplitOn func(error) bool

	mu      sync.Mutex
	waiting []*call[Q, A]
	running int // lanes, each of which answers one batch after the other
	// last is the lane whose batch began last, nil once that is answered. The batches of all other lanes are slow.
	last  *lane
	timed bool // open is called again when the last batch has become slow
}

// lane is where batches are answered, one after the other.
type lane struct{ began time.Time }

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
	g.open()
	g.mu.Unlock()
	return c.wait(ctx)
}

// open begins a lane for the questions that wait: now, or when the last batch has become slow. It is called after each
// change of what it depends on.
func (g *Group[Q, A]) open() {
	if len(g.waiting) == 0 || g.running >= g.Parallel {
		return
	}
	left := g.untilSlow()
	switch {
	case left <= 0:
		g.last = &lane{began: time.Now()}
		g.running++
		go g.run(g.last)
	case !g.timed:
		g.timed = true
		time.AfterFunc(left, g.reopen)
	}
}

func (g *Group[Q, A]) reopen() {
	g.mu.Lock()
	g.timed = false
	g.open()
	g.mu.Unlock()
}

// untilSlow is how long it takes until the last batch is slow.
func (g *Group[Q, A]) untilSlow() time.Duration {
	if g.last == nil {
		return 0
	}
	return g.Slow - time.Since(g.last.began)
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

// run answers one batch after the other.
func (g *Group[Q, A]) run(l *lane) {
	for calls := g.next(l); len(calls) > 0; calls = g.next(l) {
		ctx, cancel := context.WithTimeout(calls[0].values, g.Timeout)
		g.settle(ctx, calls)
		cancel()
	}
}

// next takes the questions that wait, as many as one batch may have. If there are none, or another lane has a batch that is
// not slow, the lane ends.
func (g *Group[Q, A]) next(l *lane) (calls []*call[Q, A]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.last == l {
		g.last = nil
	}
	if len(g.waiting) > 0 && g.untilSlow() <= 0 {
		n := min(len(g.waiting), g.Longest)
		calls = g.waiting[:n:n]
		if g.waiting = g.waiting[n:]; len(g.waiting) == 0 {
			g.waiting = nil // which frees the array of past calls
		}
		l.began, g.last = time.Now(), l
	} else {
		g.running--
	}
	g.open()
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
	if err != nil && len(calls) > 1 && g.SplitOn != nil && g.SplitOn(err) {
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
