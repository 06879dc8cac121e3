package volume

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
)

// checkHostPath sees that a path of the host is of the type that is asked for, and makes it if the type says so.
func checkHostPath(path string, typ *corev1.HostPathType) error {
	want := corev1.HostPathUnset
	if typ != nil {
		want = *typ
	}
	if want == corev1.HostPathUnset {
		// The runtime would make a missing folder; doing it here gives it upstream's mode.
		if _, err := os.Stat(path); os.IsNotExist(err) {
			return os.MkdirAll(path, 0o755)
		}
		return nil
	}
	fi, err := os.Stat(path)
	missing := os.IsNotExist(err)
	if err != nil && !missing {
		return err
	}
	bad := func(what string) error { return fmt.Errorf("hostPath type check failed: %s is not %s", path, what) }
	switch want {
	case corev1.HostPathDirectoryOrCreate:
		if missing {
			return os.MkdirAll(path, 0o755)
		}
		if !fi.IsDir() {
			return bad("a directory")
		}
	case corev1.HostPathFileOrCreate:
		if missing {
			f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
			if err != nil {
				return err
			}
			return f.Close()
		}
		if !fi.Mode().IsRegular() {
			return bad("a file")
		}
	case corev1.HostPathDirectory:
		if missing || !fi.IsDir() {
			return bad("a directory")
		}
	case corev1.HostPathFile:
		if missing || !fi.Mode().IsRegular() {
			return bad("a file")
		}
	case corev1.HostPathSocket:
		if missing || fi.Mode().Type() != fs.ModeSocket {
			return bad("a socket file")
		}
	case corev1.HostPathCharDev:
		if missing || fi.Mode().Type() != fs.ModeDevice|fs.ModeCharDevice {
			return bad("a character device")
		}
	case corev1.HostPathBlockDev:
		if missing || fi.Mode().Type() != fs.ModeDevice {
			return bad("a block device")
		}
	default:
		return fmt.Errorf("%s is an invalid volume type", want)
	}
	return nil
}

// link remembers where a claim's content is as a symbolic link in the pod's folder.
func (m *Manager) link(uid, name, target string) error {
	l := m.dir(uid, "claim", name)
	if err := os.MkdirAll(filepath.Dir(l), 0o755); err != nil {
		return err
	}
	if old, err := os.Readlink(l); err == nil && old == target {
		return nil
	}
	if err := os.Remove(l); err != nil && !os.IsNotExist(err) {
		return err
	}
	return os.Symlink(target, l)
}
