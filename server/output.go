package server

import (
	"compress/gzip"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// gzipFrom is the size in bytes from which answers are compressed for clients that accept it.
const gzipFrom = 128 << 10

// chunk is how many bytes of an answer are written at once. Each write costs HTTP/2 two switches between goroutines.
const chunk = 256 << 10

var gzips = sync.Pool{New: func() any {
	z, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	if err != nil {
		panic(err) // the level is a constant
	}
	return z
}}

// chunks are buffers of somewhat more than a chunk.
var chunks = sync.Pool{New: func() any { b := make([]byte, 0, chunk+chunk/8); return &b }}

// output is a body on its way out. Its bytes are appended to b, with a pass after each piece.
type output struct {
	x           *exchange
	code        int
	contentType string
	b           []byte
	pooled      *[]byte
	begun       bool
	z           *gzip.Writer
	failed      bool // the client is gone
	stop        func() bool
}

func (x *exchange) output(code int, contentType string) *output {
	p := chunks.Get().(*[]byte)
	return &output{x: x, code: code, contentType: contentType, b: (*p)[:0], pooled: p}
}

// pass writes what there is if it is enough.
func (o *output) pass() {
	if len(o.b) >= chunk {
		o.write(false)
	}
}

// finish appends the last bytes, unless there was an error: then nothing is written if nothing was yet, and else the
// answer is broken off, so that nobody takes it for complete.
func (o *output) finish(err error, last ...string) error {
	if err != nil {
		if !o.begun {
			o.release()
			return err
		}
		panic(http.ErrAbortHandler)
	}
	for _, s := range last {
		o.b = append(o.b, s...)
	}
	o.end()
	return nil
}

// end writes the rest.
func (o *output) end() {
	o.write(true)
	if o.z != nil {
		if !o.failed {
			_ = o.z.Close() // fails only if the client is gone
		}
		gzips.Put(o.z)
	}
	o.release()
}

func (o *output) release() {
	if o.stop != nil {
		o.stop()
	}
	if cap(o.b) <= 2*chunk {
		*o.pooled = o.b[:0]
	}
	chunks.Put(o.pooled)
}

func (o *output) write(last bool) {
	if !o.begun {
		o.begin(last)
	}
	o.x.size += len(o.b)
	if len(o.b) > 0 && !o.failed && o.x.r.Method != http.MethodHead {
		var err error
		if o.z != nil {
			_, err = o.z.Write(o.b)
		} else {
			_, err = o.x.w.Write(o.b)
		}
		o.failed = err != nil
	}
	o.b = o.b[:0]
}

// begin writes the headers. The length is told where the first bytes are also the last.
func (o *output) begin(last bool) {
	o.begun = true
	h := o.x.w.Header()
	switch {
	case len(o.b) >= gzipFrom && strings.Contains(o.x.r.Header.Get("Accept-Encoding"), "gzip"):
		h.Set("Content-Encoding", "gzip")
		h.Add("Vary", "Accept-Encoding")
		o.z = gzips.Get().(*gzip.Writer)
		o.z.Reset(o.x.w)
	case last:
		h.Set("Content-Length", strconv.Itoa(len(o.b)))
	}
	if !last {
		o.stop = o.x.bound() // the client may stop reading
	}
	o.x.head(o.code, o.contentType)
}
