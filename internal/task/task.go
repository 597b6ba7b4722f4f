// Package task does what is due at a time, once, on whichever replica takes it first: the end of leases, rotations, and the
// like. A task is a row of the control database that names what it is about; the handler of
// its kind decides what to do, from the state that it finds then. So a task that runs twice, or after a kill, does no harm.
package task

import (
	"context"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/control"
)

// Task is what is to be done when.
type Task struct {
	Kind    string
	Key     uuid.UUID     // of what it is about
	Cluster uuid.UUID     // in which it is done; zero: in none
	In      time.Duration // from now, by the clock of the control database
}

// Kind is a kind of tasks.
type Kind struct {
	Name string
	// Do does what is due for the key. again is in how long it is due again; negative: it is done. After an error it is tried
	// again, later and later, at most every 30 seconds.
	Do func(ctx context.Context, key uuid.UUID) (again time.Duration, err error)
}

// Worker takes what is due and does it, until Run ends.
type Worker struct {
	DB    *control.DB
	Log   *slog.Logger
	Kinds []Kind
	// Away returns the clusters that do not answer: what is due in them waits until they do.
	Away func() []uuid.UUID
	// Every is the pause between looks at what is due; 0: a second.
	Every time.Duration
}

// Set schedules a task in the transaction that makes it necessary, or moves the one of the same kind and key.
func Set(ctx context.Context, tx pgx.Tx, t Task) error { panic("not built") }

// Run does what is due until ctx ends.
func (w *Worker) Run(ctx context.Context) { panic("not built") }
