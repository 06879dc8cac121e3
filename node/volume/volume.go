// Package volume puts a pod's volumes where its containers can mount them, keeps what they show up to date, and
// takes them away again.
//
// Invariant: everything about a pod's volumes lies under <root>/<pod UID>, so that what is left of any pod can be found
// and removed with no memory of it. Mount may be called again at any time and changes only what differs.
//
// Only node imports volume.
package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// Sources gives the contents that volumes show. Errors must be wrapped so that NotFound still knows them.
type Sources struct {
	ConfigMap func(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret    func(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	Token     func(ctx context.Context, pod *corev1.Pod, p *corev1.ServiceAccountTokenProjection) (token string, issued, expires time.Time, err error)
	Claim     func(ctx context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error)
	Volume    func(ctx context.Context, name string) (*corev1.PersistentVolume, error)
	Bundle    func(ctx context.Context, p *corev1.ClusterTrustBundleProjection) (string, error)
	Field     func(pod *corev1.Pod, path string) (string, error)
	Resource  func(pod *corev1.Pod, ref *corev1.ResourceFieldSelector) (string, error)
	NotFound  func(error) bool
	Now       func() time.Time
}

// Manager mounts volumes. Its methods may be called for different pods at the same time.
type Manager struct {
	Root string // holds one folder a pod
	Src  Sources
}

// PodDir is the folder of all that belongs to a pod.
func (m *Manager) PodDir(uid string) string { return filepath.Join(m.Root, uid) }

func (m *Manager) dir(uid, kind, name string) string {
	return filepath.Join(m.PodDir(uid), "volumes", "kubernetes.io~"+kind, name)
}

// Error is a volume that cannot be mounted, named as upstream's event does.
type Error struct {
	Volume string
	Err    error
}

func (e *Error) Error() string {
	return fmt.Sprintf("MountVolume.SetUp failed for volume %q : %v", e.Volume, e.Err)
}
func (e *Error) Unwrap() error { return e.Err }

// Mount makes all volumes that the pod's containers use, and brings their content up to date. refresh is when a
// content must be made anew; zero: never.
func (m *Manager) Mount(ctx context.Context, pod *corev1.Pod) (refresh time.Time, err error) {
	var errs []error
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		at, err := m.mountOne(ctx, pod, v)
		if err != nil {
			errs = append(errs, &Error{v.Name, err})
			continue
		}
		if !at.IsZero() && (refresh.IsZero() || at.Before(refresh)) {
			refresh = at
		}
	}
	return refresh, errors.Join(errs...)
}

func (m *Manager) mountOne(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) (time.Time, error) {
	var never time.Time
	uid := string(pod.UID)
	switch {
	case v.EmptyDir != nil:
		return never, m.emptyDir(pod, v)
	case v.HostPath != nil:
		return never, checkHostPath(v.HostPath.Path, v.HostPath.Type)
	case v.ConfigMap != nil:
		files, err := m.configMap(ctx, pod.Namespace, v.ConfigMap.Name, v.ConfigMap.Items, v.ConfigMap.Optional, v.ConfigMap.DefaultMode)
		if err != nil {
			return never, err
		}
		return never, m.publish(pod, m.dir(uid, "configmap", v.Name), files, false)
	case v.Secret != nil:
		files, err := m.secret(ctx, pod.Namespace, v.Secret.SecretName, v.Secret.Items, v.Secret.Optional, v.Secret.DefaultMode)
		if err != nil {
			return never, err
		}
		return never, m.publish(pod, m.dir(uid, "secret", v.Name), files, true)
	case v.DownwardAPI != nil:
		files, err := m.downward(pod, v.DownwardAPI.Items, v.DownwardAPI.DefaultMode)
		if err != nil {
			return never, err
		}
		return never, m.publish(pod, m.dir(uid, "downward-api", v.Name), files, true)
	case v.Projected != nil:
		files, refresh, err := m.projected(ctx, pod, v.Name, v.Projected)
		if err != nil {
			return never, err
		}
		return refresh, m.publish(pod, m.dir(uid, "projected", v.Name), files, true)
	case v.PersistentVolumeClaim != nil, v.Ephemeral != nil:
		return never, m.claim(ctx, pod, v)
	case v.Image != nil:
		return never, nil // the runtime mounts it
	}
	return never, errors.New("volumes of this kind are not supported by this node")
}

// Path is where a volume's content is on the host. It is valid after Mount.
func (m *Manager) Path(pod *corev1.Pod, name string) (string, error) {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.Name != name {
			continue
		}
		uid := string(pod.UID)
		switch {
		case v.EmptyDir != nil:
			return m.dir(uid, "empty-dir", name), nil
		case v.HostPath != nil:
			return v.HostPath.Path, nil
		case v.ConfigMap != nil:
			return m.dir(uid, "configmap", name), nil
		case v.Secret != nil:
			return m.dir(uid, "secret", name), nil
		case v.DownwardAPI != nil:
			return m.dir(uid, "downward-api", name), nil
		case v.Projected != nil:
			return m.dir(uid, "projected", name), nil
		case v.PersistentVolumeClaim != nil, v.Ephemeral != nil:
			return os.Readlink(m.dir(uid, "claim", name))
		}
		return "", fmt.Errorf("volume %q has no path on the host", name)
	}
	return "", fmt.Errorf("volume %q not found", name)
}

// Unmount takes all volumes of a pod away; their content is gone after it, but for host paths and claims.
func (m *Manager) Unmount(uid string) error {
	if uid == "" || strings.ContainsAny(uid, "/") || strings.HasPrefix(uid, ".") {
		return fmt.Errorf("%q is no pod UID", uid)
	}
	if err := unmountUnder(m.PodDir(uid)); err != nil {
		return err
	}
	for _, sub := range []string{"volumes", "volume-subpaths"} {
		if err := os.RemoveAll(filepath.Join(m.PodDir(uid), sub)); err != nil {
			return err
		}
	}
	return nil
}

// Purge unmounts a pod's volumes and removes its folder.
func (m *Manager) Purge(uid string) error {
	if err := m.Unmount(uid); err != nil {
		return err
	}
	return os.RemoveAll(m.PodDir(uid))
}

// Pods lists the UIDs of all pods that have a folder.
func (m *Manager) Pods() ([]string, error) {
	entries, err := os.ReadDir(m.Root)
	if err != nil {
		if os.IsNotExist(err) {
			return nil, nil
		}
		return nil, err
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out, nil
}

// unmountUnder unmounts everything at or below dir, deepest last mounted first.
func unmountUnder(dir string) error {
	points, err := mountsUnder(dir)
	if err != nil {
		return err
	}
	var errs []error
	for i := len(points) - 1; i >= 0; i-- {
		if err := unix.Unmount(points[i], unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			if err = unix.Unmount(points[i], unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
				errs = append(errs, fmt.Errorf("unmount %s: %w", points[i], err))
			}
		}
	}
	return errors.Join(errs...)
}

// mountsUnder lists mount points at or below dir in the order in which they were mounted.
func mountsUnder(dir string) ([]string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	var out []string
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		p := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(f[4])
		if p == dir || strings.HasPrefix(p, dir+"/") {
			out = append(out, p)
		}
	}
	return out, nil
}

func isMountPoint(dir string) bool {
	points, err := mountsUnder(dir)
	if err != nil {
		return false
	}
	for _, p := range points {
		if p == dir {
			return true
		}
	}
	return false
}

func fsGroup(pod *corev1.Pod) *int64 {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	return pod.Spec.SecurityContext.FSGroup
}
