package core

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// This file takes out what upstream's feature gates switch off by default: fields that the types have and the servers of
// this version ignore.

// dropDisabled takes disabled fields out of a pod's spec or a template's, but for those that old, if any, has already.
func dropDisabled(s, old *corev1.PodSpec) {
	if old == nil {
		old = &corev1.PodSpec{}
	}
	if old.SchedulingGroup == nil {
		s.SchedulingGroup = nil
	}
	if !usesAlphaSources(old) {
		for i := range s.Volumes {
			if p := s.Volumes[i].Projected; p != nil {
				for j := range p.Sources {
					p.Sources[j].ClusterTrustBundle, p.Sources[j].PodCertificate = nil, nil
				}
			}
		}
	}
	if !usesStopSignal(old) {
		drop := func(c *corev1.Container) {
			if c.Lifecycle == nil || c.Lifecycle.StopSignal == nil {
				return
			}
			c.Lifecycle.StopSignal = nil
			if *c.Lifecycle == (corev1.Lifecycle{}) {
				c.Lifecycle = nil
			}
		}
		each(nil, s, func(_ *field.Path, c *corev1.Container) { drop(c) })
	}
}

func usesAlphaSources(s *corev1.PodSpec) bool {
	for i := range s.Volumes {
		if p := s.Volumes[i].Projected; p != nil {
			for _, x := range p.Sources {
				if x.ClusterTrustBundle != nil || x.PodCertificate != nil {
					return true
				}
			}
		}
	}
	return false
}

func usesStopSignal(s *corev1.PodSpec) bool {
	used := false
	each(nil, s, func(_ *field.Path, c *corev1.Container) {
		used = used || c.Lifecycle != nil && c.Lifecycle.StopSignal != nil
	})
	return used
}

// DropDisabledInTemplate is dropDisabled for a pod template.
func DropDisabledInTemplate(t, old *corev1.PodTemplateSpec) {
	if t == nil {
		return
	}
	if old == nil {
		dropDisabled(&t.Spec, nil)
		return
	}
	dropDisabled(&t.Spec, &old.Spec)
}
