package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// mirrored are the public registries whose images ours stands in for.
var mirrored = []string{"registry.k8s.io", "docker.io", "gcr.io", "quay.io"}

// serveImages starts the registry and names it as the mirror of the public ones. stop ends it and takes away the
// mirror files that were written here.
func serveImages(ctx context.Context, c config, images []packed) (stop func() error, err error) {
	if len(c.hostsDirs) == 0 {
		return nil, errors.New("no folder matches -hosts-dir: start a cluster with \"skiff up\" first, or say where its nodes look for registry mirrors")
	}
	lib := newLibrary()
	for _, p := range images {
		if err := lib.add(p); err != nil {
			return nil, fmt.Errorf("image %s: %w", p.name, err)
		}
	}
	var listening net.ListenConfig
	listener, err := listening.Listen(ctx, "tcp", c.registry)
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: lib, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	var written []string
	stop = func() error {
		errs := []error{unmirror(written), server.Close()}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}
	for _, dir := range c.hostsDirs {
		more, err := mirror(dir, listener.Addr().String())
		written = append(written, more...)
		if err != nil {
			return nil, errors.Join(err, stop())
		}
	}
	say("serving %d images at %s", len(images), listener.Addr())
	return stop, nil
}

// library is a registry that can only be read (the pull half of the OCI distribution specification), straight from
// the packed tars. It knows images by their names without the registry's: whichever one a client means, it gets ours.
type library struct {
	manifests map[string]content // by "repository:tag" and "repository@digest"
	blobs     map[string]content // by digest
}

type content struct {
	mediaType, digest string
	size              int64
	open              func() (io.ReadCloser, error)
}

func newLibrary() *library {
	return &library{manifests: map[string]content{}, blobs: map[string]content{}}
}

func inMemory(mediaType string, digest v1.Hash, raw []byte) content {
	return content{mediaType, digest.String(), int64(len(raw)), func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(raw)), nil
	}}
}

func (l *library) add(p packed) error {
	img, err := tarball.ImageFromPath(p.tar, nil)
	if err != nil {
		return err
	}
	raw, err := img.RawManifest()
	if err != nil {
		return err
	}
	manifest, err := img.Manifest()
	if err != nil {
		return err
	}
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	settings, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for i, described := range manifest.Layers {
		l.blobs[described.Digest.String()] = content{string(described.MediaType), described.Digest.String(), described.Size, layers[i].Compressed}
	}
	l.blobs[manifest.Config.Digest.String()] = inMemory(string(manifest.Config.MediaType), manifest.Config.Digest, settings)
	repo := repository(p.name)
	_, tag, _ := strings.Cut(p.name[strings.LastIndexByte(p.name, '/'):], ":")
	l.manifests[repo+":"+tag] = inMemory(string(manifest.MediaType), digest, raw)
	l.manifests[repo+"@"+digest.String()] = inMemory(string(manifest.MediaType), digest, raw)
	return nil
}

func (l *library) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	if r.URL.Path == "/v2/" || r.URL.Path == "/v2" {
		return
	}
	c, ok := l.find(r.URL.Path)
	if !ok {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		io.WriteString(w, `{"errors":[{"code":"NAME_UNKNOWN","message":"not one of the suite's images"}]}`)
		return
	}
	w.Header().Set("Content-Type", c.mediaType)
	w.Header().Set("Content-Length", strconv.FormatInt(c.size, 10))
	w.Header().Set("Docker-Content-Digest", c.digest)
	if r.Method == http.MethodHead {
		return
	}
	body, err := c.open()
	if err != nil {
		panic(http.ErrAbortHandler) // the client sees the connection end, and tries again
	}
	defer body.Close()
	_, _ = io.Copy(w, body) // an error is the client's going away
}

// find takes the path apart: /v2/<repository, with slashes>/manifests/<tag or digest>, or .../blobs/<digest>.
func (l *library) find(path string) (content, bool) {
	path, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		return content{}, false
	}
	dir, reference, _ := cutLast(path, "/")
	repo, kind, _ := cutLast(dir, "/")
	switch kind {
	case "manifests":
		separator := ":"
		if strings.Contains(reference, ":") {
			separator = "@"
		}
		c, ok := l.manifests[repo+separator+reference]
		return c, ok
	case "blobs":
		c, ok := l.blobs[reference]
		return c, ok
	}
	return content{}, false
}

func cutLast(s, separator string) (before, after string, found bool) {
	if i := strings.LastIndex(s, separator); i >= 0 {
		return s[:i], s[i+len(separator):], true
	}
	return s, "", false
}

// mirror writes a hosts.toml for each public registry, in containerd's form, and gives the files that it wrote. One
// that someone else wrote is an error: whoever set a mirror up should decide.
func mirror(dir, address string) (written []string, err error) {
	for _, host := range mirrored {
		file := filepath.Join(dir, host, "hosts.toml")
		text := hostsFile(host, address)
		old, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return written, err
		}
		if err == nil && !strings.HasPrefix(string(old), hostsMark) {
			return written, fmt.Errorf("%s is there already and not ours", file)
		}
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return written, err
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return written, err
		}
		written = append(written, file)
	}
	return written, nil
}

const hostsMark = "# Written by the conformance run, and removed when it ends.\n"

func hostsFile(host, address string) string {
	upstream := host
	if host == "docker.io" {
		upstream = "registry-1.docker.io"
	}
	return fmt.Sprintf("%sserver = \"https://%s\"\n\n[host.\"http://%s\"]\n  capabilities = [\"pull\", \"resolve\"]\n", hostsMark, upstream, address)
}

// unmirror takes away what mirror wrote.
func unmirror(written []string) error {
	var errs []error
	for _, file := range written {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		_ = os.Remove(filepath.Dir(file)) // stays when something else is in it
	}
	return errors.Join(errs...)
}
