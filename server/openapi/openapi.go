// Package openapi serves the OpenAPI documents: /openapi/v3 with its index by hash, and /openapi/v2, each for the built-in
// kinds, custom resources and extension servers together.
//
// Invariant: documents are made or unpacked for the request that asks for them and not kept, so that an idle server spends
// no memory on schemas. Those of the built-in kinds go out as the compressed bytes that lie in the binary.
// Only server and its folders import openapi.
package openapi

import (
	"context"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"k8s.io/kube-openapi/pkg/handler3"
	"k8s.io/kube-openapi/pkg/validation/spec"

	docs "github.com/skiff-sh/skiff/api/openapi"
)

const (
	jsonType = "application/json"
	v2Type   = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
	v3Type   = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
)

// Custom is what the custom resources of the moment add to the documents.
type Custom interface {
	Paths() map[string]string       // the version 3 paths and hashes
	V3(path string) ([]byte, error) // the document of such a path; nil if there is none
	// V2Parts are the members of the version 2 document's paths and definitions, each followed by a comma. V2Hash changes
	// with them and is "" where there are none.
	V2Parts() (paths, definitions []byte, err error)
	V2Hash() string
}

// Aggregated is what extension servers add.
type Aggregated interface {
	V3Paths() map[string]string // the version 3 paths, and the URLs of their documents
	// ServeV3 answers for one of the paths, and reports whether it is one.
	ServeV3(w http.ResponseWriter, r *http.Request, path string) bool
	Swaggers(ctx context.Context) []Swagger
}

// Swagger is the version 2 document of one extension server.
type Swagger struct {
	Name, Hash string
	Doc        *spec.Swagger // shared and read-only
}

// Documents serves everything below /openapi.
type Documents struct {
	custom     Custom
	aggregated Aggregated
}

// New makes the documents of the built-in kinds, custom resources and extension servers.
func New(c Custom, a Aggregated) *Documents { return &Documents{custom: c, aggregated: a} }

func (d *Documents) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/openapi/")
	var err error
	switch {
	case path == "v2":
		err = d.serveV2(w, r)
	case path == "v3":
		err = d.index(w, r)
	case strings.HasPrefix(path, "v3/"):
		err = d.serveV3(w, r, strings.TrimPrefix(path, "v3/"))
	default:
		http.NotFound(w, r)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// index tells where each document is, with its hash, so that it may be cached for ever.
func (d *Documents) index(w http.ResponseWriter, r *http.Request) error {
	type entry struct {
		URL string `json:"serverRelativeURL"`
	}
	paths := map[string]entry{}
	for _, own := range []map[string]string{docs.V3Paths(), d.custom.Paths()} {
		for p, hash := range own {
			paths[p] = entry{v3URL(p, hash)}
		}
	}
	for p, u := range d.aggregated.V3Paths() {
		if _, taken := paths[p]; !taken {
			paths[p] = entry{u}
		}
	}
	b, err := json.Marshal(map[string]any{"paths": paths})
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8") // as upstream has it
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b)
	return nil
}

func v3URL(path, hash string) string { return "/openapi/v3/" + path + "?hash=" + hash }

func (d *Documents) serveV3(w http.ResponseWriter, r *http.Request, path string) error {
	proto, err := prefersProtobuf(r, v3Type)
	if err != nil {
		w.WriteHeader(http.StatusNotAcceptable)
		return nil
	}
	if hash := d.custom.Paths()[path]; hash != "" {
		if !current(w, r, path, hash) || unchanged(w, r, hash) {
			return nil
		}
		own, err := d.custom.V3(path)
		if err != nil {
			return err
		}
		return send(w, r, hash, own, proto)
	}
	doc, err := docs.V3Document(path, proto)
	switch {
	case err != nil:
		return err
	case doc != nil:
		if !current(w, r, path, doc.Hash) {
			return nil
		}
		return pass(w, r, contentType(v3Type, proto), doc)
	case !d.aggregated.ServeV3(w, r, path):
		w.WriteHeader(http.StatusNotFound)
	}
	return nil
}

// current leads a client that asks for an older document to the newer one; the present one may be kept for ever.
func current(w http.ResponseWriter, r *http.Request, path, hash string) bool {
	asked := r.URL.Query().Get("hash")
	if asked == "" {
		return true
	}
	if asked != hash {
		w.Header().Set("Vary", "Accept")
		w.Header().Set("Content-Type", jsonType)
		http.Redirect(w, r, v3URL(path, hash), http.StatusMovedPermanently)
		return false
	}
	w.Header().Set("Cache-Control", "public, immutable")
	w.Header().Set("Expires", time.Now().AddDate(1, 0, 0).UTC().Format(time.RFC1123))
	return true
}

