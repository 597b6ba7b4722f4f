package event

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"rolecall/internal/audit"
	"rolecall/internal/control"
	"rolecall/internal/invisible"
)

// sender sends events to a receiver.
type sender interface {
	// send returns nil when the receiver has accepted all of the events.
	send(ctx context.Context, events []Event) error
	// batch is how many events are sent together, at most.
	batch() int
	wants(e *Event) bool
	// gaveUp reports whether an error is that the receiver wants no more events, ever.
	gaveUp(err error) bool
}

func isGone(err error) bool {
	refused, ok := errors.AsType[*refusal](err)
	return ok && refused.status == http.StatusGone
}

// receiver is where events are sent, and how far it is.
type receiver struct {
	ID       uuid.UUID
	Kind     string
	Name     string // of a webhook
	Cursor   audit.Point
	Failures int
	LastErr  string
	Revision int64 // of a webhook; 0: it is none
	sender   sender
}

// deliverer is the service while it runs.
type deliverer struct {
	*Service
	ending context.Context // ends when the service is to stop
}

func (d *deliverer) stopped() bool { return d.ending.Err() != nil }

// deliver sends what a receiver has not got yet, in order, and waits a moment for more. open reads the receiver; nil: there
// is nothing to deliver to. It returns in how long it is to be called again, as a task does.
func (d *deliverer) deliver(ctx context.Context, id uuid.UUID, open func(context.Context, uuid.UUID) (*receiver, error)) (
	again time.Duration, err error) {
	for begun := time.Now(); !d.stopped(); {
		r, err := open(ctx, id)
		if err != nil {
			return 0, err
		}
		if r == nil {
			return -1, nil
		}
		events, err := read(ctx, d.Audit, r.Cursor)
		if err != nil {
			return 0, err
		}
		if len(events) == 0 {
			if time.Since(begun) > waitFor {
				return 0, nil
			}
			d.wait(ctx, r.Cursor.Seq)
			continue
		}
		for len(events) > 0 {
			if d.stopped() || time.Since(begun) > startFor {
				return 0, nil
			}
			n, wanted := cut(events, r.sender)
			if len(wanted) > 0 {
				if err := r.sender.send(ctx, wanted); err != nil {
					if ctx.Err() != nil {
						return 0, ctx.Err() // it was stopped, which is no failure of the receiver
					}
					return d.failed(ctx, r, err)
				}
			}
			same, err := d.accepted(ctx, r, events[:n], len(wanted) > 0)
			if err != nil {
				return 0, err
			}
			if !same {
				break
			}
			events = events[n:]
		}
	}
	return 0, nil
}

// cut returns how many of the next events are dealt with by one request, and those that are sent in it.
func cut(events []Event, s sender) (n int, wanted []Event) {
	for ; n < len(events) && len(wanted) < s.batch(); n++ {
		if s.wants(&events[n]) {
			wanted = append(wanted, events[n])
		}
	}
	return n, wanted
}

// wait returns when the log may have more rows.
func (d *deliverer) wait(ctx context.Context, seq int64) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(d.Poll, pollEvery))
	defer cancel()
	stop := context.AfterFunc(d.ending, cancel)
	defer stop()
	d.Audit.Wait(ctx, seq)
}

// accepted stores that a receiver has the events. It returns false if the receiver was changed in the meantime.
func (s *Service) accepted(ctx context.Context, r *receiver, events []Event, sent bool) (same bool, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	last := events[len(events)-1].Behind
	var gapFrom, gapTo *int64
	for _, e := range events {
		if e.Notice != nil {
			gapFrom, gapTo = &e.Notice.FromSeq, &e.Notice.ToSeq
			s.Log.Warn("rows of the audit log were not delivered", "kind", r.Kind, "id", r.ID, "name", r.Name, "reason",
				e.Notice.Message)
		}
	}
	var revision int64
	err = s.DB.Pool.QueryRow(ctx, `
		UPDATE followers SET seq = $2, mac = $3, delivered_at = CASE WHEN $4 THEN clock_timestamp() ELSE delivered_at END,
		  failures = 0, failing_since = NULL, last_error = '', gap_from = coalesce($5, gap_from), gap_to = coalesce($6, gap_to)
		WHERE id = $1 AND seq = $7 RETURNING coalesce((SELECT revision FROM webhooks WHERE id = $1), 0)`,
		r.ID, last.Seq, last.MAC, sent, gapFrom, gapTo, r.Cursor.Seq).Scan(&revision)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, control.Fault(err)
	}
	if r.Failures > 0 {
		s.Log.Info("events are delivered again", "kind", r.Kind, "id", r.ID, "name", r.Name)
	}
	r.Cursor, r.Failures, r.LastErr = last, 0, ""
	return revision == r.Revision, nil
}

// failed stores why a receiver did not accept events. A webhook fails for good when it has not accepted any for RetryFor, or
// if it wants no more.
func (s *Service) failed(ctx context.Context, r *receiver, cause error) (again time.Duration, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	text := short(cause.Error())
	ended := false
	err = s.DB.Tx(ctx, func(tx pgx.Tx) error {
		if err := lock(ctx, tx, r.ID); err != nil {
			return err
		}
		var late bool
		err := tx.QueryRow(ctx, `
			UPDATE followers SET failures = failures + 1, failing_since = coalesce(failing_since, clock_timestamp()),
			  last_error = $2
			WHERE id = $1 AND seq = $3 RETURNING clock_timestamp() - failing_since >= $4::interval`,
			r.ID, text, r.Cursor.Seq, cmp.Or(s.RetryFor, retryFor)).Scan(&late)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil // it was changed concurrently
		}
		if err != nil || r.Revision == 0 || !late && !r.sender.gaveUp(cause) {
			return err
		}
		tag, err := tx.Exec(ctx, `UPDATE webhooks SET state = 'FAILED', revision = revision + 1 WHERE id = $1 AND revision = $2`,
			r.ID, r.Revision)
		ended = tag.RowsAffected() > 0
		return err
	})
	switch {
	case err != nil:
		return 0, err
	case ended:
		s.Log.Error("a webhook has failed and gets no more events until an admin resumes it", "id", r.ID, "name", r.Name,
			"error", text)
		return -1, nil
	case text != r.LastErr:
		s.Log.Warn("events are not accepted; retrying", "kind", r.Kind, "id", r.ID, "name", r.Name, "error", text)
	}
	return s.backoff(r.Failures, cause), nil
}

// backoff is the pause after a failure, by the number of those before it, and at least what the receiver asks for.
func (s *Service) backoff(failures int, cause error) time.Duration {
	pause := min(cmp.Or(s.FirstRetry, firstRetry)<<min(failures, 12), lastRetry)
	if refused, ok := errors.AsType[*refusal](cause); ok {
		pause = max(pause, refused.after)
	}
	return pause
}

// short cuts an error to what a list can show. The receiver may have a say in its text, as by the names in its certificate.
func short(text string) string {
	text = invisible.Escape(text) // PostgreSQL stores neither null bytes nor what is not UTF-8
	if r := []rune(text); len(r) > 500 {
		return string(r[:500]) + "…"
	}
	return text
}
