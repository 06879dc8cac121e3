package rest

import (
	"context"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/store"
)

// This file is the little that a few kinds need of the verbs beyond their rows.

// eventTTL is how long events are kept, in seconds.
const eventTTL = 3600

func ttl(k *api.Kind) int64 {
	if k.StoragePath == "events" {
		return eventTTL
	}
	return 0
}

// pendingFinalizers are all finalizers that keep a deleted object: a namespace has some in its spec too.
func pendingFinalizers(obj api.Object) []string {
	out := obj.GetFinalizers()
	if ns, ok := obj.(*corev1.Namespace); ok {
		for _, f := range ns.Spec.Finalizers {
			out = append(out[:len(out):len(out)], string(f))
		}
	}
	return out
}

// holdDeleted keeps a definition until its objects are gone.
func holdDeleted(obj api.Object, now time.Time) {
	crd, ok := obj.(*apiextensionsv1.CustomResourceDefinition)
	if !ok {
		return
	}
	if !slices.Contains(crd.Finalizers, apiextensionsv1.CustomResourceCleanupFinalizer) {
		crd.Finalizers = append(crd.Finalizers, apiextensionsv1.CustomResourceCleanupFinalizer)
	}
	crd.Status.Conditions = append(slices.DeleteFunc(crd.Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
		return c.Type == apiextensionsv1.Terminating
	}), apiextensionsv1.CustomResourceDefinitionCondition{Type: apiextensionsv1.Terminating, Status: apiextensionsv1.ConditionTrue,
		LastTransitionTime: metav1.NewTime(now.Truncate(time.Second)), Reason: "InstanceDeletionPending",
		Message: "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon"})
}

// markTerminating says in the status that an object has been deleted.
func markTerminating(obj api.Object) {
	if ns, ok := obj.(*corev1.Namespace); ok {
		ns.Status.Phase = corev1.NamespaceTerminating
	}
}

// prepareCreate is what the row's PrepareCreate leaves to the server.
func prepareCreate(k *api.Kind, obj api.Object, who user.Info) {
	switch o := obj.(type) {
	case *corev1.Namespace:
		for _, f := range o.Spec.Finalizers {
			if f == corev1.FinalizerKubernetes {
				return
			}
		}
		o.Spec.Finalizers = append(o.Spec.Finalizers, corev1.FinalizerKubernetes)
	case *certificatesv1.CertificateSigningRequest:
		// Who asks for a certificate is the server's to say.
		o.Spec.Username, o.Spec.UID, o.Spec.Groups, o.Spec.Extra = "", "", nil, nil
		if who != nil {
			o.Spec.Username, o.Spec.UID, o.Spec.Groups = who.GetName(), who.GetUID(), who.GetGroups()
			for key, values := range who.GetExtra() {
				if o.Spec.Extra == nil {
					o.Spec.Extra = map[string]certificatesv1.ExtraValue{}
				}
				o.Spec.Extra[key] = values
			}
		}
		o.Status = certificatesv1.CertificateSigningRequestStatus{}
	case *apiregistrationv1.APIService:
		o.Status = apiregistrationv1.APIServiceStatus{}
		if o.Spec.Service == nil { // what this server serves itself is there at once
			o.Status.Conditions = []apiregistrationv1.APIServiceCondition{{Type: apiregistrationv1.Available, Status: apiregistrationv1.ConditionTrue,
				LastTransitionTime: metav1.Now(), Reason: "Local", Message: "Local APIServices are always available"}}
		}
	case *corev1.Node: // nodes come with the status that their agent found
	default:
		if s, ok := k.Subresource("status"); ok && s.Type == api.StatusSub && k.PrepareCreate == nil {
			empty := k.New()
			copyStatus(obj, empty)
		}
	}
}

// prepareUpdate keeps the status out of an update of the main resource, and lets the row do the rest.
func prepareUpdate(ctx context.Context, k *api.Kind, obj, old api.Object) {
	if k.PrepareUpdate != nil {
		k.PrepareUpdate(ctx, obj, old)
	}
	if s, ok := k.Subresource("status"); ok && s.Type == api.StatusSub {
		copyStatus(obj, old)
	}
	if crd, ok := obj.(*apiextensionsv1.CustomResourceDefinition); ok {
		for _, v := range crd.Spec.Versions {
			if v.Storage && !slices.Contains(crd.Status.StoredVersions, v.Name) {
				crd.Status.StoredVersions = append(slices.Clip(crd.Status.StoredVersions), v.Name)
			}
		}
	}
	if ns, ok := obj.(*corev1.Namespace); ok {
		ns.Spec.Finalizers = old.(*corev1.Namespace).Spec.Finalizers
	}
}

