package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/spf13/cobra"
)

// openTerminal returns both ends of a new terminal: keyboard, where a test types and sees what is echoed, and the
// terminal itself.
func openTerminal(t *testing.T) (keyboard, tty *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keyboard.Close() })
	var number, locked int32
	for request, value := range map[uintptr]*int32{syscall.TIOCGPTN: &number, syscall.TIOCSPTLCK: &locked} {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, keyboard.Fd(), request, uintptr(unsafe.Pointer(value))); errno != 0 {
			t.Fatal(errno)
		}
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return keyboard, tty
}

// typist runs f on a terminal, types a line each time a prompt is there, and returns what stood on the screen.
func typist(t *testing.T, lines map[string]string, f func(cmd *cobra.Command) error) (screen string, err error) {
	t.Helper()
	keyboard, tty := openTerminal(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := &cobra.Command{}
	cmd.SetContext(ctx)
	cmd.SetIn(tty)
	cmd.SetErr(tty)
	done := make(chan error, 1)
	go func() { done <- f(cmd) }()
	var seen buffer
	go func() { _, _ = io.Copy(&seen, keyboard) }()
	typed := map[string]bool{}
	eventually(t, func() error {
		select {
		case err = <-done:
			return nil
		default:
		}
		for prompt, line := range lines {
			if strings.Contains(seen.String(), prompt) && !typed[prompt] {
				typed[prompt] = true
				if line == "\x03" {
					cancel() // as Ctrl-C does
				} else if _, err := io.WriteString(keyboard, line+"\n"); err != nil {
					t.Error(err)
				}
			}
		}
		return errors.New("it waits for more:\n" + seen.String())
	})
	return seen.String(), err
}

func TestPasswordPrompt(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		first, second, want, err string
	}{
		"the same twice":    {"correct horse", "correct horse", "correct horse", ""},
		"spaces are kept":   {" a b ", " a b ", " a b ", ""},
		"not the same":      {"correct horse", "battery staple", "", "not the same"},
		"empty":             {"", "", "", "empty"},
		"interrupted":       {"\x03", "", "", "interrupted"},
		"interrupted later": {"correct horse", "\x03", "", "interrupted"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got string
			screen, err := typist(t, map[string]string{"New password of app: ": test.first, "Again: ": test.second}, func(cmd *cobra.Command) (err error) {
				got, err = (&passwordFlags{}).read(cmd, "app")
				return err
			})
			if test.err == "" && (err != nil || got != test.want) || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
				t.Errorf("got %q, %v; want %q, %q", got, err, test.want, test.err)
			}
			if strings.Contains(screen, "horse") || strings.Contains(screen, "a b") {
				t.Errorf("the password stands on the screen:\n%s", screen)
			}
		})
	}
}

func TestConsent(t *testing.T) {
	t.Parallel()
	for answer, ok := range map[string]bool{"y": true, "YES": true, " yes ": true, "n": false, "": false, "yess": false, "\x03": false} {
		_, err := typist(t, map[string]string{`Delete "a` + "\ufffd" + `b"? [y/N]`: answer}, func(cmd *cobra.Command) error {
			return (&consent{}).get(cmd, "Delete \"a\x1bb\"?")
		})
		if (err == nil) != ok {
			t.Errorf("after the answer %q: %v", answer, err)
		}
	}
}
