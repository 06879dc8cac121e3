package apiregistration

import (
	"strconv"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/core"
)

var apiService = &api.Kind{
	Group: "apiregistration.k8s.io", Version: "v1", Kind: "APIService",
	Plural: "apiservices", Singular: "apiservice", Categories: []string{"api-extensions"},
	StoragePath: "apiregistration.k8s.io/apiservices",
	New:         api.New[apiregistrationv1.APIService], NewList: api.NewList[apiregistrationv1.APIServiceList],
	ValidateName:   core.PathSegment,
	Validate:       api.Check(validateAPIService),
	ValidateUpdate: api.CheckUpdate(func(x, _ *apiregistrationv1.APIService) field.ErrorList { return validateAPIService(x) }),
	ValidateStatus: api.CheckUpdate(validateStatus),
	Columns: []api.Column{
		api.NameColumn(),
		api.Col("Service", "string", func(x *apiregistrationv1.APIService) any { return serviceText(x) }).
			Described("The reference to the service that hosts this API endpoint."),
		api.Col("Available", "string", func(x *apiregistrationv1.APIService) any { return availableText(x) }).
			Described("Whether this service is available."),
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
	path, spec := field.NewPath("spec"), &x.Spec
	if want := spec.Version + "." + spec.Group; x.Name != want {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), x.Name, "must be `spec.version+\".\"+spec.group`: "+strconv.Quote(want)))
	}
	if spec.Group == "" && spec.Version != "v1" {
		errs = append(errs, field.Required(path.Child("group"), "only v1 may have an empty group and it better be legacy kube"))
	}
	if spec.Group != "" {
		for _, text := range validation.IsDNS1123Subdomain(spec.Group) {
			errs = append(errs, field.Invalid(path.Child("group"), spec.Group, text))
		}
	}
	for _, text := range validation.IsDNS1035Label(spec.Version) {
		errs = append(errs, field.Invalid(path.Child("version"), spec.Version, text))
	}
	if p := spec.GroupPriorityMinimum; p <= 0 || p > 20000 {
		errs = append(errs, field.Invalid(path.Child("groupPriorityMinimum"), p, "must be positive and less than 20000"))
	}
	if p := spec.VersionPriority; p <= 0 || p > 1000 {
		errs = append(errs, field.Invalid(path.Child("versionPriority"), p, "must be positive and less than 1000"))
	}
	if spec.Service == nil {
		return append(errs, validateLocal(spec, path)...)
	}
	return append(errs, validateRemote(spec, path)...)
}

// validateLocal is for what the API server serves itself, for which it trusts itself.
func validateLocal(spec *apiregistrationv1.APIServiceSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if n := len(spec.CABundle); n > 0 {
		errs = append(errs, field.Invalid(path.Child("caBundle"), strconv.Itoa(n)+" bytes", "local APIServices may not have a caBundle"))
	}
	if spec.InsecureSkipTLSVerify {
		errs = append(errs, field.Invalid(path.Child("insecureSkipTLSVerify"), true, "local APIServices may not have insecureSkipTLSVerify"))
	}
	return errs
}

func validateRemote(spec *apiregistrationv1.APIServiceSpec, path *field.Path) field.ErrorList {
	s := spec.Service
	errs := core.Required(path.Child("service", "namespace"), s.Namespace, "")
	errs = append(errs, core.Required(path.Child("service", "name"), s.Name, "")...)
	if s.Port != nil {
		for _, text := range validation.IsValidPortNum(int(*s.Port)) {
			errs = append(errs, field.Invalid(path.Child("service", "port"), *s.Port, "port is not valid: "+text))
		}
	}
	if spec.InsecureSkipTLSVerify && len(spec.CABundle) > 0 {
		errs = append(errs, field.Invalid(path.Child("insecureSkipTLSVerify"), true, "may not be true if caBundle is present"))
	}
	return errs
}

func validateStatus(x, _ *apiregistrationv1.APIService) field.ErrorList {
	var errs field.ErrorList
	for i, c := range x.Status.Conditions {
		switch c.Status {
		case apiregistrationv1.ConditionTrue, apiregistrationv1.ConditionFalse, apiregistrationv1.ConditionUnknown:
		default:
			errs = append(errs, field.NotSupported(field.NewPath("status", "conditions").Index(i).Child("status"), c.Status,
				[]apiregistrationv1.ConditionStatus{apiregistrationv1.ConditionTrue, apiregistrationv1.ConditionFalse, apiregistrationv1.ConditionUnknown}))
		}
	}
	return errs
}
