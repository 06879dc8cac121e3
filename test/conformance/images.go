package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/skiff-sh/skiff/image"
)

// packed is an image that the suite pulls and the tar that it was packed into.
type packed struct{ name, tar string }

// recipe says how the image of a repository is put together, for whatever tags the suite asks for.
type recipe struct {
	scratch bool // from nothing, rather than on the Debian tools
	image.Spec
}

const toolsImage = "conformance.invalid/tools:latest"

// buildImages packs every image that the suite lists and there is a recipe for. The others belong to specs that no
// conformance run has; their names go into out/images/missing.
func buildImages(ctx context.Context, out string) ([]packed, error) {
	dir := filepath.Join(out, "images")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	wanted, err := listImages(ctx, out)
	if err != nil {
		return nil, err
	}
	root, err := debianTree(ctx, out)
	if err != nil {
		return nil, err
	}
	kit := kit{bin: filepath.Join(out, "bin"), root: root}
	if kit.source, err = upstreamSource(ctx); err != nil {
		return nil, err
	}
	if kit.applets, err = busyboxApplets(ctx, kit.bin); err != nil {
		return nil, err
	}
	tools := filepath.Join(dir, "tools.tar")
	if err := kit.pack(tools, toolsImage, recipe{scratch: true, Spec: kit.tools()}, ""); err != nil {
		return nil, err
	}
	recipes := kit.recipes()
	var done []packed
	var missing []string
	for _, name := range wanted {
		r, ok := recipes[repository(name)]
		if !ok {
			missing = append(missing, name)
			continue
		}
		tar := filepath.Join(dir, strings.NewReplacer("/", "_", ":", "_").Replace(name)+".tar")
		if err := kit.pack(tar, name, r, tools); err != nil {
			return nil, fmt.Errorf("image %s: %w", name, err)
		}
		done = append(done, packed{name, tar})
	}
	say("%d of the suite's %d images are put together", len(done), len(wanted))
	return done, os.WriteFile(filepath.Join(dir, "missing"), []byte(strings.Join(missing, "\n")+"\n"), 0o644)
}

// listImages asks the suite for what it pulls.
func listImages(ctx context.Context, out string) ([]string, error) {
	raw, err := exec.CommandContext(ctx, filepath.Join(out, "bin", "e2e.test"), "-list-images").Output()
	if err != nil {
		return nil, fmt.Errorf("the suite's list of images: %w", err)
	}
	names := strings.Fields(string(raw))
	slices.Sort(names)
	return slices.Compact(names), nil
}

func upstreamSource(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes")
	cmd.Dir = upstreamDir
	raw, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("the suite's source: %w", err)
	}
	return filepath.Join(strings.TrimSpace(string(raw)), "test/images"), nil
}

// repository is the image's name without its registry and tag.
func repository(name string) string {
	_, path, _ := strings.Cut(name, "/")
	if i := strings.LastIndexByte(path, ':'); i >= 0 {
		path = path[:i]
	}
	return path
}

// kit is where the images' parts lie.
type kit struct {
	bin     string   // built programs
	root    string   // unpacked Debian packages
	source  string   // upstream's images' sources, for their data files
	applets []string // busybox's commands
}

// pack packs r's image unless the tar is there from the same parts.
func (k *kit) pack(tar, name string, r recipe, tools string) error {
	inputs, err := describe(r)
	if err != nil {
		return err
	}
	if !r.scratch {
		base, err := os.ReadFile(tools + ".from")
		if err != nil {
			return err
		}
		inputs += string(base)
	}
	return fresh(tar, inputs, func() error {
		say("packing %s", name)
		if !r.scratch {
			if r.Base, err = image.BaseFile(tools); err != nil {
				return err
			}
		}
		r.Name = name
		return image.PackFile(r.Spec, tar)
	})
}

// describe tells apart recipes with different results, by the sizes and times of the files that go in.
func describe(r recipe) (string, error) {
	text, err := json.Marshal(r.Spec)
	if err != nil {
		return "", err
	}
	parts := []string{string(text)}
	for _, f := range r.Files {
		if f.Source == "" {
			continue
		}
		info, err := os.Stat(f.Source)
		if err != nil {
			return "", err
		}
		parts = append(parts, fmt.Sprintf("%s %d %s", f.Source, info.Size(), info.ModTime().UTC()))
		if mark, err := os.Stat(f.Source + ".from"); err == nil && info.IsDir() { // an unpacked tree: its own time is a package's
			parts = append(parts, mark.ModTime().UTC().String())
		}
	}
	return strings.Join(parts, "\n"), nil
}

