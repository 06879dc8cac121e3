package server

import (
	"net"
	"sync"
	"time"
)

// HTTP/2 writes a full frame, 16 KiB and its header of nine bytes, at once; TLS makes two records of it and writes each by
// itself. A system call for nine bytes costs nearly as much as one for all, and one for four frames little more than one for
// one. So a full record and the remainder of its frame are held until what comes next, which is in the same breath.

const (
	fullRecord = 16 << 10               // bytes from which on more is to be expected
	remainder  = 64                     // bytes that a frame's header can take in a record of its own
	heldFor    = 200 * time.Microsecond // at most: the frame may have been the last
	maxHeld    = 4 * (fullRecord + 128)
)

// joiner is a listener whose connections join records.
type joiner struct{ net.Listener }

func (l joiner) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &joined{Conn: c}, nil
}

// joined is a connection that writes the records of full frames with those that follow them. Both ends of it may be used at
// the same time, as of any connection.
type joined struct {
	net.Conn
	mu   sync.Mutex
	held *[]byte     // of records; nil: nothing
	full bool        // the last of them is a full one
	late *time.Timer // made with the first record that is held
	err  error       // of a write that nobody waited for
}

// records are buffers for the records that are held.
var records = sync.Pool{New: func() any { b := make([]byte, 0, maxHeld+fullRecord+1024); return &b }}

func (j *joined) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return 0, j.err
	}
	more := len(p) >= fullRecord || j.full && len(p) <= remainder
	j.full = len(p) >= fullRecord
	if j.held == nil {
		if !more {
			return j.Conn.Write(p)
		}
		j.held = records.Get().(*[]byte)
		*j.held = (*j.held)[:0]
	}
	*j.held = append(*j.held, p...)
	if !more || len(*j.held) >= maxHeld {
		if err := j.flush(); err != nil {
			return 0, err
		}
		return len(p), nil
	}
	if j.late == nil {
		j.late = time.AfterFunc(heldFor, j.overdue)
	} else {
		j.late.Reset(heldFor)
	}
	return len(p), nil
}

// overdue writes what is held if nothing else has.
func (j *joined) overdue() {
	j.mu.Lock()
	defer j.mu.Unlock()
	_ = j.flush() // the next write tells
}

func (j *joined) flush() error {
	if j.held == nil {
		return j.err
	}
	j.late.Stop()
	_, j.err = j.Conn.Write(*j.held)
	records.Put(j.held)
	j.held = nil
	return j.err
}

// Close writes what is held, unless a write is stuck: closing ends that.
func (j *joined) Close() error {
	if j.mu.TryLock() {
		if j.held != nil && j.Conn.SetWriteDeadline(time.Now().Add(time.Second)) == nil {
			_ = j.flush()
		}
		j.mu.Unlock()
	}
	return j.Conn.Close()
}
