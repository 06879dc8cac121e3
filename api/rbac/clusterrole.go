package rbac

import (
	"github.com/skiff-sh/skiff/api/core"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
)

var clusterRole = &api.Kind{
	Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "ClusterRole",
	Plural: "clusterroles", Singular: "clusterrole",
	StoragePath: "clusterroles",
	New:         api.New[rbacv1.ClusterRole], NewList: api.NewList[rbacv1.ClusterRoleList],
	ValidateName:   core.PathSegment,
	Validate:       api.Check(validateClusterRole),
	ValidateUpdate: api.CheckUpdate(func(x, _ *rbacv1.ClusterRole) field.ErrorList { return validateClusterRole(x) }),
	Columns: []api.Column{
		api.NameColumn(),
		api.CreatedColumn(),
	},
	AllowCreateOnUpdate: true, UnconditionalUpdate: true,
}

func validateClusterRole(x *rbacv1.ClusterRole) field.ErrorList {
	var errs field.ErrorList
	for i := range x.Rules {
		errs = append(errs, validateRule(field.NewPath("rules").Index(i), &x.Rules[i], false)...)
	}
	if x.AggregationRule != nil {
		at := field.NewPath("aggregationRule", "clusterRoleSelectors")
		if len(x.AggregationRule.ClusterRoleSelectors) == 0 {
			errs = append(errs, field.Required(at, "at least one clusterRoleSelector required if aggregationRule is non-nil"))
		}
		for i := range x.AggregationRule.ClusterRoleSelectors {
			s := &x.AggregationRule.ClusterRoleSelectors[i]
			errs = append(errs, core.LabelSelector(at.Index(i), s)...)
			if sel, err := metav1.LabelSelectorAsSelector(s); err != nil {
				errs = append(errs, field.Invalid(at.Index(i), sel, "invalid label selector."))
			}
		}
	}
	return errs
}
