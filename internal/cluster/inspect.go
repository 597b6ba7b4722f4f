package cluster

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rolecall/internal/failpoint"
	"rolecall/internal/fault"
	"rolecall/internal/pgrole"
	"rolecall/internal/pgwire"
	"rolecall/internal/primary"
	"rolecall/internal/secret"
	"rolecall/internal/sqlstate"
)

// openTimeout is how long a cluster may take to let Rolecall in and say what it is.
const openTimeout = 10 * time.Second

// Facts are what a cluster says of itself.
type Facts struct {
	SystemIdentifier string
	Version          string
	StandbyProblem   string // "": no change waits for a standby
}

// Open connects and is sure that the other side is a primary, reached directly. The caller closes the connection. The
// fault is Unavailable when the cluster did not answer, and Invalid when it, or Rolecall, refused.
func (c *Connection) Open(ctx context.Context) (*pgx.Conn, Facts, error) {
	config, err := c.config()
	if err != nil {
		return nil, Facts{}, err
	}
	failpoint.On(config.ConnConfig)
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	conn, err := connect(ctx, config.ConnConfig)
	if errors.Is(err, primary.ErrReplica) {
		// There is a server, but none that takes writes: look what it is.
		lax := config.ConnConfig.Copy()
		lax.ValidateConnect = nil
		if other, otherErr := connect(ctx, lax); otherErr == nil {
			conn, err = other, nil
		}
	}
	if err != nil {
		return nil, Facts{}, whyNot(err, config.ConnConfig)
	}
	facts, err := readFacts(ctx, conn)
	if err != nil {
		closeConn(conn)
		return nil, Facts{}, err
	}
	return conn, facts, nil
}

// Check connects to the cluster and finds out whether it can be worked with. It changes nothing.
func (c *Cluster) Check(ctx context.Context) (Facts, error) {
	if c.err != nil {
		return Facts{}, c.err
	}
	to := c.workingConnection(ctx)
	conn, facts, err := to.Open(ctx)
	if err != nil {
		return facts, explainAuthError(err)
	}
	closeConn(conn)
	if c.SystemIdentifier != "" && facts.SystemIdentifier != c.SystemIdentifier {
		return facts, fault.New(fault.Invalid, "Another cluster answers: its system identifier is %s, not %s. If it has taken "+
			"that one's place, run: rolecall clusters update --system-identifier %[1]s.", facts.SystemIdentifier, c.SystemIdentifier).
			Because(ErrOther)
	}
	return facts, nil
}

// connect opens a connection. If the owner of the database has set a transaction_timeout that ends the session before it
// could set another one, it asks for that at the start, which PostgreSQL up to 16 refuses.
func connect(ctx context.Context, config *pgx.ConnConfig) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, config)
	if sqlstate.Is(err, sqlstate.TransactionTimeout) {
		config.RuntimeParams["transaction_timeout"] = "0"
		conn, err = pgx.ConnectConfig(ctx, config)
	}
	return conn, err
}

// workingConnection returns the cluster's connection with the password that the cluster takes, while there are two.
func (c *Cluster) workingConnection(ctx context.Context) Connection {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	to, config := c.Connection, c.connector.config.ConnConfig.Copy()
	_ = c.connector.prepare(ctx, config) // an error is one of closing
	to.Password = secret.Text(config.Password)
	return to
}

