package scram

import (
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/xdg-go/stringprep"
	"golang.org/x/text/secure/precis"
	"golang.org/x/text/unicode/norm"
)

// saslprep returns the bytes that PostgreSQL hashes for password: the server when it makes a verifier out of a
// clear password, and libpq when it logs in. It follows pg_saslprep (src/common/saslprep.c), the same in 14 to 18,
// not RFC 4013, where the two differ:
//
//   - ASCII is taken as it is, control characters too.
//   - What the RFC refuses (prohibited, unassigned in Unicode 3.2, mixed directions, nothing left) or cannot read
//     (invalid UTF-8) is taken as it is, whole.
//   - U+200B, in both mapping tables of the RFC, becomes a space.
//   - The checks look at the mapped characters, not at the normalized ones. So U+0340 is refused though it
//     normalizes to U+0300, and U+2135 passes next to Latin letters though it normalizes to a Hebrew one.
//
// That PostgreSQL's majors and x/text are of different Unicode versions makes no difference: only characters of
// Unicode 3.2 reach the normalization, and by Unicode's stability policy their normal forms are fixed since 4.1.
//
// No password of PostgreSQL holds NUL. Here NUL is a control character like the others.
func saslprep(password string) string {
	if prepared, ok := prepare(password); ok {
		return prepared
	}
	return password
}

// Portable reports whether every client makes the same of password, and so logs in with it. Printable ASCII is. Beyond
// it, some do as PostgreSQL does, and others
//
//   - take the password as it is (many), or no more than normalize it (Npgsql, to NFKC);
//   - map and normalize also what the RFC refuses (node-postgres, pull request 3669);
//   - do not take what the RFC refuses (pgjdbc before 42.7.4, with ongres/scram 2);
//   - go by OpaqueString of RFC 8265 instead, and take what that refuses as it is (pgx).
//
// They agree where RFC 4013 takes the password and neither that nor RFC 8265 changes it.
func Portable(password string) bool {
	prepared, ok := prepare(password)
	opaque, err := precis.OpaqueString.String(password)
	return ok && prepared == password && (err != nil || opaque == password)
}

// ErrMarks refuses a password with more than 30 combining marks in a row. To bound its buffers x/text then adds a U+034F
// (the Stream-Safe Text Format of UAX #15), which PostgreSQL does not, so that no client could log in.
var ErrMarks = errors.New("the password has more than 30 combining marks in a row")

// Check returns ErrMarks for a password of which no verifier can be made, else nil.
func Check(password string) error {
	// The mapping removes every U+034F, so one that is there now was added.
	if prepared, ok := prepare(password); ok && strings.ContainsRune(prepared, '\u034f') {
		return ErrMarks
	}
	return nil
}

// prepare is saslprep without the fallback: ok is false for what the RFC refuses, ASCII excepted.
func prepare(password string) (prepared string, ok bool) {
	if IsASCII(password) {
		return password, true
	}
	if !utf8.ValidString(password) {
		return "", false
	}

	var mapped []rune
	for _, r := range password {
		if stringprep.TableC1_2.Contains(r) {
			mapped = append(mapped, ' ')
		} else if _, ok := stringprep.TableB1.Map(r); !ok && r != 0x1806 { // stringprep v1.0.4 misses U+1806 of B.1
			mapped = append(mapped, r)
		}
	}
	if len(mapped) == 0 || slices.ContainsFunc(mapped, saslProhibited) || !sameDirection(mapped) {
		return "", false
	}
	return norm.NFKC.String(string(mapped)), true
}

// IsASCII reports whether a text has no character beyond ASCII.
func IsASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// saslProhibited reports whether r may not be in a prepared password: RFC 4013, sections 2.3 and 2.5.
func saslProhibited(r rune) bool {
	for _, table := range []stringprep.Set{
		stringprep.TableC1_2, stringprep.TableC2_1, stringprep.TableC2_2, stringprep.TableC3, stringprep.TableC4,
		stringprep.TableC5, stringprep.TableC6, stringprep.TableC7, stringprep.TableC8, stringprep.TableC9,
		stringprep.TableA1,
	} {
		if table.Contains(r) {
			return true
		}
	}
	return false
}

// sameDirection is the rule for bidirectional strings, RFC 3454, section 6: with any right-to-left character
// there is no left-to-right one, and the first and the last are right-to-left. s is not empty.
func sameDirection(s []rune) bool {
	rightToLeft, leftToRight := stringprep.TableD1.Contains, stringprep.TableD2.Contains
	if !slices.ContainsFunc(s, rightToLeft) {
		return true
	}
	return !slices.ContainsFunc(s, leftToRight) && rightToLeft(s[0]) && rightToLeft(s[len(s)-1])
}