// Send answers with a version 3 document that is made for the request.
func Send(w http.ResponseWriter, r *http.Request, hash string, doc json.Marshaler) error {
	proto, err := prefersProtobuf(r, v3Type)
	if err != nil {
		w.WriteHeader(http.StatusNotAcceptable)
		return nil
	}
	b, err := doc.MarshalJSON()
	if err != nil {
		return err
	}
	return send(w, r, hash, b, proto)
}

func send(w http.ResponseWriter, r *http.Request, hash string, doc []byte, proto bool) (err error) {
	if proto {
		if doc, err = handler3.ToV3ProtoBinary(doc); err != nil {
			return err
		}
	}
	return reply(w, r, contentType(v3Type, proto), hash, doc)
}

func (d *Documents) serveV2(w http.ResponseWriter, r *http.Request) error {
	proto, err := prefersProtobuf(r, v2Type)
	if err != nil {
		w.Header()["Vary"] = []string{"Accept", "Accept-Encoding"}
		w.WriteHeader(http.StatusNotAcceptable)
		return nil
	}
	base, err := docs.V2Document(proto)
	if err != nil {
		return err
	}
	fingerprint := d.custom.V2Hash()
	swaggers := d.aggregated.Swaggers(r.Context())
	if fingerprint == "" && len(swaggers) == 0 {
		return pass(w, r, contentType(v2Type, proto), base)
	}
	sum := sha512.New()
	fmt.Fprintln(sum, base.Hash, fingerprint)
	for _, s := range swaggers {
		fmt.Fprintln(sum, s.Name, s.Hash)
	}
	hash := fmt.Sprintf("%X", sum.Sum(nil))
	if unchanged(w, r, hash) {
		return nil
	}
	m := &merger{}
	if m.paths, m.definitions, err = d.custom.V2Parts(); err != nil {
		return err
	}
	for _, s := range swaggers {
		if err := m.add(s.Doc); err != nil {
			return fmt.Errorf("the document of %s: %w", s.Name, err)
		}
	}
	b, err := base.Bytes()
	if err != nil {
		return err
	}
	if proto {
		b, err = m.protobuf(b)
	} else {
		b, err = m.json(b)
	}
	if err != nil {
		return err
	}
	return reply(w, r, contentType(v2Type, proto), hash, b)
}

func contentType(proto string, want bool) string {
	if want {
		return proto
	}
	return jsonType
}

// errNotAcceptable says that a client takes neither encoding.
var errNotAcceptable = fmt.Errorf("neither JSON nor protobuf is acceptable")

// prefersProtobuf reports whether the client would rather have the protobuf type (or what older clients call it) than JSON.
func prefersProtobuf(r *http.Request, typ string) (bool, error) {
	accept := r.Header.Get("Accept")
	if accept == "" {
		return false, nil
	}
	older := strings.Replace(typ, ".v1.0", "@v1.0", 1)
	for clause := range strings.SplitSeq(accept, ",") {
		name, _, _ := strings.Cut(clause, ";")
		switch strings.TrimSpace(name) {
		case typ, older:
			return true, nil
		case jsonType, "application/*", "*/*":
			return false, nil
		}
	}
	return false, errNotAcceptable
}

// unchanged writes the headers that name a document's state, and answers where the client has it already.
func unchanged(w http.ResponseWriter, r *http.Request, hash string) bool {
	h := w.Header()
	etag := strconv.Quote(hash)
	h.Set("ETag", etag)
	h["Vary"] = []string{"Accept", "Accept-Encoding"}
	if r.Header.Get("If-None-Match") != etag {
		return false
	}
	w.WriteHeader(http.StatusNotModified)
	return true
}

// pass sends a built-in document, as it lies in the binary where the client takes gzip.
func pass(w http.ResponseWriter, r *http.Request, contentType string, doc *docs.Document) error {
	if unchanged(w, r, doc.Hash) {
		return nil
	}
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		pieces, err := doc.Gzip()
		if err != nil {
			return err
		}
		w.Header().Set("Content-Encoding", "gzip")
		write(w, contentType, pieces...)
		return nil
	}
	b, err := doc.Bytes()
	if err != nil {
		return err
	}
	write(w, contentType, b)
	return nil
}

// reply sends a document that was made for the request.
func reply(w http.ResponseWriter, r *http.Request, contentType, hash string, b []byte) error {
	if unchanged(w, r, hash) {
		return nil
	}
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") && len(b) >= 32<<10 {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Content-Type", contentType)
		return compress(w, b)
	}
	write(w, contentType, b)
	return nil
}

func write(w http.ResponseWriter, contentType string, pieces ...[]byte) {
	size := 0
	for _, p := range pieces {
		size += len(p)
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(size))
	for _, p := range pieces {
		if _, err := w.Write(p); err != nil {
			return // the client is gone
		}
	}
}
