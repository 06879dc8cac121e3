package main

import (
	"reflect"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/kube-openapi/pkg/common"

	"github.com/skiff-sh/skiff/api"
)

var (
	media      = []string{"application/json", "application/yaml", "application/vnd.kubernetes.protobuf"}
	watchMedia = append(slices.Clone(media), "application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch")
	patchMedia = []string{"application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml"}
	anyMedia   = []string{"*/*"}
	pretty     = &parameter{name: "pretty", dataType: "string", kind: common.QueryParameterKind,
		description: "If 'true', then the output is pretty printed. Defaults to 'false' unless the user-agent indicates a browser or command-line HTTP tool (curl and wget)."}
)

// rootRoutes are those of the documents that are about no resource, each a document of its own.
func rootRoutes() map[string][]common.Route {
	get := func(path, id, description, tag string, consumes, produces []string, model any) []common.Route {
		return []common.Route{&route{method: "GET", path: path, id: id, description: description, tag: tag, consumes: consumes, produces: produces,
			answers: []answer{{200, "OK", model}}}}
	}
	json := media[:1]
	return map[string][]common.Route{
		"api":     get("/api/", "getCoreAPIVersions", "get available API versions", "core", media, media, metav1.APIVersions{}),
		"apis":    get("/apis/", "getAPIVersions", "get available API versions", "apis", media, media, metav1.APIGroupList{}),
		"version": get("/version/", "getCodeVersion", "get the version information for this server", "version", json, json, version.Info{}),
		"openid/v1/jwks": get("/openid/v1/jwks/", "getServiceAccountIssuerOpenIDKeyset",
			"get service account issuer OpenID JSON Web Key Set (contains public token verification keys)", "openid", nil, []string{"application/jwk-set+json"}, ""),
		".well-known/openid-configuration": get("/.well-known/openid-configuration/", "getServiceAccountIssuerOpenIDConfiguration",
			"get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'", "WellKnown", nil, json, ""),
	}
}

// groupRoute tells of a group, versionRoute of a group-version.
func groupRoute(group string) common.Route {
	return &route{method: "GET", path: "/apis/" + group + "/", id: "get" + title(groupName(group)) + "APIGroup", description: "get information of a group",
		tag: groupName(group), consumes: media, produces: media, answers: []answer{{200, "OK", metav1.APIGroup{}}}}
}

func versionRoute(gv schema.GroupVersion) common.Route {
	return &route{method: "GET", path: rootOf(gv) + "/", id: "get" + title(groupName(gv.Group)) + title(gv.Version) + "APIResources",
		description: "get available resources", tag: tagOf(gv), consumes: media, produces: media, answers: []answer{{200, "OK", metav1.APIResourceList{}}}}
}

func rootOf(gv schema.GroupVersion) string {
	if gv.Group == "" {
		return "/api/" + gv.Version
	}
	return "/apis/" + gv.String()
}

// groupName is the group as operations are called after it: its first part, but where two groups share that.
func groupName(group string) string {
	switch group {
	case "":
		return "core"
	case "flowcontrol.apiserver.k8s.io":
		return "flowcontrolApiserver"
	case "rbac.authorization.k8s.io":
		return "rbacAuthorization"
	}
	name, _, _ := strings.Cut(group, ".")
	return name
}

func tagOf(gv schema.GroupVersion) string { return groupName(gv.Group) + "_" + gv.Version }

