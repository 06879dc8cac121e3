package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Purge ends containerd, every shim and every container of a configuration, and removes their mounts, network
// namespaces, cgroups and folders. It may be called again after an error.
func Purge(ctx context.Context, cfg Config) error {
	if err := Stop(ctx, cfg); err != nil {
		return err
	}
	cgroups := cfg.cgroups()
	if err := cfg.killAll(ctx); err != nil {
		return err
	}
	for _, dir := range cgroups {
		if err := removeCgroup(dir); err != nil {
			return err
		}
	}
	if err := UnmountBelow(cfg.State, cfg.Root); err != nil {
		return err
	}
	var errs []error
	for _, dir := range []string{cfg.State, filepath.Dir(cfg.Socket), cfg.Root, cfg.BinDir} {
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}

// cgroups lists the folders of the containers' cgroups, as runc noted them; the pods' own above them are the agent's.
func (c *Config) cgroups() []string {
	var out []string
	states, _ := filepath.Glob(filepath.Join(c.State, "runc", "*", "*", "state.json"))
	for _, file := range states {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		var state struct {
			CgroupPaths map[string]string `json:"cgroup_paths"`
		}
		if err := json.Unmarshal(b, &state); err != nil {
			continue
		}
		for _, dir := range state.CgroupPaths {
			out = append(out, dir)
		}
	}
	return out
}

// removeCgroup removes a cgroup and those below it. The kernel lets go of one only a moment after its last process.
func removeCgroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // it is gone: controllers may share one hierarchy
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeCgroup(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	for range 100 {
		if err = unix.Rmdir(dir); !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("removing the cgroup %s: %w", dir, err)
	}
	return nil
}

// killAll kills the shims, which are known by the folder that their program is in, and what runs under them, which is
// known by its parents; children first would only be restarted by nobody, so the order does not matter.
func (c *Config) killAll(ctx context.Context) error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		pids := c.processes()
		if len(pids) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("these processes do not end: %v", pids)
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		for _, pid := range pids {
			short, cancel := context.WithTimeout(ctx, time.Second)
			waitFor(short, pid)
			cancel()
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// processes lists the shims of this instance and all their descendants. A container's process whose shim is gone
// already is found by its root file system, which is mounted below State.
func (c *Config) processes() []int {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	children := map[int][]int{}
	var found []int
	for _, stat := range stats {
		b, err := os.ReadFile(stat)
		if err != nil {
			continue
		}
		var pid, parent int
		if _, err := fmt.Sscan(string(b), &pid); err != nil {
			continue
		}
		if _, err := fmt.Sscanf(string(b[strings.LastIndexByte(string(b), ')')+1:]), " %s %d", new(string), &parent); err != nil {
			continue
		}
		children[parent] = append(children[parent], pid)
		proc := filepath.Dir(stat)
		exe, _ := os.Readlink(filepath.Join(proc, "exe"))
		if strings.HasPrefix(exe, c.BinDir+"/") || strings.HasPrefix(rootMount(proc), c.State+"/") {
			found = append(found, pid)
		}
	}
	for i := 0; i < len(found); i++ {
		for _, child := range children[found[i]] {
			if !slices.Contains(found, child) {
				found = append(found, child)
			}
		}
	}
	return found
}

// rootMount is the mount point, as this process sees it, of a process's root file system.
func rootMount(proc string) string {
	theirs, err := os.ReadFile(filepath.Join(proc, "mountinfo"))
	if err != nil {
		return ""
	}
	device := ""
	for line := range strings.Lines(string(theirs)) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == "/" {
			device = f[2]
		}
	}
	ours, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || device == "" {
		return ""
	}
	for line := range strings.Lines(string(ours)) {
		// A device of its own marks a container's overlay; the machine's root is shared by all.
		if f := strings.Fields(line); len(f) > 4 && f[2] == device && f[4] != "/" {
			return f[4]
		}
	}
	return ""
}

// UnmountBelow lazily unmounts everything that is mounted at or below the folders, the innermost first.
func UnmountBelow(dirs ...string) error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var points []string
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		point := strings.ReplaceAll(f[4], `\040`, " ")
		for _, dir := range dirs {
			if point == dir || strings.HasPrefix(point, dir+"/") {
				points = append(points, point)
			}
		}
	}
	var errs []error
	for _, point := range slices.Backward(points) { // mountinfo lists in the order of mounting
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("unmounting %s: %w", point, err))
		}
	}
	return errors.Join(errs...)
}
