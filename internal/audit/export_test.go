package audit

import (
	"context"
	"log/slog"
	"time"

	"rolecall/internal/control"
)

// Refused records a refusal, however many there are.
func (l *Log) Refused(ctx context.Context, e Entry) error {
	return control.Fault(notRecorded(l.add(ctx, l.DB.Pool, outcomeRow(e, Denied))))
}

// RetryAfter has Run try again after d if it could not seal.
func (l *Log) RetryAfter(d time.Duration) { l.retry = d }

// SealPending is what Run does every quarter of a second.
func (l *Log) SealPending(ctx context.Context, log *slog.Logger) error {
	return l.sealPending(ctx, log)
}

// PlainJSON is the form of a detail that a MAC covers.
func PlainJSON(text []byte) (string, error) { return plainJSON(text) }

// ShiftClock has the log believe that the clock of the control database is another one.
func (l *Log) ShiftClock(by time.Duration) {
	l.clock.mu.Lock()
	defer l.clock.mu.Unlock()
	l.clock.theirs, l.clock.ours = time.Now().Add(by), time.Now()
}

// LateBy has the log take rows that are older by d than all that the retention has kept for removed ones.
func (l *Log) LateBy(d time.Duration) { l.late = d }

// ReplaceKey puts the secret of another release in the place of the first key.
func (l *Log) ReplaceKey(ctx context.Context, secret []byte) error {
	_, err := l.DB.Pool.Exec(ctx, `UPDATE audit_keys SET key = $1 WHERE id = 1`, l.DB.Keys.Seal("audit_keys/1/key", secret))
	return err
}

// Retain is what Run does after it has sealed: one step of the retention.
func (l *Log) Retain(ctx context.Context, retention time.Duration, log *slog.Logger) (removed int, more bool, err error) {
	return l.retain(ctx, retention, log)
}
