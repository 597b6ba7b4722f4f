// Package primary keeps a pool at the primary of a PostgreSQL cluster, wherever a failover takes that. Which cluster it is
// and who connects is the caller's business.
package primary

import (
	"context"
	"net"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"rolecall/internal/sqlstate"
)

// A connection that was idle for pingAfter is asked whether it is alive; what does not hang answers within pingTimeout.
const (
	pingAfter   = time.Second
	pingTimeout = time.Second
	idle        = "rolecall idle" // how long a connection was, in its own data: the pool tells only one of the two hooks
)

// NewPool opens a pool that hands out only what is a primary's, and has answered within the last second. When one
// connection does not answer the others are no better, and go as well: after a failover a request waits for one at most.
func NewPool(ctx context.Context, config *pgxpool.Config) (pool *pgxpool.Pool, err error) {
	config = config.Copy()
	config.ShouldPing = func(_ context.Context, p pgxpool.ShouldPingParams) bool {
		p.Conn.PgConn().CustomData()[idle] = p.IdleDuration
		return false
	}
	config.PrepareConn = func(ctx context.Context, conn *pgx.Conn) (bool, error) {
		ping, cancel := context.WithTimeout(ctx, pingTimeout)
		defer cancel()
		since, _ := conn.PgConn().CustomData()[idle].(time.Duration)
		if (since < pingAfter || conn.Ping(ping) == nil) && sqlstate.TakesWrites(conn.PgConn()) {
			return true, nil
		}
		if ctx.Err() == nil {
			pool.Reset()
		}
		return false, nil
	}
	pool, err = pgxpool.NewWithConfig(context.WithoutCancel(ctx), config)
	return pool, err
}

// TakesWrites has pgx go on to the next host when this one is no primary, whatever the URL says of it. Of a primary it makes
// sure that a COMMIT is answered when it is on disk: a server, database or role may be set otherwise, for work that may be lost.
func TakesWrites(ctx context.Context, conn *pgconn.PgConn) error {
	if !sqlstate.TakesWrites(conn) {
		return sqlstate.ErrReplica
	}
	_, err := conn.Exec(ctx, `SELECT pg_catalog.set_config('synchronous_commit', 'on', false)
		WHERE pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.=) 'off'`).ReadAll()
	return err
}

// silence is how long a server may give no sign of life that was sent something, or that is waited for. One that works or
// waits gives them: its system answers for it.
const silence = 10 * time.Second

// Dialer returns what opens connections that fail when their server has vanished without a word, as with its power or its
// network. Left to itself, Linux goes on for a quarter of an hour. Each of refuse may say why an address is not dialled.
func Dialer(timeout time.Duration, refuse ...func(address string) error) pgconn.DialFunc {
	const tcpUserTimeout = 18 // TCP_USER_TIMEOUT, in milliseconds: tcp(7)
	return (&net.Dialer{
		Timeout:         timeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: silence / 2, Interval: silence / 4, Count: 2},
		Control: func(_, address string, raw syscall.RawConn) error {
			for _, refuses := range refuse {
				if err := refuses(address); err != nil {
					return err
				}
			}
			// Not for a unix socket, which refuses it and needs it not.
			return raw.Control(func(fd uintptr) {
				_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(silence.Milliseconds()))
			})
		},
	}).DialContext
}
