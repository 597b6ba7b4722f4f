// Command release writes what a release consists of into a folder: archives, packages, the container image, the chart, bills
// of materials and checksums. It runs in the root of the repository, after make has built the programs: one for this
// machine, and bin/OS-ARCHITECTURE/rolecall and rolecall.cdx.json for each platform. The same commit gives the same bytes.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"rolecall/tools/image"
	"rolecall/tools/packages"
)

func main() {
	var b build
	flag.StringVar(&b.version, "version", "", "version of the programs")
	flag.StringVar(&b.commit, "commit", "", "commit from which they were built")
	flag.StringVar(&b.out, "out", "dist", "folder to write to")
	platforms := flag.String("platforms", "", "platforms as OS-ARCHITECTURE, separated by spaces")
	flag.Parse()
	b.platforms = strings.Fields(*platforms)
	err := b.timeOfCommit(os.Getenv("SOURCE_DATE_EPOCH"))
	if err == nil {
		err = b.run(flag.Arg(0))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// build is what was built, and where the release is written to.
type build struct {
	version, commit string
	time            time.Time
	platforms       []string
	out             string
}

func (b *build) timeOfCommit(epoch string) error {
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH is %q; it must be the time of the commit in seconds", epoch)
	}
	b.time = time.Unix(seconds, 0).UTC()
	return nil
}

func (b *build) run(what string) error {
	if b.version == "" || len(b.platforms) == 0 {
		return errors.New("-version and -platforms are needed; run make release")
	}
	if err := os.MkdirAll(b.out, 0o755); err != nil {
		return err
	}
	switch what {
	case "image":
		return b.image()
	case "packages":
		return b.packages()
	case "all":
		return b.all()
	}
	return fmt.Errorf("there is no %q; use image, packages or all", what)
}

// all begins with an empty folder, so that the checksums are of this release only.
func (b *build) all() error {
	if err := os.RemoveAll(b.out); err != nil {
		return err
	}
	if err := os.MkdirAll(b.out, 0o755); err != nil {
		return err
	}
	for _, step := range []func() error{b.archives, b.bills, b.packages, b.chart, b.image, b.imageArchive, b.checksums} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func program(platform string) string { return filepath.Join("bin", platform, "rolecall") }

// architectures are those of the platforms with Linux.
func (b *build) architectures() (found []string) {
	for _, platform := range b.platforms {
		if architecture, ok := strings.CutPrefix(platform, "linux-"); ok {
			found = append(found, architecture)
		}
	}
	slices.Sort(found)
	return found
}

// imageFolder is where the image is written as an OCI image layout.
func (b *build) imageFolder() string { return filepath.Join(b.out, "image") }

func (b *build) image() error {
	license, err := os.ReadFile("LICENSE")
	if err != nil {
		return err
	}
	if err := os.RemoveAll(b.imageFolder()); err != nil {
		return err
	}
	about := image.About{Version: b.version, Commit: b.commit, Time: b.time, License: license}
	return image.Write(b.imageFolder(), about, b.architectures(),
		func(architecture string) string { return program("linux-" + architecture) })
}

func (b *build) packages() error {
	documents, err := documents()
	if err != nil {
		return err
	}
	defer os.RemoveAll(documents)
	for _, architecture := range b.architectures() {
		for _, format := range packages.Formats {
			_, err := packages.Write(b.out, format, b.time, map[string]string{
				"ARCHITECTURE": architecture, "VERSION": b.version, "DOCUMENTS": documents,
				"PROGRAM": program("linux-" + architecture),
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}
