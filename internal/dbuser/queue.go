package dbuser

import (
	"context"
	"errors"
	"time"

	"rolecall/internal/fault"
)

// queues bound what one cluster may take of a replica, be it slow, hung or in demand: work beyond that is refused at once,
// and the next cluster does not notice. Within a cluster they keep changes from starving reads: of the 9 connections that
// a replica has to it, changes take six, and one more drops the users that need nothing but to be dropped.
type queues struct {
	reads slots  // the connections bound how many of them run at a time
	quick *queue // changes of roles
	long  *queue // changes of databases, and deletions of users, which take a turn only for the four phases
}

func newQueues() *queues {
	return &queues{
		reads: make(slots, 128),
		quick: newQueue(4, 64, 5*time.Second),
		long:  newQueue(2, 32, 30*time.Second),
	}
}

func (q *queues) of(do change) *queue {
	if do.limit > changeTimeout {
		return q.long
	}
	return q.quick
}

// slots bound the operations of a kind that run or wait.
type slots chan struct{}

// enter takes a slot, or is refused at once.
func (s slots) enter() (leave func(), err error) {
	select {
	case s <- struct{}{}:
		return func() { <-s }, nil
	default:
		return nil, fault.New(fault.Unavailable, "The cluster is busy: %d operations of this kind are under way or waiting.", cap(s)).After(time.Second)
	}
}

// queue runs a few of the operations that have a slot at a time. The others wait, at most for maxWait.
type queue struct {
	slots
	running chan struct{}
	maxWait time.Duration
}

func newQueue(running, all int, maxWait time.Duration) *queue {
	return &queue{make(slots, all), make(chan struct{}, running), maxWait}
}

// acquire waits until an operation that has a slot may run.
func (q *queue) acquire(ctx context.Context) (done func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, q.maxWait)
	defer cancel()
	select {
	case q.running <- struct{}{}:
		return func() { <-q.running }, nil
	case <-ctx.Done():
		return nil, fault.New(fault.Unavailable, "The cluster is busy: other changes have taken all the time. Nothing was changed.").After(2 * time.Second).Because(errNoTurn)
	}
}

// errNoTurn is a cause: nothing was begun.
var errNoTurn = errors.New("no turn in time")
