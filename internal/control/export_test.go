package control

import "time"

// SealedColumns are the columns that Reseal seals anew, as "table.column".
func SealedColumns() (names []string) {
	for _, c := range sealedColumns {
		names = append(names, c.table+"."+c.column)
	}
	return names
}

// HangsAfter ends a statement that takes longer than d.
func (db *DB) HangsAfter(d time.Duration) { db.Pool.Config().ConnConfig.Tracer.(*limits).hang = d }
