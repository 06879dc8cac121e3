package aggregation

import (
	"context"
	"errors"
	"maps"
	"slices"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/skiff-sh/skiff/server/discovery"
	"github.com/skiff-sh/skiff/server/internal/read"
)

// managed marks the APIServices that the server itself keeps. Its value says how: those of built-in group-versions are
// looked after at each start and belong to the users in between, those of custom resources are kept all the time.
const (
	managed      = "kube-aggregator.kubernetes.io/automanaged"
	managedStart = "onstart"
	managedOn    = "true"
)

const fieldManager = "kube-apiserver"

// customPriority is what the groups of custom resources get.
var customPriority = discovery.Priority{Group: 1000, Version: 100}

// register makes the APIServices in the store those that they should be. Only at the start are those of built-in
// group-versions among them.
func (s *Server) register(ctx context.Context, start bool) error {
	have := map[string]*apiService{}
	for o := range read.All[*apiService](s.Store, "") {
		have[o.Name] = o
	}
	wanted := s.custom()
	if start {
		maps.Copy(wanted, s.builtin())
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		errs = append(errs, s.ensure(ctx, have[name], wanted[name]))
	}
	for name, o := range have {
		kind := o.Labels[managed]
		if wanted[name] == nil && (kind == managedOn || kind == managedStart && start) {
			errs = append(errs, s.drop(ctx, o))
		}
		if o.Spec.Service == nil {
			errs = append(errs, s.setAvailable(ctx, name, local()))
		}
	}
	return errors.Join(errs...)
}

// local is the condition of what is served here.
func local() apiregistrationv1.APIServiceCondition {
	return apiregistrationv1.APIServiceCondition{Type: apiregistrationv1.Available, Status: apiregistrationv1.ConditionTrue,
		Reason: "Local", Message: "Local APIServices are always available"}
}

// builtin are the APIServices of the group-versions that the server is born with. Its own has none.
func (s *Server) builtin() map[string]*apiService {
	out := map[string]*apiService{}
	for _, k := range s.Kinds.Kinds() {
		if gv := k.GroupVersion(); !k.CRD && gv.Group != apiregistrationv1.GroupName {
			o := localService(gv, discovery.BuiltinPriority(gv), managedStart)
			out[o.Name] = o
		}
	}
	return out
}

// custom are the APIServices of the group-versions of custom resources.
func (s *Server) custom() map[string]*apiService {
	out := map[string]*apiService{}
	for crd := range read.All[*apiextensionsv1.CustomResourceDefinition](s.Store, "") {
		for _, v := range crd.Spec.Versions {
			if v.Served {
				o := localService(schema.GroupVersion{Group: crd.Spec.Group, Version: v.Name}, customPriority, managedOn)
				out[o.Name] = o
			}
		}
	}
	return out
}

func localService(gv schema.GroupVersion, p discovery.Priority, how string) *apiService {
	return &apiService{
		ObjectMeta: metav1.ObjectMeta{Name: gv.Version + "." + gv.Group, Labels: map[string]string{managed: how}},
		Spec: apiregistrationv1.APIServiceSpec{Group: gv.Group, Version: gv.Version,
			GroupPriorityMinimum: p.Group, VersionPriority: p.Version},
	}
}

// ensure creates what is missing and repairs what the server keeps. What users have taken over stays theirs.
func (s *Server) ensure(ctx context.Context, have, want *apiService) error {
	if have == nil {
		_, err := s.Client.Create(ctx, read.Kind[*apiService](), want, metav1.CreateOptions{FieldManager: fieldManager})
		if apierrors.IsAlreadyExists(err) {
			return nil // another server was first
		}
		return err
	}
	if have.Labels[managed] == "" || apiequality.Semantic.DeepEqual(have.Spec, want.Spec) && have.Labels[managed] == want.Labels[managed] {
		return nil
	}
	o := have.DeepCopy()
	o.Spec = want.Spec
	o.Labels[managed] = want.Labels[managed]
	_, err := s.Client.Update(ctx, read.Kind[*apiService](), o, "", metav1.UpdateOptions{FieldManager: fieldManager})
	return settled(err)
}

func (s *Server) drop(ctx context.Context, o *apiService) error {
	return settled(s.Client.Delete(ctx, read.Kind[*apiService](), "", o.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &o.UID}}))
}

// setAvailable writes the condition of an APIService, where it is another than before.
func (s *Server) setAvailable(ctx context.Context, name string, c apiregistrationv1.APIServiceCondition) error {
	o, ok := read.Get[*apiService](s.Store, "", name)
	if !ok {
		return nil
	}
	was := condition(o)
	s.metrics.state(name, was, c)
	if was != nil && was.Status == c.Status && was.Reason == c.Reason && was.Message == c.Message {
		return nil
	}
	o = o.DeepCopy()
	c.LastTransitionTime = metav1.Now()
	if was == nil {
		o.Status.Conditions = append(o.Status.Conditions, c)
	} else {
		if was.Status == c.Status {
			c.LastTransitionTime = was.LastTransitionTime
		}
		*condition(o) = c
	}
	_, err := s.Client.Update(ctx, read.Kind[*apiService](), o, "status", metav1.UpdateOptions{FieldManager: fieldManager})
	return settled(err)
}

// settled forgets the errors of a race that somebody else has won: the change that they made is looked at next.
func settled(err error) error {
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
