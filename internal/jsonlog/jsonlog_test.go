package jsonlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

// slow is a reader of the log that takes what is written when it is told to.
type slow struct {
	take    chan struct{}
	mu      sync.Mutex
	written []string
	err     error
}

func newSlow() *slow { return &slow{take: make(chan struct{})} }

func (s *slow) Write(b []byte) (int, error) {
	<-s.take
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written = append(s.written, string(b))
	return len(b), s.err
}

// Lines that come while others are written are written together, in the order in which they came.
func TestGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := newSlow()
		w := New(out)
		w.Add([]byte("1\n"))
		synctest.Wait()
		for n := 2; n < 5; n++ {
			w.Add(fmt.Appendln(nil, n)) // does not wait
		}
		done := false
		go func() {
			if _, err := w.Write([]byte("5 é\x1b\n")); err != nil {
				t.Error(err)
			}
			done = true
		}()
		synctest.Wait()
		if done {
			t.Error("Write returned before its line was written")
		}
		out.take <- struct{}{}
		synctest.Wait()
		out.take <- struct{}{}
		synctest.Wait()
		if got := fmt.Sprintf("%q", out.written); got != `["1\n" "2\n3\n4\n5 é\\u001b\n"]` || !done {
			t.Errorf("got %s, Write returned: %t", got, done)
		}
	})
}

// Write reports what was wrong with its line, and the next line is written all the same.
func TestWriteFails(t *testing.T) {
	out := newSlow()
	close(out.take)
	out.err = errors.New("disk full")
	w := New(out)
	if _, err := w.Write([]byte("1\n")); err != out.err {
		t.Errorf("got %v", err)
	}
	w.Add([]byte("2\n"))
	w.Flush()
	out.err = nil
	if n, err := w.Write([]byte("3\n")); n != 2 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
	if got := strings.Join(out.written, ""); got != "1\n2\n3\n" {
		t.Errorf("written: %q", got)
	}
}

// When nobody reads the log, lines gather up to a limit. Then whoever has another one waits; no line is lost.
func TestNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := newSlow()
		w := New(out)
		line := []byte(strings.Repeat("x", 99) + "\n")
		const many = 3 * maxGathered / 100
		var all sync.WaitGroup
		all.Go(func() {
			for range many {
				w.Add(line)
			}
		})
		synctest.Wait()
		w.mu.Lock()
		gathered := len(w.gathered)
		w.mu.Unlock()
		if gathered < maxGathered || gathered > maxGathered+len(line) {
			t.Errorf("%d bytes have gathered", gathered)
		}
		close(out.take)
		all.Wait()
		w.Flush()
		if got := strings.Join(out.written, ""); got != strings.Repeat(string(line), many) {
			t.Errorf("%d bytes of %d were written", len(got), many*len(line))
		}
	})
}

// A long line leaves no memory behind.
func TestLongLine(t *testing.T) {
	var out bytes.Buffer
	w := New(&out)
	for range 3 {
		w.Add(make([]byte, 10*maxGathered))
		w.Flush()
	}
	if cap(w.spare) > 2*maxGathered || cap(w.gathered) > 2*maxGathered || out.Len() != 30*maxGathered {
		t.Errorf("%d and %d bytes are kept; %d written", cap(w.spare), cap(w.gathered), out.Len())
	}
}

// Flush returns when the lines of all that came before are written, also of those that came over slog.
func TestFlush(t *testing.T) {
	(*Writer)(nil).Flush()
	var out bytes.Buffer
	w := New(&out)
	w.Flush()
	log := slog.New(slog.NewJSONHandler(w, nil))
	var all sync.WaitGroup
	const each = 500
	for n := range 8 {
		all.Go(func() {
			for i := range each {
				switch {
				case i%100 == 99:
					log.Info("line", "of", n)
				case i%200 == 150:
					w.Flush()
					fallthrough
				default:
					w.Add(fmt.Appendf(nil, `{"of":%d}`+"\n", n))
				}
			}
		})
	}
	all.Wait()
	w.Flush()
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	for n := range 8 {
		of := 0
		for _, l := range lines {
			if strings.HasSuffix(l, fmt.Sprintf(`"of":%d}`, n)) {
				of++
			}
		}
		if of != each {
			t.Errorf("%d of %d lines of %d", of, each, n)
		}
	}
	if len(lines) != 8*each {
		t.Errorf("%d lines", len(lines))
	}
}

// Characters that control a terminal, or that it hides, are escaped; all others stay.
func TestPrintable(t *testing.T) {
	for line, want := range map[string]string{
		"{\"a\":\"b\"}\n":             "{\"a\":\"b\"}\n",
		"é 日本 \U0001f600\n":           "é 日本 \U0001f600\n",
		"\x1b[31m\x7f\t\n":            `\u001b[31m\u007f\u0009` + "\n",
		"\u202e\u200b\u00a0\ufeffé\n": `\u202e\u200b\u00a0\ufeffé` + "\n",
		"\U000e0001\n":                `\udb40\udc01` + "\n",
		"\xff é\n":                    "\xff é\n",
		"\xff\x1b\n":                  "\ufffd" + `\u001b` + "\n",
	} {
		if got := string(appendPrintable([]byte("before "), []byte(line))); got != "before "+want {
			t.Errorf("%q: got %q, want %q", line, got, want)
		}
	}
}

// BenchmarkAdd is what a request waits for its line.
func BenchmarkAdd(b *testing.B) {
	w := New(io.Discard)
	line := []byte(strings.Repeat("x", 400) + "\n")
	b.ReportAllocs()
	for b.Loop() {
		w.Add(line)
	}
}
