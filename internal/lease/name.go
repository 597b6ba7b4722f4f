package lease

import (
	"crypto/rand"
	"strings"
	"unicode/utf8"
)

// The parts of a name: what it acts for, "_", and random characters. Together they fit into PostgreSQL's 63 bytes.
const (
	maxForBytes = 54
	randomChars = 8
	alphabet    = "abcdefghijklmnopqrstuvwxyz234567" // 32 of them, so each has the same share of all bytes
)

// NewName returns the name of a new lease for a role. It may be taken.
func NewName(forRole string) string {
	if len(forRole) > maxForBytes {
		end := maxForBytes
		for end > 0 && !utf8.RuneStart(forRole[end]) { // a name in a URL may be any bytes
			end--
		}
		forRole = forRole[:end]
	}
	random := make([]byte, randomChars)
	_, _ = rand.Read(random) // never fails since Go 1.24
	for i, b := range random {
		random[i] = alphabet[b%byte(len(alphabet))]
	}
	return forRole + "_" + string(random)
}

// IsName reports whether a role of this name can be that of a lease.
func IsName(name string) bool {
	i := len(name) - randomChars
	return i >= 1 && name[i-1] == '_' && strings.Trim(name[i:], alphabet) == ""
}
