package e2e

import (
	"bytes"
	"cmp"
	"fmt"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
)

// maxPicture is the size of a picture in the documentation, in bytes.
const maxPicture = 150_000

// picture is a page in the documentation.
type picture struct {
	file   string
	path   func(c *company) string
	scheme string
	// heading is what the page shows when it is complete.
	heading string
}

var pictures = []picture{
	{"console-start", at("/console/"), "light", "Start"},
	{"console-start-dark", at("/console/"), "dark", "Start"},
}

// at is the path of a page; {1}, {2} and {3} stand for the clusters.
func at(path string) func(*company) string {
	return func(c *company) string {
		for i, name := range plain.clusters {
			path = string(bytes.ReplaceAll([]byte(path), fmt.Appendf(nil, "{%d}", i+1), []byte(c.clusters[name])))
		}
		return path
	}
}

// TestPictures writes the pictures of the documentation into the folder ROLECALL_PICTURES, which "make screenshots" sets.
func TestPictures(t *testing.T) {
	dir := cmp.Or(os.Getenv("ROLECALL_PICTURES"), t.TempDir())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	c := newCompany(t, plain)
	b := openTab(t, c.env["ROLECALL_URL"], anyHands[0])
	call(b, emulation.SetDeviceMetricsOverride,
		emulation.SetDeviceMetricsOverrideParams{Width: 1440, Height: 900, DeviceScaleFactor: 1})
	b.signIn(c.people["admin"])
	for _, p := range pictures {
		b.scheme(p.scheme)
		b.open(p.path(c))
		b.sees(p.heading)
		b.eternal()
		data := call(b, page.CaptureScreenshot, page.CaptureScreenshotParams{Format: page.CaptureScreenshotFormatPng}).Data
		small := smaller(t, data)
		if len(small) > maxPicture {
			t.Errorf("%s has %d bytes", p.file, len(small))
		}
		if err := os.WriteFile(filepath.Join(dir, p.file+".png"), small, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// eternal replaces what differs from one run to the next: ids, ports, addresses, times of day.
func (b *tab) eternal() {
	b.t.Helper()
	eval[bool](b, `(() => {
		const same = text => text
			.replace(/127\.0\.0\.1:\d{4,5}|localhost:\d{4,5}/g, "db.internal:5432")
			.replace(/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g, "6f1c2a4e-9b3d-4c57-8e21-0d5a7f3b9c64")
			.replace(/\d\d:\d\d UTC/g, "09:30 UTC")
		const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
		while (walk.nextNode()) walk.currentNode.data = same(walk.currentNode.data)
		for (const field of document.querySelectorAll("input, textarea")) field.value = same(field.value)
		document.activeElement.blur()
		return true
	})()`)
}

// smaller encodes a picture with as few colors as it has, and as well as PNG can.
func smaller(t *testing.T, data []byte) []byte {
	t.Helper()
	from, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	to := image.NewNRGBA(from.Bounds())
	for y := range from.Bounds().Dy() {
		for x := range from.Bounds().Dx() {
			to.Set(x, y, from.At(x, y))
		}
	}
	var out bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, to); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
