package etcd

import (
	"hash/maphash"
	"maps"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/api"
)

// maxInterned bounds how many values of one type an interner knows, twice over: those that are met again stay.
const maxInterned = 2 << 10

// interner makes equal parts of different objects one. The pods of a deployment have the same labels, requests and managed
// fields, and a map of three entries takes more memory than all their text. It is safe for concurrent use.
type interner struct {
	mu        sync.Mutex
	seed      maphash.Seed
	fields    generations[string, *metav1.FieldsV1]
	texts     generations[uint64, map[string]string]
	resources generations[uint64, corev1.ResourceList]
}

func newInterner() *interner { return &interner{seed: maphash.MakeSeed()} }

// intern replaces the parts of an object that nobody else has yet.
func (in *interner) intern(obj api.Object) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if o, ok := obj.(interface{ GetObjectMeta() metav1.Object }); ok {
		if m, ok := o.GetObjectMeta().(*metav1.ObjectMeta); ok {
			in.meta(m)
		}
	}
	if pod, ok := obj.(*corev1.Pod); ok {
		in.text(&pod.Spec.NodeSelector)
		for i := range pod.Spec.InitContainers {
			in.container(&pod.Spec.InitContainers[i])
		}
		for i := range pod.Spec.Containers {
			in.container(&pod.Spec.Containers[i])
		}
		for i := range pod.Status.ContainerStatuses {
			in.list(&pod.Status.ContainerStatuses[i].AllocatedResources)
			if r := pod.Status.ContainerStatuses[i].Resources; r != nil {
				in.list(&r.Requests)
				in.list(&r.Limits)
			}
		}
	}
}

func (in *interner) meta(m *metav1.ObjectMeta) {
	in.text(&m.Labels)
	in.text(&m.Annotations)
	for i := range m.ManagedFields {
		if f := m.ManagedFields[i].FieldsV1; f != nil {
			raw := f.Raw
			known, ok := in.fields.get(string(raw))
			if !ok {
				known = f
				in.fields.put(string(raw), f)
			}
			m.ManagedFields[i].FieldsV1 = known
		}
	}
}

func (in *interner) container(c *corev1.Container) {
	in.list(&c.Resources.Requests)
	in.list(&c.Resources.Limits)
}

// text and list find maps by the sum of their entries' hashes, which knows no order.
func (in *interner) text(m *map[string]string) {
	if len(*m) == 0 {
		return
	}
	sum := uint64(len(*m))
	for k, v := range *m {
		sum += maphash.String(in.seed, k)*31 ^ maphash.String(in.seed, v)
	}
	if known, ok := in.texts.get(sum); ok && maps.Equal(known, *m) {
		*m = known
	} else if !ok {
		in.texts.put(sum, *m)
	}
}

func (in *interner) list(m *corev1.ResourceList) {
	if len(*m) == 0 {
		return
	}
	sum := uint64(len(*m))
	for k, v := range *m {
		sum += maphash.String(in.seed, string(k))*31 ^ maphash.Comparable(in.seed, v)
	}
	if known, ok := in.resources.get(sum); ok && maps.Equal(known, *m) {
		*m = known
	} else if !ok {
		in.resources.put(sum, *m)
	}
}

// generations is a map that forgets: what was not met while it filled up is gone when it fills up again.
type generations[K comparable, V any] struct{ young, old map[K]V }

func (g *generations[K, V]) get(k K) (V, bool) {
	v, ok := g.young[k]
	if !ok {
		if v, ok = g.old[k]; ok {
			g.put(k, v)
		}
	}
	return v, ok
}

func (g *generations[K, V]) put(k K, v V) {
	if len(g.young) >= maxInterned {
		g.old, g.young = g.young, nil
	}
	if g.young == nil {
		g.young = map[K]V{}
	}
	g.young[k] = v
}
