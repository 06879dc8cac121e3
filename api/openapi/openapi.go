// Package openapi holds the OpenAPI documents of the built-in kinds.
//
// Invariant: the documents are made by go generate from the API's Go sources and the table of kinds, and committed in
// one compressed file; nothing is unpacked before somebody asks. Answers are byte slices of the caller's own.
//
// server and ctl may import openapi.
package openapi

import (
	"archive/zip"
	"bytes"
	"crypto/sha512"
	_ "embed"
	"fmt"
	"io"
	"strings"
	"sync"
)

//go:generate go run ./gen -o documents.zip

//go:embed documents.zip
var documents []byte

var archive = sync.OnceValues(func() (*zip.Reader, error) {
	return zip.NewReader(bytes.NewReader(documents), int64(len(documents)))
})

// V2 returns the Swagger 2.0 document of all built-in kinds, as JSON (about 4 MB).
func V2() ([]byte, error) { return read("v2") }

// V3 returns the OpenAPI 3.0 document of one group-version ("v1", "apps/v1"), as JSON.
func V3(groupVersion string) ([]byte, error) { return read("v3/" + groupVersion) }

// V3Paths lists the documents that V3 has, by their path under /openapi/v3 ("api/v1", "apis/apps/v1"), each with a
// hash of its content in hexadecimal.
var V3Paths = sync.OnceValue(func() map[string]string {
	a, err := archive()
	if err != nil {
		return nil
	}
	out := map[string]string{}
	for _, f := range a.File {
		gv, ok := strings.CutPrefix(f.Name, "v3/")
		if !ok {
			continue
		}
		path := "apis/" + gv
		if !strings.Contains(gv, "/") {
			path = "api/" + gv
		}
		// The archive knows each document's checksum and size, so that none needs to be unpacked for this.
		h := sha512.Sum512(fmt.Appendf(nil, "%s %08x %d", f.Name, f.CRC32, f.UncompressedSize64))
		out[path] = fmt.Sprintf("%X", h)
	}
	return out
})

func read(name string) ([]byte, error) {
	a, err := archive()
	if err != nil {
		return nil, fmt.Errorf("built-in OpenAPI documents: %w", err)
	}
	f, err := a.Open(name)
	if err != nil {
		return nil, fmt.Errorf("built-in OpenAPI documents: %w", err)
	}
	defer f.Close()
	return io.ReadAll(f)
}
