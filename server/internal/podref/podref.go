// Package podref lists the objects that a pod refers to by name.
//
// Invariant: pure; it reads its argument only. Only server's folders import podref.
package podref

import (
	"iter"

	corev1 "k8s.io/api/core/v1"
)

// Kind is the resource that a reference is to.
type Kind string

const (
	Secret        Kind = "secrets"
	ConfigMap     Kind = "configmaps"
	Claim         Kind = "persistentvolumeclaims"
	ResourceClaim Kind = "resourceclaims"
)

// Has reports whether the pod refers to the object of its own namespace.
func Has(p *corev1.Pod, k Kind, name string) bool {
	for kind, n := range All(p) {
		if kind == k && n == name {
			return true
		}
	}
	return false
}

// All yields every reference of a pod; one object may come more than once. All are in the pod's own namespace. The
// service account is not among them.
func All(p *corev1.Pod) iter.Seq2[Kind, string] {
	return func(yield func(Kind, string) bool) {
		ok := true
		emit := func(k Kind, name string) {
			if ok && name != "" {
				ok = yield(k, name)
			}
		}
		for i := range p.Spec.ImagePullSecrets {
			emit(Secret, p.Spec.ImagePullSecrets[i].Name)
		}
		for i := range p.Spec.InitContainers {
			environment(&p.Spec.InitContainers[i], emit)
		}
		for i := range p.Spec.Containers {
			environment(&p.Spec.Containers[i], emit)
		}
		for i := range p.Spec.EphemeralContainers {
			c := corev1.Container(p.Spec.EphemeralContainers[i].EphemeralContainerCommon)
			environment(&c, emit)
		}
		for i := range p.Spec.Volumes {
			volume(p, &p.Spec.Volumes[i], emit)
		}
		for _, s := range p.Spec.ResourceClaims {
			if s.ResourceClaimName != nil {
				emit(ResourceClaim, *s.ResourceClaimName)
			}
		}
		for _, s := range p.Status.ResourceClaimStatuses {
			if s.ResourceClaimName != nil {
				emit(ResourceClaim, *s.ResourceClaimName)
			}
		}
		if s := p.Status.ExtendedResourceClaimStatus; s != nil {
			emit(ResourceClaim, s.ResourceClaimName)
		}
	}
}

func environment(c *corev1.Container, emit func(Kind, string)) {
	for i := range c.EnvFrom {
		if r := c.EnvFrom[i].SecretRef; r != nil {
			emit(Secret, r.Name)
		}
		if r := c.EnvFrom[i].ConfigMapRef; r != nil {
			emit(ConfigMap, r.Name)
		}
	}
	for i := range c.Env {
		v := c.Env[i].ValueFrom
		if v == nil {
			continue
		}
		if v.SecretKeyRef != nil {
			emit(Secret, v.SecretKeyRef.Name)
		}
		if v.ConfigMapKeyRef != nil {
			emit(ConfigMap, v.ConfigMapKeyRef.Name)
		}
	}
}

func volume(p *corev1.Pod, v *corev1.Volume, emit func(Kind, string)) {
	local := func(r *corev1.LocalObjectReference) {
		if r != nil {
			emit(Secret, r.Name)
		}
	}
	switch {
	case v.Secret != nil:
		emit(Secret, v.Secret.SecretName)
	case v.ConfigMap != nil:
		emit(ConfigMap, v.ConfigMap.Name)
	case v.Projected != nil:
		for i := range v.Projected.Sources {
			if s := v.Projected.Sources[i].Secret; s != nil {
				emit(Secret, s.Name)
			}
			if s := v.Projected.Sources[i].ConfigMap; s != nil {
				emit(ConfigMap, s.Name)
			}
		}
	case v.PersistentVolumeClaim != nil:
		emit(Claim, v.PersistentVolumeClaim.ClaimName)
	case v.Ephemeral != nil:
		emit(Claim, p.Name+"-"+v.Name)
	case v.AzureFile != nil:
		emit(Secret, v.AzureFile.SecretName)
	case v.CephFS != nil:
		local(v.CephFS.SecretRef)
	case v.Cinder != nil:
		local(v.Cinder.SecretRef)
	case v.FlexVolume != nil:
		local(v.FlexVolume.SecretRef)
	case v.RBD != nil:
		local(v.RBD.SecretRef)
	case v.ScaleIO != nil:
		local(v.ScaleIO.SecretRef)
	case v.ISCSI != nil:
		local(v.ISCSI.SecretRef)
	case v.StorageOS != nil:
		local(v.StorageOS.SecretRef)
	case v.CSI != nil:
		local(v.CSI.NodePublishSecretRef)
	}
}

// VolumeHasSecret reports whether a node that mounts the volume needs the secret.
func VolumeHasSecret(pv *corev1.PersistentVolume, namespace, name string) bool {
	claimNamespace := ""
	if pv.Spec.ClaimRef != nil {
		claimNamespace = pv.Spec.ClaimRef.Namespace
	}
	is := func(ns, n string) bool {
		if ns == "" {
			ns = claimNamespace // as volumes of old leave it out
		}
		return n != "" && n == name && ns == namespace
	}
	ref := func(r *corev1.SecretReference) bool { return r != nil && is(r.Namespace, r.Name) }
	switch s := &pv.Spec.PersistentVolumeSource; {
	case s.AzureFile != nil:
		ns := ""
		if s.AzureFile.SecretNamespace != nil {
			ns = *s.AzureFile.SecretNamespace
		}
		return is(ns, s.AzureFile.SecretName)
	case s.CephFS != nil:
		return ref(s.CephFS.SecretRef)
	case s.Cinder != nil:
		return ref(s.Cinder.SecretRef)
	case s.FlexVolume != nil:
		return ref(s.FlexVolume.SecretRef)
	case s.RBD != nil:
		return ref(s.RBD.SecretRef)
	case s.ScaleIO != nil:
		return ref(s.ScaleIO.SecretRef)
	case s.ISCSI != nil:
		return ref(s.ISCSI.SecretRef)
	case s.StorageOS != nil && s.StorageOS.SecretRef != nil:
		return is(s.StorageOS.SecretRef.Namespace, s.StorageOS.SecretRef.Name)
	case s.CSI != nil:
		return ref(s.CSI.NodePublishSecretRef) || ref(s.CSI.NodeStageSecretRef) || ref(s.CSI.NodeExpandSecretRef)
	}
	return false
}
