package term

import (
	"bytes"
	"slices"
	"testing"
)

func TestTable(t *testing.T) {
	var out bytes.Buffer
	if err := PrintTable(&out, [][]string{{"NAME", "ON"}, {"a\x1b[2Jb\u202e", "x"}, {"é", ""}}); err != nil {
		t.Fatal(err)
	}
	if want := "NAME             ON\na\\x1b[2Jb\\u202e  x\né\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	widths := []int{4, 60, 30, 36}
	fit(widths, 80)
	if want := []int{4, 23, 23, 24}; !slices.Equal(widths, want) && widths[0]+widths[1]+widths[2]+widths[3] != 74 {
		t.Errorf("columns of 4, 60, 30 and 36 fit 80 as %v, want about %v", widths, want)
	}
	if got := cut("abcdef", 4); got != "abc…" {
		t.Errorf("cut to %q", got)
	}
}

// TestOtherServer looks at what is said of a server that is not one of Rolecall, or of another version.
