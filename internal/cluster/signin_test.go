package cluster

import (
	"errors"
	"testing"
	"time"
)

// TestPace begins sign-ins at given times, each of which ends with a given failure.
func TestPace(t *testing.T) {
	t.Parallel()
	failure := errors.New("refused")
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var p pace
	for i := range signInBurst {
		if wait, err := p.begin(start); wait != 0 || err != nil {
			t.Fatalf("%d of a burst: %s, %v", i, wait, err)
		}
		p.failure = failure
	}
	for _, tt := range []struct {
		at   time.Duration // since start
		last error         // of the sign-in before
		wait time.Duration
		err  error
	}{
		{0, failure, signInPause, nil}, // one waits for its turn
		{0, failure, 0, failure},
		{signInPause - 1, failure, 0, failure},
		{signInPause, failure, signInPause, nil},
		{signInPause, failure, 0, failure},
		{3 * signInPause, failure, 0, nil},
		{3 * signInPause, failure, signInPause, nil},
		{3 * signInPause, failure, 0, failure},
		{3 * signInPause, nil, 2 * signInPause, nil}, // without a failure they wait in line
		{3 * signInPause, nil, 3 * signInPause, nil},
		{3 * signInPause, failure, 0, failure},
		{7 * signInPause, failure, 0, nil},
		{time.Hour, failure, 0, nil},
	} {
		p.failure = tt.last
		if wait, err := p.begin(start.Add(tt.at)); wait != tt.wait || err != tt.err {
			t.Errorf("at %s, after %v: %s, %v; want %s, %v", tt.at, tt.last, wait, err, tt.wait, tt.err)
		}
	}
	for i := range signInBurst - 1 { // one has begun an hour later
		if wait, err := p.begin(start.Add(time.Hour)); wait != 0 || err != nil {
			t.Errorf("%d of a second burst: %s, %v", i, wait, err)
		}
	}
	if wait, err := p.begin(start.Add(time.Hour)); wait != signInPause || err != nil {
		t.Errorf("after a second burst: %s, %v", wait, err)
	}
	if _, err := p.begin(start.Add(time.Hour)); err != failure {
		t.Errorf("while one waits: %v", err)
	}
}
