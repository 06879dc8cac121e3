package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func write(t *testing.T, file, content string, mode fs.FileMode) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, mode); err != nil {
		t.Fatal(err)
	}
	return file
}

// contents is the flattened image by path: the tar header, and the content in its PAX records.
func contents(t *testing.T, img v1.Image) map[string]*tar.Header {
	t.Helper()
	r := mutate.Extract(img)
	defer r.Close()
	found := map[string]*tar.Header{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		h.PAXRecords = map[string]string{"content": string(content)}
		name := "/" + strings.TrimSuffix(h.Name, "/")
		if found[name] != nil {
			t.Errorf("%s is there twice", name)
		}
		found[name] = h
	}
}

func build(t *testing.T, spec Spec) v1.Image {
	t.Helper()
	spec.Name = "example.test/app:1"
	img, err := Build(spec)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestFilesKeepTheirModesAndLinks(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "src/bin/tool"), "run", 0o755|fs.ModeSetuid)
	write(t, filepath.Join(dir, "src/etc/conf"), "a=1", 0o640)
	if err := os.Symlink("../bin/tool", filepath.Join(dir, "src/etc/alias")); err != nil {
		t.Fatal(err)
	}
	single := write(t, filepath.Join(dir, "single"), "one", 0o644)

	got := contents(t, build(t, Spec{Files: []File{
		{Source: filepath.Join(dir, "src"), Dest: "/opt/app"},
		{Source: single, Dest: "/usr/bin/"},
		{Source: single, Dest: "/usr/bin/renamed", Mode: 0o700},
		{Content: []byte("root:x:0:0::/:\n"), Dest: "/etc/passwd"},
		{Mode: fs.ModeDir | fs.ModeSticky | 0o777, Dest: "/var/spool"},
		{Link: "usr/lib", Dest: "/lib"},
		{Content: []byte("so"), Dest: "/lib/libx.so"},
		{Content: []byte{}, Dest: "/tmp/empty"},
	}}))

	for _, want := range []struct {
		path, content, link string
		kind                byte
		mode                int64
	}{
		{"/opt/app/bin/tool", "run", "", tar.TypeReg, 0o4755},
		{"/opt/app/etc/conf", "a=1", "", tar.TypeReg, 0o640},
		{"/opt/app/etc/alias", "", "../bin/tool", tar.TypeSymlink, 0o777},
		{"/usr/bin/single", "one", "", tar.TypeReg, 0o644},
		{"/usr/bin/renamed", "one", "", tar.TypeReg, 0o700},
		{"/etc/passwd", "root:x:0:0::/:\n", "", tar.TypeReg, 0o644},
		{"/var/spool", "", "", tar.TypeDir, 0o1777},
		{"/lib", "", "usr/lib", tar.TypeSymlink, 0o777},
		{"/usr/lib/libx.so", "so", "", tar.TypeReg, 0o644},
		{"/usr", "", "", tar.TypeDir, 0o755},
		{"/tmp", "", "", tar.TypeDir, 0o1777},
		{"/tmp/empty", "", "", tar.TypeReg, 0o644},
	} {
		h := got[want.path]
		if h == nil {
			t.Errorf("%s is missing", want.path)
			continue
		}
		if h.Typeflag != want.kind || h.Mode != want.mode || h.Linkname != want.link || h.PAXRecords["content"] != want.content {
			t.Errorf("%s: type %c mode %o link %q content %q", want.path, h.Typeflag, h.Mode, h.Linkname, h.PAXRecords["content"])
		}
		if h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != 0 {
			t.Errorf("%s: owner %d:%d, time %v", want.path, h.Uid, h.Gid, h.ModTime)
		}
	}
}

