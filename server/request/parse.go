package request

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/skiff-sh/skiff/api"
)

var verbs = map[string]string{http.MethodPost: "create", http.MethodGet: "get", http.MethodHead: "get",
	http.MethodPut: "update", http.MethodPatch: "patch", http.MethodDelete: "delete"}

// Parse reads what a request asks for from its method, path and query. It fills everything but the user and the
// source. query is asked only for a GET or DELETE of a collection.
func Parse(table *api.Table, method, path string, query func() url.Values) *Info {
	i := &Info{Path: path, Verb: strings.ToLower(method)}
	parts := strings.Split(strings.Trim(path, "/"), "/")
	if strings.Trim(path, "/") == "" {
		return i
	}
	switch {
	case parts[0] == "api" && len(parts) >= 3:
		i.Version, parts = parts[1], parts[2:]
	case parts[0] == "apis" && len(parts) >= 4:
		i.Group, i.Version, parts = parts[1], parts[2], parts[3:]
	default:
		return i
	}
	i.Verb = verbs[method]
	if i.Verb == "" {
		i.Verb = strings.ToLower(method)
	}
	// The old form of a watch has a path of its own.
	oldWatch := parts[0] == "watch" && len(parts) >= 2
	if oldWatch {
		i.Verb, parts = "watch", parts[1:]
	}
	if parts[0] == "namespaces" && len(parts) > 1 {
		i.Namespace = parts[1]
		if len(parts) > 2 && parts[2] != "status" && parts[2] != "finalize" {
			parts = parts[2:]
		}
	}
	i.Resource = parts[0]
	if len(parts) > 1 {
		i.Name = parts[1]
	}
	if len(parts) > 2 {
		i.Subresource = parts[2]
	}
	if len(parts) > 3 {
		i.Rest = rest(path, i)
	}
	if k, ok := table.Resource(schema.GroupVersionResource{Group: i.Group, Version: i.Version, Resource: i.Resource}); ok {
		i.Kind = k
	}
	if i.Name == "" || oldWatch {
		i.collection(query(), oldWatch)
	}
	return i
}

// rest is the untouched end of the path behind the subresource: slashes at its end matter to who is behind a proxy.
func rest(path string, i *Info) string {
	marker := "/" + i.Resource + "/" + i.Name + "/" + i.Subresource
	if at := strings.Index(path, marker+"/"); at >= 0 {
		return path[at+len(marker):]
	}
	return "/"
}

// collection turns get and delete of a collection into what they are.
func (i *Info) collection(q url.Values, oldWatch bool) {
	switch i.Verb {
	case "get":
		i.Verb = "list"
		if w, err := strconv.ParseBool(q.Get("watch")); err == nil && w || q.Has("watch") && q.Get("watch") == "" {
			i.Verb = "watch"
		}
	case "delete":
		i.Verb = "deletecollection"
	case "watch":
		if !oldWatch {
			return
		}
	default:
		return
	}
	i.FieldSelector, i.LabelSelector = q.Get("fieldSelector"), q.Get("labelSelector")
	if i.Name == "" && i.FieldSelector != "" {
		// Rules about one name apply to a list of that name.
		if sel, err := fields.ParseSelector(i.FieldSelector); err == nil {
			if name, ok := sel.RequiresExactMatch("metadata.name"); ok && validSegment(name) {
				i.Name = name
			}
		}
	}
}

func validSegment(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/%")
}
