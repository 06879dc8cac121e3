package rbac

import (
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/core"
)

var role = &api.Kind{
	Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "Role",
	Plural: "roles", Singular: "role", Namespaced: true,
	StoragePath: "roles",
	New:         api.New[rbacv1.Role], NewList: api.NewList[rbacv1.RoleList],
	ValidateName:   core.PathSegment,
	Validate:       api.Check(validateRole),
	ValidateUpdate: api.CheckUpdate(func(x, _ *rbacv1.Role) field.ErrorList { return validateRole(x) }),
	Columns: []api.Column{
		api.NameColumn(),
		api.CreatedColumn(),
	},
	AllowCreateOnUpdate: true, UnconditionalUpdate: true,
}

func validateRole(x *rbacv1.Role) field.ErrorList {
	var errs field.ErrorList
	for i := range x.Rules {
		errs = append(errs, validateRule(field.NewPath("rules").Index(i), &x.Rules[i], true)...)
	}
	return errs
}

func validateRule(at *field.Path, r *rbacv1.PolicyRule, namespaced bool) field.ErrorList {
	var errs field.ErrorList
	if len(r.Verbs) == 0 {
		errs = append(errs, field.Required(at.Child("verbs"), "verbs must contain at least one value"))
	}
	if len(r.NonResourceURLs) > 0 {
		if namespaced {
			errs = append(errs, field.Invalid(at.Child("nonResourceURLs"), r.NonResourceURLs, "namespaced rules cannot apply to non-resource URLs"))
		}
		if len(r.APIGroups)+len(r.Resources)+len(r.ResourceNames) > 0 {
			errs = append(errs, field.Invalid(at.Child("nonResourceURLs"), r.NonResourceURLs, "rules cannot apply to both regular resources and non-resource URLs"))
		}
		return errs
	}
	if len(r.APIGroups) == 0 {
		errs = append(errs, field.Required(at.Child("apiGroups"), "resource rules must supply at least one api group"))
	}
	if len(r.Resources) == 0 {
		errs = append(errs, field.Required(at.Child("resources"), "resource rules must supply at least one resource"))
	}
	return errs
}
