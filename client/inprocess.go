package client

import (
	"context"
	"net/http"
	"net/url"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/skiff-sh/skiff/api"
)

// Inside is a client within a server's own process: its calls reach the server's own kinds directly, and requests go the
// whole of the server's way without a socket.
type Inside interface {
	Interface
	http.RoundTripper
}

// inProcess is a client of one process for all kinds: the server's own, and as requests those of aggregated servers.
type inProcess struct {
	local Interface
	wire  *httpClient
}

// InProcess makes a whole client of one that knows the server's own kinds alone.
func InProcess(in Inside) Interface {
	return &inProcess{local: in, wire: &httpClient{base: &url.URL{Scheme: "https", Host: "localhost"}, http: &http.Client{Transport: in}, agent: "skiff"}}
}

// of is who answers for a kind.
func (c *inProcess) of(k *api.Kind) Interface {
	if k.Aggregated {
		return c.wire
	}
	return c.local
}

func (c *inProcess) Get(ctx context.Context, k *api.Kind, namespace, name string, o metav1.GetOptions) (api.Object, error) {
	return c.of(k).Get(ctx, k, namespace, name, o)
}

func (c *inProcess) List(ctx context.Context, k *api.Kind, namespace string, o metav1.ListOptions) ([]api.Object, metav1.ListMeta, error) {
	return c.of(k).List(ctx, k, namespace, o)
}

func (c *inProcess) Watch(ctx context.Context, k *api.Kind, namespace string, o metav1.ListOptions) (watch.Interface, error) {
	return c.of(k).Watch(ctx, k, namespace, o)
}

func (c *inProcess) Create(ctx context.Context, k *api.Kind, obj api.Object, o metav1.CreateOptions) (api.Object, error) {
	return c.of(k).Create(ctx, k, obj, o)
}

func (c *inProcess) Update(ctx context.Context, k *api.Kind, obj api.Object, subresource string, o metav1.UpdateOptions) (api.Object, error) {
	return c.of(k).Update(ctx, k, obj, subresource, o)
}

func (c *inProcess) Patch(ctx context.Context, k *api.Kind, namespace, name, subresource string, t types.PatchType, data []byte, o metav1.PatchOptions) (api.Object, error) {
	return c.of(k).Patch(ctx, k, namespace, name, subresource, t, data, o)
}

func (c *inProcess) Delete(ctx context.Context, k *api.Kind, namespace, name string, o metav1.DeleteOptions) error {
	return c.of(k).Delete(ctx, k, namespace, name, o)
}

func (c *inProcess) DeleteCollection(ctx context.Context, k *api.Kind, namespace string, o metav1.DeleteOptions, l metav1.ListOptions) error {
	return c.of(k).DeleteCollection(ctx, k, namespace, o, l)
}

func (c *inProcess) Action(ctx context.Context, k *api.Kind, namespace, name, subresource string, body runtime.Object) (runtime.Object, error) {
	return c.of(k).Action(ctx, k, namespace, name, subresource, body)
}
