package server

import (
	"context"
	"net/http"
	"time"
)

// patience ends a write that a client does not take. Others are not held up by it meanwhile: a watcher holds nothing but its
// place in the shared history, which goes on without it.
type patience struct {
	limit time.Duration
	timer *time.Timer
}

// patient makes a watch's patience. It costs no goroutine.
func patient(rc *http.ResponseController, limit time.Duration) *patience {
	p := &patience{limit: limit, timer: time.AfterFunc(limit, func() { _ = rc.SetWriteDeadline(time.Now()) })}
	p.timer.Stop()
	return p
}

// during bounds the writes of f.
func (p *patience) during(f func() error) error {
	p.timer.Reset(p.limit)
	defer p.timer.Stop()
	return f()
}

// bound ends the writes of a request when its time is over, until stop is called.
func (x *exchange) bound() (stop func() bool) {
	rc := http.NewResponseController(x.w)
	return context.AfterFunc(x.r.Context(), func() { _ = rc.SetWriteDeadline(time.Now()) })
}
