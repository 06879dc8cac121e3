package podnet

import (
	"bytes"
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/client/clienttest"
	"github.com/skiff-sh/skiff/internal/netlab"
	"github.com/skiff-sh/skiff/internal/nft"
	"github.com/skiff-sh/skiff/podnet/cni"
)

// The test binary is its own CNI plug-in.
func TestMain(m *testing.M) {
	if os.Getenv("CNI_COMMAND") != "" {
		os.Exit(cni.Main())
	}
	netlab.Main(m)
}

func node(name, cidr, ip string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{PodCIDR: cidr},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: ip}}}}
}

func pod(name, ip string, ports ...corev1.ContainerPort) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:   corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "c", Ports: ports}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip}}
}

func TestPlan(t *testing.T) {
	cluster := netip.MustParsePrefix("10.244.0.0/16")
	port := func(host, container int32, ip string, p corev1.Protocol) corev1.ContainerPort {
		return corev1.ContainerPort{HostPort: host, ContainerPort: container, HostIP: ip, Protocol: p}
	}
	ended := pod("ended", "10.244.1.9", port(1, 2, "", "TCP"))
	ended.Status.Phase = corev1.PodSucceeded
	host := pod("host", "192.0.2.1", port(1, 1, "", "TCP"))
	host.Spec.HostNetwork = true
	pods := []*corev1.Pod{ended, host, pod("starting", "", port(3, 3, "", "")),
		pod("b", "10.244.1.3", port(8080, 80, "0.0.0.0", "TCP")),
		pod("a", "10.244.1.2", port(8080, 80, "", "TCP"), port(8080, 81, "127.0.0.1", "TCP"), port(53, 53, "", "UDP"), port(0, 99, "", ""), port(7, 7, "::1", ""))}
	s, ok := plan("n1", cluster, []*corev1.Node{node("n3", "10.244.3.0/24", "192.0.2.3"), node("n1", "10.244.1.0/24", "192.0.2.1"),
		node("n2", "10.244.2.0/24", "192.0.2.2"), node("new", "", "192.0.2.4")}, pods)
	if !ok {
		t.Fatal("the node has a range")
	}
	b, _ := json.Marshal(s)
	const want = `{"Range":"10.244.1.0/24","Cluster":"10.244.0.0/16","Routes":[` +
		`{"To":"10.244.2.0/24","Via":"192.0.2.2"},{"To":"10.244.3.0/24","Via":"192.0.2.3"}],"HostPorts":[` +
		`{"HostIP":"0.0.0.0","Proto":6,"Port":8080,"Pod":"10.244.1.2:80"},` +
		`{"HostIP":"0.0.0.0","Proto":17,"Port":53,"Pod":"10.244.1.2:53"},` +
		`{"HostIP":"127.0.0.1","Proto":6,"Port":8080,"Pod":"10.244.1.2:81"}]}`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
	if _, ok := plan("new", cluster, []*corev1.Node{node("new", "", "")}, nil); ok {
		t.Error("a node without a range has no network")
	}
}

// attach runs the CNI plug-in as containerd does and returns the pod's address.
func attach(t *testing.T, cfg Config, command string, h *netlab.Host) (addr netip.Addr, err error) {
	t.Helper()
	b, err := os.ReadFile(cfg.cniFile())
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		CNIVersion, Name string
		Plugins          []map[string]any
	}
	if err := json.Unmarshal(b, &list); err != nil {
		t.Fatal(err)
	}
	conf := list.Plugins[0]
	conf["name"], conf["cniVersion"] = list.Name, list.CNIVersion
	stdin, _ := json.Marshal(conf)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+command, "CNI_CONTAINERID="+h.Name, "CNI_NETNS="+h.NetNS(), "CNI_IFNAME=eth0", "CNI_PATH=/bin")
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.Output()
	if err != nil || command != "ADD" {
		return addr, err
	}
	var result current.Result
	if err := json.Unmarshal(out, &result); err != nil || len(result.IPs) != 1 {
		t.Fatalf("%v: %s", err, out)
	}
	addr, _ = netip.AddrFromSlice(result.IPs[0].Address.IP.To4())
	return addr, nil
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for range 500 {
		if f() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}

