package console

import "testing"

// A person sees the labels of the form, and not the fields of the API.
func TestMessagesHaveLabels(t *testing.T) {
	for message, want := range map[string]string{
		"The field displayName is missing.":                "“Name” is missing.",
		"The field access.manage[1] is no selector: at x.": "Line 2 of “May manage” is no selector: at x.",
		"The field leases.maxTtl is 1s; use 1m.":           "“The longest lease” is 1s; use 1m.",
		"The field overlap is 9h; use at most rotateEvery, x.": "“Accept the replaced one for” is 9h; " +
			"use at most “Replace the password every”, x.",
		"The field \"overlap\" and the field nothing[0] are odd.": "The field \"overlap\" and the field nothing[0] are odd.",
	} {
		if got := withLabels(message); got != want {
			t.Errorf("withLabels(%q) = %q, want %q", message, got, want)
		}
	}
}