const passwd = `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
bin:x:2:2:bin:/bin:/usr/sbin/nologin
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
`

const group = `root:x:0:
daemon:x:1:
bin:x:2:
www-data:x:33:
nogroup:x:65534:
`

// system is what every image with a shell has besides its programs.
func system() []image.File {
	return []image.File{
		{Content: []byte(passwd), Dest: "/etc/passwd"},
		{Content: []byte(group), Dest: "/etc/group"},
		{Content: []byte("hosts: files dns\n"), Dest: "/etc/nsswitch.conf"},
		{Mode: fs.ModeDir | 0o700, Dest: "/root"},
		{Mode: fs.ModeDir | fs.ModeSticky | 0o777, Dest: "/tmp"},
		{Mode: fs.ModeDir | fs.ModeSticky | 0o777, Dest: "/var/tmp"},
		{Mode: fs.ModeDir | 0o755, Dest: "/run"},
		{Mode: fs.ModeDir | 0o755, Dest: "/home"},
	}
}

// tools is the base of most images: the Debian packages, with busybox for every command that they lack.
func (k *kit) tools() image.Spec {
	files := []image.File{{Source: k.root, Dest: "/"}, {Source: k.program("busybox"), Dest: "/usr/bin/busybox"}}
	for _, name := range k.applets {
		if !exists(filepath.Join(k.root, "usr/bin", name)) && !exists(filepath.Join(k.root, "usr/sbin", name)) {
			files = append(files, image.File{Link: "/bin/busybox", Dest: "/usr/bin/" + name})
		}
	}
	files = append(files, system()...)
	// What Debian's scripts would set up. Busybox must not be the shell: it would run its own nc and so on, whatever is on
	// the path.
	files = append(files,
		image.File{Link: "bash", Dest: "/usr/bin/sh"},
		image.File{Link: "nc.openbsd", Dest: "/usr/bin/nc"},
		image.File{Link: "xtables-nft-multi", Dest: "/usr/sbin/iptables"},
		image.File{Link: "xtables-nft-multi", Dest: "/usr/sbin/ip6tables"},
		image.File{Link: "xtables-nft-multi", Dest: "/usr/sbin/iptables-save"},
		image.File{Link: "xtables-nft-multi", Dest: "/usr/sbin/iptables-restore"},
	)
	return image.Spec{Files: files, Cmd: []string{"/bin/sh"}}
}

// recipes gives the recipe for each repository.
func (k *kit) recipes() map[string]recipe {
	agnhost := k.agnhost()
	picture := func(name string) recipe {
		r := agnhost
		r.Files = append(slices.Clone(agnhost.Files),
			image.File{Source: filepath.Join(k.source, name, "html", name+".jpg"), Dest: "/" + name + ".jpg"},
			image.File{Source: filepath.Join(k.source, name, "html/data.json"), Dest: "/data.json"},
			// The suite knows the image by the name of the system that upstream builds it on.
			image.File{Content: []byte("NAME=\"Alpine Linux\"\nID=alpine\n"), Dest: "/etc/os-release"})
		r.Cmd = []string{"test-webserver"}
		return r
	}
	tools := recipe{}
	return map[string]recipe{
		"e2e-test-images/agnhost":           agnhost,
		"e2e-test-images/kitten":            picture("kitten"),
		"e2e-test-images/nautilus":          picture("nautilus"),
		"e2e-test-images/busybox":           k.busybox(),
		"e2e-test-images/nginx":             k.nginx(),
		"e2e-test-images/perl":              {Spec: image.Spec{Cmd: []string{"perl", "-de0"}}},
		"e2e-test-images/glibc-dns-testing": tools,
		"e2e-test-images/ipc-utils":         tools,
		"build-image/distroless-iptables":   tools,
		"e2e-test-images/nonroot":           {Spec: image.Spec{User: "1234"}},
		"e2e-test-images/nonewprivs": {Spec: image.Spec{
			Files: []image.File{{Source: k.program("nnp"), Dest: "/usr/local/bin/nnp", Mode: fs.ModeSetuid | fs.ModeSetgid | 0o755}},
			Cmd:   []string{"nnp"},
		}},
		"e2e-test-images/resource-consumer": {Spec: image.Spec{
			Files:      []image.File{{Source: k.program("consumer"), Dest: "/consumer"}, {Source: k.program("consume-cpu"), Dest: "/consume-cpu"}},
			Entrypoint: []string{"/consumer"}, Ports: []string{"8080"},
		}},
		"e2e-test-images/sample-apiserver": k.single("sample-apiserver", "/sample-apiserver"),
		"pause":                            k.single("pause", "/pause"),
		"etcd": {scratch: true, Spec: image.Spec{
			Files: []image.File{{Source: k.program("etcd"), Dest: "/usr/local/bin/etcd"}, {Mode: fs.ModeDir | fs.ModeSticky | 0o777, Dest: "/tmp"}},
			Cmd:   []string{"etcd"},
		}},
	}
}

