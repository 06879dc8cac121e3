package apiregistration

import (
	"github.com/skiff-sh/skiff/api/core"
	"k8s.io/apimachinery/pkg/util/validation/field"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"strconv"

	"github.com/skiff-sh/skiff/api"
)

var apiService = &api.Kind{
	Group: "apiregistration.k8s.io", Version: "v1", Kind: "APIService",
	Plural: "apiservices", Singular: "apiservice", Categories: []string{"api-extensions"},
	StoragePath: "apiregistration.k8s.io/apiservices",
	New:         api.New[apiregistrationv1.APIService], NewList: api.NewList[apiregistrationv1.APIServiceList],
	ValidateName:   core.PathSegment,
	Validate:       api.Check(validateAPIService),
	ValidateUpdate: api.CheckUpdate(func(x, _ *apiregistrationv1.APIService) field.ErrorList { return validateAPIService(x) }),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Service", "string", func(x *apiregistrationv1.APIService) any { return serviceText(x) }),
		api.Col("Available", "string", func(x *apiregistrationv1.APIService) any { return availableText(x) }),
		api.AgeColumn(),
	},
	Default: api.Defaults(defaultAPIService),
	Subresources: []api.Subresource{
		api.Status(),
	},
}

func defaultAPIService(x *apiregistrationv1.APIService) {
	if s := x.Spec.Service; s != nil {
		api.FillPtr(&s.Port, 443)
	}
}

func serviceText(x *apiregistrationv1.APIService) string {
	if x.Spec.Service == nil {
		return "Local"
	}
	return x.Spec.Service.Namespace + "/" + x.Spec.Service.Name
}

func availableText(x *apiregistrationv1.APIService) string {
	for _, c := range x.Status.Conditions {
		if c.Type != apiregistrationv1.Available {
			continue
		}
		if c.Status == apiregistrationv1.ConditionTrue {
			return "True"
		}
		return string(c.Status) + " (" + c.Reason + ")"
	}
	return "Unknown"
}

func validateAPIService(x *apiregistrationv1.APIService) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec")
	if want := x.Spec.Version + "." + x.Spec.Group; x.Name != want {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), x.Name, "must be `spec.version+\".\"+spec.group`: "+strconv.Quote(want)))
	}
	errs = append(errs, core.Required(path.Child("version"), x.Spec.Version, "")...)
	if p := x.Spec.GroupPriorityMinimum; p <= 0 || p > 20000 {
		errs = append(errs, field.Invalid(path.Child("groupPriorityMinimum"), p, "must be positive and less than 20000"))
	}
	if p := x.Spec.VersionPriority; p <= 0 || p > 1000 {
		errs = append(errs, field.Invalid(path.Child("versionPriority"), p, "must be positive and less than 1000"))
	}
	if s := x.Spec.Service; s != nil {
		errs = append(errs, core.Required(path.Child("service", "namespace"), s.Namespace, "")...)
		errs = append(errs, core.Required(path.Child("service", "name"), s.Name, "")...)
		if x.Spec.InsecureSkipTLSVerify && len(x.Spec.CABundle) > 0 {
			errs = append(errs, field.Invalid(path.Child("insecureSkipTLSVerify"), true, "may not be true if caBundle is present"))
		}
	} else if len(x.Spec.CABundle) > 0 {
		errs = append(errs, field.Invalid(path.Child("caBundle"), "<bytes>", "local APIServices may not have a caBundle"))
	}
	return errs
}
