package runtime

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// The small programs that containerd executes are built first and embedded (see the Makefile's build target): the shim,
// which is also the CNI plug-in, and pause.
//
//go:embed assets
var assets embed.FS

// CNIPlugin is the name of the CNI plug-in's program, which a network configuration gives as its type.
const CNIPlugin = "skiff-cni"

// asset reads an embedded program; a binary that was built without one looks beside itself.
func asset(name string) ([]byte, error) {
	b, err := assets.ReadFile("assets/" + name)
	if err == nil {
		return b, nil
	}
	exe, err2 := os.Executable()
	if err2 != nil {
		return nil, err2
	}
	b, err = os.ReadFile(filepath.Join(filepath.Dir(exe), name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("this binary was built without %s; build it with \"make build\"", name)
	}
	return b, err
}

// unpack writes the programs to where containerd executes them.
func unpack(binDir, cniBinDir string) error {
	shim, err := asset("skiff-shim")
	if err != nil {
		return err
	}
	if err := program(filepath.Join(binDir, "containerd-shim-runc-v2"), shim); err != nil {
		return err
	}
	return program(filepath.Join(cniBinDir, CNIPlugin), shim)
}

// program writes an executable that may be running: the old file stays with whoever has it open.
func program(path string, b []byte) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, b) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o755); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
