package discovery

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/skiff-sh/skiff/api"
)

// groupList is the list of all groups but the core group. Groups of the same priority stand in the order of their
// APIServices' names here, and not in that of their own.
func groupList(s *state) *metav1.APIGroupList {
	l := &metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}, Groups: []metav1.APIGroup{}}
	groups := slices.Clone(s.groups)
	slices.SortStableFunc(groups, func(a, b *group) int {
		return cmp.Or(cmp.Compare(b.priority, a.priority), strings.Compare(a.first, b.first))
	})
	for _, g := range groups {
		if g.name != "" {
			one := groupOf(g)
			one.TypeMeta = metav1.TypeMeta{}
			l.Groups = append(l.Groups, *one)
		}
	}
	return l
}

func groupOf(g *group) *metav1.APIGroup {
	out := &metav1.APIGroup{TypeMeta: metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}, Name: g.name}
	for _, v := range g.versions {
		out.Versions = append(out.Versions, metav1.GroupVersionForDiscovery{GroupVersion: v.gv.String(), Version: v.gv.Version})
	}
	out.PreferredVersion = out.Versions[0]
	return out
}

// resources is the list of one group-version's resources.
func resources(v *groupVersion) *metav1.APIResourceList {
	l := &metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"},
		GroupVersion: v.gv.String(), APIResources: []metav1.APIResource{}}
	if v.gv.Group == "" {
		l.APIVersion = "" // as upstream has it for the oldest document
	}
	for _, k := range v.kinds {
		l.APIResources = append(l.APIResources, metav1.APIResource{Name: k.Plural, SingularName: k.Singular,
			Namespaced: k.Namespaced, Kind: k.Kind, Verbs: verbs(k), ShortNames: k.ShortNames, Categories: k.Categories,
			StorageVersionHash: storageVersionHash(k)})
		for i := range k.Subresources {
			s := &k.Subresources[i]
			r := metav1.APIResource{Name: k.Plural + "/" + s.Name, Namespaced: k.Namespaced, Kind: k.Kind, Verbs: s.Verbs}
			if gvk := kindOf(k, s); gvk != k.GroupVersionKind() {
				r.Kind = gvk.Kind
				if gvk.GroupVersion() != v.gv {
					r.Group, r.Version = gvk.Group, gvk.Version
				}
			}
			l.APIResources = append(l.APIResources, r)
		}
	}
	return l
}

// verbs are in upstream's order, which for custom resources is not that of the alphabet.
func verbs(k *api.Kind) []string {
	if k.CRD && k.Verbs == nil {
		return []string{"delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"}
	}
	return k.AllVerbs()
}

// storageVersionHash names the version that a kind is stored in, for clients that move stored objects to a newer one.
// "" for what is not stored.
func storageVersionHash(k *api.Kind) string {
	if k.StoragePath == "" {
		return ""
	}
	gvk := k.Storage().GroupVersionKind()
	if h, ok := otherHashes[gvk.GroupKind()]; ok {
		return h
	}
	sum := sha256.Sum256([]byte(gvk.Group + "/" + gvk.Version + "/" + gvk.Kind))
	return base64.StdEncoding.EncodeToString(sum[:8])
}

// otherHashes are of kinds that upstream stores in another version, which is not served here.
var otherHashes = map[schema.GroupKind]string{
	{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}:               "jfWCUB31mvA=",
	{Group: "admissionregistration.k8s.io", Kind: "MutatingAdmissionPolicy"}:        "LYmCf+UMVdg=",
	{Group: "admissionregistration.k8s.io", Kind: "MutatingAdmissionPolicyBinding"}: "90V5FRZZ3Zg=",
}

func kindOf(k *api.Kind, s *api.Subresource) schema.GroupVersionKind {
	if s.Kind == "" {
		return k.GroupVersionKind()
	}
	return schema.GroupVersionKind{Group: s.Group, Version: s.Version, Kind: s.Kind}
}

// aggregate is everything in one document: the core group, or all others.
func aggregate(groups []*group, core bool) *apidiscoveryv2.APIGroupDiscoveryList {
	l := &apidiscoveryv2.APIGroupDiscoveryList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupDiscoveryList", APIVersion: "apidiscovery.k8s.io/v2"}, Items: []apidiscoveryv2.APIGroupDiscovery{}}
	for _, g := range groups {
		if (g.name == "") != core {
			continue
		}
		item := apidiscoveryv2.APIGroupDiscovery{ObjectMeta: metav1.ObjectMeta{Name: g.name}}
		for _, v := range g.versions {
			if v.remote != nil {
				item.Versions = append(item.Versions, *v.remote)
				continue
			}
			one := apidiscoveryv2.APIVersionDiscovery{Version: v.gv.Version, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent}
			for _, k := range v.kinds {
				one.Resources = append(one.Resources, aggregateKind(k))
			}
			item.Versions = append(item.Versions, one)
		}
		l.Items = append(l.Items, item)
	}
	return l
}

func aggregateKind(k *api.Kind) apidiscoveryv2.APIResourceDiscovery {
	scope := apidiscoveryv2.ScopeCluster
	if k.Namespaced {
		scope = apidiscoveryv2.ScopeNamespace
	}
	// Built-in kinds of the group-version itself go by their name alone, as upstream has it.
	responseKind := func(gvk schema.GroupVersionKind) *metav1.GroupVersionKind {
		if !k.CRD && gvk.GroupVersion() == k.GroupVersion() {
			return &metav1.GroupVersionKind{Kind: gvk.Kind}
		}
		return &metav1.GroupVersionKind{Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind}
	}
	r := apidiscoveryv2.APIResourceDiscovery{Resource: k.Plural, ResponseKind: responseKind(k.GroupVersionKind()), Scope: scope,
		SingularResource: k.Singular, Verbs: verbs(k), ShortNames: k.ShortNames, Categories: k.Categories}
	for i := range k.Subresources {
		s := &k.Subresources[i]
		r.Subresources = append(r.Subresources, apidiscoveryv2.APISubresourceDiscovery{Subresource: s.Name,
			ResponseKind: responseKind(kindOf(k, s)), Verbs: s.Verbs})
	}
	return r
}
