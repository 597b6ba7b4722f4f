// Package primary keeps a pool connected to the primary of a PostgreSQL cluster, through failovers. The caller decides which
// cluster that is and who connects.
package primary

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"rolecall/internal/sqlstate"
)

// A connection that was idle for pingAfter is pinged before use, and must answer within pingTimeout.
const (
	pingAfter   = time.Second
	pingTimeout = time.Second
	// idle is the key under which a connection keeps how long it was idle: the pool passes that to ShouldPing only.
	idle = "rolecall idle"
	// readOnly is the key under which a connection keeps its use as one for reads, if Prefer has accepted it as such.
	readOnly = "rolecall read only"
)

// A use is how far a connection to a primary that is set to read only has come.
type use int

const (
	none     use = iota // it is no such connection
	accepted            // no host took writes when it was opened
	lent                // the pool has returned it, and returns it only once: the next one tries all hosts again
)

// NewPool opens a pool that returns only connections to a primary that have answered within the last second. If one does
// not answer, all are closed: so a request waits for at most one dead connection after a failover.
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
		if since < pingAfter || conn.Ping(ping) == nil {
			if TakesWrites(conn.PgConn()) {
				return true, nil
			}
			if useOf(conn.PgConn()) == accepted && Readable(conn.PgConn()) {
				conn.PgConn().CustomData()[readOnly] = lent
				return true, nil
			}
		}
		if ctx.Err() == nil {
			pool.Reset()
		}
		return false, nil
	}
	pool, err = pgxpool.NewWithConfig(context.WithoutCancel(ctx), config)
	return pool, err
}

// ErrReplica means that the server that was reached takes no writes.
var ErrReplica = errors.New("the server is a replica, or is set to read only")

// ErrReadOnly is an ErrReplica: the server that was reached is no replica.
var ErrReadOnly = fmt.Errorf("%w: default_transaction_read_only is on", ErrReplica)

// Refusal says why a server refuses writes.
func Refusal(conn *pgconn.PgConn) error {
	if conn.ParameterStatus("in_hot_standby") == "off" {
		return ErrReadOnly
	}
	return ErrReplica
}

// TakesWrites reports whether the server of a connection took writes when it last answered. PostgreSQL reports both settings
// with every answer after they have changed: https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-ASYNC
func TakesWrites(conn *pgconn.PgConn) bool {
	return conn.ParameterStatus("in_hot_standby") != "on" && conn.ParameterStatus("default_transaction_read_only") != "on"
}

// Readable reports whether what a connection has just read is current: the server takes writes, or is a primary that is set
// to read only, when no other host took writes.
func Readable(conn *pgconn.PgConn) bool {
	return TakesWrites(conn) || useOf(conn) != none && conn.ParameterStatus("in_hot_standby") == "off"
}

func useOf(conn *pgconn.PgConn) use {
	u, _ := conn.CustomData()[readOnly].(use)
	return u
}

// Missing reports that no server that was reached takes writes, or that it stopped taking them during the call.
func Missing(err error) bool {
	return errors.Is(err, ErrReplica) || sqlstate.Is(err, sqlstate.ReadOnly)
}

// Require makes pgx try the next host when this one takes no writes, whatever the URL says.
func Require(ctx context.Context, conn *pgconn.PgConn) error {
	if !TakesWrites(conn) {
		return Refusal(conn)
	}
	return prepare(ctx, conn)
}

// Prefer is Require, but makes pgx accept a primary that is set to read only if no host takes writes: for that one it
// returns a *pgconn.NotPreferredError.
func Prefer(ctx context.Context, conn *pgconn.PgConn) error {
	refusal := Refusal(conn)
	if !TakesWrites(conn) && !errors.Is(refusal, ErrReadOnly) {
		return refusal
	}
	if err := prepare(ctx, conn); err != nil || TakesWrites(conn) {
		return err
	}
	conn.CustomData()[readOnly] = accepted
	// pgx tries a host again, after all others, if prefer-standby does not prefer it. Only this function makes its error.
	if err := pgconn.ValidateConnectTargetSessionAttrsPreferStandby(ctx, conn); err != nil {
		return err
	}
	return ErrReplica
}

// prepare sets synchronous_commit, so that a COMMIT is answered when it is on disk: a server, database or role may be set
// otherwise. A database in SQL_ASCII stores bytes of any encoding and converts none, but to a client with another encoding
// it refuses to send bytes that are not valid there: one such name would break each list.
func prepare(ctx context.Context, conn *pgconn.PgConn) error {
	encoding := ``
	if conn.ParameterStatus("server_encoding") == "SQL_ASCII" {
		encoding = `SET client_encoding = 'SQL_ASCII';`
	}
	_, err := conn.Exec(ctx, encoding+`SELECT pg_catalog.set_config('synchronous_commit', 'on', false)
		WHERE pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.=) 'off';
		SELECT pg_catalog.set_config('transaction_timeout', '0', false)
		WHERE pg_catalog.current_setting('transaction_timeout', true) OPERATOR(pg_catalog.<>) '0'`).ReadAll()
	return err
}

// silence is how long the system of a server may leave packets or keepalives unacknowledged. It acknowledges them also while
// PostgreSQL works or waits for a lock.
const silence = 10 * time.Second

// Dialer opens connections that fail soon when their server loses its power or its network. By default, Linux retransmits
// for a quarter of an hour. Each of refuse may return an error for an address that must not be dialed.
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
			// A unix socket refuses this option, and does not need it.
			return raw.Control(func(fd uintptr) {
				_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(silence.Milliseconds()))
			})
		},
	}).DialContext
}
