package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Answer is what a server said, without what differs from one run to the next.
type Answer struct {
	Code     int      `json:"code"`
	Type     string   `json:"type,omitempty"` // of the body, where it is no JSON
	Warnings []string `json:"warnings,omitempty"`
	Body     any      `json:"body,omitempty"`
}

var varying = []struct {
	re   *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "UID"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "TIME"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)? \+0000 UTC( m=[+\d.]+)?`), "TIME"},
	{regexp.MustCompile(`time\.(Date|Local)\([^)]*\)`), "TIME"},
	{regexp.MustCompile(`0x[0-9a-f]{6,}`), "POINTER"},
	{regexp.MustCompile(`10\.96\.\d+\.\d+`), "CLUSTERIP"},
	{regexp.MustCompile(`^(\d+[smh])+$`), "AGE"},
	{regexp.MustCompile(`:3[0-2]\d{3}/`), ":NODEPORT/"},
	{regexp.MustCompile(`generated-[a-z0-9]{5}`), "generated-SUFFIX"},
	{regexp.MustCompile(`kube-api-access-[a-z0-9]{5}`), "kube-api-access-SUFFIX"},
	// Upstream prints the difference of its internal types, which nobody else has.
	{regexp.MustCompile(`(?s)((?:pod updates may not change fields other than|spec is immutable after creation except|spec.persistentvolumesource is immutable after creation)[^\n]*)\n.*`), "$1"},
	// Upstream shows its internal types.
	{regexp.MustCompile(`(Invalid|Unsupported) value: [\[{].*?[\]}](: [^"]|, spec|$)`), "$1 value: OBJECT$2"},
	{regexp.MustCompile(`eyJ[\w.-]{20,}`), "TOKEN"},
}

func normalText(s string) string {
	for _, v := range varying {
		s = v.re.ReplaceAllString(s, v.with)
	}
	return s
}

// volatile fields differ between any two servers.
var volatile = map[string]bool{"uid": true, "resourceVersion": true, "creationTimestamp": true, "time": true, "nodePort": true,
	"healthCheckNodePort": true, "remainingItemCount": false}

func normal(v any) any {
	switch v := v.(type) {
	case map[string]any:
		if managers, ok := v["managedFields"].([]any); ok {
			sortManagers(managers)
		}
		for _, rules := range []string{"resourceRules", "nonResourceRules"} { // of a SelfSubjectRulesReview: in no order
			if list, ok := v[rules].([]any); ok {
				slices.SortStableFunc(list, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
			}
		}
		if columns, ok := v["columnDefinitions"].([]any); ok {
			for _, c := range columns {
				if c, ok := c.(map[string]any); ok {
					delete(c, "description")
				}
			}
		}
		for k, x := range v {
			if _, isMap := x.(map[string]any); !isMap && volatile[k] {
				delete(v, k)
				continue
			}
			v[k] = normal(x)
		}
		return v
	case []any:
		for i := range v {
			v[i] = normal(v[i])
		}
		return v
	case string:
		return normalText(v)
	}
	return v
}

// sortManagers undoes an order that depends on whether the second has changed between two writes.
func sortManagers(list []any) {
	key := func(e any) string {
		m, _ := e.(map[string]any)
		return fmt.Sprint(m["manager"], m["operation"], m["subresource"], m["apiVersion"])
	}
	slices.SortStableFunc(list, func(a, b any) int { return strings.Compare(key(a), key(b)) })
}

func makeAnswer(code int, contentType string, warnings []string, body []byte) Answer {
	a := Answer{Code: code}
	for _, w := range warnings {
		a.Warnings = append(a.Warnings, normalText(w))
	}
	var v any
	if json.Unmarshal(body, &v) == nil {
		a.Body = normal(v)
		return a
	}
	a.Type = contentType
	if strings.HasPrefix(contentType, "text/") || strings.Contains(contentType, "stream=watch") || strings.HasPrefix(contentType, "application/json") {
		a.Body = normalText(string(body))
	}
	return a
}
