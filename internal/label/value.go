package label

import (
	"strings"
	"unicode/utf8"
)

const maxAnnotation = 5000

// CheckValue returns an Invalid fault unless the value may be a label's. The empty one may.
func CheckValue(value string) error {
	if value == "" {
		return nil
	}
	return checkWord(value)
}

// CheckAnnotation returns an Invalid fault unless the value may be an annotation's: up to 5000 characters of Unicode.
func CheckAnnotation(value string) error {
	if utf8.RuneCountInString(value) > maxAnnotation {
		return invalid("'%s...' is greater than %d characters", firstRunes(value, 8), maxAnnotation)
	}
	// PostgreSQL has no way to store these; the reference runs into its database's error and answers 500.
	if strings.ContainsRune(value, 0) || !utf8.ValidString(value) {
		return invalid("'%s...' contains characters that cannot be stored", firstRunes(value, 8))
	}
	return nil
}

// firstRunes returns the first n characters of s, or all of it.
func firstRunes(s string, n int) string {
	for i := range s {
		if n == 0 {
			return s[:i]
		}
		n--
	}
	return s
}
