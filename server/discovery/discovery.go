// Package discovery tells clients which resources there are: the lists of groups and resources, and the two aggregated
// documents that hold everything at once.
//
// Invariant: the documents are a function of the table and of what the APIServices say, and are made anew when either has
// changed. Only the aggregated documents are kept, for clients that ask whether they have changed.
// Only server and its folders import discovery.
package discovery

import (
	"bytes"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"sync"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/codec"
)

// Config is what the documents are made of; Table is required.
type Config struct {
	Table *api.Table
	// Registrations is what the APIServices say of the moment: a new value after each change. Nil: nothing.
	Registrations func() *Registrations
	// Address is where clients reach the server ("192.0.2.1:6443"), which only the oldest document tells. "" leaves it out.
	Address string
}

// Documents serves /api, /apis and what is directly below.
type Documents struct {
	cfg Config
	mu  sync.Mutex
	now *state
}

// state is the documents of one moment.
type state struct {
	kinds         []*api.Kind
	registrations *Registrations
	groups        []*group             // in the order of the aggregated documents
	aggregated    map[string]*document // by path, made when first asked for
}

// document is an aggregated document as JSON.
type document struct {
	json []byte
	etag string
}

// New makes the documents.
func New(cfg Config) *Documents {
	if cfg.Registrations == nil {
		none := &Registrations{}
		cfg.Registrations = func() *Registrations { return none }
	}
	return &Documents{cfg: cfg}
}

// state is the present one; the caller holds the lock.
func (d *Documents) state() *state {
	kinds, regs := d.cfg.Table.Kinds(), d.cfg.Registrations()
	if s := d.now; s == nil || s.registrations != regs || len(kinds) != len(s.kinds) || len(kinds) > 0 && &kinds[0] != &s.kinds[0] {
		d.now = &state{kinds: kinds, registrations: regs, groups: arrange(kinds, regs), aggregated: map[string]*document{}}
	}
	return d.now
}

// Paths lists the paths of all documents, for the index of the server.
func (d *Documents) Paths() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := []string{"/api", "/apis", "/apis/"}
	for _, g := range d.state().groups {
		if g.name != "" {
			out = append(out, "/apis/"+g.name)
		}
		for _, v := range g.versions {
			out = append(out, v.path())
		}
	}
	return out
}

// Builtin reports whether a group is one that the server is born with.
func (d *Documents) Builtin(group string) bool {
	for _, k := range d.cfg.Table.Kinds() {
		if k.Group == group && !k.CRD {
			return true
		}
	}
	return false
}

// Answer is a document as a client wants it.
type Answer struct {
	Code        int // 200, or 304 where the client has the document already
	ContentType string
	ETag        string // of aggregated documents; with quotes
	Body        []byte
}

// NotFound is the answer for what a built-in group does not have.
func NotFound() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound,
		Message: "the server could not find the requested resource", Details: &metav1.StatusDetails{}}}
}

// Routed reports whether upstream's router knows the path of a document, and so answers to the right methods and media
// types alone: all but /apis and the groups.
func Routed(path string) bool {
	path = strings.TrimRight(path, "/")
	return path != "/apis" && (!strings.HasPrefix(path, "/apis/") || strings.Count(path, "/") > 2)
}

// Answer finds the document that a request asks for; nil if there is no such path at all.
func (d *Documents) Answer(r *http.Request) (*Answer, error) {
	path := strings.TrimRight(r.URL.Path, "/")
	if path == "/api" || path == "/apis" {
		if typ := aggregated(r.Header.Get("Accept")); typ != "" {
			return d.aggregated(r, path, typ)
		}
	}
	obj, err := d.object(path)
	if obj == nil || err != nil {
		return nil, err
	}
	m, err := codec.Negotiate(r, codec.Allow{Protobuf: true, Routed: Routed(path)})
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(obj)
	if err != nil {
		return nil, err
	}
	a := &Answer{Code: http.StatusOK, ContentType: m.ContentType()}
	a.Body, err = encode(append(b, '\n'), m, func() (runtime.Object, error) { return obj, nil })
	return a, err
}

