package server

import (
	"syscall"
	"time"

	"rolecall/internal/web"
)

// The limits that hold for everybody, signed in or not. docs/internals/reliability.md lists them together with those of
// single packages.

// How much may be in progress at once. A request that waits costs about 30 KiB, an idle connection 20 KiB, and a large body
// up to 40 MiB until it is stored.
const (
	maxInFlight           = 4096
	maxInFlightPerAddress = 256
	maxInFlightPerAccount = 64
	maxLargeBodies        = 4
	largeBodyWait         = 5 * time.Second
	maxConnections        = 10_000
)

// unverifiedPerSecond is how many requests one address may send in a second without a credential that was verified lately.
// The limit of an account is Config.RateLimit.
const unverifiedPerSecond = 20

// strangerBody is how long the body of a sign-in may take. With unverifiedPerSecond it keeps slow senders at about half of
// maxInFlightPerAddress.
const strangerBody = 5 * time.Second

// drainTimeout is how long requests in progress may take to end after the server stops accepting new ones; then they are cut
// off. Together with the default of Config.DrainDelay it stays below the 30 s after which Kubernetes kills.
const drainTimeout = 20 * time.Second

// stopReserve is how long the background work may take to end after the last request, as the service manager learns.
const stopReserve = 10 * time.Second

// A probe of Kubernetes waits one second, so readiness is decided within readinessTimeout. The answer is reused for
// readinessAge: anybody may ask, and no limit applies to probes.
const (
	readinessTimeout = 500 * time.Millisecond
	readinessAge     = time.Second
)

// controlWait is how long one attempt to reach the control database may take at most, as the service manager learns.
const controlWait = time.Minute

// controlRetry is the pause between attempts to reach a control database that does not answer at the start.
const controlRetry = 2 * time.Second

func inFlight() *web.InFlight {
	return &web.InFlight{
		Total:         maxInFlight,
		PerAddress:    maxInFlightPerAddress,
		PerAccount:    maxInFlightPerAccount,
		LargeBodies:   maxLargeBodies,
		LargeBodyWait: largeBodyWait,
	}
}

// connections is how many clients may be connected: half of the files that the process may open are for everything else.
func connections() *web.Connections {
	limit := maxConnections
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err == nil { // Go has raised it to the hard limit
		limit = int(min(maxConnections, max(64, files.Cur/2)))
	}
	return &web.Connections{Max: limit}
}
