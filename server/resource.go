package server

import (
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/codec"
	"github.com/skiff-sh/skiff/server/rest"
	"github.com/skiff-sh/skiff/store"
)

// serveResource answers a request for a resource of the table.
func (s *Server) serveResource(x *exchange) error {
	i := x.info
	if i.Kind == nil && i.Namespace == "" && i.Name == "" && (i.Resource == "watch" || i.Resource == "proxy") {
		return s.halfPath(x)
	}
	if i.Kind == nil || !i.Kind.Namespaced && i.Namespace != "" && i.Resource != "namespaces" {
		return s.unserved(x)
	}
	if i.Kind.Namespaced && i.Namespace == "" {
		switch {
		case i.Verb == "list" || i.Verb == "watch":
		case i.Kind.CRD || i.Name != "":
			return s.unserved(x)
		default:
			return notAllowed(i.Kind.GroupResource(), i.Verb)
		}
	}
	if i.Subresource != "" || i.Kind.Serves(i.Verb) {
		x.warn(s.deprecated[i.Kind])
		x.warn(i.Kind.Deprecated)
	}
	if i.Subresource != "" {
		return s.serveSubresource(x)
	}
	if !i.Kind.Serves(i.Verb) {
		return notAllowed(i.Kind.GroupResource(), i.Verb)
	}
	if i.Name == "" && (i.Verb == "update" || i.Verb == "patch") {
		return notAllowed(i.Kind.GroupResource(), i.Verb)
	}
	switch i.Verb {
	case "get":
		return s.get(x)
	case "list":
		return s.list(x)
	case "watch":
		return s.watch(x)
	case "create":
		if i.Name != "" {
			return notAllowed(i.Kind.GroupResource(), i.Verb)
		}
		return s.create(x)
	case "update":
		return s.update(x)
	case "patch":
		return s.patch(x)
	case "delete":
		return s.delete(x)
	case "deletecollection":
		return s.deleteCollection(x)
	}
	return notAllowed(i.Kind.GroupResource(), i.Verb)
}

// halfPath is upstream's answer to a path that ends where the old form of a verb begins.
func (s *Server) halfPath(x *exchange) error {
	x.w.Header().Set("X-Content-Type-Options", "nosniff")
	return x.send(http.StatusInternalServerError, plainText, fmt.Appendf(nil,
		"Internal Server Error: %q: failed to create RequestInfo: unable to determine kind and namespace from url, %s\n", htmlSafe.Replace(x.r.RequestURI), x.info.Path))
}

func (s *Server) serveSubresource(x *exchange) error {
	i := x.info
	sub, ok := i.Kind.Subresource(i.Subresource)
	if !ok && i.Kind.CRD && i.Rest == "" {
		return apierrors.NewNotFound(i.Kind.GroupResource(), i.Name)
	}
	if !ok {
		return s.unserved(x)
	}
	if sub.Type == api.ConnectSub {
		return s.connect(x, sub)
	}
	if i.Rest != "" {
		return s.unserved(x)
	}
	if !slices.Contains(sub.Verbs, i.Verb) {
		return notAllowed(i.Kind.GroupResource(), i.Verb)
	}
	switch {
	case sub.Type == api.ActionSub:
		return s.action(x, sub)
	case sub.Type == api.ScaleSub:
		return s.scale(x, sub)
	}
	switch i.Verb {
	case "get":
		return s.get(x)
	case "update":
		return s.update(x)
	case "patch":
		return s.patch(x)
	}
	return notAllowed(i.Kind.GroupResource(), i.Verb)
}

func notAllowed(gr schema.GroupResource, verb string) error {
	err := apierrors.NewMethodNotSupported(gr, verb)
	err.ErrStatus.Message = "the server does not allow this method on the requested resource"
	err.ErrStatus.Details = &metav1.StatusDetails{}
	return err
}

