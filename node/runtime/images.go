package runtime

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/skiff-sh/skiff/image"
)

// namespace is where the CRI plug-in keeps its images and containers.
const namespace = "k8s.io"

// Labels by which the CRI plug-in knows its images.
const (
	managedLabel = "io.cri-containerd.image"
	pinnedLabel  = "io.cri-containerd.pinned"
	sourceLabel  = "skiff.dev/asset-digest" // what a built-in image was made from
)

func (c *Config) connect() (*client.Client, error) {
	cl, err := client.New(c.Socket, client.WithDefaultNamespace(namespace))
	if err != nil {
		return nil, fmt.Errorf("containerd does not answer at %s: %w", c.Socket, err)
	}
	return cl, nil
}

// importPause puts the pause image into the store, unless the one that is there was made from the same program.
func (c *Config) importPause(ctx context.Context) error {
	pause, err := asset("skiff-pause")
	if err != nil {
		return err
	}
	cl, err := c.connect()
	if err != nil {
		return err
	}
	defer cl.Close()
	source := digest.FromBytes(pause).String()
	if old, err := cl.ImageService().Get(ctx, c.SandboxImage); err == nil && old.Labels[sourceLabel] == source {
		return nil
	}
	var tar bytes.Buffer
	err = image.Pack(image.Spec{Name: c.SandboxImage, Entrypoint: []string{"/pause"}, User: "65535:65535",
		Files: []image.File{{Dest: "/pause", Content: pause, Mode: 0o755}}}, &tar)
	if err != nil {
		return err
	}
	_, err = load(ctx, cl, &tar, map[string]string{managedLabel: "managed", pinnedLabel: "pinned", sourceLabel: source})
	return err
}

// Load puts the images of an OCI or docker archive into the node's store and returns their names.
func Load(ctx context.Context, cfg Config, archive io.Reader) ([]string, error) {
	cl, err := cfg.connect()
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	return load(ctx, cl, archive, map[string]string{managedLabel: "managed"})
}

func load(ctx context.Context, cl *client.Client, archive io.Reader, labels map[string]string) ([]string, error) {
	ctx, done, err := cl.WithLease(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = done(ctx) }()
	images, err := cl.Import(ctx, archive, client.WithImageLabels(labels))
	if err != nil {
		return nil, fmt.Errorf("this is no image archive that containerd can read: %w", err)
	}
	var names []string
	for _, im := range images {
		// Unpacked here, so that the first container does not wait for it.
		if err := client.NewImage(cl, im).Unpack(ctx, ""); err != nil && !errdefs.IsAlreadyExists(err) {
			return names, fmt.Errorf("unpacking %s: %w", im.Name, err)
		}
		names = append(names, im.Name)
	}
	return names, nil
}

// Image is one image of the node's store.
type Image struct {
	Name   string
	Digest string
	Size   int64 // bytes, of all its parts
}

// Images lists the node's store by name; what the CRI keeps under digests alone is left out.
func Images(ctx context.Context, cfg Config) ([]Image, error) {
	cl, err := cfg.connect()
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	all, err := cl.ListImages(ctx)
	if err != nil {
		return nil, err
	}
	var out []Image
	for _, im := range all {
		if strings.HasPrefix(im.Name(), "sha256:") {
			continue
		}
		size, err := im.Size(ctx)
		if err != nil {
			size = 0 // a part is missing; the image is listed all the same
		}
		out = append(out, Image{im.Name(), im.Target().Digest.String(), size})
	}
	slices.SortFunc(out, func(a, b Image) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}
