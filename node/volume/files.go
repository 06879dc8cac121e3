package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// file is one file that a volume shows.
type file struct {
	data []byte
	mode uint32
	uid  *int64
}

const defaultMode = 0o644

func mode(item, all *int32) uint32 {
	switch {
	case item != nil:
		return uint32(*item)
	case all != nil:
		return uint32(*all)
	}
	return defaultMode
}

// pick chooses keys: all of them, or those of items under the paths given there.
func pick(data map[string][]byte, items []corev1.KeyToPath, optional bool, def *int32) (map[string]file, error) {
	out := map[string]file{}
	if len(items) == 0 {
		for k, v := range data {
			out[k] = file{data: v, mode: mode(nil, def)}
		}
		return out, nil
	}
	for _, it := range items {
		v, ok := data[it.Key]
		if !ok {
			if optional {
				continue
			}
			return nil, fmt.Errorf("references non-existent config key: %s", it.Key)
		}
		out[it.Path] = file{data: v, mode: mode(it.Mode, def)}
	}
	return out, nil
}

func (m *Manager) configMap(ctx context.Context, namespace, name string, items []corev1.KeyToPath, optional *bool, def *int32) (map[string]file, error) {
	opt := optional != nil && *optional
	cm, err := m.Src.ConfigMap(ctx, namespace, name)
	if err != nil {
		if opt && m.Src.NotFound(err) {
			return map[string]file{}, nil
		}
		return nil, err
	}
	data := make(map[string][]byte, len(cm.Data)+len(cm.BinaryData))
	for k, v := range cm.Data {
		data[k] = []byte(v)
	}
	for k, v := range cm.BinaryData {
		data[k] = v
	}
	return pick(data, items, opt, def)
}

func (m *Manager) secret(ctx context.Context, namespace, name string, items []corev1.KeyToPath, optional *bool, def *int32) (map[string]file, error) {
	opt := optional != nil && *optional
	s, err := m.Src.Secret(ctx, namespace, name)
	if err != nil {
		if opt && m.Src.NotFound(err) {
			return map[string]file{}, nil
		}
		return nil, err
	}
	return pick(s.Data, items, opt, def)
}

func (m *Manager) downward(pod *corev1.Pod, items []corev1.DownwardAPIVolumeFile, def *int32) (map[string]file, error) {
	out := map[string]file{}
	for _, it := range items {
		var v string
		var err error
		switch {
		case it.FieldRef != nil:
			v, err = m.Src.Field(pod, it.FieldRef.FieldPath)
		case it.ResourceFieldRef != nil:
			v, err = m.Src.Resource(pod, it.ResourceFieldRef)
		}
		if err != nil {
			return nil, err
		}
		out[it.Path] = file{data: []byte(v), mode: mode(it.Mode, def)}
	}
	return out, nil
}

// projected merges several sources into one volume; a token among them makes it due for a refresh.
func (m *Manager) projected(ctx context.Context, pod *corev1.Pod, volume string, p *corev1.ProjectedVolumeSource) (map[string]file, time.Time, error) {
	all := map[string]file{}
	var refresh time.Time
	var errs []error
	for _, src := range p.Sources {
		var files map[string]file
		var err error
		switch {
		case src.ConfigMap != nil:
			files, err = m.configMap(ctx, pod.Namespace, src.ConfigMap.Name, src.ConfigMap.Items, src.ConfigMap.Optional, p.DefaultMode)
		case src.Secret != nil:
			files, err = m.secret(ctx, pod.Namespace, src.Secret.Name, src.Secret.Items, src.Secret.Optional, p.DefaultMode)
		case src.DownwardAPI != nil:
			files, err = m.downward(pod, src.DownwardAPI.Items, p.DefaultMode)
		case src.ServiceAccountToken != nil:
			var at time.Time
			files, at, err = m.token(ctx, pod, volume, src.ServiceAccountToken, p.DefaultMode)
			if !at.IsZero() && (refresh.IsZero() || at.Before(refresh)) {
				refresh = at
			}
		case src.ClusterTrustBundle != nil:
			files, err = m.bundle(ctx, src.ClusterTrustBundle, p.DefaultMode)
		default:
			err = errors.New("projections of this kind are not supported by this node")
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for k, f := range files {
			all[k] = f
		}
	}
	return all, refresh, errors.Join(errs...)
}

func (m *Manager) bundle(ctx context.Context, p *corev1.ClusterTrustBundleProjection, def *int32) (map[string]file, error) {
	pem, err := m.Src.Bundle(ctx, p)
	if err != nil {
		if p.Optional != nil && *p.Optional && m.Src.NotFound(err) {
			return nil, nil
		}
		return nil, err
	}
	return map[string]file{p.Path: {data: []byte(pem), mode: mode(nil, def)}}, nil
}

// runAs is the user that all containers of the pod run as, if it is one and said.
func runAs(pod *corev1.Pod) *int64 {
	var all *int64
	var podUser *int64
	if sc := pod.Spec.SecurityContext; sc != nil {
		podUser = sc.RunAsUser
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		u := podUser
		if c.SecurityContext != nil && c.SecurityContext.RunAsUser != nil {
			u = c.SecurityContext.RunAsUser
		}
		if u == nil || all != nil && *all != *u {
			return nil
		}
		all = u
	}
	return all
}
