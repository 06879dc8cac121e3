package crd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/server/internal/callout"
	"github.com/skiff-sh/skiff/store"
)

// This file asks conversion webhooks, and trusts them with nothing but what they are for.

func newWebhook(st store.Store, crd *definitionCRD) (*callout.Client, error) {
	w := crd.Spec.Conversion.Webhook
	if w == nil || w.ClientConfig == nil {
		return nil, errors.New("spec.conversion.webhook.clientConfig is missing")
	}
	c := w.ClientConfig
	return callout.New(st, callout.Config{URL: c.URL, Service: (*callout.Service)(c.Service), CA: bytes.TrimSpace(c.CABundle),
		Timeout: webhookTimeout, Agent: "kube-apiserver"})
}

// Why a conversion failed, in the words of the metric.
const (
	callFailed      = "conversion_webhook_call_failure"
	answerMalformed = "conversion_webhook_malformed_response_failure"
	answerPartial   = "conversion_webhook_partial_response_failure"
	objectInvalid   = "conversion_webhook_invalid_converted_object_failure"
)

// review has the webhook convert objects, all of which are of other versions.
func (d *definition) review(ctx context.Context, objs []*unstructured.Unstructured, version string) ([]*unstructured.Unstructured, error) {
	if d.versions[version] == nil {
		return nil, fmt.Errorf("request to convert CR to an invalid group/version: %s", d.apiVersion(version))
	}
	begin := time.Now()
	gvk := objs[0].GroupVersionKind()
	answers, failure, err := d.ask(ctx, objs, version)
	if err != nil {
		d.metrics.observe(failure, time.Since(begin))
		return nil, fmt.Errorf("conversion webhook for %v %v", gvk, err) // not %w: a status of the webhook is not the request's
	}
	out := make([]*unstructured.Unstructured, len(objs))
	for i, a := range answers {
		if out[i], err = d.accept(objs[i], a.Raw, i, version); err != nil {
			d.metrics.observe(objectInvalid, time.Since(begin))
			return nil, fmt.Errorf("conversion webhook for %v returned invalid %v", gvk, err)
		}
	}
	d.metrics.observe("", time.Since(begin))
	for _, u := range out {
		if _, err := d.versions[version].prune(u, false, false); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// ask sends the question and checks the form of the answer.
func (d *definition) ask(ctx context.Context, objs []*unstructured.Unstructured, version string) (answers []runtime.RawExtension, failure string, err error) {
	client, err := d.webhook()
	if err != nil {
		return nil, callFailed, fmt.Errorf("failed: %w", err)
	}
	lingo := ""
	for _, v := range d.crd.Spec.Conversion.Webhook.ConversionReviewVersions {
		if v == "v1" || v == "v1beta1" { // both look the same
			lingo = v
			break
		}
	}
	if lingo == "" {
		return nil, callFailed, errors.New("failed: no supported conversion review versions")
	}
	request := &apiextensionsv1.ConversionRequest{UID: uuid.NewUUID(), DesiredAPIVersion: d.apiVersion(version)}
	for _, u := range objs {
		request.Objects = append(request.Objects, runtime.RawExtension{Object: u})
	}
	body, err := json.Marshal(&apiextensionsv1.ConversionReview{Request: request,
		TypeMeta: metav1.TypeMeta{Kind: "ConversionReview", APIVersion: apiextensionsv1.GroupName + "/" + lingo}})
	if err != nil {
		return nil, callFailed, fmt.Errorf("failed: %w", err)
	}
	data, err := client.Post(ctx, body)
	if err != nil {
		return nil, callFailed, fmt.Errorf("failed: %w", err)
	}
	if answers, err = converted(data, lingo, request.UID); err != nil {
		return nil, answerMalformed, fmt.Errorf("failed: %w", err)
	}
	if len(answers) != len(objs) {
		return nil, answerPartial, fmt.Errorf("returned %d objects, expected %d", len(answers), len(objs))
	}
	return answers, "", nil
}

// converted takes the objects out of an answer.
func converted(data []byte, lingo string, uid types.UID) ([]runtime.RawExtension, error) {
	var r apiextensionsv1.ConversionReview
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, err
	}
	want := schema.GroupVersionKind{Group: apiextensionsv1.GroupName, Version: "v1", Kind: "ConversionReview"}
	switch { // the old version is lenient
	case lingo == "v1" && r.GroupVersionKind() != want:
		return nil, fmt.Errorf("expected webhook response of %v, got %v", want, r.GroupVersionKind())
	case r.Response == nil:
		return nil, errors.New("no response provided")
	case lingo == "v1" && r.Response.UID != uid:
		return nil, fmt.Errorf("expected response.uid=%q, got %q", uid, r.Response.UID)
	}
	if s := r.Response.Result; s.Status != metav1.StatusSuccess {
		if s.Message != "" {
			return nil, errors.New(s.Message)
		}
		return nil, fmt.Errorf("response.result.status was '%s', not 'Success'", s.Status)
	}
	return r.Response.ConvertedObjects, nil
}

// accept judges a converted object and gives it back the metadata that a webhook may not change.
func (d *definition) accept(in *unstructured.Unstructured, raw []byte, i int, version string) (*unstructured.Unstructured, error) {
	out := &unstructured.Unstructured{}
	if err := out.UnmarshalJSON(raw); err != nil {
		return nil, fmt.Errorf("converted object at index %d: %w", i, err)
	}
	want := schema.GroupVersion{Group: d.crd.Spec.Group, Version: version}
	if got := out.GroupVersionKind().GroupVersion(); got != want {
		return nil, fmt.Errorf("object at index %d: invalid groupVersion (expected %v, received %v)", i, want, got)
	}
	if in.GetKind() != out.GetKind() {
		return nil, fmt.Errorf("object at index %d: invalid kind (expected %v, received %v)", i, in.GetKind(), out.GetKind())
	}
	for _, same := range []struct{ what, a, b string }{{"name", in.GetName(), out.GetName()},
		{"namespace", in.GetNamespace(), out.GetNamespace()}, {"UID", string(in.GetUID()), string(out.GetUID())}} {
		if same.a != same.b {
			return nil, fmt.Errorf("object: must have the same %s: %v != %v", same.what, same.a, same.b)
		}
	}
	if err := restoreMeta(in.Object, out.Object); err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	return out, nil
}

// restoreMeta copies an object's metadata to what it was converted into, but for labels and annotations.
func restoreMeta(in, out map[string]any) error {
	made, ok := out["metadata"]
	if !ok {
		return errors.New("missing metadata in converted object")
	}
	got, ok := made.(map[string]any)
	if !ok {
		return fmt.Errorf("invalid metadata of type %T in converted object", made)
	}
	meta, ok := in["metadata"].(map[string]any)
	if !ok && in["metadata"] != nil {
		return fmt.Errorf("invalid metadata of type %T in input object", in["metadata"])
	}
	meta = runtime.DeepCopyJSON(meta)
	if meta == nil {
		meta = map[string]any{}
	}
	out["metadata"] = meta
	for name, check := range map[string]func(map[string]string) field.ErrorList{
		"labels": func(m map[string]string) field.ErrorList {
			return metav1validation.ValidateLabels(m, field.NewPath("metadata", "labels"))
		},
		"annotations": func(m map[string]string) field.ErrorList {
			return apivalidation.ValidateAnnotations(m, field.NewPath("metadata", "annotation"))
		},
	} {
		if got[name] == nil {
			delete(meta, name)
			continue
		}
		values, ok := got[name].(map[string]any)
		if !ok {
			return fmt.Errorf("invalid metadata.%s of type %T in converted object", name, got[name])
		}
		texts := make(map[string]string, len(values))
		for key, v := range values {
			if texts[key], ok = v.(string); !ok {
				return fmt.Errorf("metadata.%s[%s] must be a string, but is %T in converted object", name, key, v)
			}
		}
		if !reflect.DeepEqual(meta[name], any(values)) { // what was wrong before may stay
			if errs := check(texts); len(errs) > 0 {
				return errs.ToAggregate()
			}
		}
		meta[name] = values
	}
	return nil
}
