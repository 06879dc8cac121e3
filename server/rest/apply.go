package rest

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/codec"
	"github.com/skiff-sh/skiff/server/codec/plan"
)

// This file saves most of the work of a server-side apply. A configuration without lists and nulls does to an object what a
// merge patch does, unless the applier leaves out a field that it owned, or somebody else owns one. Which of that is the
// case follows from the shape of the write (shape.go) and the fields that the configuration has. So the first write of
// a shape takes both ways, and where they agree the others of that shape are merged.

// plainConfig is an apply configuration without lists and nulls.
type plainConfig struct {
	r    *REST
	k    *api.Kind
	sub  string
	data []byte

	namespace string // "" where the kind has none
	outline   []byte
	manager   string
	force     bool
	// tree is the way of the field manager.
	tree func() (*write, error)
}

// plainApply recognizes a configuration that can be merged.
func (r *REST) plainApply(ctx context.Context, w *write, data []byte, o metav1.PatchOptions) (*plainConfig, bool) {
	k := w.k
	if k.CRD || k.Hub != nil || o.FieldManager == "kubectl" { // which keeps its configuration in an annotation, too
		return nil, false
	}
	outline, ok := plan.Outline(nil, data)
	if !ok {
		return nil, false
	}
	obj := k.New()
	if !plan.Decode(data, obj) || obj.GetObjectKind().GroupVersionKind() != k.GroupVersionKind() ||
		obj.GetName() != w.name || k.Namespaced && obj.GetNamespace() != "" && obj.GetNamespace() != w.namespace || !onlyNamed(obj) {
		return nil, false
	}
	c := &plainConfig{r: r, k: k, sub: w.sub, data: data, outline: outline, manager: o.FieldManager, force: o.Force != nil && *o.Force}
	if k.Namespaced {
		c.namespace = w.namespace
	}
	c.tree = sync.OnceValues(func() (*write, error) {
		general := *w
		return &general, r.applyTree(ctx, &general, data, o)
	})
	return c, true
}

// onlyNamed reports whether the metadata has nothing but a name, labels and annotations.
func onlyNamed(obj api.Object) bool {
	a, ok := obj.(metav1.ObjectMetaAccessor)
	if !ok {
		return false
	}
	m, ok := a.GetObjectMeta().(*metav1.ObjectMeta)
	if !ok {
		return false
	}
	rest := *m
	rest.Name, rest.Namespace, rest.Labels, rest.Annotations = "", "", nil, nil
	return plan.Equal(&rest, &metav1.ObjectMeta{})
}

// create makes the object where there is none.
func (c *plainConfig) create() (api.Object, error) {
	empty := c.k.New()
	empty.GetObjectKind().SetGroupVersionKind(c.k.GroupVersionKind())
	return c.apply(empty, func(w *write) (api.Object, error) { return w.missing() })
}

// change applies the configuration to a shared object.
func (c *plainConfig) change(old api.Object) (api.Object, error) {
	return c.apply(old, func(w *write) (api.Object, error) { return w.change(old) })
}

func (c *plainConfig) apply(old api.Object, general func(*write) (api.Object, error)) (api.Object, error) {
	byTree := func() (api.Object, error) {
		w, err := c.tree()
		if err != nil {
			return nil, err
		}
		return general(w)
	}
	merged, key, ok := c.merge(old)
	if !ok {
		return byTree()
	}
	known, _ := c.r.shapes.LoadOrStore(managerKey{k: c.k, sub: "apply/" + c.sub}, &shapes{})
	s, managed := known.(*shapes), old.GetManagedFields()
	if o, ok := s.recall(key); ok {
		if o.odd {
			return byTree()
		}
		merged.SetManagedFields(o.at(time.Now().UTC(), managed))
		return merged, nil
	}
	out, err := byTree()
	if err != nil {
		return nil, err // a conflict, perhaps; nothing is known of the next
	}
	result := out.GetManagedFields()
	out.SetManagedFields(nil)
	merged.SetManagedFields(nil)
	same := plan.Equal(merged, out)
	out.SetManagedFields(result)
	if same {
		s.learn(key, managed, result)
	} else {
		s.refuse(key)
	}
	return out, nil
}

// merge merges the configuration into a private copy of old, and names the shape of that. ok is false where the shape
// would not tell enough.
func (c *plainConfig) merge(old api.Object) (merged api.Object, key string, ok bool) {
	if _, kept := old.GetAnnotations()[corev1.LastAppliedConfigAnnotation]; kept || len(old.GetManagedFields()) > 8 {
		return nil, "", false
	}
	out := c.k.New()
	if !plan.Merge(old, out, c.data, false) {
		return nil, "", false
	}
	merged = runtime.Object(out).DeepCopyObject().(api.Object)
	if merged.GetNamespace() == "" {
		merged.SetNamespace(c.namespace)
	}
	codec.Defaulted(c.k, merged)
	managed := old.GetManagedFields()
	merged.SetManagedFields(managed) // the very same, so that learn knows the times by their pointers
	version := c.k.GroupVersion().String()
	for i := range managed {
		m := &managed[i]
		if m.APIVersion != version || m.Manager == c.manager && m.Operation == metav1.ManagedFieldsOperationApply && ownsItems(m) {
			return nil, "", false
		}
	}
	sh := shapeOf(old, merged, 0, managed, c.manager)
	defer sketches.Put(sh)
	sh.bits(c.force)
	sh.bytes(c.outline)
	if sh.odd || len(sh.b) > maxShape {
		return nil, "", false
	}
	return merged, string(slices.Clone(sh.b)), true
}

// ownsItems reports whether there are elements of lists among an applier's fields. The configuration has none, so it
// would remove them.
func ownsItems(m *metav1.ManagedFieldsEntry) bool {
	if m.FieldsV1 == nil {
		return true
	}
	for _, prefix := range []string{`"k:`, `"v:`, `"i:`} {
		if bytes.Contains(m.FieldsV1.Raw, []byte(prefix)) {
			return true
		}
	}
	return false
}
