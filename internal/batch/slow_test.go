package batch

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// record notes when batches begin and how many questions they have, and how many are under way at most.
type record struct {
	mu           sync.Mutex
	begin        time.Time
	batches      []string
	running, top int
}

// takes returns an answer for a group that takes a time which depends on the questions.
func (r *record) takes(duration func(questions []int) time.Duration) func(context.Context, []int) ([]int, error) {
	return func(_ context.Context, questions []int) ([]int, error) {
		r.mu.Lock()
		r.batches = append(r.batches, fmt.Sprintf("%d at %v", len(questions), time.Since(r.begin)))
		r.running++
		r.top = max(r.top, r.running)
		r.mu.Unlock()
		time.Sleep(duration(questions))
		r.mu.Lock()
		r.running--
		r.mu.Unlock()
		return questions, nil
	}
}

// idle fails the test unless nothing of the group is left.
func idle(t *testing.T, g *Group[int, int]) {
	t.Helper()
	time.Sleep(g.Slow)
	synctest.Wait()
	if g.running != 0 || g.last != nil || g.timed || len(g.waiting) != 0 {
		t.Errorf("left: %d lanes, last %v, timed %v, %d questions", g.running, g.last, g.timed, len(g.waiting))
	}
}

// asks asks a question whose answer is the question itself.
func asks(t *testing.T, g *Group[int, int], q int, answer func(context.Context, []int) ([]int, error)) {
	t.Helper()
	if a, err := g.Do(t.Context(), q, answer); a != q || err != nil {
		t.Errorf("%d: %d, %v", q, a, err)
	}
}

// A batch that is slow does not hold up the others: each time that the last one has become slow another begins, up to
// Parallel. Those that are full leave questions to the next.
func TestBesideSlowBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := group()
		g.Parallel, g.Slow = 3, 5*time.Millisecond
		r := &record{begin: time.Now()}
		answer := r.takes(func([]int) time.Duration { return time.Second })
		var wg sync.WaitGroup
		ask := func(q int) {
			wg.Go(func() {
				asks(t, g, q, answer)
			})
		}
		ask(0)
		synctest.Wait()
		for q := range 13 {
			ask(q + 1)
		}
		wg.Wait()
		if got := fmt.Sprint(r.batches); got != "[1 at 0s 4 at 5ms 4 at 10ms 4 at 1s 1 at 1.005s]" {
			t.Errorf("batches: %s", got)
		}
		idle(t, g)
	})
}

// Batches that are not slow are answered one after the other, however many lanes there may be, also beside one that is slow
// and after it.
func TestOneLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := group()
		g.Parallel, g.Slow, g.Longest = 4, 5*time.Millisecond, 100
		var slow sync.WaitGroup
		slow.Go(func() {
			_, _ = g.Do(t.Context(), 0, func(context.Context, []int) ([]int, error) {
				time.Sleep(20 * time.Millisecond)
				return nil, nil
			})
		})
		synctest.Wait()
		r := &record{begin: time.Now()}
		answer := r.takes(func([]int) time.Duration { return time.Millisecond })
		const askers, each = 8, 50
		var wg sync.WaitGroup
		for range askers {
			wg.Go(func() {
				for q := range each {
					asks(t, g, q, answer)
				}
			})
		}
		wg.Wait()
		slow.Wait()
		// Each asker waits for the end of the batch that is under way when it asks, and for that of its own.
		if n := len(r.batches); n > 2*each+1 || r.top != 1 {
			t.Errorf("%d questions in %d batches, up to %d at a time", askers*each, n, r.top)
		}
		idle(t, g)
	})
}

// Whatever the batches take, no question is left waiting, no more batches than Parallel are answered at a time, and no lane
// is left.
func TestManySlowBatches(t *testing.T) {
	g := group()
	g.Parallel, g.Slow = 3, 50*time.Microsecond
	var running, top, questions atomic.Int64
	answer := func(_ context.Context, qs []int) ([]int, error) {
		defer running.Add(-1)
		for n := running.Add(1); ; {
			if old := top.Load(); n <= old || top.CompareAndSwap(old, n) {
				break
			}
		}
		questions.Add(int64(len(qs)))
		time.Sleep(time.Duration(rand.Int64N(int64(3 * g.Slow))))
		return qs, nil
	}
	const askers, each = 40, 50
	var wg sync.WaitGroup
	for range askers {
		wg.Go(func() {
			for q := range each {
				asks(t, g, q, answer)
				time.Sleep(time.Duration(rand.Int64N(int64(g.Slow))))
			}
		})
	}
	wg.Wait()
	if n := questions.Load(); n != askers*each {
		t.Errorf("%d questions were answered, %d asked", n, askers*each)
	}
	if top := top.Load(); top != int64(g.Parallel) {
		t.Errorf("up to %d batches at a time, want %d", top, g.Parallel)
	}
	until(g, func() bool { return g.running == 0 && g.last == nil && !g.timed })
}

// An answer to a question that is slow does not hold up the next one to the same question.
func TestKeyedBesideSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &Keyed[string, int]{Parallel: 2, Slow: 5 * time.Millisecond, Timeout: time.Minute}
		begin := time.Now()
		var calls atomic.Int64
		answer := func(context.Context) (int, error) {
			call := calls.Add(1)
			if call == 1 {
				time.Sleep(time.Second)
			}
			return int(call), nil
		}
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = k.Do(t.Context(), "slow", answer) })
		synctest.Wait()
		for range 10 {
			wg.Go(func() {
				if a, err := k.Do(t.Context(), "slow", answer); a != 2 || err != nil || time.Since(begin) != k.Slow {
					t.Errorf("%d, %v, after %v", a, err, time.Since(begin))
				}
			})
		}
		wg.Wait()
		if len(k.groups) != 0 {
			t.Errorf("%d questions are kept", len(k.groups))
		}
	})
}
