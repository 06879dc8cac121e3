package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// purgeCgroups removes the group of that name, with all below it, from every hierarchy of the machine (version 1 has one
// for each controller). Its processes have been killed; the kernel may need a moment to let them go.
func purgeCgroups(name string) error {
	deadline := time.Now().Add(5 * time.Second)
	for {
		err := removeGroups(name)
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(50 * time.Millisecond) // the kernel tells nobody when a group becomes empty
	}
}

func removeGroups(name string) error {
	var errs []error
	for _, pattern := range []string{"/sys/fs/cgroup/" + name, "/sys/fs/cgroup/*/" + name} {
		roots, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, root := range roots {
			var dirs []string
			err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					dirs = append(dirs, path)
				}
				if errors.Is(err, fs.ErrNotExist) {
					return nil
				}
				return err
			})
			errs = append(errs, err)
			for _, dir := range slices.Backward(dirs) {
				if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
					errs = append(errs, fmt.Errorf("removing the cgroup: %w", err))
				}
			}
		}
	}
	return errors.Join(errs...)
}
