package crd

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	schemacel "k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/common"
)

// version is one version of a definition, with what is compiled of its schema.
type version struct {
	crd   *apiextensionsv1.CustomResourceDefinition
	spec  *apiextensionsv1.CustomResourceDefinitionVersion
	shape func() *structural.Structural // never nil; an empty object where there is no valid schema
	rules func() *rules
}

// rules is what judges objects.
type rules struct {
	object, status validation.SchemaValidator
	cel            *schemacel.Validator
	err            error // why nothing can be judged
}

func newVersion(crd *apiextensionsv1.CustomResourceDefinition, spec *apiextensionsv1.CustomResourceDefinitionVersion) *version {
	v := &version{crd: crd, spec: spec}
	v.shape = sync.OnceValue(func() *structural.Structural {
		if props := internalSchema(spec); props != nil {
			if s, err := structural.NewStructural(props); err == nil {
				if s = s.DeepCopy(); crd.Spec.PreserveUnknownFields || defaulting.PruneDefaults(s) == nil {
					return s
				}
			}
		}
		return &structural.Structural{Generic: structural.Generic{Type: "object"},
			Extensions: structural.Extensions{XPreserveUnknownFields: true}}
	})
	v.rules = sync.OnceValue(v.compile)
	return v
}

// internalSchema is the schema in the form that the structural packages want; nil if there is none.
func internalSchema(spec *apiextensionsv1.CustomResourceDefinitionVersion) *apiextensions.JSONSchemaProps {
	if spec.Schema == nil || spec.Schema.OpenAPIV3Schema == nil {
		return nil
	}
	out := &apiextensions.JSONSchemaProps{}
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(spec.Schema.OpenAPIV3Schema, out, nil); err != nil {
		return nil
	}
	return out
}

func (v *version) compile() *rules {
	r := &rules{}
	props := internalSchema(v.spec)
	if props == nil {
		return r
	}
	if r.object, _, r.err = validation.NewSchemaValidator(props); r.err != nil {
		return r
	}
	if status, ok := props.Properties["status"]; ok && v.hasStatus() {
		if r.status, _, r.err = validation.NewSchemaValidator(&status); r.err != nil {
			return r
		}
	}
	r.cel = schemacel.NewValidator(v.shape(), true, celconfig.PerCallLimit)
	return r
}

func (v *version) hasStatus() bool {
	return v.spec.Subresources != nil && v.spec.Subresources.Status != nil
}

func (v *version) scale() *apiextensionsv1.CustomResourceSubresourceScale {
	if v.spec.Subresources == nil {
		return nil
	}
	return v.spec.Subresources.Scale
}

// prune drops what the schema does not know and, with track, tells what that was. Malformed metadata is an error, or is
// dropped too (of stored objects).
func (v *version) prune(u *unstructured.Unstructured, track, dropMalformed bool) ([]string, error) {
	kind, apiVersion := u.GetKind(), u.GetAPIVersion()
	meta, hasMeta, unknown, err := objectmeta.GetObjectMetaWithOptions(u.Object,
		objectmeta.ObjectMetaOptions{DropMalformedFields: dropMalformed, ReturnUnknownFieldPaths: track})
	if err != nil {
		return nil, err
	}
	if !v.crd.Spec.PreserveUnknownFields {
		unknown = append(unknown, pruning.PruneWithOptions(u.Object, v.shape(), true, structural.UnknownFieldPathOptions{TrackUnknownFieldPaths: track})...)
		defaulting.PruneNonNullableNullsWithoutDefaults(u.Object, v.shape())
	}
	problem, paths := objectmeta.CoerceWithOptions(nil, u.Object, v.shape(), false,
		objectmeta.CoerceOptions{DropInvalidFields: dropMalformed, ReturnUnknownFieldPaths: track})
	if problem != nil {
		return nil, problem
	}
	u.SetKind(kind)
	u.SetAPIVersion(apiVersion)
	if hasMeta {
		if err := objectmeta.SetObjectMeta(u.Object, meta); err != nil {
			return nil, err
		}
	}
	return append(unknown, paths...), nil
}

func (v *version) fill(u *unstructured.Unstructured) {
	if u.Object != nil {
		defaulting.Default(u.Object, v.shape())
	}
}

// validate judges a new object.
func (v *version) validate(u *unstructured.Unstructured) field.ErrorList {
	r := v.rules()
	if r.err != nil {
		return field.ErrorList{field.InternalError(nil, r.err)}
	}
	var errs field.ErrorList
	if r.object != nil {
		errs = validation.ValidateCustomResource(nil, u.Object, r.object)
	}
	errs = append(errs, v.validateScaleSpec(u)...)
	errs = append(errs, v.validateScaleStatus(u)...)
	errs = append(errs, objectmeta.Validate(nil, u.Object, v.shape(), false)...)
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, v.shape(), u.Object)...)
	return append(errs, v.validateRules(r, errs, u.Object, nil)...)
}