// notFound is the answer for a path that nobody serves.
func (x *exchange) notFound() error {
	x.w.Header().Set("X-Content-Type-Options", "nosniff")
	return x.send(http.StatusNotFound, "text/plain; charset=utf-8", []byte("404 page not found\n"))
}

// options reads the query into options of the request's verb.
func options[T any](x *exchange, convert func(*url.Values, *T, conversion.Scope) error) (T, error) {
	var o T
	q := x.q()
	if err := convert(&q, &o, nil); err != nil {
		return o, apierrors.NewBadRequest(err.Error())
	}
	return o, rest.ValidateOptions(&o) // before a body is read, which may have warnings
}

// one says how a single object of the kind may be written.
func one(k *api.Kind) codec.Allow {
	// What is not stored has no metadata to show.
	stored := k.StoragePath != "" || k.Serves("get")
	return codec.Allow{Protobuf: !k.CRD, Routed: !k.CRD, Table: stored, Metadata: stored}
}

func (s *Server) get(x *exchange) error {
	m, err := codec.Negotiate(x.r, one(x.info.Kind))
	if err != nil {
		return err
	}
	var o metav1.GetOptions
	if x.r.URL.RawQuery != "" {
		if o, err = options(x, metav1.Convert_url_Values_To_v1_GetOptions); err != nil {
			return err
		}
	}
	e, err := s.rest.Get(x.r.Context(), x.info.Kind, x.info.Namespace, x.info.Name, o)
	if err != nil {
		return err
	}
	return s.sendEntry(x, http.StatusOK, m, x.info.Kind, e)
}

func (s *Server) list(x *exchange) error {
	k := x.info.Kind
	m, err := codec.Negotiate(x.r, codec.Allow{Protobuf: !k.CRD, Routed: !k.CRD, Table: true, Metadata: true, List: true})
	if err != nil {
		return err
	}
	o, err := options(x, metav1.Convert_url_Values_To_v1_ListOptions)
	if err != nil {
		return err
	}
	l, err := s.rest.List(x.r.Context(), k, x.info.Namespace, o)
	if err != nil {
		return err
	}
	return s.sendList(x, m, l)
}

// decode reads the body as an object of a row, with its defaults.
func (s *Server) decode(x *exchange, k *api.Kind, validation string) (api.Object, error) {
	obj := k.New()
	err := s.decodeBody(x, func(data []byte, format codec.Format) ([]string, error) {
		return codec.DecodeRow(data, format, k, obj, validation)
	})
	if err != nil {
		return nil, err
	}
	codec.Defaulted(k, obj)
	return obj, nil
}

func (s *Server) decodeInto(x *exchange, gvk schema.GroupVersionKind, obj runtime.Object, validation string) error {
	return s.decodeBody(x, func(data []byte, format codec.Format) ([]string, error) {
		return codec.Decode(data, format, gvk, obj, validation)
	})
}

func (s *Server) decodeBody(x *exchange, decode func([]byte, codec.Format) ([]string, error)) error {
	format, err := codec.FormatOf(x.r.Header.Get("Content-Type"))
	if err != nil {
		return err
	}
	data, err := x.body()
	if err != nil {
		return err
	}
	warnings, err := decode(data, format)
	if err != nil {
		return err
	}
	for _, t := range warnings {
		x.warn(t)
	}
	return nil
}

// deepen makes room on the stack for a write at once. The goroutine of a request begins with a small one, and would copy
// it each time that it doubles.
//
//go:noinline
func deepen(zero int) byte {
	var room [24 << 10]byte
	return room[zero]
}

func (s *Server) create(x *exchange) error {
	deepen(x.code)
	k := x.info.Kind
	m, err := codec.Negotiate(x.r, one(k))
	if err != nil {
		return err
	}
	o, err := options(x, metav1.Convert_url_Values_To_v1_CreateOptions)
	if err != nil {
		return err
	}
	if k.StoragePath == "" {
		return s.act(x, m, nil, k.GroupVersionKind(), k.New(), o)
	}
	obj, err := s.decode(x, k, o.FieldValidation)
	if err != nil {
		return err
	}
	e, err := s.rest.Create(x.r.Context(), k, x.info.Namespace, obj, o)
	if err != nil {
		return err
	}
	return s.sendEntry(x, http.StatusCreated, m, k, e)
}