func title(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// routesOf makes the routes of one row: its collection, its items, its subresources and the old watch paths.
func routesOf(k *api.Kind) []common.Route {
	root := rootOf(k.GroupVersion())
	base, scope := root+"/", ""
	if k.Namespaced {
		base, scope = root+"/namespaces/{namespace}/", "Namespaced"
	}
	all := root + "/" + k.Plural
	o := op{k: k, scope: scope, base: base + k.Plural}
	out := append(o.collection(), o.item()...)
	if k.Serves("list") && k.Namespaced {
		out = append(out, op{k: k, suffix: "ForAllNamespaces", base: all}.list())
	}
	if k.Serves("watch") {
		watched := o
		watched.base = strings.Replace(o.base, root+"/", root+"/watch/", 1)
		out = append(out, watched.watch("List", "watchlist", ""), watched.watch("", "watch", "/{name}"))
		if k.Namespaced {
			out = append(out, op{k: k, base: root + "/watch/" + k.Plural}.watch("ListForAllNamespaces", "watchlist", ""))
		}
	}
	for i := range k.Subresources {
		o.s = &k.Subresources[i]
		if o.s.Type == api.ConnectSub && o.s.Name != "log" {
			out = append(out, o.connect(false)...)
			if o.s.Name == "proxy" {
				out = append(out, o.connect(true)...)
			}
			continue
		}
		out = append(out, o.sub()...)
	}
	return out
}

// op makes the operations of one row or subresource.
type op struct {
	k             *api.Kind
	s             *api.Subresource
	scope, suffix string
	base          string // the collection's path
}

// id is the operation's name: verb, group, version, scope, kind, subresource ("createCoreV1NamespacedPodBinding").
func (o op) id(verb, infix, suffix string) string {
	id := verb + title(groupName(o.k.Group)) + title(o.k.Version) + infix + o.scope + o.k.Kind
	if o.s != nil {
		id += title(o.s.Name)
	}
	return id + suffix + o.suffix
}

// route is one operation below the collection's path.
func (o op) route(method, below, id, description, action string, model any, codes []answer, params ...common.Parameter) *route {
	r := &route{method: method, path: o.base + below, id: id, description: description, action: action, tag: tagOf(o.k.GroupVersion()),
		consumes: anyMedia, produces: media, gvk: map[string]string{"group": o.k.Group, "version": o.k.Version, "kind": o.k.Kind}}
	for _, c := range codes {
		c.model = model
		r.answers = append(r.answers, c)
	}
	if o.s != nil && o.s.Kind != "" && o.s.Name != "log" {
		r.gvk = map[string]string{"group": o.s.Group, "version": o.s.Version, "kind": o.s.Kind}
	}
	if strings.Contains(r.path, "{namespace}") {
		r.params = append(r.params, inPath("namespace", "object name and auth scope, such as for teams and projects"))
	}
	if strings.Contains(r.path, "{name}") {
		r.params = append(r.params, inPath("name", "name of the "+r.gvk["kind"]))
	}
	if action != "connect" {
		r.params = append(r.params, pretty)
	}
	r.params = append(r.params, params...)
	return r
}

// writes makes r carry a body.
func (r *route) writes(body any, required bool) *route {
	r.body = body
	r.params = append(r.params, inBody(required))
	return r
}

var (
	ok       = []answer{{code: 200, text: "OK"}}
	written  = []answer{{code: 200, text: "OK"}, {code: 201, text: "Created"}}
	created  = []answer{{code: 200, text: "OK"}, {code: 201, text: "Created"}, {code: 202, text: "Accepted"}}
	accepted = []answer{{code: 200, text: "OK"}, {code: 202, text: "Accepted"}}
)

// value is the struct behind a pointer: the builders name types by their values.
func value(o any) any { return reflect.ValueOf(o).Elem().Interface() }

func (o op) model() any { return value(o.k.New()) }

func (o op) collection() []common.Route {
	var out []common.Route
	if o.k.Serves("list") {
		out = append(out, o.list())
	}
	if o.k.Serves("create") {
		out = append(out, o.route("POST", "", o.id("create", "", ""), "create "+article(o.k.Kind)+o.k.Kind, "post", o.model(), created,
			options(metav1.CreateOptions{})...).writes(o.model(), true))
	}
	if o.k.Serves("deletecollection") {
		params := options(metav1.ListOptions{}, "allowWatchBookmarks", "watch")
		out = append(out, o.route("DELETE", "", o.id("delete", "Collection", ""), "delete collection of "+o.k.Kind, "deletecollection", metav1.Status{}, ok,
			append(params, options(metav1.DeleteOptions{})...)...).writes(metav1.DeleteOptions{}, false))
	}
	return out
}

func article(kind string) string {
	switch {
	case kind == "Endpoints":
		return ""
	case strings.ContainsRune("AEIOU", rune(kind[0])):
		return "an "
	}
	return "a "
}

func (o op) list() common.Route {
	text := "list or watch objects of kind " + o.k.Kind
	if !o.k.Serves("watch") {
		text = "list objects of kind " + o.k.Kind
	}
	r := o.route("GET", "", o.id("list", "", ""), text, "list", value(o.k.NewList()), ok, options(metav1.ListOptions{})...)
	r.produces = watchMedia
	return r
}

func (o op) watch(suffix, action, below string) common.Route {
	text := "watch individual changes to a list of " + o.k.Kind + ". deprecated: use the 'watch' parameter with a list operation instead."
	if action == "watch" {
		text = "watch changes to an object of kind " + o.k.Kind + ". deprecated: use the 'watch' parameter with a list operation instead, filtered to a single item with the 'fieldSelector' parameter."
	}
	r := o.route("GET", below, o.id("watch", "", suffix), text, action, metav1.WatchEvent{}, ok, options(metav1.ListOptions{})...)
	r.produces = watchMedia
	return r
}

func (o op) item() []common.Route {
	var out []common.Route
	kind, at := o.k.Kind, "/{name}"
	if o.k.Serves("get") {
		out = append(out, o.route("GET", at, o.id("read", "", ""), "read the specified "+kind, "get", o.model(), ok))
	}
	if o.k.Serves("update") {
		out = append(out, o.route("PUT", at, o.id("replace", "", ""), "replace the specified "+kind, "put", o.model(), written,
			options(metav1.UpdateOptions{})...).writes(o.model(), true))
	}
	if o.k.Serves("patch") {
		out = append(out, o.patch(at, "partially update the specified "+kind, o.model()))
	}
	if o.k.Serves("delete") {
		out = append(out, o.route("DELETE", at, o.id("delete", "", ""), "delete "+article(kind)+kind, "delete", deleted(o.k), accepted,
			options(metav1.DeleteOptions{})...).writes(metav1.DeleteOptions{}, false))
	}
	return out
}

// deleted is what a delete answers with: some kinds return the object.
func deleted(k *api.Kind) any {
	switch k.Plural {
	case "pods", "persistentvolumes", "persistentvolumeclaims", "podtemplates", "resourcequotas", "serviceaccounts", "services",
		"csidrivers", "csinodes", "storageclasses", "volumeattachments", "volumeattributesclasses", "deviceclasses",
		"resourceclaims", "resourceclaimtemplates", "resourceslices":
		return value(k.New())
	}
	return metav1.Status{}
}

func (o op) patch(at, text string, model any) common.Route {
	r := o.route("PATCH", at, o.id("patch", "", ""), text, "patch", model, written, options(metav1.PatchOptions{})...).writes(metav1.Patch{}, true)
	r.consumes = patchMedia
	return r
}

// bodyOf is the body of a subresource.
func (o op) bodyOf() any {
	switch o.s.Kind {
	case "Binding":
		return corev1.Binding{}
	case "Eviction":
		return policyv1.Eviction{}
	case "TokenRequest":
		return authenticationv1.TokenRequest{}
	case "Scale":
		return autoscalingv1.Scale{}
	}
	return o.model()
}

func (o op) sub() []common.Route {
	var out []common.Route
	at, model := "/{name}/"+o.s.Name, o.bodyOf()
	what := o.s.Name + " of the specified " + o.k.Kind
	for _, verb := range o.s.Verbs {
		switch verb {
		case "get":
			if o.s.Name == "log" {
				r := o.route("GET", at, o.id("read", "", ""), "read "+what, "get", "", ok, options(corev1.PodLogOptions{})...)
				r.produces = append([]string{"text/plain"}, media...)
				out = append(out, r)
				continue
			}
			out = append(out, o.route("GET", at, o.id("read", "", ""), "read "+what, "get", model, ok))
		case "update":
			out = append(out, o.route("PUT", at, o.id("replace", "", ""), "replace "+what, "put", model, written,
				options(metav1.UpdateOptions{})...).writes(model, true))
		case "patch":
			out = append(out, o.patch(at, "partially update "+what, model))
		case "create":
			out = append(out, o.route("POST", at, o.id("create", "", ""), "create "+o.s.Name+" of "+article(o.k.Kind)+o.k.Kind, "post", model, created,
				options(metav1.CreateOptions{})...).writes(model, true))
		}
	}
	return out
}

// connectOptions are the options of streams and proxies, by their kind.
var connectOptions = map[string]documented{
	"PodAttachOptions": corev1.PodAttachOptions{}, "PodExecOptions": corev1.PodExecOptions{}, "PodPortForwardOptions": corev1.PodPortForwardOptions{},
	"PodProxyOptions": corev1.PodProxyOptions{}, "ServiceProxyOptions": corev1.ServiceProxyOptions{}, "NodeProxyOptions": corev1.NodeProxyOptions{},
}

// connect is a stream or proxy: every method that it serves.
func (o op) connect(withPath bool) []common.Route {
	methods := map[string]string{"get": "GET", "create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE"}
	var served []string
	for _, verb := range o.s.Verbs {
		served = append(served, methods[verb])
	}
	if o.s.Name == "proxy" {
		served = append(served, "HEAD", "OPTIONS")
	}
	at, suffix := "/{name}/"+o.s.Name, ""
	params := options(connectOptions[o.s.Kind])
	if withPath {
		at, suffix = at+"/{path}", "WithPath"
		params = append(params, inPath("path", "path to the resource"))
	}
	var out []common.Route
	for _, method := range served {
		id := o.id("connect", title(strings.ToLower(method)), suffix) // the method stands between the version and the scope
		r := o.route(method, at, id, "connect "+method+" requests to "+o.s.Name+" of "+o.k.Kind, "connect", "", ok, params...)
		r.produces = anyMedia
		out = append(out, r)
	}
	return out
}
