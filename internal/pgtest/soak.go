package pgtest

import (
	"os"
	"strconv"
	"testing"
	"time"
)

// Full reports whether tests leave nothing out that takes long: ROLECALL_TEST_FULL is set, as "make test-majors" does.
func Full() bool { return os.Getenv("ROLECALL_TEST_FULL") != "" }

// SoakTime is how long a test goes on that can go on for any time: short, unless SOAK_SECONDS says more, as make soak has
// it.
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
