package label_test

import (
	"strings"
	"testing"

	"rolecall/internal/label"
)

func TestCheckValue(t *testing.T) {
	long := strings.Repeat("v", 63)
	for _, test := range []struct{ name, value, want string }{
		{"empty", "", ""},
		{"one character", "a", ""},
		{"all classes", "A.b_c-9", ""},
		{"63", long, ""},

		{"space", " ", "' ' contains invalid characters"},
		{"slash", "a/b", "'a/b' contains invalid characters"},
		{"comma", "a,b", "'a,b' contains invalid characters"},
		{"newline after", "a\n", "'a\n' contains invalid characters"},
		{"letters", "ü", "'ü' contains invalid characters"},
		{"bad characters before length", strings.Repeat("ü", 64), "'" + strings.Repeat("ü", 64) + "' contains invalid characters"},
		{"hyphen first", "-a", "'-a' starts or ends with invalid characters"},
		{"dot last", "a.", "'a.' starts or ends with invalid characters"},
		{"bad ends before length", long + ".", "'" + long + ".' starts or ends with invalid characters"},
		{"64", long + "v", "'vvvvvvvv...' is greater than 63 characters"},
	} {
		t.Run(test.name, func(t *testing.T) { checkInvalid(t, label.CheckValue(test.value), test.want) })
	}
}

func TestCheckAnnotation(t *testing.T) {
	for _, test := range []struct{ name, value, want string }{
		{"empty", "", ""},
		{"anything", " \n/é, 日本 -", ""},
		{"5000", strings.Repeat("a", 5000), ""},
		{"5000 of four bytes", strings.Repeat("🙂", 5000), ""},
		{"5001", strings.Repeat("a", 5001), "'aaaaaaaa...' is greater than 5000 characters"},
		{"5001 of four bytes", strings.Repeat("🙂", 5001), "'🙂🙂🙂🙂🙂🙂🙂🙂...' is greater than 5000 characters"},
		{"NUL", "a\x00b", "'a\x00b...' contains characters that cannot be stored"},
		{"invalid UTF-8", "a\xff", "'a\xff...' contains characters that cannot be stored"},
	} {
		t.Run(test.name, func(t *testing.T) { checkInvalid(t, label.CheckAnnotation(test.value), test.want) })
	}
}
