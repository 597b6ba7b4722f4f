package audit

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"rolecall/internal/control"
)

// verifiedAt is the watermark of the last time that the whole log was intact.
const verifiedAt = "audit verified"

// recordVerified records that the log is intact now.
func (l *Log) recordVerified(ctx context.Context) error {
	return l.DB.Tx(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `
			INSERT INTO watermarks VALUES ($1, clock_timestamp()) ON CONFLICT (name) DO UPDATE SET time = excluded.time`, verifiedAt)
		return err
	})
}

// Unverified is for how long nobody has verified the log, on any replica: since it was last found intact, or else since its
// first row; 0: it is empty. last is when it was found intact; zero: never.
func (l *Log) Unverified(ctx context.Context) (age time.Duration, last time.Time, err error) {
	var since float64
	var verified *time.Time
	err = l.DB.Pool.QueryRow(ctx, `
		SELECT coalesce(extract(epoch FROM clock_timestamp() -
		    coalesce(w.time, (SELECT time FROM audit_seals ORDER BY time, seq LIMIT 1))), 0)::float8, w.time
		FROM (VALUES (1)) one LEFT JOIN watermarks w ON w.name = $1`, verifiedAt).Scan(&since, &verified)
	if err != nil {
		return 0, time.Time{}, control.Fault(err)
	}
	if verified != nil {
		last = *verified
	}
	return seconds(since), last, nil
}
