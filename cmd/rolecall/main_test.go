package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptrace"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"rolecall/internal/pgtest"
	"rolecall/internal/servicetest"
)

// asProgram makes the test binary be rolecall, for tests that kill it or need an environment of their own.
const asProgram = "ROLECALL_TEST_AS_PROGRAM"

// leaveAtOnce keeps a process with the race detector from waiting a second for late races before it ends:
// https://go.dev/doc/articles/race_detector#Options
const leaveAtOnce = "GORACE=atexit_sleep_ms=0"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == asCounter {
		countSignals()
	}
	if len(os.Args) == 5 && os.Args[1] == asBrowser {
		browse(os.Args[2], os.Args[3], os.Args[4])
	}
	passwordCost = servicetest.PasswordCost
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Setenv("ROLECALL_DRAIN_DELAY", "0s") // no balancer has to learn that a server stops
	// Servers run in this process, and some tests measure their memory: they collect garbage as they do without tests.
	os.Unsetenv("GOGC")
	debug.SetMemoryLimit(math.MaxInt64)
	pgtest.Main(m, removePrepared)
}

// patience is how long anything may take before a test fails. Two cores may be shared by all packages' tests.
const patience = 60 * time.Second

// program is a rolecall that runs, in this process or in one of its own.
type program struct {
	out, errOut *buffer
	process     *os.Process // nil: in this process
	stop        context.CancelFunc
	code        int           // exit code, -1 for a signal's
	done        chan struct{} // closed when it has ended
}

// begin runs a command line in this process, with the environment of the tests.
func begin(t *testing.T, args ...string) *program {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &program{out: &buffer{}, errOut: &buffer{}, stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.code = run(ctx, args, strings.NewReader(""), p.out, p.errOut)
	}()
	t.Cleanup(func() { p.end(t) })
	return p
}

// beginProcess runs a command line as a process of its own, with only env in its environment.
func beginProcess(t *testing.T, env []string, args ...string) *program {
	t.Helper()
	return beginCommand(t, exec.Command(executable(t), args...), env)
}

// beginCommand runs the test binary as rolecall, with only env in its environment.
func beginCommand(t *testing.T, cmd *exec.Cmd, env []string) *program {
	t.Helper()
	p := &program{out: &buffer{}, errOut: &buffer{}, done: make(chan struct{})}
	cmd.Env = append([]string{asProgram + "=1", leaveAtOnce, "PATH=" + os.Getenv("PATH")}, env...)
	cmd.Stdout, cmd.Stderr = p.out, p.errOut
	// The server that a killed rolecall leaves behind must not outlive the test's pipes.
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.process = cmd.Process
	p.stop = func() { _ = p.process.Signal(syscall.SIGTERM) }
	go func() {
		defer close(p.done)
		_ = cmd.Wait()
		p.code = cmd.ProcessState.ExitCode()
	}()
	t.Cleanup(func() { p.end(t) })
	return p
}

func executable(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// end stops the program as a signal does, and returns its exit code.
func (p *program) end(t *testing.T) int {
	t.Helper()
	p.stop()
	return p.wait(t)
}

func (p *program) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatalf("rolecall did not end:\n%s", p.errOut)
	}
	return p.code
}

// execute runs a command line in this process to its end.
func execute(t *testing.T, stdin string, args ...string) (code int, out, errOut string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var o, e buffer
	code = run(ctx, args, strings.NewReader(stdin), &o, &e)
	return code, o.String(), e.String()
}

// buffer is written and read at the same time.
type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *buffer) Write(data []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(data)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// eventually waits until ok returns nil.
func eventually(t *testing.T, ok func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = ok(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

// awaits waits until a program has written text, and returns all that it has written there.
func (p *program) awaits(t *testing.T, b *buffer, text string) string {
	t.Helper()
	eventually(t, func() error {
		if strings.Contains(b.String(), text) {
			return nil
		}
		select {
		case <-p.done:
			t.Fatalf("rolecall ended with %d before it wrote %q:\n%s", p.code, text, p.errOut)
		default:
		}
		return errors.New("rolecall did not write " + text + ":\n" + p.errOut.String())
	})
	return b.String()
}

type response struct {
	status int
	header http.Header
	body   string
}

// request sends a request, signed in with authorization when that is not empty.
func request(t *testing.T, client *http.Client, method, url, authorization, body string) response {
	t.Helper()
	resp, err := send(client, method, url, authorization, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func send(client *http.Client, method, url, authorization string, body io.Reader) (response, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return response{}, err
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := client.Do(req)
	if err != nil {
		return response{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return response{resp.StatusCode, resp.Header, string(text)}, err
}

func get(t *testing.T, url, authorization string) response {
	t.Helper()
	return request(t, http.DefaultClient, http.MethodGet, url, authorization, "")
}

// newFolder returns a temporary folder that PostgreSQL's OS user can pass through, as a folder of t.TempDir cannot when
// the tests run as root.
func newFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "rolecall-test-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "data")
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func basicAuth(username, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(username+":"+password))
}

// inFlight sends a POST, calls during while the server waits for its body, and then sends that.
func inFlight(t *testing.T, url, authorization, body string, during func()) response {
	t.Helper()
	reader, writer := io.Pipe()
	waits := make(chan struct{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	// The server says 100 when its handler reads the body.
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got100Continue: func() { close(waits) }})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, reader)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", authorization)
	req.Header.Set("Expect", "100-continue")
	answered := make(chan response, 1)
	go func() {
		defer close(answered)
		resp, err := (&http.Client{Transport: &http.Transport{ExpectContinueTimeout: patience}}).Do(req)
		if err != nil {
			answered <- response{body: err.Error()}
			return
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		answered <- response{resp.StatusCode, resp.Header, string(text)}
	}()
	select {
	case <-waits:
	case r := <-answered:
		return r
	}
	during()
	_, _ = io.WriteString(writer, body)
	writer.Close()
	return <-answered
}
