package audit

import (
	"context"
	"time"

	"github.com/google/uuid"

	"rolecall/internal/control"
)

// Refused records a refusal, however many there are.
func (l *Log) Refused(ctx context.Context, e Entry) error {
	_, err := l.DB.Pool.Exec(ctx, insertRow, arguments(uuid.Must(uuid.NewV7()), "outcome", e,
		Result{Outcome: Denied, Detail: e.Detail}, nil)...)
	return control.Fault(err)
}

// RetryAfter has Run try again after d if it could not seal.
func (l *Log) RetryAfter(d time.Duration) { l.retry = d }
