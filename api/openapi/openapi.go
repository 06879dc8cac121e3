// Package openapi holds the OpenAPI documents of the built-in kinds.
//
// Invariant: the documents are made by go generate from the API's Go sources and the table of kinds, and committed in
// one compressed file; nothing is unpacked before somebody asks. Answers are byte slices of the caller's own, but for
// those of Gzip, which are read-only.
//
// server and ctl may import openapi.
package openapi

import (
	"archive/zip"
	"bytes"
	"crypto/sha512"
	_ "embed"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"sync"
)

//go:generate go run ./gen -o documents.zip

//go:embed documents.zip
var documents []byte

var archive = sync.OnceValues(func() (map[string]*zip.File, error) {
	r, err := zip.NewReader(bytes.NewReader(documents), int64(len(documents)))
	if err != nil {
		return nil, fmt.Errorf("built-in OpenAPI documents: %w", err)
	}
	out := make(map[string]*zip.File, len(r.File))
	for _, f := range r.File {
		out[f.Name] = f
	}
	return out, nil
})

// Document is one document in one encoding.
type Document struct {
	Hash string // of the content, in hexadecimal
	file *zip.File
}

// V2Document is the Swagger 2.0 document of everything that the server is born with.
func V2Document(protobuf bool) (*Document, error) {
	if protobuf {
		return find("v2.pb", "v2")
	}
	return find("v2", "v2")
}

// V3Document is the OpenAPI 3.0 document of one path below /openapi/v3 ("api/v1", "apis/apps/v1", "version"); nil if there
// is none.
func V3Document(path string, protobuf bool) (*Document, error) {
	if _, ok := V3Paths()[path]; !ok {
		return nil, nil
	}
	if protobuf {
		return find("v3.pb/"+path, "v3/"+path)
	}
	return find("v3/"+path, "v3/"+path)
}

// find is the document called name, with the hash of its JSON form.
func find(name, json string) (*Document, error) {
	files, err := archive()
	if err != nil {
		return nil, err
	}
	if files[name] == nil || files[json] == nil {
		return nil, fmt.Errorf("built-in OpenAPI documents: no %s", name)
	}
	return &Document{Hash: hash(files[json]), file: files[name]}, nil
}

// hash needs no unpacking: the archive knows each document's checksum and size.
func hash(f *zip.File) string {
	h := sha512.Sum512(fmt.Appendf(nil, "%s %08x %d", f.Name, f.CRC32, f.UncompressedSize64))
	return fmt.Sprintf("%X", h)
}

// Bytes unpacks the document.
func (d *Document) Bytes() ([]byte, error) {
	f, err := d.file.Open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, d.file.UncompressedSize64)
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("built-in OpenAPI documents: %s: %w", d.file.Name, err)
	}
	// The end of the file is where its checksum is looked at.
	if _, err := f.Read(make([]byte, 1)); err != io.EOF {
		return nil, fmt.Errorf("built-in OpenAPI documents: %s: %w", d.file.Name, err)
	}
	return b, nil
}

// Gzip is the document as a gzip stream (RFC 1952) in three pieces, of which the large one is the archive's own bytes:
// nothing is compressed or copied. The pieces are read-only.
func (d *Document) Gzip() ([][]byte, error) {
	at, err := d.file.DataOffset()
	if err != nil {
		return nil, err
	}
	head := []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 255} // deflate, no name, no time, best compression, unknown system
	tail := binary.LittleEndian.AppendUint32(nil, d.file.CRC32)
	tail = binary.LittleEndian.AppendUint32(tail, uint32(d.file.UncompressedSize64))
	return [][]byte{head, documents[at : at+int64(d.file.CompressedSize64)], tail}, nil
}

// V2 returns the Swagger 2.0 document, as JSON (2 MB).
func V2() ([]byte, error) {
	d, err := V2Document(false)
	if err != nil {
		return nil, err
	}
	return d.Bytes()
}

// V3 returns the OpenAPI 3.0 document of one group-version ("v1", "apps/v1"), as JSON.
func V3(groupVersion string) ([]byte, error) {
	path := "apis/" + groupVersion
	if !strings.Contains(groupVersion, "/") {
		path = "api/" + groupVersion
	}
	d, err := V3Document(path, false)
	if err != nil {
		return nil, err
	}
	if d == nil {
		return nil, fmt.Errorf("built-in OpenAPI documents: no %s", path)
	}
	return d.Bytes()
}

// V3Paths lists the paths that V3Document has, each with the hash of its document. It is shared and read-only.
var V3Paths = sync.OnceValue(func() map[string]string {
	files, err := archive()
	if err != nil {
		return nil
	}
	out := map[string]string{}
	for name, f := range files {
		if path, ok := strings.CutPrefix(name, "v3/"); ok {
			out[path] = hash(f)
		}
	}
	return out
})

// Custom returns the template of a custom resource's documents, as JSON: its "paths", and in version 3 the "schemas" that
// they lead to. It is about a kind SkiffKind (in the documents skiff.Model and skiff.ModelList) whose plural is skiffplurals,
// in version skiffversion of the group skiffgroup; operations are called after SkiffgroupSkiffversion, the tag is
// skiffgroup_skiffversion.
func Custom(version3, namespaced bool) ([]byte, error) {
	name := "custom/v2/"
	if version3 {
		name = "custom/v3/"
	}
	scope := "cluster"
	if namespaced {
		scope = "namespaced"
	}
	d, err := find(name+scope, name+scope)
	if err != nil {
		return nil, err
	}
	return d.Bytes()
}
