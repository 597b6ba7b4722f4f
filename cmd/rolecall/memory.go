package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"time"
)

// idleHeap is the heap that a server may keep without anybody asking.
const idleHeap = 12 << 20

// giveBack returns memory to the system until ctx ends. Each sign-in with a password takes 19 MiB for a moment
// (argon2id), and Go by itself would hold what a few of them took for minutes.
func giveBack(ctx context.Context) {
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
			// What is still there is in use, and must not be collected over and over.
			allowed = max(idleHeap, 2*held())
		}
	}
}

func held() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapSys - m.HeapReleased
}
