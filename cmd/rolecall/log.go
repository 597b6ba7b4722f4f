package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"rolecall/internal/cli/term"
)

func (s *settings) logger(out io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(s.logLevel)); err != nil {
		return nil, term.Usage("--log-level is %q; use debug, info, warn or error", s.logLevel)
	}
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: shorten}
	switch s.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(out, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(escaped{out}, options)), nil
	}
	return nil, term.Usage("--log-format is %q; use text or json", s.logFormat)
}

// maxError is how many bytes of an error are logged. The servers of a cluster choose how long theirs are, and each request
// that fails logs one.
const maxError = 4096

// shorten cuts long errors.
func shorten(_ []string, a slog.Attr) slog.Attr {
	if a.Key == "error" {
		if text := a.Value.String(); len(text) > maxError {
			return slog.String(a.Key, text[:maxError]+"…")
		}
	}
	return a
}

// escaped escapes characters that would control a terminal, or that it would hide. JSON allows them, and a line of the log
// may quote a client.
type escaped struct {
	out io.Writer
}

func (p escaped) Write(line []byte) (int, error) {
	plain := func(r rune) bool { return r == '\n' || unicode.IsPrint(r) }
	if bytes.ContainsFunc(line, func(r rune) bool { return !plain(r) }) {
		var safe []byte
		for _, r := range string(line) {
			switch {
			case plain(r):
				safe = utf8.AppendRune(safe, r)
			case r > 0xffff:
				high, low := utf16.EncodeRune(r)
				safe = fmt.Appendf(safe, `\u%04x\u%04x`, high, low)
			default:
				safe = fmt.Appendf(safe, `\u%04x`, r)
			}
		}
		_, err := p.out.Write(safe)
		return len(line), err
	}
	return p.out.Write(line)
}
