// Command skiff is Kubernetes in one binary.
package main

import (
	"os"

	"github.com/skiff-sh/skiff/ctl"
	"github.com/skiff-sh/skiff/node/runtime"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == runtime.Command {
		os.Exit(runtime.Main(os.Args[2:]))
	}
	os.Exit(ctl.Main(os.Args[1:]))
}
