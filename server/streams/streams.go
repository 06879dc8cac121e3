// Package streams carries what is no object: logs, exec, attach, port-forward and the proxies to pods, services and
// nodes. The bytes pass through to the node's kubelet API or to the pod untouched, upgrades (SPDY, WebSocket) included.
//
// Invariant: authorization and admission have passed before a stream begins; a stream ends with either side or with
// its request's context.
// Only server imports streams.
package streams

import (
	"crypto/tls"
	"log/slog"
	"net/http"
	"time"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/store"
)

// Config is what streams need. KubeletTLS has the client certificate for the nodes; without it no stream to a
// node is possible.
type Config struct {
	Store      store.Store
	Kinds      *api.Table
	KubeletTLS *tls.Config
	Log        *slog.Logger
}

// Streams serves the connect subresources.
type Streams struct {
	cfg     Config
	kubelet http.RoundTripper
	direct  http.RoundTripper // to pods and services
}

// New makes the streams.
func New(c Config) *Streams {
	transport := func(t *tls.Config) *http.Transport {
		return &http.Transport{TLSClientConfig: t, DisableCompression: true, MaxIdleConnsPerHost: 4,
			IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 10 * time.Second, ForceAttemptHTTP2: false,
			TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}}
	}
	kt := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.KubeletTLS != nil {
		kt = c.KubeletTLS.Clone()
	}
	kt.NextProtos = []string{"http/1.1"}
	return &Streams{cfg: c, kubelet: transport(kt),
		// What a pod serves has a certificate of its own making, or none.
		direct: transport(&tls.Config{InsecureSkipVerify: true})}
}
