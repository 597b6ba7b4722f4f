package pgtest

import (
	"cmp"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Full reports whether tests try every case, however long that takes. "make test-all" sets ROLECALL_TEST_FULL for it.
func Full() bool { return os.Getenv("ROLECALL_TEST_FULL") != "" }

var seed = sync.OnceValue(func() string {
	return cmp.Or(os.Getenv("ROLECALL_TEST_SEED"), strconv.Itoa(rand.IntN(1000)))
})

// Seed chooses the cases of a test that leaves some out unless Full. It is another one in each process; the test prints it,
// and ROLECALL_TEST_SEED repeats it.
func Seed(t testing.TB) int {
	t.Helper()
	n, err := strconv.Atoi(seed())
	if err != nil || n < 0 {
		t.Fatalf("ROLECALL_TEST_SEED is %q; it is a number", seed())
	}
	t.Logf("ROLECALL_TEST_SEED=%d", n)
	return n
}

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
