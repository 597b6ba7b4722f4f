package audit

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/control"
	"rolecall/internal/fault"
)

// Verification is what verifying the log has found.
type Verification struct {
	Problem    *Problem // nil: the log is as it was recorded
	Checked    int64    // rows that hold, from the beginning of the chain on
	Checkpoint Checkpoint
	Forged     int64 // rows of the chain that Rolecall did not write
	Head       Point // the last row of the chain
	// Unsealed is how many rows wait to be sealed, the oldest of them recorded at Oldest.
	Unsealed int64
	Oldest   time.Time
	// AnchorRemoved says that the anchor is older than the checkpoint, so that it can no longer be compared.
	AnchorRemoved bool
}

const (
	verifyBatch   = 5000
	verifyTimeout = 2 * time.Minute
)

// Verify goes through the whole chain and says where it breaks first, if it does. When anchor is not zero, it must be a
// place of the chain: without one, rows that were cut off at the end together with their seals leave no trace. It records
// when the log was intact.
func (l *Log) Verify(ctx context.Context, anchor Point) (v *Verification, err error) {
	// One at a time: it holds a connection for long.
	if !l.verifying.TryLock() {
		return nil, fault.New(fault.TooMany, "The audit log is being verified already.").After(5 * time.Second)
	}
	defer l.verifying.Unlock()
	ctx, cancel := context.WithTimeout(ctx, verifyTimeout)
	defer cancel()
	v = &Verification{}
	// All of it is read as of one moment, so that neither sealing nor removing goes on in between.
	err = pgx.BeginTxFunc(ctx, l.DB.Pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly},
		func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `SET LOCAL statement_timeout = '1min'`); err != nil {
				return err
			}
			return l.verify(ctx, tx, v, anchor)
		})
	if err == nil && v.Problem == nil {
		err = l.recordVerified(ctx)
	}
	if err != nil {
		return nil, control.Fault(err)
	}
	return v, nil
}

func (l *Log) verify(ctx context.Context, tx pgx.Tx, v *Verification, anchor Point) error {
	err := tx.QueryRow(ctx, `
		SELECT count(*), coalesce(min(a.time), 'epoch') FROM audit_unsealed u JOIN audit a ON a.id =
		  u.audit_id`).Scan(&v.Unsealed, &v.Oldest)
	if err != nil {
		return err
	}
	keys, err := l.keys(ctx, tx)
	if err != nil {
		return err
	}
	if v.Checkpoint, err = checkpoint(ctx, tx, keys); errors.Is(err, errCheckpoint) {
		v.Problem = &Problem{Seq: v.Checkpoint.Seq, Reason: fmt.Sprintf("The chain does not begin where the retention left it: "+
			"%v.", err)}
		return nil
	} else if err != nil {
		return err
	}
	v.Head = v.Checkpoint.Point
	v.AnchorRemoved = 0 < anchor.Seq && anchor.Seq < v.Checkpoint.Seq
	anchored := anchor.Seq == 0 || v.AnchorRemoved || anchor.Seq == v.Checkpoint.Seq &&
		bytes.Equal(anchor.MAC, v.Checkpoint.MAC)
	origin := &origin{removed: v.Checkpoint.Seq > 0, late: cmp.Or(l.late, lateness)}
	var forged *link
	for n := verifyBatch; n == verifyBatch && v.Problem == nil; {
		var good []link
		if good, v.Problem, err = walk(ctx, tx, keys, v.Head, origin, verifyBatch); err != nil {
			return err
		}
		for i, k := range good {
			if k.point.Seq == anchor.Seq {
				anchored = bytes.Equal(k.point.MAC, anchor.MAC)
			}
			if k.forged == "" {
				v.Checked++
				continue
			}
			if v.Forged++; forged == nil {
				forged = &good[i]
			}
		}
		if n = len(good); n > 0 {
			v.Head = good[n-1].point
		}
	}
	if v.Problem == nil {
		if v.Problem, err = stray(ctx, tx); err != nil {
			return err
		}
	}
	switch {
	case v.Problem != nil:
	case !anchored && anchor.Seq > v.Head.Seq:
		v.Problem = &Problem{Seq: v.Head.Seq + 1, Reason: fmt.Sprintf("Rows are missing after this one: the log once reached at "+
			"least %d.", anchor.Seq)}
	case !anchored:
		v.Problem = &Problem{Seq: anchor.Seq, Reason: "The anchor belongs to another chain: rows up to this one were replaced."}
	case forged != nil: // last: it may be known, and must not hide anything else
		v.Problem = &Problem{Seq: forged.point.Seq, ID: forged.id, Reason: forged.forged}
		if v.Forged > 1 {
			v.Problem.Reason += fmt.Sprintf(" There are %d such rows; this is the first.", v.Forged)
		}
	}
	return nil
}

// stray finds rows outside of the chain that do not wait for their place in it, and places that wait for no row.
func stray(ctx context.Context, tx pgx.Tx) (*Problem, error) {
	for _, check := range []struct{ sql, reason string }{
		{`SELECT a.id FROM audit a WHERE NOT EXISTS (SELECT FROM audit_seals s WHERE s.audit_id = a.id)
		    AND NOT EXISTS (SELECT FROM audit_unsealed u WHERE u.audit_id = a.id) ORDER BY a.id LIMIT 1`,
			"The row has no seal and does not wait for one: it was inserted, or its seal was removed."},
		{`SELECT u.audit_id FROM audit_unsealed u WHERE NOT EXISTS (SELECT FROM audit a WHERE a.id = u.audit_id) ORDER BY 1 ` +
			`LIMIT 1`,
			"The row was removed before it was sealed."},
	} {
		p := &Problem{Reason: check.reason}
		err := tx.QueryRow(ctx, check.sql).Scan(&p.ID)
		if err == nil {
			return p, nil
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return nil, err
		}
	}
	return nil, nil
}
