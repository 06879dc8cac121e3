package codec

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"reflect"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	serializerjson "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"sigs.k8s.io/yaml"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/codec/plan"
)

// Format of a request's body. An empty header is JSON.
func FormatOf(contentType string) (Format, error) {
	if contentType == "" || contentType == TypeJSON {
		return FormatJSON, nil
	}
	t, _, err := mime.ParseMediaType(contentType)
	if err == nil {
		switch t {
		case TypeJSON:
			return FormatJSON, nil
		case TypeYAML:
			return FormatYAML, nil
		case TypeProtobuf:
			return FormatProtobuf, nil
		}
	}
	return 0, UnsupportedMedia(TypeJSON, TypeYAML, TypeProtobuf)
}

// UnsupportedMedia is the 415 that lists what is accepted.
func UnsupportedMedia(accepted ...string) error {
	list := ""
	for i, a := range accepted {
		if i > 0 {
			list += ", "
		}
		list += a
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: http.StatusUnsupportedMediaType,
		Reason:  metav1.StatusReasonUnsupportedMediaType,
		Message: "the body of the request was in an unknown format - accepted media types include: " + list}}
}

// UnsupportedPatch is the 415 for a patch of a built-in kind, where upstream's router does not find the way.
func UnsupportedPatch() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: http.StatusUnsupportedMediaType,
		Reason: metav1.StatusReasonUnsupportedMediaType, Message: "415: Unsupported Media Type", Details: &metav1.StatusDetails{}}}
}

// parsers are the four text parsers: JSON or YAML, lenient or strict.
var parsers = sync.OnceValue(func() (p [2][2]*serializerjson.Serializer) {
	for y := range 2 {
		for s := range 2 {
			p[y][s] = serializerjson.NewSerializerWithOptions(serializerjson.DefaultMetaFactory, Scheme(), Scheme(),
				serializerjson.SerializerOptions{Yaml: y == 1, Strict: s == 1})
		}
	}
	return p
})

// Decode reads a body of the wanted kind into the empty object into. validation is the request's
// fieldValidation; with Warn (and by default) the fields that nobody knows are returned as warnings. Errors are
// *errors.StatusError as upstream words them.
func Decode(data []byte, format Format, want schema.GroupVersionKind, into runtime.Object, validation string) (warnings []string, err error) {
	if _, ok := into.(*unstructured.Unstructured); ok && format == FormatProtobuf {
		return nil, UnsupportedMedia(TypeJSON, TypeYAML)
	}
	if format == FormatProtobuf || bytes.HasPrefix(data, magic) {
		return nil, decodeProtobuf(data, want, into)
	}
	if format == FormatJSON && decodePlain(data, want, into) {
		return nil, nil
	}
	strict := 0
	if validation != metav1.FieldValidationIgnore {
		strict = 1
	}
	y := 0
	if format == FormatYAML {
		y = 1
	}
	obj, gvk, err := parsers()[y][strict].Decode(data, &want, into)
	if err != nil {
		se, isStrict := runtime.AsStrictDecodingError(err)
		if !isStrict || obj == nil || validation == metav1.FieldValidationStrict {
			return nil, decodeError(err, want, gvk, data)
		}
		for _, e := range se.Errors() {
			warnings = append(warnings, e.Error())
		}
	}
	if *gvk != want {
		return nil, mismatch(*gvk, want)
	}
	into.GetObjectKind().SetGroupVersionKind(want)
	return warnings, nil
}

// decodePlain reads JSON in which nothing is wrong or even unusual, which is nearly all; else it leaves into empty.
func decodePlain(data []byte, want schema.GroupVersionKind, into runtime.Object) bool {
	if _, ok := into.(runtime.Unstructured); ok || !plan.Decode(data, into) {
		return false
	}
	version, kind := want.ToAPIVersionAndKind()
	tm, ok := into.GetObjectKind().(*metav1.TypeMeta)
	if !ok || tm.APIVersion != "" && tm.APIVersion != version || tm.Kind != "" && tm.Kind != kind {
		reflect.ValueOf(into).Elem().SetZero()
		return false
	}
	tm.APIVersion, tm.Kind = version, kind
	return true
}

