package main

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

// TestLongErrorsAreCut logs an error that is as long as a server may make it, as a text and as an error.
func TestLongErrorsAreCut(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"text", "json"} {
		var out bytes.Buffer
		log, _, err := (&settings{logLevel: "info", logFormat: format}).logger(&out)
		if err != nil {
			t.Fatal(err)
		}
		long := strings.Repeat("e", 60000)
		log.Info("short", "error", "why")
		if !strings.Contains(out.String(), "why") {
			t.Errorf("%s: %s", format, out.String())
		}
		for _, e := range []slog.Attr{slog.String("error", long), slog.Any("error", errors.New(long))} {
			out.Reset()
			log.Info("long", e)
			if n := strings.Count(out.String(), "e"); n < maxError || out.Len() > maxError+200 {
				t.Errorf("%s: a line of %d bytes, %d of the error", format, out.Len(), n)
			}
		}
	}
}
