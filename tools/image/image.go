// Package image writes the container image of Rolecall as an OCI image layout. It needs no container engine and no base
// image.
package image

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"

	"rolecall/tools/archive"
)

// About is what the image says about itself.
type About struct {
	Version string
	Commit  string
	Time    time.Time // of the image and of all its files
	License []byte
}

// Tag is the tag of the image of a version. A tag cannot contain a plus sign.
func Tag(version string) string { return strings.ReplaceAll(version, "+", "-") }

// Write writes an image for several architectures into a new folder. The same programs give the same bytes.
func Write(folder string, about About, architectures []string, program func(architecture string) string) error {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, architecture := range architectures {
		img, err := forPlatform(about, architecture, program(architecture))
		if err != nil {
			return fmt.Errorf("the image for %s: %w", architecture, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        img,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: architecture}},
		})
	}
	path, err := layout.Write(folder, empty.Index)
	if err != nil {
		return err
	}
	return path.AppendIndex(index, layout.WithAnnotations(map[string]string{
		"org.opencontainers.image.ref.name": Tag(about.Version),
	}))
}

func forPlatform(about About, architecture, program string) (v1.Image, error) {
	data, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	files, err := files(about, data)
	if err != nil {
		return nil, err
	}
	var tar bytes.Buffer
	if err := archive.Tar(&tar, about.Time, files); err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(tar.Bytes())), nil }
	layer, err := tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	created := v1.Time{Time: about.Time}
	img, err = mutate.Append(img, mutate.Addendum{
		Layer:   layer,
		History: v1.History{Created: created, CreatedBy: "make image"},
	})
	if err != nil {
		return nil, err
	}
	return mutate.ConfigFile(img, config(img, about, created, architecture))
}

// config keeps what the layer has set.
func config(img v1.Image, about About, created v1.Time, architecture string) *v1.ConfigFile {
	c := &v1.ConfigFile{OS: "linux", Architecture: architecture, Created: created}
	if of, err := img.ConfigFile(); err == nil {
		c.RootFS, c.History = of.RootFS, of.History
	}
	c.Config = v1.Config{
		User:       "65532:65532",
		Entrypoint: []string{"/usr/bin/rolecall"},
		Cmd:        []string{"serve"},
		// In a container a listener on loopback has no clients.
		Env:          []string{"PATH=/usr/bin", "ROLECALL_LISTEN=0.0.0.0:8080", "ROLECALL_METRICS_LISTEN=0.0.0.0:9180"},
		ExposedPorts: map[string]struct{}{"8080/tcp": {}, "9180/tcp": {}},
		Labels: map[string]string{
			"org.opencontainers.image.title":       "rolecall",
			"org.opencontainers.image.description": "PostgreSQL users as a service, on your own PostgreSQL",
			"org.opencontainers.image.version":     about.Version,
			"org.opencontainers.image.revision":    about.Commit,
			"org.opencontainers.image.created":     about.Time.UTC().Format(time.RFC3339),
			"org.opencontainers.image.licenses":    "Apache-2.0",
		},
	}
	return c
}

// files are all that the image contains: no shell, no library, no other program.
func files(about About, program []byte) ([]archive.File, error) {
	roots, err := certificates()
	if err != nil {
		return nil, err
	}
	return []archive.File{
		{Name: "etc/group", Mode: 0o644, Data: []byte("nonroot:x:65532:\n")},
		{Name: "etc/passwd", Mode: 0o644, Data: []byte("nonroot:x:65532:65532:nonroot:/:/sbin/nologin\n")},
		{Name: "etc/ssl/certs/ca-certificates.crt", Mode: 0o644, Data: roots},
		{Name: "usr/bin/rolecall", Mode: 0o755, Data: program},
		{Name: "usr/share/doc/rolecall/LICENSE", Mode: 0o644, Data: about.License},
	}, nil
}

// certificates are the authorities that Mozilla trusts, of the version in go.mod. A bundle in a file cannot express that
// Mozilla trusts some for old certificates only, so these are omitted.
func certificates() ([]byte, error) {
	var all bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint != nil {
			continue
		}
		if err := pem.Encode(&all, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}); err != nil {
			return nil, err
		}
	}
	return all.Bytes(), nil
}
