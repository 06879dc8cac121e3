package main

import (
	"slices"
	"strings"

	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/skiff-sh/skiff/api"
)

// pathsOf makes the paths of one row: its collection, its items, its subresources and the old watch paths.
func pathsOf(k *api.Kind) map[string]spec.PathItem {
	out := map[string]spec.PathItem{}
	root := "/apis/" + k.Group + "/" + k.Version
	if k.Group == "" {
		root = "/api/" + k.Version
	}
	base, scope := root+"/", ""
	if k.Namespaced {
		base, scope = root+"/namespaces/{namespace}/", "Namespaced"
	}
	o := op{k: k, scope: scope}
	add := func(path string, item spec.PathItem, params ...spec.Parameter) {
		if item.Get == nil && item.Put == nil && item.Post == nil && item.Patch == nil && item.Delete == nil {
			return
		}
		if strings.Contains(path, "{namespace}") {
			params = append(params, inPath("namespace", "object name and auth scope, such as for teams and projects"))
		}
		if !strings.Contains(path, "/watch/") {
			params = append(params, pretty)
		}
		item.Parameters = append(item.Parameters, params...)
		out[path] = item
	}
	name := inPath("name", "name of the "+k.Kind)

	add(base+k.Plural, o.collection())
	add(base+k.Plural+"/{name}", o.item(), name)
	if k.Namespaced && k.Serves("list") {
		all := op{k: k, suffix: "ForAllNamespaces"}
		add(root+"/"+k.Plural, spec.PathItem{PathItemProps: spec.PathItemProps{Get: all.list()}})
	}
	if k.Serves("watch") {
		watched := strings.Replace(base, root+"/", root+"/watch/", 1)
		add(watched+k.Plural, o.watch("List", "watchlist"))
		add(watched+k.Plural+"/{name}", o.watch("", "watch"), name)
		if k.Namespaced {
			all := op{k: k}
			add(root+"/watch/"+k.Plural, all.watch("ListForAllNamespaces", "watchlist"))
		}
	}
	for i := range k.Subresources {
		s := &k.Subresources[i]
		so := op{k: k, s: s, scope: scope}
		if s.Type == api.ConnectSub && s.Name != "log" {
			add(base+k.Plural+"/{name}/"+s.Name, so.connect(false), inPath("name", "name of the "+s.Kind))
			if s.Name == "proxy" {
				add(base+k.Plural+"/{name}/proxy/{path}", so.connect(true),
					inPath("name", "name of the "+s.Kind), inPath("path", "path to the resource"))
			}
			continue
		}
		kind := s.Kind
		if kind == "" {
			kind = k.Kind
		}
		add(base+k.Plural+"/{name}/"+s.Name, so.sub(), inPath("name", "name of the "+kind))
	}
	return out
}

// op makes the operations of one row or subresource.
type op struct {
	k             *api.Kind
	s             *api.Subresource
	scope, suffix string
}

// id is the operation's name: verb, group, version, scope, kind, subresource ("createCoreV1NamespacedPodBinding").
func (o op) id(verb, suffix string) string {
	group, _, _ := strings.Cut(o.k.Group, ".")
	if group == "" {
		group = "core"
	}
	if o.k.Group == "flowcontrol.apiserver.k8s.io" {
		group = "flowcontrolApiserver"
	}
	if o.k.Group == "rbac.authorization.k8s.io" {
		group = "rbacAuthorization"
	}
	id := verb + title(group) + title(o.k.Version) + o.scope + o.k.Kind
	if o.s != nil {
		id += title(o.s.Name)
		switch o.s.Name {
		case "ephemeralcontainers":
			id = strings.TrimSuffix(id, title(o.s.Name)) + "Ephemeralcontainers"
		case "portforward":
			id = strings.TrimSuffix(id, title(o.s.Name)) + "Portforward"
		}
	}
	return id + suffix + o.suffix
}

