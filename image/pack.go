package image

import (
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Build makes the image that spec describes. Its layer is read from the files again each time it is asked for,
// so they must not change while the image is in use. Errors name the field or file at fault.
func Build(spec Spec) (v1.Image, error) {
	if err := spec.validate(); err != nil {
		return nil, err
	}
	img := spec.Base
	if img == nil {
		img = empty.Image
	}
	if len(spec.Files) > 0 {
		entries, err := collect(spec.Files, spec.Base == nil)
		if err != nil {
			return nil, err
		}
		layer, err := tarball.LayerFromOpener(entries.open, tarball.WithCompressionLevel(gzip.BestSpeed), tarball.WithCompressedCaching)
		if err != nil {
			return nil, err
		}
		img, err = mutate.Append(img, mutate.Addendum{Layer: layer, History: v1.History{CreatedBy: "skiff image pack"}})
		if err != nil {
			return nil, err
		}
	}
	base, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("base image: %w", err)
	}
	config := base.DeepCopy()
	spec.configure(config)
	return mutate.ConfigFile(img, config)
}

// Pack builds spec's image and writes it as a docker-archive tar, the form that "skiff image load", "ctr image
// import" and "docker load" read.
func Pack(spec Spec, w io.Writer) error {
	img, err := Build(spec)
	if err != nil {
		return err
	}
	return Write(w, spec.Name, img)
}

// PackFile is Pack into a file that appears whole or not at all.
func PackFile(spec Spec, file string) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	if err := Pack(spec, tmp); err != nil {
		return err
	}
	if err := tmp.Chmod(0o644); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), file)
}

// Write writes img under the name ref as a docker-archive tar.
func Write(w io.Writer, ref string, img v1.Image) error {
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return err
	}
	return tarball.Write(parsed, img, w)
}

// BaseFile opens the only image in a docker-archive tar. The file must stay while the image is in use.
func BaseFile(file string) (v1.Image, error) {
	img, err := tarball.ImageFromPath(file, nil)
	if err != nil {
		return nil, fmt.Errorf("base image %s: %w", file, err)
	}
	return img, nil
}

// configure lays the spec's settings over those that config has from the base.
func (s *Spec) configure(config *v1.ConfigFile) {
	config.OS = "linux"
	config.Created = v1.Time{}
	if s.Architecture != "" {
		config.Architecture = s.Architecture
	}
	if config.Architecture == "" {
		config.Architecture = runtime.GOARCH
	}
	c := &config.Config
	if s.Entrypoint != nil {
		// The base's arguments were meant for the base's program.
		c.Entrypoint, c.Cmd = s.Entrypoint, nil
	}
	if s.Cmd != nil {
		c.Cmd = s.Cmd
	}
	if len(c.Env) == 0 {
		c.Env = []string{defaultPath}
	}
	for _, e := range s.Env {
		c.Env = setEnv(c.Env, e)
	}
	if s.WorkDir != "" {
		c.WorkingDir = s.WorkDir
	}
	if s.User != "" {
		c.User = s.User
	}
	for _, p := range s.Ports {
		if c.ExposedPorts == nil {
			c.ExposedPorts = map[string]struct{}{}
		}
		port, _ := parsePort(p) // validate has seen it
		c.ExposedPorts[port] = struct{}{}
	}
	if len(s.Labels) > 0 {
		labels := maps.Clone(c.Labels)
		if labels == nil {
			labels = map[string]string{}
		}
		maps.Copy(labels, s.Labels)
		c.Labels = labels
	}
}

func setEnv(env []string, e string) []string {
	name, _, _ := strings.Cut(e, "=")
	env = slices.DeleteFunc(slices.Clone(env), func(old string) bool { return strings.HasPrefix(old, name+"=") })
	return append(env, e)
}

// parsePort gives the canonical form, "8080/tcp".
func parsePort(s string) (string, error) {
	number, protocol, found := strings.Cut(s, "/")
	if !found {
		protocol = "tcp"
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 || !slices.Contains([]string{"tcp", "udp", "sctp"}, protocol) {
		return "", fmt.Errorf("port %q: want a number from 1 to 65535, with /tcp, /udp or /sctp", s)
	}
	return fmt.Sprintf("%d/%s", n, protocol), nil
}
