// Package archive writes archives whose bytes depend on the files alone: not on the machine, its users or the time.
package archive

import (
	"archive/tar"
	"compress/gzip"
	"fmt"
	"io"
	"time"
)

// File is a file of an archive. Its folders are written before it.
type File struct {
	Name string // slash-separated and relative
	Mode int64
	Data []byte
}

// Tar writes the files in their order, as root's and with one time.
func Tar(w io.Writer, at time.Time, files []File) error {
	t := tar.NewWriter(w)
	folders := map[string]bool{}
	for _, f := range files {
		for i, c := range f.Name {
			folder := f.Name[:i+1]
			if c != '/' || folders[folder] {
				continue
			}
			folders[folder] = true
			if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: folder, Mode: 0o755, ModTime: at}); err != nil {
				return err
			}
		}
		header := &tar.Header{Typeflag: tar.TypeReg, Name: f.Name, Mode: f.Mode, Size: int64(len(f.Data)), ModTime: at}
		if err := t.WriteHeader(header); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
		if _, err := t.Write(f.Data); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	return t.Close()
}

// TarGzip writes the same, compressed.
func TarGzip(w io.Writer, at time.Time, files []File) error {
	z := gzip.NewWriter(w)
	if err := Tar(z, at, files); err != nil {
		return err
	}
	return z.Close()
}
