package plugins

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	storagehelpers "k8s.io/component-helpers/storage/volume"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/internal/read"
	"github.com/skiff-sh/skiff/store"
)

const (
	defaultStorageAnnotation     = "storageclass.kubernetes.io/is-default-class"
	betaDefaultStorageAnnotation = "storageclass.beta.kubernetes.io/is-default-class"
)

// defaultStorageClass gives a claim that asks for no class the default one.
type defaultStorageClass struct{ st store.Store }

func (*defaultStorageClass) Name() string { return "DefaultStorageClass" }
func (*defaultStorageClass) Handles(op admission.Operation, k *api.Kind, sub string) bool {
	return op == admission.Create && is(k, "", "persistentvolumeclaims") && sub == ""
}

func (p *defaultStorageClass) Admit(_ context.Context, r *admission.Request) error {
	c, ok := r.Object.(*corev1.PersistentVolumeClaim)
	if !ok || c.Spec.StorageClassName != nil {
		return nil
	}
	if _, ok := c.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		return nil
	}
	// Of several defaults the newest is meant; the first name of equally new ones.
	var def *storagev1.StorageClass
	for s := range read.All[*storagev1.StorageClass](p.st, "") {
		if (s.Annotations[defaultStorageAnnotation] == "true" || s.Annotations[betaDefaultStorageAnnotation] == "true") &&
			(def == nil || def.CreationTimestamp.Before(&s.CreationTimestamp)) {
			def = s
		}
	}
	if def != nil {
		c.Spec.StorageClassName = &def.Name
	}
	return nil
}

// storageProtection adds the finalizers that keep claims, volumes and volume attributes classes while they are in use.
type storageProtection struct{}

func (storageProtection) Name() string { return "StorageObjectInUseProtection" }
func (storageProtection) Handles(op admission.Operation, k *api.Kind, sub string) bool {
	return op == admission.Create && sub == "" && (is(k, "", "persistentvolumeclaims") || is(k, "", "persistentvolumes") ||
		is(k, "storage.k8s.io", "volumeattributesclasses"))
}

func (storageProtection) Admit(_ context.Context, r *admission.Request) error {
	switch o := r.Object.(type) {
	case *corev1.PersistentVolume:
		protect(o, "kubernetes.io/pv-protection")
	case *corev1.PersistentVolumeClaim:
		protect(o, "kubernetes.io/pvc-protection")
	case *storagev1.VolumeAttributesClass:
		protect(o, "kubernetes.io/vac-protection")
	}
	return nil
}

func protect(o api.Object, finalizer string) {
	if !slices.Contains(o.GetFinalizers(), finalizer) {
		o.SetFinalizers(append(o.GetFinalizers(), finalizer))
	}
}

// claimResize allows a claim to grow only if it is bound and its class says so.
type claimResize struct{ st store.Store }

func (*claimResize) Name() string { return "PersistentVolumeClaimResize" }
func (*claimResize) Handles(op admission.Operation, k *api.Kind, sub string) bool {
	return op == admission.Update && is(k, "", "persistentvolumeclaims") && sub == ""
}

func (p *claimResize) Validate(ctx context.Context, r *admission.Request) error {
	c, ok := r.Object.(*corev1.PersistentVolumeClaim)
	old, ok2 := r.Old.(*corev1.PersistentVolumeClaim)
	if !ok || !ok2 {
		return nil
	}
	size, before := c.Spec.Resources.Requests[corev1.ResourceStorage], old.Spec.Resources.Requests[corev1.ResourceStorage]
	if size.Cmp(before) <= 0 {
		return nil
	}
	if old.Status.Phase != corev1.ClaimBound {
		return forbidden(r, "Only bound persistent volume claims can be expanded")
	}
	name := storagehelpers.GetPersistentVolumeClaimClass(c)
	class, ok, err := read.Fresh[*storagev1.StorageClass](ctx, p.st, "", name)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	if name == "" || !ok || class.AllowVolumeExpansion == nil || !*class.AllowVolumeExpansion {
		return forbidden(r, "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize")
	}
	return nil
}
