package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// documents writes the manual pages and the completions of the shells into a new folder, which the caller removes. The
// program of this machine prints them.
func documents() (folder string, err error) {
	if folder, err = os.MkdirTemp("", "rolecall-release-"); err != nil {
		return "", err
	}
	if err := writeDocuments(folder); err != nil {
		return "", errors.Join(err, os.RemoveAll(folder))
	}
	return folder, nil
}

func writeDocuments(folder string) error {
	man, completions := filepath.Join(folder, "man"), filepath.Join(folder, "completions")
	if _, err := output("man", man); err != nil {
		return err
	}
	pages, err := filepath.Glob(filepath.Join(man, "*.1"))
	if err != nil {
		return err
	}
	for _, page := range pages {
		if err := compress(page); err != nil {
			return err
		}
	}
	if err := os.Mkdir(completions, 0o755); err != nil {
		return err
	}
	for _, shell := range []string{"bash", "fish", "zsh"} {
		script, err := output("completion", shell)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(completions, "rolecall."+shell), script, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func output(args ...string) ([]byte, error) {
	cmd := exec.Command("bin/rolecall", args...)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%v: %w: %s", cmd.Args, err, &errOut)
	}
	return out, nil
}

// compress replaces a file by its compressed form, as distributions have manual pages.
func compress(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var compressed bytes.Buffer
	z := gzip.NewWriter(&compressed)
	if _, err := z.Write(text); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	if err := os.WriteFile(path+".gz", compressed.Bytes(), 0o644); err != nil {
		return err
	}
	return os.Remove(path)
}
