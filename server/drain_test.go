package server

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

// An idle connection ends at once, a busy one after its answer.
func TestConnectionsEnd(t *testing.T) {
	c := &connections{idle: map[net.Conn]struct{}{}}
	closed := make(chan struct{}, 4)
	arrived, answer := make(chan struct{}), make(chan struct{})
	ts := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(arrived)
			<-answer
		}
		_, _ = io.WriteString(w, r.Proto)
	}))
	ts.EnableHTTP2 = true
	ts.Config.ConnState = func(conn net.Conn, s http.ConnState) {
		c.state(conn, s)
		if s == http.StateClosed {
			closed <- struct{}{}
		}
	}
	ts.StartTLS()
	defer ts.Close()
	get := func(client *http.Client, path string) string {
		res, err := client.Get(ts.URL + path)
		if err != nil {
			return err.Error()
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			return err.Error()
		}
		return string(b)
	}
	idle := ts.Client()
	if got := get(idle, "/"); got != "HTTP/2.0" {
		t.Fatal(got)
	}
	busy := &http.Client{Transport: idle.Transport.(*http.Transport).Clone()}
	got := make(chan string, 1)
	go func() { got <- get(busy, "/slow") }()
	<-arrived
	c.end()
	<-closed // the idle one
	select {
	case text := <-got:
		t.Fatalf("the busy connection ended: %s", text)
	default:
	}
	close(answer)
	if text := <-got; text != "HTTP/2.0" {
		t.Fatal(text)
	}
	<-closed
}
