package pgrole

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"rolecall/internal/primary"
)

// roleLock and databaseLock are the keys of advisory locks. Every replica, of every release, must compute the same.
func roleLock(name string) int64     { return lockKey("role", name) }
func databaseLock(name string) int64 { return lockKey("database", name) }

func lockKey(kind, name string) int64 {
	sum := sha256.Sum256([]byte("rolecall " + kind + " " + name))
	return int64(binary.BigEndian.Uint64(sum[:]))
}

// lockSession returns a connection whose session holds an advisory lock. It is for what takes more than a transaction.
// Nobody is terminated for the lock of a role, name, that does not exist; name may be "".
func (s *Server) lockSession(ctx context.Context, lock int64, name string) (conn *pgxpool.Conn, err error) {
	err = s.retry(ctx, func(error) error {
		if conn, err = s.acquire(ctx); err != nil {
			return err
		}
		by, err := s.watched(ctx, watch{pid: conn.Conn().PgConn().PID(), name: name}, func() error {
			_, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1)`, lock)
			return err
		})
		if err == nil && !primary.TakesWrites(conn.Conn().PgConn()) {
			err = errors.Join(primary.Refusal(conn.Conn().PgConn()), conn.Conn().Close(ctx)) // the lock ends with the session
		}
		if err != nil {
			conn.Release()
		}
		return withBlocker(err, by)
	})
	return conn, err
}

// unlock gives back what lockSession took.
func unlock(ctx context.Context, conn *pgx.Conn, lock int64) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_unlock($1)`, lock); err != nil {
		_ = conn.Close(ctx) // the lock ends with the session
	}
}
