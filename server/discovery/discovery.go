// Package discovery tells clients which resources there are: the lists of groups and resources, and the two aggregated
// documents that hold everything at once.
//
// Invariant: the documents are a function of the table alone and are made anew when the table has changed.
// Only server imports discovery.
package discovery

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	apidiscoveryv2beta1 "k8s.io/api/apidiscovery/v2beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/codec"
)

// Documents serves /api, /apis and what is directly below.
type Documents struct {
	table *api.Table
	mu    sync.Mutex
	kinds []*api.Kind // what the documents were made of
	docs  map[string]*document
}

// document is one answer in its encodings.
type document struct {
	obj  runtime.Object
	json []byte
	etag string // of aggregated documents
}

// New makes the documents of a table.
func New(table *api.Table) *Documents { return &Documents{table: table} }

// all returns the documents by path, and for aggregated ones by path and version.
func (d *Documents) all() map[string]*document {
	d.mu.Lock()
	defer d.mu.Unlock()
	kinds := d.table.Kinds()
	if d.docs == nil || len(kinds) != len(d.kinds) || len(kinds) > 0 && &kinds[0] != &d.kinds[0] {
		d.kinds, d.docs = kinds, build(kinds)
	}
	return d.docs
}

// GroupVersions lists what the table serves, in its order.
func (d *Documents) GroupVersions() []schema.GroupVersion { return groupVersions(d.table.Kinds()) }

func groupVersions(kinds []*api.Kind) []schema.GroupVersion {
	var out []schema.GroupVersion
	for _, k := range kinds {
		if gv := k.GroupVersion(); !slices.Contains(out, gv) {
			out = append(out, gv)
		}
	}
	// Groups stay in the order of their first rows. Within a group, stable and newer versions come first.
	rank := map[string]int{}
	for _, gv := range out {
		if _, ok := rank[gv.Group]; !ok {
			rank[gv.Group] = len(rank)
		}
	}
	slices.SortStableFunc(out, func(a, b schema.GroupVersion) int {
		return cmp.Or(cmp.Compare(rank[a.Group], rank[b.Group]), -version.CompareKubeAwareVersionStrings(a.Version, b.Version))
	})
	return out
}

func (d *Documents) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	docs, path := d.all(), strings.TrimRight(r.URL.Path, "/")
	if path == "/api" || path == "/apis" {
		if version := aggregated(r.Header.Get("Accept")); version != "" {
			doc := docs[path+" "+version]
			w.Header().Set("ETag", doc.etag)
			w.Header().Set("Vary", "Accept")
			w.Header().Set("Cache-Control", "public")
			if r.Header.Get("If-None-Match") == doc.etag {
				w.WriteHeader(http.StatusNotModified)
				return
			}
			write(w, r, doc, ";g=apidiscovery.k8s.io;v="+version+";as=APIGroupDiscoveryList")
			return
		}
	}
	doc, ok := docs[path]
	if !ok {
		http.Error(w, "404 page not found", http.StatusNotFound)
		return
	}
	write(w, r, doc, "")
}

// aggregated is the version of aggregated discovery that the client prefers to plain JSON, or "".
func aggregated(accept string) string {
	for c := range strings.SplitSeq(accept, ",") {
		c = strings.ReplaceAll(c, " ", "")
		if strings.Contains(c, "g=apidiscovery.k8s.io") && strings.Contains(c, "as=APIGroupDiscoveryList") {
			switch {
			case strings.Contains(c, "v=v2beta1"):
				return "v2beta1"
			case strings.Contains(c, "v=v2"):
				return "v2"
			}
			continue
		}
		if t, _, _ := strings.Cut(c, ";"); t == codec.TypeJSON || t == "*/*" {
			return ""
		}
	}
	return ""
}

func write(w http.ResponseWriter, r *http.Request, doc *document, params string) {
	accept := r.Header.Get("Accept")
	if at := strings.Index(accept, codec.TypeProtobuf); at >= 0 {
		if j := strings.Index(accept, codec.TypeJSON); j < 0 || at < j {
			if b, err := codec.Protobuf(doc.obj, doc.obj.GetObjectKind().GroupVersionKind()); err == nil {
				w.Header().Set("Content-Type", codec.TypeProtobuf+params)
				_, _ = w.Write(b)
				return
			}
		}
	}
	w.Header().Set("Content-Type", codec.TypeJSON+params)
	out := doc.json
	if strings.HasPrefix(accept, codec.TypeYAML) {
		if y, err := codec.YAML(out); err == nil {
			w.Header().Set("Content-Type", codec.TypeYAML)
			out = y
		}
	} else if r.URL.Query().Get("pretty") == "true" {
		var b bytes.Buffer
		if json.Indent(&b, out, "", "  ") == nil {
			out = b.Bytes()
		}
	}
	_, _ = w.Write(out)
}

