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

// What comes while another is answered is answered together, in parts that are not too long, each with its own answer.
func TestTogether(t *testing.T) {
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
		t.Errorf("answered together: %s", got)
	}
}

// until waits for what the group will be.
func until[Q, A any](g *Group[Q, A], is func() bool) {
	for ok := false; !ok; runtime.Gosched() {
		g.mu.Lock()
		ok = is()
		g.mu.Unlock()
	}
}

// One bad question fails alone; an error that is not its fault fails all.
func TestAlone(t *testing.T) {
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

// Who gives up does not wait, and does not take the others with it.
func TestGivenUp(t *testing.T) {
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
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := g.Do(ctx, 0, answer); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	<-begun
	wg.Go(func() {
		if a, err := g.Do(t.Context(), 7, answer); a != 7 || err != nil {
			t.Errorf("%d, %v", a, err)
		}
	})
	given := make(chan error)
	go func() {
		_, err := g.Do(ctx, 1, answer)
		given <- err
	}()
	cancel()
	if err := <-given; !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	close(release)
	wg.Wait()
}

// A panic is an error of those who were asked for together, and of nobody after them.
func TestPanic(t *testing.T) {
	g := group()
	if _, err := g.Do(t.Context(), 1, func(context.Context, []int) ([]int, error) { panic("lost") }); err == nil {
		t.Error("a panic was no error")
	}
	if a, err := g.Do(t.Context(), 2, func(_ context.Context, questions []int) ([]int, error) {
		return questions,
			nil
	}); a != 2 || err != nil {
		t.Errorf("after a panic: %d, %v", a, err)
	}
}
