package apiextensions

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	schemavalidation "k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/skiff-sh/skiff/api"
)

var customResourceDefinition = &api.Kind{
	Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition",
	Plural: "customresourcedefinitions", Singular: "customresourcedefinition", ShortNames: []string{"crd", "crds"}, Categories: []string{"api-extensions"},
	StoragePath: "apiextensions.k8s.io/customresourcedefinitions",
	New:         api.New[apiextensionsv1.CustomResourceDefinition], NewList: api.NewList[apiextensionsv1.CustomResourceDefinitionList],
	Validate:       api.Check(validateCustomResourceDefinition),
	ValidateUpdate: api.CheckUpdate(validateCustomResourceDefinitionUpdate),
	ValidateStatus: api.CheckUpdate(validateCustomResourceDefinitionStatus),
	Warnings:       unknownFormats,
	Columns: []api.Column{
		api.NameColumn(),
		api.CreatedColumn(),
	},
	PrepareCreate: api.OnCreate(createCustomResourceDefinition),
	Default:       api.Defaults(defaultCustomResourceDefinition),
	HasGeneration: true,
	Subresources: []api.Subresource{
		api.Status(),
	},
}

func defaultCustomResourceDefinition(x *apiextensionsv1.CustomResourceDefinition) {
	n := &x.Spec.Names
	api.Fill(&n.Singular, strings.ToLower(n.Kind))
	if n.Kind != "" {
		api.Fill(&n.ListKind, n.Kind+"List")
	}
	api.FillPtr(&x.Spec.Conversion, apiextensionsv1.CustomResourceConversion{Strategy: apiextensionsv1.NoneConverter})
	if w := x.Spec.Conversion.Webhook; w != nil && w.ClientConfig != nil && w.ClientConfig.Service != nil {
		api.FillPtr(&w.ClientConfig.Service.Port, 443)
	}
	if len(x.Status.StoredVersions) == 0 {
		for _, v := range x.Spec.Versions {
			if v.Storage {
				x.Status.StoredVersions = append(x.Status.StoredVersions, v.Name)
				break
			}
		}
	}
}

func createCustomResourceDefinition(x *apiextensionsv1.CustomResourceDefinition) {
	x.Status = apiextensionsv1.CustomResourceDefinitionStatus{}
	defaultCustomResourceDefinition(x)
}

// internal is the form of a definition that upstream's rules are written for.
func internal(x *apiextensionsv1.CustomResourceDefinition) (*apiextensions.CustomResourceDefinition, error) {
	out := &apiextensions.CustomResourceDefinition{}
	return out, apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(x, out, nil)
}

func validateCustomResourceDefinition(x *apiextensionsv1.CustomResourceDefinition) field.ErrorList {
	in, err := internal(x)
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	return validation.ValidateCustomResourceDefinition(context.Background(), in)
}

func validateCustomResourceDefinitionUpdate(x, old *apiextensionsv1.CustomResourceDefinition) field.ErrorList {
	return judged(x, old, func(x, old *apiextensions.CustomResourceDefinition) field.ErrorList {
		return validation.ValidateCustomResourceDefinitionUpdate(context.Background(), x, old)
	})
}

func validateCustomResourceDefinitionStatus(x, old *apiextensionsv1.CustomResourceDefinition) field.ErrorList {
	return judged(x, old, validation.ValidateUpdateCustomResourceDefinitionStatus)
}

func judged(x, old *apiextensionsv1.CustomResourceDefinition, rules func(x, old *apiextensions.CustomResourceDefinition) field.ErrorList) field.ErrorList {
	in, err := internal(x)
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	before, err := internal(old)
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	return rules(in, before)
}

// unknownFormats warns of formats that nobody checks, unless the old definition had them too.
func unknownFormats(obj, old api.Object) []string {
	known := map[string]bool{}
	if x, ok := old.(*apiextensionsv1.CustomResourceDefinition); ok {
		for _, f := range formatsOf(x) {
			known[f] = true
		}
	}
	var out []string
	for _, f := range formatsOf(obj.(*apiextensionsv1.CustomResourceDefinition)) {
		if !known[f] {
			out = append(out, fmt.Sprintf("unrecognized format %q", f))
		}
	}
	return out
}

// formatsOf are the formats in a definition's schemas that validation does not know.
func formatsOf(x *apiextensionsv1.CustomResourceDefinition) []string {
	in, err := internal(x)
	if err != nil {
		return nil
	}
	var out []string
	unknown := func(s *apiextensions.JSONSchemaProps) bool {
		if s.Format != "" {
			out = append(out, schemavalidation.GetUnrecognizedFormats(&spec.Schema{SchemaProps: spec.SchemaProps{Format: s.Format, Type: []string{s.Type}}},
				environment.DefaultCompatibilityVersion())...)
		}
		return false // go on
	}
	if in.Spec.Validation != nil {
		validation.SchemaHas(in.Spec.Validation.OpenAPIV3Schema, unknown)
	}
	for _, v := range in.Spec.Versions {
		if v.Schema != nil {
			validation.SchemaHas(v.Schema.OpenAPIV3Schema, unknown)
		}
	}
	return out
}
