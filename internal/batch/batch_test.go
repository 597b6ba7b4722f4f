package batch

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"
)

var errOdd = errors.New("odd")

func group() *Group[int, int] {
	return &Group[int, int]{Parallel: 1, Longest: 4, Timeout: time.Minute,
		SplitOn: func(err error) bool { return errors.Is(err, errOdd) }}
}

// Questions that are asked while another is answered are answered in batches of at most Longest, each with its own answer.
func TestBatches(t *testing.T) {
	g := group()
	first, release := make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	var lengths []int
	double := func(_ context.Context, questions []int) ([]int, error) {
		mu.Lock()
		lengths = append(lengths, len(questions))
		mu.Unlock()
		var answers []int
		for _, q := range questions {
			if q == 0 {
				close(first)
				<-release
			}
			answers = append(answers, 2*q)
		}
		return answers, nil
	}
	var wg sync.WaitGroup
	ask := func(q int) {
		wg.Go(func() {
			if a, err := g.Do(t.Context(), q, double); a != 2*q || err != nil {
				t.Errorf("%d: %d, %v", q, a, err)
			}
		})
	}
	ask(0)
	<-first
	for q := range 10 {
		ask(q + 1)
	}
	until(g, func() bool { return len(g.waiting) == 10 })
	close(release)
	wg.Wait()
	until(g, func() bool { return g.running == 0 && g.waiting == nil })
	if got := fmt.Sprint(lengths); got != "[1 4 4 2]" {
		t.Errorf("answered in batches of %s", got)
	}
}

// until waits for a state of the group.
func until[Q, A any](g *Group[Q, A], is func() bool) {
	for ok := false; !ok; runtime.Gosched() {
		g.mu.Lock()
		ok = is()
		g.mu.Unlock()
	}
}

// An error that SplitOn reports fails only the question that caused it; any other fails all questions of the batch.
func TestSplitOn(t *testing.T) {
	for _, failure := range []error{errOdd, errors.New("away")} {
		g := group()
		first, release := make(chan struct{}), make(chan struct{})
		answer := func(_ context.Context, questions []int) ([]int, error) {
			if questions[0] == 0 {
				close(first)
				<-release
			}
			for _, q := range questions {
				if q%2 == 1 {
					return nil, failure
				}
			}
			return questions, nil
		}
		var wg sync.WaitGroup
		ask := func(q int) {
			wg.Go(func() {
				_, err := g.Do(t.Context(), q, answer)
				if want := q > 0 && (q%2 == 1 || failure != errOdd); (err != nil) != want {
					t.Errorf("%v: %d: %v", failure, q, err)
				}
			})
		}
		ask(0)
		<-first
		for q := range 4 {
			ask(q + 1)
		}
		until(g, func() bool { return len(g.waiting) == 4 })
		close(release)
		wg.Wait()
	}
}

// A caller whose context ends does not wait, also the one whose call began the batch. The others get their answers.
func TestCallerGivesUp(t *testing.T) {
	g := group()
	ctx, cancel := context.WithCancel(t.Context())
	begun, release := make(chan struct{}), make(chan struct{})
	answer := func(ctx context.Context, questions []int) ([]int, error) {
		if questions[0] == 0 {
			close(begun)
			<-release
		}
		return questions, ctx.Err()
	}
	givenUp := make(chan error)
	giveUp := func(question int) {
		_, err := g.Do(ctx, question, answer)
		givenUp <- err
	}
	go giveUp(0)
	<-begun
	var wg sync.WaitGroup
	wg.Go(func() {
		if a, err := g.Do(t.Context(), 7, answer); a != 7 || err != nil {
			t.Errorf("%d, %v", a, err)
		}
	})
	go giveUp(1)
	until(g, func() bool { return len(g.waiting) == 2 })
	cancel()
	for range 2 {
		if err := <-givenUp; !errors.Is(err, context.Canceled) {
			t.Errorf("given up: %v", err)
		}
	}
	close(release)
	wg.Wait()
}

// An answer that is there is returned although the caller's context has ended.
func TestAnswerBeforeError(t *testing.T) {
	for range 100 { // select picks one of two at random
		ctx, cancel := context.WithCancel(t.Context())
		c := &call[int, int]{answer: 7, done: make(chan struct{})}
		close(c.done)
		cancel()
		if a, err := c.wait(ctx); a != 7 || err != nil {
			t.Fatalf("%d, %v ", a, err)
		}
	}
}

// The context of a batch has the values of one of its callers, and not those of an earlier batch: contexts do not pile up
// while the group has no pause.
func TestContextOfBatch(t *testing.T) {
	type key struct{}
	g := group()
	g.Longest = 1
	begun, release := make(chan struct{}), make(chan struct{})
	answer := func(ctx context.Context, questions []int) ([]int, error) {
		if questions[0] == 0 {
			close(begun)
			<-release
		}
		if value := ctx.Value(key{}); value != questions[0] {
			t.Errorf("question %d is answered in the context of %v", questions[0], value)
		}
		return questions, nil
	}
	var wg sync.WaitGroup
	ask := func(question int) {
		wg.Go(func() {
			if _, err := g.Do(context.WithValue(t.Context(), key{}, question), question, answer); err != nil {
				t.Error(err)
			}
		})
	}
	ask(0)
	<-begun
	for i := range 5 {
		ask(i + 1)
	}
	until(g, func() bool { return len(g.waiting) == 5 })
	close(release)
	wg.Wait()
}

// A panic is an error of all callers of the batch, and of no later one.
func TestPanic(t *testing.T) {
	g := group()
	if _, err := g.Do(t.Context(), 1, func(context.Context, []int) ([]int, error) { panic("lost") }); err == nil {
		t.Error("a panic was no error")
	}
	same := func(_ context.Context, questions []int) ([]int, error) { return questions, nil }
	if a, err := g.Do(t.Context(), 2, same); a != 2 || err != nil {
		t.Errorf("after a panic: %d, %v", a, err)
	}
}