func title(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func (o op) tag() string {
	group, _, _ := strings.Cut(o.k.Group, ".")
	switch o.k.Group {
	case "":
		group = "core"
	case "flowcontrol.apiserver.k8s.io":
		group = "flowcontrolApiserver"
	case "rbac.authorization.k8s.io":
		group = "rbacAuthorization"
	}
	return group + "_" + o.k.Version
}

var (
	media       = []string{"application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "application/cbor"}
	watchMedia  = []string{"application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch", "application/cbor-seq"}
	patchMedia  = []string{"application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml", "application/apply-patch+cbor"}
	pretty      = query("pretty", "string", "If 'true', then the output is pretty printed. Defaults to 'false' unless the user-agent indicates a browser or command-line HTTP tool (curl and wget).")
	dryRun      = query("dryRun", "string", "When present, indicates that modifications should not be persisted. An invalid or unrecognized dryRun directive will result in an error response and no further processing of the request. Valid values are: - All: all dry run stages will be processed")
	manager     = query("fieldManager", "string", "fieldManager is a name associated with the actor or entity that is making these changes.")
	validation  = query("fieldValidation", "string", "fieldValidation instructs the server on how to handle objects in the request (POST/PUT/PATCH) containing unknown or duplicate fields. Valid values are Ignore, Warn and Strict.")
	force       = query("force", "boolean", "Force is going to \"force\" Apply requests. It means user will re-acquire conflicting fields owned by other people. Force flag must be unset for non-apply patch requests.")
	listOptions = []spec.Parameter{
		query("allowWatchBookmarks", "boolean", "allowWatchBookmarks requests watch events with type \"BOOKMARK\"."),
		query("continue", "string", "The continue option should be set when retrieving more results from the server."),
		query("fieldSelector", "string", "A selector to restrict the list of returned objects by their fields. Defaults to everything."),
		query("labelSelector", "string", "A selector to restrict the list of returned objects by their labels. Defaults to everything."),
		query("limit", "integer", "limit is a maximum number of responses to return for a list call."),
		query("resourceVersion", "string", "resourceVersion sets a constraint on what resource versions a request may be served from."),
		query("resourceVersionMatch", "string", "resourceVersionMatch determines how resourceVersion is applied to list calls."),
		query("sendInitialEvents", "boolean", "sendInitialEvents=true may be set together with watch=true: the stream then begins with synthetic events for the present objects."),
		query("timeoutSeconds", "integer", "Timeout for the list/watch call."),
		query("watch", "boolean", "Watch for changes to the described resources and return them as a stream of add, update, and remove notifications."),
	}
	deleteOptions = []spec.Parameter{
		dryRun,
		query("gracePeriodSeconds", "integer", "The duration in seconds before the object should be deleted."),
		query("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean", "If set to true, it will trigger an unsafe deletion of the resource in case the normal deletion flow fails with a corrupt object error."),
		query("orphanDependents", "boolean", "Deprecated: please use the PropagationPolicy."),
		query("propagationPolicy", "string", "Whether and how garbage collection will be performed."),
	}
)

func query(name, typ, description string) spec.Parameter {
	return spec.Parameter{
		ParamProps:   spec.ParamProps{Name: name, In: "query", Description: description},
		SimpleSchema: spec.SimpleSchema{Type: typ}, CommonValidations: spec.CommonValidations{UniqueItems: true}}
}

func inPath(name, description string) spec.Parameter {
	p := query(name, "string", description)
	p.In, p.Required = "path", true
	return p
}

func bodyOf(name string, required bool) spec.Parameter {
	return spec.Parameter{ParamProps: spec.ParamProps{Name: "body", In: "body", Required: required, Schema: ref(name)}}
}

// operation is one operation with its answers.
func (o op) operation(id, description, action, answer string, codes map[int]string, consumes, produces []string, params ...spec.Parameter) *spec.Operation {
	responses := map[int]spec.Response{401: {ResponseProps: spec.ResponseProps{Description: "Unauthorized"}}}
	for code, text := range codes {
		schema := spec.StringProperty()
		if answer != "" {
			schema = ref(answer)
		}
		responses[code] = spec.Response{ResponseProps: spec.ResponseProps{Description: text, Schema: schema}}
	}
	out := &spec.Operation{OperationProps: spec.OperationProps{
		ID: id, Description: description, Tags: []string{o.tag()}, Schemes: []string{"https"},
		Consumes: consumes, Produces: produces, Parameters: params,
		Responses: &spec.Responses{ResponsesProps: spec.ResponsesProps{StatusCodeResponses: responses}},
	}}
	out.AddExtension("x-kubernetes-action", action)
	group, version, kind := o.k.Group, o.k.Version, o.k.Kind
	if o.s != nil && o.s.Kind != "" {
		group, version, kind = o.s.Group, o.s.Version, o.s.Kind
	}
	out.AddExtension("x-kubernetes-group-version-kind", map[string]any{"group": group, "version": version, "kind": kind})
	return out
}

var (
	anyMedia = []string{"*/*"}
	ok       = map[int]string{200: "OK"}
	written  = map[int]string{200: "OK", 201: "Created"}
	created  = map[int]string{200: "OK", 201: "Created", 202: "Accepted"}
	accepted = map[int]string{200: "OK", 202: "Accepted"}
)

func (o op) collection() spec.PathItem {
	var item spec.PathItem
	name := modelName(o.k.New())
	if o.k.Serves("list") {
		item.Get = o.list()
	}
	if o.k.Serves("create") {
		item.Post = o.operation(o.id("create", ""), "create "+article(o.k.Kind)+o.k.Kind, "post", name, created, anyMedia, media,
			bodyOf(name, true), dryRun, manager, validation)
	}
	if o.k.Serves("deletecollection") {
		params := []spec.Parameter{bodyOf(nameOfKind("DeleteOptions"), false)}
		for _, p := range append(slices.Clone(listOptions), deleteOptions...) {
			if p.Name != "allowWatchBookmarks" && p.Name != "watch" {
				params = append(params, p)
			}
		}
		item.Delete = o.operation(o.collectionID("delete"), "delete collection of "+o.k.Kind, "deletecollection",
			nameOfKind("Status"), ok, anyMedia, media, params...)
	}
	return item
}

func vowel(s string) bool { return strings.ContainsRune("AEIOU", rune(s[0])) }

func article(kind string) string {
	if kind == "Endpoints" {
		return ""
	}
	if vowel(kind) {
		return "an "
	}
	return "a "
}

func (o op) collectionID(verb string) string {
	id := o.id(verb, "")
	i := strings.Index(id, title(o.k.Version)+o.scope+o.k.Kind) + len(title(o.k.Version))
	return id[:i] + "Collection" + id[i:]
}

func (o op) list() *spec.Operation {
	return o.operation(o.id("list", ""), "list or watch objects of kind "+o.k.Kind, "list", modelName(o.k.NewList()), ok,
		anyMedia, append(slices.Clone(media), watchMedia...), listOptions...)
}

func (o op) watch(suffix, action string) spec.PathItem {
	list := o.k.Kind
	text := "watch individual changes to a list of " + list + ". deprecated: use the 'watch' parameter with a list operation instead."
	if action == "watch" {
		text = "watch changes to an object of kind " + list + ". deprecated: use the 'watch' parameter with a list operation instead, filtered to a single item with the 'fieldSelector' parameter."
	}
	get := o.operation(o.id("watch", suffix), text, action, nameOfKind("WatchEvent"), ok, anyMedia, append(slices.Clone(media), watchMedia...))
	item := spec.PathItem{PathItemProps: spec.PathItemProps{Get: get}}
	item.Parameters = append(slices.Clone(listOptions), pretty)
	return item
}

func (o op) item() spec.PathItem {
	var item spec.PathItem
	name := modelName(o.k.New())
	kind := o.k.Kind
	if o.k.Serves("get") {
		item.Get = o.operation(o.id("read", ""), "read the specified "+kind, "get", name, ok, anyMedia, media)
	}
	if o.k.Serves("update") {
		item.Put = o.operation(o.id("replace", ""), "replace the specified "+kind, "put", name, written, anyMedia, media,
			bodyOf(name, true), dryRun, manager, validation)
	}
	if o.k.Serves("patch") {
		item.Patch = o.patch("partially update the specified "+kind, name)
	}
	if o.k.Serves("delete") {
		item.Delete = o.operation(o.id("delete", ""), "delete "+article(kind)+kind, "delete", deleted(o.k), accepted, anyMedia, media,
			append([]spec.Parameter{bodyOf(nameOfKind("DeleteOptions"), false)}, deleteOptions...)...)
	}
	return item
}

// deleted is what a delete answers with: a few old kinds return the object.
func deleted(k *api.Kind) string {
	switch k.Plural {
	case "pods", "persistentvolumes", "persistentvolumeclaims", "podtemplates", "resourcequotas", "serviceaccounts", "services",
		"csidrivers", "csinodes", "storageclasses", "volumeattachments", "volumeattributesclasses", "deviceclasses",
		"resourceclaims", "resourceclaimtemplates", "resourceslices":
		return modelName(k.New())
	}
	return nameOfKind("Status")
}

func (o op) patch(text, name string) *spec.Operation {
	return o.operation(o.id("patch", ""), text, "patch", name, written, patchMedia, media,
		bodyOf(nameOfKind("Patch"), true), dryRun, manager, validation, force)
}

func (o op) sub() spec.PathItem {
	var item spec.PathItem
	name := bodyName(o.k, o.s)
	what := o.s.Name + " of the specified " + o.k.Kind
	for _, verb := range o.s.Verbs {
		switch {
		case verb == "get" && o.s.Name == "log":
			item.Get = o.operation(o.id("read", ""), "read "+what, "get", "", ok, anyMedia,
				append([]string{"text/plain"}, media...), logOptions...)
		case verb == "get":
			item.Get = o.operation(o.id("read", ""), "read "+what, "get", name, ok, anyMedia, media)
		case verb == "update":
			item.Put = o.operation(o.id("replace", ""), "replace "+what, "put", name, written, anyMedia, media,
				bodyOf(name, true), dryRun, manager, validation)
		case verb == "patch":
			item.Patch = o.patch("partially update "+what, name)
		case verb == "create":
			item.Post = o.operation(o.id("create", ""), "create "+o.s.Name+" of "+article(o.k.Kind)+o.k.Kind, "post", name, created, anyMedia, media,
				bodyOf(name, true), dryRun, manager, validation)
		}
	}
	return item
}

var logOptions = []spec.Parameter{
	query("container", "string", "The container for which to stream logs. Defaults to only container if there is one container in the pod."),
	query("follow", "boolean", "Follow the log stream of the pod. Defaults to false."),
	query("insecureSkipTLSVerifyBackend", "boolean", "insecureSkipTLSVerifyBackend indicates that the apiserver should not confirm the validity of the serving certificate of the backend it is connecting to."),
	query("limitBytes", "integer", "If set, the number of bytes to read from the server before terminating the log output."),
	query("previous", "boolean", "Return previous terminated container logs. Defaults to false."),
	query("sinceSeconds", "integer", "A relative time in seconds before the current time from which to show logs."),
	query("stream", "string", "Specify which container log stream to return to the client. Acceptable values are \"All\", \"Stdout\" and \"Stderr\"."),
	query("tailLines", "integer", "If set, the number of lines from the end of the logs to show."),
	query("timestamps", "boolean", "If true, add an RFC3339 or RFC3339Nano timestamp at the beginning of every line of log output. Defaults to false."),
}

var connectOptions = map[string][]spec.Parameter{
	"attach": {query("container", "string", "The container in which to execute the command."), query("stderr", "boolean", "Redirect the standard error stream of the pod for this call."),
		query("stdin", "boolean", "Redirect the standard input stream of the pod for this call."), query("stdout", "boolean", "Redirect the standard output stream of the pod for this call."),
		query("tty", "boolean", "TTY if true indicates that a tty will be allocated for the call.")},
	"exec": {query("command", "string", "Command is the remote command to execute. argv array. Not executed within a shell."),
		query("container", "string", "Container in which to execute the command."), query("stderr", "boolean", "Redirect the standard error stream of the pod for this call."),
		query("stdin", "boolean", "Redirect the standard input stream of the pod for this call."), query("stdout", "boolean", "Redirect the standard output stream of the pod for this call."),
		query("tty", "boolean", "TTY if true indicates that a tty will be allocated for the exec call.")},
	"portforward": {query("ports", "integer", "List of ports to forward. Required when using WebSockets.")},
	"proxy":       {query("path", "string", "Path is the part of URLs to use for the current proxy request.")},
}

// connect is a stream or proxy: every method that it serves.
func (o op) connect(withPath bool) spec.PathItem {
	var item spec.PathItem
	options := connectOptions[o.s.Name]
	what := o.s.Name + " of " + o.k.Kind
	suffix := ""
	if withPath {
		suffix = "WithPath"
	}
	make := func(method string) *spec.Operation {
		o := o
		o.scope = method + o.scope // the method stands between the version and the scope
		return o.operation(o.id("connect", suffix), "connect "+strings.ToUpper(method)+" requests to "+what, "connect", "", ok, anyMedia, anyMedia)
	}
	for _, verb := range o.s.Verbs {
		switch verb {
		case "get":
			item.Get = make("Get")
		case "create":
			item.Post = make("Post")
		case "update":
			item.Put = make("Put")
		case "patch":
			item.Patch = make("Patch")
		case "delete":
			item.Delete = make("Delete")
		}
	}
	if o.s.Name == "proxy" {
		item.Head, item.Options = make("Head"), make("Options")
	}
	if !withPath || o.s.Name == "proxy" {
		item.Parameters = append(item.Parameters, options...)
	}
	return item
}
