package clienttest

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/yaml"

	"github.com/skiff-sh/skiff/api"
)

func (a *API) Update(ctx context.Context, k *api.Kind, obj api.Object, subresource string, o metav1.UpdateOptions) (api.Object, error) {
	if err := a.called(Call{Verb: "update", Kind: k, Namespace: obj.GetNamespace(), Name: obj.GetName(), Subresource: subresource, Body: obj}); err != nil {
		return nil, err
	}
	stored, err := in(k, obj)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	old, err := a.find(k, obj.GetNamespace(), obj.GetName())
	if err != nil {
		return nil, err
	}
	stored, err = a.update(ctx, k, old, stored, subresource, len(o.DryRun) > 0)
	if err != nil {
		return nil, err
	}
	return out(k, stored)
}

// update brings the stored object from old to obj, which is a's own.
func (a *API) update(ctx context.Context, k *api.Kind, old, obj api.Object, subresource string, dryRun bool) (api.Object, error) {
	if obj.GetUID() != "" && obj.GetUID() != old.GetUID() {
		return nil, apierrors.NewConflict(k.GroupResource(), old.GetName(), fmt.Errorf("the UID in the precondition is %v, the object's is %v", obj.GetUID(), old.GetUID()))
	}
	if rv := obj.GetResourceVersion(); rv != "" && rv != old.GetResourceVersion() {
		return nil, apierrors.NewConflict(k.GroupResource(), old.GetName(),
			fmt.Errorf("the object has been modified; please apply your changes to the latest version and try again"))
	}
	hub := k.Storage()
	switch {
	case subresource == "status":
		next := old.DeepCopyObject().(api.Object)
		setStatus(next, obj)
		obj = next
	case hub.PrepareUpdate != nil && subresource == "":
		hub.PrepareUpdate(ctx, obj, old)
	}
	obj.SetUID(old.GetUID())
	obj.SetCreationTimestamp(old.GetCreationTimestamp())
	obj.SetDeletionTimestamp(old.GetDeletionTimestamp())
	obj.SetDeletionGracePeriodSeconds(old.GetDeletionGracePeriodSeconds())
	obj.SetGeneration(old.GetGeneration())
	obj.SetResourceVersion(old.GetResourceVersion())
	if hub.Default != nil {
		hub.Default(obj)
	}
	if equality.Semantic.DeepEqual(old, obj) {
		return old, nil
	}
	if hub.HasGeneration && subresource != "status" && specChanged(old, obj) {
		obj.SetGeneration(old.GetGeneration() + 1)
	}
	if dryRun {
		return obj, nil
	}
	if g := obj.GetDeletionGracePeriodSeconds(); obj.GetDeletionTimestamp() != nil && len(obj.GetFinalizers()) == 0 && (g == nil || *g == 0) {
		a.remove(resource(k), old)
		return obj, nil
	}
	return a.commit(resource(k), old, obj), nil
}

// setStatus copies the status of from into to.
func setStatus(to, from api.Object) {
	if u, ok := to.(*unstructured.Unstructured); ok {
		if status, ok := from.(*unstructured.Unstructured).Object["status"]; ok {
			u.Object["status"] = status
		} else {
			delete(u.Object, "status")
		}
		return
	}
	dst, src := reflect.ValueOf(to).Elem().FieldByName("Status"), reflect.ValueOf(from).Elem().FieldByName("Status")
	if dst.IsValid() {
		dst.Set(src)
	}
}

// specChanged reports whether anything outside metadata and status differs.
func specChanged(old, obj api.Object) bool {
	strip := func(o api.Object) map[string]any {
		m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
		if err != nil {
			panic(err)
		}
		if _, ok := o.(*unstructured.Unstructured); ok {
			m = runtime.DeepCopyJSON(m)
		}
		delete(m, "metadata")
		delete(m, "status")
		return m
	}
	return !reflect.DeepEqual(strip(old), strip(obj))
}

func (a *API) Patch(ctx context.Context, k *api.Kind, namespace, name, subresource string, t types.PatchType, data []byte, o metav1.PatchOptions) (api.Object, error) {
	if err := a.called(Call{Verb: "patch", Kind: k, Namespace: namespace, Name: name, Subresource: subresource, Patch: data}); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	old, err := a.find(k, namespace, name)
	if apierrors.IsNotFound(err) && t == types.ApplyPatchType {
		return a.applyNew(k, namespace, name, data)
	}
	if err != nil {
		return nil, err
	}
	shown, err := out(k, old)
	if err != nil {
		return nil, err
	}
	patched, err := patch(k, shown, t, data)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if patched, err = in(k, patched); err != nil {
		return nil, err
	}
	patched, err = a.update(ctx, k, old, patched, subresource, len(o.DryRun) > 0)
	if err != nil {
		return nil, err
	}
	return out(k, patched)
}

func (a *API) applyNew(k *api.Kind, namespace, name string, data []byte) (api.Object, error) {
	obj := k.New()
	if err := yaml.Unmarshal(data, obj); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	obj.SetNamespace(namespace)
	obj.SetName(name)
	stored, err := in(k, obj)
	if err != nil {
		return nil, err
	}
	a.complete(k.Storage(), stored)
	return out(k, a.commit(resource(k), nil, stored))
}

