package serve

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const sample0 = `2026-01-01T00:00:01.000000000Z stdout F one
2026-01-01T00:00:02.000000000Z stderr F two
2026-01-01T00:00:03.000000000Z stdout P thr
2026-01-01T00:00:03.000000001Z stdout F ee
2026-01-01T00:00:04.000000000Z stdout F 
`

func all() LogOptions { return LogOptions{Tail: -1, Limit: -1, Stdout: true, Stderr: true} }

func TestCopyLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	if err := os.WriteFile(path, []byte(sample0), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		edit func(*LogOptions)
		want string
	}{
		{"all", func(*LogOptions) {}, "one\ntwo\nthree\n\n"},
		{"tail", func(o *LogOptions) { o.Tail = 1 }, "\n"},
		{"tail of more than there is", func(o *LogOptions) { o.Tail = 100 }, "one\ntwo\nthree\n\n"},
		{"no tail", func(o *LogOptions) { o.Tail = 0 }, ""},
		{"since", func(o *LogOptions) { o.Since = time.Date(2026, 1, 1, 0, 0, 3, 0, time.UTC) }, "three\n\n"},
		{"limit", func(o *LogOptions) { o.Limit = 6 }, "one\ntw"},
		{"stderr", func(o *LogOptions) { o.Stdout = false }, "two\n"},
		{"timestamps", func(o *LogOptions) { o.Timestamps = true; o.Limit = 66 }, "2026-01-01T00:00:01.000000000Z one\n2026-01-01T00:00:02.000000000Z "},
	} {
		o := all()
		tt.edit(&o)
		var out bytes.Buffer
		err := CopyLog(t.Context(), path, o, &out, func() {}, func() bool { return false })
		if err != nil || out.String() != tt.want {
			t.Errorf("%s: %q, %v", tt.name, out.String(), err)
		}
	}
}

// TestFollow writes, rotates and ends a log while it is followed.
func TestFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	var ended atomic.Bool
	r, w := io.Pipe()
	o := all()
	o.Follow = true
	done := make(chan error, 1)
	go func() {
		err := CopyLog(context.Background(), path, o, w, func() {}, func() bool { return !ended.Load() })
		w.Close()
		done <- err
	}()
	expect := func(want string) {
		t.Helper()
		b := make([]byte, len(want))
		if _, err := io.ReadFull(r, b); err != nil || string(b) != want {
			t.Fatalf("got %q, %v", b, err)
		}
	}
	line := func(s string) { fmt.Fprintf(f, "2026-01-01T00:00:01Z stdout F %s\n", s) }
	line("one")
	expect("one\n")
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if f, err = os.Create(path); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	line("two")
	expect("two\n")
	line("three")
	ended.Store(true)
	rest, err := io.ReadAll(r)
	if err != nil || string(rest) != "three\n" {
		t.Errorf("%q, %v", rest, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	for line := range strings.Lines(sample0) {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parse(b)
		if err == nil && len(e.text) > len(b)+1 {
			t.Errorf("%q grew to %q", b, e.text)
		}
	})
}