// closeConn closes a connection, and waits at most a second for that.
func closeConn(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

// maxFact is more bytes than a version or a system identifier has. They are stored, and shown in messages.
const maxFact = 256

func tooLong(config *pgx.ConnConfig) error {
	return fault.New(fault.Unavailable, "The answer of the cluster at %s was not accepted: its version or its system "+
		"identifier has more than %d bytes.", address(config), maxFact)
}

func readFacts(ctx context.Context, conn *pgx.Conn) (facts Facts, err error) {
	var replica, writesNothing bool
	var pid uint32
	// The statement gets no name, under which a pooler's server session might know one already.
	err = conn.QueryRow(ctx, `
		SELECT pg_is_in_recovery(), current_setting('transaction_read_only')::bool, pg_backend_pid(),
		  current_setting('server_version'),
		       system_identifier::text FROM pg_control_system()`, pgx.QueryExecModeExec).
		Scan(&replica, &writesNothing, &pid, &facts.Version, &facts.SystemIdentifier)
	role := conn.Config().User
	switch {
	case sqlstate.Is(err, sqlstate.InsufficientPrivilege):
		return facts, fault.New(fault.Invalid, "The role %q may not ask the cluster for its system identifier. "+
			"As a superuser, run: GRANT EXECUTE ON FUNCTION pg_control_system() TO %s", role,
			pgx.Identifier{role}.Sanitize()).Because(err)
	case err != nil:
		return facts, whyNot(err, conn.Config())
	case max(len(facts.Version), len(facts.SystemIdentifier)) > maxFact:
		return facts, tooLong(conn.Config())
	case pid != conn.PgConn().PID():
		return facts, fault.New(fault.Invalid, "The connection goes through a pooler, such as PgBouncer. %s", needsDirect)
	case replica:
		return facts, fault.New(fault.Invalid,
			"%s is a replica, and roles can be changed on the primary only. Give the primary's host, or all hosts, of which the "+
				"one that takes writes is used: postgres://role@first:5432,second:5432/database.", reached(conn))
	case writesNothing:
		return facts, readOnly(fault.Invalid, conn.Config())
	}
	return facts, nil
}

// readOnly says that a primary is set to read only, and what to do.
func readOnly(kind fault.Kind, config *pgx.ConnConfig) *fault.Error {
	return fault.New(kind, "The cluster takes no writes at %s: default_transaction_read_only is on for the server, the "+
		"database %q or the role %q. For the role, this fixes it: ALTER ROLE %s SET default_transaction_read_only = off",
		address(config), config.Database, config.User, pgx.Identifier{config.User}.Sanitize())
}

const needsDirect = "Rolecall takes locks that last as long as a session, and so needs a direct connection to the primary."

// whyNot says why a cluster cannot be worked with. No error of a connection holds its password.
func whyNot(err error, config *pgx.ConnConfig) error {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f
	}
	if errors.Is(err, primary.ErrReadOnly) {
		return readOnly(fault.Unavailable, config).Because(err)
	}
	if primary.Missing(err) {
		return fault.New(fault.Unavailable, "The cluster has no primary at the moment: of %s none takes writes.",
			address(config)).Because(err)
	}
	switch sqlstate.Code(err) {
	case sqlstate.ProtocolViolation:
		// PostgreSQL itself has nothing against what we say; PgBouncer has, and answers everything with this code.
		return fault.New(fault.Invalid, "A pooler, such as PgBouncer, answers at %s and says: %s. %s", address(config),
			serverMessage(err), needsDirect).Because(err)
	case sqlstate.UndefinedObject:
		// Sessions begin with idle_session_timeout, which came with PostgreSQL 14.
		return fault.New(fault.Invalid, "The server at %s is older than PostgreSQL %s, and Rolecall is made for %[2]s and later: "+
			"upgrade it. It says: %[3]s.", address(config), pgrole.Majors[0], serverMessage(err)).Because(err)
	case sqlstate.InvalidPassword:
		return fault.New(fault.Invalid, "The cluster rejects the password of the role %q.", config.User).
			At("connection.password").Because(err)
	case sqlstate.InvalidAuthorization:
		return fault.New(fault.Invalid, "The cluster does not let the role %q log in: %s.", config.User,
			serverMessage(err)).Because(err)
	case sqlstate.UndefinedDatabase:
		return fault.New(fault.Invalid, "The cluster has no database %q.", config.Database).At("connection.url").Because(err)
	case sqlstate.InsufficientPrivilege:
		return fault.New(fault.Invalid, "The role %q may not connect to the database %q. As its owner, run: GRANT CONNECT ON "+
			"DATABASE %s TO %s",
			config.User, config.Database, pgx.Identifier{config.Database}.Sanitize(),
			pgx.Identifier{config.User}.Sanitize()).Because(err)
	}
	if _, why, found := strings.Cut(err.Error(), "authentication method requirement"); found { // pgx has no type for it
		_, why, _ = strings.Cut(why, "failed: ")
		why, _, _ = strings.Cut(why, "\n")
		return fault.New(fault.Invalid, "The cluster does not ask the role %q for a SCRAM password: %s. If its password is "+
			"stored as an md5 hash, give it a new one after SET password_encryption = 'scram-sha-256'.",
			config.User, why).Because(err)
	}
	if refused, ok := errors.AsType[*pgwire.Refused](err); ok {
		return fault.New(fault.Unavailable, "The answer of the cluster at %s was not accepted: %s.", address(config),
			refused).Because(err)
	}
	if timedOut(err) {
		return fault.New(fault.Unavailable, "The cluster does not answer at %s.", address(config)).Because(err)
	}
	why := serverMessage(err)
	if why == "" {
		cause := err
		if connect, ok := errors.AsType[*pgconn.ConnectError](err); ok && connect.Unwrap() != nil {
			cause = connect.Unwrap()
		}
		why = strings.Join(strings.Fields(cause.Error()), " ")
	}
	return fault.New(fault.Unavailable, "The cluster cannot be reached at %s: %.500s.", address(config),
		strings.TrimSuffix(why, ".")).Because(err)
}

