package webhook

import (
	"bytes"
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
	"strconv"
	"strings"
	"time"

	regv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/skiff-sh/skiff/server/internal/read"
	"github.com/skiff-sh/skiff/store"
)

const (
	defaultTimeout = 10 * time.Second
	maxAnswer      = 16 << 20 // bytes
)

// client posts to one webhook.
type client struct {
	url     string
	timeout time.Duration
	http    *http.Client
}

func newClient(st store.Store, c regv1.WebhookClientConfig, seconds *int32) (*client, error) {
	out := &client{timeout: defaultTimeout}
	if seconds != nil {
		out.timeout = time.Duration(*seconds) * time.Second
	}
	tc := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if len(c.CABundle) > 0 {
		tc.RootCAs = x509.NewCertPool()
		if !tc.RootCAs.AppendCertsFromPEM(c.CABundle) {
			return nil, errors.New("unable to load root certificates: unable to parse bytes as PEM block")
		}
	}
	// Idle connections are given up soon: the pod behind one may be gone.
	tr := &http.Transport{TLSClientConfig: tc, MaxIdleConnsPerHost: 16, IdleConnTimeout: 15 * time.Second,
		TLSHandshakeTimeout: 10 * time.Second, DisableCompression: true}
	out.http = &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	var u *url.URL
	switch {
	case c.Service != nil:
		s := c.Service
		port := int32(443)
		if s.Port != nil {
			port = *s.Port
		}
		u = &url.URL{Scheme: "https", Host: fmt.Sprintf("%s.%s.svc:%d", s.Name, s.Namespace, port)}
		if s.Path != nil {
			u.Path = *s.Path
		}
		tc.ServerName = s.Name + "." + s.Namespace + ".svc"
		tr.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			addr, err := endpoint(st, s.Namespace, s.Name, port)
			if err != nil {
				return nil, err
			}
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		}
	case c.URL != nil:
		var err error
		if u, err = url.Parse(*c.URL); err != nil {
			return nil, fmt.Errorf("unparsable webhook URL: %w", err)
		}
		tr.Proxy = http.ProxyFromEnvironment
	default:
		return nil, errors.New("webhook configuration must have either service or URL")
	}
	q := u.Query()
	q.Set("timeout", out.timeout.String())
	u.RawQuery = q.Encode()
	out.url = u.String()
	return out, nil
}

// post sends a body and returns what the webhook answers with 200.
func (c *client) post(ctx context.Context, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, */*")
	req.Header.Set("User-Agent", "kube-apiserver-admission")
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		text := strings.TrimSpace(string(data[:min(len(data), 2048)]))
		return nil, apierrors.NewGenericServerResponse(resp.StatusCode, "POST", schema.GroupResource{}, "", text, 0, true)
	}
	return data, nil
}

// endpoint is the address of a ready pod behind a service's port, chosen at random.
func endpoint(st store.Store, namespace, name string, port int32) (string, error) {
	svc, ok := read.Get[*corev1.Service](st, namespace, name)
	if !ok {
		return "", apierrors.NewNotFound(schema.GroupResource{Resource: "services"}, name)
	}
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		return net.JoinHostPort(svc.Spec.ExternalName, strconv.Itoa(int(port))), nil
	}
	var found *corev1.ServicePort
	for i := range svc.Spec.Ports {
		if svc.Spec.Ports[i].Port == port {
			found = &svc.Spec.Ports[i]
		}
	}
	if found == nil {
		return "", apierrors.NewServiceUnavailable(fmt.Sprintf("no service port %d found for service %q", port, name))
	}
	var addrs []string
	for sl := range read.All[*discoveryv1.EndpointSlice](st, namespace) {
		if sl.Labels[discoveryv1.LabelServiceName] == name {
			addrs = append(addrs, ready(sl, found.Name)...)
		}
	}
	if len(addrs) == 0 {
		return "", apierrors.NewServiceUnavailable(fmt.Sprintf("no endpoints available for service %q", name))
	}
	return addrs[rand.IntN(len(addrs))], nil
}

// ready is the addresses of a slice's ready endpoints at a named port.
func ready(sl *discoveryv1.EndpointSlice, portName string) []string {
	var out []string
	for _, p := range sl.Ports {
		if p.Port == nil || p.Name != nil && *p.Name != portName || p.Name == nil && portName != "" {
			continue
		}
		for _, e := range sl.Endpoints {
			if (e.Conditions.Ready == nil || *e.Conditions.Ready) && len(e.Addresses) > 0 {
				out = append(out, net.JoinHostPort(e.Addresses[0], strconv.Itoa(int(*p.Port))))
			}
		}
	}
	return out
}
