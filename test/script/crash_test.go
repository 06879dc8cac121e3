//go:build stories

package script

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/daemon"
)

func init() {
	commands["big"] = func(ts *testscript.TestScript, _ bool, args []string) {
		mb, err := strconv.Atoi(args[0])
		ts.Check(err)
		body := fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"big"},"data":{"a":%q}}`, strings.Repeat("x", mb<<20))
		ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(body), 0o644))
	}
	commands["burst"] = burst
	commands["acknowledged"] = func(ts *testscript.TestScript, _ bool, args []string) {
		c, _ := admin(ts)
		maps, err := client.List[*corev1.ConfigMap](context.Background(), c, ts.Getenv("NS"), metav1.ListOptions{})
		ts.Check(err)
		have := map[string]bool{}
		for _, m := range maps {
			have[m.Name] = true
		}
		names := strings.Fields(ts.ReadFile(args[0]))
		for _, name := range names {
			if !have[name] {
				ts.Fatalf("%s was acknowledged and is lost (%d acknowledged, %d there)", name, len(names), len(maps))
			}
		}
		ts.Logf("%d acknowledged writes are there", len(names))
	}
	commands["traces"] = func(ts *testscript.TestScript, _ bool, _ []string) { fmt.Fprint(ts.Stdout(), traces()) }
}

func admin(ts *testscript.TestScript) (client.Interface, *daemon.Config) {
	cfg, err := daemon.Load(instanceName, "")
	ts.Check(err)
	c, err := cfg.AdminClient()
	ts.Check(err)
	return c, cfg
}

// burst creates config maps from eight writers and kills the server with SIGKILL once half of them are acknowledged.
func burst(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	c, cfg := admin(ts)
	pid, ok := cfg.Running()
	if !ok {
		ts.Fatalf("skiff does not run")
	}
	var mu sync.Mutex
	var acknowledged []string
	var wg sync.WaitGroup
	names := make(chan string)
	for range 8 {
		wg.Go(func() {
			for name := range names {
				m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: ts.Getenv("NS")}, Data: map[string]string{"k": name}}
				if _, err := client.Create(context.Background(), c, m); err != nil {
					continue // killed
				}
				mu.Lock()
				acknowledged = append(acknowledged, name)
				if len(acknowledged) == n/2 {
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
				mu.Unlock()
			}
		})
	}
	for i := range n {
		names <- fmt.Sprintf("burst-%d", i)
	}
	close(names)
	wg.Wait()
	if len(acknowledged) < n/2 {
		ts.Fatalf("only %d of %d writes were acknowledged", len(acknowledged), n)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(strings.Join(acknowledged, "\n")), 0o644))
}

// traces lists what is left of the instance: folders, mounts, links, namespaces, nftables tables, cgroups, processes.
func traces() string {
	var out strings.Builder
	for _, dir := range []string{"/var/lib/" + instanceName, "/run/" + instanceName} {
		if _, err := os.Stat(dir); err == nil {
			fmt.Fprintln(&out, "folder", dir)
		}
	}
	grep := func(what string, lines []byte, err error) {
		if err != nil {
			fmt.Fprintln(&out, what, "cannot be listed:", err)
		}
		for line := range strings.Lines(string(lines)) {
			if strings.Contains(line, instanceName) {
				fmt.Fprint(&out, what, " ", line)
			}
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	grep("mount", mounts, err)
	for what, command := range map[string][]string{"link": {"ip", "-o", "link"}, "table": {"nft", "list", "tables"}} {
		lines, err := exec.Command(command[0], command[1:]...).Output()
		grep(what, lines, err)
	}
	for _, pattern := range []string{"/sys/fs/cgroup/" + instanceName, "/sys/fs/cgroup/*/" + instanceName} {
		groups, _ := filepath.Glob(pattern)
		for _, g := range groups {
			fmt.Fprintln(&out, "cgroup", g)
		}
	}
	processes, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range processes {
		if pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(p))); pid == os.Getpid() || pid == os.Getppid() {
			continue
		}
		if b, err := os.ReadFile(p); err == nil && strings.Contains(string(b), instanceName) {
			fmt.Fprintln(&out, "process", filepath.Base(filepath.Dir(p)), strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	return out.String()
}
