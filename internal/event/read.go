package event

import (
	"bytes"
	"context"
	"fmt"

	"rolecall/internal/audit"
)

// page is how many rows are read at a time.
const page = 100

// read returns the next events behind a place of the chain, none at its end. It reads the row at that place as well: if it
// is not there, or is another one, a notice comes in place of the rows.
func read(ctx context.Context, log *audit.Log, from audit.Point) ([]Event, error) {
	rows, _, err := log.Rows(ctx, audit.Filter{}, audit.Page{After: max(from.Seq-1, 0), Limit: page})
	if err != nil {
		return nil, err
	}
	switch {
	case from.Seq == 0 && len(rows) > 0 && rows[0].Seq == 1:
		return events(rows), nil
	case from.Seq > 0 && len(rows) > 0 && same(rows[0].Point, from):
		return events(rows[1:]), nil
	}
	start, head, err := log.Ends(ctx)
	switch {
	case err != nil:
		return nil, err
	case same(start, from):
		return events(rows), nil
	case from.Seq < start.Seq:
		return []Event{gap(from, start)}, nil
	}
	behind, err := resume(ctx, log, from, head)
	if err != nil {
		return nil, err
	}
	return []Event{restored(from, behind)}, nil
}

func same(a, b audit.Point) bool { return a.Seq == b.Seq && bytes.Equal(a.MAC, b.MAC) }

func events(rows []*audit.Row) []Event {
	list := make([]Event, len(rows))
	for i, r := range rows {
		list[i] = rowEvent(r)
	}
	return list
}

// gap is the notice that the rows between two places were removed.
func gap(from, to audit.Point) Event {
	return notice(Gap, to, Notice{FromSeq: from.Seq + 1, ToSeq: to.Seq, Message: fmt.Sprintf("The rows %d to %d of the audit "+
		"log were removed by its retention before they were delivered.", from.Seq+1, to.Seq)})
}

// restored is the notice that the log has no such row as from any more, and is delivered again from behind.
func restored(from, behind audit.Point) Event {
	return notice(Restored, behind, Notice{FromSeq: behind.Seq + 1, ToSeq: from.Seq, Message: fmt.Sprintf("The audit log was "+
		"restored from a backup, or altered: its row %d is not the one that was delivered. The rows from %d on are delivered as "+
		"they are now. Compare the rows before that with those that you have.", from.Seq, behind.Seq+1)})
}

// resume returns where to continue in a log that was restored: before the row that `rolecall recover` has recorded, else
// behind the last row that both logs may have.
func resume(ctx context.Context, log *audit.Log, from, head audit.Point) (audit.Point, error) {
	last := min(from.Seq, head.Seq)
	recovered, _, err := log.Rows(ctx, audit.Filter{Action: audit.Restore},
		audit.Page{After: last + 1, Backward: true, Limit: 1})
	if err != nil {
		return audit.Point{}, err
	}
	if len(recovered) > 0 {
		last = recovered[0].Seq - 1
	}
	return log.PointAt(ctx, log.DB.Pool, last)
}
