package adminapi

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"rolecall/internal/fault"
)

// FuzzCursor: a cursor that we made comes back as the key that it stands for, and any other is taken for a key or refused.
func FuzzCursor(f *testing.F) {
	for _, s := range []string{"", "a", "bWFpbg", "bWFpbg==", "_w", "-_", "AA", "\n", "é", "bWFp\nbg", "MQ"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		read := func(cursor string) (page, error) { return query{url.Values{"cursor": {cursor}}}.page() }
		if p, err := read(*cursor(text)); text != "" && (err != nil || p.After != text) || text == "" && err == nil {
			t.Errorf("%q came back as %q: %v", text, p.After, err)
		}
		p, err := read(text)
		if err != nil && !fault.Is(err, fault.Malformed) || err == nil && (p.After == "" || p.Limit != defaultLimit) {
			t.Errorf("%q: %+v, %v", text, p, err)
		}
	})
}

// FuzzTime: what is taken is a time as in RFC 3339, and no other one than time.Parse reads.
func FuzzTime(f *testing.F) {
	for _, s := range []string{
		"2027-01-31T18:00:00Z", "2027-01-31T18:00:00.123456789+01:00", "2027-01-31T18:00:00,5Z", "2027-01-31T8:00:00Z",
		"2027-01-31t18:00:00z", "2027-01-31 18:00:00Z", "2027-02-29T00:00:00Z", "2027-01-31T24:00:00Z", "2027-01-31T23:59:60Z",
		"0000-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "10000-01-01T00:00:00Z", "2027-01-31T18:00:00+24:00",
		"2027-01-31T18:00:00.Z", "2027-01-31T18:00:00", "infinity", "",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, ok := parseTime(text)
		if !ok {
			return
		}
		want, err := time.Parse(time.RFC3339Nano, text)
		if err != nil || !got.Equal(want) || got.Year() < 0 || got.Year() > 9999 || len(text) < len("2027-01-31T18:00:00Z") ||
			strings.Trim(text, "0123456789-T:.Z+") != "" {
			t.Errorf("%q is %s: %v", text, got, err)
		}
	})
}
