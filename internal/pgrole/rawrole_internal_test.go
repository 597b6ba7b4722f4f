package pgrole

import (
	"errors"
	"reflect"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"rolecall/internal/pgtest"
	"rolecall/internal/pgwire"
)

// A row of a role says by hand what it says to Scan.
func TestRawRole(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	conn := c.Connect(t, c.User, c.Password, "postgres")
	for _, values := range []string{
		`4294967295::oid, 'a'::name, true, 'c'::bytea, 'p'::name, 'x'::text, false, NULL::timestamptz, -1`,
		`1::oid, ''::name, false, NULL::bytea, NULL::name, ''::text, true, 'infinity'::timestamptz, 2147483647`,
		`1::oid, 'é'::text, false, ''::bytea, 'p'::text, ''::text, true, '-infinity'::timestamptz, 0`,
		`1::oid, 'a'::name, false, ''::bytea, 'p'::text, ''::text, true, '4713-01-01 00:00:00.000001 BC'::timestamptz, 0`,
		`1::oid, 'a'::name, false, ''::bytea, 'p'::text, ''::text, true, '1999-12-31 23:59:59.999999'::timestamptz, 0`,
		`1::oid, 'a'::name, false, ''::bytea, 'p'::text, ''::text, true, '294276-12-31 23:59:59.999999'::timestamptz, 0`,
	} {
		rows, err := conn.Query(t.Context(), `SELECT `+values)
		if err != nil {
			t.Fatal(err)
		}
		got, err := pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) ([2]*User, error) {
			var want User
			var comment []byte
			var protectedBy pgtype.Text
			if err := row.Scan(&want.oid, &want.Name, &want.login, &comment, &protectedBy, &want.attributes, &want.expired,
				&want.validUntil, &want.connectionLimit); err != nil {
				return [2]*User{}, err
			}
			want.userComment, want.protectedBy, want.dangerous = string(comment), protectedBy.String, protectedBy.Valid
			u, err := scanUser(row)
			return [2]*User{u, &want}, err
		})
		if err != nil || !reflect.DeepEqual(got[0], got[1]) {
			t.Errorf("%s: %+v, want %+v, %v", values, got[0], got[1], err)
		}
	}
}

// A row that is none of a role is refused, whatever is wrong with it: nothing of it is read by hand.
func TestRawRoleRefused(t *testing.T) {
	t.Parallel()
	c := pgtest.Shared(t)
	conn := c.Connect(t, c.User, c.Password, "postgres")
	for _, values := range []string{
		`1`,
		`1::oid, 'a'::name, true, NULL::bytea, NULL::name, ''::text, false, NULL::timestamptz`,
		`1::oid, 'a'::name, true, NULL::bytea, NULL::name, ''::text, false, NULL::timestamptz, 1, true, 1`,
		`NULL::oid, 'a'::name, true, NULL::bytea, NULL::name, ''::text, false, NULL::timestamptz, 1`,
		`1::oid, NULL::name, true, NULL::bytea, NULL::name, ''::text, false, NULL::timestamptz, 1`,
		`1::oid, 'a'::name, NULL::bool, NULL::bytea, NULL::name, ''::text, false, NULL::timestamptz, 1`,
		`1::int4, 'a'::name, true, NULL::bytea, NULL::name, ''::text, false, NULL::timestamptz, 1`,
		`1::oid, 'a'::name, true, NULL::text, NULL::name, ''::text, false, NULL::timestamptz, 1`,
		`1::oid, 'a'::name, true, NULL::bytea, NULL::name, ''::text, false, NULL::timestamp, 1`,
		`1::oid, 'a'::name, true, NULL::bytea, NULL::name, ''::text, false, NULL::timestamptz, 1::int8`,
		`1::oid, 'a'::name, true, NULL::bytea, NULL::name, ''::text, false, NULL::timestamptz, 1, NULL::bool`,
	} {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeSimpleProtocol} {
			rows, err := conn.Query(t.Context(), `SELECT `+values, mode)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := pgx.CollectRows(rows, scanQuickly); !isRefused(err) {
				t.Errorf("%s, %v: %v", values, mode, err)
			}
		}
	}
	for column, short := range map[int][]byte{0: {1}, 2: {}, 6: {}, 7: {1, 2, 3}, 8: {1, 2, 3}, 9: {}} {
		if _, err := readRawRole(shortRow{column, short}); !isRefused(err) {
			t.Errorf("column %d of %d bytes: %v", column, len(short), err)
		}
	}
}

func isRefused(err error) bool {
	_, ok := errors.AsType[*pgwire.Refused](err)
	return ok
}

// shortRow is a row of a server that is not PostgreSQL: one column has other bytes than its type.
type shortRow struct {
	column int
	bytes  []byte
}

func (r shortRow) FieldDescriptions() []pgconn.FieldDescription {
	fields := make([]pgconn.FieldDescription, len(roleColumns))
	for i, c := range roleColumns {
		fields[i] = pgconn.FieldDescription{DataTypeOID: c.typ, Format: pgx.BinaryFormatCode}
	}
	return fields
}

func (r shortRow) RawValues() [][]byte {
	values := make([][]byte, len(roleColumns))
	for i, c := range roleColumns {
		values[i] = make([]byte, c.size)
	}
	values[r.column] = r.bytes
	return values
}

func (r shortRow) Scan(...any) error      { return errors.ErrUnsupported }
func (r shortRow) Values() ([]any, error) { return nil, errors.ErrUnsupported }
