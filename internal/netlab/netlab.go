// Package netlab lets tests of the node's network run with real packets and leave nothing behind: the whole test process
// runs in a network namespace of its own, and hosts (pods, clients) are child processes in further ones.
//
// Invariant: what a test makes in its namespaces vanishes with the process. Only tests import netlab. It needs root.
package netlab

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	labEnv  = "NETLAB"
	hostEnv = "NETLAB_HOST"
)

// Main is a test package's TestMain: it runs the tests in a new network namespace, or as one of their hosts.
func Main(m *testing.M) {
	switch {
	case os.Getenv(hostEnv) != "":
		hostMain(os.Getenv(hostEnv))
	case os.Getenv(labEnv) != "":
		if lo, err := netlink.LinkByName("lo"); err == nil {
			_ = netlink.LinkSetUp(lo)
		}
	case os.Geteuid() == 0:
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), labEnv+"=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		err := cmd.Run()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			os.Exit(exit.ExitCode())
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// Need skips the test outside a lab.
func Need(t testing.TB) {
	t.Helper()
	if os.Getenv(labEnv) == "" {
		t.Skip("needs root")
	}
}

// Host is a machine of the lab: a child process with a network namespace of its own.
type Host struct {
	Name string
	cmd  *exec.Cmd
	mu   sync.Mutex
	in   io.WriteCloser
	out  *bufio.Reader
}

// NewHost starts a host without any link but lo. It ends with the test.
func NewHost(t *testing.T, name string) *Host {
	t.Helper()
	h := &Host{Name: name, cmd: exec.Command("/proc/self/exe")}
	h.cmd.Env = append(os.Environ(), hostEnv+"="+name)
	h.cmd.Stderr = os.Stderr
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	in, err := h.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	h.in, h.out = in, bufio.NewReader(out)
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); _ = h.cmd.Wait() })
	if got := h.call("hello"); got != "ok" {
		t.Fatalf("host %s says %q", name, got)
	}
	return h
}

// NetNS is the path of the host's network namespace.
func (h *Host) NetNS() string { return fmt.Sprintf("/proc/%d/ns/net", h.cmd.Process.Pid) }

// Plug connects the host to a bridge of the lab by a pair of links, with an address and a default gateway.
func (h *Host) Plug(t *testing.T, bridge string, addr netip.Prefix, gateway netip.Addr) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	br, err := netlink.LinkByName(bridge)
	must(err)
	ns, err := netns.GetFromPath(h.NetNS())
	must(err)
	defer ns.Close()
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns))}
	veth.Name, veth.MasterIndex = "v"+h.Name, br.Attrs().Index
	must(netlink.LinkAdd(veth))
	t.Cleanup(func() { _ = netlink.LinkDel(veth) }) // the kernel does it too, but later
	must(netlink.LinkSetHairpin(veth, true))
	must(netlink.LinkSetUp(veth))
	there, err := netlink.NewHandleAt(ns)
	must(err)
	defer there.Close()
	link, err := there.LinkByName("eth0")
	must(err)
	must(there.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: addr.Addr().AsSlice(), Mask: net.CIDRMask(addr.Bits(), 32)}}))
	must(there.LinkSetUp(link))
	must(there.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gateway.AsSlice()}))
}

// NewBridge makes a bridge in the lab's own namespace that has an address.
func NewBridge(t *testing.T, name string, addr netip.Prefix) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	br := &netlink.Bridge{LinkAttrs: attrs}
	for _, err := range []error{netlink.LinkAdd(br), netlink.LinkSetUp(br),
		netlink.AddrAdd(br, &netlink.Addr{IPNet: &net.IPNet{IP: addr.Addr().AsSlice(), Mask: net.CIDRMask(addr.Bits(), 32)}})} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = netlink.LinkDel(br) })
}

// Listen makes the host answer every TCP connection or UDP datagram with "name peer", peer being the asker's address as
// the host sees it.
func (h *Host) Listen(t *testing.T, network, addr string) {
	t.Helper()
	if got := h.call("listen " + network + " " + addr); got != "ok" {
		t.Fatalf("%s listens at %s %s: %s", h.Name, network, addr, got)
	}
}

// Ask sends from the host and returns the name of who answered and the peer address that it saw. If nobody answers,
// name is "refused" or "timeout" (after 1 s), or an error's text.
func (h *Host) Ask(network, addr string) (name, peer string) {
	name, peer, _ = strings.Cut(h.call("ask "+network+" "+addr), " ")
	return name, peer
}

// Ask is Host.Ask from the lab's own namespace.
func Ask(network, addr string) (name, peer string) {
	name, peer, _ = strings.Cut(ask(network, addr), " ")
	return name, peer
}

// Listen is Host.Listen in the lab's own namespace, for a host of that name.
func Listen(t *testing.T, name, network, addr string) {
	t.Helper()
	closer, err := listen(name, network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closer.Close() })
}

func (h *Host) call(line string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, err := fmt.Fprintln(h.in, line); err != nil {
		return err.Error()
	}
	answer, err := h.out.ReadString('\n')
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(answer)
}

// hostMain does what the test's process says, a line each, until that ends.
func hostMain(name string) {
	if lo, err := netlink.LinkByName("lo"); err == nil {
		_ = netlink.LinkSetUp(lo)
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		f := strings.Fields(lines.Text())
		switch {
		case f[0] == "listen":
			if _, err := listen(name, f[1], f[2]); err != nil {
				fmt.Println(err)
				continue
			}
			fmt.Println("ok")
		case f[0] == "ask":
			fmt.Println(ask(f[1], f[2]))
		default:
			fmt.Println("ok")
		}
	}
	os.Exit(0)
}

func listen(name, network, addr string) (io.Closer, error) {
	if network == "udp" {
		p, err := net.ListenPacket("udp4", addr)
		if err != nil {
			return nil, err
		}
		go func() {
			buf := make([]byte, 64)
			for {
				_, from, err := p.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = p.WriteTo([]byte(name+" "+from.String()), from)
			}
		}()
		return p, nil
	}
	l, err := net.Listen("tcp4", addr)
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, name+" "+c.RemoteAddr().String())
			c.Close()
		}
	}()
	return l, nil
}

func ask(network, addr string) string {
	c, err := net.DialTimeout(network+"4", addr, time.Second)
	if err != nil {
		return failure(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	if network == "udp" {
		_, _ = c.Write([]byte("?"))
	}
	buf := make([]byte, 256)
	n, err := c.Read(buf)
	if err != nil {
		return failure(err)
	}
	return string(buf[:n])
}

func failure(err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return "refused"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	}
	return strings.ReplaceAll(err.Error(), " ", "_")
}
