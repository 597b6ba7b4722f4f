package pgtest

import (
	"os"
	"strconv"
	"testing"
	"time"
)

// Full reports whether tests try every case, however long that takes. "make test-majors" sets ROLECALL_TEST_FULL for it.
func Full() bool { return os.Getenv("ROLECALL_TEST_FULL") != "" }

// SoakTime is the duration of a test that can run for any time: short, or SOAK_SECONDS, which "make soak" sets.
func SoakTime(t testing.TB, short time.Duration) time.Duration {
	t.Helper()
	text := os.Getenv("SOAK_SECONDS")
	if text == "" {
		return short
	}
	seconds, err := strconv.Atoi(text)
	if err != nil || seconds < 1 {
		t.Fatalf("SOAK_SECONDS is %q; it is a number of seconds", text)
	}
	return time.Duration(seconds) * time.Second
}
