package flow

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	upstream "k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"

	"github.com/skiff-sh/skiff/api"
	internalread "github.com/skiff-sh/skiff/server/internal/read"
)

// Client is the part of a client that maintenance needs. It must be one that may do everything.
type Client interface {
	Create(ctx context.Context, k *api.Kind, obj api.Object, o metav1.CreateOptions) (api.Object, error)
	Update(ctx context.Context, k *api.Kind, obj api.Object, subresource string, o metav1.UpdateOptions) (api.Object, error)
	Patch(ctx context.Context, k *api.Kind, namespace, name, subresource string, t types.PatchType, data []byte, o metav1.PatchOptions) (api.Object, error)
	Delete(ctx context.Context, k *api.Kind, namespace, name string, o metav1.DeleteOptions) error
}

// autoUpdate says of an object whether the server keeps its specification as upstream suggests it.
const autoUpdate = flowcontrolv1.AutoUpdateAnnotationKey

// repair is one write that maintenance wants: of the object, or if gone its deletion.
type repair struct {
	obj    api.Object
	create bool
	gone   bool
}

// repairs compares the stored objects of one kind with those that every cluster has. Mandatory ones are put right in any case,
// suggested ones unless their annotation says that they are the operator's; ones that upstream suggested once and does no more are
// removed.
func repairs[T api.Object](have, mandatory, suggested []T, spec func(T) any, copySpec func(to, from T)) []repair {
	var out []repair
	stored := map[string]T{}
	for _, o := range have {
		stored[o.GetName()] = o
	}
	k := internalread.Kind[T]()
	one := func(o T, must bool) {
		want := o.DeepCopyObject().(T)
		if k.Default != nil {
			k.Default(want)
		}
		now, found := stored[want.GetName()]
		delete(stored, want.GetName())
		if !found {
			annotate(want, "true")
			out = append(out, repair{obj: want, create: true})
			return
		}
		says := now.GetAnnotations()[autoUpdate]
		keep := must || says == "true" || says != "false" && now.GetGeneration() == 1
		next := now.DeepCopyObject().(T)
		annotate(next, map[bool]string{true: "true", false: "false"}[keep])
		if keep {
			copySpec(next, want)
		}
		if next.GetAnnotations()[autoUpdate] != says || !equality.Semantic.DeepEqual(spec(next), spec(now)) {
			out = append(out, repair{obj: next})
		}
	}
	for _, o := range mandatory {
		one(o, true)
	}
	for _, o := range suggested {
		one(o, false)
	}
	for _, o := range stored {
		if o.GetAnnotations()[autoUpdate] == "true" {
			out = append(out, repair{obj: o, gone: true})
		}
	}
	return out
}

func annotate(o api.Object, value string) {
	a := maps.Clone(o.GetAnnotations())
	if a == nil {
		a = map[string]string{}
	}
	a[autoUpdate] = value
	o.SetAnnotations(a)
}

// copyLevel leaves the operator's the seats of the exempt level, which alone may be changed of a mandatory object.
func copyLevel(to, from *flowcontrolv1.PriorityLevelConfiguration) {
	mine := to.Spec.Exempt
	to.Spec = from.Spec
	if to.Name == flowcontrolv1.PriorityLevelConfigurationNameExempt && mine != nil {
		to.Spec.Exempt = mine
	}
}

