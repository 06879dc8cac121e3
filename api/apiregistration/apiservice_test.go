package apiregistration

import (
	"strings"
	"testing"

	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

func TestValidate(t *testing.T) {
	port := func(n int32) *int32 { return &n }
	type service = apiregistrationv1.ServiceReference
	for _, c := range []struct {
		name   string // of the object; "" is the right one
		change func(*apiregistrationv1.APIServiceSpec)
		want   string // the errors' fields
	}{
		{"", func(s *apiregistrationv1.APIServiceSpec) {}, ""},
		{"bad", func(s *apiregistrationv1.APIServiceSpec) {}, "metadata.name"},
		{"", func(s *apiregistrationv1.APIServiceSpec) { s.Group = "" }, ""},
		{"", func(s *apiregistrationv1.APIServiceSpec) { s.Group, s.Version = "", "v2" }, "spec.group"},
		{"", func(s *apiregistrationv1.APIServiceSpec) { s.Group = "Bad_" }, "spec.group"},
		{"", func(s *apiregistrationv1.APIServiceSpec) { s.Version = "" }, "spec.version"},
		{"", func(s *apiregistrationv1.APIServiceSpec) { s.GroupPriorityMinimum, s.VersionPriority = 20001, 1001 }, "spec.groupPriorityMinimum spec.versionPriority"},
		{"", func(s *apiregistrationv1.APIServiceSpec) { s.CABundle, s.InsecureSkipTLSVerify = []byte("x"), true }, "spec.caBundle spec.insecureSkipTLSVerify"},
		{"", func(s *apiregistrationv1.APIServiceSpec) { s.Service = &service{Port: port(0)} }, "spec.service.namespace spec.service.name spec.service.port"},
		{"", func(s *apiregistrationv1.APIServiceSpec) {
			s.Service, s.CABundle = &service{Namespace: "n", Name: "s", Port: port(443)}, []byte("x")
		}, ""},
		{"", func(s *apiregistrationv1.APIServiceSpec) {
			s.Service, s.CABundle, s.InsecureSkipTLSVerify = &service{Namespace: "n", Name: "s"}, []byte("x"), true
		}, "spec.insecureSkipTLSVerify"},
	} {
		x := &apiregistrationv1.APIService{Spec: apiregistrationv1.APIServiceSpec{Group: "example.com", Version: "v1", GroupPriorityMinimum: 10, VersionPriority: 10}}
		c.change(&x.Spec)
		if x.Name = c.name; x.Name == "" {
			x.Name = x.Spec.Version + "." + x.Spec.Group
		}
		var got []string
		for _, err := range validateAPIService(x) {
			got = append(got, err.Field)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%+v: %v, want %s", x.Spec, got, c.want)
		}
	}
}
