package e2e

import (
	"bytes"
	"cmp"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/page"
)

// maxPicture is the size of a picture in the documentation, in bytes.
const maxPicture = 150_000

// picture is a page in the documentation.
type picture struct {
	file string
	path string // {1}, {2} and {3} stand for the ids of the clusters
	// shows is what the page has when it is complete.
	shows string
}

var pictures = []picture{
	{"console-start", "/console/", "users expire within 14 days"},
	{"console-clusters", "/console/clusters", "analytics"},
	{"console-cluster-users", "/console/clusters/{1}", "orders-worker"},
	{"console-cluster-access", "/console/clusters/{1}/access", "team=orders"},
	{"console-database", "/console/clusters/{1}/databases/orders", "orders_write"},
	{"console-user", "/console/clusters/{1}/users/orders-app", "Where it comes from"},
	{"console-user-delete", "/console/clusters/{1}/users/legacy-batch/delete", "What the deletion does"},
	{"console-users", "/console/users", "warehouse-loader"},
	{"console-leases", "/console/leases", "INC-2041"},
	{"console-accounts", "/console/accounts", "alice"},
	{"console-audit", "/console/audit", "alice"},
}

// TestPictures writes the pictures of the documentation into the folder ROLECALL_PICTURES, which "make screenshots" sets.
func TestPictures(t *testing.T) {
	dir := cmp.Or(os.Getenv("ROLECALL_PICTURES"), t.TempDir())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	c := newCompany(t, plain)
	b := openTab(t, c.env["ROLECALL_URL"], anyHands[0])
	b.resize(1440, 900)
	b.signIn(c.people["admin"])
	ids := strings.NewReplacer("{1}", c.clusters[plain.clusters[0]], "{2}", c.clusters[plain.clusters[1]],
		"{3}", c.clusters[plain.clusters[2]])
	save := func(file string) {
		t.Helper()
		b.timeless()
		small := smaller(t, call(b, page.CaptureScreenshot,
			page.CaptureScreenshotParams{Format: page.CaptureScreenshotFormatPng}).Data)
		if len(small) > maxPicture {
			t.Errorf("%s has %d bytes", file, len(small))
		}
		if err := os.WriteFile(filepath.Join(dir, file+".png"), small, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b.scheme("light")
	for _, p := range pictures {
		b.open(ids.Replace(p.path))
		b.sees(p.shows)
		save(p.file)
	}
	b.open(ids.Replace("/console/clusters/{1}/users/new"))
	b.fill("Name", "checkout")
	b.choose("orders", "write")
	save("console-new-user")
	b.press("Create the user")
	b.sees("Copy the password now.")
	save("console-password")
	b.scheme("dark")
	b.open("/console/")
	b.sees(pictures[0].shows)
	save("console-start-dark")
}

// timeless replaces what differs from one run to the next: ids, ports, addresses, times, passwords, names of leases.
func (b *tab) timeless() {
	b.t.Helper()
	eval[bool](b, `(() => {
		const today = Date.parse(new Date().toISOString().slice(0, 10)), fixed = Date.parse("2027-03-01")
		const far = date => Math.abs(Date.parse(date) - today) > 60 * 24 * 3600 * 1000
		const secret = document.querySelector(".secret")?.textContent
		const leases = new Map(), names = ["k3m7q2xd", "p5vzt4ha", "h2wq6ynb", "d7rjc5mk", "w4bxe2ts", "n6fgu3pl"]
		const lease = name => leases.get(name) ?? (leases.set(name, names[leases.size % names.length]), leases.get(name))
		const same = text => (secret ? text.replaceAll(secret, "Xk7mQ2rT9vLw4bNc8hYd") : text)
			.replace(/(127\.0\.0\.1|localhost):\d{4,5}/g, "db.internal:5432").replace(/ \(127\.0\.0\.1\)/g, "")
			.replace(/(?<=PGPORT='|port: ")\d+/g, "5432").replace(/(?<=PGHOST='|host: ")127\.0\.0\.1/g, "db.internal")
			.replace(/127\.0\.0\.1/g, "10.20.0.15")
			.replace(/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g, "6f1c2a4e-9b3d-4c57-8e21-0d5a7f3b9c64")
			.replace(/(?<=_(?:read|write|owner)_)[a-z2-7]{8}\b/g, lease)
			.replace(/\d\d:\d\d(:\d\d)? UTC/g, (_, seconds) => "09:30" + (seconds ? ":12" : "") + " UTC")
			.replace(/\b20\d\d-\d\d-\d\d\b/g, date => far(date) ? date :
				new Date(fixed + Date.parse(date) - today).toISOString().slice(0, 10))
		const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
		while (walk.nextNode()) walk.currentNode.data = same(walk.currentNode.data)
		for (const field of document.querySelectorAll("input, textarea")) field.value = same(field.value)
		document.activeElement.blur()
		return true
	})()`)
}

// smaller encodes a picture with the 256 colors that it has most of.
func smaller(t *testing.T, data []byte) []byte {
	t.Helper()
	from, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	size := from.Bounds()
	count := map[color.NRGBA]int{}
	at := func(x, y int) color.NRGBA { return color.NRGBAModel.Convert(from.At(x, y)).(color.NRGBA) }
	for y := range size.Dy() {
		for x := range size.Dx() {
			count[at(x, y)]++
		}
	}
	colors := slices.SortedFunc(maps.Keys(count), func(a, b color.NRGBA) int {
		return cmp.Or(count[b]-count[a], cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)))
	})
	var palette color.Palette
	for _, c := range colors[:min(256, len(colors))] {
		palette = append(palette, c)
	}
	nearest := map[color.NRGBA]uint8{}
	for _, c := range colors {
		nearest[c] = uint8(palette.Index(c))
	}
	to := image.NewPaletted(size, palette)
	for y := range size.Dy() {
		for x := range size.Dx() {
			to.SetColorIndex(x, y, nearest[at(x, y)])
		}
	}
	var out bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, to); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
