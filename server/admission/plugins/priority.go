package plugins

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/internal/read"
	"github.com/skiff-sh/skiff/store"
)

// priority turns a pod's priority class into its number, and allows one default class.
type priority struct{ st store.Store }

func (*priority) Name() string { return "Priority" }
func (*priority) Handles(op admission.Operation, k *api.Kind, sub string) bool {
	return sub == "" && in(op, admission.Create, admission.Update) && (isPod(k) || is(k, "scheduling.k8s.io", "priorityclasses"))
}

func (p *priority) Admit(ctx context.Context, r *admission.Request) error {
	o := pod(r)
	if o == nil {
		return nil
	}
	if r.Operation == admission.Update {
		// A client that does not know of the fields must not lose them.
		if old, ok := r.Old.(*corev1.Pod); ok {
			if o.Spec.Priority == nil {
				o.Spec.Priority = old.Spec.Priority
			}
			if o.Spec.PreemptionPolicy == nil {
				o.Spec.PreemptionPolicy = old.Spec.PreemptionPolicy
			}
		}
		return nil
	}
	value, policy := int32(0), corev1.PreemptLowerPriority
	class, err := p.class(ctx, r, o)
	if err != nil {
		return err
	}
	if class != nil {
		value, o.Spec.PriorityClassName = class.Value, class.Name
		if class.PreemptionPolicy != nil {
			policy = *class.PreemptionPolicy
		}
	}
	if o.Spec.Priority != nil && *o.Spec.Priority != value {
		return forbidden(r, "the integer value of priority (%d) must not be provided in pod spec; priority admission controller computed %d from the given PriorityClass name", *o.Spec.Priority, value)
	}
	if o.Spec.PreemptionPolicy != nil && *o.Spec.PreemptionPolicy != policy {
		return forbidden(r, "the string value of PreemptionPolicy (%s) must not be provided in pod spec; priority admission controller computed %s from the given PriorityClass name", *o.Spec.PreemptionPolicy, policy)
	}
	o.Spec.Priority, o.Spec.PreemptionPolicy = &value, &policy
	return nil
}

// class is the pod's class, or the default class with the lowest value, or nil.
func (p *priority) class(ctx context.Context, r *admission.Request, o *corev1.Pod) (*schedulingv1.PriorityClass, error) {
	if name := o.Spec.PriorityClassName; name != "" {
		c, ok, err := read.Fresh[*schedulingv1.PriorityClass](ctx, p.st, "", name)
		if err != nil {
			return nil, apierrors.NewInternalError(fmt.Errorf("failed to get PriorityClass with name %s: %w", name, err))
		}
		if !ok {
			return nil, forbidden(r, "no PriorityClass with name %v was found", name)
		}
		return c, nil
	}
	var def *schedulingv1.PriorityClass
	for c := range read.All[*schedulingv1.PriorityClass](p.st, "") {
		if c.GlobalDefault && (def == nil || c.Value < def.Value) {
			def = c
		}
	}
	return def, nil
}

func (p *priority) Validate(_ context.Context, r *admission.Request) error {
	c, ok := r.Object.(*schedulingv1.PriorityClass)
	if !ok || !c.GlobalDefault {
		return nil
	}
	for other := range read.All[*schedulingv1.PriorityClass](p.st, "") {
		if other.GlobalDefault && (r.Operation == admission.Create || other.Name != c.Name) && !strings.HasPrefix(other.Name, "system-") {
			return forbidden(r, "PriorityClass %v is already marked as default. Only one default can exist", other.Name)
		}
	}
	return nil
}
