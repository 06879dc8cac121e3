package proxy

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// healthServers answer, on the health check node port of each service that has one, whether this node has backends of
// it: 200 if so, else 503, so that load balancers leave the node out.
type healthServers struct {
	log     *slog.Logger
	mu      sync.Mutex
	state   map[uint16]health
	servers map[uint16]*http.Server
}

func newHealthServers(log *slog.Logger) *healthServers {
	return &healthServers{log: log, state: map[uint16]health{}, servers: map[uint16]*http.Server{}}
}

// set replaces one service's ports. Servers that are no longer asked for end.
func (h *healthServers) set(ctx context.Context, old, new map[uint16]health) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for port := range old {
		if _, ok := new[port]; !ok {
			delete(h.state, port)
			if s := h.servers[port]; s != nil {
				_ = s.Close()
				delete(h.servers, port)
			}
		}
	}
	for port, state := range new {
		h.state[port] = state
		if h.servers[port] == nil {
			h.servers[port] = h.serve(ctx, port)
		}
	}
}

func (h *healthServers) serve(ctx context.Context, port uint16) *http.Server {
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { h.answer(w, port) }), ReadHeaderTimeout: 10 * time.Second}
	go func() {
		for ctx.Err() == nil {
			l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", ":"+strconv.Itoa(int(port)))
			if err == nil {
				err = s.Serve(l)
			}
			if ctx.Err() != nil || err == http.ErrServerClosed {
				return
			}
			h.log.Warn("a service's health check port cannot be served; it is tried again", "port", port, "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Second):
			}
		}
	}()
	return s
}

func (h *healthServers) answer(w http.ResponseWriter, port uint16) {
	h.mu.Lock()
	state := h.state[port]
	h.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("X-Load-Balancing-Endpoint-Weight", fmt.Sprint(state.local))
	if state.local == 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"service": map[string]string{"namespace": state.namespace, "name": state.name},
		"localEndpoints": state.local, "serviceProxyHealthy": true})
}

// close ends all servers.
func (h *healthServers) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.servers {
		_ = s.Close()
	}
	h.servers = map[uint16]*http.Server{}
}
