package server

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
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

// TestRecordsAreJoined writes records of all sizes and reads them back.
func TestRecordsAreJoined(t *testing.T) {
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
	sizes := []int{1, fullRecord + 22, 31, fullRecord + 22, fullRecord + 22, 5, fullRecord + 22} // the last is held until Close, or late
	for i, n := range sizes {
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
		t.Error("what was read is not what was written")
	}
	if wire.writes > 7 || wire.writes < 5 { // 5 if none was late
		t.Errorf("%d writes", wire.writes)
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
