package server

import (
	"net"
	"net/http"
	"sync"
	"time"
)

// goAway is how long a connection that is about to end stays open after its last answer: for the answer's way out, and
// for clients to learn that what they send from now on they must send again elsewhere.
const goAway = 50 * time.Millisecond

// connections are a server's. net/http leaves every HTTP/2 connection open for a second when it shuts down; here they
// end as soon as their last answer is out.
type connections struct {
	mu     sync.Mutex
	idle   map[net.Conn]struct{}
	ending bool
}

// state is the http.Server's ConnState.
func (c *connections) state(conn net.Conn, s http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case s != http.StateIdle:
		delete(c.idle, conn)
	case c.ending:
		later(conn)
	default:
		c.idle[conn] = struct{}{}
	}
}

// end closes the connections without requests, and from now on every one that has answered its last. It is for
// RegisterOnShutdown.
func (c *connections) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ending = true
	for conn := range c.idle {
		later(conn)
	}
	clear(c.idle)
}

func later(conn net.Conn) { time.AfterFunc(goAway, func() { conn.Close() }) }
