// Command skiff-shim is the small program that containerd executes: the shim that watches over a pod's containers, and,
// when it is called as a CNI plug-in, what puts a pod onto the pod network. One program for both keeps what is embedded
// in skiff small.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/manager"
	_ "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/task/plugin"
	"github.com/containerd/containerd/v2/pkg/shim"
	"golang.org/x/sys/unix"

	"github.com/skiff-sh/skiff/podnet/cni"
)

func main() {
	if os.Getenv("CNI_COMMAND") != "" {
		os.Exit(cni.Main())
	}
	// One shim lives as long as its pod and does next to nothing: its memory counts, once for each pod.
	debug.SetGCPercent(20)
	debug.SetMemoryLimit(12 << 20)
	runtime.GOMAXPROCS(2)
	time.AfterFunc(5*time.Second, letGo)
	shim.RunShim(context.Background(), manager.NewShimManager("io.containerd.runc.v2"))
}

// letGo gives back what starting needed and waiting does not: the heap's free pages, and the program's own pages, most
// of which are read once. Those that are needed again come from the page cache.
func letGo() {
	debug.FreeOSMemory()
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer f.Close()
	exe, err := os.Executable()
	if err != nil {
		return
	}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var from, to uintptr
		var mode string
		line := lines.Text()
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil || !strings.HasSuffix(line, exe) {
			continue
		}
		if !strings.Contains(mode, "w") { // a written page would come back as it is in the file
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED)
		}
	}
}
