package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// quickly measures what shows that something has become slower by a factor, on any machine: CPU time relative to a bare
// HTTP server and to SCRAM keys, and sizes.
func (b *bench) quickly(ctx context.Context) error {
	if err := b.grow(ctx, 10_000, 10_000); err != nil {
		return err
	}
	for _, of := range []string{"roles", "accounts"} {
		if err := b.compare(ctx, of); err != nil {
			return err
		}
	}
	return b.small(ctx)
}

// setQuick chooses what a quick run measures.
func (o *options) setQuick() {
	o.rounds, o.seconds, o.connections = 2, time.Second, []int{8}
	for _, op := range operations {
		if op.goals.quick > 0 {
			o.only = append(o.only, op.name)
		}
	}
}

// quickKeys is how many times the CPU of two SCRAM keys a quick run accepts.
const quickKeys = 3

// problems are the factors that a quick run has found. The best round counts: a machine that does something else, too,
// makes a round more expensive, and none cheaper.
func (r *report) problems() (all []string) {
	check := func(have, limit float64, format string, args ...any) {
		if have > limit {
			all = append(all, fmt.Sprintf(format, args...)+fmt.Sprintf(" is %.3g; at most %.3g is expected", have, limit))
		}
	}
	for _, row := range r.Rows {
		keys := row.keyRatios()
		bare := ratios(row.Sides[sideRolecall], row.Sides[sideBare], sumCost)
		switch {
		case keys != nil:
			check(slices.Min(keys), quickKeys, "%s: the CPU time of Rolecall and PostgreSQL, in that of two SCRAM keys,",
				row.Title)
		case bare != nil:
			check(slices.Min(bare), row.Quick, "%s: the CPU time of Rolecall and PostgreSQL, in that of a bare HTTP request,",
				row.Title)
		default:
			all = append(all, row.Title+": nothing was measured: "+void(slices.Concat(row.Sides[sideRolecall], row.Sides[sideBare],
				row.Sides[sidePgbench], row.Sides[sideCheap])))
		}
	}
	check(float64(r.Small.Memory.Resident)/(1<<20), 64, "memory after the load, in MiB,")
	check(float64(r.Small.Program)/1e6, 30, "the size of the program, in MB,")
	check(r.Small.Ready, 1000, "the time until it is ready, in ms,")
	return all
}

// verdict is an error if a quick run has found something.
func (r *report) verdict() error {
	if problems := r.problems(); problems != nil {
		return errors.New("too slow:\n  " + strings.Join(problems, "\n  "))
	}
	return nil
}
