package flowcontrol

import (
	"slices"
	"strings"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-sh/skiff/api/core"
)

const mostPrecedence = 10000

var verbs = sets.New("get", "list", "create", "update", "delete", "deletecollection", "patch", "watch", "proxy")

func validateFlowSchema(x *flowcontrolv1.FlowSchema) field.ErrorList {
	var errs field.ErrorList
	path, s := field.NewPath("spec"), &x.Spec
	at := path.Child("matchingPrecedence")
	switch p := s.MatchingPrecedence; {
	case p <= 0:
		errs = append(errs, field.Invalid(at, p, "must be a positive value"))
	case p > mostPrecedence:
		errs = append(errs, field.Invalid(at, p, "must not be greater than 10000"))
	case p == 1 && x.Name != flowcontrolv1.FlowSchemaNameExempt:
		errs = append(errs, field.Invalid(at, p, "only the schema named 'exempt' may have matchingPrecedence 1"))
	}
	if m := s.DistinguisherMethod; m != nil {
		kinds := []flowcontrolv1.FlowDistinguisherMethodType{flowcontrolv1.FlowDistinguisherMethodByNamespaceType, flowcontrolv1.FlowDistinguisherMethodByUserType}
		if !slices.Contains(kinds, m.Type) {
			errs = append(errs, field.NotSupported(path.Child("distinguisherMethod", "type"), m, kinds))
		}
	}
	at = path.Child("priorityLevelConfiguration", "name")
	if n := s.PriorityLevelConfiguration.Name; n == "" {
		errs = append(errs, field.Required(at, "must reference a priority level"))
	} else {
		errs = append(errs, core.Subdomain(at, n)...)
	}
	for i := range s.Rules {
		errs = append(errs, validateFlowRule(path.Child("rules").Index(i), &s.Rules[i])...)
	}
	return errs
}

func validateFlowRule(path *field.Path, r *flowcontrolv1.PolicyRulesWithSubjects) field.ErrorList {
	var errs field.ErrorList
	if len(r.Subjects) == 0 {
		errs = append(errs, field.Required(path.Child("subjects"), "subjects must contain at least one value"))
	}
	for i := range r.Subjects {
		errs = append(errs, validateFlowSubject(path.Child("subjects").Index(i), &r.Subjects[i])...)
	}
	if len(r.ResourceRules)+len(r.NonResourceRules) == 0 {
		errs = append(errs, field.Required(path, "at least one of resourceRules and nonResourceRules has to be non-empty"))
	}
	for i := range r.ResourceRules {
		errs = append(errs, validateResourceRule(path.Child("resourceRules").Index(i), &r.ResourceRules[i])...)
	}
	for i := range r.NonResourceRules {
		errs = append(errs, validateNonResourceRule(path.Child("nonResourceRules").Index(i), &r.NonResourceRules[i])...)
	}
	return errs
}

func validateFlowSubject(path *field.Path, s *flowcontrolv1.Subject) field.ErrorList {
	var errs field.ErrorList
	set := map[flowcontrolv1.SubjectKind]bool{flowcontrolv1.SubjectKindUser: s.User != nil, flowcontrolv1.SubjectKindGroup: s.Group != nil,
		flowcontrolv1.SubjectKindServiceAccount: s.ServiceAccount != nil}
	names := map[flowcontrolv1.SubjectKind]string{flowcontrolv1.SubjectKindUser: "user", flowcontrolv1.SubjectKindGroup: "group", flowcontrolv1.SubjectKindServiceAccount: "serviceAccount"}
	kinds := []flowcontrolv1.SubjectKind{flowcontrolv1.SubjectKindGroup, flowcontrolv1.SubjectKindServiceAccount, flowcontrolv1.SubjectKindUser}
	if !slices.Contains(kinds, s.Kind) {
		return core.Known(path.Child("kind"), s.Kind, kinds...)
	}
	for _, k := range kinds {
		switch {
		case k == s.Kind && !set[k]:
			errs = append(errs, field.Required(path.Child(names[k]), names[k]+" is required when subject kind is '"+string(k)+"'"))
		case k != s.Kind && set[k]:
			errs = append(errs, field.Forbidden(path.Child(names[k]), names[k]+" is forbidden when subject kind is not '"+string(k)+"'"))
		}
	}
	switch {
	case s.Kind == flowcontrolv1.SubjectKindUser && s.User != nil:
		errs = append(errs, core.Required(path.Child("user", "name"), s.User.Name, "")...)
	case s.Kind == flowcontrolv1.SubjectKindGroup && s.Group != nil:
		errs = append(errs, core.Required(path.Child("group", "name"), s.Group.Name, "")...)
	case s.Kind == flowcontrolv1.SubjectKindServiceAccount && s.ServiceAccount != nil:
		a, at := s.ServiceAccount, path.Child("serviceAccount")
		if a.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
		} else if a.Name != flowcontrolv1.NameAll {
			errs = append(errs, core.Subdomain(at.Child("name"), a.Name)...)
		}
		if a.Namespace == "" {
			errs = append(errs, field.Required(at.Child("namespace"), "must specify namespace for service account"))
		} else {
			errs = append(errs, core.Label(at.Child("namespace"), a.Namespace)...)
		}
	}
	return errs
}

