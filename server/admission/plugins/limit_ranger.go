package plugins

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	resourcehelper "k8s.io/component-helpers/resource"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/internal/read"
	"github.com/skiff-sh/skiff/store"
)

// limitRanger applies the namespace's LimitRanges: defaults for containers, and bounds for containers, pods and claims.
type limitRanger struct{ st store.Store }

const limitRangerAnnotation = "kubernetes.io/limit-ranger"

func (*limitRanger) Name() string { return "LimitRanger" }
func (*limitRanger) Handles(op admission.Operation, k *api.Kind, sub string) bool {
	switch {
	case isPod(k):
		return (op == admission.Create && sub == "") || (op == admission.Update && sub == "resize")
	case is(k, "", "persistentvolumeclaims"):
		return in(op, admission.Create, admission.Update) && sub == ""
	}
	return false
}

func (p *limitRanger) Admit(_ context.Context, r *admission.Request) error {
	o := pod(r)
	if o == nil {
		return nil
	}
	if old, ok := r.Old.(*corev1.Pod); ok && old.DeletionTimestamp != nil {
		return nil
	}
	for l := range read.All[*corev1.LimitRange](p.st, r.Namespace) {
		requests, limits := containerDefaults(l)
		var set []string
		for i := range o.Spec.Containers {
			set = fillIn(set, "container", &o.Spec.Containers[i], requests, limits)
		}
		for i := range o.Spec.InitContainers {
			set = fillIn(set, "init container", &o.Spec.InitContainers[i], requests, limits)
		}
		if len(set) > 0 {
			if o.Annotations == nil {
				o.Annotations = map[string]string{}
			}
			o.Annotations[limitRangerAnnotation] = "LimitRanger plugin set: " + strings.Join(set, "; ")
		}
	}
	return nil
}

func containerDefaults(l *corev1.LimitRange) (requests, limits corev1.ResourceList) {
	requests, limits = corev1.ResourceList{}, corev1.ResourceList{}
	for _, i := range l.Spec.Limits {
		if i.Type != corev1.LimitTypeContainer {
			continue
		}
		for k, v := range i.DefaultRequest {
			requests[k] = v.DeepCopy()
		}
		for k, v := range i.Default {
			limits[k] = v.DeepCopy()
		}
	}
	return requests, limits
}

// fillIn sets what the container leaves open and adds to set what that was, for the annotation.
func fillIn(set []string, kind string, c *corev1.Container, requests, limits corev1.ResourceList) []string {
	merge := func(have *corev1.ResourceList, defaults corev1.ResourceList, what string) {
		var names []string
		for k, v := range defaults {
			if _, ok := (*have)[k]; ok {
				continue
			}
			if *have == nil {
				*have = corev1.ResourceList{}
			}
			(*have)[k] = v.DeepCopy()
			names = append(names, string(k))
		}
		if len(names) > 0 {
			slices.Sort(names)
			set = append(set, fmt.Sprintf("%s %s for %s %s", strings.Join(names, ", "), what, kind, c.Name))
		}
	}
	merge(&c.Resources.Requests, requests, "request")
	merge(&c.Resources.Limits, limits, "limit")
	return set
}

func (p *limitRanger) Validate(_ context.Context, r *admission.Request) error {
	for l := range read.All[*corev1.LimitRange](p.st, r.Namespace) {
		var errs []error
		switch o := r.Object.(type) {
		case *corev1.Pod:
			if old, ok := r.Old.(*corev1.Pod); ok && old.DeletionTimestamp != nil {
				return nil
			}
			errs = podBounds(l, o)
		case *corev1.PersistentVolumeClaim:
			if old, ok := r.Old.(*corev1.PersistentVolumeClaim); ok && old.DeletionTimestamp != nil {
				return nil
			}
			errs = claimBounds(l, o)
		}
		if err := utilerrors.NewAggregate(errs); err != nil {
			return forbidden(r, "%w", err)
		}
	}
	return nil
}

func podBounds(l *corev1.LimitRange, o *corev1.Pod) (errs []error) {
	for _, i := range l.Spec.Limits {
		switch i.Type {
		case corev1.LimitTypeContainer:
			for _, cs := range [][]corev1.Container{o.Spec.Containers, o.Spec.InitContainers} {
				for j := range cs {
					errs = append(errs, bounds(&i, cs[j].Resources.Requests, cs[j].Resources.Limits)...)
				}
			}
		case corev1.LimitTypePod:
			opts := resourcehelper.PodResourcesOptions{ExcludeOverhead: true}
			errs = append(errs, bounds(&i, resourcehelper.PodRequests(o, opts), resourcehelper.PodLimits(o, opts))...)
		}
	}
	return errs
}

