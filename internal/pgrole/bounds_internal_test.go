package pgrole

import (
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rolecall/internal/pgtest"
	"rolecall/internal/pgwire"
)

// TestLongAnswers reads roles, users of the userlist and users with password problems that are longer than PostgreSQL has
// them. They are refused: a response that shows them would be held until the client has read it.
func TestLongAnswers(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	conn := c.Connect(t, c.User, c.Password, "postgres")
	role := func(name, comment, protectedBy, attributes int) string {
		return fmt.Sprintf(`SELECT 1::oid, repeat('n', %d), true, textsend(repeat('c', %d)), repeat('p', %d), repeat('a', %d),
			false, NULL::timestamptz, -1`, name, comment, protectedBy, attributes)
	}
	for _, tt := range []struct {
		sql          string
		role, listed bool // whether each accepts it
	}{
		{sql: role(63, maxListed, 63, 100), role: true, listed: true},
		{sql: role(63, maxComment, 63, 100), role: true},
		{sql: role(63, maxComment+1, 63, 100)},
		{sql: role(maxColumn+1, 0, 63, 100)},
		{sql: role(63, 0, maxColumn+1, 100)},
		{sql: role(63, 0, 63, maxColumn+1)},
	} {
		if got := accepts(t, conn, tt.sql, scanUser); got != tt.role {
			t.Errorf("%s: accepted as a role: %t", tt.sql, got)
		}
		if got := accepts(t, conn, tt.sql, scanListed); got != tt.listed {
			t.Errorf("%s: accepted in a list: %t", tt.sql, got)
		}
	}
	for name, verifier := range map[int]int{63: 133, maxColumn + 1: 133, 64: maxColumn + 1} {
		sql := fmt.Sprintf(`SELECT repeat('n', %d), repeat('v', %d)`, name, verifier)
		if got := accepts(t, conn, sql, scanCredential); got != (name == 63) {
			t.Errorf("a name of %d and a verifier of %d bytes are accepted: %t", name, verifier, got)
		}
	}
	for name, kind := range map[int]int{63: 4, maxColumn + 1: 4, 64: maxColumn + 1} {
		sql := fmt.Sprintf(`SELECT repeat('n', %d), false, repeat('k', %d), 0, 4096`, name, kind)
		if got := accepts(t, conn, sql, scanPasswordProblem); got != (name == 63) {
			t.Errorf("a name of %d and a kind of %d bytes are accepted: %t", name, kind, got)
		}
	}
}

// accepts reports whether scan takes the row.
func accepts[T any](t *testing.T, conn *pgx.Conn, sql string, scan pgx.RowToFunc[T]) bool {
	t.Helper()
	rows, err := conn.Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	_, err = collectPage(rows, 1, scan)
	if _, refused := errors.AsType[*pgwire.Refused](err); err != nil && !refused {
		t.Fatal(err)
	}
	return err == nil
}

// TestLastOID reads answers of a server that is none.
func TestLastOID(t *testing.T) {
	t.Parallel()
	result := func(rows ...[][]byte) *pgconn.Result { return &pgconn.Result{Rows: rows} }
	row := func(values ...string) (row [][]byte) {
		for _, v := range values {
			row = append(row, []byte(v))
		}
		return row
	}
	for _, tt := range []struct {
		results []*pgconn.Result
		oid     uint32
	}{
		{results: []*pgconn.Result{result(), result(row("4294967295"))}, oid: 1<<32 - 1},
		{},
		{results: []*pgconn.Result{result(row("7")), result()}},
		{results: []*pgconn.Result{result(row())}},
		{results: []*pgconn.Result{result([][]byte{nil})}},
		{results: []*pgconn.Result{result(row("7"), row("7"))}},
		{results: []*pgconn.Result{result(row("7", "7"))}},
		{results: []*pgconn.Result{result(row("0"))}},
		{results: []*pgconn.Result{result(row("4294967296"))}},
	} {
		if oid, ok := lastOID(tt.results); ok != (tt.oid > 0) || ok && oid != tt.oid {
			t.Errorf("%v: %d, %t", tt.results, oid, ok)
		}
	}
}

// TestMoreRows reads a page with more rows than were asked for.
func TestMoreRows(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	conn := c.Connect(t, c.User, c.Password, "postgres")
	for limit, accepted := range map[int]bool{2: false, 3: true} {
		rows, err := conn.Query(t.Context(), `SELECT generate_series(1, 3)`)
		if err != nil {
			t.Fatal(err)
		}
		page, err := collectPage(rows, limit, pgx.RowTo[int])
		if _, refused := errors.AsType[*pgwire.Refused](err); refused == accepted || accepted && len(page) != 3 {
			t.Errorf("at most %d rows: %v, %v", limit, page, err)
		}
	}
}

// TestProblemsAreBounded adds more and longer sentences than a probe has.
func TestProblemsAreBounded(t *testing.T) {
	t.Parallel()
	var c Capabilities
	for range 2 * maxProblems {
		c.problem("%0*d", 2*maxProblem, 1)
	}
	if len(c.Problems) != maxProblems || len(c.Problems[0]) != maxProblem {
		t.Errorf("%d problems, the first of %d bytes", len(c.Problems), len(c.Problems[0]))
	}
}
