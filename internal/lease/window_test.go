package lease_test

import (
	"strings"
	"testing"
	"time"

	"rolecall/internal/fault"
	"rolecall/internal/lease"
)

func TestWindowNext(t *testing.T) {
	t.Parallel()
	const berlin, layout = "Europe/Berlin", "2006-01-02T15:04:05Z07:00"
	every := []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}
	window := func(from, to, zone string, days ...string) *lease.Window {
		return &lease.Window{Days: days, From: from, To: to, Timezone: zone}
	}
	for _, test := range []struct {
		window      *lease.Window
		after, want string
	}{
		// 2026-11-28 is a Saturday.
		{window("02:00", "04:00", "UTC", "sat"), "2026-11-25T12:00:00Z", "2026-11-28T02:00:00Z"},
		{window("02:00", "04:00", "UTC", "sat"), "2026-11-28T02:00:00Z", "2026-11-28T02:00:00Z"},
		{window("02:00", "04:00", "UTC", "sat"), "2026-11-28T03:59:59Z", "2026-11-28T03:59:59Z"},
		{window("02:00", "04:00", "UTC", "sat"), "2026-11-28T04:00:00Z", "2026-12-05T02:00:00Z"},
		{window("02:00", "04:00", "UTC", "sun", "wed"), "2026-11-28T04:00:00Z", "2026-11-29T02:00:00Z"},
		{window("02:00", "04:00", berlin, "sat"), "2026-11-27T12:00:00Z", "2026-11-28T01:00:00Z"},
		// It is Saturday in Auckland while it is Friday in UTC, and the other way round in Honolulu.
		{window("02:00", "04:00", "Pacific/Auckland", "sat"), "2026-11-27T12:00:00Z", "2026-11-27T13:00:00Z"},
		{window("20:00", "22:00", "Pacific/Honolulu", "fri"), "2026-11-28T05:00:00Z", "2026-11-28T06:00:00Z"},
		// Past midnight.
		{window("22:00", "02:00", "UTC", "sat"), "2026-11-29T01:59:00Z", "2026-11-29T01:59:00Z"},
		{window("22:00", "02:00", "UTC", "sat"), "2026-11-29T02:00:00Z", "2026-12-05T22:00:00Z"},
		{window("22:00", "02:00", "UTC", "sat"), "2026-11-28T01:00:00Z", "2026-11-28T22:00:00Z"},
		{window("22:00", "00:00", "UTC", "sat"), "2026-11-28T23:59:59Z", "2026-11-28T23:59:59Z"},
		{window("22:00", "00:00", "UTC", "sat"), "2026-11-29T00:00:00Z", "2026-12-05T22:00:00Z"},
		// On 2026-03-29 the clocks of Berlin go from 02:00 to 03:00, at 01:00 UTC.
		{window("02:30", "04:00", berlin, every...), "2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z"},
		{window("01:00", "02:30", berlin, every...), "2026-03-29T00:59:59Z", "2026-03-29T00:59:59Z"},
		{window("01:00", "02:30", berlin, every...), "2026-03-29T01:00:00Z", "2026-03-29T23:00:00Z"},
		{window("02:00", "03:00", berlin, every...), "2026-03-29T00:00:00Z", "2026-03-30T00:00:00Z"},
		{window("02:00", "03:00", berlin, "sun"), "2026-03-29T00:00:00Z", "2026-04-05T00:00:00Z"},
		{window("02:30", "04:00", berlin, every...), "2026-03-29T02:00:00Z", "2026-03-30T00:30:00Z"},
		// On 2026-10-25 they go from 03:00 to 02:00, at 01:00 UTC.
		{window("02:00", "03:00", berlin, every...), "2026-10-24T23:00:00Z", "2026-10-25T00:00:00Z"},
		{window("02:00", "03:00", berlin, every...), "2026-10-25T01:59:59Z", "2026-10-25T01:59:59Z"},
		{window("02:00", "03:00", berlin, every...), "2026-10-25T02:00:00Z", "2026-10-26T01:00:00Z"},
		{window("02:30", "04:00", berlin, every...), "2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z"},
		{window("01:00", "02:30", berlin, every...), "2026-10-25T00:30:00Z", "2026-10-26T00:00:00Z"},
		// In New York, west of UTC: 2026-03-08 at 07:00 UTC forward, 2026-11-01 at 06:00 UTC back.
		{window("02:30", "04:00", "America/New_York", "sun"), "2026-03-08T00:00:00Z", "2026-03-08T07:00:00Z"},
		{window("01:30", "04:00", "America/New_York", "sun"), "2026-11-01T00:00:00Z", "2026-11-01T05:30:00Z"},
		// A day that was left out: Samoa had no 2011-12-30, a Friday.
		{window("02:00", "04:00", "Pacific/Apia", "fri"), "2011-12-29T20:00:00Z", "2012-01-05T12:00:00Z"},
	} {
		after, err := time.Parse(layout, test.after)
		if err != nil {
			t.Fatal(err)
		}
		if err := test.window.Check(); err != nil {
			t.Fatal(err)
		}
		next := test.window.Next(after)
		if got := next.UTC().Format(layout); got != test.want {
			t.Errorf("%+v: after %s comes %s, not %s", *test.window, test.after, got, test.want)
		}
		if again := test.window.Next(next); !again.Equal(next) {
			t.Errorf("%+v: %s is inside, and then it is not: %s", *test.window, next, again)
		}
	}
}

