package cgroup

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// What a runtime forgot must not keep a pod's group, and with it the pod, for ever.
func TestRemoveKillsWhatIsLeftInTheGroup(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	tree, err := New("/sys/fs/cgroup", "skiff-cgroup-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tree.removeGroup(tree.root); err != nil {
			t.Error(err)
		}
	})
	const uid = "7e0a"
	if err := tree.Ensure(uid, corev1.PodQOSBestEffort, Limits{CPUShares: 2}); err != nil {
		t.Fatal(err)
	}
	group := strings.TrimPrefix(tree.Parent(uid, corev1.PodQOSBestEffort), "/")
	dirs, err := filepath.Glob(filepath.Join(tree.mount, "*", group))
	if err != nil {
		t.Fatal(err)
	}
	if tree.v2 {
		dirs = []string{filepath.Join(tree.mount, group)}
	}
	if len(dirs) == 0 {
		t.Fatal("no group was made")
	}
	left := exec.Command("sleep", "600")
	if err := left.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- left.Wait() }()
	t.Cleanup(func() { _ = left.Process.Kill() })
	for _, dir := range dirs {
		below := filepath.Join(dir, "forgotten")
		if err := os.Mkdir(below, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(below, "cgroup.procs"), []byte(strconv.Itoa(left.Process.Pid)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := tree.Remove(uid); err == nil {
		t.Fatal("a group with a process in it was removed")
	}
	<-ended
	for try := 0; ; try++ { // the kernel lets go a moment later
		if err = tree.Remove(uid); err == nil {
			break
		}
		if try == 100 {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	for _, dir := range dirs {
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s: %v", dir, err)
		}
	}
}
