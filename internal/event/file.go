package event

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"rolecall/internal/audit"
)

// logFile is the file of an export. How far it is says its own last line, so nothing is stored elsewhere.
type logFile struct {
	path    string
	format  Format
	version string
	out     *os.File // nil: not open
	cursor  audit.Point
}

// pauseAfterFailure is how long an export of this replica waits before it tries again.
const pauseAfterFailure = 5 * time.Second

// writeFile writes the log to the file until ctx ends.
func (s *Service) writeFile(ctx context.Context) {
	f := &logFile{path: s.Export.File, format: s.Export.Format, version: s.Version}
	defer f.close()
	d := &deliverer{Service: s, ending: ctx}
	failed := ""
	for ctx.Err() == nil {
		wrote, err := f.more(ctx, s.Audit)
		s.fileSeq.Store(f.cursor.Seq)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			if failed != err.Error() {
				s.Log.Error("the audit log is not written to the file; retrying", "file", f.path, "error", err)
			}
			failed = err.Error()
			f.close()
			select {
			case <-time.After(pauseAfterFailure):
			case <-ctx.Done():
			}
		case !wrote:
			d.wait(ctx, f.cursor.Seq)
		}
		if err == nil {
			failed = ""
		}
	}
}

// more writes the next rows, if there are any.
func (f *logFile) more(ctx context.Context, log *audit.Log) (wrote bool, err error) {
	if err := f.ready(); err != nil {
		return false, err
	}
	events, err := read(ctx, log, f.cursor)
	if err != nil || len(events) == 0 {
		return false, err
	}
	return true, f.append(events)
}

// append writes events, and remembers the last one when they are on disk.
func (f *logFile) append(events []Event) error {
	lines, err := f.format.encode(events, f.version)
	if err != nil {
		return err
	}
	if _, err := f.out.Write(lines); err != nil {
		return err
	}
	if err := f.out.Sync(); err != nil {
		return err
	}
	f.cursor = events[len(events)-1].Behind
	return nil
}

// ready opens the file, also if the one that is open was renamed. A file that begins empty behind another one gets a line
// that says where that has ended.
func (f *logFile) ready() error {
	if f.out != nil {
		now, err := os.Stat(f.path)
		opened, openedErr := f.out.Stat()
		if err != nil || openedErr != nil || !os.SameFile(now, opened) {
			f.close()
		}
	}
	if f.out == nil {
		if err := f.open(); err != nil {
			return err
		}
	}
	info, err := f.out.Stat()
	if err != nil || info.Size() > 0 || f.cursor.Seq == 0 {
		return err
	}
	return f.append([]Event{notice(Continued, f.cursor, Notice{ToSeq: f.cursor.Seq,
		Message: fmt.Sprintf("The file before this one ends with row %d.", f.cursor.Seq)})})
}

// open opens the file and reads from its last line how far it is. What a kill has left of a line is cut off.
func (f *logFile) open() error {
	out, err := os.OpenFile(f.path, os.O_RDWR|os.O_CREATE|os.O_APPEND|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	if err := f.adopt(out); err != nil {
		return errors.Join(err, out.Close())
	}
	f.out = out
	return nil
}

func (f *logFile) adopt(out *os.File) error {
	info, err := out.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file; give the path of one with --audit-file", f.path)
	}
	if err := syscall.Flock(int(out.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("another process writes %s; give each replica a file of its own with --audit-file: %w", f.path, err)
	}
	line, end, err := lastLine(out, info.Size())
	if err != nil {
		return err
	}
	if end < info.Size() {
		if err := out.Truncate(end); err != nil {
			return err
		}
	}
	if len(line) == 0 {
		return nil // empty: it continues where the one before has ended, or begins
	}
	if f.cursor, err = cursorOf(line); err != nil {
		return fmt.Errorf("the last line of %s is not one of an export: %w; move the file away, or give another one with "+
			"--audit-file", f.path, err)
	}
	return nil
}

// longestLine is more than a row can have.
const longestLine = 16 << 20

// lastLine returns the last complete line of a file, and where it ends.
func lastLine(file io.ReaderAt, size int64) (line []byte, end int64, err error) {
	for length := int64(64 << 10); ; length *= 4 {
		start := max(size-length, 0)
		tail := make([]byte, size-start)
		if _, err := file.ReadAt(tail, start); err != nil && !errors.Is(err, io.EOF) {
			return nil, 0, err
		}
		last := bytes.LastIndexByte(tail, '\n')
		if last >= 0 {
			if before := bytes.LastIndexByte(tail[:last], '\n'); before >= 0 || start == 0 {
				return tail[before+1 : last], start + int64(last) + 1, nil
			}
		}
		if start == 0 {
			return nil, 0, nil
		}
		if length > longestLine {
			return nil, 0, fmt.Errorf("the last line has more than %d bytes, so it is not one of an export", longestLine)
		}
	}
}

func (f *logFile) close() {
	if f.out != nil {
		_ = f.out.Close()
		f.out = nil
	}
}
