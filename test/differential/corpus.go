package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/util/yaml"
)

// A subject is one kind as the corpus has it: objects to begin with. The first is the least that is valid, the
// second has every field, others show what these two cannot.
type subject struct {
	name    string // of the file: "core.pods"
	group   string
	version string
	plural  string
	objects []map[string]any
	// setup is the file's objects of other kinds, which must be there.
	setup []map[string]any
}

// readCorpus reads the files GROUP.PLURAL.yaml ("core" for the core group) that match.
func readCorpus(dir string, match *regexp.Regexp) ([]*subject, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, err
	}
	var out []*subject
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".yaml")
		if !match.MatchString(name) {
			continue
		}
		s, err := readSubject(f, name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		out = append(out, s)
	}
	return out, nil
}

func readSubject(file, name string) (*subject, error) {
	docs, err := readObjects(file)
	if err != nil {
		return nil, err
	}
	if len(docs) == 0 {
		return nil, errors.New("no objects")
	}
	_, plural, _ := cutLast(name, ".")
	if i := strings.IndexByte(plural, '@'); i >= 0 {
		plural = plural[:i] // another file for the same kind
	}
	s := &subject{name: name, plural: plural}
	first := docs[0]
	s.group, s.version = groupVersion(first)
	for _, d := range docs {
		if d["kind"] == first["kind"] && d["apiVersion"] == first["apiVersion"] {
			s.objects = append(s.objects, d)
		} else {
			s.setup = append(s.setup, d)
		}
	}
	return s, nil
}

func readObjects(file string) ([]map[string]any, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(b), 4096)
	var out []map[string]any
	for {
		var o map[string]any
		if err := d.Decode(&o); err == io.EOF {
			return out, nil
		} else if err != nil {
			return nil, err
		}
		if o != nil {
			out = append(out, clone(o)) // so that all numbers are float64
		}
	}
}

func cutLast(s, sep string) (before, after string, ok bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return "", s, false
}

func groupVersion(obj map[string]any) (group, version string) {
	gv, _ := obj["apiVersion"].(string)
	if g, v, ok := strings.Cut(gv, "/"); ok {
		return g, v
	}
	return "", gv
}

func metadata(obj map[string]any) map[string]any {
	m, ok := obj["metadata"].(map[string]any)
	if !ok {
		m = map[string]any{}
		obj["metadata"] = m
	}
	return m
}

func nameOf(obj map[string]any) string {
	n, _ := metadata(obj)["name"].(string)
	return n
}

func namespaceOf(obj map[string]any) string {
	n, _ := metadata(obj)["namespace"].(string)
	return n
}

// base is the path of a kind's collection in a namespace.
func base(group, version, plural, namespace string) string {
	p := "/apis/" + group + "/" + version
	if group == "" {
		p = "/api/" + version
	}
	if namespace != "" {
		p += "/namespaces/" + namespace
	}
	return p + "/" + plural
}