// maintain makes sure of the objects that every cluster has. What fails is tried again the next time.
func (g *Gate) maintain(ctx context.Context) {
	if g.cfg.Client == nil {
		return
	}
	levels := repairs(objects[*flowcontrolv1.PriorityLevelConfiguration](g.cfg.Store), upstream.MandatoryPriorityLevelConfigurations,
		upstream.SuggestedPriorityLevelConfigurations, func(o *flowcontrolv1.PriorityLevelConfiguration) any { return o.Spec }, copyLevel)
	schemas := repairs(objects[*flowcontrolv1.FlowSchema](g.cfg.Store), upstream.MandatoryFlowSchemas, upstream.SuggestedFlowSchemas,
		func(o *flowcontrolv1.FlowSchema) any { return o.Spec }, func(to, from *flowcontrolv1.FlowSchema) { to.Spec = from.Spec })
	for _, r := range append(levels, schemas...) {
		if err := g.write(ctx, r); err != nil && ctx.Err() == nil {
			g.cfg.Log.Warn("an object of flow control cannot be put right", "name", r.obj.GetName(), "err", err)
		}
	}
}

func (g *Gate) write(ctx context.Context, r repair) (err error) {
	k := internalread.Kind[*flowcontrolv1.FlowSchema]()
	if _, ok := r.obj.(*flowcontrolv1.PriorityLevelConfiguration); ok {
		k = internalread.Kind[*flowcontrolv1.PriorityLevelConfiguration]()
	}
	switch {
	case r.gone:
		uid := r.obj.GetUID()
		err = g.cfg.Client.Delete(ctx, k, "", r.obj.GetName(), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	case r.create:
		_, err = g.cfg.Client.Create(ctx, k, r.obj, metav1.CreateOptions{FieldManager: "api-priority-and-fairness-config-producer-v1"})
	default:
		_, err = g.cfg.Client.Update(ctx, k, r.obj, "", metav1.UpdateOptions{FieldManager: "api-priority-and-fairness-config-producer-v1"})
	}
	if apierrors.IsAlreadyExists(err) || apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil // somebody else was faster
	}
	return err
}

// statusManager is the field manager of the schemas' conditions.
const statusManager = "api-priority-and-fairness-config-consumer-v1"

// tellStatus writes whether each schema's level exists, where its status says otherwise.
func (g *Gate) tellStatus(ctx context.Context) {
	if g.cfg.Client == nil {
		return
	}
	dangling := g.plan.Load().dangling
	for _, o := range objects[*flowcontrolv1.FlowSchema](g.cfg.Store) {
		is, known := dangling[o.Name]
		if !known || ctx.Err() != nil {
			continue
		}
		want := condition(o.Spec.PriorityLevelConfiguration.Name, is)
		if told(o, want) {
			continue
		}
		want.LastTransitionTime = metav1.Now()
		patch, err := json.Marshal(map[string]any{"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema",
			"metadata": map[string]any{"name": o.Name}, "status": map[string]any{"conditions": []any{want}}})
		if err != nil {
			continue
		}
		force := true
		_, err = g.cfg.Client.Patch(ctx, internalread.Kind[*flowcontrolv1.FlowSchema](), "", o.Name, "status", types.ApplyPatchType, patch,
			metav1.PatchOptions{FieldManager: statusManager, Force: &force})
		if err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
			g.cfg.Log.Warn("the status of a FlowSchema cannot be written", "name", o.Name, "err", err)
		}
	}
}

func condition(level string, dangling bool) flowcontrolv1.FlowSchemaCondition {
	c := flowcontrolv1.FlowSchemaCondition{Type: flowcontrolv1.FlowSchemaConditionDangling, Status: flowcontrolv1.ConditionFalse, Reason: "Found",
		Message: fmt.Sprintf("This FlowSchema references the PriorityLevelConfiguration object named %q and it exists", level)}
	if dangling {
		c.Status, c.Reason = flowcontrolv1.ConditionTrue, "NotFound"
		c.Message = fmt.Sprintf("This FlowSchema references the PriorityLevelConfiguration object named %q but there is no such object", level)
	}
	return c
}

func told(o *flowcontrolv1.FlowSchema, want flowcontrolv1.FlowSchemaCondition) bool {
	for _, c := range o.Status.Conditions {
		if c.Type == want.Type {
			return c.Status == want.Status && c.Reason == want.Reason && c.Message == want.Message
		}
	}
	return false
}
