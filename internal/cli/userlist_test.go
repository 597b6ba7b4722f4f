package cli

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestMD5Counter(t *testing.T) {
	t.Parallel()
	hash := strings.Repeat("0a", 16)
	list := `"a" "md5` + hash + `"` + "\n" + `"b" "SCRAM-SHA-256$4096:x"` + "\n" + `"c"" ""md5` + hash + `" ` +
		`"SCRAM-SHA-256$4096:x"` + "\n" + `"d" "md5` + hash + `"` + "\n"
	var whole, bytewise md5Counter
	if _, err := whole.Write([]byte(list)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(&bytewise, iotest.OneByteReader(strings.NewReader(list))); err != nil {
		t.Fatal(err)
	}
	if whole.count != 2 || bytewise.count != 2 {
		t.Errorf("counted %d and %d", whole.count, bytewise.count)
	}
}
