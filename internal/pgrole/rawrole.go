package pgrole

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"rolecall/internal/pgwire"
)

// rawRole is columnsOfRole as PostgreSQL sends them, and a last column of selectRolesQuickly. They are read by hand, because
// Scan takes longer than everything else that is done with a row.
type rawRole [][]byte

// roleColumns are the columns of a rawRole.
var roleColumns = [...]struct {
	typ  uint32 // zero: bytes of text, of whatever type
	size int    // zero: any
	null bool   // it may be
}{
	{typ: pgtype.OIDOID, size: 4},
	{}, // name
	{typ: pgtype.BoolOID, size: 1},
	{typ: pgtype.ByteaOID, null: true}, // comment
	{null: true},                       // protected by
	{},                                 // attributes
	{typ: pgtype.BoolOID, size: 1},
	{typ: pgtype.TimestamptzOID, size: 8, null: true},
	{typ: pgtype.Int4OID, size: 4},
	{typ: pgtype.BoolOID, size: 1}, // may be protected
}

// readRawRole refuses columns that are not in the order, of the type or of the length that the methods of rawRole expect.
func readRawRole(row pgx.CollectableRow) (rawRole, error) {
	fields, values := row.FieldDescriptions(), row.RawValues()
	if len(values) != len(fields) || len(values) < len(roleColumns)-1 || len(values) > len(roleColumns) {
		return nil, pgwire.Refuse("it shows a role in %d columns", len(values))
	}
	for i, v := range values {
		c := roleColumns[i]
		switch {
		case c.typ != 0 && (fields[i].DataTypeOID != c.typ || fields[i].Format != pgx.BinaryFormatCode),
			v == nil && !c.null, v != nil && c.size > 0 && len(v) != c.size:
			return nil, pgwire.Refuse("it shows a role with something else in column %d", i+1)
		}
	}
	return values, nil
}

func (r rawRole) oid() uint32          { return binary.BigEndian.Uint32(r[0]) }
func (r rawRole) login() bool          { return r[2][0] != 0 }
func (r rawRole) expired() bool        { return r[6][0] != 0 }
func (r rawRole) connectionLimit() int { return int(int32(binary.BigEndian.Uint32(r[8]))) }

// mayBeProtected is the last column of selectRolesQuickly, false without it.
func (r rawRole) mayBeProtected() bool { return len(r) == len(roleColumns) && r[9][0] != 0 }

func (r rawRole) validUntil() pgtype.Timestamptz {
	if r[7] == nil {
		return pgtype.Timestamptz{}
	}
	switch since := int64(binary.BigEndian.Uint64(r[7])); since { // 2000, in microseconds
	case math.MaxInt64:
		return pgtype.Timestamptz{InfinityModifier: pgtype.Infinity, Valid: true}
	case math.MinInt64:
		return pgtype.Timestamptz{InfinityModifier: pgtype.NegativeInfinity, Valid: true}
	default:
		const y2k = 946_684_800
		return pgtype.Timestamptz{Time: time.Unix(y2k+since/1e6, since%1e6*1000), Valid: true}
	}
}