func TestWindowCheck(t *testing.T) {
	t.Parallel()
	days := []string{"sat"}
	for _, test := range []struct {
		window lease.Window
		want   string
	}{
		{lease.Window{days, "02:00", "04:00", "Europe/Berlin"}, ""},
		{lease.Window{days, "22:00", "00:00", "UTC"}, ""},
		{lease.Window{nil, "02:00", "04:00", "UTC"}, "window.days is empty"},
		{lease.Window{[]string{"Sat"}, "02:00", "04:00", "UTC"}, `window.days has "Sat"`},
		{lease.Window{[]string{"sat", "mon", "sat"}, "02:00", "04:00", "UTC"}, `window.days has "sat" twice`},
		{lease.Window{days, "2:00", "04:00", "UTC"}, `window.from is "2:00"`},
		{lease.Window{days, "02:00", "24:00", "UTC"}, `window.to is "24:00"`},
		{lease.Window{days, "", "04:00", "UTC"}, `window.from is ""`},
		{lease.Window{days, "02:00", "02:00", "UTC"}, "so the window is empty"},
		{lease.Window{days, "02:00", "04:00", ""}, `window.timezone is ""`},
		{lease.Window{days, "02:00", "04:00", "Local"}, `window.timezone is "Local"`},
		{lease.Window{days, "02:00", "04:00", "Europe/Bielefeld"}, `window.timezone is "Europe/Bielefeld"`},
		{lease.Window{days, "02:00", "04:00", "../../etc/passwd"}, `window.timezone is "../../etc/passwd"`},
	} {
		err := test.window.Check()
		if test.want == "" && err != nil || test.want != "" && (!fault.Is(err, fault.Invalid) ||
			!strings.Contains(err.Error(), test.want)) {
			t.Errorf("%+v: %v", test.window, err)
		}
	}
}

// A window that is closed for longer than a credential may wait is refused.
func TestWindowTooRare(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for _, test := range []struct {
		window lease.Window
		closed time.Duration
	}{
		{lease.Window{[]string{"sat"}, "02:00", "04:00", "UTC"}, 7*day - 2*time.Hour},
		{lease.Window{[]string{"sat"}, "22:00", "02:00", "UTC"}, 7*day - 4*time.Hour},
		{lease.Window{[]string{"sat", "sun"}, "02:00", "04:00", "UTC"}, 6*day - 2*time.Hour},
		{lease.Window{[]string{"wed", "mon"}, "02:00", "04:00", "UTC"}, 5*day - 2*time.Hour},
		{lease.Window{[]string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}, "04:00", "02:00", "UTC"}, 2 * time.Hour},
	} {
		if err := test.window.TooRare(test.closed); err != nil {
			t.Errorf("%+v: %v", test.window, err)
		}
		if err := test.window.TooRare(test.closed - time.Minute); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", test.window, err)
		}
	}
}
