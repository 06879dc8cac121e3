package plugins

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
)

// ownerReferences lets nobody change what the garbage collector will do to objects that he may not delete, nor keep
// owners whose finalizers he may not set. It is off by default.
type ownerReferences struct {
	kinds *api.Table
	a     authorizer.Authorizer
}

func (*ownerReferences) Name() string { return "OwnerReferencesPermissionEnforcement" }
func (*ownerReferences) Handles(op admission.Operation, k *api.Kind, sub string) bool {
	return in(op, admission.Create, admission.Update) && !(isPod(k) && sub == "status")
}

func (p *ownerReferences) Validate(ctx context.Context, r *admission.Request) error {
	obj, ok := r.Object.(metav1.Object)
	if !ok {
		return nil
	}
	var had []metav1.OwnerReference
	if old, ok := r.Old.(metav1.Object); ok {
		had = old.GetOwnerReferences()
	}
	refs := obj.GetOwnerReferences()
	if equality.Semantic.DeepEqual(refs, had) {
		return nil
	}
	row := r.Kind
	if r.Requested != nil {
		row = r.Requested
	}
	if r.Operation != admission.Create {
		at := authorizer.AttributesRecord{Verb: "delete", Namespace: r.Namespace, APIGroup: row.Group, APIVersion: row.Version,
			Resource: row.Plural, Subresource: r.Subresource, Name: r.Name}
		if err := p.may(ctx, r, at); err != nil {
			return forbidden(r, "cannot set an ownerRef on a resource you can't delete: %v", err)
		}
	}
	blocking := newlyBlocking(refs, had)
	anything := authorizer.AttributesRecord{Verb: "update", APIGroup: "*", APIVersion: "*", Resource: "*", Subresource: "finalizers", Name: "*"}
	if len(blocking) == 0 || p.may(ctx, r, anything) == nil {
		return nil
	}
	for _, ref := range blocking {
		if err := p.mayKeep(ctx, r, ref); err != nil {
			return err
		}
	}
	return nil
}

// newlyBlocking are the references that keep their owner now and did not before.
func newlyBlocking(refs, had []metav1.OwnerReference) []metav1.OwnerReference {
	before := map[string]bool{}
	for _, ref := range had {
		before[string(ref.UID)] = ref.BlockOwnerDeletion != nil && *ref.BlockOwnerDeletion
	}
	var out []metav1.OwnerReference
	for _, ref := range refs {
		if ref.BlockOwnerDeletion != nil && *ref.BlockOwnerDeletion && !before[string(ref.UID)] {
			out = append(out, ref)
		}
	}
	return out
}

func (p *ownerReferences) mayKeep(ctx context.Context, r *admission.Request, ref metav1.OwnerReference) error {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	var k *api.Kind
	if err == nil {
		var ok bool
		if k, ok = p.kinds.Kind(gv.WithKind(ref.Kind)); !ok {
			err = fmt.Errorf("no matches for kind %q in version %q", ref.Kind, ref.APIVersion)
		}
	}
	if err != nil {
		return forbidden(r, "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion %s Kind %s: %v", ref.APIVersion, ref.Kind, err)
	}
	at := authorizer.AttributesRecord{Verb: "update", APIGroup: k.Group, APIVersion: k.Version, Resource: k.Plural, Subresource: "finalizers", Name: ref.Name}
	if k.Namespaced {
		at.Namespace = r.Namespace
	}
	if err := p.may(ctx, r, at); err != nil {
		return forbidden(r, "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: %v", err)
	}
	return nil
}

// may says why the user may not, with the authorizer's reason and error as upstream prints them.
func (p *ownerReferences) may(ctx context.Context, r *admission.Request, at authorizer.AttributesRecord) error {
	if p.a == nil {
		return nil
	}
	at.User, at.ResourceRequest = r.User, true
	decision, reason, err := p.a.Authorize(ctx, at)
	if decision == authorizer.DecisionAllow {
		return nil
	}
	return fmt.Errorf("%v, %v", reason, err)
}
