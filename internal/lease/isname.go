package lease

import "strings"

// IsName reports whether a role of this name can be that of a lease.
func IsName(name string) bool {
	i := len(name) - randomChars
	return i >= 1 && name[i-1] == '_' && strings.Trim(name[i:], alphabet) == ""
}
