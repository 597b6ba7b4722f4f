package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"time"
)

// collectLess lets the heap grow to five times what is in use before it is collected, unless GOGC says otherwise. Little
// is in use: a few megabytes, which Go by itself would collect twenty times a second under load.
func collectLess() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
}

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