func claimBounds(l *corev1.LimitRange, c *corev1.PersistentVolumeClaim) (errs []error) {
	for _, i := range l.Spec.Limits {
		if i.Type != corev1.LimitTypePersistentVolumeClaim {
			continue
		}
		for _, k := range sorted(i.Min) {
			errs = append(errs, atLeast(i.Type, k, i.Min[k], c.Spec.Resources.Requests, nil))
		}
		for _, k := range sorted(i.Max) {
			limit := i.Max[k]
			if q, ok := c.Spec.Resources.Requests[k]; !ok {
				errs = append(errs, fmt.Errorf("maximum %s usage per %s is %s.  No request is specified", k, i.Type, limit.String()))
			} else if q.Cmp(limit) > 0 {
				errs = append(errs, fmt.Errorf("maximum %s usage per %s is %s, but request is %s", k, i.Type, limit.String(), q.String()))
			}
		}
	}
	return errs
}

func bounds(i *corev1.LimitRangeItem, requests, limits corev1.ResourceList) (errs []error) {
	for _, k := range sorted(i.Min) {
		errs = append(errs, atLeast(i.Type, k, i.Min[k], requests, limits))
	}
	for _, k := range sorted(i.Max) {
		errs = append(errs, atMost(i.Type, k, i.Max[k], requests, limits))
	}
	for _, k := range sorted(i.MaxLimitRequestRatio) {
		errs = append(errs, ratio(i.Type, k, i.MaxLimitRequestRatio[k], requests, limits))
	}
	return errs
}

func atLeast(t corev1.LimitType, k corev1.ResourceName, bound resource.Quantity, requests, limits corev1.ResourceList) error {
	request, ok := requests[k]
	if !ok {
		return fmt.Errorf("minimum %s usage per %s is %s.  No request is specified", k, t, bound.String())
	}
	if request.Cmp(bound) < 0 {
		return fmt.Errorf("minimum %s usage per %s is %s, but request is %s", k, t, bound.String(), request.String())
	}
	if limit, ok := limits[k]; ok && limit.Cmp(bound) < 0 {
		return fmt.Errorf("minimum %s usage per %s is %s, but limit is %s", k, t, bound.String(), limit.String())
	}
	return nil
}

func atMost(t corev1.LimitType, k corev1.ResourceName, bound resource.Quantity, requests, limits corev1.ResourceList) error {
	limit, ok := limits[k]
	if !ok {
		return fmt.Errorf("maximum %s usage per %s is %s.  No limit is specified", k, t, bound.String())
	}
	if limit.Cmp(bound) > 0 {
		return fmt.Errorf("maximum %s usage per %s is %s, but limit is %s", k, t, bound.String(), limit.String())
	}
	if request, ok := requests[k]; ok && request.Cmp(bound) > 0 {
		return fmt.Errorf("maximum %s usage per %s is %s, but request is %s", k, t, bound.String(), request.String())
	}
	return nil
}

func ratio(t corev1.LimitType, k corev1.ResourceName, bound resource.Quantity, requests, limits corev1.ResourceList) error {
	request, ok := requests[k]
	if !ok || request.IsZero() {
		return fmt.Errorf("%s max limit to request ratio per %s is %s, but no request is specified or request is 0", k, t, bound.String())
	}
	limit, ok := limits[k]
	if !ok || limit.IsZero() {
		return fmt.Errorf("%s max limit to request ratio per %s is %s, but no limit is specified or limit is 0", k, t, bound.String())
	}
	if have := limit.AsApproximateFloat64() / request.AsApproximateFloat64(); have > bound.AsApproximateFloat64() {
		return fmt.Errorf("%s max limit to request ratio per %s is %s, but provided ratio is %f", k, t, bound.String(), have)
	}
	return nil
}

func sorted(l corev1.ResourceList) []corev1.ResourceName {
	names := make([]corev1.ResourceName, 0, len(l))
	for k := range l {
		names = append(names, k)
	}
	slices.Sort(names)
	return names
}
