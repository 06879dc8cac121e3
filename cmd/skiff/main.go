// Command skiff is Kubernetes in one binary: its own command line, or, called by the name of one of upstream's programs
// ("kube-apiserver", or "skiff kube-apiserver"), that program.
package main

import (
	"os"
	"path/filepath"

	"github.com/skiff-sh/skiff/ctl"
	"github.com/skiff-sh/skiff/daemon/dropin"
	"github.com/skiff-sh/skiff/node/runtime"
)

func main() { os.Exit(run(filepath.Base(os.Args[0]), os.Args[1:])) }

func run(name string, args []string) int {
	switch {
	case name == "kubectl":
		return ctl.PlainKubectl(args)
	case dropin.Is(name):
		return dropin.Main(name, args)
	case len(args) > 0 && args[0] == runtime.Command:
		return runtime.Main(args[1:])
	case len(args) > 0 && dropin.Is(args[0]):
		return dropin.Main(args[0], args[1:])
	}
	return ctl.Main(args)
}
