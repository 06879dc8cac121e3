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
	ValidateStatus: api.CheckUpdate(validateResourceQuotaStatus),
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
	path := field.NewPath("spec")
	errs = append(errs, validateQuotas(path.Child("hard"), x.Spec.Hard)...)
	errs = append(errs, validateScopes(path.Child("scopes"), &x.Spec)...)
	if x.Spec.ScopeSelector != nil {
		errs = append(errs, validateScopeSelector(path.Child("scopeSelector", "matchExpressions"), &x.Spec)...)
	}
	return errs
}

func validateQuotas(path *field.Path, quotas corev1.ResourceList) field.ErrorList {
	var errs field.ErrorList
	for name, q := range quotas {
		at := path.Key(string(name))
		errs = append(errs, Problems(at, name, validation.IsQualifiedName(string(name)))...)
		errs = append(errs, NotNegativeQuantity(at, q)...)
	}
	return errs
}

func validateResourceQuotaStatus(x, _ *corev1.ResourceQuota) field.ErrorList {
	path := field.NewPath("status")
	return append(validateQuotas(path.Child("hard"), x.Status.Hard), validateQuotas(path.Child("used"), x.Status.Used)...)
}

// Resources that quotas with scopes may count: those of pods, and those of claims.
var (
	podResources = []corev1.ResourceName{corev1.ResourcePods, corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceRequestsCPU,
		corev1.ResourceRequestsMemory, corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory}
	claimResources = []corev1.ResourceName{corev1.ResourcePersistentVolumeClaims, corev1.ResourceRequestsStorage}
	otherResources = []corev1.ResourceName{corev1.ResourceEphemeralStorage, corev1.ResourceRequestsEphemeralStorage, corev1.ResourceLimitsEphemeralStorage,
		corev1.ResourceQuotas, corev1.ResourceServices, corev1.ResourceReplicationControllers, corev1.ResourceSecrets,
		corev1.ResourceConfigMaps, corev1.ResourceServicesNodePorts, corev1.ResourceServicesLoadBalancers}
)

// scopeCounts lists what a scope has to do with; ok is false for an unknown scope.
func scopeCounts(s corev1.ResourceQuotaScope) (names []corev1.ResourceName, ok bool) {
	switch s {
	case corev1.ResourceQuotaScopeBestEffort:
		return podResources[:1], true
	case corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating, corev1.ResourceQuotaScopeNotBestEffort,
		corev1.ResourceQuotaScopePriorityClass, corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
		return podResources, true
	case corev1.ResourceQuotaScopeVolumeAttributesClass:
		return claimResources, true
	}
	return nil, false
}

// beyondScope counts the built-in resources that a quota has limits of and a scope has nothing to do with.
func beyondScope(s corev1.ResourceQuotaScope, hard corev1.ResourceList) int {
	counts, known := scopeCounts(s)
	if !known {
		return 0
	}
	n := 0
	for name := range hard {
		builtIn := slices.Contains(podResources, name) || slices.Contains(claimResources, name) || slices.Contains(otherResources, name)
		if builtIn && !slices.Contains(counts, name) {
			n++
		}
	}
	return n
}

func conflictingScopes(scopes []corev1.ResourceQuotaScope) int {
	n := 0
	for _, pair := range [][2]corev1.ResourceQuotaScope{{corev1.ResourceQuotaScopeBestEffort, corev1.ResourceQuotaScopeNotBestEffort},
		{corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating}} {
		if slices.Contains(scopes, pair[0]) && slices.Contains(scopes, pair[1]) {
			n++
		}
	}
	return n
}

func validateScopes(path *field.Path, s *corev1.ResourceQuotaSpec) field.ErrorList {
	var errs field.ErrorList
	for _, scope := range s.Scopes {
		if _, known := scopeCounts(scope); !known {
			errs = append(errs, field.Invalid(path, s.Scopes, "unsupported scope"))
			continue
		}
		for range beyondScope(scope, s.Hard) {
			errs = append(errs, field.Invalid(path, s.Scopes, "unsupported scope applied to resource"))
		}
	}
	for range conflictingScopes(s.Scopes) {
		errs = append(errs, field.Invalid(path, s.Scopes, "conflicting scopes"))
	}
	return errs
}

func validateScopeSelector(path *field.Path, s *corev1.ResourceQuotaSpec) field.ErrorList {
	var errs field.ErrorList
	var scopes []corev1.ResourceQuotaScope
	for _, r := range s.ScopeSelector.MatchExpressions {
		scopes = append(scopes, r.ScopeName)
		if _, known := scopeCounts(r.ScopeName); !known {
			errs = append(errs, field.Invalid(path.Child("scopeName"), r.ScopeName, "unsupported scope"))
		}
		for range beyondScope(r.ScopeName, s.Hard) {
			errs = append(errs, field.Invalid(path, s.ScopeSelector, "unsupported scope applied to resource"))
		}
		switch r.ScopeName {
		case corev1.ResourceQuotaScopeBestEffort, corev1.ResourceQuotaScopeNotBestEffort, corev1.ResourceQuotaScopeTerminating,
			corev1.ResourceQuotaScopeNotTerminating, corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
			if r.Operator != corev1.ScopeSelectorOpExists {
				errs = append(errs, field.Invalid(path.Child("operator"), r.Operator, "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"))
			}
		}
		switch r.Operator {
		case corev1.ScopeSelectorOpIn, corev1.ScopeSelectorOpNotIn:
			if len(r.Values) == 0 {
				errs = append(errs, field.Required(path.Child("values"), "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"))
			}
		case corev1.ScopeSelectorOpExists, corev1.ScopeSelectorOpDoesNotExist:
			if len(r.Values) != 0 {
				errs = append(errs, field.Invalid(path.Child("values"), r.Values, "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"))
			}
		default:
			errs = append(errs, field.Invalid(path.Child("operator"), r.Operator, "not a valid selector operator"))
		}
	}
	for range conflictingScopes(scopes) {
		errs = append(errs, field.Invalid(path, s.ScopeSelector, "conflicting scopes"))
	}
	return errs
}

func validateResourceQuotaUpdate(x, old *corev1.ResourceQuota) field.ErrorList {
	errs := validateResourceQuota(x)
	unordered := func(scopes []corev1.ResourceQuotaScope) []corev1.ResourceQuotaScope {
		return slices.Compact(slices.Sorted(slices.Values(scopes)))
	}
	if !slices.Equal(unordered(x.Spec.Scopes), unordered(old.Spec.Scopes)) {
		errs = append(errs, field.Invalid(field.NewPath("spec", "scopes"), x.Spec.Scopes, "field is immutable"))
	}
	return errs
}