func TestSameFilesGiveSameBytes(t *testing.T) {
	var packed [2]bytes.Buffer
	for i := range packed {
		dir := t.TempDir() // different paths, inodes and times
		write(t, filepath.Join(dir, "b/tool"), strings.Repeat("x", 1<<16), 0o755)
		write(t, filepath.Join(dir, "a"), "a", 0o644)
		spec := Spec{
			Name: "example.test/app:1", Files: []File{{Source: dir, Dest: "/"}}, Entrypoint: []string{"/b/tool"},
			Env: []string{"A=1", "B=2"}, Labels: map[string]string{"x": "1", "y": "2"}, Ports: []string{"80", "53/udp"},
		}
		if err := Pack(spec, &packed[i]); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(packed[0].Bytes(), packed[1].Bytes()) {
		t.Error("two packs of the same files differ")
	}
}

func TestLayerOnBase(t *testing.T) {
	dir := t.TempDir()
	baseTar := filepath.Join(dir, "base.tar")
	err := PackFile(Spec{
		Name: "example.test/base:1", Entrypoint: []string{"/old"}, Cmd: []string{"arg"}, Env: []string{"KEEP=1", "SET=old"},
		Labels: map[string]string{"keep": "1"}, User: "7", WorkDir: "/srv", Ports: []string{"80"},
		Files: []File{{Content: []byte("old"), Dest: "/data/old"}, {Content: []byte("base"), Dest: "/data/both"}, {Mode: fs.ModeDir | 0o700, Dest: "/data"}},
	}, baseTar)
	if err != nil {
		t.Fatal(err)
	}
	base, err := BaseFile(baseTar)
	if err != nil {
		t.Fatal(err)
	}
	img := build(t, Spec{
		Base: base, Entrypoint: []string{"/new"}, Env: []string{"SET=new"}, Labels: map[string]string{"add": "2"},
		Ports: []string{"53/udp"}, Files: []File{{Content: []byte("top"), Dest: "/data/both"}},
	})
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c := config.Config
	if !slices.Equal(c.Entrypoint, []string{"/new"}) || c.Cmd != nil || c.User != "7" || c.WorkingDir != "/srv" {
		t.Errorf("config %+v", c)
	}
	if !slices.Contains(c.Env, "KEEP=1") || !slices.Contains(c.Env, "SET=new") || slices.Contains(c.Env, "SET=old") || !slices.Contains(c.Env, defaultPath) {
		t.Errorf("environment %q", c.Env)
	}
	if c.Labels["keep"] != "1" || c.Labels["add"] != "2" || len(c.ExposedPorts) != 2 {
		t.Errorf("labels %v, ports %v", c.Labels, c.ExposedPorts)
	}
	got := contents(t, img)
	if got["/data/old"] == nil || got["/data/both"].PAXRecords["content"] != "top" || got["/data"].Mode != 0o700 {
		t.Error("the layer does not lie over the base")
	}
}

func TestPackedTarReadsBack(t *testing.T) {
	file := filepath.Join(t.TempDir(), "app.tar")
	if err := PackFile(Spec{Name: "example.test/app:1", Files: []File{{Content: []byte("x"), Dest: "/x"}}}, file); err != nil {
		t.Fatal(err)
	}
	manifest, err := tarball.LoadManifest(func() (io.ReadCloser, error) { return os.Open(file) })
	if err != nil {
		t.Fatal(err)
	}
	if len(manifest) != 1 || !slices.Equal(manifest[0].RepoTags, []string{"example.test/app:1"}) {
		t.Errorf("manifest %+v", manifest)
	}
	left, err := os.ReadDir(filepath.Dir(file))
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestLibrariesOfADynamicProgram(t *testing.T) {
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	got := contents(t, build(t, Spec{Files: []File{{Source: shell, Dest: "/bin/sh", Libraries: true}}}))
	needed, err := Libraries(shell)
	if err != nil {
		t.Fatal(err)
	}
	if len(needed) < 2 || !slices.ContainsFunc(needed, func(l string) bool { return strings.HasPrefix(filepath.Base(l), "libc.") }) {
		t.Errorf("sh needs %q: want at least its loader and its C library", needed)
	}
	for _, lib := range needed {
		if h := got[lib]; h == nil || h.Typeflag != tar.TypeReg || h.Size == 0 {
			t.Errorf("%s is not in the image", lib)
		}
	}
	if needed, err := Libraries(write(t, filepath.Join(t.TempDir(), "script"), "#!/bin/sh\n", 0o755)); err != nil || len(needed) != 0 {
		t.Errorf("a script needs %q, %v", needed, err)
	}
}

func TestBadSpecs(t *testing.T) {
	dir := t.TempDir()
	fine := File{Content: []byte("x"), Dest: "/x"}
	for name, c := range map[string]struct {
		spec Spec
		want string
	}{
		"name":           {Spec{Name: "UPPER/Case", Files: []File{fine}}, "name"},
		"relative":       {Spec{Name: "a", Files: []File{{Content: []byte("x"), Dest: "x"}}}, "not an absolute path"},
		"two sources":    {Spec{Name: "a", Files: []File{{Content: []byte("x"), Link: "y", Dest: "/x"}}}, "exactly one"},
		"no source":      {Spec{Name: "a", Files: []File{{Dest: "/x"}}}, "exactly one"},
		"missing":        {Spec{Name: "a", Files: []File{{Source: filepath.Join(dir, "none"), Dest: "/x"}}}, "no such file"},
		"file as folder": {Spec{Name: "a", Files: []File{fine, {Content: []byte("y"), Dest: "/x/y"}}}, "not a folder"},
		"folder as file": {Spec{Name: "a", Files: []File{{Mode: fs.ModeDir, Dest: "/x"}, fine}}, "replace a folder"},
		"link loop":      {Spec{Name: "a", Files: []File{{Link: "/b", Dest: "/a"}, {Link: "/a", Dest: "/b"}, {Content: []byte("x"), Dest: "/a/x"}}}, "too many symlinks"},
		"device":         {Spec{Name: "a", Files: []File{{Source: "/dev/null", Dest: "/x"}}}, "neither a file"},
		"port":           {Spec{Name: "a", Ports: []string{"99999"}}, "port"},
		"env":            {Spec{Name: "a", Env: []string{"novalue"}}, "NAME=value"},
		"workdir":        {Spec{Name: "a", WorkDir: "here"}, "absolute"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Pack(c.spec, io.Discard)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one about %q", err, c.want)
			}
		})
	}
}

func TestPackFileLeavesNothingOnError(t *testing.T) {
	dir := t.TempDir()
	err := PackFile(Spec{Name: "a", Files: []File{{Source: filepath.Join(dir, "none"), Dest: "/x"}}}, filepath.Join(dir, "out.tar"))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func FuzzParseFile(f *testing.F) {
	for _, seed := range []string{"a:/b", "c:\\x:/y", ":", "a:", ":/b", "a:b", "a/:/b/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		file, err := ParseFile(s)
		if err == nil && (file.Source == "" || !strings.HasPrefix(file.Dest, "/") || file.Source+":"+file.Dest != s) {
			t.Errorf("ParseFile(%q) = %+v", s, file)
		}
	})
}
