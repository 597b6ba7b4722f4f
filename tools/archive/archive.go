// Package archive writes archives whose bytes depend on the files alone: not on the machine, its users or the time.
package archive

import (
	"archive/tar"
	"compress/gzip"
	"fmt"
	"io"
	"path"
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
	written := map[string]bool{".": true}
	var folder func(name string) error
	folder = func(name string) error {
		if written[name] {
			return nil
		}
		written[name] = true
		if err := folder(path.Dir(name)); err != nil {
			return err
		}
		return t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, ModTime: at})
	}
	for _, f := range files {
		if err := folder(path.Dir(f.Name)); err != nil {
			return err
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