// validateUpdate judges a change; what was wrong before and has not been touched stays accepted.
func (v *version) validateUpdate(u, old *unstructured.Unstructured) field.ErrorList {
	r := v.rules()
	if r.err != nil {
		return field.ErrorList{field.InternalError(nil, r.err)}
	}
	pair := common.NewCorrelatedObject(u.Object, old.Object, &model.Structural{Structural: v.shape()})
	var errs field.ErrorList
	if r.object != nil {
		errs = validation.ValidateCustomResourceUpdate(nil, u.Object, old.Object, r.object, validation.WithRatcheting(pair))
	}
	errs = append(errs, v.validateScaleSpec(u)...)
	errs = append(errs, v.validateScaleStatus(u)...)
	errs = append(errs, objectmeta.Validate(nil, u.Object, v.shape(), false)...)
	errs = append(errs, v.validateLists(u, old)...)
	return append(errs, v.validateRules(r, errs, u.Object, old.Object, schemacel.WithRatcheting(pair))...)
}

// validateStatus judges a write to the status subresource.
func (v *version) validateStatus(u, old *unstructured.Unstructured) field.ErrorList {
	r := v.rules()
	if r.err != nil {
		return field.ErrorList{field.InternalError(nil, r.err)}
	}
	pair := common.NewCorrelatedObject(u.Object, old.Object, &model.Structural{Structural: v.shape()})
	var errs field.ErrorList
	if status, ok := u.Object["status"]; ok && r.status != nil {
		errs = validation.ValidateCustomResourceUpdate(field.NewPath("status"), status, old.Object["status"], r.status,
			validation.WithRatcheting(pair.Key("status")))
	}
	errs = append(errs, v.validateScaleStatus(u)...)
	errs = append(errs, v.validateLists(u, old)...)
	return append(errs, v.validateRules(r, errs, u.Object, old.Object, schemacel.WithRatcheting(pair))...)
}

func (v *version) validateLists(u, old *unstructured.Unstructured) field.ErrorList {
	errs := listtype.ValidateListSetsAndMaps(nil, v.shape(), u.Object)
	if len(errs) > 0 && len(listtype.ValidateListSetsAndMaps(nil, v.shape(), old.Object)) > 0 {
		return nil
	}
	return errs
}

// validateRules evaluates the schema's CEL rules, unless the object is of so wrong a shape that they cannot be.
func (v *version) validateRules(r *rules, before field.ErrorList, obj, old map[string]any, options ...schemacel.Option) field.ErrorList {
	if r.cel == nil {
		return nil
	}
	for _, e := range before {
		switch e.Type {
		case field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid:
			return field.ErrorList{field.Invalid(nil, nil, "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation")}
		}
	}
	var previous any
	if old != nil {
		previous = old
	}
	errs, _ := r.cel.Validate(context.Background(), nil, v.shape(), obj, previous, celconfig.RuntimeCELCostBudget, options...)
	return errs
}

func (v *version) validateScaleSpec(u *unstructured.Unstructured) field.ErrorList {
	if s := v.scale(); s != nil {
		return validateReplicas(u, s.SpecReplicasPath)
	}
	return nil
}

func (v *version) validateScaleStatus(u *unstructured.Unstructured) field.ErrorList {
	s := v.scale()
	if s == nil {
		return nil
	}
	errs := validateReplicas(u, s.StatusReplicasPath)
	if s.LabelSelectorPath != nil {
		if text, _, err := unstructured.NestedString(u.Object, steps(*s.LabelSelectorPath)...); err != nil {
			errs = append(errs, field.Invalid(field.NewPath(*s.LabelSelectorPath), text, err.Error()))
		}
	}
	return errs
}

func validateReplicas(u *unstructured.Unstructured, path string) field.ErrorList {
	n, _, err := unstructured.NestedInt64(u.Object, steps(path)...)
	switch {
	case err != nil:
		return field.ErrorList{field.Invalid(field.NewPath(path), n, err.Error())}
	case n < 0:
		return field.ErrorList{field.Invalid(field.NewPath(path), n, "should be a non-negative integer")}
	case n > math.MaxInt32:
		return field.ErrorList{field.Invalid(field.NewPath(path), n, fmt.Sprintf("should be less than or equal to %v", math.MaxInt32))}
	}
	return nil
}

// steps takes a simple JSON path (".spec.replicas") apart.
func steps(path string) []string { return strings.Split(strings.TrimPrefix(path, "."), ".") }
