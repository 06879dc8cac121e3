package server

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
)

// counted counts the writes that reach the wire.
type counted struct {
	net.Conn
	mu     sync.Mutex
	writes int
}

func (c *counted) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.writes++
	c.mu.Unlock()
	return c.Conn.Write(p)
}

// TestRecordsAreJoined writes records of all sizes and reads them back. Time stands still meanwhile: none is late.
func TestRecordsAreJoined(t *testing.T) {
	const full, rest = fullRecord + 22, 31
	for _, c := range []struct {
		sizes  []int
		writes int
	}{
		{[]int{1, 2, 3}, 3},
		{[]int{1, full, rest, full, full, 500, full, rest}, 3},                    // the last two are held until Close
		{[]int{full, rest, rest, full, 500}, 2},                                   // what follows a remainder is no remainder
		{[]int{full, rest, full, rest, full, rest, full, rest, full, rest, 7}, 2}, // no more than is bearable at once
	} {
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			wire := &counted{Conn: a}
			j := &joined{Conn: wire}
			var want bytes.Buffer
			got := make(chan []byte, 1)
			go func() {
				all, err := io.ReadAll(b)
				if err != nil {
					t.Error(err)
				}
				got <- all
			}()
			for i, n := range c.sizes {
				p := bytes.Repeat([]byte{byte(i)}, n)
				want.Write(p)
				if m, err := j.Write(p); m != n || err != nil {
					t.Fatal(m, err)
				}
			}
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(<-got, want.Bytes()) {
				t.Errorf("%v: what was read is not what was written", c.sizes)
			}
			if wire.writes != c.writes {
				t.Errorf("%v: %d writes, want %d", c.sizes, wire.writes, c.writes)
			}
		})
	}
}

// TestHeldRecordGoesByItself checks that nobody waits for ever for a record that fills its frame.
func TestHeldRecordGoesByItself(t *testing.T) {
	a, b := net.Pipe()
	j := &joined{Conn: a}
	defer j.Close()
	if _, err := j.Write(make([]byte, fullRecord)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(b, make([]byte, fullRecord)); err != nil {
		t.Fatal(err)
	}
}

// TestCloseEndsAStuckWrite: a client that does not read must not hold the server up.
func TestCloseEndsAStuckWrite(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	j := &joined{Conn: a}
	stuck := make(chan error, 1)
	go func() {
		_, err := j.Write([]byte("nobody reads"))
		stuck <- err
	}()
	if _, err := b.Read(make([]byte, 1)); err != nil { // now the write is under way, and the rest of it is stuck
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-stuck; !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
}
