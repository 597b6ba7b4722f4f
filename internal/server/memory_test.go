package server

import "testing"

// A small heap may grow to five times its size and by 16 MiB, a large one may double.
func TestGrowth(t *testing.T) {
	t.Parallel()
	for live, want := range map[uint64]int{0: 400, 1 << 20: 400, 4 << 20: 400, 8 << 20: 200, 16 << 20: 100, 1 << 40: 100} {
		if got := growth(live); got != want {
			t.Errorf("a heap with %d live bytes may grow by %d %%, want %d", live, got, want)
		}
	}
}
