// Package moment reads the durations and times of flags, variables and fields, which have one form everywhere.
package moment

import (
	"errors"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Forms says what the parsers accept, for messages.
const (
	DurationForm = "a duration like 90s, 36h or 7d"
	TimeForm     = "a time like 2027-01-31T18:00:00Z or a date like 2027-01-31"
)

var days = regexp.MustCompile(`(\d+\.?\d*|\.\d+)d`)

// Duration reads a duration of Go, in which d stands for 24 hours: 90s, 36h, 7d, 1d12h. It is never negative.
func Duration(text string) (time.Duration, error) {
	inHours := days.ReplaceAllStringFunc(text, func(part string) string {
		n, err := strconv.ParseFloat(strings.TrimSuffix(part, "d"), 64)
		if err != nil {
			return part // too large; the parser refuses it
		}
		return strconv.FormatFloat(n*24, 'f', -1, 64) + "h"
	})
	d, err := time.ParseDuration(inHours)
	if err != nil || d < 0 {
		return 0, errors.New("this is not " + DurationForm)
	}
	return d, nil
}

// DurationText writes a duration so that Duration reads it: as Go does, without parts that are zero, and below an hour in
// one unit: 24h, 1h30m, 90s.
func DurationText(d time.Duration) string {
	if d >= time.Minute && d < time.Hour && d%time.Minute != 0 {
		fraction := strings.TrimPrefix((time.Second + d%time.Second).String(), "1") // .5s, or s
		return strconv.Itoa(int(d/time.Second)) + fraction
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	return strings.Replace(text, "h0m", "h", 1)
}

var rfc3339 = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$`)

// Time reads a time as in RFC 3339, or a date, which is its first moment in UTC. time.Parse alone accepts more: an hour of
// one digit, a comma for the point.
func Time(text string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, text)
	if err == nil && rfc3339.MatchString(text) {
		return t, nil
	}
	if t, err = time.Parse(time.DateOnly, text); err == nil {
		return t, nil
	}
	return time.Time{}, errors.New("this is not " + TimeForm)
}
