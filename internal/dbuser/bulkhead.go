package dbuser

import (
	"context"
	"errors"
	"time"

	"rolecall/internal/fault"
)

// bulkhead bounds what one cluster may take of a replica, be it slow, hung or in demand: work beyond that is refused at
// once, and the next cluster does not notice. Within a cluster it keeps changes from starving reads: of the 9 connections
// that a replica has to it, changes take six, and one more drops the users that need nothing but to be dropped.
type bulkhead struct {
	reads       places // how many of them work at a time is for the connections to say
	quick, long *queue // changes by how long they may take: of roles; of databases, and deleting users, which takes a turn only in phases
}

func newBulkhead() *bulkhead {
	return &bulkhead{
		reads: make(places, 128),
		quick: newQueue(4, 64, 5*time.Second),
		long:  newQueue(2, 32, 30*time.Second),
	}
}

func (b *bulkhead) queueOf(do change) *queue {
	if do.limit > changeTimeout {
		return b.long
	}
	return b.quick
}

// places are for those who work or wait.
type places chan struct{}

// enter takes a place, or is refused at once.
func (p places) enter() (leave func(), err error) {
	select {
	case p <- struct{}{}:
		return func() { <-p }, nil
	default:
		return nil, fault.New(fault.Unavailable, "The cluster is busy: %d operations of this kind are under way or waiting.", cap(p)).After(time.Second)
	}
}

// queue lets a few of those who have a place work at a time, and the others wait for their turn for as long as its patience.
type queue struct {
	places
	turns    chan struct{}
	patience time.Duration
}

func newQueue(turns, all int, patience time.Duration) *queue {
	return &queue{make(places, all), make(chan struct{}, turns), patience}
}

// turn waits for the turn of whoever has entered.
func (q *queue) turn(ctx context.Context) (done func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, q.patience)
	defer cancel()
	select {
	case q.turns <- struct{}{}:
		return func() { <-q.turns }, nil
	case <-ctx.Done():
		return nil, fault.New(fault.Unavailable, "The cluster is busy: other changes have taken all the time. Nothing was changed.").After(2 * time.Second).Because(errNoTurn)
	}
}

// errNoTurn is a cause: nothing was begun.
var errNoTurn = errors.New("no turn in time")
