package server

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	gometrics "runtime/metrics"
	"time"
)

// garbage is how much garbage may gather before it is collected, unless GOGC says otherwise. The live heap is a few
// megabytes: Go by default would collect it twenty times a second under load. A larger one may double, as by default.
const garbage = 16 << 20

// idleHeap is how much unused heap a server may keep.
const idleHeap = 12 << 20

// tendMemory sets how often garbage is collected, and returns unused memory to the system, until ctx ends. Each sign-in with
// a password needs 19 MiB for a moment (argon2id), and Go by default would keep the memory of a few of them for minutes.
func tendMemory(ctx context.Context) {
	ticker := time.NewTicker(5 * time.Second)
	defer ticker.Stop()
	fixed := os.Getenv("GOGC") != ""
	for allowed := uint64(idleHeap); ; {
		if !fixed {
			debug.SetGCPercent(growth(live()))
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if held() > allowed {
			debug.FreeOSMemory()
			// What remains is in use. Without a higher limit it would be collected every time.
			allowed = max(idleHeap, 2*held())
		}
	}
}

// growth is by how many percent a heap with this many live bytes may grow. Before the first collection none are known, and
// Go lets the heap grow to 4 MB times this.
func growth(live uint64) int { return int(100 * max(live, garbage) / max(live, garbage/4)) }

// live is how many bytes of the heap were in use when it was last collected.
func live() uint64 {
	sample := []gometrics.Sample{{Name: "/gc/heap/live:bytes"}}
	gometrics.Read(sample)
	return sample[0].Value.Uint64()
}

func held() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapSys - m.HeapReleased
}
