// Package openapi serves the OpenAPI documents: /openapi/v3 with its index by hash, and /openapi/v2.
//
// Invariant: a document is unpacked for the request that asks for it and not kept, so that an idle server spends no
// memory on schemas; only the protobuf forms, which are dear to make, are. Only server imports openapi.
package openapi

import (
	"compress/gzip"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	openapiv2 "github.com/google/gnostic-models/openapiv2"
	"google.golang.org/protobuf/proto"
	"k8s.io/kube-openapi/pkg/handler3"

	docs "github.com/skiff-sh/skiff/api/openapi"
)

const (
	jsonType = "application/json"
	v2Type   = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
	v3Type   = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
	// oldV2Type is what older clients call v2Type.
	oldV2Type = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
)

// Documents serves everything below /openapi.
type Documents struct {
	custom Custom
	mu     sync.Mutex
	proto  map[string][]byte // protobuf forms by path
	state  map[string]string // what they were made of
	etag2  string            // of /openapi/v2 without custom resources
}

// Custom is what the custom resources of the moment add to the documents.
type Custom interface {
	Paths() map[string]string // the version 3 paths and hashes
	V3(path string) []byte    // the document of such a path; nil if there is none
	// V2 puts them into the version 2 document; the fingerprint changes with them and is "" where there are none.
	V2(base []byte) (doc []byte, fingerprint string)
}

// New makes the documents of the built-in kinds and of custom resources.
func New(c Custom) *Documents {
	return &Documents{custom: c, proto: map[string][]byte{}, state: map[string]string{}}
}

func (d *Documents) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/openapi")
	var err error
	switch {
	case path == "/v2":
		err = d.v2(w, r)
	case path == "/v3" || path == "/v3/":
		err = d.index(w, r)
	case strings.HasPrefix(path, "/v3/"):
		err = d.v3(w, r, strings.TrimPrefix(path, "/v3/"))
	default:
		http.Error(w, "404 page not found", http.StatusNotFound)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// index tells where each group-version's document is, with its hash, so that it may be cached for ever.
func (d *Documents) index(w http.ResponseWriter, r *http.Request) error {
	type entry struct {
		URL string `json:"serverRelativeURL"`
	}
	paths := map[string]entry{}
	for p, hash := range docs.V3Paths() {
		paths[p] = entry{"/openapi/v3/" + p + "?hash=" + hash}
	}
	for p, hash := range d.custom.Paths() {
		paths[p] = entry{"/openapi/v3/" + p + "?hash=" + hash}
	}
	b, err := json.Marshal(map[string]any{"paths": paths})
	if err != nil {
		return err
	}
	sum := sha512.Sum512(b)
	return send(w, r, jsonType, fmt.Sprintf("%X", sum), b)
}

func (d *Documents) v3(w http.ResponseWriter, r *http.Request, path string) error {
	hash, ok := docs.V3Paths()[path]
	own := d.custom.V3(path)
	if own != nil {
		hash, ok = d.custom.Paths()[path], true
	}
	if !ok {
		http.Error(w, "404 page not found", http.StatusNotFound)
		return nil
	}
	if asked := r.URL.Query().Get("hash"); asked != "" {
		if asked != hash {
			http.Redirect(w, r, r.URL.Path+"?hash="+hash, http.StatusMovedPermanently)
			return nil
		}
		w.Header().Set("Cache-Control", "public, immutable")
		w.Header().Set("Expires", time.Now().AddDate(1, 0, 0).UTC().Format(http.TimeFormat))
	}
	_, gv, _ := strings.Cut(path, "/")
	if own != nil {
		if !accepts(r, v3Type) {
			return send(w, r, jsonType, hash, own)
		}
		b, err := handler3.ToV3ProtoBinary(own)
		if err != nil {
			return err
		}
		return send(w, r, v3Type, hash, b)
	}
	if accepts(r, v3Type) {
		b, err := d.made(path, "", func() ([]byte, error) {
			j, err := docs.V3(gv)
			if err != nil {
				return nil, err
			}
			return handler3.ToV3ProtoBinary(j)
		})
		if err != nil {
			return err
		}
		return send(w, r, v3Type, hash, b)
	}
	b, err := docs.V3(gv)
	if err != nil {
		return err
	}
	return send(w, r, jsonType, hash, b)
}

func (d *Documents) v2(w http.ResponseWriter, r *http.Request) error {
	j, err := docs.V2()
	if err != nil {
		return err
	}
	d.mu.Lock()
	if d.etag2 == "" {
		d.etag2 = fmt.Sprintf("%X", sha512.Sum512(j))
	}
	etag := d.etag2
	d.mu.Unlock()
	j, custom := d.custom.V2(j)
	if custom != "" {
		etag = etag[:96] + custom
	}
	if !accepts(r, v2Type) && !accepts(r, oldV2Type) {
		return send(w, r, jsonType, etag, j)
	}
	b, err := d.made("v2", custom, func() ([]byte, error) {
		doc, err := openapiv2.ParseDocument(j)
		if err != nil {
			return nil, err
		}
		return proto.Marshal(doc)
	})
	if err != nil {
		return err
	}
	return send(w, r, v2Type, etag, b)
}

// made keeps what is dear to make, in its newest state. Two requests at once make it once.
func (d *Documents) made(key, state string, f func() ([]byte, error)) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if b, ok := d.proto[key]; ok && d.state[key] == state {
		return b, nil
	}
	b, err := f()
	if err == nil {
		d.proto[key], d.state[key] = b, state
	}
	return b, err
}

// accepts reports whether the client prefers a protobuf type to JSON.
func accepts(r *http.Request, typ string) bool {
	accept := r.Header.Get("Accept")
	at, j := strings.Index(accept, typ), strings.Index(accept, jsonType)
	return at >= 0 && (j < 0 || at < j)
}

func send(w http.ResponseWriter, r *http.Request, contentType, etag string, b []byte) error {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("ETag", strconv.Quote(etag))
	h.Set("Vary", "Accept-Encoding, Accept")
	if strings.Contains(r.Header.Get("If-None-Match"), etag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") || len(b) < 32<<10 {
		h.Set("Content-Length", strconv.Itoa(len(b)))
		_, _ = w.Write(b)
		return nil
	}
	h.Set("Content-Encoding", "gzip")
	z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return err
	}
	if _, err := z.Write(b); err == nil {
		_ = z.Close()
	}
	return nil
}
