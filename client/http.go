package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"reflect"
	"strconv"
	"time"

	"golang.org/x/net/http2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/conversion/queryparams"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/skiff-sh/skiff/api"
)

// HTTPConfig is what a client over HTTP needs.
type HTTPConfig struct {
	Server string // "https://10.0.0.1:6443"; a path prefix is kept
	// TLS verifies the server and holds the client's certificate; it is copied. Nil trusts the system's roots.
	TLS         *tls.Config
	BearerToken string
	// TokenFunc, if set, is asked for the bearer token of every request instead (tokens that are renewed).
	TokenFunc func(ctx context.Context) (string, error)
	UserAgent string // "" is "skiff"
}

func (c HTTPConfig) validate() (*url.URL, error) {
	u, err := url.Parse(c.Server)
	if err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	if u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return nil, fmt.Errorf("server: %q is no http or https address", c.Server)
	}
	if c.BearerToken != "" && c.TokenFunc != nil {
		return nil, errors.New("both BearerToken and TokenFunc are set")
	}
	return u, nil
}

// httpClient speaks protobuf for built-in kinds and JSON for all others. It neither throttles nor retries, except that
// it waits when the server asks it to (429 with Retry-After).
type httpClient struct {
	base  *url.URL
	http  *http.Client
	token func(context.Context) (string, error)
	agent string
}

// NewHTTP makes a client that speaks to an API server, over HTTP/2 where the server is able to.
func NewHTTP(cfg HTTPConfig) (Interface, error) {
	base, err := cfg.validate()
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConnsPerHost: 25, IdleConnTimeout: 90 * time.Second}
	if cfg.TLS != nil {
		t.TLSClientConfig = cfg.TLS.Clone()
	}
	h2, err := http2.ConfigureTransports(t)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	h2.ReadIdleTimeout, h2.PingTimeout = 30*time.Second, 15*time.Second // a dead server ends its watches
	c := &httpClient{base: base, http: &http.Client{Transport: t}, token: cfg.TokenFunc, agent: cfg.UserAgent}
	if c.token == nil && cfg.BearerToken != "" {
		c.token = func(context.Context) (string, error) { return cfg.BearerToken, nil }
	}
	if c.agent == "" {
		c.agent = "skiff"
	}
	return c, nil
}

// call is one request.
type call struct {
	method, path string
	query        url.Values
	contentType  string
	body         []byte
	accept       string
}

// pathOf is the path of a resource, an object ("" for none) or its subresource.
func pathOf(k *api.Kind, namespace, name, subresource string) string {
	p := "/apis/" + k.Group + "/" + k.Version
	if k.Group == "" {
		p = "/api/" + k.Version
	}
	if namespace != "" && k.Namespaced {
		p += "/namespaces/" + namespace
	}
	p += "/" + k.Plural
	if name != "" {
		p += "/" + name
		if subresource != "" {
			p += "/" + subresource
		}
	}
	return p
}

func queryOf(options any) (url.Values, error) {
	v, err := queryparams.Convert(options)
	if err != nil {
		return nil, err
	}
	v.Del("kind")
	v.Del("apiVersion")
	return v, nil
}

// maxWaits bounds how often one call waits because the server asked it to.
const maxWaits = 10

// do sends a request and returns the response if it is a success, else a *errors.StatusError or why there is none.
func (c *httpClient) do(ctx context.Context, r schema.GroupResource, in call) (*http.Response, error) {
	for waits := 0; ; waits++ {
		resp, err := c.send(ctx, in)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode < 300 {
			return resp, nil
		}
		err = failure(resp, r, in)
		after, parseErr := strconv.Atoi(resp.Header.Get("Retry-After"))
		if resp.StatusCode != http.StatusTooManyRequests || parseErr != nil || after <= 0 || waits == maxWaits {
			return nil, err
		}
		if !sleep(ctx, time.Duration(after)*time.Second) {
			return nil, err
		}
	}
}

