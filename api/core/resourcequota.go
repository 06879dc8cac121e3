package core

import (
	"fmt"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"maps"
	"slices"
	"strings"

	"github.com/skiff-sh/skiff/api"
)

var resourceQuota = &api.Kind{
	Version: "v1", Kind: "ResourceQuota",
	Plural: "resourcequotas", Singular: "resourcequota", ShortNames: []string{"quota"}, Namespaced: true,
	StoragePath: "resourcequotas",
	New:         api.New[corev1.ResourceQuota], NewList: api.NewList[corev1.ResourceQuotaList],
	Validate:       api.Check(validateResourceQuota),
	ValidateUpdate: api.CheckUpdate(validateResourceQuotaUpdate),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Request", "string", func(x *corev1.ResourceQuota) any { return quotaText(x, false) }),
		api.Col("Limit", "string", func(x *corev1.ResourceQuota) any { return quotaText(x, true) }),
		api.AgeColumn(),
	},
	UnconditionalUpdate: true,
	Subresources: []api.Subresource{
		api.Status(),
	},
}

// quotaText lists used and hard values of the limits, or of everything else.
func quotaText(x *corev1.ResourceQuota, limits bool) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(x.Status.Hard)) {
		if strings.HasPrefix(string(name), "limits.") != limits {
			continue
		}
		used, hard := x.Status.Used[name], x.Status.Hard[name]
		parts = append(parts, fmt.Sprintf("%s: %s/%s", name, used.String(), hard.String()))
	}
	return strings.Join(parts, ", ")
}

func validateResourceQuota(x *corev1.ResourceQuota) field.ErrorList {
	var errs field.ErrorList
	for name, q := range x.Spec.Hard {
		at := field.NewPath("spec", "hard").Key(string(name))
		errs = append(errs, Problems(at, name, validation.IsQualifiedName(string(name)))...)
		errs = append(errs, notNegativeQuantity(at, q)...)
	}
	return errs
}

func validateResourceQuotaUpdate(x, old *corev1.ResourceQuota) field.ErrorList {
	errs := validateResourceQuota(x)
	if !slices.Equal(x.Spec.Scopes, old.Spec.Scopes) {
		errs = append(errs, field.Invalid(field.NewPath("spec", "scopes"), x.Spec.Scopes, "field is immutable"))
	}
	return errs
}
