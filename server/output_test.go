package server_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// TestListForms compares the forms of lists of several sizes, some of them larger than a chunk, with the plain one.
func TestListForms(t *testing.T) {
	f := start(t)
	tableAccept := "application/json;as=Table;v=v1;g=meta.k8s.io"
	made := 0
	for _, n := range []int{0, 1, 3, 40} {
		for ; made < n; made++ {
			f.must(201, "POST", cm, fmt.Sprintf(`{"metadata":{"name":"c-%02d"},"data":{"a":%q}}`, made, strings.Repeat("<x> ", 4000)))
		}
		for _, accept := range []string{"application/json", tableAccept, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"} {
			get := func(query, accept, encoding string) []byte {
				code, h, b := f.do("GET", cm+query, "", "Accept", accept, "Accept-Encoding", encoding)
				if code != 200 {
					t.Fatalf("%d: %s", code, b)
				}
				if h.Get("Content-Encoding") == "gzip" {
					z, err := gzip.NewReader(bytes.NewReader(b))
					if err != nil {
						t.Fatal(err)
					}
					if b, err = io.ReadAll(z); err != nil {
						t.Fatal(err)
					}
				}
				return b
			}
			plain := get("", accept, "identity")
			var indented bytes.Buffer
			if err := json.Indent(&indented, plain, "", "  "); err != nil {
				t.Fatalf("%d items: %v", n, err)
			}
			if accept != tableAccept { // whose ages may change in between
				if got := get("?pretty=true", accept, "identity"); !bytes.Equal(got, indented.Bytes()) {
					t.Errorf("%d items, %s, pretty:\n%.300s\nwant\n%.300s", n, accept, got, indented.Bytes())
				}
				if got := get("", accept, "gzip"); !bytes.Equal(got, plain) {
					t.Errorf("%d items, %s: gzip differs", n, accept)
				}
				y, err := yaml.JSONToYAML(plain)
				if err != nil {
					t.Fatal(err)
				}
				if got := get("", strings.Replace(accept, "json", "yaml", 1), "identity"); !bytes.Equal(got, y) {
					t.Errorf("%d items, %s: YAML differs", n, accept)
				}
			}
			var list struct{ Items, Rows []any }
			if err := json.Unmarshal(plain, &list); err != nil || len(list.Items)+len(list.Rows) != n {
				t.Errorf("%d items, %s: got %d and %d: %v", n, accept, len(list.Items), len(list.Rows), err)
			}
		}
	}
}
