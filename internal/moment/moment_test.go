package moment

import (
	"strings"
	"testing"
	"time"
)

func TestDuration(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"0": 0, "0s": 0, "90s": 90 * time.Second, "36h": 36 * time.Hour, "7d": 7 * day, "1d12h": 36 * time.Hour,
		"1.5d": 36 * time.Hour, ".5d": 12 * time.Hour, "90d": 90 * day, "2160h": 90 * day, "1h1d": 25 * time.Hour,
		"0.1d": 144 * time.Minute,
	} {
		if got, err := Duration(text); err != nil || got != want {
			t.Errorf("%q is %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "d", "7", "-1h", "-1d", "1 d", "7D", "1w", "1dd", "1d-1h", "7d ", "106752d", "1e3d",
		"1" + string(make([]byte, 400)) + "d", "9999999999999999999999d", "2027-01-31", "NaNd", "1_0d"} {
		if got, err := Duration(text); err == nil {
			t.Errorf("%q is %s; want an error", text, got)
		}
	}
}

func TestTime(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"2027-01-31":                "2027-01-31T00:00:00Z",
		"2027-01-31T18:00:00Z":      "2027-01-31T18:00:00Z",
		"2027-01-31T18:00:00+01:00": "2027-01-31T17:00:00Z",
		"2027-01-31T18:00:00.5Z":    "2027-01-31T18:00:00.5Z",
	} {
		if got, err := Time(text); err != nil || got.UTC().Format(time.RFC3339Nano) != want {
			t.Errorf("%q is %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "2027-1-31", "2027-02-30", "2027-01-31T18:00:00", "2027-01-31 18:00:00Z",
		"2027-01-31T8:00:00Z", "2027-01-31T18:00:00,5Z", "2027-01-31T24:00:00Z", "31.01.2027", "7d", "infinity"} {
		if got, err := Time(text); err == nil {
			t.Errorf("%q is %s; want an error", text, got)
		}
	}
}

// FuzzTime: what is taken is a time as in RFC 3339 or a date, and no other one than time.Parse reads.
func FuzzTime(f *testing.F) {
	for _, s := range []string{
		"2027-01-31T18:00:00Z", "2027-01-31T18:00:00.123456789+01:00", "2027-01-31T18:00:00,5Z", "2027-01-31T8:00:00Z",
		"2027-01-31t18:00:00z", "2027-01-31 18:00:00Z", "2027-02-29T00:00:00Z", "2027-01-31T24:00:00Z", "2027-01-31T23:59:60Z",
		"0000-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "10000-01-01T00:00:00Z", "2027-01-31T18:00:00+24:00",
		"2027-01-31T18:00:00.Z", "2027-01-31T18:00:00", "infinity", "", "2027-01-31", "2027-1-31",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := Time(text)
		if err != nil {
			return
		}
		want, err := time.Parse(time.RFC3339Nano, text)
		if len(text) == len(time.DateOnly) {
			want, err = time.Parse(time.DateOnly, text)
		}
		if err != nil || !got.Equal(want) || got.Year() < 0 || got.Year() > 9999 || len(text) < len(time.DateOnly) ||
			strings.Trim(text, "0123456789-T:.Z+") != "" {
			t.Errorf("%q is %s: %v", text, got, err)
		}
	})
}
