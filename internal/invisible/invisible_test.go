package invisible_test

import (
	"testing"

	"rolecall/internal/invisible"
)

func TestEscape(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", ""},
		{"joe", "joe"},
		{"josé 名前 عمر 👍", "josé 名前 عمر 👍"},
		{"a\u00a0b\ufffd", "a\u00a0b\ufffd"},
		{"new\nline\r\t", `new\nline\r\t`},
		{"\x1b[2J\x7f\u0085", `\x1b[2J\x7f\u0085`},
		{"admin\u200b", `admin\u200b`},
		{"\u200d\u2060\ufeff\u00ad", `\u200d\u2060\ufeff\u00ad`},
		{"a\u202eb\u2066", `a\u202eb\u2066`},
		{"a\u2028b\u2029", `a\u2028b\u2029`},
		{"a\u3164\u115f\u034f\ufe0f", `a\u3164\u115f\u034f\ufe0f`},
		{"a\U000e0041", `a\U000e0041`},
		{"jos\xe9", `jos\xe9`},
	} {
		if got := invisible.Escape(tt.in); got != tt.want {
			t.Errorf("%+q becomes %q, want %q", tt.in, got, tt.want)
		}
		if got := invisible.In(tt.want); got {
			t.Errorf("%q has an invisible character", tt.want)
		}
	}
}
