package console

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"regexp"
	"strings"
	"testing"
)

// The script of others is the one that was chosen: htmx.org 4.0.1 of npm, dist/htmx.min.js.
func TestVendoredScript(t *testing.T) {
	const want = "a0abb04f2f45a1f89d1d4844023245537e5e6014c87b144553e0607b4cc32130"
	sum := sha256.Sum256(staticFiles["htmx.min.js"].data)
	if got := hex.EncodeToString(sum[:]); got != want {
		t.Errorf("htmx.min.js has the SHA-256 %s, not %s", got, want)
	}
}

// Each page has a template that can be parsed, which happens when it is first shown.
func TestTemplatesParse(t *testing.T) {
	found, err := fs.Glob(files, "templates/*/*.html")
	if err != nil || len(found) == 0 {
		t.Fatal(err, len(found))
	}
	for _, file := range found {
		if _, err := pageTemplate(strings.TrimPrefix(file, "templates/")); err != nil {
			t.Error(err)
		}
	}
	if _, err := pageTemplate("start/none.html"); err == nil {
		t.Error("there is a template of a page that does not exist")
	}
}

// The policy of the pages forbids inline code and styles, so none is written: it would only be missing.
func TestTemplatesAreStrict(t *testing.T) {
	found, err := fs.Glob(files, "templates/*/*.html")
	if err != nil || len(found) == 0 {
		t.Fatal(err, len(found))
	}
	forbidden := regexp.MustCompile(`(?i)\son[a-z]+=|\sstyle=|<style|<script(?: [^>]*)?>[^<]|javascript:|hx-on|js:|` +
		`https?://[a-z]`)
	for _, name := range found {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(text), "\n") {
			if m := forbidden.FindString(line); m != "" {
				t.Errorf("%s:%d has %q", name, i+1, m)
			}
		}
	}
}
