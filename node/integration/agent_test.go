package integration

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/client/clienttest"
	"github.com/skiff-sh/skiff/image"
	"github.com/skiff-sh/skiff/node"
	"github.com/skiff-sh/skiff/node/runtime"
)

// The test binary is its own containerd, as the skiff binary is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == runtime.Command {
		os.Exit(runtime.Main(os.Args[2:]))
	}
	os.Exit(m.Run())
}

const (
	nodeName = "n1"
	box      = "example.com/box:1"
	nodeAddr = "127.0.0.1:31250"
	nodeURL  = "http://" + nodeAddr
)

// world is a node with everything around it.
type world struct {
	t    *testing.T
	api  *clienttest.API
	dir  string
	cfg  node.Config
	stop func()
}

func newWorld(t *testing.T) *world {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir, err := os.MkdirTemp("/run", "skni") // socket paths are short
	if err != nil {
		t.Fatal(err)
	}
	bridge(t)
	rc := runtime.Config{Root: dir + "/root", State: dir + "/state", Socket: dir + "/c.sock", BinDir: dir + "/bin", CNIBinDir: dir + "/cni",
		CNIConfDir: dir + "/net.d", RegistryHostsDir: dir + "/hosts", LogFile: dir + "/containerd.log", SandboxImage: "skiff.sh/pause:1"}
	if err := os.MkdirAll(rc.CNIConfDir, 0o755); err != nil {
		t.Fatal(err)
	}
	net := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"t","plugins":[{"type":%q,"bridge":"sknibr0","range":"10.199.7.0/24","mtu":1500,"stateDir":%q}]}`, runtime.CNIPlugin, dir+"/ipam")
	if err := os.WriteFile(rc.CNIConfDir+"/10-t.conflist", []byte(net), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			b, _ := os.ReadFile(rc.LogFile)
			t.Logf("containerd's log:\n%s", b)
		}
		if err := runtime.Purge(context.Background(), rc); err != nil {
			t.Errorf("Purge: %v", err)
		}
		os.RemoveAll(dir)
		for _, pattern := range []string{"/sys/fs/cgroup/skiff-node-test", "/sys/fs/cgroup/*/skiff-node-test"} {
			roots, _ := filepath.Glob(pattern)
			for _, r := range roots {
				for _, d := range []string{r + "/besteffort", r + "/burstable", r} {
					if err := os.Remove(d); err != nil && !os.IsNotExist(err) {
						t.Errorf("a cgroup is left: %v", err)
					}
				}
			}
		}
	})
	if _, err := runtime.Start(t.Context(), rc); err != nil {
		t.Fatal(err)
	}
	load(t, rc)
	w := &world{t: t, api: clienttest.New(nil), dir: dir}
	w.api.Act = func(c clienttest.Call, parent api.Object) (kruntime.Object, error) {
		return &authenticationv1.TokenRequest{Status: authenticationv1.TokenRequestStatus{Token: "a-token", ExpirationTimestamp: metav1.NewTime(time.Now().Add(time.Hour))}}, nil
	}
	w.api.Put(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: "default"}})
	w.cfg = node.Config{Name: nodeName, Client: w.api, CRIEndpoint: rc.Socket, RootDir: dir + "/node", PodLogDir: dir + "/pods", ContainerLogDir: dir + "/links",
		ListenAddr: nodeAddr, Anonymous: true, NodeIP: netip.MustParseAddr("10.199.7.1"), ClusterDNS: []netip.Addr{netip.MustParseAddr("10.96.0.10")},
		CgroupRoot: "skiff-node-test", Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	w.start()
	return w
}

func bridge(t *testing.T) {
	br := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	br.Name = "sknibr0"
	_ = netlink.LinkDel(br)
	if err := netlink.LinkAdd(br); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(br) })
	addr, err := netlink.ParseAddr("10.199.7.1/24")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(br, addr); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(br); err != nil {
		t.Fatal(err)
	}
}

func load(t *testing.T, rc runtime.Config) {
	exe := filepath.Join(t.TempDir(), "box")
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", exe, "./testdata/box")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var tar bytes.Buffer
	if err := image.Pack(image.Spec{Name: box, Entrypoint: []string{"/box"}, Files: []image.File{{Source: exe, Dest: "/box"}}}, &tar); err != nil {
		t.Fatal(err)
	}
	if _, err := runtime.Load(t.Context(), rc, &tar); err != nil {
		t.Fatal(err)
	}
}

// start runs an agent; the world's stop ends it, and another start is a restart.
func (w *world) start() {
	ctx, cancel := context.WithCancel(context.Background())
	w.cfg.Caches = client.NewCaches(w.api, w.cfg.Log)
	a, err := node.New(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = w.cfg.Caches.Run(ctx) })
	wg.Go(func() {
		if err := a.Run(ctx); err != nil {
			w.t.Errorf("the agent ended: %v", err)
		}
	})
	w.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	w.t.Cleanup(w.stop)
}

func (w *world) pod(name string, edit func(*corev1.Pod), args ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", Labels: map[string]string{"app": name}}, Spec: corev1.PodSpec{NodeName: nodeName, ServiceAccountName: "default",
		RestartPolicy: corev1.RestartPolicyAlways, DNSPolicy: corev1.DNSClusterFirst, TerminationGracePeriodSeconds: new(int64(5)),
		Containers: []corev1.Container{{Name: "c", Image: box, Args: args, ImagePullPolicy: corev1.PullIfNotPresent,
			TerminationMessagePath: "/dev/termination-log", TerminationMessagePolicy: corev1.TerminationMessageReadFile}}}}
	if edit != nil {
		edit(p)
	}
	p.Status.Phase = corev1.PodPending
	return w.api.Put(p).(*corev1.Pod)
}

// until waits for a pod to be as wanted.
func (w *world) until(name, what string, ok func(*corev1.Pod) bool) *corev1.Pod {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 40*time.Second)
	defer cancel()
	var p *corev1.Pod
	for {
		var err error
		if p, err = client.Get[*corev1.Pod](ctx, w.api, "default", name); err == nil && ok(p) {
			return p
		}
		select {
		case <-ctx.Done():
			w.t.Fatalf("pod %s never was %s: %v %+v", name, what, err, p)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (w *world) gone(name string) {
	w.t.Helper()
	for range 4000 {
		if _, err := client.Get[*corev1.Pod](w.t.Context(), w.api, "default", name); err != nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.t.Fatalf("pod %s is still there", name)
}

func (w *world) logs(name string, query string) string {
	w.t.Helper()
	resp, err := http.Get(nodeURL + "/containerLogs/default/" + name + "/c" + query)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

func ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func phase(want corev1.PodPhase) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool { return p.Status.Phase == want }
}

func TestPods(t *testing.T) {
	w := newWorld(t)
	w.api.Put(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "cm", Namespace: "default"}, Data: map[string]string{"key": "first"}})

	t.Run("the node becomes ready", func(t *testing.T) {
		for {
			n, err := client.Get[*corev1.Node](t.Context(), w.api, "", nodeName)
			if err == nil {
				for _, c := range n.Status.Conditions {
					if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
						return
					}
				}
			}
			time.Sleep(10 * time.Millisecond)
		}
	})

	t.Run("environment, volumes and logs", func(t *testing.T) {
		w.t = t
		w.pod("env", func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: new(int64(1000)), FSGroup: new(int64(2000))}
			c := &p.Spec.Containers[0]
			c.Env = []corev1.EnvVar{{Name: "A", Value: "a"}, {Name: "B", Value: "$(A)b"},
				{Name: "IP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}},
				{Name: "CM", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}, Key: "key"}}}}
			p.Spec.Volumes = []corev1.Volume{
				{Name: "cm", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}}},
				{Name: "empty", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
				{Name: "token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
					{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
					{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}}}}}}}}}}
			c.VolumeMounts = []corev1.VolumeMount{{Name: "cm", MountPath: "/cm"}, {Name: "empty", MountPath: "/empty"}, {Name: "empty", MountPath: "/sub", SubPath: "x/y"}, {Name: "token", MountPath: "/token"}}
		}, "env", "B", "env", "IP", "env", "CM", "cat", "/cm/key", "id", "cat", "/token/token", "echo", "", "cat", "/token/labels", "echo", "",
			"write", "/empty/f", "x", "write", "/sub/g", "in the sub path", "cat", "/empty/x/y/g", "echo", "", "cat", "/etc/hosts", "cat", "/etc/resolv.conf", "wait")
		p := w.until("env", "ready", ready)
		var log string
		for range 200 {
			if log = w.logs("env", ""); strings.Contains(log, "ndots:5") {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		for _, want := range []string{"B=ab", "IP=" + p.Status.PodIP, "CM=first", "first", "id 1000 0 [0 2000]", "a-token", `app="env"`, "in the sub path",
			"# Kubernetes-managed hosts file.", p.Status.PodIP + "\tenv", "nameserver 10.96.0.10", "search default.svc.cluster.local svc.cluster.local cluster.local"} {
			if !strings.Contains(log, want) {
				t.Errorf("the log lacks %q:\n%s", want, log)
			}
		}
		if got := w.logs("env", "?tailLines=1"); !strings.Contains(got, "ndots") || strings.Count(got, "\n") != 1 {
			t.Errorf("the last line is %q", got)
		}

		// A change of the object is seen in the file.
		cm, err := client.Get[*corev1.ConfigMap](t.Context(), w.api, "default", "cm")
		if err != nil {
			t.Fatal(err)
		}
		cm = cm.DeepCopy()
		cm.Data["key"] = "second"
		w.api.Put(cm)
		file := filepath.Join(w.cfg.RootDir, "pods", string(p.UID), "volumes/kubernetes.io~configmap/cm/key")
		for range 1000 {
			if b, _ := os.ReadFile(file); string(b) == "second" {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if b, err := os.ReadFile(file); string(b) != "second" {
			t.Errorf("the file holds %q, %v", b, err)
		}
		w.delete("env")
		w.gone("env")
		w.clean(string(p.UID))
	})

	t.Run("init containers, a sidecar and success", func(t *testing.T) {
		w.t = t
		w.pod("job", func(p *corev1.Pod) {
			p.Spec.RestartPolicy = corev1.RestartPolicyNever
			always := corev1.ContainerRestartPolicyAlways
			c := p.Spec.Containers[0]
			one, side := c, c
			one.Name, one.Args = "one", []string{"echo", "init"}
			side.Name, side.Args, side.RestartPolicy = "side", []string{"echo", "side", "wait"}, &always
			p.Spec.InitContainers = []corev1.Container{one, side}
		}, "write", "/dev/termination-log", "the end")
		p := w.until("job", "Succeeded", phase(corev1.PodSucceeded))
		st := p.Status
		if got := st.ContainerStatuses[0].State.Terminated; got == nil || got.Message != "the end" || got.Reason != "Completed" {
			t.Errorf("the container's end is %+v", got)
		}
		if st.InitContainerStatuses[0].State.Terminated == nil || !st.InitContainerStatuses[0].Ready || st.InitContainerStatuses[1].State.Terminated == nil {
			t.Errorf("the init containers are %+v", st.InitContainerStatuses)
		}
		w.delete("job")
		w.gone("job")
	})

	t.Run("a failing container backs off", func(t *testing.T) {
		w.t = t
		w.pod("crash", nil, "echo", "crashing", "exit", "3")
		p := w.until("crash", "in CrashLoopBackOff", func(p *corev1.Pod) bool {
			return len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].State.Waiting != nil && p.Status.ContainerStatuses[0].State.Waiting.Reason == "CrashLoopBackOff"
		})
		cs := p.Status.ContainerStatuses[0]
		if cs.RestartCount != 1 || cs.LastTerminationState.Terminated == nil || cs.LastTerminationState.Terminated.ExitCode != 3 || p.Status.Phase != corev1.PodRunning {
			t.Errorf("%+v", p.Status)
		}
		if got := w.logs("crash", "?previous=true"); got != "crashing\n" {
			t.Errorf("the previous log is %q", got)
		}
		w.delete("crash")
		w.gone("crash")
	})

	t.Run("bad images and configurations say so", func(t *testing.T) {
		w.t = t
		waits := func(reason string) func(p *corev1.Pod) bool {
			return func(p *corev1.Pod) bool {
				return len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].State.Waiting != nil && p.Status.ContainerStatuses[0].State.Waiting.Reason == reason
			}
		}
		w.pod("never", func(p *corev1.Pod) {
			p.Spec.Containers[0].Image, p.Spec.Containers[0].ImagePullPolicy = "example.com/none:1", corev1.PullNever
		})
		w.pod("badname", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "Not A Name" })
		w.pod("config", func(p *corev1.Pod) {
			p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "later"}}}}
		}, "env", "LATE", "wait")
		w.until("never", "ErrImageNeverPull", waits("ErrImageNeverPull"))
		w.until("badname", "InvalidImageName", waits("InvalidImageName"))
		p := w.until("config", "CreateContainerConfigError", waits("CreateContainerConfigError"))
		if m := p.Status.ContainerStatuses[0].State.Waiting.Message; m != `configmap "later" not found` {
			t.Errorf("the message is %q", m)
		}
		w.api.Put(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "later", Namespace: "default"}, Data: map[string]string{"LATE": "yes"}})
		w.until("config", "ready", ready)
		for _, n := range []string{"never", "badname", "config"} {
			w.delete(n)
			w.gone(n)
		}
	})

	t.Run("probes", func(t *testing.T) {
		w.t = t
		w.pod("probed", func(p *corev1.Pod) {
			c := &p.Spec.Containers[0]
			http := corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(8080)}}
			c.ReadinessProbe = &corev1.Probe{ProbeHandler: http, PeriodSeconds: 1, FailureThreshold: 1}
			c.StartupProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/box", "cat", "/etc/hosts"}}}, PeriodSeconds: 1, FailureThreshold: 5}
			c.LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/box", "cat", "/alive"}}}, PeriodSeconds: 1, FailureThreshold: 2, InitialDelaySeconds: 2}
		}, "http", ":8080", "wait")
		w.until("probed", "ready", ready)
		p := w.until("probed", "restarted", func(p *corev1.Pod) bool { return p.Status.ContainerStatuses[0].RestartCount > 0 })
		if p.Status.ContainerStatuses[0].LastTerminationState.Terminated == nil {
			t.Errorf("%+v", p.Status.ContainerStatuses)
		}
		w.delete("probed")
		w.gone("probed")
	})

	t.Run("exec, attach and port-forward", func(t *testing.T) {
		w.t = t
		w.pod("streams", nil, "http", ":8080", "wait")
		w.until("streams", "ready", ready)
		u, err := url.Parse(nodeURL + "/exec/default/streams/c?command=/box&command=echo&command=hi&command=id&output=1&error=1")
		if err != nil {
			t.Fatal(err)
		}
		cfg := &rest.Config{Host: nodeURL}
		spdyExec, err := remotecommand.NewSPDYExecutor(cfg, "POST", u)
		if err != nil {
			t.Fatal(err)
		}
		var out, errs bytes.Buffer
		if err := spdyExec.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: &out, Stderr: &errs}); err != nil || !strings.HasPrefix(out.String(), "hi\nid 0 0") {
			t.Errorf("exec over SPDY gave %q, %v", out.String(), err)
		}
		u.RawQuery = "command=/box&command=exit&command=7&output=1&error=1"
		spdyExec, err = remotecommand.NewSPDYExecutor(cfg, "POST", u)
		if err != nil {
			t.Fatal(err)
		}
		if err := spdyExec.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: &out, Stderr: &errs}); err == nil || !strings.Contains(err.Error(), "exit code 7") {
			t.Errorf("a failing command gave %v", err)
		}
		round, upgrader, err := spdy.RoundTripperFor(cfg)
		if err != nil {
			t.Fatal(err)
		}
		pf, err := url.Parse(nodeURL + "/portForward/default/streams?port=8080")
		if err != nil {
			t.Fatal(err)
		}
		stop, up := make(chan struct{}), make(chan struct{})
		fw, err := portforward.New(spdy.NewDialer(upgrader, &http.Client{Transport: round}, "POST", pf), []string{"31251:8080"}, stop, up, io.Discard, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- fw.ForwardPorts() }()
		select {
		case <-up:
		case err := <-done:
			t.Fatal(err)
		}
		resp, err := http.Get("http://127.0.0.1:31251/")
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(resp.Body); string(b) != "ok\n" {
			t.Errorf("the forwarded port answered %q", b)
		}
		resp.Body.Close()
		close(stop)
		<-done
		for _, path := range []string{"/stats/summary", "/metrics/resource", "/metrics", "/pods", "/configz", "/healthz"} {
			resp, err := http.Get(nodeURL + path)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK || len(b) == 0 {
				t.Errorf("%s: %d %s", path, resp.StatusCode, b)
			}
			if path == "/metrics/resource" && !strings.Contains(string(b), `container_memory_working_set_bytes{container="c",namespace="default",pod="streams"}`) {
				t.Errorf("%s", b)
			}
		}
		w.delete("streams")
		w.gone("streams")
	})

	t.Run("hooks and grace", func(t *testing.T) {
		w.t = t
		w.pod("hooks", func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "h", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: w.dir + "/hooks"}}}}
			c := &p.Spec.Containers[0]
			c.VolumeMounts = []corev1.VolumeMount{{Name: "h", MountPath: "/h"}}
			write := func(f string) *corev1.LifecycleHandler {
				return &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"/box", "write", "/h/" + f, "x"}}}
			}
			c.Lifecycle = &corev1.Lifecycle{PostStart: write("started"), PreStop: write("stopping")}
			p.Spec.TerminationGracePeriodSeconds = new(int64(2))
		}, "sleep", "1h") // deaf to SIGTERM as process 1
		w.until("hooks", "ready", ready)
		w.delete("hooks")
		w.gone("hooks")
		for _, f := range []string{"started", "stopping"} {
			if _, err := os.Stat(w.dir + "/hooks/" + f); err != nil {
				t.Error(err)
			}
		}
	})

	t.Run("a restart of the agent touches nothing", func(t *testing.T) {
		w.t = t
		w.pod("stays", nil, "wait")
		before := w.until("stays", "ready", ready)
		w.pod("orphan", nil, "wait")
		orphan := w.until("orphan", "ready", ready)
		w.stop()
		zero := int64(0)
		if err := w.api.Delete(t.Context(), client.KindOf[*corev1.Pod](), "default", "orphan", metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
			t.Fatal(err)
		}
		w.start()
		w.clean(string(orphan.UID))
		after := w.until("stays", "ready", ready)
		if a, b := before.Status.ContainerStatuses[0], after.Status.ContainerStatuses[0]; a.ContainerID != b.ContainerID || b.RestartCount != 0 {
			t.Errorf("the container changed from %+v to %+v", a, b)
		}
		w.delete("stays")
		w.gone("stays")
		w.clean(string(after.UID))
	})
	w.t = t
}

func (w *world) delete(name string) {
	w.t.Helper()
	if err := w.api.Delete(context.Background(), client.KindOf[*corev1.Pod](), "default", name, metav1.DeleteOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

// clean waits until nothing is left of a pod on the node.
func (w *world) clean(uid string) {
	w.t.Helper()
	left := func() []string {
		var out []string
		for _, pattern := range []string{w.cfg.RootDir + "/pods/" + uid, w.cfg.PodLogDir + "/*" + uid, "/sys/fs/cgroup/*/skiff-node-test/pod" + uid,
			"/sys/fs/cgroup/*/skiff-node-test/*/pod" + uid} {
			m, _ := filepath.Glob(pattern)
			out = append(out, m...)
		}
		return out
	}
	for range 1000 {
		if len(left()) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.t.Errorf("left of pod %s: %v", uid, left())
}
