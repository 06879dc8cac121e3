// Package cgroup makes the groups that pods live in: <root>/[burstable|besteffort]/pod<UID>, on cgroup v2 or v1.
//
// Invariant: only groups below the configured root are made, changed or removed. A controller that this machine or
// this process does not have is left out, not an error.
//
// Only node imports cgroup.
package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// Tree is the groups below one root.
type Tree struct {
	mount string // /sys/fs/cgroup
	root  string // "skiff", relative
	v2    bool
}

// Open takes a limit away that a group may have.
const Open = -1

// Limits of a group. Zero leaves what there is, which in a new group is no limit; Open makes it so.
type Limits struct {
	CPUShares, CPUQuota, Memory, Pids int64 // quota in microseconds for each 100 ms, memory in bytes
}

// New finds out what the machine has; mount is normally /sys/fs/cgroup.
func New(mount, root string) (*Tree, error) {
	root = strings.Trim(root, "/")
	if root == "" || !filepath.IsLocal(root) {
		return nil, fmt.Errorf("cgroup root %q must be a relative path", root)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(mount, &st); err != nil {
		return nil, fmt.Errorf("cgroup: %s: %w", mount, err)
	}
	return &Tree{mount: mount, root: root, v2: st.Type == unix.CGROUP2_SUPER_MAGIC}, nil
}

// V2 reports whether the machine has the unified hierarchy.
func (t *Tree) V2() bool { return t.v2 }

// Parent is the group of a pod as the runtime is told.
func (t *Tree) Parent(uid string, qos corev1.PodQOSClass) string {
	return "/" + filepath.Join(t.root, class(qos), "pod"+uid)
}

func class(qos corev1.PodQOSClass) string {
	switch qos {
	case corev1.PodQOSBestEffort:
		return "besteffort"
	case corev1.PodQOSBurstable:
		return "burstable"
	}
	return ""
}

// Ensure makes a pod's group with its limits.
func (t *Tree) Ensure(uid string, qos corev1.PodQOSClass, l Limits) error {
	if c := class(qos); c == "besteffort" {
		if err := t.apply(filepath.Join(t.root, c), Limits{CPUShares: 2}); err != nil {
			return err
		}
	}
	return t.apply(strings.TrimPrefix(t.Parent(uid, qos), "/"), l)
}

// Usage is where a group's files of one controller are ("cpuacct", "memory").
func (t *Tree) Usage(group, controller string) string {
	if t.v2 {
		return filepath.Join(t.mount, group)
	}
	return filepath.Join(t.mount, controller, group)
}

// Root is the path of the root group.
func (t *Tree) Root() string { return "/" + t.root }

func (t *Tree) apply(group string, l Limits) error {
	if t.v2 {
		return t.applyV2(group, l)
	}
	for _, c := range []struct {
		controller string
		files      map[string]int64
	}{
		{"cpu", map[string]int64{"cpu.shares": l.CPUShares, "cpu.cfs_quota_us": l.CPUQuota}},
		{"memory", map[string]int64{"memory.limit_in_bytes": l.Memory}},
		{"pids", map[string]int64{"pids.max": l.Pids}},
	} {
		base := filepath.Join(t.mount, c.controller)
		if _, err := os.Stat(base); err != nil {
			continue
		}
		dir := filepath.Join(base, group)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("cgroup: %w", err)
		}
		for f, v := range c.files {
			if v == 0 {
				continue
			}
			if err := write(dir, f, strconv.FormatInt(v, 10)); err != nil {
				return err
			}
		}
	}
	return nil
}

// applyV2 makes a group of the unified hierarchy and turns its controllers on along the way.
func (t *Tree) applyV2(group string, l Limits) error {
	dir := t.mount
	for part := range strings.SplitSeq(group, "/") {
		for _, c := range []string{"cpu", "memory", "pids", "cpuset", "io", "hugetlb"} {
			// A controller may be missing here, or be taken by threads in the group; the limits below say so if it matters.
			_ = write(dir, "cgroup.subtree_control", "+"+c)
		}
		dir = filepath.Join(dir, part)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("cgroup: %w", err)
		}
	}
	set := map[string]string{}
	if l.CPUShares > 0 {
		set["cpu.weight"] = strconv.FormatInt(1+((min(max(l.CPUShares, 2), 262144)-2)*9999)/262142, 10)
	}
	switch {
	case l.CPUQuota > 0:
		set["cpu.max"] = fmt.Sprintf("%d 100000", l.CPUQuota)
	case l.CPUQuota == Open:
		set["cpu.max"] = "max 100000"
	}
	switch {
	case l.Memory == Open:
		set["memory.max"] = "max"
	case l.Memory > 0:
		set["memory.max"] = strconv.FormatInt(l.Memory, 10)
	}
	if l.Pids > 0 {
		set["pids.max"] = strconv.FormatInt(l.Pids, 10)
	}
	for f, v := range set {
		if err := write(dir, f, v); err != nil {
			return err
		}
	}
	return nil
}

// write sets one file; a file that is not there belongs to a controller that is not.
func write(dir, file, value string) error {
	err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0o644)
	if err == nil || errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		return nil
	}
	return fmt.Errorf("cgroup: %w", err)
}

// Remove takes a pod's group away in every hierarchy. A group with processes in it makes it fail, but not again: they are
// killed, for the runtime knows nothing of them (it leaves a container's first process behind when a start fails
// halfway), and the kernel lets go of the group a moment after they end.
func (t *Tree) Remove(uid string) error {
	for _, q := range []corev1.PodQOSClass{corev1.PodQOSGuaranteed, corev1.PodQOSBurstable, corev1.PodQOSBestEffort} {
		if err := t.removeGroup(strings.TrimPrefix(t.Parent(uid, q), "/")); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tree) removeGroup(group string) error {
	bases := []string{t.mount}
	if !t.v2 {
		entries, err := os.ReadDir(t.mount)
		if err != nil {
			return err
		}
		bases = bases[:0]
		for _, e := range entries {
			if e.IsDir() {
				bases = append(bases, filepath.Join(t.mount, e.Name()))
			}
		}
	}
	var failed error // the first: the others have the same cause
	for _, b := range bases {
		if err := removeTree(filepath.Join(b, group)); err != nil && failed == nil {
			failed = err
		}
	}
	return failed
}

// removeTree removes a group and those below it, which only rmdir can.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	err = unix.Rmdir(dir)
	if errors.Is(err, unix.EBUSY) {
		err = errors.Join(err, killAll(dir))
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("cgroup: remove %s: %w", dir, err)
	}
	return nil
}

// killAll kills the processes in one group, not in those below it.
func killAll(dir string) error {
	list, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return err
	}
	for _, word := range strings.Fields(string(list)) {
		pid, err := strconv.Atoi(word)
		if err != nil || pid <= 1 { // 0: a process of another pid namespace
			continue
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill %d: %w", pid, err)
		}
	}
	return nil
}

// Pods lists the UIDs of pods that have a group.
func (t *Tree) Pods() []string {
	base := filepath.Join(t.mount, t.root)
	if !t.v2 {
		base = filepath.Join(t.mount, "memory", t.root)
	}
	var out []string
	for _, c := range []string{"", "burstable", "besteffort"} {
		entries, err := os.ReadDir(filepath.Join(base, c))
		if err != nil {
			continue
		}
		for _, e := range entries {
			if uid, ok := strings.CutPrefix(e.Name(), "pod"); ok && e.IsDir() {
				out = append(out, uid)
			}
		}
	}
	return out
}
