package audit_test

import (
	"strings"
	"testing"

	"rolecall/internal/audit"
	"rolecall/internal/fault"
)

// FuzzParsePoint: a place in the chain is written in one way only.
func FuzzParsePoint(f *testing.F) {
	mac := strings.Repeat("0a", 32)
	for _, s := range []string{"", ":", "1:", "1:" + mac, "01:" + mac, "+1:" + mac, "0:" + mac, "-1:" + mac,
		"1:" + strings.ToUpper(mac), "1:" + mac + "0a", "9223372036854775808:" + mac, "1:" + mac + ":", "1:\x00", "é:" + mac} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := audit.ParsePoint(text)
		switch {
		case err == nil && (p.String() != text || p.Seq < 1 || len(p.MAC) != 32):
			t.Errorf("%q is %+v", text, p)
		case err != nil && !fault.Is(err, fault.Invalid):
			t.Errorf("%q: %v", text, err)
		}
	})
}
