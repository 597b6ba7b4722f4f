package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"rolecall/internal/cli"
	"rolecall/internal/cli/term"
)

// TestInterrupt: a signal ends a command that waits for the server, with the exit code of that signal. There is a message
// only if the server may have changed something.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args    []string
		signal  syscall.Signal
		code    int
		message string
	}{
		"a request": {[]string{"clusters", "list"}, syscall.SIGINT, term.ExitInterrupted, ""},
		"an export": {[]string{"audit", "-o", "jsonl"}, syscall.SIGINT, term.ExitInterrupted, ""},
		"following": {[]string{"audit", "--follow"}, syscall.SIGINT, term.ExitInterrupted, ""},
		"watching": {[]string{"operations", "watch", "x"}, syscall.SIGINT, term.ExitInterrupted,
			"The operation goes on. To watch " +
				"it: rolecall operations watch x. To cancel it: rolecall operations cancel x.\n"},
		"terminated": {[]string{"audit", "--follow"}, syscall.SIGTERM, 143, ""},
		"a change": {[]string{"tokens", "create", "x"}, syscall.SIGINT, term.ExitInterrupted,
			"rolecall: interrupted; the server may still complete the request\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			waits := make(chan struct{}, 1)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				following := r.URL.Query().Has("wait")
				switch {
				case strings.HasSuffix(r.URL.Path, "/whoami"):
					_, _ = io.WriteString(w, "{}")
				case strings.HasSuffix(r.URL.Path, "/audit") && !following && r.Header.Get("Accept") == "application/json":
					_, _ = io.WriteString(w, `{"items":[],"next":null}`)
				default:
					_, _ = io.Copy(io.Discard, r.Body)
					waits <- struct{}{}
					<-r.Context().Done()
				}
			}))
			t.Cleanup(server.Close)
			p := beginProcess(t, []string{cli.URLVariable + "=" + server.URL, cli.TokenVariable + "=t"}, test.args...)
			select {
			case <-waits:
			case <-p.done:
				t.Fatalf("rolecall ended with %d: %s", p.code, p.errOut)
			}
			if err := p.process.Signal(test.signal); err != nil {
				t.Fatal(err)
			}
			if code := p.wait(t); code != test.code || p.errOut.String() != test.message {
				t.Errorf("exit code %d, printed %q; want %d and %q", code, p.errOut, test.code, test.message)
			}
		})
	}
}

// TestClosedPipe: a command whose reader has gone, as in rolecall … | head -1, ends by SIGPIPE, without a word.
func TestClosedPipe(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"version"}, {"--version"}, {"users", "--help"}, {"version", "-o", "yaml"}} {
		reader, writer, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		reader.Close()
		state, said := runInto(t, writer, args...)
		if status, ok := state.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGPIPE || said != "" {
			t.Errorf("rolecall %q: %v, said %q; want the end by SIGPIPE", args, state, said)
		}
	}
}

// TestFullDevice: output that cannot be written is an error.
func TestFullDevice(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"version"}, {"version", "-o", "json"}, {"--version"}, {"--help"}, {"users", "--help"}, {"help", "users"},
		{"completion", "bash"},
	} {
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		state, said := runInto(t, full, args...)
		if state.ExitCode() != term.ExitFailed || !strings.Contains(said, "no space left on device") || !isSentence(said) {
			t.Errorf("rolecall %q: %v, said %q; want exit code 1 and the reason", args, state, said)
		}
	}
}

// runInto runs rolecall with a file as its standard output, which it closes.
func runInto(t *testing.T, out *os.File, args ...string) (state *os.ProcessState, said string) {
	t.Helper()
	defer out.Close()
	cmd := exec.Command(executable(t), args...)
	cmd.Env = []string{asProgram + "=1"}
	var errOut buffer
	cmd.Stdout, cmd.Stderr = out, &errOut
	_ = cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatalf("rolecall %q was not started", args)
	}
	return cmd.ProcessState, errOut.String()
}
