// Package secret holds the type of secrets: a text that nothing prints.
package secret

import (
	"fmt"
	"io"
	"log/slog"
)

// Text is a password, a key, a token or a verifier. However a struct that has one is formatted, encoded or logged, it shows
// as "[secret]"; string(t) is the one way to the value, and easy to find. It must be in exported fields: those that are not
// package fmt prints without asking. It has no method String, because pgx would store what that returns.
type Text string

const shown = "[secret]"

// Format implements fmt.Formatter, for every verb.
func (Text) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, shown) }

// MarshalText implements encoding.TextMarshaler, for JSON, YAML and the like.
func (Text) MarshalText() ([]byte, error) { return []byte(shown), nil }

// LogValue implements slog.LogValuer.
func (Text) LogValue() slog.Value { return slog.StringValue(shown) }