func sysctl(t *testing.T, path string) string {
	b, err := os.ReadFile("/proc/sys/" + path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func TestPodsReachEachOtherAndTheWorld(t *testing.T) {
	netlab.Need(t)
	dir := t.TempDir()
	api := clienttest.New(nil, node("n1", "10.244.1.0/24", "192.0.2.1"))
	caches := client.NewCaches(api, nil)
	cfg := Config{NodeName: "n1", NodeIP: netip.MustParseAddr("192.0.2.1"), Caches: caches, ClusterCIDR: netip.MustParsePrefix("10.244.0.0/16"),
		Bridge: "skt0", Table: "skiff-test-podnet", CNIConfDir: dir + "/cni", CNIPlugin: "skiff-cni", StateDir: dir + "/state"}
	// The world outside: a host on another link, which knows the node alone.
	netlab.NewBridge(t, "uplink", netip.MustParsePrefix("192.0.2.1/24"))
	world := netlab.NewHost(t, "world")
	world.Plug(t, "uplink", netip.MustParsePrefix("192.0.2.9/24"), netip.MustParseAddr("192.0.2.200"))
	world.Listen(t, "tcp", ":80")
	forward := sysctl(t, "net/ipv4/ip_forward")

	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- caches.Run(ctx) }()
	go func() { ended <- n.Run(ctx) }()
	eventually(t, "the CNI configuration", func() bool { _, err := os.Stat(cfg.cniFile()); return err == nil })

	a, b := netlab.NewHost(t, "a"), netlab.NewHost(t, "b")
	ipA, err := attach(t, cfg, "ADD", a)
	if err != nil || ipA.String() != "10.244.1.2" {
		t.Fatal(ipA, err)
	}
	ipB, err := attach(t, cfg, "ADD", b)
	if err != nil || ipB.String() != "10.244.1.3" {
		t.Fatal(ipB, err)
	}
	if _, err := attach(t, cfg, "CHECK", a); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	a.Listen(t, "tcp", ":80")
	a.Listen(t, "udp", ":53")
	netlab.Listen(t, "node", "tcp", "127.0.0.1:99")

	expect := func(what string, name, peer, wantName, wantPeer string) {
		t.Helper()
		if name != wantName || !strings.HasPrefix(peer, wantPeer) {
			t.Errorf("%s: %s answered, and saw %s; want %s, %s", what, name, peer, wantName, wantPeer)
		}
	}
	name, peer := b.Ask("tcp", "10.244.1.2:80")
	expect("pod to pod", name, peer, "a", "10.244.1.3:")
	name, peer = netlab.Ask("tcp", "10.244.1.2:80")
	expect("node to pod", name, peer, "a", "10.244.1.1:")
	name, peer = b.Ask("tcp", "192.0.2.9:80")
	expect("pod to the world", name, peer, "world", "192.0.2.1:")

	// Host ports, from everywhere.
	withPorts := pod("a", "10.244.1.2", corev1.ContainerPort{HostPort: 8080, ContainerPort: 80},
		corev1.ContainerPort{HostPort: 5353, ContainerPort: 53, Protocol: "UDP", HostIP: "192.0.2.1"})
	if _, err := client.Create(ctx, api, withPorts); err != nil {
		t.Fatal(err)
	}
	if _, err := client.UpdateStatus(ctx, api, withPorts); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the host port", func() bool { name, _ := netlab.Ask("tcp", "192.0.2.1:8080"); return name == "a" })
	name, peer = world.Ask("tcp", "192.0.2.1:8080")
	expect("the world to a host port", name, peer, "a", "192.0.2.9:")
	name, peer = b.Ask("tcp", "192.0.2.1:8080")
	expect("a pod to a host port", name, peer, "a", "10.244.1.3:")
	name, peer = a.Ask("tcp", "192.0.2.1:8080")
	expect("a pod to its own host port", name, peer, "a", "10.244.1.1:")
	name, peer = netlab.Ask("tcp", "127.0.0.1:8080")
	expect("the node to a host port by loopback", name, peer, "a", "10.244.1.1:")
	name, _ = netlab.Ask("udp", "192.0.2.1:5353")
	expect("a UDP host port of one address", name, "", "a", "")
	name, _ = netlab.Ask("udp", "10.244.1.1:5353")
	expect("the same at another address", name, "", "refused", "")

	// Somebody flushes the rules and takes the bridge's address; a new round mends it.
	if err := nft.DropTable(cfg.Table); err != nil {
		t.Fatal(err)
	}
	want, _ := plan("n1", cfg.ClusterCIDR, n.nodes.List(""), n.pods.List(""))
	if err := n.cfg.apply(want); err != nil {
		t.Fatal(err)
	}
	name, _ = world.Ask("tcp", "192.0.2.1:8080")
	expect("after mending", name, "", "a", "")

	for range 2 { // twice is no error
		if _, err := attach(t, cfg, "DEL", b); err != nil {
			t.Errorf("DEL: %v", err)
		}
	}
	if name, _ := a.Ask("tcp", "10.244.1.3:80"); name == "b" {
		t.Error("a pod that was detached still answers")
	}
	cancel()
	<-ended
	<-ended
	for range 2 {
		if err := Purge(context.Background(), cfg); err != nil {
			t.Errorf("Purge: %v", err)
		}
	}
	links, _ := netlink.LinkList()
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, "veth") || l.Attrs().Name == cfg.Bridge {
			t.Errorf("the link %s is left", l.Attrs().Name)
		}
	}
	if there, err := nft.HasTable(cfg.Table); there || err != nil {
		t.Errorf("the table is left: %v, %v", there, err)
	}
	if now := sysctl(t, "net/ipv4/ip_forward"); now != forward {
		t.Errorf("ip_forward is %s, not %s", now, forward)
	}
	if left, _ := filepath.Glob(dir + "/*/*"); len(left) > 0 {
		t.Errorf("files are left: %v", left)
	}
}
