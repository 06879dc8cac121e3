package rbac

import (
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/core"
)

var clusterRoleBinding = &api.Kind{
	Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "ClusterRoleBinding",
	Plural: "clusterrolebindings", Singular: "clusterrolebinding",
	StoragePath: "clusterrolebindings",
	New:         api.New[rbacv1.ClusterRoleBinding], NewList: api.NewList[rbacv1.ClusterRoleBindingList],
	ValidateName:   core.PathSegment,
	Validate:       api.Check(validateClusterRoleBinding),
	ValidateUpdate: api.CheckUpdate(validateClusterRoleBindingUpdate),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Role", "string", func(x *rbacv1.ClusterRoleBinding) any { return x.RoleRef.Kind + "/" + x.RoleRef.Name }),
		api.AgeColumn(),
		api.Col("Users", "string", func(x *rbacv1.ClusterRoleBinding) any { return subjectsOf(x.Subjects, rbacv1.UserKind) }).Wide(),
		api.Col("Groups", "string", func(x *rbacv1.ClusterRoleBinding) any { return subjectsOf(x.Subjects, rbacv1.GroupKind) }).Wide(),
		api.Col("ServiceAccounts", "string", func(x *rbacv1.ClusterRoleBinding) any { return subjectsOf(x.Subjects, rbacv1.ServiceAccountKind) }).Wide(),
	},
	Default:             api.Defaults(defaultClusterRoleBinding),
	AllowCreateOnUpdate: true, UnconditionalUpdate: true,
}

func defaultClusterRoleBinding(x *rbacv1.ClusterRoleBinding) {
	api.Fill(&x.RoleRef.APIGroup, rbacv1.GroupName)
	defaultSubjects(x.Subjects)
}

func validateClusterRoleBinding(x *rbacv1.ClusterRoleBinding) field.ErrorList {
	var errs field.ErrorList
	errs = append(errs, validateBinding(&x.RoleRef, x.Subjects, false, "ClusterRole")...)
	return errs
}

func validateClusterRoleBindingUpdate(x, old *rbacv1.ClusterRoleBinding) field.ErrorList {
	errs := validateClusterRoleBinding(x)
	if x.RoleRef != old.RoleRef {
		errs = append(errs, field.Invalid(field.NewPath("roleRef"), x.RoleRef, "cannot change roleRef"))
	}
	return errs
}
