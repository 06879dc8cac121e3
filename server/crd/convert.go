package crd

import (
	"context"
	"fmt"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/codec"
)

// This file gives objects in other versions of their definition. Without a webhook they keep their fields. With one,
// objects stay in the store's cache as they were written, and what the webhook makes of them is kept beside them: a
// webhook is asked once about one state of an object in one version, however many clients read and watch it.

const (
	webhookTimeout = 30 * time.Second // as upstream's
	reviewObjects  = 100              // that one review holds at most
	reviewsAtOnce  = 4                // of one definition
)

// promise is an object in another version, once done is closed.
type promise struct {
	done chan struct{}
	obj  *unstructured.Unstructured
	err  error
}

func (d *definition) apiVersion(version string) string { return d.crd.Spec.Group + "/" + version }

func (d *definition) byWebhook() bool {
	c := d.crd.Spec.Conversion
	return c != nil && c.Strategy == apiextensionsv1.WebhookConverter
}

// as is the object in a version: the argument itself if it is of that version.
func (d *definition) as(o api.Object, version string) (api.Object, error) {
	u, ok := o.(*unstructured.Unstructured)
	switch {
	case !ok:
		return nil, fmt.Errorf("%T is no custom resource", o)
	case u.GetAPIVersion() == d.apiVersion(version):
		return u, nil
	case !d.byWebhook() || empty(u):
		return d.renamed(u, version)
	}
	if p, ok := d.converted.get(u, version); ok {
		select {
		case <-p.done:
			if p.err == nil {
				return p.obj, nil
			}
		default:
		}
	}
	ctx, cancel := context.WithTimeout(d.life, webhookTimeout)
	defer cancel()
	out, err := d.review(ctx, []*unstructured.Unstructured{u}, version)
	if err != nil {
		return nil, err
	}
	return out[0], nil
}

// empty reports whether an object has nothing but its kind: no webhook has to see that.
func empty(u *unstructured.Unstructured) bool {
	for key := range u.Object {
		if key != "kind" && key != "apiVersion" {
			return false
		}
	}
	return true
}

// renamed has the same fields as the object, as far as the version knows them.
func (d *definition) renamed(u *unstructured.Unstructured, version string) (*unstructured.Unstructured, error) {
	v := d.versions[version]
	if v == nil {
		return nil, fmt.Errorf("request to convert CR to an invalid group/version: %s", d.apiVersion(version))
	}
	out := u.DeepCopy()
	out.SetAPIVersion(d.apiVersion(version))
	if _, err := v.prune(out, false, false); err != nil {
		return nil, err
	}
	return out, nil
}

// ready converts objects of the store, so that as has them.
func (d *definition) ready(ctx context.Context, stored []api.Object, version string) error {
	var mine []*unstructured.Unstructured
	var all, made []*promise
	for _, o := range stored {
		u, ok := o.(*unstructured.Unstructured)
		if !ok || u.GetAPIVersion() == d.apiVersion(version) || empty(u) {
			continue
		}
		p, first := d.converted.claim(u, version, func() *promise { return &promise{done: make(chan struct{})} })
		if first {
			mine, made = append(mine, u), append(made, p)
		}
		all = append(all, p)
	}
	for i := 0; i < len(mine); i += reviewObjects {
		end := min(i+reviewObjects, len(mine))
		go d.keep(mine[i:end], made[i:end], version) // others may wait for it longer than ctx
	}
	for _, p := range all {
		select {
		case <-p.done:
			if p.err != nil {
				return p.err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// keep fulfils promises. Failures are told to those who wait and forgotten.
func (d *definition) keep(objs []*unstructured.Unstructured, promises []*promise, version string) {
	ctx, cancel := context.WithTimeout(d.life, webhookTimeout)
	defer cancel()
	var out []*unstructured.Unstructured
	var err error
	select {
	case d.reviews <- struct{}{}:
		out, err = d.review(ctx, objs, version)
		<-d.reviews
	case <-ctx.Done():
		err = ctx.Err()
	}
	for i, p := range promises {
		if p.err = err; err == nil {
			p.obj = out[i]
		} else {
			d.converted.drop(objs[i], version)
		}
		close(p.done)
	}
}

// converter is runtime.ObjectConvertor for the field manager: it knows all versions, served or not.
type converter struct {
	d *definition
}

func (c converter) ConvertToVersion(in runtime.Object, gv runtime.GroupVersioner) (runtime.Object, error) {
	in, to, err := codec.Target(in, gv)
	if err != nil {
		return nil, err
	}
	from := in.GetObjectKind().GroupVersionKind()
	u, ok := in.(*unstructured.Unstructured)
	if !ok || from.Group != c.d.crd.Spec.Group {
		return in, nil // a Scale is of one version
	}
	if c.d.versions[from.Version] == nil {
		return nil, runtime.NewNotRegisteredErrForKind("custom resources", from)
	}
	// Fields that are managed in a version that is gone from the definition make an apply fail, as upstream's.
	return c.d.as(u, to.Version)
}

func (c converter) Convert(in, out, context any) error {
	return fmt.Errorf("conversion into a given object is not supported")
}

func (c converter) ConvertFieldLabel(_ schema.GroupVersionKind, label, value string) (string, string, error) {
	return label, value, nil
}
