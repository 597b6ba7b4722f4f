package pgrole

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"rolecall/internal/primary"
	"rolecall/internal/sqlstate"
)

// Each step is a failure and what follows it.
func TestRetries(t *testing.T) {
	sql := func(code string) error { return &pgconn.PgError{Code: code} }
	var (
		deadlock = sql(sqlstate.DeadlockDetected)
		updated  = &pgconn.PgError{Code: sqlstate.InternalError, Routine: "simple_heap_update"}
		hook     = sql(sqlstate.InternalError)
		refused  = sql(sqlstate.InsufficientPrivilege)
		full     = &pgconn.PgError{Code: sqlstate.TooManyConnections, SeverityUnlocalized: "FATAL"}
		starting = &pgconn.PgError{Code: sqlstate.CannotConnectNow, SeverityUnlocalized: "FATAL"}
		ended    = &pgconn.PgError{Code: "57P01", SeverityUnlocalized: "FATAL"}
		lost     = io.ErrUnexpectedEOF
		inCommit = &commitLost{io.ErrUnexpectedEOF}
		late     = context.DeadlineExceeded
		replica  = primary.ErrReplica
		readOnly = sql(sqlstate.ReadOnly)
	)
	start := time.Now()
	type step struct {
		err  error
		at   time.Duration
		next next
	}
	for name, steps := range map[string][]step{
		"passes": {{deadlock, 0, tryAgain}, {updated, 0, tryAgain}, {deadlock, 0, tryAgain},
			{updated, 0, tryAgain}, {deadlock, 0, giveUp}},
		"refused":               {{refused, 0, giveUp}},
		"refused with XX000":    {{hook, 0, giveUp}},
		"refused in the end":    {{updated, 0, tryAgain}, {refused, 0, giveUp}},
		"lost once":             {{lost, 0, reconnect}, {lost, 0, giveUp}},
		"session terminated":    {{ended, 0, reconnect}, {ended, 0, giveUp}},
		"lost, then a deadlock": {{lost, 0, reconnect}, {deadlock, 0, tryAgain}, {lost, 0, giveUp}},
		"lost during COMMIT":    {{inCommit, 0, giveUp}},
		"no time left":          {{late, 0, giveUp}},
		"no connection left":    {{full, 0, giveUp}},
		"starting":              {{starting, 0, giveUp}},
		"replicas for too long": {{replica, 0, awaitPrimary}, {readOnly, time.Second, awaitPrimary},
			{replica, 5 * time.Second, giveUp}},
		"a new primary starts afresh": {{lost, 0, reconnect}, {replica, 0, awaitPrimary}, {lost, time.Second, reconnect},
			{lost, time.Second, giveUp}},
		"deadlocks after a new primary": {{deadlock, 0, tryAgain}, {deadlock, 0, tryAgain}, {deadlock, 0, tryAgain},
			{replica, 0, awaitPrimary}, {deadlock, 0, tryAgain}, {deadlock, 0, tryAgain}},
		"wrapped": {{errors.Join(errors.New("read"), deadlock), 0, tryAgain}},
	} {
		r := retries{until: start.Add(5 * time.Second)}
		for i, s := range steps {
			next, pause := r.after(s.err, start.Add(s.at))
			if next != s.next || (next == giveUp) != (pause == 0) || pause > failoverPause {
				t.Errorf("%s: after %d, %v: %d in %s, want %d", name, i, s.err, next, pause, s.next)
			}
		}
	}
	r := retries{oneHost: true, until: start.Add(5 * time.Second)}
	if next, _ := r.after(primary.ErrReplica, start); next != awaitPrimary {
		t.Errorf("a replica at the only host: %d", next)
	}
	if next, _ := r.after(primary.ErrReadOnly, start); next != giveUp {
		t.Errorf("the only host is set to read only: %d", next)
	}
	// The row of a role is tried for as long as it may be, and not a number of times.
	r = retries{rowUntil: start.Add(time.Second)}
	for i := range 100 {
		if next, _ := r.after(&rowChanged{updated}, start.Add(time.Duration(i)*9*time.Millisecond)); next != tryAgain {
			t.Fatalf("a row that was changed %d times: %d", i+1, next)
		}
	}
	for range attempts - 1 {
		_, _ = r.after(&rowChanged{updated}, start.Add(time.Second))
	}
	if next, _ := r.after(&rowChanged{updated}, start.Add(time.Second)); next != giveUp {
		t.Errorf("a row that was changed until the end: %d", next)
	}
	// One connection stays where it is.
	for err, want := range map[error]next{deadlock: tryAgain, lost: giveUp, replica: giveUp, refused: giveUp, hook: tryAgain} {
		r := retries{}
		if got, _ := r.after(err, start); got != want {
			t.Errorf("on one connection after %v: %d, want %d", err, got, want)
		}
	}
}
