package main

import (
	"io"
	"log/slog"

	"rolecall/internal/cli/term"
	"rolecall/internal/jsonlog"
)

// logger returns the log and, if it is JSON, what writes its lines.
func (s *settings) logger(out io.Writer) (*slog.Logger, *jsonlog.Writer, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(s.logLevel)); err != nil {
		return nil, nil, term.Usage("--log-level is %q; use debug, info, warn or error", s.logLevel)
	}
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: shorten}
	switch s.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(out, options)), nil, nil
	case "json":
		lines := jsonlog.New(out)
		return slog.New(slog.NewJSONHandler(lines, options)), lines, nil
	}
	return nil, nil, term.Usage("--log-format is %q; use text or json", s.logFormat)
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
