package idempotency

import (
	"strings"

	"rolecall/internal/fault"
)

// Header is the name of the header that carries a key.
const Header = "Idempotency-Key"

// longestKey is the most bytes of a key.
const longestKey = 255

// ParseKey reads the values of the header. A key is a string of a structured field, as the draft of the IETF has it, or the
// same characters without quotes, as many clients send it. Messages do not quote it, because they are logged.
// https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
func ParseKey(values []string) (string, error) {
	if len(values) != 1 {
		return "", malformed("The header was sent %d times. Send it once.", len(values))
	}
	key, quoted := strings.CutPrefix(values[0], `"`)
	if quoted {
		var whole bool
		if key, whole = unquote(key); !whole {
			return "", malformed(`It begins with a quote, so it must be one string in quotes, such as ` +
				`"8e03978e-40d5-43e8-bc93-6894a57f9324".`)
		}
	} else if i := strings.IndexFunc(key, notBare); i >= 0 {
		return "", malformed("Without quotes it has letters, digits and ASCII punctuation other than comma, semicolon, quote and "+
			"backslash; the character at byte %d is none of these.", i+1)
	}
	switch {
	case key == "":
		return "", malformed("It is empty. Send a random one, such as a UUID.")
	case len(key) > longestKey:
		return "", malformed("It has %d bytes; at most %d are allowed.", len(key), longestKey)
	}
	return key, nil
}

func malformed(format string, args ...any) error {
	return fault.New(fault.Malformed, "The header "+Header+" cannot be used. "+format, args...)
}

// notBare reports a character that a key without quotes does not have. A comma is what joins the values of several headers,
// and a semicolon begins a parameter.
func notBare(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune(`",;\`, c) }

// unquote reads a string of RFC 9651, section 4.2.5, after its first quote, to the end of the value.
func unquote(text string) (key string, whole bool) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '"':
			return b.String(), i == len(text)-1
		case c < ' ' || c > '~':
			return "", false
		case c == '\\':
			if i++; i == len(text) || text[i] != '"' && text[i] != '\\' {
				return "", false
			}
			c = text[i]
		}
		b.WriteByte(c)
	}
	return "", false
}
