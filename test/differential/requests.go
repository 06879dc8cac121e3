package main

import "net/http"

// requests asks what does not depend on the kind: parameters, media types, bodies that make no sense.
func (a *asker) requests() error {
	const in = "/api/v1/namespaces/" + namespace + "/configmaps"
	const at = in + "/asked"
	object := map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "asked"}, "data": map[string]any{"a": "b"}}
	if err := a.clean(at); err != nil {
		return err
	}
	if _, _, err := a.send(question{method: http.MethodPost, path: in, body: object}); err != nil {
		return err
	}
	get := func(query string, headers ...string) question {
		return question{method: http.MethodGet, path: in + query, headers: headers}
	}
	post := func(query, body string, headers ...string) question {
		return question{method: http.MethodPost, path: in + query, body: body, headers: headers}
	}
	patch := func(query, kind, body string) question {
		return question{method: http.MethodPatch, path: at + query, body: body, headers: []string{"Content-Type: " + kind}}
	}
	remove := func(query, body string) question {
		return question{method: http.MethodDelete, path: at + query, body: body}
	}
	const named = `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"other"},"data":{"a":"b"},"nope":1,"data":{"c":"d"}}`
	for id, q := range map[string]question{
		"list match without version":     get("?resourceVersionMatch=Exact"),
		"list exact zero":                get("?resourceVersion=0&resourceVersionMatch=Exact"),
		"list bad match":                 get("?resourceVersion=1&resourceVersionMatch=Maybe"),
		"list bad version":               get("?resourceVersion=x"),
		"list far version":               get("?resourceVersion=99999999999"),
		"list old exact version":         get("?resourceVersion=1&resourceVersionMatch=Exact"),
		"list bad continue":              get("?limit=1&continue=x"),
		"list continue with version":     get("?limit=1&continue=x&resourceVersion=5"),
		"list bad limit":                 get("?limit=x"),
		"list negative limit":            get("?limit=-1"),
		"list bad label selector":        get("?labelSelector=a%20in"),
		"list bad field selector":        get("?fieldSelector=metadata.name"),
		"list initial events":            get("?sendInitialEvents=true"),
		"watch initial events unmatched": get("?watch=1&sendInitialEvents=true&timeoutSeconds=1"),
		"watch match":                    get("?watch=1&resourceVersionMatch=NotOlderThan&timeoutSeconds=1"),
		"watch bad timeout":              get("?watch=1&timeoutSeconds=x"),
		"watch bad version":              get("?watch=1&resourceVersion=x&timeoutSeconds=1"),
		"accept nothing":                 get("", "Accept: text/csv"),
		"accept cbor":                    get("", "Accept: application/cbor"),
		"create wrong type":              post("", named, "Content-Type: text/plain"),
		"create cbor":                    post("", "\xd9\xd9\xf7\xa0", "Content-Type: application/cbor"),
		"create no json":                 post("", "{"),
		"create empty":                   post("", ""),
		"create array":                   post("", "[]"),
		"create other kind":              post("", `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"x"}}`),
		"create other version":           post("", `{"apiVersion":"v2","kind":"ConfigMap","metadata":{"name":"x"}}`),
		"create no name":                 post("", `{"apiVersion":"v1","kind":"ConfigMap"}`),
		"create other namespace":         post("", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","namespace":"y"}}`),
		"create with version":            post("", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","resourceVersion":"5"}}`),
		"create generated":               post("?dryRun=All", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"generated-"}}`),
		"create strict":                  post("?dryRun=All&fieldValidation=Strict", named),
		"create warn":                    post("?dryRun=All&fieldValidation=Warn", named),
		"create ignore":                  post("?dryRun=All&fieldValidation=Ignore", named),
		"create bad validation":          post("?dryRun=All&fieldValidation=No", named),
		"create bad dry run":             post("?dryRun=Some", named),
		"create bad manager":             post("?dryRun=All&fieldManager=%01", named),
		"create strict yaml":             post("?dryRun=All&fieldValidation=Strict", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: y}\nnope: 1\ndata: {a: b}\ndata: {c: d}\n", "Content-Type: application/yaml"),
		"json patch bad":                 patch("", "application/json-patch+json", `{}`),
		"json patch bad path":            patch("", "application/json-patch+json", `[{"op":"remove","path":"/data/none"}]`),
		"json patch test":                patch("", "application/json-patch+json", `[{"op":"test","path":"/data/a","value":"z"}]`),
		"json patch bad op":              patch("", "application/json-patch+json", `[{"op":"explode","path":"/data/a"}]`),
		"merge patch bad":                patch("", "application/merge-patch+json", `[`),
		"merge patch type":               patch("?dryRun=All", "application/merge-patch+json", `{"data":5}`),
		"merge patch unknown":            patch("?dryRun=All&fieldValidation=Strict", "application/merge-patch+json", `{"nope":5}`),
		"merge patch version":            patch("?dryRun=All", "application/merge-patch+json", `{"metadata":{"resourceVersion":"1"}}`),
		"merge patch name":               patch("?dryRun=All", "application/merge-patch+json", `{"metadata":{"name":"z"}}`),
		"strategic patch bad":            patch("", "application/strategic-merge-patch+json", `{`),
		"apply no manager":               patch("", "application/apply-patch+yaml", `{"apiVersion":"v1","kind":"ConfigMap"}`),
		"apply no kind":                  patch("?fieldManager=m", "application/apply-patch+yaml", `{"metadata":{}}`),
		"apply conflict":                 patch("?fieldManager=m", "application/apply-patch+yaml", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"asked"},"data":{"a":"z"}}`),
		"apply forced":                   patch("?dryRun=All&fieldManager=m&force=true", "application/apply-patch+yaml", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"asked"},"data":{"a":"z"}}`),
		"force without apply":            patch("?force=true", "application/merge-patch+json", `{}`),
		"patch wrong type":               patch("", "application/json", `{}`),
		"delete bad propagation":         remove("?dryRun=All&propagationPolicy=No", ""),
		"delete both policies":           remove("?dryRun=All", `{"orphanDependents":true,"propagationPolicy":"Background"}`),
		"delete bad grace":               remove("?dryRun=All&gracePeriodSeconds=x", ""),
		"delete wrong uid":               remove("", `{"preconditions":{"uid":"x"}}`),
		"delete wrong version":           remove("", `{"preconditions":{"resourceVersion":"1"}}`),
		"delete bad body":                remove("", `{`),
		"delete foreground":              remove("?dryRun=All&propagationPolicy=Foreground", ""),
		"delete missing":                 {method: http.MethodDelete, path: in + "/none"},
		"get missing":                    {method: http.MethodGet, path: in + "/none"},
		"get missing resource":           {method: http.MethodGet, path: "/api/v1/nones"},
		"get missing group":              {method: http.MethodGet, path: "/apis/none.example.com/v1/things"},
		"put on collection":              {method: http.MethodPut, path: in, body: object},
		"put other name":                 {method: http.MethodPut, path: at, body: map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "z"}}},
		"put missing":                    {method: http.MethodPut, path: in + "/none", body: map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "none"}}},
		"post on object":                 {method: http.MethodPost, path: at, body: object},
		"unknown subresource":            {method: http.MethodGet, path: at + "/status"},
	} {
		if err := a.ask("requests 0 "+id, q); err != nil {
			return err
		}
	}
	return a.clean(at)
}