func (c *httpClient) send(ctx context.Context, in call) (*http.Response, error) {
	u := *c.base
	u.Path = path.Join("/", u.Path, in.path)
	u.RawQuery = in.query.Encode()
	req, err := http.NewRequestWithContext(ctx, in.method, u.String(), bytes.NewReader(in.body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", c.agent)
	req.Header.Set("Accept", in.accept)
	if in.body != nil {
		req.Header.Set("Content-Type", in.contentType)
	}
	if c.token != nil {
		token, err := c.token(ctx)
		if err != nil {
			return nil, fmt.Errorf("bearer token: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return c.http.Do(req)
}

// failure makes the error of a response that is no success.
func failure(resp *http.Response, r schema.GroupResource, in call) error {
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("%s %s: %s: %w", in.method, in.path, resp.Status, err)
	}
	if status, ok := decodeStatus(body); ok && status.Status != metav1.StatusSuccess {
		return &apierrors.StatusError{ErrStatus: *status}
	}
	retry, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
	return apierrors.NewGenericServerResponse(resp.StatusCode, in.method, r, path.Base(in.path), string(body), retry, true)
}

// object sends a request and decodes the answer as an object of the kind, or of like's type.
func (c *httpClient) object(ctx context.Context, k *api.Kind, in call, like runtime.Object) (runtime.Object, error) {
	resp, err := c.do(ctx, k.GroupResource(), in)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", in.method, in.path, err)
	}
	obj, err := decodeObject(body, func(kind string) runtime.Object {
		if kind == k.Kind || like == nil {
			return k.New()
		}
		return reflect.New(reflect.TypeOf(like).Elem()).Interface().(runtime.Object)
	})
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", in.method, in.path, err)
	}
	return obj, nil
}

// apiObject is object for answers that have metadata.
func (c *httpClient) apiObject(ctx context.Context, k *api.Kind, in call, like runtime.Object) (api.Object, error) {
	o, err := c.object(ctx, k, in, like)
	if err != nil {
		return nil, err
	}
	obj, ok := o.(api.Object)
	if !ok {
		return nil, fmt.Errorf("%s %s: the server answered with a %T", in.method, in.path, o)
	}
	return obj, nil
}

func (c *httpClient) Get(ctx context.Context, k *api.Kind, namespace, name string, o metav1.GetOptions) (api.Object, error) {
	q, err := queryOf(&o)
	if err != nil {
		return nil, err
	}
	if name == "" {
		return nil, fmt.Errorf("get %s: the name is missing", k.Plural)
	}
	return c.apiObject(ctx, k, call{method: "GET", path: pathOf(k, namespace, name, ""), query: q, accept: accept(k)}, nil)
}

func (c *httpClient) List(ctx context.Context, k *api.Kind, namespace string, o metav1.ListOptions) ([]api.Object, metav1.ListMeta, error) {
	q, err := queryOf(&o)
	if err != nil {
		return nil, metav1.ListMeta{}, err
	}
	in := call{method: "GET", path: pathOf(k, namespace, "", ""), query: q, accept: accept(k)}
	resp, err := c.do(ctx, k.GroupResource(), in)
	if err != nil {
		return nil, metav1.ListMeta{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, metav1.ListMeta{}, fmt.Errorf("list %s: %w", k.Plural, err)
	}
	objs, meta, err := decodeList(body, k)
	if err != nil {
		return nil, metav1.ListMeta{}, fmt.Errorf("list %s: %w", k.Plural, err)
	}
	return objs, meta, nil
}

func (c *httpClient) Watch(ctx context.Context, k *api.Kind, namespace string, o metav1.ListOptions) (watch.Interface, error) {
	o.Watch = true
	q, err := queryOf(&o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	in := call{method: "GET", path: pathOf(k, namespace, "", ""), query: q, accept: acceptWatch(k)}
	resp, err := c.do(ctx, k.GroupResource(), in)
	if err != nil {
		cancel()
		return nil, err
	}
	return newStream(ctx, cancel, resp, k), nil
}

func (c *httpClient) Create(ctx context.Context, k *api.Kind, obj api.Object, o metav1.CreateOptions) (api.Object, error) {
	return c.write(ctx, k, "POST", pathOf(k, obj.GetNamespace(), "", ""), obj, &o)
}

func (c *httpClient) Update(ctx context.Context, k *api.Kind, obj api.Object, subresource string, o metav1.UpdateOptions) (api.Object, error) {
	if obj.GetName() == "" {
		return nil, fmt.Errorf("update %s: the name is missing", k.Plural)
	}
	return c.write(ctx, k, "PUT", pathOf(k, obj.GetNamespace(), obj.GetName(), subresource), obj, &o)
}

func (c *httpClient) write(ctx context.Context, k *api.Kind, method, path string, obj api.Object, options any) (api.Object, error) {
	q, err := queryOf(options)
	if err != nil {
		return nil, err
	}
	body, contentType, err := encode(k, obj)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", k.Kind, err)
	}
	return c.apiObject(ctx, k, call{method: method, path: path, query: q, body: body, contentType: contentType, accept: accept(k)}, obj)
}

func (c *httpClient) Patch(ctx context.Context, k *api.Kind, namespace, name, subresource string, t types.PatchType, data []byte, o metav1.PatchOptions) (api.Object, error) {
	q, err := queryOf(&o)
	if err != nil {
		return nil, err
	}
	if name == "" {
		return nil, fmt.Errorf("patch %s: the name is missing", k.Plural)
	}
	return c.apiObject(ctx, k, call{method: "PATCH", path: pathOf(k, namespace, name, subresource), query: q, body: data,
		contentType: string(t), accept: accept(k)}, nil)
}

func (c *httpClient) Delete(ctx context.Context, k *api.Kind, namespace, name string, o metav1.DeleteOptions) error {
	if name == "" {
		return fmt.Errorf("delete %s: the name is missing", k.Plural)
	}
	return c.delete(ctx, k, pathOf(k, namespace, name, ""), nil, o)
}

func (c *httpClient) DeleteCollection(ctx context.Context, k *api.Kind, namespace string, o metav1.DeleteOptions, l metav1.ListOptions) error {
	q, err := queryOf(&l)
	if err != nil {
		return err
	}
	return c.delete(ctx, k, pathOf(k, namespace, "", ""), q, o)
}

func (c *httpClient) delete(ctx context.Context, k *api.Kind, path string, q url.Values, o metav1.DeleteOptions) error {
	o.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "DeleteOptions"}
	body, err := encodeJSON(&o)
	if err != nil {
		return err
	}
	resp, err := c.do(ctx, k.GroupResource(), call{method: "DELETE", path: path, query: q, body: body, contentType: typeJSON, accept: typeJSON})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

func (c *httpClient) Action(ctx context.Context, k *api.Kind, namespace, name, subresource string, body runtime.Object) (runtime.Object, error) {
	b, err := encodeBody(k, subresource, body)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", body, err)
	}
	return c.object(ctx, k, call{method: "POST", path: pathOf(k, namespace, name, subresource), body: b, contentType: typeJSON, accept: typeJSON}, body)
}
