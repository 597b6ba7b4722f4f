package server

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"time"
)

// collectLess lets the heap grow to five times its live size before it is collected, unless GOGC says otherwise. The live
// heap is a few megabytes, which Go by default would collect twenty times a second under load.
func collectLess() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
}

// idleHeap is how much unused heap a server may keep.
const idleHeap = 12 << 20

// returnMemory returns unused memory to the system until ctx ends. Each sign-in with a password needs 19 MiB for a moment
// (argon2id), and Go by default would keep the memory of a few of them for minutes.
func returnMemory(ctx context.Context) {
	ticker := time.NewTicker(5 * time.Second)
	defer ticker.Stop()
	for allowed := uint64(idleHeap); ; {
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

func held() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapSys - m.HeapReleased
}
