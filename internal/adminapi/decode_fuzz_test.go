package adminapi

import (
	"net/url"
	"testing"

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
