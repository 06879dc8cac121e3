package server

import (
	"bufio"
	"net"
	"net/http"
	"slices"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/codec"
	"github.com/skiff-sh/skiff/server/streams"
)

// connect begins a stream or a proxied request.
func (s *Server) connect(x *exchange, sub *api.Subresource) error {
	i := x.info
	if i.Rest != "" && sub.Name != "proxy" {
		return s.unserved(x)
	}
	// A proxy passes OPTIONS on too, though discovery has no verb for it.
	if !slices.Contains(sub.Verbs, i.Verb) && (sub.Name != "proxy" || x.r.Method != http.MethodOptions) {
		return notAllowed(i.Kind.GroupResource(), i.Verb)
	}
	name := i.Name
	if sub.Name == "proxy" {
		name = streams.PodOf(name)
	}
	var options runtime.Object
	if sub.Kind != "" && sub.Name != "log" {
		var err error
		options, err = codec.Scheme().New(kindOfSub(sub))
		if err != nil {
			return err
		}
		fillOptions(options, x.r.URL.Query())
	}
	if sub.Name != "log" {
		if _, err := s.rest.Connect(x.r.Context(), i.Kind, i.Namespace, name, sub.Name, options); err != nil {
			return err
		}
	}
	rec := &recorder{ResponseWriter: x.w}
	s.streams.Serve(rec, x.r, i, func(err error) {
		if rec.code == 0 {
			s.fail(x, err)
		}
	})
	if x.code == 0 {
		x.code = rec.code
	}
	return nil
}

// Unwrap lets http.ResponseController reach the connection behind a recorder.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// Hijack is for proxies that know no ResponseController.
func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if r.code == 0 {
		r.code = http.StatusSwitchingProtocols
	}
	return http.NewResponseController(r.ResponseWriter).Hijack()
}

func (r *recorder) Flush() { _ = http.NewResponseController(r.ResponseWriter).Flush() }
