// Package primary keeps a pool at the primary of a PostgreSQL cluster, wherever a failover takes that. Which cluster it is
// and who connects is the caller's business.
package primary

import (
	"context"
	"errors"
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
		if (since < pingAfter || conn.Ping(ping) == nil) && TakesWrites(conn.PgConn()) {
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

// ErrReplica says that a server was reached that takes no writes.
var ErrReplica = errors.New("the server is a replica, or is set to read only")

// TakesWrites reports whether the server of a connection took writes when it last answered. PostgreSQL reports both settings
// with every answer after they have changed: https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-ASYNC
func TakesWrites(conn *pgconn.PgConn) bool {
	return conn.ParameterStatus("in_hot_standby") != "on" && conn.ParameterStatus("default_transaction_read_only") != "on"
}

// Missing reports that only servers were reached that take no writes, or that the server has become one during the call.
func Missing(err error) bool {
	return errors.Is(err, ErrReplica) || sqlstate.Is(err, sqlstate.ReadOnly)
}

// Require makes pgx try the next host when this one is not a primary, whatever the URL says. On a primary it sets
// synchronous_commit, so that a COMMIT is answered when it is on disk: a server, database or role may be set otherwise.
func Require(ctx context.Context, conn *pgconn.PgConn) error {
	if !TakesWrites(conn) {
		return ErrReplica
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
