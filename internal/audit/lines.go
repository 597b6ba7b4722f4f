package audit

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/google/uuid"
)

// Line is a row as APIs and exports have it, in JSON.
type Line struct {
	Seq       int64           `json:"seq"`
	ID        int64           `json:"id"`
	Time      time.Time       `json:"time"`
	Phase     string          `json:"phase"`
	Attempt   string          `json:"attempt"`
	Action    string          `json:"action"`
	Outcome   *string         `json:"outcome"`
	Account   LineAccount     `json:"account"`
	Cluster   *string         `json:"cluster"`
	User      string          `json:"user"`
	RequestID string          `json:"requestId"`
	Address   string          `json:"address"`
	Detail    json.RawMessage `json:"detail"`
	MAC       string          `json:"mac,omitempty"` // in an export
}

// LineAccount is who made a change.
type LineAccount struct {
	GUID     string `json:"guid"`
	Username string `json:"username"`
}

// Line returns the row as APIs have it.
func (r *Row) Line() Line {
	line := Line{
		Seq:       r.Seq,
		ID:        r.ID,
		Time:      r.Time.UTC(),
		Phase:     r.Phase,
		Attempt:   r.Attempt.String(),
		Action:    r.Action,
		Account:   LineAccount{r.AccountGUID, r.AccountName},
		User:      r.Target,
		RequestID: r.RequestID,
		Address:   r.Address,
		Detail:    r.Detail,
	}
	if r.Outcome != "" {
		line.Outcome = (*string)(&r.Outcome)
	}
	if r.Cluster != uuid.Nil {
		id := r.Cluster.String()
		line.Cluster = &id
	}
	return line
}

// PointLine is a place of the chain in JSON.
type PointLine struct {
	Seq int64  `json:"seq"`
	MAC string `json:"mac"`
}

// Line returns the place as APIs have it.
func (p Point) Line() PointLine { return PointLine{p.Seq, hex.EncodeToString(p.MAC)} }

type headLine struct {
	Head PointLine `json:"head"`
}

// exportPage is how many rows an export reads at a time.
const exportPage = 1000

// Export is the rows that a filter selects, up to the head of the chain when it began.
type Export struct {
	log    *Log
	filter Filter
	head   Point
	page   Page
	rows   []*Row // that were read and not written
	more   bool
}

// Export begins an export behind a row: it reads the head of the chain and the first rows.
func (l *Log) Export(ctx context.Context, f Filter, after int64) (*Export, error) {
	head, err := l.ReadHead(ctx)
	if err != nil {
		return nil, err
	}
	e := &Export{log: l, filter: f, head: head, page: Page{After: after, Limit: exportPage}}
	e.rows, e.more, err = l.Rows(ctx, f, e.page)
	return e, err
}

// ErrHungUp is returned when the receiver of an export is gone.
var ErrHungUp = errors.New("the receiver of the export is gone")

// Write writes the rows as lines of JSON, and then the head: an export without it was cut off on its way. Before each page
// that it reads it asks what is visible, which may have changed.
func (e *Export) Write(ctx context.Context, w io.Writer, visible func() *Visible) error {
	lines := json.NewEncoder(w)
	lines.SetEscapeHTML(false)
	send := func(v any) error {
		if lines.Encode(v) != nil {
			return ErrHungUp
		}
		return nil
	}
	for {
		for _, r := range e.rows {
			if r.Seq > e.head.Seq {
				e.more = false // sealed concurrently
				break
			}
			line := r.Line()
			line.MAC = hex.EncodeToString(r.MAC)
			if err := send(line); err != nil {
				return err
			}
		}
		if !e.more {
			return send(headLine{e.head.Line()})
		}
		e.page.After = e.rows[len(e.rows)-1].Seq
		e.filter.Visible = visible()
		var err error
		if e.rows, e.more, err = e.log.Rows(ctx, e.filter, e.page); err != nil {
			return err
		}
	}
}
