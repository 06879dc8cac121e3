package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// change is one way to spoil an object: the value at path becomes value, or goes away.
type change struct {
	path  []any // string keys and int indices
	name  string
	value any
	drop  bool
}

func (c change) id() string { return pathText(c.path) + " " + c.name }

func pathText(path []any) string {
	var b strings.Builder
	for _, p := range path {
		switch p := p.(type) {
		case string:
			if strings.ContainsAny(p, "./") {
				fmt.Fprintf(&b, "[%s]", p)
				continue
			}
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(p)
		case int:
			fmt.Fprintf(&b, "[%d]", p)
		}
	}
	return b.String()
}

// changes lists all ways to spoil v, which is at path.
func changes(path []any, v any) []change {
	path = slices.Clip(path)
	out := []change{{path: path, name: "dropped", drop: true}}
	set := func(name string, value any) { out = append(out, change{path: path, name: name, value: value}) }
	switch v := v.(type) {
	case map[string]any:
		set("empty", map[string]any{})
		if isStringMap(path, v) {
			out = append(out, change{path: append(path, "bad key!"), name: "added", value: "x"},
				change{path: append(path, "example.com/"+strings.Repeat("k", 64)), name: "added", value: "x"},
				change{path: append(path, "good"), name: "added bad value", value: "bad value!"})
		}
		for _, k := range slices.Sorted(maps.Keys(v)) {
			out = append(out, changes(append(path, k), v[k])...)
		}
	case []any:
		set("empty", []any{})
		if len(v) > 0 {
			set("repeated", append(slices.Clone(v), v[0]))
			if _, ok := v[0].(map[string]any); ok {
				set("with an empty one", append(slices.Clone(v), map[string]any{}))
			}
		}
		for i := range v {
			out = append(out, changes(append(path, i), v[i])...)
		}
	case string:
		for _, bad := range []string{"", "Bad_Value!", "-1", strings.Repeat("a", 64), strings.Repeat("a", 260), "/x/../y"} {
			if bad != v {
				set(fmt.Sprintf("%.12q", bad), bad)
			}
		}
	case float64:
		for _, bad := range []float64{0, -1, 1, 65536, 2147483647} {
			if bad != v {
				set(fmt.Sprintf("%.0f", bad), bad)
			}
		}
	case bool:
		set("flipped", !v)
	}
	return out
}

// isStringMap guesses whether a map is one with free keys.
func isStringMap(path []any, m map[string]any) bool {
	if len(path) == 0 || len(m) == 0 {
		return false
	}
	switch path[len(path)-1] {
	case "labels", "annotations", "matchLabels", "nodeSelector", "data", "stringData", "binaryData", "limits", "requests",
		"capacity", "allocatable", "hard", "used", "parameters", "selector", "overhead", "podFixed", "volumeAttributes",
		"attachmentMetadata", "extra", "default", "defaultRequest", "max", "min", "maxLimitRequestRatio":
	default:
		return false
	}
	for _, v := range m {
		if _, ok := v.(string); !ok {
			return false
		}
	}
	return true
}

// apply makes a changed copy of obj.
func (c change) apply(obj map[string]any) map[string]any {
	out := clone(obj)
	var at any = out
	put := func(any) {}
	for i, p := range c.path {
		last := i == len(c.path)-1
		switch p := p.(type) {
		case string:
			m, ok := at.(map[string]any)
			if !ok {
				return out
			}
			if last && c.drop {
				delete(m, p)
				return out
			}
			at, put = m[p], func(v any) { m[p] = v }
		case int:
			l, ok := at.([]any)
			if !ok || p >= len(l) {
				return out
			}
			if last && c.drop {
				parent := change{path: c.path[:i], value: slices.Delete(slices.Clone(l), p, p+1)}
				return parent.apply(out)
			}
			at, put = l[p], func(v any) { l[p] = v }
		}
	}
	put(c.value)
	return out
}

func clone(obj map[string]any) map[string]any {
	b, err := json.Marshal(obj)
	if err != nil {
		panic(err) // it came out of JSON or YAML
	}
	var out map[string]any
	if err := json.Unmarshal(b, &out); err != nil {
		panic(err)
	}
	return out
}

// without is a copy of obj that lacks some of its top-level fields.
func without(obj map[string]any, keys ...string) map[string]any {
	out := maps.Clone(obj)
	for _, k := range keys {
		delete(out, k)
	}
	return out
}
