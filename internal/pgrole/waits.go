package pgrole

import (
	"cmp"
	"time"
)

// Waits bounds what a Server waits for. A zero field means the default, which is for production; tests that wait a limit out
// shorten it.
type Waits struct {
	Acquire   time.Duration // for a connection; of several hosts one or two may hang. Default: 6 s
	Failover  time.Duration // for a new primary, well within the deadline of a request. Default: 5 s
	Statement time.Duration // for one statement that reassigns or revokes in a database. Default: 45 s
	Lock      time.Duration // for one lock there, in several tries. Default: 20 s
	LockTry   time.Duration // for one try: who comes after it waits as long. Default: 1 s
	// Holders is for locks that others hold before a deletion begins, and for a DROP DATABASE. Negative: it begins all the
	// same. Default: 5 s
	Holders time.Duration
}

func (w Waits) acquire() time.Duration   { return cmp.Or(w.Acquire, 6*time.Second) }
func (w Waits) failover() time.Duration  { return cmp.Or(w.Failover, 5*time.Second) }
func (w Waits) statement() time.Duration { return cmp.Or(w.Statement, 45*time.Second) }
func (w Waits) lock() time.Duration      { return cmp.Or(w.Lock, 20*time.Second) }
func (w Waits) lockTry() time.Duration   { return cmp.Or(w.LockTry, time.Second) }
func (w Waits) holders() time.Duration   { return cmp.Or(w.Holders, 5*time.Second) }