func (k *kit) program(name string) string { return filepath.Join(k.bin, name) }

// single is an image of one static program.
func (k *kit) single(name, path string) recipe {
	return recipe{scratch: true, Spec: image.Spec{
		Files:      []image.File{{Source: k.program(name), Dest: path}, {Mode: fs.ModeDir | fs.ModeSticky | 0o777, Dest: "/tmp"}},
		Entrypoint: []string{path},
	}}
}

// agnhost is the suite's image of many uses. Specs look for its second name, its extra user and group, and the
// certificate beside it.
func (k *kit) agnhost() recipe {
	porter := filepath.Join(k.source, "agnhost/porter")
	return recipe{Spec: image.Spec{
		Files: []image.File{
			{Source: k.program("agnhost"), Dest: "/agnhost"},
			{Link: "agnhost", Dest: "/agnhost-2"},
			{Source: filepath.Join(porter, "localhost.crt"), Dest: "/localhost.crt", Mode: 0o644},
			{Source: filepath.Join(porter, "localhost.key"), Dest: "/localhost.key", Mode: 0o644},
			{Mode: fs.ModeDir | 0o755, Dest: "/uploads"},
			{Content: []byte(passwd + "user-defined-in-image:x:1000:1000::/home/user-defined-in-image:/bin/sh\n"), Dest: "/etc/passwd"},
			{Content: []byte(group + "user-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n"), Dest: "/etc/group"},
		},
		Entrypoint: []string{"/agnhost"}, Cmd: []string{"pause"},
		Ports: []string{"80", "8080", "8081", "9376", "5000"},
	}}
}

func (k *kit) busybox() recipe {
	files := append(system(), image.File{Source: k.program("busybox"), Dest: "/bin/busybox"})
	for _, name := range k.applets {
		files = append(files, image.File{Link: "busybox", Dest: "/bin/" + name})
	}
	return recipe{scratch: true, Spec: image.Spec{Files: files, Cmd: []string{"sh"}}}
}

const nginxConfig = `user www-data;
worker_processes 1;
pid /run/nginx.pid;
error_log /dev/stderr notice;
events { worker_connections 1024; }
http {
	types { text/html html; text/css css; application/json json; text/plain txt; }
	default_type application/octet-stream;
	access_log /dev/stdout;
	server {
		listen 80;
		server_name localhost;
		location / {
			root /usr/share/nginx/html;
			index index.html index.htm;
		}
	}
}
`

const nginxPage = `<!DOCTYPE html>
<html>
<head><title>Welcome to nginx!</title></head>
<body><h1>Welcome to nginx!</h1></body>
</html>
`

func (k *kit) nginx() recipe {
	return recipe{Spec: image.Spec{
		Files: []image.File{
			{Content: []byte(nginxConfig), Dest: "/etc/nginx/nginx.conf"},
			{Content: []byte(nginxPage), Dest: "/usr/share/nginx/html/index.html"},
			{Mode: fs.ModeDir | 0o755, Dest: "/var/lib/nginx"},
			{Mode: fs.ModeDir | 0o755, Dest: "/var/log/nginx"},
		},
		Cmd: []string{"nginx", "-g", "daemon off;"}, Ports: []string{"80"},
	}}
}

func exists(file string) bool {
	_, err := os.Lstat(file)
	return !errors.Is(err, fs.ErrNotExist)
}
