package format

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// CheckBinding reports why WriteBinding would refuse the folder.
func CheckBinding(dir string) error {
	_, err := isBinding(dir)
	return err
}

// isBinding reports whether WriteBinding has written the folder. Anything else that is not an empty folder is an error.
func isBinding(dir string) (bool, error) {
	info, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		parent := filepath.Dir(filepath.Clean(dir))
		if _, err := os.Stat(parent); err != nil {
			return false, fmt.Errorf("the folder %s does not exist; create it first", parent)
		}
		return false, nil
	}
	if err != nil {
		return false, unwritable(dir, err)
	}
	other := fmt.Errorf("%s exists and was not written by rolecall; give a folder that is empty or does not exist", dir)
	if !info.IsDir() {
		return false, other
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) == 0 {
		return false, err
	}
	known := map[string]bool{}
	for _, entry := range (&Login{Hosts: []Host{{}}}).entries() {
		known[entry[0]] = true
	}
	for _, file := range files {
		if !known[file.Name()] || !file.Type().IsRegular() {
			return false, other
		}
	}
	if by, err := os.ReadFile(filepath.Join(dir, "provider")); err != nil || string(by) != provider {
		return false, other
	}
	return true, nil
}

// WriteBinding writes the files of a service binding into a new folder, which only the caller can read. It replaces an empty
// folder and one that it has written before, and nothing else. A reader finds all files of one login or none.
func WriteBinding(dir string, l *Login) error {
	dir = filepath.Clean(dir)
	replaces, err := isBinding(dir)
	if err != nil {
		return err
	}
	made, err := os.MkdirTemp(filepath.Dir(dir), ".rolecall-binding-") // with mode 0700
	if err != nil {
		return unwritable(dir, err)
	}
	defer os.RemoveAll(made)
	files := filepath.Join(made, "new")
	if err := os.Mkdir(files, 0o700); err != nil {
		return err
	}
	for _, entry := range l.entries() {
		if err := os.WriteFile(filepath.Join(files, entry[0]), []byte(entry[1]), 0o600); err != nil {
			return err
		}
	}
	if !replaces {
		_ = syscall.Rmdir(dir) // it is empty or does not exist
		return os.Rename(files, dir)
	}
	old := filepath.Join(made, "old")
	if err := os.Rename(dir, old); err != nil {
		return err
	}
	if err := os.Rename(files, dir); err != nil {
		return errors.Join(err, os.Rename(old, dir))
	}
	return nil
}

// unwritable is the error of a folder, without the call and the temporary name that failed.
func unwritable(dir string, err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	return fmt.Errorf("the folder %s cannot be written: %w", dir, err)
}
