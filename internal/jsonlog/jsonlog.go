// Package jsonlog writes the log in JSON, one record a line. Lines of answered requests are written several at a time, and
// a request without an error does not wait for its own.
package jsonlog

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"sync"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Writer writes lines in the order in which they come. While it writes some, the next ones gather.
type Writer struct {
	out io.Writer

	mu       sync.Mutex
	changed  sync.Cond // a write has begun or ended
	gathered []byte    // the lines of the next write
	spare    []byte    // the memory of the last one
	writing  bool      // somebody writes, or is about to; always so while lines have gathered
	begun    int       // how many writes have begun, and
	ended    int       // how many of them have ended
	err      error     // of the last one
}

// maxGathered is how many bytes of lines may gather. Then the next line waits, until the reader of the log has kept up.
const maxGathered = 64 << 10

// New returns a writer to out.
func New(out io.Writer) *Writer {
	w := &Writer{out: out}
	w.changed.L = &w.mu
	return w
}

// Write is for slog's handler. It returns when the line and all that came before are written. It escapes characters that
// would control a terminal, or that a terminal would hide: JSON allows them, and a line may quote a client.
func (w *Writer) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waitForRoom()
	w.gathered = appendPrintable(w.gathered, line)
	w.start()
	w.waitFor(w.begun + 1)
	return len(line), w.err
}

// Add is for a line of printable ASCII characters. It does not wait for the line to be written.
func (w *Writer) Add(line []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waitForRoom()
	w.gathered = append(w.gathered, line...)
	w.start()
}

// Flush returns when all lines that came before are written. There is nothing to do for nil.
func (w *Writer) Flush() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	last := w.begun
	if len(w.gathered) > 0 {
		last++
	}
	w.waitFor(last)
}

func (w *Writer) waitForRoom() {
	for len(w.gathered) >= maxGathered {
		w.changed.Wait()
	}
}

// waitFor waits for the end of the write of that number.
func (w *Writer) waitFor(n int) {
	for w.ended < n {
		w.changed.Wait()
	}
}

// start begins to write, unless that goes on.
func (w *Writer) start() {
	if !w.writing {
		w.writing = true
		go w.writeAll()
	}
}

// writeAll writes until nothing has gathered in the meantime. It begins when the requests that are ready now have had their
// turn: they have lines, too.
func (w *Writer) writeAll() {
	runtime.Gosched()
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.gathered) > 0 {
		w.write()
	}
	w.writing = false
}

// write writes what has gathered, without the lock.
func (w *Writer) write() {
	lines := w.gathered
	w.gathered = w.spare[:0]
	w.begun++
	w.changed.Broadcast() // there is room
	w.mu.Unlock()
	_, err := w.out.Write(lines)
	w.mu.Lock()
	if w.spare = lines; cap(lines) > 2*maxGathered {
		w.spare = nil // a line may be long, but that is rare
	}
	w.err = err
	w.ended++
	w.changed.Broadcast()
}

// appendPrintable appends a line with the characters escaped that are not printable.
func appendPrintable(b, line []byte) []byte {
	if isPlain(line) || !bytes.ContainsFunc(line, func(r rune) bool { return !isPrintable(r) }) {
		return append(b, line...)
	}
	for _, r := range string(line) {
		switch {
		case isPrintable(r):
			b = utf8.AppendRune(b, r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			b = fmt.Appendf(b, `\u%04x\u%04x`, high, low)
		default:
			b = fmt.Appendf(b, `\u%04x`, r)
		}
	}
	return b
}

// isPlain reports whether a line is printable ASCII, as most are: to look at bytes takes less than to look at characters.
func isPlain(line []byte) bool {
	for _, c := range line {
		if c > '~' || c < ' ' && c != '\n' {
			return false
		}
	}
	return true
}

func isPrintable(r rune) bool { return r == '\n' || unicode.IsPrint(r) }
