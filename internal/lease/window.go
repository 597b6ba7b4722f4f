package lease

import (
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // a machine without the database of time zones has the same ones

	"rolecall/internal/fault"
	"rolecall/internal/moment"
)

// weekdays are the days of windows, in the order of time.Weekday.
var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

const minutesOfDay = 24 * 60

// clock reads a time of day, as minutes.
func clock(text string) (minutes int, ok bool) {
	t, err := time.Parse("15:04", text)
	return t.Hour()*60 + t.Minute(), err == nil && len(text) == len("15:04")
}

// Check says what is wrong with the window.
func (w *Window) Check() error {
	if len(w.Days) == 0 {
		return fault.New(fault.Invalid, "The field window.days is empty. It lists days of %s.",
			strings.Join(weekdays, ", ")).At("window.days")
	}
	for i, day := range w.Days {
		if !slices.Contains(weekdays, day) {
			return fault.New(fault.Invalid, "The field window.days has %q, which is none of %s.", day,
				strings.Join(weekdays, ", ")).At("window.days")
		}
		if slices.Index(w.Days, day) < i {
			return fault.New(fault.Invalid, "The field window.days has %q twice.", day).At("window.days")
		}
	}
	for _, end := range []struct{ field, text string }{{"from", w.From}, {"to", w.To}} {
		if _, ok := clock(end.text); !ok {
			return fault.New(fault.Invalid, "The field window.%s is %q, not a time of day like 02:00.", end.field, end.text).
				At("window." + end.field)
		}
	}
	if w.From == w.To {
		return fault.New(fault.Invalid, "The fields window.from and window.to are both %q, so the window is empty.", w.From).
			At("window.to")
	}
	if w.Timezone == "" || w.Timezone == "Local" {
		return fault.New(fault.Invalid, "The field window.timezone is %q, not a time zone like Europe/Berlin or UTC.", w.Timezone).
			At("window.timezone")
	}
	if _, err := time.LoadLocation(w.Timezone); err != nil {
		return fault.New(fault.Invalid, "The field window.timezone is %q, which is no time zone. One is Europe/Berlin.",
			w.Timezone).At("window.timezone")
	}
	return nil
}

// Next returns the next moment inside the window: after itself if that is inside. The window was checked. Its times are
// those of the wall clock: when clocks go forward past all of it, it is left out on that day.
func (w *Window) Next(after time.Time) time.Time {
	zone, err := time.LoadLocation(w.Timezone)
	if err != nil {
		panic("a window that was not checked: " + err.Error())
	}
	from, _ := clock(w.From)
	to, _ := clock(w.To)
	if to < from {
		to += minutesOfDay
	}
	// Today's may have begun yesterday. After two weeks each day has come once without a change of clocks.
	year, month, today := after.In(zone).Date()
	for day := today - 1; day <= today+14; day++ {
		if !slices.Contains(w.Days, weekdays[time.Date(year, month, day, 12, 0, 0, 0, time.UTC).Weekday()]) {
			continue
		}
		begin, end := onWall(year, month, day, from, zone), onWall(year, month, day, to, zone)
		if !begin.Before(end) || !after.Before(end) {
			continue
		}
		if after.Before(begin) {
			return begin
		}
		return after
	}
	panic("a window without days")
}

// onWall is the first moment at which the clock on the wall shows the time, or if it never does, when it jumps past that.
func onWall(year int, month time.Month, day, minutes int, zone *time.Location) time.Time {
	t := time.Date(year, month, day, 0, minutes, 0, 0, zone)
	wanted := time.Date(year, month, day, 0, minutes, 0, 0, time.UTC)
	begin, end := t.ZoneBounds()
	switch wall := asUTC(t); {
	case wall.After(wanted):
		return begin
	case wall.Before(wanted):
		return end
	}
	if begin.IsZero() {
		return t
	}
	// The time may come twice: also before the clock was set back.
	_, now := t.Zone()
	_, before := begin.Add(-time.Second).Zone()
	if earlier := t.Add(time.Duration(now-before) * time.Second); earlier.Before(begin) && asUTC(earlier).Equal(wanted) {
		return earlier
	}
	return t
}

// asUTC is the time in UTC at which the clock on the wall shows the same.
func asUTC(t time.Time) time.Time {
	_, offset := t.Zone()
	return t.Add(time.Duration(offset) * time.Second).UTC()
}

// TooRare says that the window is closed for longer than the time in which a credential is to rotate; nil: it is not.
func (w *Window) TooRare(rotateEvery time.Duration) error {
	if closed := w.closed(); closed > rotateEvery {
		return fault.New(fault.Invalid,
			"The window is closed for %s at a time, which is longer than the field rotateEvery, %s. Open "+
				"the window on more days, or rotate less often.", moment.DurationText(closed), moment.DurationText(rotateEvery)).
			At("window.days")
	}
	return nil
}

// closed is the longest time between two windows, in a week without a change of clocks.
func (w *Window) closed() time.Duration {
	from, _ := clock(w.From)
	to, _ := clock(w.To)
	open := (to - from + minutesOfDay) % minutesOfDay
	var days []int
	for i, day := range weekdays {
		if slices.Contains(w.Days, day) {
			days = append(days, i)
		}
	}
	longest := 0
	for i, day := range days {
		next := days[(i+1)%len(days)]
		if next <= day {
			next += len(weekdays)
		}
		longest = max(longest, next-day)
	}
	return time.Duration(longest*minutesOfDay-open) * time.Minute
}
