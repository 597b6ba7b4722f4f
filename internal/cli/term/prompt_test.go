package term

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/spf13/cobra"
)

// terminals stay open until the process ends. An interrupted prompt goes on reading, and later resets the terminal by the
// number of its file: another test's file must not get that number.
var terminals struct {
	sync.Mutex
	files []*os.File
}

// openTerminal returns both ends of a new terminal: keyboard, where a test types and sees what is echoed, and the
// terminal itself.
func openTerminal(t *testing.T) (keyboard, tty *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
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
	terminals.Lock()
	defer terminals.Unlock()
	terminals.files = append(terminals.files, keyboard, tty)
	return keyboard, tty
}

// patience is how long a prompt may take before a test fails.
const patience = 60 * time.Second

// echoes reports whether a terminal shows what is typed.
func echoes(t *testing.T, tty *os.File) bool {
	t.Helper()
	var settings syscall.Termios
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, tty.Fd(), syscall.TCGETS,
		uintptr(unsafe.Pointer(&settings))); errno != 0 {
		t.Fatal(errno)
	}
	return settings.Lflag&syscall.ECHO != 0
}

// typist runs f on a terminal, types a line each time a prompt appears, and returns what was on the screen. A hidden line is
// typed once the terminal shows no more, which is a moment after the prompt.
func typist(t *testing.T, hidden bool, lines map[string]string, f func(cmd *cobra.Command) error) (
	screen string, err error) {
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
	echoed := make(chan string)
	go func() {
		for buf := make([]byte, 1024); ; {
			n, err := keyboard.Read(buf)
			if err != nil {
				return
			}
			select {
			case echoed <- string(buf[:n]):
			case <-t.Context().Done():
				return
			}
		}
	}()
	typed := map[string]bool{}
	for timeout := time.After(patience); ; {
		select {
		case err := <-done:
			return screen, err
		case text := <-echoed:
			screen += text
		case <-timeout:
			t.Fatal("the prompt waits for more:\n" + screen)
		}
		for prompt, line := range lines {
			if !strings.Contains(screen, prompt) || typed[prompt] {
				continue
			}
			typed[prompt] = true
			for end := time.Now().Add(patience); hidden && echoes(t, tty) && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
			if line == "\x03" {
				cancel() // as Ctrl-C does
			} else if _, err := io.WriteString(keyboard, line+"\n"); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestPasswordPrompt(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		first, second, want, err string
	}{
		"the same twice":    {"correct horse", "correct horse", "correct horse", ""},
		"spaces are kept":   {" a b ", " a b ", " a b ", ""},
		"differ":            {"correct horse", "battery staple", "", "differ"},
		"empty":             {"", "", "", "empty"},
		"interrupted":       {"\x03", "", "", "interrupted"},
		"interrupted later": {"correct horse", "\x03", "", "interrupted"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got string
			screen, err := typist(t, true, map[string]string{
				"New password of app: ": test.first, "Repeat the password: ": test.second,
			}, func(cmd *cobra.Command) (err error) {
				got, err = NewPassword(cmd, "app")
				return err
			})
			if test.err == "" && (err != nil || got != test.want) || test.err != "" && (err == nil ||
				!strings.Contains(err.Error(), test.err)) {
				t.Errorf("got %q, %v; want %q, %q", got, err, test.want, test.err)
			}
			if err != nil && (ExitCode(err) == 130) != (test.err == "interrupted") {
				t.Errorf("%v: the exit code is %d", err, ExitCode(err))
			}
			if strings.Contains(screen, "horse") || strings.Contains(screen, "a b") {
				t.Errorf("the password stands on the screen:\n%s", screen)
			}
		})
	}
}

func TestConsent(t *testing.T) {
	t.Parallel()
	for answer, ok := range map[string]bool{"y": true, "YES": true, " yes ": true, "n": false, "": false, "yess": false,
		"\x03": false} {
		_, err := typist(t, false, map[string]string{`Delete "a\x1bb"? [y/N]`: answer},
			func(cmd *cobra.Command) error {
				return Confirm(cmd, "Delete \"a\x1bb\"?")
			})
		if (err == nil) != ok {
			t.Errorf("after the answer %q: %v", answer, err)
		}
		if err != nil && (ExitCode(err) == 130) != (answer == "\x03") {
			t.Errorf("after the answer %q: %v: the exit code is %d", answer, err, ExitCode(err))
		}
	}
}

// Standard input that goes on after the password is refused: of a password with a line break a part would be lost.
func TestNewPasswordFromStdin(t *testing.T) {
	for input, want := range map[string]string{
		"the password": "the password", "the password\n": "the password", "the password\r\n": "the password",
		"the password\n\n": "the password", "the pass\nword\n": "", "the pass\n\nword": "", "\nthe password": "", "": "",
	} {
		cmd := &cobra.Command{}
		BindPassword(cmd, true)
		if err := cmd.Flags().Set("password-stdin", "true"); err != nil {
			t.Fatal(err)
		}
		cmd.SetIn(strings.NewReader(input))
		got, err := NewPassword(cmd, "ann")
		if (err == nil) != (want != "") || err == nil && got != want {
			t.Errorf("%q: %q, %v", input, got, err)
		}
	}
}
