package cluster

import (
	"context"
	"errors"
	"time"

	"rolecall/internal/fault"
)

// Queues bound what one cluster may take of a replica, be it slow, hung or in demand: work beyond that is refused at once,
// and the next cluster does not notice. Within a cluster they keep changes from starving reads: of the 9 connections that
// a replica has to it, changes take six, and one more drops the users that need nothing but to be dropped.
type Queues struct {
	Reads Slots  // the connections bound how many of them run at a time
	Quick *Queue // changes of roles
	Long  *Queue // changes of databases, and deletions of users, which take a turn only for the four phases
}

func newQueues() *Queues {
	return &Queues{
		Reads: make(Slots, 128),
		Quick: newQueue(4, 64, 5*time.Second),
		Long:  newQueue(2, 32, 30*time.Second),
	}
}

// Slots bound the operations of a kind that run or wait.
type Slots chan struct{}

// Enter takes a slot, or is refused at once.
func (s Slots) Enter() (leave func(), err error) {
	select {
	case s <- struct{}{}:
		return func() { <-s }, nil
	default:
		return nil, fault.New(fault.Unavailable, "The cluster is busy: %d operations of this kind are running or waiting.",
			cap(s)).After(time.Second)
	}
}

// Queue runs a few of the operations that have a slot at a time. The others wait, at most for MaxWait.
type Queue struct {
	Slots
	MaxWait time.Duration
	running chan struct{}
}

func newQueue(running, all int, maxWait time.Duration) *Queue {
	return &Queue{make(Slots, all), maxWait, make(chan struct{}, running)}
}

// Acquire waits until an operation that has a slot may run.
func (q *Queue) Acquire(ctx context.Context) (done func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, q.MaxWait)
	defer cancel()
	select {
	case q.running <- struct{}{}:
		return func() { <-q.running }, nil
	case <-ctx.Done():
		return nil, fault.New(fault.Unavailable,
			"The cluster is busy: other changes have taken all the time. Nothing was changed.").
			After(2 * time.Second).Because(ErrNoTurn)
	}
}

// ErrNoTurn is a cause: nothing was begun.
var ErrNoTurn = errors.New("no turn in time")