// action serves a subresource that a body is posted to.
func (s *Server) action(x *exchange, sub *api.Subresource) error {
	m, err := codec.Negotiate(x.r, one(x.info.Kind))
	if err != nil {
		return err
	}
	o, err := options(x, metav1.Convert_url_Values_To_v1_CreateOptions)
	if err != nil {
		return err
	}
	gvk := schema.GroupVersionKind{Group: sub.Group, Version: sub.Version, Kind: sub.Kind}
	return s.act(x, m, sub, gvk, sub.New(), o)
}

func (s *Server) act(x *exchange, m codec.Media, sub *api.Subresource, gvk schema.GroupVersionKind, body runtime.Object, o metav1.CreateOptions) error {
	if err := s.decodeInto(x, gvk, body, o.FieldValidation); err != nil {
		return err
	}
	if k, ok := s.kinds.Kind(gvk); ok {
		if obj, ok := body.(api.Object); ok {
			codec.Defaulted(k, obj)
		}
	}
	out, err := s.rest.Action(x.r.Context(), x.info.Kind, x.info.Namespace, x.info.Name, x.info.Subresource, body, o)
	if err != nil {
		return err
	}
	if out.GetObjectKind().GroupVersionKind().Empty() {
		out = out.DeepCopyObject()
		out.GetObjectKind().SetGroupVersionKind(gvk)
	}
	m.View = codec.ViewObject
	return x.sendObject(http.StatusCreated, m, out)
}

func (s *Server) update(x *exchange) error {
	deepen(x.code)
	i := x.info
	m, err := codec.Negotiate(x.r, one(i.Kind))
	if err != nil {
		return err
	}
	o, err := options(x, metav1.Convert_url_Values_To_v1_UpdateOptions)
	if err != nil {
		return err
	}
	obj, err := s.decode(x, i.Kind, o.FieldValidation)
	if err != nil {
		return err
	}
	e, created, err := s.rest.Update(x.r.Context(), i.Kind, i.Namespace, i.Name, i.Subresource, obj, o)
	if err != nil {
		return err
	}
	return s.sendEntry(x, code(created), m, i.Kind, e)
}

func code(created bool) int {
	if created {
		return http.StatusCreated
	}
	return http.StatusOK
}

func (s *Server) patch(x *exchange) error {
	deepen(x.code)
	i := x.info
	m, err := codec.Negotiate(x.r, one(i.Kind))
	if err != nil {
		return err
	}
	o, t, data, err := s.patchBody(x)
	if err != nil {
		return err
	}
	e, created, err := s.rest.Patch(x.r.Context(), i.Kind, i.Namespace, i.Name, i.Subresource, t, data, o)
	if err != nil {
		return err
	}
	return s.sendEntry(x, code(created), m, i.Kind, e)
}

func (s *Server) patchBody(x *exchange) (metav1.PatchOptions, types.PatchType, []byte, error) {
	o, err := options(x, metav1.Convert_url_Values_To_v1_PatchOptions)
	if err != nil {
		return o, "", nil, err
	}
	t, _, err := mime.ParseMediaType(x.r.Header.Get("Content-Type"))
	switch pt := types.PatchType(t); {
	case err == nil && (pt == types.JSONPatchType || pt == types.MergePatchType || pt == types.ApplyPatchType || pt == types.StrategicMergePatchType):
	case !x.info.Kind.CRD:
		return o, "", nil, codec.UnsupportedPatch()
	default:
		return o, "", nil, codec.UnsupportedMedia(string(types.JSONPatchType), string(types.MergePatchType), string(types.ApplyPatchType), string(types.StrategicMergePatchType))
	}
	data, err := x.body()
	return o, types.PatchType(t), data, err
}

