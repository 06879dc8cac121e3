package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// SubPath binds a path inside a volume to a place of its own, so that a container that swaps in a link later cannot
// reach out of the volume: the path is resolved once, below the volume, by the kernel. It returns what to mount.
// A missing folder is made.
func (m *Manager) SubPath(uid, volumePath, volume, container string, index int, sub string) (string, error) {
	if !filepath.IsLocal(sub) {
		return "", fmt.Errorf("unable to prepare subPath %q: it must be relative and stay below the volume", sub)
	}
	for part := range strings.SplitSeq(sub, "/") {
		if part == ".." {
			return "", fmt.Errorf("unable to prepare subPath %q: it must not contain '..'", sub)
		}
	}
	root, err := unix.Open(volumePath, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("open volume %s: %w", volumePath, err)
	}
	defer unix.Close(root)
	fd, err := openBelow(root, sub)
	if errors.Is(err, unix.ENOENT) {
		if err = mkdirBelow(root, sub); err == nil {
			fd, err = openBelow(root, sub)
		}
	}
	if err != nil {
		return "", fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q: %w", volume, container, err)
	}
	defer unix.Close(fd)
	target := filepath.Join(m.PodDir(uid), "volume-subpaths", volume, container, strconv.Itoa(index))
	if isMountPoint(target) {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			return "", err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", err
	}
	if err := makeTarget(target, st.Mode&unix.S_IFMT == unix.S_IFDIR); err != nil {
		return "", err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", fd), target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return "", fmt.Errorf("bind %s: %w", target, err)
	}
	return target, nil
}

func openBelow(root int, path string) (int, error) {
	return unix.Openat2(root, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS})
}

// mkdirBelow makes the missing folders of a path below root, one by one, each resolved below root.
func mkdirBelow(root int, path string) error {
	parts := strings.Split(filepath.Clean(path), "/")
	for i := range parts {
		parent := root
		if i > 0 {
			fd, err := openBelow(root, strings.Join(parts[:i], "/"))
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			parent = fd
		}
		if err := unix.Mkdirat(parent, parts[i], 0o750); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		} else if err == nil {
			inherit(parent, parts[i])
		}
	}
	return nil
}

// inherit gives a new folder the mode of the one it was made in, so that the pod's user can use it too.
func inherit(parent int, name string) {
	var st unix.Stat_t
	if unix.Fstat(parent, &st) == nil {
		// Best effort: without it the folder is root's, as upstream's is.
		_ = unix.Fchmodat(parent, name, st.Mode&0o7777, 0)
	}
}

func makeTarget(path string, dir bool) error {
	if dir {
		return os.MkdirAll(path, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o640)
	if err != nil {
		return err
	}
	return f.Close()
}
