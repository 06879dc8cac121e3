package resource

import (
	"github.com/skiff-sh/skiff/api/core"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
)

var resourceClaimTemplate = &api.Kind{
	Group: "resource.k8s.io", Version: "v1", Kind: "ResourceClaimTemplate",
	Plural: "resourceclaimtemplates", Singular: "resourceclaimtemplate", Namespaced: true,
	StoragePath: "resourceclaimtemplates",
	New:         api.New[resourcev1.ResourceClaimTemplate], NewList: api.NewList[resourcev1.ResourceClaimTemplateList],
	Validate:            api.Check(validateResourceClaimTemplate),
	ValidateUpdate:      api.CheckUpdate(validateResourceClaimTemplateUpdate),
	Default:             api.Defaults(defaultResourceClaimTemplate),
	UnconditionalUpdate: true,
}

func defaultResourceClaimTemplate(x *resourcev1.ResourceClaimTemplate) {
	defaultClaim(&x.Spec.Spec)
}

func validateResourceClaimTemplateUpdate(x, old *resourcev1.ResourceClaimTemplate) field.ErrorList {
	errs := validateResourceClaimTemplate(x)
	errs = append(errs, core.Immutable(field.NewPath("spec"), x.Spec, old.Spec)...)
	return errs
}
