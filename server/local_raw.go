package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"

	"k8s.io/apiserver/pkg/authentication/user"
)

// callerKey is where the context of a request that never left the process says who makes it.
type callerKey struct{}

// caller is who makes a request from within the process; nil for one that came over the wire.
func caller(ctx context.Context) user.Info {
	u, _ := ctx.Value(callerKey{}).(user.Info)
	return u
}

// RoundTrip lets a request through the whole of the server without the socket, in the user's name; with it Local is an
// http.RoundTripper. The answer streams, until its body is closed or the request's context ends.
func (l *Local) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(context.WithValue(req.Context(), callerKey{}, l.user))
	r := req.Clone(ctx)
	r.RemoteAddr, r.Host, r.RequestURI = "127.0.0.1:0", req.URL.Host, req.URL.RequestURI()
	r.Header.Set("User-Agent", agent(l.user.GetName()))
	if r.Body == nil {
		r.Body = http.NoBody
	}
	body, w := io.Pipe()
	a := &answer{header: http.Header{}, body: w, begun: make(chan struct{})}
	context.AfterFunc(ctx, func() { w.CloseWithError(ctx.Err()) })
	go func() {
		defer cancel()
		defer func() {
			if p := recover(); p != nil { // http.ErrAbortHandler: all others are answered
				w.CloseWithError(fmt.Errorf("the answer was cut off: %v", p))
			}
			a.WriteHeader(http.StatusOK)
			w.Close()
		}()
		l.s.serve(a, r)
	}()
	<-a.begun
	return &http.Response{Status: fmt.Sprintf("%d %s", a.code, http.StatusText(a.code)), StatusCode: a.code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: a.sent, Body: &streamed{body, cancel}, ContentLength: -1, Request: req}, nil
}

// answer hands what is written to it to the one who asked.
type answer struct {
	header http.Header
	body   *io.PipeWriter

	begin sync.Once
	begun chan struct{} // closed when code and sent are there
	code  int
	sent  http.Header
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(code int) {
	if code < 200 && code != http.StatusSwitchingProtocols {
		return // an interim answer
	}
	a.begin.Do(func() {
		a.code, a.sent = code, a.header.Clone()
		close(a.begun)
	})
}

func (a *answer) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(b)
}

// Flush has only to send the header: nothing else is kept back.
func (a *answer) Flush() { a.WriteHeader(http.StatusOK) }

// streamed is an answer's body, whose end ends the request.
type streamed struct {
	*io.PipeReader
	cancel context.CancelFunc
}

func (s *streamed) Close() error {
	s.cancel()
	return s.PipeReader.Close()
}
