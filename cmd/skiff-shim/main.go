// Command skiff-shim is the small program that containerd executes: the shim that watches over a pod's containers, and,
// when it is called as a CNI plug-in, what puts a pod onto the pod network. One program for both keeps what is embedded
// in skiff small.
package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/manager"
	_ "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/task/plugin"
	"github.com/containerd/containerd/v2/pkg/shim"

	"github.com/skiff-sh/skiff/internal/lean"
	"github.com/skiff-sh/skiff/podnet/cni"
)

func main() {
	if os.Getenv("CNI_COMMAND") != "" {
		os.Exit(cni.Main())
	}
	// One shim lives as long as its pod and does next to nothing: its memory counts, once for each pod. What is its own is
	// some 4 MB; the program's pages are shared by all shims.
	debug.SetGCPercent(20)
	debug.SetMemoryLimit(12 << 20)
	runtime.GOMAXPROCS(2)
	time.AfterFunc(5*time.Second, lean.Trim) // once its containers run
	shim.RunShim(context.Background(), manager.NewShimManager("io.containerd.runc.v2"))
}
