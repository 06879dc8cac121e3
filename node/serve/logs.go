package serve

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// LogOptions says which part of a log is wanted.
type LogOptions struct {
	Follow, Timestamps bool
	Tail               int64     // lines from the end; negative: all
	Since              time.Time // zero: from the start
	Limit              int64     // bytes; negative: no limit
	Stdout, Stderr     bool
}

var errLimit = errors.New("limit reached")

// entry is one line of a log in the runtime's format: "time stream tag text". A line without the tag F goes on in the
// next entry.
type entry struct {
	at     time.Time
	stamp  []byte
	stream string
	text   []byte // with its newline, unless the line goes on
}

func parse(line []byte) (entry, error) {
	parts := bytes.SplitN(bytes.TrimSuffix(line, []byte("\n")), []byte(" "), 4)
	if len(parts) < 3 {
		return entry{}, fmt.Errorf("unsupported log format: %q", line)
	}
	at, err := time.Parse(time.RFC3339Nano, string(parts[0]))
	if err != nil {
		return entry{}, fmt.Errorf("unsupported log format: %w", err)
	}
	e := entry{at: at, stamp: parts[0], stream: string(parts[1])}
	if len(parts) == 4 {
		e.text = parts[3]
	}
	if tag, _, _ := bytes.Cut(parts[2], []byte(":")); string(tag) == "F" {
		e.text = append(bytes.Clone(e.text), '\n')
	}
	return e, nil
}

// CopyLog writes a container's log to w. running says whether more may come; a followed log ends when nothing more
// does. flush is called when what was written should be sent.
func CopyLog(ctx context.Context, path string, o LogOptions, w io.Writer, flush func(), running func() bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { f.Close() }()
	if o.Tail >= 0 {
		at, err := tailOffset(f, o.Tail)
		if err != nil {
			return err
		}
		if _, err := f.Seek(at, io.SeekStart); err != nil {
			return err
		}
	}
	out := &logWriter{w: w, o: o}
	var watch *fsnotify.Watcher
	if o.Follow {
		if watch, err = fsnotify.NewWatcher(); err != nil {
			return err
		}
		defer watch.Close()
		if err := watch.Add(filepath.Dir(path)); err != nil {
			return err
		}
	}
	r := bufio.NewReader(f)
	var pending []byte
	for {
		alive := o.Follow && running() // asked before reading, so that nothing written until its end is missed
		line, err := r.ReadBytes('\n')
		pending = append(pending, line...)
		if err == nil {
			if err := out.write(pending); err != nil {
				return ignoreLimit(err)
			}
			pending = pending[:0]
			continue
		}
		if err != io.EOF {
			return err
		}
		flush()
		if !o.Follow {
			return nil
		}
		if next, err := rotated(f, path); err != nil {
			return err
		} else if next != nil {
			f.Close()
			f, pending = next, nil
			r.Reset(f)
			continue
		}
		if !alive {
			return nil
		}
		if !await(ctx, watch) {
			return nil
		}
	}
}

// await returns when the log's folder changes, or after a second so that the end of the container is seen.
func await(ctx context.Context, w *fsnotify.Watcher) bool {
	t := time.NewTimer(time.Second)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-w.Events:
	case <-w.Errors:
	case <-t.C:
	}
	return true
}

// rotated opens the file that took the log's place, if one did.
func rotated(f *os.File, path string) (*os.File, error) {
	here, err := f.Stat()
	if err != nil {
		return nil, err
	}
	there, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // being rotated, or removed
	}
	if err != nil {
		return nil, err
	}
	if os.SameFile(here, there) {
		return nil, nil
	}
	return os.Open(path)
}

func ignoreLimit(err error) error {
	if errors.Is(err, errLimit) {
		return nil
	}
	return err
}

type logWriter struct {
	w    io.Writer
	o    LogOptions
	sent int64
	mid  bool // in the middle of a line
}

func (l *logWriter) write(line []byte) error {
	e, err := parse(line)
	if err != nil {
		return nil // a line that is no log is not shown
	}
	if e.at.Before(l.o.Since) || e.stream == "stdout" && !l.o.Stdout || e.stream == "stderr" && !l.o.Stderr {
		return nil
	}
	if l.o.Timestamps && !l.mid {
		if err := l.put(append(bytes.Clone(e.stamp), ' ')); err != nil {
			return err
		}
	}
	l.mid = !bytes.HasSuffix(e.text, []byte("\n"))
	return l.put(e.text)
}

func (l *logWriter) put(b []byte) error {
	full := false
	if l.o.Limit >= 0 && l.sent+int64(len(b)) >= l.o.Limit {
		b, full = b[:l.o.Limit-l.sent], true
	}
	n, err := l.w.Write(b)
	l.sent += int64(n)
	if err == nil && full {
		return errLimit
	}
	return err
}

// tailOffset finds where the last n lines begin.
func tailOffset(f *os.File, n int64) (int64, error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || n == 0 {
		return end, err
	}
	const block = 8 << 10
	buf := make([]byte, block)
	seen := int64(0)
	for at := end; at > 0; {
		size := min(block, at)
		at -= size
		if _, err := f.ReadAt(buf[:size], at); err != nil {
			return 0, err
		}
		for i := size - 1; i >= 0; i-- {
			if buf[i] != '\n' || at+i == end-1 {
				continue
			}
			if seen++; seen == n {
				return at + i + 1, nil
			}
		}
	}
	return 0, nil
}
