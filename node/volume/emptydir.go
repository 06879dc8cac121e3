package volume

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// emptyDir makes a folder of the node's disk or memory that lives as long as the pod.
func (m *Manager) emptyDir(pod *corev1.Pod, v *corev1.Volume) error {
	dir := m.dir(string(pod.UID), "empty-dir", v.Name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	switch medium := v.EmptyDir.Medium; medium {
	case corev1.StorageMediumDefault:
	case corev1.StorageMediumMemory:
		if err := mountTmpfs(dir, memoryLimit(pod, v.EmptyDir)); err != nil {
			return err
		}
	default:
		return fmt.Errorf("unknown storage medium %q", medium)
	}
	mode := fs.FileMode(0o777)
	if g := fsGroup(pod); g != nil {
		if err := os.Lchown(dir, -1, int(*g)); err != nil {
			return err
		}
		mode |= fs.ModeSetgid
	}
	return os.Chmod(dir, mode)
}

// memoryLimit is what a memory volume may hold: its own limit or the pod's, whichever is less; 0: no limit.
func memoryLimit(pod *corev1.Pod, e *corev1.EmptyDirVolumeSource) int64 {
	var total int64
	for i := range pod.Spec.Containers {
		l, ok := pod.Spec.Containers[i].Resources.Limits[corev1.ResourceMemory]
		if !ok {
			total = 0
			break
		}
		total += l.Value()
	}
	if e.SizeLimit != nil && e.SizeLimit.Value() > 0 && (total == 0 || e.SizeLimit.Value() < total) {
		return e.SizeLimit.Value()
	}
	return total
}

func mountTmpfs(dir string, size int64) error {
	if isMountPoint(dir) {
		return nil
	}
	opts := ""
	if size > 0 {
		opts = fmt.Sprintf("size=%d", size)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, opts); err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", dir, err)
	}
	return nil
}

// own gives everything below dir to the group, readable (and writable unless readOnly), as fsGroup asks for.
func own(dir string, gid int64, readOnly bool) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := os.Lchown(path, -1, int(gid)); err != nil {
			return err
		}
		if d.Type()&fs.ModeSymlink != 0 {
			return nil
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		mode := fi.Mode() | 0o660
		if readOnly {
			mode = fi.Mode() | 0o440
		}
		if d.IsDir() {
			mode |= fs.ModeSetgid | 0o110
		}
		return os.Chmod(path, mode)
	})
}
