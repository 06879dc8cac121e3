package volume

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

const dataLink = "..data"

// publish shows files in dir. A reader sees all of the old ones or all of the new ones: the files lie in a folder of
// their own, dir's ..data link is swapped to it in one step, and what users open are links through ..data.
func (m *Manager) publish(pod *corev1.Pod, dir string, files map[string]file, memory bool) error {
	for p := range files {
		if !filepath.IsLocal(p) || strings.HasPrefix(p, "..") {
			return fmt.Errorf("invalid path: %s", p)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if memory {
		if err := mountTmpfs(dir, 0); err != nil {
			return err
		}
	}
	if err := os.Chmod(dir, 0o777); err != nil { // the umask does not count
		return err
	}
	old, _ := os.Readlink(filepath.Join(dir, dataLink))
	if old != "" && same(filepath.Join(dir, old), files, fsGroup(pod) != nil) {
		return nil
	}
	fresh, err := os.MkdirTemp(dir, m.Src.Now().UTC().Format("..2006_01_02_15_04_05."))
	if err != nil {
		return err
	}
	if err := fill(fresh, files, fsGroup(pod)); err != nil {
		os.RemoveAll(fresh)
		return err
	}
	tmp := filepath.Join(dir, "..data_tmp")
	os.Remove(tmp)
	if err := os.Symlink(filepath.Base(fresh), tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(dir, dataLink)); err != nil {
		return err
	}
	if err := linkAll(dir, files); err != nil {
		return err
	}
	return sweep(dir, filepath.Base(fresh), files)
}

// fill writes the files with their modes and owners.
func fill(dir string, files map[string]file, gid *int64) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	for p, f := range files {
		full := filepath.Join(dir, p)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(full, f.data, 0o600); err != nil {
			return err
		}
		if err := os.Chmod(full, fs.FileMode(f.mode)); err != nil {
			return err
		}
		if f.uid != nil {
			if err := os.Chown(full, int(*f.uid), -1); err != nil {
				return err
			}
		}
	}
	if gid != nil {
		return own(dir, *gid, true)
	}
	return nil
}

// same reports whether a folder holds exactly the files.
func same(dir string, files map[string]file, grouped bool) bool {
	n := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		f, ok := files[rel]
		if !ok {
			return fs.ErrNotExist
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(f.mode).Perm()
		if grouped {
			want |= 0o440
		}
		if !bytes.Equal(b, f.data) || fi.Mode().Perm() != want {
			return fs.ErrInvalid
		}
		n++
		return nil
	})
	return err == nil && n == len(files)
}

func tops(files map[string]file) map[string]bool {
	out := map[string]bool{}
	for p := range files {
		top, _, _ := strings.Cut(filepath.Clean(p), "/")
		out[top] = true
	}
	return out
}

func linkAll(dir string, files map[string]file) error {
	for top := range tops(files) {
		l := filepath.Join(dir, top)
		if _, err := os.Lstat(l); err == nil {
			continue
		}
		if err := os.Symlink(filepath.Join(dataLink, top), l); err != nil {
			return err
		}
	}
	return nil
}

// sweep removes links whose files are gone and all folders but the current one.
func sweep(dir, current string, files map[string]file) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	keep := tops(files)
	for _, e := range entries {
		name := e.Name()
		if name == dataLink || name == current || keep[name] {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}