func timedOut(err error) bool {
	netErr, ok := errors.AsType[net.Error](err)
	return errors.Is(err, context.DeadlineExceeded) || pgconn.Timeout(err) || ok && netErr.Timeout()
}

func serverMessage(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return fmt.Sprintf("%.500s", e.Message)
	}
	return ""
}

// reached is the host that a connection leads to: of several only its address is known.
func reached(conn *pgx.Conn) string {
	if config := conn.Config(); len(config.Fallbacks) == 0 {
		return address(config)
	}
	return conn.PgConn().Conn().RemoteAddr().String()
}

func address(config *pgx.ConnConfig) string {
	all := fmt.Sprintf("%s:%d", config.Host, config.Port)
	for _, f := range config.Fallbacks {
		if next := fmt.Sprintf("%s:%d", f.Host, f.Port); !strings.Contains(all, next) {
			all += ", " + next
		}
	}
	return all
}

// same finds the registered cluster that conn leads to, nil when there is none, and returns which clusters it compared,
// and where they were: those of the same system identifier. A copy of a cluster has that identifier, too, so what decides
// is whether a lock taken on one connection is seen on the other.
func (r *Registry) same(ctx context.Context, conn *pgx.Conn, systemIdentifier string, except uuid.UUID) (
	same *Cluster, compared []comparedWith, err error) {
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails since Go 1.24
	key := binary.BigEndian.Uint64(random[:])
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1)`, int64(key)); err != nil {
		return nil, nil, whyNot(err, conn.Config())
	}
	defer func() { _, _ = conn.Exec(ctx, `SELECT pg_advisory_unlock($1)`, int64(key)) }() // else it ends with the connection
	for _, c := range r.All() {
		if c.SystemIdentifier != systemIdentifier || c.ID == except {
			continue
		}
		compared = append(compared, comparedWith{c.ID, c.Connection.URL})
		seen, err := c.sees(ctx, key)
		if err != nil {
			return nil, nil, fault.New(fault.Invalid,
				"This is the cluster %q or a copy of it, and which one cannot be told, because %[1]q does not answer. "+
					"If it has moved, change its connection; if it is gone, remove it first.", c.DisplayName).Because(err)
		}
		if seen {
			return c, compared, nil
		}
	}
	return nil, compared, nil
}

// sees reports whether somebody holds an advisory lock in the cluster, in any of its databases.
func (c *Cluster) sees(ctx context.Context, key uint64) (held bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	pool, err := c.Pool(ctx)
	if err != nil {
		return false, err
	}
	err = pool.QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted
		  AND classid = $1::bigint::oid AND objid = $2::bigint::oid)`, int64(key>>32), int64(key&0xffffffff)).Scan(&held)
	return held, err
}
