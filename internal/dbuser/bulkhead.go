package dbuser

import (
	"context"
	"time"

	"rolecall/internal/fault"
)

// bulkhead bounds what one cluster may take of a replica, be it slow, hung or in demand: work beyond that is refused at
// once, and the next cluster does not notice. Within a cluster it keeps changes from starving reads: of the 8 connections
// that a replica has to it, two are always left.
type bulkhead struct {
	reads       *queue
	quick, long *queue // changes by how long they may take: of roles; of databases, and deleting users
}

func newBulkhead() *bulkhead {
	return &bulkhead{
		reads: newQueue(128, 128, 0), // how many work at a time is for the connections to say
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

// queue lets a few work at a time, and more wait for their turn for as long as its patience.
type queue struct {
	places, turns chan struct{}
	patience      time.Duration
}

func newQueue(turns, places int, patience time.Duration) *queue {
	return &queue{make(chan struct{}, places), make(chan struct{}, turns), patience}
}

// enter takes a place, to work or to wait, or is refused at once.
func (q *queue) enter() (leave func(), err error) {
	select {
	case q.places <- struct{}{}:
		return func() { <-q.places }, nil
	default:
		return nil, fault.New(fault.Unavailable, "The cluster is busy: %d operations of this kind are under way or waiting.", cap(q.places)).After(time.Second)
	}
}

// turn waits for the turn of whoever has entered.
func (q *queue) turn(ctx context.Context) (done func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, q.patience)
	defer cancel()
	select {
	case q.turns <- struct{}{}:
		return func() { <-q.turns }, nil
	case <-ctx.Done():
		return nil, fault.New(fault.Unavailable, "The cluster is busy: other changes have taken all the time. Nothing was changed.").After(2 * time.Second).Because(ctx.Err())
	}
}
