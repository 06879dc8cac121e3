package endpointslice

import (
	"cmp"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/controllers/pods"
)

// perSlice bounds the endpoints of one slice.
const perSlice = 100

// Group is the endpoints that share a set of ports.
type Group struct {
	Ports     []discoveryv1.EndpointPort
	Endpoints []discoveryv1.Endpoint
}

// Packer puts endpoints into slices with as few writes as it can: what is in a slice stays there, what is new goes
// where there is room.
type Packer struct {
	Owner     api.Object
	OwnerKind schema.GroupVersionKind
	Name      string // prefix of the slices' names
	ManagedBy string
	Labels    map[string]string
	Trigger   time.Time
	KeepEmpty bool // leave one empty slice for a family without endpoints
}

// Plan returns the writes that turn the existing slices into the wanted groups for each address type.
func (k Packer) Plan(want map[discoveryv1.AddressType][]Group, existing []*discoveryv1.EndpointSlice) (actions []plan.Action) {
	existing = slices.Clone(existing)
	slices.SortFunc(existing, func(a, b *discoveryv1.EndpointSlice) int { return cmp.Compare(a.Name, b.Name) })
	have := map[discoveryv1.AddressType]map[string][]*discoveryv1.EndpointSlice{}
	for _, s := range existing {
		if !ours(s, k.ManagedBy) {
			continue
		}
		if have[s.AddressType] == nil {
			have[s.AddressType] = map[string][]*discoveryv1.EndpointSlice{}
		}
		key := portsKey(s.Ports)
		have[s.AddressType][key] = append(have[s.AddressType][key], s)
	}
	for _, family := range slices.Sorted(maps.Keys(want)) {
		groups := merge(want[family])
		if len(groups) == 0 && k.KeepEmpty {
			groups = []Group{{Ports: []discoveryv1.EndpointPort{}}}
		}
		for _, g := range groups {
			key := portsKey(g.Ports)
			actions = append(actions, k.pack(family, g, have[family][key])...)
			delete(have[family], key)
		}
	}
	for _, family := range slices.Sorted(maps.Keys(have)) {
		for _, key := range slices.Sorted(maps.Keys(have[family])) {
			for _, s := range have[family][key] {
				actions = append(actions, plan.Delete{Obj: s})
			}
		}
	}
	return actions
}

// merge joins the groups that have the same ports.
func merge(groups []Group) (out []Group) {
	at := map[string]int{}
	for _, g := range groups {
		if i, ok := at[portsKey(g.Ports)]; ok {
			out[i].Endpoints = append(slices.Clip(out[i].Endpoints), g.Endpoints...)
			continue
		}
		at[portsKey(g.Ports)] = len(out)
		out = append(out, g)
	}
	return out
}

// pack brings one group into its slices. New slices are made first and empty ones deleted last, so that no endpoint
// is out of all slices in between.
func (k Packer) pack(family discoveryv1.AddressType, g Group, existing []*discoveryv1.EndpointSlice) (actions []plan.Action) {
	missing := map[string]discoveryv1.Endpoint{}
	var order []string
	for _, e := range g.Endpoints {
		id := identity(e)
		if _, dup := missing[id]; !dup {
			order = append(order, id)
		}
		missing[id] = e
	}
	kept := make([][]discoveryv1.Endpoint, len(existing))
	for i, s := range existing {
		for _, e := range s.Endpoints {
			if next, ok := missing[identity(e)]; ok {
				kept[i] = append(kept[i], next)
				delete(missing, identity(e))
			}
		}
	}
	var rest []discoveryv1.Endpoint
	for _, id := range order {
		if e, ok := missing[id]; ok {
			rest = append(rest, e)
		}
	}
	for i := range existing {
		n := min(perSlice-len(kept[i]), len(rest))
		if n > 0 {
			kept[i], rest = append(kept[i], rest[:n]...), rest[n:]
		}
	}
	for len(rest) > 0 || len(existing) == 0 && len(actions) == 0 && len(g.Endpoints) == 0 {
		n := min(perSlice, len(rest))
		actions = append(actions, plan.Create{Obj: k.slice(family, g.Ports, rest[:n:n])})
		rest = rest[n:]
	}
	return append(actions, k.settle(existing, kept, len(actions) > 0 || !k.KeepEmpty)...)
}

// settle writes the slices that changed and deletes those that have become empty, the last one only if others remain.
func (k Packer) settle(existing []*discoveryv1.EndpointSlice, kept [][]discoveryv1.Endpoint, others bool) (updates []plan.Action) {
	others = others || slices.ContainsFunc(kept, func(e []discoveryv1.Endpoint) bool { return len(e) > 0 })
	var deletes []plan.Action
	for i, s := range existing {
		if len(kept[i]) == 0 && others {
			deletes = append(deletes, plan.Delete{Obj: s})
			continue
		}
		others = true
		if kept[i] == nil {
			kept[i] = []discoveryv1.Endpoint{}
		}
		if equality.Semantic.DeepEqual(s.Endpoints, kept[i]) && maps.Equal(s.Labels, k.Labels) {
			continue
		}
		s = s.DeepCopy()
		s.Endpoints, s.Labels = kept[i], k.Labels
		k.stamp(&s.ObjectMeta)
		updates = append(updates, plan.Update{Obj: s})
	}
	return append(updates, deletes...)
}

func (k Packer) stamp(m *metav1.ObjectMeta) {
	if k.Trigger.IsZero() {
		return
	}
	if m.Annotations == nil {
		m.Annotations = map[string]string{}
	}
	m.Annotations[corev1.EndpointsLastChangeTriggerTime] = k.Trigger.UTC().Format(time.RFC3339Nano)
}

func (k Packer) slice(family discoveryv1.AddressType, ports []discoveryv1.EndpointPort, endpoints []discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	if endpoints == nil {
		endpoints = []discoveryv1.Endpoint{}
	}
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: k.Owner.GetNamespace(), GenerateName: pods.GenerateName(k.Name), Labels: k.Labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(k.Owner, k.OwnerKind)}},
		AddressType: family, Ports: ports, Endpoints: endpoints,
	}
	k.stamp(&s.ObjectMeta)
	return s
}

// identity is what makes two endpoints the same one in different states.
func identity(e discoveryv1.Endpoint) string {
	id := ""
	if len(e.Addresses) > 0 {
		id = e.Addresses[0]
	}
	if e.TargetRef != nil {
		id += "|" + string(e.TargetRef.UID)
	}
	return id
}
