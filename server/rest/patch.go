package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4" // upstream's: v5 is stricter
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/mergepatch"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/validation/field"
	utiljson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/codec"
	"github.com/skiff-sh/skiff/server/codec/plan"
	"github.com/skiff-sh/skiff/server/request"
	"github.com/skiff-sh/skiff/store"
)

// maxPatchOperations bounds one JSON patch.
const maxPatchOperations = 10000

// Patch changes an object by a patch of the given type. created tells that an apply made the object.
func (r *REST) Patch(ctx context.Context, k *api.Kind, namespace, name, sub string, t types.PatchType, data []byte, o metav1.PatchOptions) (e *store.Entry, created bool, err error) {
	if errs := metavalidation.ValidatePatchOptions(&o, t); len(errs) > 0 {
		return nil, false, invalidOptions("PatchOptions", errs)
	}
	w := write{k: k, namespace: namespace, name: name, sub: sub, dryRun: len(o.DryRun) > 0, options: &o,
		manager: managerName(o.FieldManager, request.From(ctx))}
	if t == types.ApplyPatchType {
		if err := r.applyInto(ctx, &w, data, o); err != nil {
			return nil, false, err
		}
		return r.write(ctx, w)
	}
	p, err := newPatcher(k, t, data, o.FieldValidation)
	if err != nil {
		return nil, false, err
	}
	if s, ok := k.Subresource(sub); ok {
		p.status = s.Type == api.StatusSub
	}
	w.change = func(old api.Object) (api.Object, error) {
		obj, err := p.object(ctx, k, old)
		if err != nil {
			return nil, err
		}
		return obj, sameName(k.Namespaced, namespace, name, obj)
	}
	return r.write(ctx, w)
}

// sameName says that a patch has changed what the request names. A namespace that it took away comes back.
func sameName(namespaced bool, namespace, name string, obj metav1.Object) error {
	switch {
	case obj.GetName() == "":
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s based on URL) was undeterminable: name must be provided", name))
	case obj.GetName() != name:
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", obj.GetName(), name))
	case namespaced && obj.GetNamespace() == "":
		obj.SetNamespace(namespace)
	case namespaced && obj.GetNamespace() != namespace:
		return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	return nil
}

// patcher applies one patch, parsed once, to JSON or to a tree.
type patcher struct {
	k          *api.Kind // nil for what is no row (scale)
	t          types.PatchType
	data       []byte
	ops        jsonpatch.Patch
	tree       map[string]any // of a merge patch
	touched    []string       // the top-level fields of a merge patch; nil: perhaps all
	validation string
	status     bool // what the patch does outside of metadata and status is of no interest
}

// badOperations is the error for a JSON patch that is none, or that has an operation nobody knows.
func badOperations(data []byte) error {
	var ops []jsonPatchOp
	if err := json.Unmarshal(data, &ops); err != nil {
		text := strings.ReplaceAll(err.Error(), "rest.jsonPatchOp", "handlers.jsonPatchOp") // upstream's text
		return apierrors.NewBadRequest("error decoding patch: " + text)
	}
	return apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", schema.GroupResource{}, "", "", 0, false)
}

// jsonPatchOp is as much of an operation as every one has.
type jsonPatchOp struct {
	Op   string `json:"op"`
	Path string `json:"path"`
}

func newPatcher(k *api.Kind, t types.PatchType, data []byte, validation string) (*patcher, error) {
	p := &patcher{k: k, t: t, data: data, validation: validation}
	var err error
	switch t {
	case types.JSONPatchType:
		if p.ops, err = jsonpatch.DecodePatch(data); err != nil {
			return nil, badOperations(data)
		}
		if len(p.ops) > maxPatchOperations {
			return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("The allowed maximum operations in a JSON patch is %d, got %d", maxPatchOperations, len(p.ops)))
		}
	case types.MergePatchType:
	case types.StrategicMergePatchType:
		if k != nil && k.CRD {
			return nil, codec.UnsupportedMedia(string(types.JSONPatchType), string(types.MergePatchType), string(types.ApplyPatchType))
		}
	default:
		return nil, codec.UnsupportedMedia(string(types.JSONPatchType), string(types.MergePatchType), string(types.ApplyPatchType), string(types.StrategicMergePatchType))
	}
	return p, nil
}

// parse makes the tree of a merge patch, which only the general way needs.
func (p *patcher) parse() error {
	if p.tree != nil || p.t == types.JSONPatchType {
		return nil
	}
	if err := utiljson.UnmarshalCaseSensitivePreserveInts(p.data, &p.tree); err != nil { // elements may be found by numbers
		return apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
	}
	p.touched = topFields(p.tree)
	return nil
}

