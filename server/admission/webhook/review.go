package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"

	jsonpatch "gopkg.in/evanphx/json-patch.v4" // upstream's: v5 is stricter
	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/admission/match"
	"github.com/skiff-sh/skiff/server/audit"
	"github.com/skiff-sh/skiff/server/codec"
)

// review is one question, ready to be sent.
type review struct {
	uid    types.UID
	body   []byte
	object []byte // the object in it, what a patch is for
}

type answer = admissionv1.AdmissionResponse

// callError says that a webhook could not be asked or made no sense.
type callError struct {
	webhook string
	reason  error
}

func (e *callError) Error() string {
	return fmt.Sprintf("failed calling webhook %q: %v", e.webhook, e.reason)
}
func (e *callError) Unwrap() error { return e.reason }

// newReview writes the question about a view.
func newReview(h *hook, t *match.Target, v *match.View) (*review, error) {
	if t.DryRun && !h.dryRun {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("admission webhook %q does not support dry run", h.name))
	}
	object, err := rawOf(v.Object)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	old, err := rawOf(v.Old)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	options, err := rawOf(withKind(t.Options))
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	requested := t.Requested()
	kind, resource := metav1.GroupVersionKind(requested.GroupVersionKind()), metav1.GroupVersionResource(requested.GroupVersionResource())
	if v.Kind != v.Row.GroupVersionKind() {
		kind = metav1.GroupVersionKind(v.Kind)
	}
	rv := &review{uid: uuid.NewUUID(), object: object.Raw}
	request := &admissionv1.AdmissionRequest{UID: rv.uid, Kind: metav1.GroupVersionKind(v.Kind),
		Resource: metav1.GroupVersionResource(v.Resource), SubResource: t.Subresource, RequestKind: &kind,
		RequestResource: &resource, RequestSubResource: t.Subresource, Name: t.Name, Namespace: t.RequestNamespace(),
		Operation: admissionv1.Operation(t.Operation), UserInfo: userInfo(t.Request), Object: object, OldObject: old,
		DryRun: &t.DryRun, Options: options}
	rv.body, err = json.Marshal(&admissionv1.AdmissionReview{Request: request,
		TypeMeta: metav1.TypeMeta{Kind: "AdmissionReview", APIVersion: admissionv1.GroupName + "/" + h.version}})
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	return rv, nil
}

func rawOf(obj runtime.Object) (runtime.RawExtension, error) {
	if obj == nil {
		return runtime.RawExtension{}, nil
	}
	data, err := json.Marshal(obj)
	return runtime.RawExtension{Raw: data}, err
}

// withKind names the kind of a write's options, which are seldom decoded from a document. Those of a patch are
// shown as what the patch does.
func withKind(options runtime.Object) runtime.Object {
	if p, ok := options.(*metav1.PatchOptions); ok {
		options = &metav1.UpdateOptions{DryRun: p.DryRun, FieldManager: p.FieldManager, FieldValidation: p.FieldValidation}
	}
	if options == nil || options.GetObjectKind().GroupVersionKind().Kind != "" {
		return options
	}
	out := options.DeepCopyObject()
	out.GetObjectKind().SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind(reflect.TypeOf(out).Elem().Name()))
	return out
}

func userInfo(r *admission.Request) authenticationv1.UserInfo {
	u := authenticationv1.UserInfo{}
	if r.User == nil {
		return u
	}
	u.Username, u.UID, u.Groups = r.User.GetName(), r.User.GetUID(), r.User.GetGroups()
	for key, values := range r.User.GetExtra() {
		if u.Extra == nil {
			u.Extra = map[string]authenticationv1.ExtraValue{}
		}
		u.Extra[key] = values
	}
	return u
}

// ask sends a question. A refusal is the error that the client gets; a failure is a *callError. The answer may be there
// beside a refusal, for its warnings.
func (h *hook) ask(ctx context.Context, rv *review) (*answer, error) {
	if h.invalid != nil {
		return nil, &callError{h.name, h.invalid}
	}
	data, err := h.client.Post(ctx, rv.body)
	if err != nil {
		return nil, &callError{h.name, fmt.Errorf("failed to call webhook: %w", err)}
	}
	a, err := h.read(data, rv.uid)
	if err != nil {
		return nil, &callError{h.name, fmt.Errorf("received invalid webhook response: %w", err)}
	}
	if !a.Allowed {
		return a, refusal(h.name, a.Result)
	}
	return a, nil
}

