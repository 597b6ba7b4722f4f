// Package invisible tells the characters that a name must not have, because nobody sees them. With them, names look alike,
// or a name ends a line.
package invisible

import (
	"strconv"
	"strings"
	"unicode"
)

// Rune reports whether a character is not shown, or changes how others are shown: control and format characters, among them
// those of zero width and of text direction, line and paragraph separators, and the others that Unicode lets a font ignore.
// https://www.unicode.org/reports/tr44/#Default_Ignorable_Code_Point
func Rune(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Other_Default_Ignorable_Code_Point,
		unicode.Variation_Selector)
}

// In reports whether a text has such a character.
func In(s string) bool { return strings.ContainsFunc(s, Rune) }

// Escape writes such characters, and bytes that are not UTF-8, as Go and JSON do, for instance \u200b.
func Escape(s string) string {
	if !In(s) && !strings.ContainsRune(s, unicode.ReplacementChar) {
		return s
	}
	var escaped strings.Builder
	for i, r := range s {
		switch {
		case r == unicode.ReplacementChar && !strings.HasPrefix(s[i:], string(r)):
			quoted := strconv.Quote(s[i : i+1])
			escaped.WriteString(quoted[1 : len(quoted)-1])
		case Rune(r):
			quoted := strconv.QuoteRuneToASCII(r)
			escaped.WriteString(quoted[1 : len(quoted)-1])
		default:
			escaped.WriteRune(r)
		}
	}
	return escaped.String()
}
