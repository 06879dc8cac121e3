// Package runtime runs containerd, which is compiled into the skiff binary, as a child process with folders of its own.
//
// Invariant: containers outlive containerd, and containerd outlives the process that started it; a new process adopts a
// living containerd of the same build and replaces any other. Nothing outside Config's folders is touched but the
// containers' own cgroups and network namespaces. Only daemon and ctl import runtime.
package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/template"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Config says where containerd keeps things. All folders are required and absolute.
type Config struct {
	Root   string // images, snapshots and metadata; lasts
	State  string // sockets, mounts and pids; vanishes with a reboot
	Socket string // the CRI endpoint, a path

	BinDir           string // the shim is unpacked here
	CNIBinDir        string // the CNI plug-in is unpacked here
	CNIConfDir       string // where the pod network writes its configuration; until it does, the network is not ready
	RegistryHostsDir string // hosts.toml files that name registry mirrors
	LogFile          string

	SandboxImage string // the name under which the built-in pause image is known; default DefaultSandboxImage
	RuncBinary   string // default: runc on the PATH
	Log          *slog.Logger
}

// DefaultSandboxImage is the name that upstream's kubelet expects of the pause image. It is built in, never pulled.
const DefaultSandboxImage = "registry.k8s.io/pause:3.10.2"

func (c *Config) validate() error {
	for name, dir := range map[string]string{"Root": c.Root, "State": c.State, "Socket": c.Socket, "BinDir": c.BinDir,
		"CNIBinDir": c.CNIBinDir, "CNIConfDir": c.CNIConfDir, "RegistryHostsDir": c.RegistryHostsDir, "LogFile": c.LogFile} {
		if !filepath.IsAbs(dir) {
			return fmt.Errorf("runtime: Config.%s must be an absolute path, not %q", name, dir)
		}
	}
	if c.SandboxImage == "" {
		c.SandboxImage = DefaultSandboxImage
	}
	if c.RuncBinary == "" {
		runc, err := exec.LookPath("runc")
		if err != nil {
			return errors.New("runc is not on the PATH; install it (Debian: apt-get install runc)")
		}
		c.RuncBinary = runc
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

var configFile = template.Must(template.New("config").Parse(`# Written at every start.
version = 4
root = '{{.Root}}'
state = '{{.State}}'
imports = []
[debug]
  level = 'warn'
[plugins.'io.containerd.server.v1.grpc']
  address = '{{.Socket}}'
[plugins.'io.containerd.server.v1.ttrpc']
  address = '{{.Socket}}.ttrpc'
[plugins.'io.containerd.shim.v1.manager']
  socket_dir = '{{.State}}/shims'
[plugins.'io.containerd.nri.v1.nri']
  disable = true
[plugins.'io.containerd.image-verifier.v1.bindir']
  bin_dir = '{{.Root}}/verifiers'
[plugins.'io.containerd.internal.v1.opt']
  path = '{{.Root}}/opt'
[plugins.'io.containerd.cri.v1.images']
  snapshotter = '{{.Snapshotter}}'
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = '{{.SandboxImage}}'
  [plugins.'io.containerd.cri.v1.images'.registry]
    config_path = '{{.RegistryHostsDir}}'
[plugins.'io.containerd.transfer.v1.local']
  config_path = '{{.RegistryHostsDir}}'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = {{.RestrictOOM}}
  netns_mounts_under_state_dir = true
  cdi_spec_dirs = ['{{.Root}}/cdi']
  enable_criu = false
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = 'runc'
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = 'io.containerd.runc.v2'
      runtime_path = '{{.BinDir}}/containerd-shim-runc-v2'
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        BinaryName = '{{.RuncBinary}}'
        Root = '{{.State}}/runc'
        SystemdCgroup = false
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ['{{.CNIBinDir}}']
    conf_dir = '{{.CNIConfDir}}'
    use_internal_loopback = true
`))

// Runtime is a containerd that runs.
type Runtime struct {
	cfg    Config
	cancel context.CancelFunc
	done   chan struct{} // closed when the supervisor has ended
}

// Start finds a living containerd of the same build, or starts one, and keeps one running until ctx ends or Stop is
// called; only Stop ends containerd itself. It returns once the CRI answers and the pause image is there.
func Start(ctx context.Context, cfg Config) (*Runtime, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	for _, dir := range []string{cfg.Root, cfg.State, filepath.Dir(cfg.Socket), cfg.CNIConfDir, cfg.RegistryHostsDir, filepath.Dir(cfg.LogFile)} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, err
		}
	}
	if err := unpack(cfg.BinDir, cfg.CNIBinDir); err != nil {
		return nil, err
	}
	if err := cfg.write(); err != nil {
		return nil, err
	}
	build, err := buildID()
	if err != nil {
		return nil, err
	}
	if pid, id, ok := cfg.running(); ok && (id != build || !cfg.answers(ctx)) {
		cfg.Log.Info("replacing a containerd of another build", "pid", pid)
		if err := end(ctx, pid); err != nil {
			return nil, err
		}
	}
	r := &Runtime{cfg: cfg, done: make(chan struct{})}
	if _, _, ok := cfg.running(); !ok {
		if err := cfg.launch(build); err != nil {
			return nil, err
		}
	}
	if err := cfg.await(ctx); err != nil {
		return nil, err
	}
	if err := cfg.importPause(ctx); err != nil {
		return nil, fmt.Errorf("the pause image: %w", err)
	}
	ctx, r.cancel = context.WithCancel(ctx)
	go r.supervise(ctx, build)
	return r, nil
}

