package rbac

import (
	"github.com/skiff-sh/skiff/api/core"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"slices"
	"strings"

	"github.com/skiff-sh/skiff/api"
)

var roleBinding = &api.Kind{
	Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "RoleBinding",
	Plural: "rolebindings", Singular: "rolebinding", Namespaced: true,
	StoragePath: "rolebindings",
	New:         api.New[rbacv1.RoleBinding], NewList: api.NewList[rbacv1.RoleBindingList],
	ValidateName:   core.PathSegment,
	Validate:       api.Check(validateRoleBinding),
	ValidateUpdate: api.CheckUpdate(validateRoleBindingUpdate),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Role", "string", func(x *rbacv1.RoleBinding) any { return x.RoleRef.Kind + "/" + x.RoleRef.Name }),
		api.AgeColumn(),
		api.Col("Users", "string", func(x *rbacv1.RoleBinding) any { return subjectsOf(x.Subjects, rbacv1.UserKind) }).Wide(),
		api.Col("Groups", "string", func(x *rbacv1.RoleBinding) any { return subjectsOf(x.Subjects, rbacv1.GroupKind) }).Wide(),
		api.Col("ServiceAccounts", "string", func(x *rbacv1.RoleBinding) any { return subjectsOf(x.Subjects, rbacv1.ServiceAccountKind) }).Wide(),
	},
	Default:             api.Defaults(defaultRoleBinding),
	AllowCreateOnUpdate: true, UnconditionalUpdate: true,
}

func defaultRoleBinding(x *rbacv1.RoleBinding) {
	api.Fill(&x.RoleRef.APIGroup, rbacv1.GroupName)
	defaultSubjects(x.Subjects)
}

func defaultSubjects(subjects []rbacv1.Subject) {
	for i := range subjects {
		if s := &subjects[i]; s.Kind == rbacv1.UserKind || s.Kind == rbacv1.GroupKind {
			api.Fill(&s.APIGroup, rbacv1.GroupName)
		}
	}
}

func subjectsOf(subjects []rbacv1.Subject, kind string) string {
	var out []string
	for _, s := range subjects {
		switch {
		case s.Kind != kind:
		case kind == rbacv1.ServiceAccountKind:
			out = append(out, s.Namespace+"/"+s.Name)
		default:
			out = append(out, s.Name)
		}
	}
	return strings.Join(out, ", ")
}

func validateRoleBinding(x *rbacv1.RoleBinding) field.ErrorList {
	var errs field.ErrorList
	errs = append(errs, validateBinding(&x.RoleRef, x.Subjects, true, "Role", "ClusterRole")...)
	return errs
}

func validateRoleBindingUpdate(x, old *rbacv1.RoleBinding) field.ErrorList {
	errs := validateRoleBinding(x)
	if x.RoleRef != old.RoleRef {
		errs = append(errs, field.Invalid(field.NewPath("roleRef"), x.RoleRef, "cannot change roleRef"))
	}
	return errs
}

func validateBinding(ref *rbacv1.RoleRef, subjects []rbacv1.Subject, namespaced bool, kinds ...string) field.ErrorList {
	at := field.NewPath("roleRef")
	var errs field.ErrorList
	if ref.APIGroup != rbacv1.GroupName {
		errs = append(errs, field.NotSupported(at.Child("apiGroup"), ref.APIGroup, []string{rbacv1.GroupName}))
	}
	if !slices.Contains(kinds, ref.Kind) {
		e := field.NotSupported(at.Child("kind"), ref.Kind, kinds)
		e.Detail = `supported values: "` + strings.Join(kinds, `", "`) + `"` // in this order, as upstream has it
		errs = append(errs, e)
	}
	if ref.Name == "" {
		errs = append(errs, field.Required(at.Child("name"), ""))
	} else {
		errs = append(errs, core.Problems(at.Child("name"), ref.Name, core.PathSegment(ref.Name, false))...)
	}
	for i, s := range subjects {
		errs = append(errs, validateSubject(field.NewPath("subjects").Index(i), &s, namespaced)...)
	}
	return errs
}

func validateSubject(at *field.Path, s *rbacv1.Subject, namespaced bool) field.ErrorList {
	errs := core.Required(at.Child("name"), s.Name, "")
	group := rbacv1.GroupName
	switch s.Kind {
	case rbacv1.ServiceAccountKind:
		group = ""
		if s.Name != "" {
			errs = append(errs, core.Subdomain(at.Child("name"), s.Name)...)
		}
		if !namespaced { // in a namespace, none means that one
			errs = append(errs, core.Required(at.Child("namespace"), s.Namespace, "")...)
		}
	case rbacv1.UserKind, rbacv1.GroupKind:
	default:
		return append(errs, field.NotSupported(at.Child("kind"), s.Kind, []string{rbacv1.ServiceAccountKind, rbacv1.UserKind, rbacv1.GroupKind}))
	}
	if s.APIGroup != group {
		errs = append(errs, field.NotSupported(at.Child("apiGroup"), s.APIGroup, []string{group}))
	}
	return errs
}
