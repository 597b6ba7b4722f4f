package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/multitracer"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"rolecall/internal/fault"
	"rolecall/internal/primary"
	"rolecall/internal/sqlstate"
)

// ErrOther says that the server at the other end belongs to another cluster than the registered one, or may do so.
var ErrOther = errors.New("another cluster answers")

// intruder is an ErrOther for admins: Health and the log have them.
type intruder struct{ registered, found string }

func (i *intruder) Error() string {
	return fmt.Sprintf("Another PostgreSQL cluster answers at this address: its system identifier is %s, registered is %s. "+
		"Rolecall does nothing in it. Correct the connection, or update the registration with the system identifier %[1]s.",
		i.found, i.registered)
}

func (*intruder) Unwrap() error { return ErrOther }

// otherCluster is what everybody is told who wants something of a cluster whose place another one has taken.
func otherCluster(registered, found string) error {
	return fault.New(fault.Unavailable, "Another PostgreSQL cluster answers in the place of this one; an admin has to look "+
		"at it.").AsOutage().
		After(time.Minute).Because(&intruder{registered, found})
}

// unidentified refuses a server of which the role may not know whether it belongs to the registered cluster.
func unidentified(role string) error {
	return fault.New(fault.Unavailable, "Whether this is the registered PostgreSQL cluster cannot be told, because the role "+
		"%q may not ask for its system identifier. "+
		"As a superuser, run in each database: GRANT EXECUTE ON FUNCTION pg_control_system() TO %s", role,
		pgx.Identifier{role}.Sanitize()).AsOutage().
		After(time.Minute).Because(ErrOther)
}

// validate accepts a new connection that leads to the primary of the registered cluster. One that is set to read only is
// accepted only if no host takes writes.
func (l *connector) validate(ctx context.Context, conn *pgconn.PgConn) error {
	l.mu.Lock()
	_, _ = fmt.Sscanf(conn.ParameterStatus("server_version"), "%d", &l.major)
	l.mu.Unlock()
	err := primary.Prefer(ctx, conn)
	if _, last := errors.AsType[*pgconn.NotPreferredError](err); err != nil && !last {
		return err
	}
	if refusal := l.identify(ctx, conn); refusal != nil {
		return refusal
	}
	return err
}

// identify refuses a server that does not belong to the registered cluster.
func (l *connector) identify(ctx context.Context, conn *pgconn.PgConn) error {
	found, err := systemIdentifier(ctx, conn)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.identity != "" && found != l.identity {
		refusal := otherCluster(l.identity, found)
		if found == "" {
			refusal = unidentified(l.config.ConnConfig.User)
		}
		if why := refusal.Error(); l.refused != why {
			l.refused = why
			l.log.Error("another cluster answers, or may do so, in the place of a registered one: nothing is done in it",
				"registered", l.identity, "found", found, "error", refusal)
		}
		return refusal
	}
	l.refused, l.unsure = "", l.health.Reachable != primary.TakesWrites(conn)
	l.primary, _ = netip.ParseAddrPort(conn.Conn().RemoteAddr().String())
	return nil
}

// systemIdentifier asks a server which cluster it belongs to. It is empty where the role may not know.
func systemIdentifier(ctx context.Context, conn *pgconn.PgConn) (string, error) {
	results, err := conn.Exec(ctx, `SELECT system_identifier FROM pg_catalog.pg_control_system()`).ReadAll()
	if sqlstate.Is(err, sqlstate.InsufficientPrivilege) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return string(results[0].Rows[0][0]), nil
}

// lookUp resolves the name of a host and remembers what came of it: of the primary only the address is known.
func (l *connector) lookUp(ctx context.Context, name string) ([]string, error) {
	addresses, err := net.DefaultResolver.LookupHost(ctx, name)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.addresses[name] = addresses
	return addresses, err
}

// beginAtPrimary has config begin at the host that was the primary when it was last reached: one that is down for days
// must not cost every connection its time.
func (l *connector) beginAtPrimary(config *pgx.ConnConfig) {
	l.mu.Lock()
	defer l.mu.Unlock()
	isPrimary := func(name string, port uint16) bool {
		return port == l.primary.Port() && slices.Contains(l.addresses[name], l.primary.Addr().Unmap().String())
	}
	if isPrimary(config.Host, config.Port) {
		return
	}
	for _, f := range config.Fallbacks {
		if isPrimary(f.Host, f.Port) {
			config.Host, f.Host = f.Host, config.Host
			config.Port, f.Port = f.Port, config.Port
			config.TLSConfig, f.TLSConfig = f.TLSConfig, config.TLSConfig
			return
		}
	}
}

// prepare makes config that of the next connection.
func (l *connector) prepare(ctx context.Context, config *pgx.ConnConfig) error {
	l.beginAtPrimary(config)
	l.mu.Lock()
	l.unsure = l.health.Reachable
	if l.major >= 17 { // an older server refuses a setting that it does not know; and a SET, later, might itself come too late
		config.RuntimeParams["transaction_timeout"] = "0"
	}
	l.mu.Unlock()
	return l.choosePassword(ctx, config)
}

// beforeConnect is prepare for a connection of the pool.
func (l *connector) beforeConnect(ctx context.Context, config *pgx.ConnConfig) error {
	if err := l.signIns.await(ctx); err != nil {
		return err
	}
	return l.prepare(ctx, config)
}

// newPool opens a pool at the primary.
func (l *connector) newPool(ctx context.Context) (*pgxpool.Pool, error) {
	config := l.config.Copy()
	config.BeforeConnect = l.beforeConnect
	config.ConnConfig.Tracer = multitracer.New(config.ConnConfig.Tracer, &l.waits)
	return primary.NewPool(ctx, config)
}