// ReturnsDeleted reports whether a delete answers with the object it removed rather than with a Status.
func ReturnsDeleted(k *api.Kind) bool {
	switch resourceName(k) {
	case "pods", "persistentvolumes", "persistentvolumeclaims", "podtemplates", "resourcequotas", "serviceaccounts", "services",
		"csidrivers.storage.k8s.io", "csinodes.storage.k8s.io", "storageclasses.storage.k8s.io", "volumeattachments.storage.k8s.io",
		"volumeattributesclasses.storage.k8s.io", "deviceclasses.resource.k8s.io", "resourceclaims.resource.k8s.io",
		"resourceclaimtemplates.resource.k8s.io", "resourceslices.resource.k8s.io":
		return true
	}
	return false
}

// listUnstored lists the one readable kind that is not kept: the components' health, as far as an API server knows it.
func (r *REST) listUnstored(ctx context.Context, k *api.Kind, sel selector) (*List, error) {
	l := &List{Kind: k}
	if resourceName(k) != "componentstatuses" {
		return l, nil
	}
	etcd := corev1.ComponentCondition{Type: corev1.ComponentHealthy, Status: corev1.ConditionTrue, Message: "ok"}
	if _, err := r.Store.Revision(ctx); err != nil {
		etcd.Status, etcd.Message, etcd.Error = corev1.ConditionFalse, "", err.Error()
	}
	healthy := corev1.ComponentCondition{Type: corev1.ComponentHealthy, Status: corev1.ConditionTrue, Message: "ok"}
	for name, c := range map[string]corev1.ComponentCondition{"controller-manager": healthy, "etcd-0": etcd, "scheduler": healthy} {
		o := &corev1.ComponentStatus{TypeMeta: metav1.TypeMeta{Kind: "ComponentStatus", APIVersion: "v1"},
			ObjectMeta: metav1.ObjectMeta{Name: name}, Conditions: []corev1.ComponentCondition{c}}
		if e := (&store.Entry{Key: name, Object: o}); sel.matches(e) {
			l.Entries = append(l.Entries, e)
		}
	}
	slices.SortFunc(l.Entries, func(a, b *store.Entry) int { return strings.Compare(a.Key, b.Key) })
	return l, nil
}

func (r *REST) getUnstored(ctx context.Context, k *api.Kind, name string) (*store.Entry, error) {
	l, err := r.listUnstored(ctx, k, selector{k: k, name: name})
	if err != nil {
		return nil, err
	}
	if len(l.Entries) == 0 {
		return nil, apierrors.NewNotFound(k.GroupResource(), name)
	}
	return l.Entries[0], nil
}

// stampConditions gives the conditions of a certificate request the times that the client left out.
func stampConditions(csr, old *certificatesv1.CertificateSigningRequest, now metav1.Time) {
	conditions := slices.Clone(csr.Status.Conditions)
	for i := range conditions {
		c := &conditions[i]
		if c.LastUpdateTime.IsZero() {
			c.LastUpdateTime = now
		}
		if !c.LastTransitionTime.IsZero() {
			continue
		}
		c.LastTransitionTime = now
		for _, was := range old.Status.Conditions {
			if was.Type == c.Type && was.Status == c.Status && !was.LastTransitionTime.IsZero() {
				c.LastTransitionTime = was.LastTransitionTime
				break
			}
		}
	}
	csr.Status.Conditions = conditions
}

// stampPhase says since when a volume is in its phase, where the client did not.
func stampPhase(pv, old *corev1.PersistentVolume, now metav1.Time) {
	at, was := &pv.Status.LastPhaseTransitionTime, old.Status.LastPhaseTransitionTime
	switch changed := pv.Status.Phase != old.Status.Phase; {
	case changed && (*at == nil || (*at).Equal(was)):
		*at = &now
	case !changed && *at == nil:
		*at = was
	}
}
