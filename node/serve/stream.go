package serve

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// streams reads which of a container's streams are wanted; both the node API's and the cluster API's names are known.
func streams(q url.Values) (stdin, stdout, stderr, tty bool) {
	on := func(names ...string) bool {
		for _, n := range names {
			if b, err := strconv.ParseBool(q.Get(n)); err == nil && b {
				return true
			}
		}
		return false
	}
	tty = on("tty")
	return on("input", "stdin"), on("output", "stdout"), on("error", "stderr") && !tty, tty
}

func (s *server) exec(w http.ResponseWriter, r *http.Request) {
	id, err := s.Pods.Container(r.PathValue("ns"), r.PathValue("pod"), r.PathValue("uid"), r.PathValue("container"))
	if err != nil {
		fail(w, err)
		return
	}
	req := &runtimeapi.ExecRequest{ContainerId: id, Cmd: r.URL.Query()["command"]}
	req.Stdin, req.Stdout, req.Stderr, req.Tty = streams(r.URL.Query())
	if !req.Stdin && !req.Stdout && !req.Stderr {
		http.Error(w, "you must specify at least 1 of stdin, stdout, stderr", http.StatusBadRequest)
		return
	}
	a, err := s.Runtime.Exec(r.Context(), req)
	s.upgrade(w, r, a.GetUrl(), err)
}

func (s *server) attach(w http.ResponseWriter, r *http.Request) {
	id, err := s.Pods.Container(r.PathValue("ns"), r.PathValue("pod"), r.PathValue("uid"), r.PathValue("container"))
	if err != nil {
		fail(w, err)
		return
	}
	req := &runtimeapi.AttachRequest{ContainerId: id}
	req.Stdin, req.Stdout, req.Stderr, req.Tty = streams(r.URL.Query())
	a, err := s.Runtime.Attach(r.Context(), req)
	s.upgrade(w, r, a.GetUrl(), err)
}

func (s *server) portForward(w http.ResponseWriter, r *http.Request) {
	id, err := s.Pods.Sandbox(r.PathValue("ns"), r.PathValue("pod"), r.PathValue("uid"))
	if err != nil {
		fail(w, err)
		return
	}
	var ports []int32
	for _, p := range append(r.URL.Query()["port"], r.URL.Query()["ports"]...) {
		n, err := strconv.ParseInt(p, 10, 32)
		if err != nil {
			http.Error(w, fmt.Sprintf("invalid port %q", p), http.StatusBadRequest)
			return
		}
		ports = append(ports, int32(n))
	}
	a, err := s.Runtime.PortForward(r.Context(), &runtimeapi.PortForwardRequest{PodSandboxId: id, Port: ports})
	s.upgrade(w, r, a.GetUrl(), err)
}

// upgrade joins the caller's connection with the runtime's streaming server, which speaks the caller's protocol
// itself: the request goes there as it came, and from then on bytes are copied both ways.
func (s *server) upgrade(w http.ResponseWriter, r *http.Request, to string, err error) {
	if err != nil {
		fail(w, err)
		return
	}
	u, err := url.Parse(to)
	if err != nil || u.Host == "" {
		fail(w, fmt.Errorf("the runtime gave no streaming address: %q", to))
		return
	}
	back, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(r.Context(), "tcp", u.Host)
	if err != nil {
		fail(w, err)
		return
	}
	defer back.Close()
	out := r.Clone(r.Context())
	out.URL, out.Host, out.RequestURI = u, u.Host, ""
	out.Header.Del("Authorization")
	if err := out.Write(back); err != nil {
		fail(w, err)
		return
	}
	h, ok := w.(http.Hijacker)
	if !ok {
		http.Error(w, "unable to upgrade: the connection cannot be taken over", http.StatusInternalServerError)
		return
	}
	front, buf, err := h.Hijack()
	if err != nil {
		fail(w, err)
		return
	}
	defer front.Close()
	_ = front.SetDeadline(time.Time{}) // the server's own must not end a stream
	join(r.Context(), front, buf.Reader, back)
}

// join copies both ways until the runtime has sent everything. The caller's end ends only what it sends.
func join(ctx context.Context, front net.Conn, early io.Reader, back net.Conn) {
	done := make(chan struct{})
	go func() {
		_, _ = io.Copy(back, early) // a broken stream is an ended one
		if c, ok := back.(interface{ CloseWrite() error }); ok {
			_ = c.CloseWrite()
		}
	}()
	go func() {
		defer close(done)
		_, _ = io.Copy(front, back)
	}()
	select {
	case <-ctx.Done():
	case <-done:
	}
}
