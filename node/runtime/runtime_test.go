package runtime

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-sh/skiff/image"
)

// The test binary is its own containerd, as the skiff binary is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == Command {
		os.Exit(Main(os.Args[2:]))
	}
	os.Exit(m.Run())
}

func testConfig(t *testing.T) Config {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	// Socket paths are short (108 bytes), so not t.TempDir.
	dir, err := os.MkdirTemp("/run", "skrt")
	if err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	cfg := Config{Root: data + "/root", State: dir + "/state", Socket: dir + "/c/c.sock", BinDir: data + "/bin",
		CNIBinDir: data + "/cni", CNIConfDir: data + "/net.d", RegistryHostsDir: data + "/hosts", LogFile: data + "/containerd.log"}
	t.Cleanup(func() {
		if t.Failed() {
			b, _ := os.ReadFile(cfg.LogFile)
			t.Logf("containerd's log:\n%s", b)
		}
		if err := Purge(context.Background(), cfg); err != nil {
			t.Errorf("Purge: %v", err)
		}
		if err := Purge(context.Background(), cfg); err != nil {
			t.Errorf("a second Purge: %v", err)
		}
		os.RemoveAll(dir)
		leftovers(t, cfg, dir)
	})
	return cfg
}

func leftovers(t *testing.T, cfg Config, dir string) {
	if p := cfg.processes(); len(p) > 0 {
		t.Errorf("processes are left: %v", p)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Error(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, dir+"/") || strings.Contains(line, filepath.Dir(cfg.Root)+"/") {
			t.Errorf("a mount is left: %s", line)
		}
	}
	left, _ := filepath.Glob("/sys/fs/cgroup/*/" + testCgroup + "/*/cgroup.procs")
	if len(left) > 0 {
		t.Errorf("cgroups are left: %v", left)
	}
	roots, _ := filepath.Glob("/sys/fs/cgroup/*/" + testCgroup)
	for _, r := range append(roots, "/sys/fs/cgroup/"+testCgroup) {
		_ = unix.Rmdir(r)
	}
}

const testCgroup = "skiff-runtime-test"

// pods is the CRI of a runtime under test, with the few calls that the tests repeat.
type pods struct {
	t *testing.T
	cri.RuntimeServiceClient
	logs string
}

func dial(t *testing.T, r *Runtime, logs string) *pods {
	conn, err := grpc.NewClient(r.Endpoint(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &pods{t, cri.NewRuntimeServiceClient(conn), logs}
}

// runHello runs one pod with one container of the hello image, in the node's network.
func (p *pods) runHello(ctx context.Context, image string) (sandbox, container string) {
	p.t.Helper()
	pod := &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: "p", Namespace: "default", Uid: "u1"}, LogDirectory: p.logs,
		Linux: &cri.LinuxPodSandboxConfig{CgroupParent: "/" + testCgroup, SecurityContext: &cri.LinuxSandboxSecurityContext{
			NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE}}}}
	sb, err := p.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: pod})
	if err != nil {
		p.t.Fatal("RunPodSandbox: ", err)
	}
	c, err := p.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: sb.PodSandboxId, SandboxConfig: pod, Config: &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: "c"}, Image: &cri.ImageSpec{Image: image}, LogPath: "c.log",
		Linux: &cri.LinuxContainerConfig{Resources: &cri.LinuxContainerResources{OomScoreAdj: -997, MemoryLimitInBytes: 64 << 20}}}})
	if err != nil {
		p.t.Fatal("CreateContainer: ", err)
	}
	if _, err := p.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: c.ContainerId}); err != nil {
		p.t.Fatal("StartContainer: ", err)
	}
	return sb.PodSandboxId, c.ContainerId
}

func (p *pods) state(ctx context.Context, container string) cri.ContainerState {
	p.t.Helper()
	st, err := p.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: container})
	if err != nil {
		p.t.Fatal("ContainerStatus: ", err)
	}
	return st.Status.State
}

func (p *pods) logHas(want string) {
	p.t.Helper()
	for range 500 {
		b, _ := os.ReadFile(filepath.Join(p.logs, "c.log"))
		if strings.Contains(string(b), want) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	p.t.Fatalf("the container's log never had %q", want)
}

func loadHello(t *testing.T, cfg Config) string {
	exe := filepath.Join(t.TempDir(), "hello")
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", exe, "./testdata/hello")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var tar bytes.Buffer
	err := image.Pack(image.Spec{Name: "example.com/hello:1", Entrypoint: []string{"/hello"}, Files: []image.File{{Source: exe, Dest: "/hello"}}}, &tar)
	if err != nil {
		t.Fatal(err)
	}
	names, err := Load(t.Context(), cfg, &tar)
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	return names[0]
}

func TestContainersOutliveContainerd(t *testing.T) {
	cfg := testConfig(t)
	ctx := t.Context()
	r, err := Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	hello := loadHello(t, cfg)
	p := dial(t, r, t.TempDir())
	sandbox, container := p.runHello(ctx, hello)
	p.logHas("hello from the container")

	// A second Start adopts the same process.
	before, _ := PID(cfg)
	r2, err := Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if after, _ := PID(cfg); after != before {
		t.Errorf("Start replaced containerd %d by %d, though it lives and is the same build", before, after)
	}
	r.cancel()
	<-r.done

	// Killed, containerd comes back by itself, and the container has not noticed.
	if err := unix.Kill(before, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitFor(ctx, before)
	for {
		if pid, ok := PID(cfg); ok && pid != before && cfg.answers(ctx) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if s := p.state(ctx, container); s != cri.ContainerState_CONTAINER_RUNNING {
		t.Fatalf("after containerd's death the container is %s", s)
	}
	out, err := p.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: container, Cmd: []string{"/hello", "works"}, Timeout: 10})
	if err != nil || string(out.Stdout) != "exec works\n" || out.ExitCode != 0 {
		t.Fatalf("exec: %v, %v", out, err)
	}
	if _, err := p.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: container, Timeout: 10}); err != nil {
		t.Fatal(err)
	}
	p.logHas("bye")
	if _, err := p.RemoveContainer(ctx, &cri.RemoveContainerRequest{ContainerId: container}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: sandbox}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: sandbox}); err != nil {
		t.Fatal(err)
	}
	if err := r2.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if pid, ok := PID(cfg); ok {
		t.Errorf("containerd %d still runs after Stop", pid)
	}
}

func TestPurgeEndsRunningContainers(t *testing.T) {
	cfg := testConfig(t)
	r, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	p := dial(t, r, t.TempDir())
	p.runHello(t.Context(), loadHello(t, cfg))
	p.logHas("hello")
	images, err := Images(t.Context(), cfg)
	if err != nil || len(images) != 2 || images[0].Name != "example.com/hello:1" || images[1].Name != DefaultSandboxImage {
		t.Errorf("images: %v, %v", images, err)
	}
	if os.Getenv("SKIFF_MEASURE") != "" {
		time.Sleep(7 * time.Second) // a shim gives back memory after a while
	}
	for _, pid := range cfg.processes() {
		exe, _ := os.Readlink(fmt.Sprint("/proc/", pid) + "/exe")
		status, _ := os.ReadFile(fmt.Sprint("/proc/", pid) + "/status")
		for line := range strings.Lines(string(status)) {
			if strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "RssAnon") {
				t.Log(filepath.Base(exe), strings.TrimSpace(line))
			}
		}
	}
	r.cancel()
	<-r.done
	// The cleanup purges with the container alive, and looks for what is left.
}
