package cli

import (
	"errors"
	"os"
	"path/filepath"
)

// replaceFile replaces a file as a whole, with one that only its owner reads: other commands read it at the same time, and
// a crash must not leave half of it.
func replaceFile(path string, data []byte) error {
	return writeFile(path, data, os.Rename)
}

// createFile creates such a file. If there is one, it is an fs.ErrExist.
func createFile(path string, data []byte) error {
	return writeFile(path, data, os.Link)
}

// writeFile writes a temporary file and moves it to its place.
func writeFile(path string, data []byte, move func(from, to string) error) error {
	folder := filepath.Dir(path)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(folder, ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // unless it was renamed
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = move(f.Name(), path)
	}
	if err != nil {
		return err
	}
	opened, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(opened.Sync(), opened.Close())
}
