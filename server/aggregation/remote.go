package aggregation

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/transport"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

// maxDocument bounds what is read of an extension server's documents, in bytes.
const maxDocument = 32 << 20

// aggregatorUser is who asks the extension servers for their documents.
var aggregatorUser = &user.DefaultInfo{Name: "system:kube-aggregator", Groups: []string{user.SystemPrivilegedGroup}}

// Remote is the extension server of one APIService.
type Remote struct {
	name string
	spec apiregistrationv1.APIServiceSpec
	// plain is for requests, upgrade for those that change protocols, which HTTP/2 cannot.
	plain, upgrade *http.Transport
	broken         error         // the CA bundle cannot be used
	changed        chan struct{} // tells the keeper to look at once

	docs     atomic.Pointer[documents]
	looked   atomic.Bool // the keeper has looked at least once
	failures int         // in a row; the keeper's alone
	v2mu     sync.Mutex  // one request at a time asks for the Swagger document
	v2       *swagger
}

func (r *Remote) groupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: r.spec.Group, Version: r.spec.Version}
}

// serves reports whether the remote is still what the APIService says.
func (r *Remote) serves(o *apiService) bool {
	return apiequality.Semantic.DeepEqual(r.spec.Service, o.Spec.Service) && r.spec.InsecureSkipTLSVerify == o.Spec.InsecureSkipTLSVerify &&
		string(r.spec.CABundle) == string(o.Spec.CABundle)
}

func (s *Server) newRemote(o *apiService) *Remote {
	r := &Remote{name: o.Name, spec: o.Spec, changed: make(chan struct{}, 1)}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: o.Spec.Service.Name + "." + o.Spec.Service.Namespace + ".svc",
		InsecureSkipVerify: o.Spec.InsecureSkipTLSVerify, GetClientCertificate: s.Certificate}
	if len(o.Spec.CABundle) > 0 {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(o.Spec.CABundle) {
			r.broken = errors.New("unable to load root certificates: the caBundle holds no certificate")
		}
	}
	dial := (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	r.plain = &http.Transport{TLSClientConfig: c, DialContext: dial, DisableCompression: true, ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: 10 * time.Second, MaxIdleConnsPerHost: 16, IdleConnTimeout: 90 * time.Second,
		HTTP2: &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second}}
	h1 := c.Clone()
	h1.NextProtos = []string{"http/1.1"}
	r.upgrade = &http.Transport{TLSClientConfig: h1, DialContext: dial, DisableCompression: true, TLSHandshakeTimeout: 10 * time.Second,
		DisableKeepAlives: true, TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}}
	return r
}

// close lets go of the idle connections; requests that are under way end by themselves.
func (r *Remote) close() {
	r.plain.CloseIdleConnections()
	r.upgrade.CloseIdleConnections()
}

// root is the path of the group-version's discovery document.
func (r *Remote) root() string {
	if r.spec.Group == "" {
		return "/api/" + r.spec.Version
	}
	return "/apis/" + r.groupVersion().String()
}

// answer is a document of an extension server.
type answer struct {
	url    *url.URL
	code   int
	header http.Header
	body   []byte
}

// ask gets a document as the aggregator, from any of the server's places.
func (s *Server) ask(ctx context.Context, r *Remote, path string, header map[string]string) (*answer, error) {
	if r.broken != nil {
		return nil, r.broken
	}
	host, err := s.place(r.spec.Service).host(r.spec.Service, rand.IntN)
	if err != nil {
		return nil, err
	}
	u := &url.URL{Scheme: "https", Host: host, Path: path}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		if v != "" {
			req.Header.Set(k, v)
		}
	}
	transport.SetAuthProxyHeaders(req, aggregatorUser.Name, "", aggregatorUser.Groups, nil)
	resp, err := (&http.Client{Transport: r.plain, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(req)
	if err != nil {
		r.plain.CloseIdleConnections() // the next try begins with a new connection
		return nil, fmt.Errorf("failing or missing response from %s: %w", u, err)
	}
	defer resp.Body.Close()
	a := &answer{url: u, code: resp.StatusCode, header: resp.Header}
	if a.body, err = io.ReadAll(io.LimitReader(resp.Body, maxDocument+1)); err != nil {
		return nil, fmt.Errorf("reading the response from %s: %w", u, err)
	}
	if len(a.body) > maxDocument {
		return nil, fmt.Errorf("the response from %s is larger than %d bytes", u, maxDocument)
	}
	return a, nil
}

// discovered is the group-version as discovery tells of it: as the server itself last did, and stale where that was not
// just now.
func (r *Remote) discovered(available bool) *apidiscoveryv2.APIVersionDiscovery {
	v := apidiscoveryv2.APIVersionDiscovery{Version: r.spec.Version, Freshness: apidiscoveryv2.DiscoveryFreshnessStale}
	if d := r.docs.Load(); d != nil {
		v = d.discovery
		if !available || d.failed {
			v.Freshness = apidiscoveryv2.DiscoveryFreshnessStale
		}
	}
	return &v
}