// object patches an object of a row into a new one.
func (p *patcher) object(ctx context.Context, k *api.Kind, old api.Object) (api.Object, error) {
	obj := k.New()
	if p.merged(old, obj) {
		if p.status {
			onlyStatus(obj)
		}
		obj = obj.DeepCopyObject().(api.Object)
	} else if err := p.into(ctx, old, obj, k.GroupVersionKind()); err != nil {
		return nil, err
	}
	codec.Defaulted(k, obj)
	return obj, nil
}

// merged patches an object of a Go type directly, where nothing in the patch is unusual. out then shares with old what the
// patch leaves alone.
func (p *patcher) merged(old, out api.Object) bool {
	if p.t == types.JSONPatchType || p.k == nil || p.k.CRD ||
		!plan.Merge(old, out, p.data, p.t == types.StrategicMergePatchType) {
		return false
	}
	if out.GetObjectKind().GroupVersionKind() != old.GetObjectKind().GroupVersionKind() {
		reflect.ValueOf(out).Elem().SetZero()
		return false
	}
	return true
}

// topFields are the top-level fields that a merge patch names; nil if it holds directives about the object as a whole.
func topFields(patch map[string]any) []string {
	fields := make([]string, 0, len(patch))
	for f := range patch {
		if strings.HasPrefix(f, "$") {
			return nil
		}
		fields = append(fields, f)
	}
	return fields
}

// into writes the patched old into the empty object out. Only the top-level fields that the patch names take the way
// through JSON; the others are copied.
func (p *patcher) into(ctx context.Context, old, out runtime.Object, gvk schema.GroupVersionKind) error {
	if err := p.parse(); err != nil {
		return err
	}
	touched, rest, ok := p.split(old)
	if !ok {
		return p.whole(ctx, old, out, gvk)
	}
	if err := p.whole(ctx, touched, out, gvk); err != nil {
		reflect.ValueOf(out).Elem().SetZero()
		return p.whole(ctx, old, out, gvk) // the error shows all of the object
	}
	from, to := reflect.ValueOf(rest.DeepCopyObject()).Elem(), reflect.ValueOf(out).Elem()
	for i := range from.NumField() {
		if !p.touches(from.Type().Field(i)) {
			to.Field(i).Set(from.Field(i))
		}
	}
	return nil
}

// split parts an object of a Go type into what the patch touches and what it does not.
func (p *patcher) split(old runtime.Object) (touched, rest runtime.Object, ok bool) {
	from := reflect.ValueOf(old).Elem()
	if _, is := old.(runtime.Unstructured); is || p.touched == nil || from.Kind() != reflect.Struct {
		return nil, nil, false
	}
	a, b := reflect.New(from.Type()), reflect.New(from.Type())
	for i := range from.NumField() {
		if p.touches(from.Type().Field(i)) {
			a.Elem().Field(i).Set(from.Field(i))
		} else {
			b.Elem().Field(i).Set(from.Field(i))
		}
	}
	return a.Interface().(runtime.Object), b.Interface().(runtime.Object), true
}

func (p *patcher) touches(f reflect.StructField) bool {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name == "" || slices.Contains(p.touched, name) // "" is TypeMeta, which decoding wants
}

// whole patches all of an object.
func (p *patcher) whole(ctx context.Context, old, out runtime.Object, gvk schema.GroupVersionKind) error {
	if p.t == types.StrategicMergePatchType {
		return p.strategic(ctx, old, out, gvk)
	}
	data, err := json.Marshal(old)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	if p.t == types.JSONPatchType {
		if data, err = p.ops.Apply(data); err != nil {
			return apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", schema.GroupResource{}, "", err.Error(), 0, false)
		}
	} else if data, err = jsonpatch.MergePatch(data, p.data); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	if err := p.decode(ctx, data, out, gvk); err != nil {
		return err
	}
	return nil
}

// decode reads the patched document. Unknown fields are judged as the request's fieldValidation says.
func (p *patcher) decode(ctx context.Context, data []byte, out runtime.Object, gvk schema.GroupVersionKind) error {
	var warnings []string
	var err error
	if p.k != nil {
		warnings, err = codec.DecodeRow(data, codec.FormatJSON, p.k, out, p.validation)
	} else {
		warnings, err = codec.Decode(data, codec.FormatJSON, gvk, out, p.validation)
	}
	if err != nil {
		return apierrors.NewInvalid(schema.GroupKind{}, "", field.ErrorList{
			field.Invalid(field.NewPath("patch"), string(data), inDocument.ReplaceAllString(statusMessage(err), ""))})
	}
	for _, t := range warnings {
		Warn(ctx, t)
	}
	return nil
}

// inDocument is what decoding says first of a document that a client has sent; a patched one is not the client's.
var inDocument = regexp.MustCompile(`^\S+ in version "[^"]*" cannot be handled as a \S+: `)

func statusMessage(err error) string {
	var s apierrors.APIStatus
	if errors.As(err, &s) {
		return s.Status().Message
	}
	return err.Error()
}

