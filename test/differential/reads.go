package main

import (
	"net/http"
	"net/url"
	"strings"
)

const tables = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"

// reads asks for a kind's tables and what its field selectors support.
func (a *asker) reads(s *subject) error {
	in := base(s.group, s.version, s.plural, namespaceOf(s.objects[0]))
	for i, o := range s.objects {
		if err := a.ask(caseID(s, i, "table"), question{method: http.MethodGet, path: in + "/" + nameOf(o), headers: []string{"Accept: " + tables}}); err != nil {
			return err
		}
	}
	for _, f := range append(fieldPaths("", s.objects[len(s.objects)-1], 3), "metadata.name", "metadata.namespace", "metadata.uid", "no.such.field",
		"involvedObject.uid", "status.phase", "status.podIP", "status.podIPs", "status.nominatedNodeName", "status.successful") {
		q := question{method: http.MethodGet, path: in + "?limit=1&fieldSelector=" + url.QueryEscape(f+"=no-such-value")}
		if err := a.ask(caseID(s, 0, "select", f), q); err != nil {
			return err
		}
	}
	return a.deletions(s, in)
}

// fieldPaths lists the paths of an object's scalar fields outside lists, as selectors name them.
func fieldPaths(prefix string, m map[string]any, depth int) []string {
	var out []string
	for k, v := range m {
		p := strings.TrimPrefix(prefix+"."+k, ".")
		switch v := v.(type) {
		case map[string]any:
			if depth > 1 && k != "metadata" && k != "status" && k != "data" && k != "labels" && k != "annotations" {
				out = append(out, fieldPaths(p, v, depth-1)...)
			}
		case string, bool, float64:
			if prefix != "metadata" {
				out = append(out, p)
			}
		}
	}
	return out
}

// deletions ends the life of a subject's objects.
func (a *asker) deletions(s *subject, in string) error {
	for i, o := range s.objects {
		at := in + "/" + nameOf(o)
		for _, d := range []struct{ name, query string }{{"dry", "?dryRun=All"}, {"really", ""}} {
			if err := a.ask(caseID(s, i, "delete", d.name), question{method: http.MethodDelete, path: at + d.query}); err != nil {
				return err
			}
		}
		if err := a.ask(caseID(s, i, "deleted"), question{method: http.MethodGet, path: at}); err != nil {
			return err
		}
		if err := a.clean(at); err != nil {
			return err
		}
	}
	return nil
}