// object makes one of the documents that are not aggregated; nil if there is none.
func (d *Documents) object(path string) (runtime.Object, error) {
	d.mu.Lock()
	s := d.state()
	d.mu.Unlock()
	if path == "/api" {
		return d.versions(), nil
	}
	if path == "/apis" {
		return groupList(s), nil
	}
	name, version := "", strings.TrimPrefix(path, "/api/")
	if rest, ok := strings.CutPrefix(path, "/apis/"); ok {
		name, version, _ = strings.Cut(rest, "/")
	}
	for _, g := range s.groups {
		if g.name != name {
			continue
		}
		if version == "" {
			return groupOf(g), nil
		}
		for _, v := range g.versions {
			if v.gv.Version == version {
				return resources(v), nil
			}
		}
		if d.Builtin(name) {
			return nil, NotFound()
		}
	}
	return nil, nil
}

// versions is the oldest document.
func (d *Documents) versions() *metav1.APIVersions {
	out := &metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"},
		ServerAddressByClientCIDRs: []metav1.ServerAddressByClientCIDR{}}
	if d.cfg.Address != "" {
		out.ServerAddressByClientCIDRs = append(out.ServerAddressByClientCIDRs, metav1.ServerAddressByClientCIDR{ClientCIDR: "0.0.0.0/0", ServerAddress: d.cfg.Address})
	}
	return out
}

// aggregated is the media type in which the client wants the aggregated document; "" if it prefers a plain one. Like
// upstream since v1.36, it knows no version of it but v2.
func aggregated(accept string) (mediaType string) {
	for clause := range strings.SplitSeq(accept, ",") {
		typ, params, err := mime.ParseMediaType(clause)
		if err != nil {
			continue
		}
		switch typ {
		case codec.TypeJSON, codec.TypeYAML, codec.TypeProtobuf:
		case "*/*", "application/*":
			typ = codec.TypeJSON
		default:
			continue
		}
		if params["as"] == "" {
			return ""
		}
		if params["g"] == "apidiscovery.k8s.io" && params["v"] == "v2" && params["as"] == "APIGroupDiscoveryList" {
			return typ
		}
	}
	return ""
}

// aggregated answers with everything below /api or /apis.
func (d *Documents) aggregated(r *http.Request, path, mediaType string) (*Answer, error) {
	doc, err := d.document(path)
	if err != nil {
		return nil, err
	}
	a := &Answer{Code: http.StatusOK, ETag: doc.etag, ContentType: mediaType + ";g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"}
	if r.Header.Get("If-None-Match") == doc.etag {
		a.Code = http.StatusNotModified
		return a, nil
	}
	plain := r.Clone(r.Context())
	plain.Header.Set("Accept", mediaType)
	m, err := codec.Negotiate(plain, codec.Allow{Protobuf: true})
	if err != nil {
		return nil, err
	}
	a.Body, err = encode(doc.json, m, func() (runtime.Object, error) {
		obj := &apidiscoveryv2.APIGroupDiscoveryList{}
		return obj, json.Unmarshal(doc.json, obj)
	})
	return a, err
}

func (d *Documents) document(path string) (*document, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.state()
	if doc := s.aggregated[path]; doc != nil {
		return doc, nil
	}
	b, err := json.Marshal(aggregate(s.groups, path == "/api"))
	if err != nil {
		return nil, err
	}
	doc := &document{json: append(b, '\n'), etag: fmt.Sprintf("\"%X\"", sha512.Sum512(b))}
	s.aggregated[path] = doc
	return doc, nil
}

// encode writes a document, given as JSON, as the negotiation wants it; obj makes the object for protobuf.
func encode(doc []byte, m codec.Media, obj func() (runtime.Object, error)) ([]byte, error) {
	switch {
	case m.Format == codec.FormatProtobuf:
		o, err := obj()
		if err != nil {
			return nil, err
		}
		return codec.Protobuf(o, o.GetObjectKind().GroupVersionKind())
	case m.Format == codec.FormatYAML:
		return codec.YAML(doc)
	case m.Pretty:
		var b bytes.Buffer
		err := json.Indent(&b, bytes.TrimSpace(doc), "", "  ")
		return b.Bytes(), err
	}
	return doc, nil
}