func patch(k *api.Kind, old api.Object, t types.PatchType, data []byte) (api.Object, error) {
	before, err := json.Marshal(old)
	if err != nil {
		return nil, err
	}
	var after []byte
	switch t {
	case types.JSONPatchType:
		p, err := jsonpatch.DecodePatch(data)
		if err != nil {
			return nil, err
		}
		if after, err = p.Apply(before); err != nil {
			return nil, err
		}
	case types.ApplyPatchType, types.StrategicMergePatchType:
		if t == types.ApplyPatchType { // no field ownership here: an apply only adds and changes
			if data, err = yaml.YAMLToJSON(data); err != nil {
				return nil, err
			}
		}
		if !k.CRD {
			after, err = strategicpatch.StrategicMergePatch(before, data, k.New())
			break
		}
		after, err = jsonpatch.MergePatch(before, data)
	case types.MergePatchType:
		after, err = jsonpatch.MergePatch(before, data)
	default:
		return nil, fmt.Errorf("patch type %q is not known", t)
	}
	if err != nil {
		return nil, err
	}
	obj := k.New()
	return obj, json.Unmarshal(after, obj)
}

func (a *API) Delete(ctx context.Context, k *api.Kind, namespace, name string, o metav1.DeleteOptions) error {
	if err := a.called(Call{Verb: "delete", Kind: k, Namespace: namespace, Name: name}); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	old, err := a.find(k, namespace, name)
	if err != nil {
		return err
	}
	return a.delete(k, old, o)
}

func (a *API) DeleteCollection(ctx context.Context, k *api.Kind, namespace string, o metav1.DeleteOptions, l metav1.ListOptions) error {
	if err := a.called(Call{Verb: "deletecollection", Kind: k, Namespace: namespace}); err != nil {
		return err
	}
	match, err := selector(k, namespace, l)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	objs, err := a.matching(k, match)
	for _, o2 := range objs {
		if err == nil {
			err = a.delete(k, a.tables[resource(k)][nameOf(o2)], o)
		}
	}
	return err
}

func (a *API) delete(k *api.Kind, old api.Object, o metav1.DeleteOptions) error {
	if p := o.Preconditions; p != nil {
		if p.UID != nil && *p.UID != old.GetUID() || p.ResourceVersion != nil && *p.ResourceVersion != old.GetResourceVersion() {
			return apierrors.NewConflict(k.GroupResource(), old.GetName(), fmt.Errorf("the preconditions of the deletion do not hold"))
		}
	}
	obj := old.DeepCopyObject().(api.Object)
	var grace int64
	wait := false
	if hub := k.Storage(); hub.GracefulDelete != nil {
		o = *o.DeepCopy()
		if wait = hub.GracefulDelete(obj, &o); wait && o.GracePeriodSeconds != nil {
			grace = *o.GracePeriodSeconds
		}
	}
	if p := o.PropagationPolicy; p != nil {
		for policy, finalizer := range map[metav1.DeletionPropagation]string{
			metav1.DeletePropagationForeground: metav1.FinalizerDeleteDependents, metav1.DeletePropagationOrphan: metav1.FinalizerOrphanDependents} {
			if *p == policy && !slices.Contains(obj.GetFinalizers(), finalizer) {
				obj.SetFinalizers(append(obj.GetFinalizers(), finalizer))
			}
		}
	}
	if !wait && len(obj.GetFinalizers()) == 0 {
		a.remove(resource(k), old)
		return nil
	}
	if g := old.GetDeletionGracePeriodSeconds(); old.GetDeletionTimestamp() == nil || g != nil && grace < *g {
		obj.SetDeletionTimestamp(&metav1.Time{Time: a.clock.Now().Truncate(time.Second).Add(time.Duration(grace) * time.Second)})
		obj.SetDeletionGracePeriodSeconds(&grace)
	}
	if !equality.Semantic.DeepEqual(old, obj) {
		a.commit(resource(k), old, obj)
	}
	return nil
}

// bind is the pods' binding subresource.
func (a *API) bind(k *api.Kind, parent api.Object, body runtime.Object) (runtime.Object, error) {
	b, ok := body.(*corev1.Binding)
	pod, isPod := parent.(*corev1.Pod)
	if !ok || !isPod {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("cannot bind %T with %T", parent, body))
	}
	if pod.Spec.NodeName != "" {
		return nil, apierrors.NewConflict(k.GroupResource(), pod.Name, fmt.Errorf("pod %s is already assigned to node %q", pod.Name, pod.Spec.NodeName))
	}
	next := pod.DeepCopy()
	next.Spec.NodeName = b.Target.Name
	next.Status.Conditions = slices.DeleteFunc(next.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodScheduled })
	next.Status.Conditions = append(next.Status.Conditions, corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue,
		LastTransitionTime: metav1.NewTime(a.clock.Now().Truncate(time.Second))})
	a.commit(resource(k), pod, next)
	return success, nil
}
