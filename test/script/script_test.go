//go:build stories

package script

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// The instance that all stories share. Its ranges are apart from the default instance's.
const (
	instanceName = "skifftest"
	apiPort      = "17443"
	busyboxImage = "skiff.test/busybox:1"
)

var upFlags = []string{"up", "--api-port", apiPort, "--kubelet-port", "17250", "--pod-cidr", "10.213.0.0/16",
	"--service-cidr", "10.214.0.0/16", "--node-name", "story"}

var (
	skiffBinary  = os.Getenv("SKIFF")
	imageArchive string // of busyboxImage
)

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Geteuid() != 0 || skiffBinary == "" {
		fmt.Fprintln(os.Stderr, "stories need root and SKIFF=path/to/bin/skiff; run \"make stories\"")
		os.Exit(1)
	}
	os.Setenv("SKIFF_NAME", instanceName)
	os.Exit(run(m))
}

func run(m *testing.M) int {
	// What an interrupted run left behind would be taken for a failure of this one.
	_, _ = skiff("down", "--purge")
	defer func() { _, _ = skiff("down", "--purge") }()
	if out, err := skiff(upFlags...); err != nil {
		fmt.Fprintf(os.Stderr, "the instance does not start: %v\n%s", err, out)
		return 1
	}
	dir, err := os.MkdirTemp("", "skiff-stories-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := loadBusybox(dir); err != nil {
		fmt.Fprintln(os.Stderr, "the stories' image cannot be made:", err)
		return 1
	}
	return m.Run()
}

func skiff(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, skiffBinary, args...).CombinedOutput()
	return string(out), err
}

// loadBusybox packs the machine's static busybox with a link for each of its applets.
func loadBusybox(dir string) error {
	applets, err := exec.Command("/bin/busybox", "--list").Output()
	if err != nil {
		return fmt.Errorf("%w (Debian's package busybox-static has it)", err)
	}
	root := filepath.Join(dir, "bin")
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	b, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "busybox"), b, 0o755); err != nil {
		return err
	}
	for applet := range strings.FieldsSeq(string(applets)) {
		if applet != "busybox" {
			if err := os.Symlink("busybox", filepath.Join(root, applet)); err != nil {
				return err
			}
		}
	}
	imageArchive = filepath.Join(dir, "busybox.tar")
	if out, err := skiff("image", "pack", busyboxImage, "--add", root+":/bin", "--entrypoint", "/bin/sh", "-o", imageArchive); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	if out, err := skiff("image", "load", imageArchive); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// The stories of the first test run side by side; the last three stop and remove what the others need.

func TestStories(t *testing.T) {
	t.Run("servers", func(t *testing.T) { t.Parallel(); servers(t) })
	tell(t, "testdata/*.txtar")
}
func TestCrash(t *testing.T) { tell(t, "testdata/last/crash.txtar") }
func TestNodes(t *testing.T) { tell(t, "testdata/last/nodes.txtar") }
func TestPurge(t *testing.T) { tell(t, "testdata/last/purge.txtar") }

func tell(t *testing.T, pattern string) {
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories found: %v", err)
	}
	testscript.Run(t, testscript.Params{
		Files:               files,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			ns := "story-" + strings.TrimPrefix(filepath.Base(env.WorkDir), "script-")
			env.Setenv("NS", ns)
			env.Setenv("IMAGE", busyboxImage)
			env.Setenv("SKIFF_NAME", instanceName)
			env.Setenv("SKIFF", skiffBinary)
			env.Setenv("ARCHIVE", imageArchive)
			env.Setenv("HOME", env.WorkDir)
			if !strings.Contains(pattern, "last/") {
				if out, err := skiff("kubectl", "create", "namespace", ns); err != nil {
					return fmt.Errorf("%w: %s", err, out)
				}
				env.Defer(func() {
					_, _ = skiff("kubectl", "delete", "namespace", ns, "--wait=false")
				})
			}
			return expand(env.WorkDir, map[string]string{"$NS": ns, "$IMAGE": busyboxImage})
		},
		Cmds: commands,
	})
}

// expand replaces variables in the story's own manifests.
func expand(dir string, vars map[string]string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return err
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		for k, v := range vars {
			b = bytes.ReplaceAll(b, []byte(k), []byte(v))
		}
		if err := os.WriteFile(f, b, 0o644); err != nil {
			return err
		}
	}
	return nil
}
