package daemon

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Neighbours are more nodes of the cluster on the same machine ("skiff up --nodes 3"): instances of their own, named
// NAME-2 and so on, each in a network namespace of the same name. All nodes hang on one bridge, where the instance itself
// has the first address, so that they reach one another as machines on one switch do.

// maxNodes bounds --nodes: the names and addresses of neighbours have one digit.
const maxNodes = 9

// nodeNet is the range of the nodes' own addresses. It depends on the name, so that instances do not collide.
func (c *Config) nodeNet() netip.Prefix {
	h := fnv.New32a()
	h.Write([]byte(c.Name))
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 30, byte(h.Sum32()), 0}), 24)
}

// nodeAddr is the address of the i-th node, from 1.
func (c *Config) nodeAddr(i int) netip.Addr {
	a := c.nodeNet().Addr().As4()
	a[3] = byte(i)
	return netip.AddrFrom4(a)
}

func (c *Config) nodeBridge() string { return c.Name + "-n" }

// Neighbours are the configurations of the further nodes.
func (c *Config) Neighbours() []*Config {
	var out []*Config
	for i := 2; i <= c.Nodes; i++ {
		n := &Config{Name: c.Name + "-" + strconv.Itoa(i), NodeName: c.NodeName + "-" + strconv.Itoa(i), NodeIP: c.nodeAddr(i), APIPort: c.APIPort,
			NodePort: c.NodePort, PodCIDR: c.PodCIDR, ServiceCIDR: c.ServiceCIDR, NodePorts: c.NodePorts, ClusterDomain: c.ClusterDomain, MaxPods: c.MaxPods}
		if c.DataDir != "/var/lib/"+c.Name {
			n.DataDir = filepath.Join(c.DataDir, "nodes", n.Name)
		}
		out = append(out, n)
	}
	return out
}

// KubeconfigFile is where a neighbour finds how to reach the cluster.
func (c *Config) KubeconfigFile() string { return c.path("node.kubeconfig") }

// Connect makes the bridge and the neighbours' namespaces, and leaves what is there already.
func (c *Config) Connect() error {
	bridge, err := ensureBridge(c.nodeBridge(), netip.PrefixFrom(c.nodeAddr(1), c.nodeNet().Bits()))
	if err != nil {
		return fmt.Errorf("the bridge of the nodes: %w", err)
	}
	for i, n := range c.Neighbours() {
		if err := c.plug(n, i+2, bridge); err != nil {
			return fmt.Errorf("the network namespace %s: %w", n.Name, err)
		}
	}
	return nil
}

func ensureBridge(name string, addr netip.Prefix) (netlink.Link, error) {
	if l, err := netlink.LinkByName(name); err == nil {
		return l, nil
	}
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}); err != nil {
		return nil, err
	}
	l, err := netlink.LinkByName(name)
	if err != nil {
		return nil, err
	}
	if err := netlink.AddrAdd(l, &netlink.Addr{IPNet: ipNet(addr)}); err != nil {
		return nil, err
	}
	return l, netlink.LinkSetUp(l)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// plug makes one namespace with an eth0 that hangs on the bridge.
func (c *Config) plug(n *Config, i int, bridge netlink.Link) error {
	if h, err := netns.GetFromName(n.Name); err == nil {
		return h.Close()
	}
	if err := inNewNamespace(n.Name); err != nil {
		return err
	}
	h, err := netns.GetFromName(n.Name)
	if err != nil {
		return err
	}
	defer h.Close()
	outer := c.Name + "-v" + strconv.Itoa(i)
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: outer, MasterIndex: bridge.Attrs().Index}, PeerName: "eth0",
		PeerNamespace: netlink.NsFd(int(h))}); err != nil {
		return err
	}
	port, err := netlink.LinkByName(outer)
	if err != nil {
		return err
	}
	// What a node sends to a port of the instance may be meant for that node again. Where netfilter sees bridged packets, the
	// bridge itself turns them round, and a port without hairpin mode never sends back what came by it.
	if err := netlink.LinkSetHairpin(port, true); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(port); err != nil {
		return err
	}
	inside, err := netlink.NewHandleAt(h)
	if err != nil {
		return err
	}
	defer inside.Close()
	lo, err := inside.LinkByName("lo")
	if err != nil {
		return err
	}
	eth, err := inside.LinkByName("eth0")
	if err != nil {
		return err
	}
	return errors.Join(inside.LinkSetUp(lo), inside.AddrAdd(eth, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(n.NodeIP, c.nodeNet().Bits()))}),
		inside.LinkSetUp(eth), inside.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Gw: c.nodeAddr(1).AsSlice()}))
}

// inNewNamespace makes a named namespace. The thread that did is not used again.
func inNewNamespace(name string) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		h, err := netns.NewNamed(name)
		if err == nil {
			err = h.Close()
		}
		done <- err
	}()
	return <-done
}

// InNamespace calls f on a thread that is in the neighbour's network namespace; processes that f starts are in it too.
// Where there is none any more f is called all the same.
func (c *Config) InNamespace(f func() error) error {
	h, err := netns.GetFromName(c.Name)
	if errors.Is(err, os.ErrNotExist) {
		return f()
	}
	if err != nil {
		return err
	}
	defer h.Close()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		if err := netns.Set(h); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// Disconnect removes the namespaces and the bridge.
func (c *Config) Disconnect() error {
	var errs []error
	for _, n := range c.Neighbours() {
		if err := netns.DeleteNamed(n.Name); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if l, err := netlink.LinkByName(c.nodeBridge()); err == nil {
		errs = append(errs, netlink.LinkDel(l))
	}
	return errors.Join(errs...)
}
