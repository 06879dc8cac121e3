package volume

import (
	"context"
	"errors"
	"fmt"
	"os"

	corev1 "k8s.io/api/core/v1"
)

// claim resolves a claim to the folder of the persistent volume that it is bound to.
func (m *Manager) claim(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) error {
	name := pod.Name + "-" + v.Name // of a generic ephemeral volume
	if v.PersistentVolumeClaim != nil {
		name = v.PersistentVolumeClaim.ClaimName
	}
	c, err := m.Src.Claim(ctx, pod.Namespace, name)
	if err != nil {
		return fmt.Errorf("error getting PVC %q: %w", pod.Namespace+"/"+name, err)
	}
	if v.Ephemeral != nil && !ownedBy(c, pod) {
		return fmt.Errorf("PVC %q was not created for pod %q", name, pod.Name)
	}
	if c.Status.Phase != corev1.ClaimBound || c.Spec.VolumeName == "" {
		return fmt.Errorf("PVC %s is not bound", name)
	}
	pv, err := m.Src.Volume(ctx, c.Spec.VolumeName)
	if err != nil {
		return err
	}
	if pv.Spec.ClaimRef == nil || pv.Spec.ClaimRef.UID != c.UID {
		return fmt.Errorf("volume %s is not bound to claim %s", pv.Name, name)
	}
	var path string
	switch {
	case pv.Spec.HostPath != nil:
		path = pv.Spec.HostPath.Path
		if err := checkHostPath(path, pv.Spec.HostPath.Type); err != nil {
			return err
		}
	case pv.Spec.Local != nil:
		path = pv.Spec.Local.Path
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("path %q does not exist", path)
		}
		if g := fsGroup(pod); g != nil {
			if err := own(path, *g, false); err != nil {
				return err
			}
		}
	default:
		return errors.New("persistent volumes of this kind are not supported by this node")
	}
	return m.link(string(pod.UID), v.Name, path)
}

func ownedBy(c *corev1.PersistentVolumeClaim, pod *corev1.Pod) bool {
	for _, o := range c.OwnerReferences {
		if o.UID == pod.UID {
			return true
		}
	}
	return false
}
