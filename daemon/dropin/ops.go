package dropin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/daemon/pki"
	"github.com/skiff-sh/skiff/internal/version"
)

// ops is what a component serves of itself: health checks for everybody, metrics for whom the API server lets.
type ops struct {
	name     string
	bind     string
	port     int
	certDir  string
	certFile string
	keyFile  string
	clientCA string
	metrics  []prometheus.Collector // of the component
	log      *slog.Logger
}

func (o *ops) flags(f *flags, port int) {
	o.name, o.log = f.p.name, f.p.log
	f.StringVar(&o.bind, "bind-address", "0.0.0.0", "the address to serve health checks and metrics on")
	f.IntVar(&o.port, "secure-port", port, "their port; 0 serves none")
	f.StringVar(&o.certDir, "cert-dir", "", "where a serving certificate is made and kept when none is given")
	f.StringVar(&o.certFile, "tls-cert-file", "", "the serving certificate")
	f.StringVar(&o.keyFile, "tls-private-key-file", "", "its key")
	f.StringVar(&o.clientCA, "client-ca-file", "", "who signs the certificates of those who read the metrics")
}

// run serves until ctx ends. ask answers who callers are and what they may.
func (o *ops) run(ctx context.Context, ask client.Interface) error {
	if o.port == 0 {
		return nil
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	dir := o.certDir
	if dir == "" { // of this process alone
		if dir, err = os.MkdirTemp("", "skiff-"+o.name+"-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	t, err := serving(o.certFile, o.keyFile, dir, o.name, pki.Leaf{User: o.name, DNS: []string{"localhost", host}, IPs: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}})
	if err != nil {
		return err
	}
	t.ClientAuth = tls.RequestClientCert
	guard := &guard{ask: ask}
	if o.clientCA != "" {
		if guard.roots, _, err = authorities(o.clientCA); err != nil {
			return err
		}
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(o.bind, strconv.Itoa(o.port)))
	if err != nil {
		return fmt.Errorf("failed to create listener: %w", err)
	}
	s := &http.Server{Handler: o.handler(guard), TLSConfig: t, ReadHeaderTimeout: 32 * time.Second, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(o.log.Handler(), slog.LevelDebug)}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	if err := s.ServeTLS(ln, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (o *ops) handler(g *guard) http.Handler {
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	metrics.MustRegister(o.metrics...)
	mux := http.NewServeMux()
	ok := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }
	for _, path := range []string{"/healthz", "/livez", "/readyz", "/healthz/", "/livez/", "/readyz/"} {
		mux.HandleFunc(path, ok)
	}
	mux.HandleFunc("/version", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "{\"gitVersion\":%q}\n", version.String())
	})
	mux.Handle("/metrics", g.only(promhttp.HandlerFor(metrics, promhttp.HandlerOpts{})))
	return mux
}

// guard lets callers through whom the API server knows and allows.
type guard struct {
	roots *x509.CertPool
	ask   client.Interface
}

func (g *guard) only(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, err := g.who(r)
		if err != nil || who == nil {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		spec := authorizationv1.SubjectAccessReviewSpec{User: who.Username, Groups: who.Groups, UID: who.UID,
			NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: r.URL.Path, Verb: strings.ToLower(r.Method)}}
		out, err := g.ask.Action(r.Context(), client.KindOf[*authorizationv1.SubjectAccessReview](), "", "", "", &authorizationv1.SubjectAccessReview{Spec: spec})
		if review, ok := out.(*authorizationv1.SubjectAccessReview); err != nil || !ok || !review.Status.Allowed {
			http.Error(w, "Forbidden", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (g *guard) who(r *http.Request) (*authenticationv1.UserInfo, error) {
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 && g.roots != nil {
		leaf := r.TLS.PeerCertificates[0]
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: g.roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err == nil {
			return &authenticationv1.UserInfo{Username: leaf.Subject.CommonName, Groups: append(leaf.Subject.Organization, "system:authenticated")}, nil
		}
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return nil, nil
	}
	out, err := g.ask.Action(r.Context(), client.KindOf[*authenticationv1.TokenReview](), "", "", "",
		&authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}})
	if err != nil {
		return nil, err
	}
	if review, ok := out.(*authenticationv1.TokenReview); ok && review.Status.Authenticated {
		return &review.Status.User, nil
	}
	return nil, nil
}
