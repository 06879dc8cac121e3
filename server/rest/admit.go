package rest

import (
	"context"
	"reflect"
	"slices"
	"strings"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
)

const (
	duplicateOwners = ".metadata.ownerReferences contains duplicate entries"
	duplicateAdvice = "; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: "
	spoiledManaged  = ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating admission controller; please fix your requests: "
)

// admit lets admission change an object that is about to be written. Managed fields that it spoils come back, and owners
// that it names twice are named once.
func (r *REST) admit(ctx context.Context, ar *admission.Request) error {
	managed := ar.Object.(api.Object).GetManagedFields()
	if err := r.Admission.Admit(ctx, ar); err != nil {
		return err
	}
	obj := ar.Object.(api.Object)
	if now := obj.GetManagedFields(); !reflect.DeepEqual(now, managed) {
		if err := managedfields.ValidateManagedFields(now); err != nil {
			obj.SetManagedFields(managed)
			Warn(ctx, spoiledManaged+err.Error())
		}
	}
	uniqueOwners(ctx, obj, " after mutating admission happens")
	return nil
}

// uniqueOwners drops owner references that are there twice, and says so.
func uniqueOwners(ctx context.Context, obj api.Object, when string) {
	refs := obj.GetOwnerReferences()
	if len(refs) < 2 {
		return
	}
	var out []metav1.OwnerReference
	var twice []string
	for _, ref := range refs {
		if slices.ContainsFunc(out, func(o metav1.OwnerReference) bool { return apiequality.Semantic.DeepEqual(o, ref) }) {
			twice = append(twice, string(ref.UID))
			continue
		}
		out = append(out, ref)
	}
	if len(twice) > 0 {
		obj.SetOwnerReferences(out)
		Warn(ctx, duplicateOwners+when+duplicateAdvice+strings.Join(twice, ", "))
	}
}