func build(kinds []*api.Kind) map[string]*document {
	docs := map[string]*document{}
	add := func(path string, obj runtime.Object) *document {
		b, err := json.Marshal(obj)
		if err != nil {
			panic(err) // plain structs always marshal
		}
		d := &document{obj: obj, json: append(b, '\n'), etag: fmt.Sprintf("\"%X\"", sha512.Sum512(b))}
		docs[path] = d
		return d
	}
	gvs := groupVersions(kinds)
	add("/api", &metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"},
		ServerAddressByClientCIDRs: []metav1.ServerAddressByClientCIDR{}})
	groups := &metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}, Groups: []metav1.APIGroup{}}
	for _, gv := range gvs {
		path := "/apis/" + gv.String()
		if gv.Group == "" {
			path = "/api/" + gv.Version
		}
		add(path, resources(gv, kinds))
		if gv.Group == "" {
			continue
		}
		v := metav1.GroupVersionForDiscovery{GroupVersion: gv.String(), Version: gv.Version}
		i := slices.IndexFunc(groups.Groups, func(g metav1.APIGroup) bool { return g.Name == gv.Group })
		if i < 0 {
			groups.Groups = append(groups.Groups, metav1.APIGroup{Name: gv.Group, PreferredVersion: v, Versions: []metav1.GroupVersionForDiscovery{v}})
		} else {
			groups.Groups[i].Versions = append(groups.Groups[i].Versions, v)
		}
	}
	for i := range groups.Groups {
		g := groups.Groups[i]
		g.TypeMeta = metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}
		add("/apis/"+g.Name, &g)
	}
	add("/apis", groups)
	for path, core := range map[string]bool{"/api": true, "/apis": false} {
		v2 := aggregate(kinds, gvs, core)
		add(path+" v2", v2)
		var old apidiscoveryv2beta1.APIGroupDiscoveryList
		// The two versions differ in their name alone.
		if err := json.Unmarshal(docs[path+" v2"].json, &old); err != nil {
			panic(err)
		}
		old.APIVersion = "apidiscovery.k8s.io/v2beta1"
		add(path+" v2beta1", &old)
	}
	return docs
}

// rows are the rows of one group-version by name.
func rows(gv schema.GroupVersion, kinds []*api.Kind) []*api.Kind {
	var out []*api.Kind
	for _, k := range kinds {
		if k.GroupVersion() == gv {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, func(a, b *api.Kind) int { return strings.Compare(a.Plural, b.Plural) })
	return out
}

func resources(gv schema.GroupVersion, kinds []*api.Kind) *metav1.APIResourceList {
	l := &metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"},
		GroupVersion: gv.String(), APIResources: []metav1.APIResource{}}
	if gv.Group == "" {
		l.APIVersion = "" // as upstream has it for the oldest document
	}
	for _, k := range rows(gv, kinds) {
		l.APIResources = append(l.APIResources, metav1.APIResource{Name: k.Plural, SingularName: k.Singular,
			Namespaced: k.Namespaced, Kind: k.Kind, Verbs: k.AllVerbs(), ShortNames: k.ShortNames, Categories: k.Categories,
			StorageVersionHash: storageVersionHash(k)})
		for i := range k.Subresources {
			s := &k.Subresources[i]
			r := metav1.APIResource{Name: k.Plural + "/" + s.Name, Namespaced: k.Namespaced, Kind: k.Kind, Verbs: s.Verbs}
			if gvk := kindOf(k, s); gvk != k.GroupVersionKind() {
				r.Kind = gvk.Kind
				if gvk.GroupVersion() != gv {
					r.Group, r.Version = gvk.Group, gvk.Version
				}
			}
			l.APIResources = append(l.APIResources, r)
		}
	}
	return l
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

func aggregate(kinds []*api.Kind, gvs []schema.GroupVersion, core bool) *apidiscoveryv2.APIGroupDiscoveryList {
	l := &apidiscoveryv2.APIGroupDiscoveryList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupDiscoveryList", APIVersion: "apidiscovery.k8s.io/v2"},
		Items: []apidiscoveryv2.APIGroupDiscovery{}}
	for _, gv := range gvs {
		if (gv.Group == "") != core {
			continue
		}
		v := apidiscoveryv2.APIVersionDiscovery{Version: gv.Version, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent}
		for _, k := range rows(gv, kinds) {
			v.Resources = append(v.Resources, aggregateKind(k))
		}
		i := slices.IndexFunc(l.Items, func(g apidiscoveryv2.APIGroupDiscovery) bool { return g.Name == gv.Group })
		if i < 0 {
			l.Items = append(l.Items, apidiscoveryv2.APIGroupDiscovery{ObjectMeta: metav1.ObjectMeta{Name: gv.Group}})
			i = len(l.Items) - 1
		}
		l.Items[i].Versions = append(l.Items[i].Versions, v)
	}
	return l
}

func aggregateKind(k *api.Kind) apidiscoveryv2.APIResourceDiscovery {
	scope := apidiscoveryv2.ScopeCluster
	if k.Namespaced {
		scope = apidiscoveryv2.ScopeNamespace
	}
	responseKind := func(gvk schema.GroupVersionKind) *metav1.GroupVersionKind {
		return &metav1.GroupVersionKind{Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind}
	}
	r := apidiscoveryv2.APIResourceDiscovery{Resource: k.Plural, ResponseKind: responseKind(k.GroupVersionKind()), Scope: scope,
		SingularResource: k.Singular, Verbs: k.AllVerbs(), ShortNames: k.ShortNames, Categories: k.Categories}
	for i := range k.Subresources {
		s := &k.Subresources[i]
		r.Subresources = append(r.Subresources, apidiscoveryv2.APISubresourceDiscovery{Subresource: s.Name,
			ResponseKind: responseKind(kindOf(k, s)), Verbs: s.Verbs})
	}
	return r
}
