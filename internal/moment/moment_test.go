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

func TestDurationText(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "0s", 1: "1ns", time.Microsecond: "1µs", time.Millisecond: "1ms", time.Second: "1s", 1500 * time.Millisecond: "1.5s",
		time.Minute: "1m", 90 * time.Second: "90s", 100 * time.Second: "100s", 600 * time.Second: "10m", 630 * time.Second: "630s",
		time.Hour - time.Millisecond: "3599.999s", time.Hour: "1h", 90 * time.Minute: "1h30m", 3630 * time.Second: "1h30s",
		3661 * time.Second: "1h1m1s", 10*time.Hour + 10*time.Minute: "10h10m", 24 * time.Hour: "24h", 30 * 24 * time.Hour: "720h",
		3600500 * time.Millisecond: "1h0.5s", 1<<63 - 1: "2562047h47m16.854775807s",
	} {
		if got := DurationText(d); got != want {
			t.Errorf("%s is written %q, want %q", d, got, want)
		}
	}
}

// FuzzDurationText: what is written is read as the same.
func FuzzDurationText(f *testing.F) {
	for _, d := range []int64{0, 1, 999, 1e9, 1.5e9, 6e10, 9e10, 36e11, 3.6005e12, 3.63e12, 5.4e12, 36e12, 8.64e13, 1<<63 - 1} {
		f.Add(d)
	}
	f.Fuzz(func(t *testing.T, n int64) {
		d := time.Duration(max(n, 0))
		text := DurationText(d)
		if got, err := Duration(text); err != nil || got != d {
			t.Errorf("%d is written %q, which is read as %d, %v", d, text, got, err)
		}
	})
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