// deleteOptions come in the body or, if there is none, in the query.
func (s *Server) deleteOptions(x *exchange) (metav1.DeleteOptions, error) {
	var o metav1.DeleteOptions
	data, err := x.body()
	if err != nil {
		return o, err
	}
	if len(data) > 0 {
		format, err := codec.FormatOf(x.r.Header.Get("Content-Type"))
		if err != nil {
			return o, err
		}
		o, err = codec.DeleteOptions(data, format)
		if err != nil {
			return o, err
		}
		if d := x.q()["dryRun"]; len(d) > 0 && len(o.DryRun) == 0 {
			o.DryRun = d
		}
		return o, nil
	}
	return options(x, metav1.Convert_url_Values_To_v1_DeleteOptions)
}

func (s *Server) delete(x *exchange) error {
	i := x.info
	m, err := codec.Negotiate(x.r, one(i.Kind))
	if err != nil {
		return err
	}
	o, err := s.deleteOptions(x)
	if err != nil {
		return err
	}
	e, gone, err := s.rest.Delete(x.r.Context(), i.Kind, i.Namespace, i.Name, o)
	if err != nil {
		return err
	}
	if !gone || rest.ReturnsDeleted(i.Kind) {
		return s.sendEntry(x, http.StatusOK, m, i.Kind, e)
	}
	m.View = codec.ViewObject
	return x.sendObject(http.StatusOK, m, deletedStatus(i.Kind, e))
}

func deletedStatus(k *api.Kind, e *store.Entry) *metav1.Status {
	return &metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess,
		Details: &metav1.StatusDetails{Name: e.Object.GetName(), Group: k.Group, Kind: k.Plural, UID: e.Object.GetUID()}}
}

func (s *Server) deleteCollection(x *exchange) error {
	i := x.info
	m, err := codec.Negotiate(x.r, codec.Allow{Protobuf: !i.Kind.CRD, Routed: !i.Kind.CRD, Table: true, Metadata: true, List: true})
	if err != nil {
		return err
	}
	lo, err := options(x, metav1.Convert_url_Values_To_v1_ListOptions)
	if err != nil {
		return err
	}
	o, err := s.deleteOptions(x)
	if err != nil {
		return err
	}
	l, err := s.rest.DeleteCollection(x.r.Context(), i.Kind, i.Namespace, o, lo)
	if err != nil {
		return err
	}
	return s.sendList(x, m, l)
}

func (s *Server) scale(x *exchange, sub *api.Subresource) error {
	i := x.info
	m, err := codec.Negotiate(x.r, codec.Allow{Protobuf: true})
	if err != nil {
		m, err = codec.Media{Version: "v1"}, nil
	}
	ctx := x.r.Context()
	var out *autoscalingv1.Scale
	switch i.Verb {
	case "get":
		out, err = s.rest.GetScale(ctx, i.Kind, sub, i.Namespace, i.Name, metav1.GetOptions{})
	case "update":
		o, oerr := options(x, metav1.Convert_url_Values_To_v1_UpdateOptions)
		if oerr != nil {
			return oerr
		}
		in := &autoscalingv1.Scale{}
		if err := s.decodeInto(x, autoscalingv1.SchemeGroupVersion.WithKind("Scale"), in, o.FieldValidation); err != nil {
			return err
		}
		out, err = s.rest.UpdateScale(ctx, i.Kind, sub, i.Namespace, i.Name, in, o)
	case "patch":
		o, t, data, perr := s.patchBody(x)
		if perr != nil {
			return perr
		}
		out, err = s.rest.PatchScale(ctx, i.Kind, sub, i.Namespace, i.Name, t, data, o)
	}
	if err != nil {
		return err
	}
	return x.sendObject(http.StatusOK, m, out)
}

func kindOfSub(s *api.Subresource) schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: s.Group, Version: s.Version, Kind: s.Kind}
}
