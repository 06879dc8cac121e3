package main

import (
	"fmt"
	"reflect"
	"strings"

	"k8s.io/kube-openapi/pkg/common"
)

// route is one operation, in the form that kube-openapi's builders read.
type route struct {
	method, path, id, description, tag string
	params                             []common.Parameter
	consumes, produces                 []string
	action                             string
	gvk                                map[string]string // nil for what is about no kind
	body                               any               // of the request; nil: none
	answers                            []answer
}

func (r *route) Method() string                 { return r.method }
func (r *route) Path() string                   { return r.path }
func (r *route) OperationName() string          { return r.id }
func (r *route) Parameters() []common.Parameter { return r.params }
func (r *route) Description() string            { return r.description }
func (r *route) Consumes() []string             { return r.consumes }
func (r *route) Produces() []string             { return r.produces }
func (r *route) RequestPayloadSample() any      { return r.body }
func (r *route) ResponsePayloadSample() any     { return nil }
func (r *route) StatusCodeResponses() (out []common.StatusCodeResponse) {
	for i := range r.answers {
		out = append(out, &r.answers[i])
	}
	return out
}

func (r *route) Metadata() map[string]any {
	if r.gvk == nil {
		return nil
	}
	return map[string]any{"x-kubernetes-action": r.action, "x-kubernetes-group-version-kind": r.gvk}
}

// nameAndTag is the builders' way to ask for what OperationName leaves out.
func nameAndTag(r common.Route) (string, []string, error) {
	own, ok := r.(*route)
	if !ok {
		return "", nil, fmt.Errorf("%T is no route", r)
	}
	return own.id, []string{own.tag}, nil
}

// answer is what a route answers with.
type answer struct {
	code  int
	text  string
	model any
}

func (a *answer) Code() int       { return a.code }
func (a *answer) Message() string { return a.text }
func (a *answer) Model() any      { return a.model }

// container is the routes below one path.
type container struct {
	root   string
	routes []common.Route
}

func (c *container) RootPath() string                   { return c.root }
func (c *container) PathParameters() []common.Parameter { return nil }
func (c *container) Routes() []common.Route             { return c.routes }

// parameter is one parameter of a route.
type parameter struct {
	name, description, dataType string
	kind                        common.ParameterKind
	required                    bool
}

func (p *parameter) Name() string               { return p.name }
func (p *parameter) Description() string        { return p.description }
func (p *parameter) Required() bool             { return p.required }
func (p *parameter) Kind() common.ParameterKind { return p.kind }
func (p *parameter) DataType() string           { return p.dataType }
func (p *parameter) AllowMultiple() bool        { return false }

func inPath(name, description string) common.Parameter {
	return &parameter{name: name, description: description, dataType: "string", kind: common.PathParameterKind, required: true}
}

func inBody(required bool) common.Parameter {
	return &parameter{name: "body", kind: common.BodyParameterKind, required: required}
}

// documented is a type of options whose fields have descriptions.
type documented interface{ SwaggerDoc() map[string]string }

// options are the query parameters that an options type stands for: its simple fields, but for those named.
func options(o documented, without ...string) []common.Parameter {
	var out []common.Parameter
	docs := o.SwaggerDoc()
	t := reflect.TypeOf(o)
	for i := range t.NumField() {
		f := t.Field(i)
		name, flags, _ := strings.Cut(f.Tag.Get("json"), ",")
		typ := dataType(f.Type)
		if name == "" || name == "-" || typ == "" || strings.Contains(flags, "inline") || contains(without, name) {
			continue
		}
		out = append(out, &parameter{name: name, description: docs[name], dataType: typ, kind: common.QueryParameterKind})
	}
	return out
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// dataType is how a field's type stands in a query; "" if it cannot.
func dataType(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		return dataType(t.Elem())
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "boolean"
	case reflect.Int, reflect.Int32, reflect.Int64:
		return "integer"
	}
	return ""
}
