package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// release is the Kubernetes release that upstream/go.mod pins.
const release = "v1.36.3"

// upstreamDir is the module that the programs are built from, relative to this folder.
const upstreamDir = "upstream"

// programs are what the suite and its images are made of: the name in out/bin, and the package.
var programs = []struct{ name, pkg string }{
	{"kubectl", "k8s.io/kubernetes/cmd/kubectl"},
	{"e2e.test", "k8s.io/kubernetes/test/e2e"},
	{"ginkgo", "github.com/onsi/ginkgo/v2/ginkgo"},
	{"agnhost", "k8s.io/kubernetes/test/images/agnhost"},
	{"nnp", "k8s.io/kubernetes/test/images/nonewprivs"},
	{"consumer", "k8s.io/kubernetes/test/images/resource-consumer"},
	{"consume-cpu", "k8s.io/kubernetes/test/images/resource-consumer/consume-cpu"},
	{"sample-apiserver", "k8s.io/sample-apiserver"},
	{"etcd", "go.etcd.io/etcd/server/v3"},
}

// buildPrograms builds what is missing or was built from other pins. The suite alone takes minutes the first time.
func buildPrograms(ctx context.Context, out string) error {
	pins, err := hashFiles(filepath.Join(upstreamDir, "go.mod"), filepath.Join(upstreamDir, "go.sum"))
	if err != nil {
		return err
	}
	for _, p := range programs {
		target := filepath.Join(out, "bin", p.name)
		err := fresh(target, pins+" "+p.pkg, func() error {
			say("building %s", p.pkg)
			args := []string{"build"}
			if strings.HasSuffix(p.name, ".test") {
				args = []string{"test", "-c"}
			}
			return goCommand(ctx, upstreamDir, append(args, "-ldflags", stamp(), "-o", target, p.pkg)...)
		})
		if err != nil {
			return err
		}
	}
	if err := buildBusybox(ctx, out); err != nil {
		return err
	}
	const pauseSource = "../../cmd/skiff-pause"
	pause, err := hashFiles(filepath.Join(pauseSource, "main.go"))
	if err != nil {
		return err
	}
	target := filepath.Join(out, "bin", "pause")
	return fresh(target, pause, func() error {
		return goCommand(ctx, ".", "build", "-trimpath", "-ldflags", "-s -w", "-o", target, pauseSource)
	})
}

// stamp gives the programs the version that a release build has; kubectl and the suite report it.
func stamp() string {
	const pkg = "k8s.io/component-base/version"
	parts := strings.SplitN(strings.TrimPrefix(release, "v"), ".", 3)
	return fmt.Sprintf("-s -w -X %[1]s.gitVersion=%[2]s -X %[1]s.gitMajor=%[3]s -X %[1]s.gitMinor=%[4]s -X %[1]s.gitTreeState=clean",
		pkg, release, parts[0], parts[1])
}

func goCommand(ctx context.Context, dir string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	return command(cmd)
}

// command runs cmd and puts what it wrote into the error.
func command(cmd *exec.Cmd) error {
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, output.String())
	}
	return nil
}

// fresh calls build unless it made target from the same inputs before. What the inputs were is kept beside target.
func fresh(target, inputs string, build func() error) error {
	mark := target + ".from"
	if was, err := os.ReadFile(mark); err == nil && string(was) == inputs {
		if _, err := os.Stat(target); err == nil {
			return nil
		}
	}
	if err := os.Remove(mark); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := build(); err != nil {
		return err
	}
	return os.WriteFile(mark, []byte(inputs), 0o644)
}

func hashFiles(files ...string) (string, error) {
	h := sha256.New()
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n", filepath.Base(file), len(raw))
		h.Write(raw)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
