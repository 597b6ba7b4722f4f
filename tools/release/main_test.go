package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// version is that of the program in the tests, as make builds one between two releases.
const version = "0.2.0-dev+0123456789ab"

const commit = "0123456789abcdef0123456789abcdef01234567"

var at = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

func TestMain(m *testing.M) {
	if os.Getenv(onMachine) != "" {
		os.Exit(m.Run())
	}
	os.Exit(testMain(m))
}

// testMain changes to a folder that has what the root of the repository has after make: bin with the programs, and the rest.
func testMain(m *testing.M) int {
	root, err := os.MkdirTemp("", "rolecall-release-")
	if err == nil {
		defer os.RemoveAll(root)
		err = buildIn(root)
	}
	if err == nil {
		err = os.Chdir(root)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func buildIn(root string) error {
	repository, err := filepath.Abs("../..")
	if err != nil {
		return err
	}
	names := []string{".dockerignore", "CHANGELOG.md", "LICENSE", "VERSION", "deploy", "docs", "packaging", "scripts"}
	for _, name := range names {
		if err := os.Symlink(filepath.Join(repository, name), filepath.Join(root, name)); err != nil {
			return err
		}
	}
	built := filepath.Join(root, "bin", "rolecall")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-trimpath",
		"-ldflags=-s -w -X main.version="+version+" -X main.commit="+commit, "-o", built, "./cmd/rolecall")
	cmd.Dir = repository
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%v: %w", cmd.Args, err)
	}
	// What a release does with a program depends neither on its platform nor on its size. A small file stands for most.
	for _, platform := range []string{here(), "linux-riscv64", "darwin-arm64"} {
		if err := os.Mkdir(filepath.Join(root, "bin", platform), 0o755); err != nil {
			return err
		}
		if platform == here() {
			err = os.Link(built, filepath.Join(root, program(platform)))
		} else {
			err = os.WriteFile(filepath.Join(root, program(platform)), []byte("#!/bin/sh\n"), 0o755)
		}
		if err != nil {
			return err
		}
		bill := filepath.Join(root, program(platform)+".cdx.json")
		if err := os.WriteFile(bill, []byte("{}\n"), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// here is the platform of this machine.
func here() string { return "linux-" + runtime.GOARCH }

// run runs a command and returns what it prints.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	var errOut strings.Builder
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s%s", cmd.Args, err, out, &errOut)
	}
	return string(out)
}

// asRoot runs a shell script as root, who alone may mount.
func asRoot(t *testing.T, script string, args ...string) string {
	t.Helper()
	command := append([]string{"unshare", "--mount", "--net", "--pid", "--ipc", "--fork", "--kill-child", "sh", "-euc", script,
		"sh"}, args...)
	if os.Geteuid() != 0 {
		command = append([]string{"sudo"}, command...)
	}
	return run(t, command[0], command[1:]...)
}