func validateVerbs(path *field.Path, list []string) field.ErrorList {
	switch {
	case len(list) == 0:
		return field.ErrorList{field.Required(path, "verbs must contain at least one value")}
	case slices.Contains(list, flowcontrolv1.VerbAll):
		if len(list) > 1 {
			return field.ErrorList{field.Invalid(path, list, "if '*' is present, must not specify other verbs")}
		}
		return nil
	case !verbs.HasAll(list...):
		return field.ErrorList{field.NotSupported(path, list, sets.List(verbs))}
	}
	return nil
}

func validateResourceRule(path *field.Path, r *flowcontrolv1.ResourcePolicyRule) field.ErrorList {
	errs := validateVerbs(path.Child("verbs"), r.Verbs)
	for _, f := range []struct {
		name, missing, others string
		list                  []string
	}{{"apiGroups", "resource rules must supply at least one api group", "api groups", r.APIGroups}, {"resources", "resource rules must supply at least one resource", "resources", r.Resources}} {
		if len(f.list) == 0 {
			errs = append(errs, field.Required(path.Child(f.name), f.missing))
		} else if len(f.list) > 1 && slices.Contains(f.list, "*") {
			errs = append(errs, field.Invalid(path.Child(f.name), f.list, "if '*' is present, must not specify other "+f.others))
		}
	}
	at := path.Child("namespaces")
	switch {
	case len(r.Namespaces) == 0 && !r.ClusterScope:
		return append(errs, field.Required(at, "resource rules that are not cluster scoped must supply at least one namespace"))
	case len(r.Namespaces) > 1 && slices.Contains(r.Namespaces, flowcontrolv1.NamespaceEvery):
		return append(errs, field.Invalid(at, r.Namespaces, "if '*' is present, must not specify other namespaces"))
	}
	for i, ns := range r.Namespaces {
		if ns == flowcontrolv1.NamespaceEvery {
			continue
		}
		for _, m := range validation.IsDNS1123Label(ns) {
			errs = append(errs, field.Invalid(at.Index(i), ns, "each member of this list must be '*' or a DNS-1123 label; "+m))
		}
	}
	return errs
}

func validateNonResourceRule(path *field.Path, r *flowcontrolv1.NonResourcePolicyRule) field.ErrorList {
	errs := validateVerbs(path.Child("verbs"), r.Verbs)
	at := path.Child("nonResourceURLs")
	switch {
	case len(r.NonResourceURLs) == 0:
		return append(errs, field.Required(at, "nonResourceURLs must contain at least one value"))
	case len(r.NonResourceURLs) > 1 && slices.Contains(r.NonResourceURLs, "*"):
		return append(errs, field.Invalid(at, r.NonResourceURLs, "if '*' is present, must not specify other non-resource URLs"))
	}
	for i, url := range r.NonResourceURLs {
		errs = append(errs, validateNonResourceURL(at.Index(i), url)...)
	}
	return errs
}

func validateNonResourceURL(at *field.Path, url string) field.ErrorList {
	bad := func(text string) field.ErrorList { return field.ErrorList{field.Invalid(at, url, text)} }
	head := strings.TrimSuffix(url, "*")
	switch {
	case url == "*" || url == "/":
		return nil
	case url == "":
		return bad("must not be empty")
	case !strings.HasPrefix(url, "/"):
		return bad("must start with slash")
	case strings.Contains(url, " "):
		return bad("must not contain white-space")
	case strings.Contains(url, "//"):
		return bad("must not contain double slash")
	case strings.Contains(head, "*"):
		return bad("wildcard can only do suffix matching")
	case strings.HasSuffix(url, "*") && !strings.HasSuffix(head, "/"):
		return bad("wildcard can only do suffix matching")
	}
	return nil
}
