// Package status says how a node is: what the machine has, and the status of the node object that follows from it.
//
// Invariant: facts about the machine are read here and nowhere else; Node is pure.
//
// Only node imports status.
package status

import (
	"bufio"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Host is what the machine has.
type Host struct {
	CPUs                   int
	Memory, Disk           int64 // bytes
	Hugepages              map[string]int64
	MachineID, BootID      string
	SystemUUID             string
	Kernel, OSImage        string
	PIDsMax, PIDs          int64
	MemoryAvailable        int64
	DiskAvailable          int64
	DiskInodes, InodesFree int64
}

// Memory is the machine's memory in bytes.
func Memory() int64 { return meminfo()["MemTotal"] }

// ReadHost reads the machine's facts; dir is where pods' data lies.
func ReadHost(dir string) Host {
	m := meminfo()
	h := Host{CPUs: runtime.NumCPU(), Memory: m["MemTotal"], MemoryAvailable: m["MemAvailable"], Hugepages: hugepages(),
		MachineID: firstOf("/etc/machine-id", "/var/lib/dbus/machine-id"), BootID: firstOf("/proc/sys/kernel/random/boot_id"),
		SystemUUID: firstOf("/sys/class/dmi/id/product_uuid", "/etc/machine-id"), Kernel: firstOf("/proc/sys/kernel/osrelease"), OSImage: osImage()}
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) == nil {
		h.Disk, h.DiskAvailable = int64(st.Blocks)*st.Bsize, int64(st.Bavail)*st.Bsize
		h.DiskInodes, h.InodesFree = int64(st.Files), int64(st.Ffree)
	}
	h.PIDsMax, _ = strconv.ParseInt(firstOf("/proc/sys/kernel/pid_max"), 10, 64)
	if f := strings.Fields(firstOf("/proc/loadavg")); len(f) > 3 {
		_, total, _ := strings.Cut(f[3], "/")
		h.PIDs, _ = strconv.ParseInt(total, 10, 64)
	}
	return h
}

func firstOf(paths ...string) string {
	for _, p := range paths {
		if b, err := os.ReadFile(p); err == nil {
			if s := strings.TrimSpace(string(b)); s != "" {
				return s
			}
		}
	}
	return ""
}

func meminfo() map[string]int64 {
	out := map[string]int64{}
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return out
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		name, rest, _ := strings.Cut(sc.Text(), ":")
		if v := strings.Fields(rest); len(v) > 0 {
			if n, err := strconv.ParseInt(v[0], 10, 64); err == nil {
				out[name] = n * 1024
			}
		}
	}
	return out
}

func hugepages() map[string]int64 {
	out := map[string]int64{}
	dirs, err := filepath.Glob("/sys/kernel/mm/hugepages/hugepages-*kB")
	if err != nil {
		return out
	}
	for _, d := range dirs {
		kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(filepath.Base(d), "hugepages-"), "kB"), 10, 64)
		if err != nil {
			continue
		}
		n, _ := strconv.ParseInt(firstOf(filepath.Join(d, "nr_hugepages")), 10, 64)
		out[corev1.ResourceHugePagesPrefix+resource.NewQuantity(kb*1024, resource.BinarySI).String()] = n * kb * 1024
	}
	return out
}

func osImage() string {
	f, err := os.Open("/etc/os-release")
	if err != nil {
		return "Unknown"
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		if v, ok := strings.CutPrefix(sc.Text(), "PRETTY_NAME="); ok {
			return strings.Trim(v, `"'`)
		}
	}
	return "Unknown"
}
