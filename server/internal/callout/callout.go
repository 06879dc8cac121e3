// Package callout posts JSON to webhooks: those of admission and those that convert custom resources.
//
// Invariant: a Client is made for one configuration and never changes; every call ends with its context or its timeout.
// Only server's folders import callout.
package callout

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/rest"

	"github.com/skiff-sh/skiff/store"
)

// maxAnswer bounds a webhook's answer, in bytes.
const maxAnswer = 64 << 20

// Service is a webhook behind a service of the cluster: the ServiceReference of the APIs that have webhooks, each of which
// has a type of its own for it.
type Service struct {
	Namespace, Name string
	Path            *string // default: "/"
	Port            *int32  // default: 443
}

// Config says where a webhook is and whom to trust there: Service or else URL.
type Config struct {
	Service *Service
	URL     *string
	CA      []byte // PEM; empty: the system's authorities
	Timeout time.Duration
	Agent   string // User-Agent
	// Credentials are shown to the webhook. Nil: none.
	Credentials *Credentials
}

// Credentials is who this server is to webhooks, by their addresses.
type Credentials struct {
	of webhook.AuthenticationInfoResolver
}

// ReadCredentials reads a kubeconfig in which users stand by what they are for: "NAME.NAMESPACE.svc:PORT" or a URL's host, or
// these with wildcards.
func ReadCredentials(kubeconfig string) (*Credentials, error) {
	r, err := webhook.NewDefaultAuthenticationInfoResolver(kubeconfig)
	return &Credentials{r}, err
}

// credentials is what a client that shows the credentials needs; nil if there are none.
func (c Config) credentials(host string) (*rest.Config, error) {
	switch {
	case c.Credentials == nil:
		return nil, nil
	case c.Service != nil:
		return c.Credentials.of.ClientConfigForService(c.Service.Name, c.Service.Namespace, int(c.Service.port()))
	}
	return c.Credentials.of.ClientConfigFor(host)
}

func (s *Service) port() int32 {
	if s.Port == nil {
		return 443
	}
	return *s.Port
}

// Client posts to one webhook.
type Client struct {
	url     string
	timeout time.Duration
	agent   string
	http    *http.Client
}

// New makes a client. The store is asked for the service's endpoints with every new connection.
func New(st store.Store, c Config) (*Client, error) {
	tc := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if len(c.CA) > 0 {
		tc.RootCAs = x509.NewCertPool()
		if !tc.RootCAs.AppendCertsFromPEM(c.CA) {
			return nil, errors.New("unable to load root certificates: unable to parse bytes as PEM block")
		}
	}
	// Idle connections are given up soon: the pod behind one may be gone.
	tr := &http.Transport{TLSClientConfig: tc, MaxIdleConnsPerHost: 16, IdleConnTimeout: 15 * time.Second,
		TLSHandshakeTimeout: 10 * time.Second, DisableCompression: true}
	u, err := c.address()
	if err != nil {
		return nil, err
	}
	if s := c.Service; s != nil {
		tc.ServerName = s.Name + "." + s.Namespace + ".svc"
		tr.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			addr, err := Endpoint(st, s.Namespace, s.Name, s.port())
			if err != nil {
				return nil, err
			}
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		}
	} else {
		tr.Proxy = http.ProxyFromEnvironment
	}
	var through http.RoundTripper = tr
	if as, err := c.credentials(u.Host); err != nil {
		return nil, err
	} else if as != nil {
		if through, err = show(as, tr); err != nil {
			return nil, err
		}
	}
	q := u.Query()
	q.Set("timeout", c.Timeout.String())
	u.RawQuery = q.Encode()
	return &Client{url: u.String(), timeout: c.Timeout, agent: c.Agent, http: &http.Client{Transport: through,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}, nil
}

// show makes requests by tr with the credentials.
func show(as *rest.Config, tr *http.Transport) (http.RoundTripper, error) {
	own, err := rest.TLSConfigFor(as)
	if err != nil {
		return nil, err
	}
	if own != nil {
		tr.TLSClientConfig.Certificates, tr.TLSClientConfig.GetClientCertificate = own.Certificates, own.GetClientCertificate
	}
	return rest.HTTPWrappersForConfig(as, tr)
}

func (c Config) address() (*url.URL, error) {
	switch s := c.Service; {
	case s != nil:
		at := "/"
		if s.Path != nil {
			at = path.Join("/", *s.Path)
		}
		return &url.URL{Scheme: "https", Host: fmt.Sprintf("%s.%s.svc:%d", s.Name, s.Namespace, s.port()), Path: at}, nil
	case c.URL == nil || *c.URL == "":
		return nil, errors.New("webhook configuration must have either service or URL")
	}
	u, err := url.Parse(*c.URL)
	if err != nil {
		return nil, fmt.Errorf("unparsable webhook URL: %w", err)
	}
	u.Path, u.RawPath = path.Join("/", u.Path), "" // "//x" would be answered with a redirect, which nobody follows
	return u, nil
}

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Post sends a body and returns what the webhook answers with success. Another status is a *errors.StatusError.
func (c *Client) Post(ctx context.Context, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, */*")
	req.Header.Set("User-Agent", c.agent)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxAnswer {
		return nil, fmt.Errorf("the answer is larger than %d bytes", maxAnswer)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		text := strings.TrimSpace(string(data[:min(len(data), 2048)]))
		return nil, apierrors.NewGenericServerResponse(resp.StatusCode, "POST", schema.GroupResource{}, "", text, 0, true)
	}
	return data, nil
}