// Endpoint is the CRI's address, as gRPC names it.
func (r *Runtime) Endpoint() string { return "unix://" + r.cfg.Socket }

// Stop ends containerd; containers go on.
func (r *Runtime) Stop(ctx context.Context) error {
	r.cancel()
	<-r.done
	return Stop(ctx, r.cfg)
}

// Stop ends the containerd of a configuration, if it runs.
func Stop(ctx context.Context, cfg Config) error {
	if pid, _, ok := cfg.running(); ok {
		return end(ctx, pid)
	}
	return nil
}

// PID is the process id of the containerd of a configuration, if it runs.
func PID(cfg Config) (pid int, ok bool) {
	pid, _, ok = cfg.running()
	return pid, ok
}

func (c *Config) write() error {
	data := struct {
		Config
		RestrictOOM bool
		Snapshotter string
	}{*c, !canRaiseOOM(), snapshotter(c.Root)}
	var b bytes.Buffer
	if err := configFile.Execute(&b, data); err != nil {
		return err
	}
	return os.WriteFile(c.configPath(), b.Bytes(), 0o644)
}

func (c *Config) configPath() string { return filepath.Join(c.Root, "config.toml") }
func (c *Config) pidPath() string    { return filepath.Join(c.State, "containerd.pid") }

// canRaiseOOM reports whether this process may lower a child's oom_score_adj: without CAP_SYS_RESOURCE runc fails at it.
func canRaiseOOM() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	return data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

// snapshotter is overlayfs, or native where the folder's file system cannot be an overlay's upper layer.
func snapshotter(root string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err == nil && st.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return "native"
	}
	return "overlayfs"
}

// buildID tells builds of the binary apart.
func buildID() (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	info, err := os.Stat(exe)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d-%d", info.Size(), info.ModTime().UnixNano()), nil
}

// running finds the process that the pid file names, if it is still a containerd of these folders.
func (c *Config) running() (pid int, build string, ok bool) {
	b, err := os.ReadFile(c.pidPath())
	if err != nil {
		return 0, "", false
	}
	pidText, build, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	if pid, err = strconv.Atoi(pidText); err != nil {
		return 0, "", false
	}
	cmdline, err := os.ReadFile(filepath.Join("/proc", pidText, "cmdline"))
	return pid, build, err == nil && bytes.Contains(cmdline, []byte(c.configPath()))
}

func (c *Config) launch(build string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(c.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	_ = os.Remove(c.Socket) // of a containerd that was killed; a living one was looked for before
	cmd := exec.Command(exe, Command, "--config", c.configPath())
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	// A restarted containerd looks for the shims of running containers on the PATH, whatever runtime_path says.
	cmd.Env = append(os.Environ(), "GOMEMLIMIT=64MiB", "PATH="+c.BinDir+":"+os.Getenv("PATH"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }() // reaped when it ends; supervise notices by itself, for adopted ones too
	return os.WriteFile(c.pidPath(), []byte(fmt.Sprintf("%d %s\n", cmd.Process.Pid, build)), 0o644)
}

// await returns when the CRI answers.
func (c *Config) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !c.answers(ctx) {
		if _, _, ok := c.running(); !ok {
			return fmt.Errorf("containerd ended while starting; its log is %s", c.LogFile)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("containerd does not answer at %s; its log is %s", c.Socket, c.LogFile)
		case <-tick.C:
		}
	}
	return nil
}

// answers reports whether the CRI is there and has found the containers that it knew.
func (c *Config) answers(ctx context.Context) bool {
	if _, err := os.Stat(c.Socket); err != nil {
		return false
	}
	conn, err := grpc.NewClient("unix://"+c.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return false
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err = cri.NewRuntimeServiceClient(conn).Status(ctx, &cri.StatusRequest{})
	return err == nil
}

// supervise starts containerd again when it dies, backing off from 100 ms to 10 s.
func (r *Runtime) supervise(ctx context.Context, build string) {
	defer close(r.done)
	delay := 100 * time.Millisecond
	for ctx.Err() == nil {
		if pid, _, ok := r.cfg.running(); ok {
			started := time.Now()
			waitFor(ctx, pid)
			if time.Since(started) > time.Minute {
				delay = 100 * time.Millisecond
			}
			if ctx.Err() != nil {
				return
			}
			r.cfg.Log.Warn("containerd has ended; it is started again", "pid", pid, "log", r.cfg.LogFile)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(delay):
		}
		delay = min(2*delay, 10*time.Second)
		if err := r.cfg.launch(build); err != nil {
			r.cfg.Log.Error("containerd cannot be started", "error", err)
		}
	}
}

// waitFor returns when the process ends, whoever its parent is, or ctx does.
func waitFor(ctx context.Context, pid int) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return // it is gone
	}
	defer unix.Close(fd)
	stop, stopWriter, err := os.Pipe()
	if err != nil {
		return
	}
	defer stop.Close()
	release := context.AfterFunc(ctx, func() { stopWriter.Close() })
	defer func() {
		if release() {
			stopWriter.Close()
		}
	}()
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(stop.Fd()), Events: unix.POLLIN}}, -1)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// end stops a process: it is asked, and killed after 10 s.
func end(ctx context.Context, pid int) error {
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		if errors.Is(err, unix.ESRCH) {
			return nil
		}
		return err
	}
	patient, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	waitFor(patient, pid)
	if patient.Err() != nil {
		_ = unix.Kill(pid, unix.SIGKILL)
		waitFor(ctx, pid)
	}
	return ctx.Err()
}
