// Package request describes one API request: who asks, for what. The HTTP front and the in-process client both make
// an Info; everything behind them (authorization, admission, rest, audit) reads only that.
//
// Invariant: an Info does not change after authentication. Only server and its folders import request.
package request

import (
	"context"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/skiff-sh/skiff/api"
)

// Info is what a request asks for.
type Info struct {
	User user.Info
	// Verb is get, list, watch, create, update, patch, delete or deletecollection; for a path that is no resource,
	// the HTTP method in lower case.
	Verb string
	Path string // the URL path; in-process requests have the path that they would have over HTTP

	// Kind is the row of the resource; nil for other paths and for resources that nobody serves, whose names are
	// still below, because authorization comes before "not found".
	Kind                         *api.Kind
	Group, Version, Resource     string
	Namespace, Name, Subresource string
	// FieldSelector and LabelSelector as sent, for authorization.
	FieldSelector, LabelSelector string
	// Rest is what follows a proxy subresource in the path, with its first slash; of other resources, what nobody
	// understands.
	Rest      string
	UserAgent string // also the default field manager, up to its first slash
	SourceIP  string
}

// IsResource reports whether the request is for a resource rather than another path.
func (i *Info) IsResource() bool { return i.Resource != "" }

// Attributes is the request as authorizers see it. A list or watch of one object by its name has that name, so that
// who may read one object may also watch it.
func (i *Info) Attributes() authorizer.Attributes {
	a := authorizer.AttributesRecord{User: i.User, Verb: i.Verb, Namespace: i.Namespace, APIGroup: i.Group,
		APIVersion: i.Version, Resource: i.Resource, Subresource: i.Subresource, Name: i.Name,
		ResourceRequest: i.IsResource(), Path: i.Path}
	if i.FieldSelector != "" {
		s, err := fields.ParseSelector(i.FieldSelector)
		if a.FieldSelectorParsingErr = err; err == nil {
			a.FieldSelectorRequirements = s.Requirements()
			if name, ok := s.RequiresExactMatch("metadata.name"); ok && a.Name == "" &&
				(a.Verb == "list" || a.Verb == "watch" || a.Verb == "deletecollection") {
				a.Name = name
			}
		}
	}
	if i.LabelSelector != "" {
		s, err := labels.Parse(i.LabelSelector)
		if a.LabelSelectorParsingErr = err; err == nil {
			a.LabelSelectorRequirements, _ = s.Requirements()
		}
	}
	return a
}

type key struct{}

// With returns a context that carries the request.
func With(ctx context.Context, i *Info) context.Context { return context.WithValue(ctx, key{}, i) }

// From returns the request of a context. It panics outside a request: that is a programming error.
func From(ctx context.Context) *Info { return ctx.Value(key{}).(*Info) }