func (p *patcher) strategic(ctx context.Context, old, out runtime.Object, gvk schema.GroupVersionKind) error {
	tree, err := runtime.DefaultUnstructuredConverter.ToUnstructured(old)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	// The patch is eaten by the merge, and may be needed again.
	tree, err = strategicpatch.StrategicMergeMapPatch(tree, runtime.DeepCopyJSON(p.tree), out)
	switch {
	case errors.Is(err, mergepatch.ErrBadJSONDoc), errors.Is(err, mergepatch.ErrBadPatchFormatForPrimitiveList),
		errors.Is(err, mergepatch.ErrBadPatchFormatForRetainKeys), errors.Is(err, mergepatch.ErrBadPatchFormatForSetElementOrderList),
		errors.Is(err, mergepatch.ErrUnsupportedStrategicMergePatchFormat):
		return apierrors.NewBadRequest(err.Error())
	case errors.Is(err, mergepatch.ErrNoListOfLists):
		return apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", schema.GroupResource{}, "", err.Error(), 0, false)
	case err != nil:
		return apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", schema.GroupResource{}, "", err.Error(), 0, false)
	}
	err = runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(tree, out, p.validation != metav1.FieldValidationIgnore)
	if se, ok := runtime.AsStrictDecodingError(err); ok && p.validation != metav1.FieldValidationStrict {
		for _, e := range se.Errors() {
			Warn(ctx, e.Error())
		}
		err = nil
	}
	if err != nil {
		return apierrors.NewInvalid(schema.GroupKind{}, "", field.ErrorList{
			field.Invalid(field.NewPath("patch"), fmt.Sprintf("%+v", p.tree), err.Error())})
	}
	out.GetObjectKind().SetGroupVersionKind(gvk)
	return nil
}

// applyInto makes a write of a server-side apply.
func (r *REST) applyInto(ctx context.Context, w *write, data []byte, o metav1.PatchOptions) error {
	if a, ok := r.plainApply(ctx, w, data, o); ok {
		w.managed, w.change = true, a.change
		if w.sub == "" {
			w.missing = a.create
		}
		return nil
	}
	return r.applyTree(ctx, w, data, o)
}

// applyTree is apply by the field manager, for whatever configuration.
func (r *REST) applyTree(ctx context.Context, w *write, data []byte, o metav1.PatchOptions) error {
	k := w.k
	config, err := applied(ctx, data, o.FieldValidation)
	if err != nil {
		return err
	}
	if err := matchApplied(k, w, config); err != nil {
		return err
	}
	m, err := r.manager(k, k.GroupVersionKind(), w.sub)
	if err != nil {
		return err
	}
	force := o.Force != nil && *o.Force
	apply := func(old api.Object) (api.Object, error) {
		out, err := m.Apply(old, config.DeepCopy(), o.FieldManager, force)
		if err != nil {
			return nil, err
		}
		return out.(api.Object), nil
	}
	w.managed, w.change = true, apply
	if w.sub == "" {
		w.missing = func() (api.Object, error) {
			if config.GetUID() != "" {
				return nil, apierrors.NewConflict(k.GroupResource(), w.name, fmt.Errorf("uid mismatch: the provided object specified uid %s, and no existing object was found", config.GetUID()))
			}
			empty := k.New()
			empty.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind())
			return apply(empty)
		}
	}
	return nil
}

// applied reads an apply configuration.
func applied(ctx context.Context, data []byte, validation string) (*unstructured.Unstructured, error) {
	config := &unstructured.Unstructured{Object: map[string]any{}}
	// Good JSON is good YAML, and ten times as fast to read.
	if strict, err := utiljson.UnmarshalStrict(data, &config.Object); err == nil && len(strict) == 0 && config.Object != nil {
		return config, nil
	}
	config.Object = map[string]any{}
	if err := yaml.Unmarshal(data, &config.Object); err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding YAML: %v", err))
	}
	if validation != metav1.FieldValidationIgnore {
		if err := yaml.UnmarshalStrict(data, &map[string]any{}); err != nil {
			if validation == metav1.FieldValidationStrict {
				return nil, apierrors.NewBadRequest(fmt.Sprintf("error strict decoding YAML: %v", err))
			}
			Warn(ctx, err.Error())
		}
	}
	return config, nil
}

func matchApplied(k *api.Kind, w *write, config *unstructured.Unstructured) error {
	if config.GetKind() != "" && config.GetKind() != k.Kind {
		return apierrors.NewBadRequest(fmt.Sprintf("invalid object type: %v", config.GroupVersionKind()))
	}
	if config.GetName() == "" {
		config.SetName(w.name)
	}
	if config.GetName() != w.name {
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", config.GetName(), w.name))
	}
	if !k.Namespaced {
		return nil
	}
	if config.GetNamespace() == "" {
		config.SetNamespace(w.namespace)
	}
	if config.GetNamespace() != w.namespace {
		return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	return nil
}
