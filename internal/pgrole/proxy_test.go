package pgrole_test

import (
	"net"
	"strconv"
	"testing"

	"rolecall/internal/pgtest"
)

// listen is the address of a proxy before a cluster that has watch decide on each statement.
func listen(t testing.TB, c *pgtest.Cluster, watch func(sql string, port int) pgtest.Verdict) (address string) {
	t.Helper()
	p := pgtest.NewProxy(t, c)
	p.Watch(watch)
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.Port))
}