// annotate passes a webhook's words on to the audit log, under its name.
func (h *hook) annotate(ctx context.Context, a *answer) {
	for key, value := range a.AuditAnnotations {
		audit.Annotate(ctx, h.name+"/"+key, value)
	}
}

// read checks the form of an answer.
func (h *hook) read(data []byte, uid types.UID) (*answer, error) {
	var got admissionv1.AdmissionReview
	if err := json.Unmarshal(data, &got); err != nil {
		return nil, err
	}
	a := got.Response
	if a == nil {
		return nil, errors.New("webhook response was absent")
	}
	if h.version == "v1beta1" { // the old version is lenient
		return a, nil
	}
	if want := admissionv1.SchemeGroupVersion.WithKind("AdmissionReview"); got.GroupVersionKind() != want {
		return nil, fmt.Errorf("expected webhook response of %s, got %s", want, got.GroupVersionKind())
	}
	if a.UID != uid {
		return nil, fmt.Errorf("expected response.uid=%q, got %q", uid, a.UID)
	}
	switch {
	case len(a.Patch) == 0 && a.PatchType == nil:
		return a, nil
	case h.rejectsPatch:
		if a.PatchType != nil {
			return nil, errors.New("response.patchType may not be set by a validating webhook")
		}
		return nil, errors.New("response.patch may not be set by a validating webhook")
	case a.PatchType == nil:
		return nil, errors.New("webhook returned response.patch but not response.patchType")
	case len(a.Patch) == 0:
		return nil, errors.New("webhook returned response.patchType but not response.patch")
	case *a.PatchType != admissionv1.PatchTypeJSONPatch:
		return nil, fmt.Errorf("webhook returned invalid response.patchType of %q", *a.PatchType)
	}
	return a, nil
}

// refusal is the status that a webhook's refusal gives the request: the webhook's own, but surely an error.
func refusal(name string, result *metav1.Status) error {
	s := metav1.Status{}
	if result != nil {
		s = *result
	}
	if s.Code < http.StatusBadRequest {
		s.Code = http.StatusBadRequest
	}
	if s.Status == "" || s.Status == metav1.StatusSuccess {
		s.Status = metav1.StatusFailure
	}
	why := " without explanation"
	switch {
	case s.Message != "":
		why = ": " + s.Message
	case s.Reason != "":
		why = ": " + string(s.Reason)
	}
	s.Message = fmt.Sprintf("admission webhook %q denied the request%s", name, why)
	return &apierrors.StatusError{ErrStatus: s}
}

// patch applies an answer's JSON patch to the request's object.
func (h *hook) patch(t *match.Target, v *match.View, rv *review, patch []byte) (changed bool, err error) {
	if len(patch) == 0 {
		return false, nil
	}
	ops, err := jsonpatch.DecodePatch(patch)
	if err != nil {
		return false, apierrors.NewInternalError(err)
	}
	if len(ops) == 0 {
		return false, nil
	}
	if v.Object == nil {
		return false, apierrors.NewInternalError(fmt.Errorf("admission webhook %q attempted to modify the object, which is not supported for this operation", h.name))
	}
	data, err := ops.Apply(rv.object)
	if err != nil {
		return false, apierrors.NewInternalError(err)
	}
	obj, err := v.Empty()
	if err != nil {
		return false, apierrors.NewInternalError(err)
	}
	// What the webhook adds that the kind does not know is dropped, as from a lenient client.
	if _, err := codec.Decode(data, codec.FormatJSON, v.Kind, obj, metav1.FieldValidationIgnore); err != nil {
		return false, apierrors.NewInternalError(err)
	}
	if equality.Semantic.DeepEqual(v.Object, runtime.Object(obj)) {
		return false, nil
	}
	return true, t.Replace(v, obj)
}