func mismatch(got, want schema.GroupVersionKind) error {
	if got.GroupVersion() != want.GroupVersion() && got.Kind == want.Kind {
		return apierrors.NewBadRequest(fmt.Sprintf("the API version in the data (%s) does not match the expected API version (%s)",
			got.GroupVersion(), want.GroupVersion()))
	}
	return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: converting (%s.%s) to (%s.%s): unknown conversion",
		got.Kind, got.Version, want.Kind, got.Version, got.Kind, want.Version, want.Kind))
}

func decodeError(err error, want schema.GroupVersionKind, got *schema.GroupVersionKind, data []byte) error {
	if got != nil && got.Kind != "" {
		return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v", got.Kind, got.Version, want.Kind, err))
	}
	return apierrors.NewBadRequest(fmt.Sprintf("the object provided is unrecognized (must be of type %s): %v (%s)", want.Kind, err, summary(data)))
}

// summary shows the first 30 bytes of a body that made no sense.
func summary(data []byte) string {
	const most = 30
	text := func(b []byte) string { return hex.EncodeToString(b) }
	switch {
	case len(data) == 0:
		return "<empty>"
	case data[0] == '{':
		text = func(b []byte) string { return string(b) }
	}
	if len(data) > most {
		return text(data[:most]) + " ..."
	}
	return text(data)
}

func decodeProtobuf(data []byte, want schema.GroupVersionKind, into runtime.Object) error {
	if !bytes.HasPrefix(data, magic) {
		return decodeError(fmt.Errorf("provided data does not appear to be a protobuf message, expected prefix %v", magic), want, nil, data)
	}
	gvk, raw, err := open(data)
	if err != nil {
		return decodeError(err, want, nil, data)
	}
	if gvk.Kind == "" {
		gvk = want
	}
	if gvk != want {
		return mismatch(gvk, want)
	}
	m, ok := into.(Message)
	if !ok {
		return UnsupportedMedia(TypeJSON, TypeYAML)
	}
	if err := m.Unmarshal(raw); err != nil {
		return decodeError(err, want, &gvk, data)
	}
	into.GetObjectKind().SetGroupVersionKind(want)
	return nil
}

// DecodeRow is Decode for an object of a row. A custom resource's schema says which fields nobody knows.
func DecodeRow(data []byte, format Format, k *api.Kind, into runtime.Object, validation string) (warnings []string, err error) {
	obj, ok := into.(*unstructured.Unstructured)
	if !ok || k.Prune == nil {
		return Decode(data, format, k.GroupVersionKind(), into, validation)
	}
	want := k.GroupVersionKind()
	lenient := validation
	if validation == metav1.FieldValidationStrict {
		lenient = metav1.FieldValidationWarn // the schema may add to what is found
	}
	if warnings, err = Decode(data, format, want, into, lenient); err != nil {
		return nil, err
	}
	unknown, err := k.Prune(obj, validation != metav1.FieldValidationIgnore)
	if err != nil {
		return nil, decodeError(err, want, &want, data)
	}
	for _, path := range unknown {
		warnings = append(warnings, fmt.Sprintf("unknown field %q", path))
	}
	if validation != metav1.FieldValidationStrict || len(warnings) == 0 {
		return warnings, nil
	}
	errs := make([]error, len(warnings))
	for i, text := range warnings {
		errs[i] = errors.New(text)
	}
	return nil, decodeError(runtime.NewStrictDecodingError(errs), want, &want, data)
}

// DeleteOptions reads the optional body of a delete: DeleteOptions of any group.
func DeleteOptions(data []byte, format Format) (metav1.DeleteOptions, error) {
	var o metav1.DeleteOptions
	var err error
	switch {
	case len(data) == 0:
		return o, nil
	case bytes.HasPrefix(data, magic):
		var raw []byte
		if _, raw, err = open(data); err == nil {
			err = o.Unmarshal(raw)
		}
	case format == FormatYAML:
		err = yaml.Unmarshal(data, &o)
	default:
		err = json.Unmarshal(data, &o)
	}
	if err == nil && o.Kind != "" && o.Kind != "DeleteOptions" {
		return o, apierrors.NewBadRequest(fmt.Sprintf("%s cannot be handled as DeleteOptions", o.Kind))
	}
	if err != nil {
		return o, decodeError(err, schema.GroupVersionKind{Version: "v1", Kind: "DeleteOptions"}, nil, data)
	}
	o.TypeMeta = metav1.TypeMeta{}
	return o, nil
}

// Defaulted fills in a row's defaults.
func Defaulted(k *api.Kind, obj api.Object) {
	if k.Default != nil {
		k.Default(obj)
	}
}
