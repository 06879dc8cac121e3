// Package revisions keeps the history of a pod template in ControllerRevisions, for DaemonSets and StatefulSets.
//
// Invariant: one revision exists for each distinct template, the newest has the highest number, and one that a pod
// still carries the hash of is not deleted. Only controllers/ may import revisions.
package revisions

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/controllers/pods"
	"github.com/skiff-sh/skiff/reconcile"
)

// HashLabel carries a revision's hash on revisions and (with Owner.PodLabel) pods.
const HashLabel = appsv1.ControllerRevisionHashLabelKey

// Owner is whose template is kept.
type Owner struct {
	Obj        api.Object
	Kind       schema.GroupVersionKind
	Template   *corev1.PodTemplateSpec
	Collisions *int32
	Limit      *int32 // nil: 10
}

// Data is the revision's content: a strategic merge patch that replaces the template, which kubectl rollout undo
// applies as it stands.
func Data(t *corev1.PodTemplateSpec) []byte {
	var m map[string]any
	raw, err := json.Marshal(t)
	if err == nil {
		err = json.Unmarshal(raw, &m)
	}
	if err != nil {
		panic(err) // a template that came out of JSON goes into JSON
	}
	m["$patch"] = "replace"
	out, err := json.Marshal(map[string]any{"spec": map[string]any{"template": m}})
	if err != nil {
		panic(err)
	}
	return out
}

// Sync finds the revision of the present template, or plans it: made anew, or an old one with the highest number
// again. Collided says that the name is taken by other content, so that the owner must count a collision up.
func Sync(o Owner, have []*appsv1.ControllerRevision, named func(string) (*appsv1.ControllerRevision, bool)) (current *appsv1.ControllerRevision, actions []plan.Action, collided bool) {
	data := Data(o.Template)
	have = sorted(have)
	next := int64(1)
	if len(have) > 0 {
		next = have[len(have)-1].Revision + 1
	}
	for i := len(have) - 1; i >= 0; i-- {
		r := have[i]
		if !sameData(r.Data.Raw, data) {
			continue
		}
		if r.Revision == next-1 {
			return r, nil, false
		}
		r = r.DeepCopy()
		r.Revision = next
		return r, []plan.Action{plan.Update{Obj: r}}, false
	}
	hash := pods.Hash(json.RawMessage(data), o.Collisions)
	name := o.Obj.GetName() + "-" + hash
	if _, taken := named(name); taken {
		return nil, nil, true
	}
	labels := map[string]string{}
	maps.Copy(labels, o.Template.Labels)
	labels[HashLabel] = hash
	r := &appsv1.ControllerRevision{
		ObjectMeta: metav1.ObjectMeta{Namespace: o.Obj.GetNamespace(), Name: name, Labels: labels, Annotations: maps.Clone(o.Obj.GetAnnotations()),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(o.Obj, o.Kind)}},
		Data: runtime.RawExtension{Raw: data}, Revision: next,
	}
	return r, []plan.Action{plan.Create{Obj: r}}, false
}

// Ensure is Sync carried out. It returns nil without an error where the plan ends here, because the name was taken: the
// collision is then counted in the status of the owner that counted makes.
func Ensure(ctx context.Context, d reconcile.Deps, o Owner, have []*appsv1.ControllerRevision, all client.Reader[*appsv1.ControllerRevision],
	counted func(collisions *int32) api.Object) (*appsv1.ControllerRevision, error) {
	current, actions, collided := Sync(o, have, func(name string) (*appsv1.ControllerRevision, bool) { return all.Get(o.Obj.GetNamespace(), name) })
	if collided {
		n := ptr.Deref(o.Collisions, 0) + 1
		return nil, plan.Apply(ctx, d, plan.Status(counted(&n)))
	}
	return current, plan.Apply(ctx, d, actions...)
}

// sameData compares contents, whatever order their keys have.
func sameData(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	ca, _ := json.Marshal(x)
	cb, _ := json.Marshal(y)
	return bytes.Equal(ca, cb)
}

// Hash is the hash in a revision's label.
func Hash(r *appsv1.ControllerRevision) string { return r.Labels[HashLabel] }

// Trim deletes the oldest revisions beyond the limit that no pod carries and that are not the kept ones.
func Trim(o Owner, have []*appsv1.ControllerRevision, live map[string]bool) (actions []plan.Action) {
	limit := 10
	if o.Limit != nil {
		limit = int(*o.Limit)
	}
	var idle []*appsv1.ControllerRevision
	for _, r := range sorted(have) {
		if !live[Hash(r)] && !live[r.Name] {
			idle = append(idle, r)
		}
	}
	for _, r := range idle[:max(len(idle)-limit, 0)] {
		actions = append(actions, plan.Delete{Obj: r})
	}
	return actions
}

func sorted(have []*appsv1.ControllerRevision) []*appsv1.ControllerRevision {
	have = slices.Clone(have)
	slices.SortFunc(have, func(a, b *appsv1.ControllerRevision) int {
		return cmp.Or(cmp.Compare(a.Revision, b.Revision), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	return have
}

// Template reads a revision back into a template; ok is false where it is not one.
func Template(r *appsv1.ControllerRevision) (t corev1.PodTemplateSpec, ok bool) {
	var patch struct {
		Spec struct {
			Template *corev1.PodTemplateSpec `json:"template"`
		} `json:"spec"`
	}
	if json.Unmarshal(r.Data.Raw, &patch) != nil || patch.Spec.Template == nil {
		return t, false
	}
	return *patch.Spec.Template, true
}
