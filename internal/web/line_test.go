package web

import (
	"bytes"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"rolecall/internal/jsonlog"
)

// FuzzLine: a line of a request is the same whether slog or appendJSON writes it, also if there is something in it that JSON
// or the log escapes.
func FuzzLine(f *testing.F) {
	const id, trace, app = "3f8f8a6e-5ac2-4c5f-9c3e-0d7a1b2c3d4e", "0123456789abcdef0123456789abcdef", "/users/app"
	for _, x := range []struct {
		method, path, address, account, incoming, failure string
		status                                            int
		bytes, nanoseconds                                int64
	}{
		{"GET", app, "192.0.2.1", id, "", "", 200, 760, 1_234_567},
		{"GET", app, "192.0.2.1", "", "abc-1", "", 200, 0, 0},
		{"GET", app, "2001:db8::1", id, "abc_1", "", 404, math.MaxInt64, math.MaxInt64},
		{"DELETE", app, "", id, "", "it is \"not\" there\n", 404, 1, 499},
		{"POST", app, "", id, "", "", 500, 1, 500},
		{"POST", app, "", id, "", "PostgreSQL: ü \x1b[31m", 503, 1, 3_600_000_000_000},
		{"PATCH", "/a b/%/ü/\x00/\x7f/\"/\\", "@", "ü", "", "", 200, 1, 1000},
		{"PATCH", app, "\u2028", "\u202e\u200b", "", "\xff", 200, 1, 1999},
		{"GET", app, "<&>", "\xff\xfe", "\U000e0001", "", 200, 1, 30_000_001_000},
		{"\t", "", "\b\f\r\n", "a\x1b[31m", "'", "", 0, -1, 999_999_999},
	} {
		f.Add(x.method, x.path, x.address, x.account, x.incoming, x.failure, x.status, x.bytes, x.nanoseconds)
	}
	start := time.Date(2026, 11, 29, 23, 0, 0, 1, time.FixedZone("", 3600))
	f.Fuzz(func(t *testing.T, method, path, address, account, incoming, failure string, status int, size, took int64) {
		r := &http.Request{Method: method, URL: &url.URL{Path: path}}
		info := &Info{ID: id, TraceID: trace, Address: address, Account: account, Incoming: incoming}
		if failure != "" {
			info.Err = errors.New(failure)
		}
		log := func(direct bool) string {
			var out bytes.Buffer
			lines := jsonlog.New(&out)
			e := &Edge{Log: slog.New(slog.NewJSONHandler(lines, nil))}
			if direct {
				e.Lines = lines
			}
			e.log(r, info, &recorder{status: status, bytes: size}, start, time.Duration(took))
			lines.Flush()
			return out.String()
		}
		if got, want := log(true), log(false); got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
	})
}

// The line of a request without anything odd is written without slog, and none is below the level of the log.
func TestLine(t *testing.T) {
	r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/users/app"}}
	for _, x := range []struct {
		name   string
		info   Info
		status int
		level  slog.Level
		slog   int // how many lines it writes
		lines  int // how many lines there are
	}{
		{"plain", Info{Account: "guid", Incoming: "abc"}, 200, slog.LevelInfo, 0, 1},
		{"odd", Info{Account: "gü\x1bid"}, 200, slog.LevelInfo, 1, 1},
		{"refused", Info{Err: errors.New("why")}, 404, slog.LevelInfo, 1, 1},
		{"failed", Info{}, 500, slog.LevelInfo, 1, 1},
		{"plain, below the level", Info{}, 200, slog.LevelWarn, 0, 0},
		{"failed, above the level", Info{}, 500, slog.LevelWarn, 1, 1},
	} {
		var out bytes.Buffer
		lines := jsonlog.New(&out)
		bySlog := 0
		handler := slog.NewJSONHandler(lines, &slog.HandlerOptions{Level: x.level,
			ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.MessageKey {
					bySlog++
				}
				return a
			}})
		e := &Edge{Log: slog.New(handler), Lines: lines}
		e.log(r, &x.info, &recorder{status: x.status}, time.Now(), time.Millisecond)
		lines.Flush()
		if n := strings.Count(out.String(), "\n"); bySlog != x.slog || n != x.lines {
			t.Errorf("%s: %d lines, %d of them slog's: %s", x.name, n, bySlog, out.String())
		}
	}
}
