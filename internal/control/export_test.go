package control

// SealedColumns are the columns that Reseal seals anew, as "table.column".
func SealedColumns() (names []string) {
	for _, c := range sealedColumns {
		names = append(names, c.table+"."+c.column)
	}
	return names
}
