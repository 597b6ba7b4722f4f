package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rolecall/internal/sqlstate"
)

// requireDirect returns an error if a pooler answers in the place of PostgreSQL: Rolecall's locks, its prepared statements
// and LISTEN last as long as a session. A pooler shows another process id, or refuses parameters of the session that
// PostgreSQL accepts; PgBouncer has one code for all its errors.
func (db *DB) requireDirect(ctx context.Context) error {
	conn, err := db.Pool.Acquire(ctx)
	if err == nil {
		defer conn.Release()
		var pid uint32
		// The statement gets no name, under which a pooler's server session might know one already.
		err = conn.QueryRow(ctx, `SELECT pg_backend_pid()`, pgx.QueryExecModeExec).Scan(&pid)
		if err == nil && pid != conn.Conn().PgConn().PID() {
			return errors.New("the connection to the control database goes through a pooler, such as PgBouncer: " + needsDirect)
		}
	}
	if said, ok := errors.AsType[*pgconn.PgError](err); ok && said.Code == sqlstate.ProtocolViolation {
		return fmt.Errorf("a pooler, such as PgBouncer, answers at %s and says: %s: %s", addresses(db.Pool.Config().ConnConfig),
			said.Message, needsDirect)
	}
	return err
}

const needsDirect = "Rolecall takes locks that last as long as a session, and so needs a direct connection to the primary" +
	"; put the host and port of PostgreSQL itself into the URL of the control database"

func addresses(config *pgx.ConnConfig) string {
	all := []string{net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port)))}
	for _, f := range config.Fallbacks {
		all = append(all, net.JoinHostPort(f.Host, strconv.Itoa(int(f.Port))))
	}
	return strings.Join(all, ", ")
}
