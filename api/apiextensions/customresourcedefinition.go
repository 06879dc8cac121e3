package apiextensions

import (
	"github.com/skiff-sh/skiff/api/core"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"slices"
	"strings"

	"github.com/skiff-sh/skiff/api"
)

var customResourceDefinition = &api.Kind{
	Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition",
	Plural: "customresourcedefinitions", Singular: "customresourcedefinition", ShortNames: []string{"crd", "crds"}, Categories: []string{"api-extensions"},
	StoragePath: "apiextensions.k8s.io/customresourcedefinitions",
	New:         api.New[apiextensionsv1.CustomResourceDefinition], NewList: api.NewList[apiextensionsv1.CustomResourceDefinitionList],
	Validate:       api.Check(validateCustomResourceDefinition),
	ValidateUpdate: api.CheckUpdate(validateCustomResourceDefinitionUpdate),
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

func validateCustomResourceDefinition(x *apiextensionsv1.CustomResourceDefinition) field.ErrorList {
	var errs field.ErrorList
	s, path := &x.Spec, field.NewPath("spec")
	if want := s.Names.Plural + "." + s.Group; x.Name != want {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), x.Name, "must be spec.names.plural+\".\"+spec.group"))
	}
	if s.Group == "" {
		errs = append(errs, field.Required(path.Child("group"), ""))
	} else {
		errs = append(errs, core.Subdomain(path.Child("group"), s.Group)...)
		if !strings.Contains(s.Group, ".") {
			errs = append(errs, field.Invalid(path.Child("group"), s.Group, "should be a domain with at least one dot"))
		}
	}
	errs = append(errs, core.OneOf(path.Child("scope"), s.Scope, apiextensionsv1.ClusterScoped, apiextensionsv1.NamespaceScoped)...)
	errs = append(errs, validateNames(path.Child("names"), &s.Names)...)
	errs = append(errs, validateVersions(path.Child("versions"), s.Versions)...)
	if s.PreserveUnknownFields {
		errs = append(errs, field.Invalid(path.Child("preserveUnknownFields"), true, "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"))
	}
	if c := s.Conversion; c != nil {
		errs = append(errs, core.OneOf(path.Child("conversion", "strategy"), c.Strategy, apiextensionsv1.NoneConverter, apiextensionsv1.WebhookConverter)...)
		if c.Strategy == apiextensionsv1.WebhookConverter && (c.Webhook == nil || c.Webhook.ClientConfig == nil) {
			errs = append(errs, field.Required(path.Child("conversion", "webhook", "clientConfig"), "required when strategy is set to Webhook"))
		}
	}
	return errs
}

func validateCustomResourceDefinitionUpdate(x, old *apiextensionsv1.CustomResourceDefinition) field.ErrorList {
	errs := validateCustomResourceDefinition(x)
	established := false
	for _, c := range old.Status.Conditions {
		established = established || c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue
	}
	path := field.NewPath("spec")
	if established {
		errs = append(errs, core.Immutable(path.Child("scope"), x.Spec.Scope, old.Spec.Scope)...)
		errs = append(errs, core.Immutable(path.Child("names", "kind"), x.Spec.Names.Kind, old.Spec.Names.Kind)...)
	}
	errs = append(errs, core.Immutable(path.Child("group"), x.Spec.Group, old.Spec.Group)...)
	errs = append(errs, core.Immutable(path.Child("names", "plural"), x.Spec.Names.Plural, old.Spec.Names.Plural)...)
	for i, name := range old.Status.StoredVersions {
		if !slices.ContainsFunc(x.Spec.Versions, func(v apiextensionsv1.CustomResourceDefinitionVersion) bool { return v.Name == name }) {
			errs = append(errs, field.Invalid(field.NewPath("status", "storedVersions").Index(i), name, "missing from spec.versions; "+name+" was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in "+name+" and removes "+name+" from status.storedVersions"))
		}
	}
	return errs
}

func validateNames(at *field.Path, n *apiextensionsv1.CustomResourceDefinitionNames) field.ErrorList {
	var errs field.ErrorList
	for name, v := range map[string]string{"plural": n.Plural, "singular": n.Singular, "kind": strings.ToLower(n.Kind), "listKind": strings.ToLower(n.ListKind)} {
		if v == "" {
			errs = append(errs, field.Required(at.Child(name), ""))
			continue
		}
		errs = append(errs, core.Problems(at.Child(name), v, validation.IsDNS1035Label(v))...)
	}
	for i, s := range n.ShortNames {
		errs = append(errs, core.Problems(at.Child("shortNames").Index(i), s, validation.IsDNS1035Label(s))...)
	}
	for i, s := range n.Categories {
		errs = append(errs, core.Problems(at.Child("categories").Index(i), s, validation.IsDNS1035Label(s))...)
	}
	if n.Kind != "" && n.Kind == n.ListKind {
		errs = append(errs, field.Invalid(at.Child("listKind"), n.ListKind, "kind and listKind may not be the same"))
	}
	return errs
}

func validateVersions(at *field.Path, list []apiextensionsv1.CustomResourceDefinitionVersion) field.ErrorList {
	if len(list) == 0 {
		return field.ErrorList{field.Required(at, "must have exactly one version marked as storage version")}
	}
	var errs field.ErrorList
	storage, seen := 0, map[string]bool{}
	for i, v := range list {
		errs = append(errs, core.Problems(at.Index(i).Child("name"), v.Name, validation.IsDNS1035Label(v.Name))...)
		if seen[v.Name] {
			errs = append(errs, field.Invalid(at, "", "must contain unique version names"))
		}
		seen[v.Name] = true
		if v.Storage {
			storage++
		}
		if v.Schema == nil || v.Schema.OpenAPIV3Schema == nil {
			errs = append(errs, field.Required(at.Index(i).Child("schema", "openAPIV3Schema"), "schemas are required"))
		}
	}
	if storage != 1 {
		errs = append(errs, field.Invalid(at, "", "must have exactly one version marked as storage version"))
	}
	return errs
}
