// Package cni is the CNI plug-in that puts a pod onto the node's bridge: a veth pair, an address from the node's range,
// a default route.
//
// Invariant: it keeps no state but one file for each address that is taken, and every command may be repeated: what ADD
// did in part, DEL undoes. It stays small (no Kubernetes library), because it runs once for each pod that starts or
// stops. Only cmd/skiff-shim and podnet import cni.
package cni

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Network is the plug-in's part of the network configuration, as podnet writes it.
type Network struct {
	types.PluginConf
	Bridge   string       `json:"bridge"`
	Range    netip.Prefix `json:"range"`    // the node's pod addresses; the first is the bridge's own
	MTU      int          `json:"mtu"`      // bytes
	StateDir string       `json:"stateDir"` // one file for each address that is taken
}

// Main runs the command that the environment names (CNI specification 1.1) and returns the exit code.
func Main() int {
	err := skel.PluginMainFuncsWithError(skel.CNIFuncs{Add: add, Del: del, Check: check, GC: gc, Status: status}, version.All, "skiff pod network")
	if err != nil {
		_ = err.Print()
		return 1
	}
	return 0
}

func parse(b []byte) (*Network, *pool, error) {
	n := &Network{}
	if err := json.Unmarshal(b, n); err != nil {
		return nil, nil, types.NewError(types.ErrDecodingFailure, "the network configuration is no JSON of this plug-in", err.Error())
	}
	if n.Bridge == "" || !n.Range.IsValid() || n.StateDir == "" {
		return nil, nil, types.NewError(types.ErrInvalidNetworkConfig, "bridge, range and stateDir are required", "")
	}
	return n, &pool{dir: n.StateDir, prefix: n.Range.Masked()}, nil
}

// hostName is the name of a pod's end of the pair in the node's namespace: at most 15 characters, the same every time.
func hostName(containerID, ifName string) string {
	sum := sha256.Sum256([]byte(containerID + "/" + ifName))
	return "veth" + hex.EncodeToString(sum[:])[:10]
}

func add(args *skel.CmdArgs) (err error) {
	n, p, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	addr, err := p.take(args.ContainerID, args.IfName)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = del(args)
		}
	}()
	bridge, err := netlink.LinkByName(n.Bridge)
	if err != nil {
		return types.NewError(types.ErrTryAgainLater, "the bridge "+n.Bridge+" is not there yet", err.Error())
	}
	target, err := netns.GetFromPath(args.Netns)
	if err != nil {
		return fmt.Errorf("the pod's network namespace %s: %w", args.Netns, err)
	}
	defer target.Close()
	host, mac, err := connect(n, bridge, target, addr, args)
	if err != nil {
		return err
	}
	gateway := n.Range.Masked().Addr().Next()
	if err := configure(target, args.IfName, netip.PrefixFrom(addr, n.Range.Bits()), gateway); err != nil {
		return err
	}
	result := &current.Result{
		CNIVersion: current.ImplementedSpecVersion,
		Interfaces: []*current.Interface{
			{Name: host.Attrs().Name, Mac: host.Attrs().HardwareAddr.String()},
			{Name: args.IfName, Mac: mac, Sandbox: args.Netns}},
		IPs: []*current.IPConfig{{Interface: current.Int(1), Gateway: gateway.AsSlice(),
			Address: net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(n.Range.Bits(), addr.BitLen())}}},
		Routes: []*types.Route{{Dst: net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, GW: gateway.AsSlice()}},
	}
	return types.PrintResult(result, n.CNIVersion)
}

// hardwareAddr follows from the pod's address: who gets an address that another had is found at once by those that still
// remember where it was.
func hardwareAddr(a netip.Addr) net.HardwareAddr {
	ip := a.As4()
	return append(net.HardwareAddr{0x0a, 0x58}, ip[:]...)
}

// connect makes the pair, one end on the bridge and one in the pod, and returns the host's end and the pod's address.
func connect(n *Network, bridge netlink.Link, target netns.NsHandle, addr netip.Addr, args *skel.CmdArgs) (host netlink.Link, mac string, err error) {
	name := hostName(args.ContainerID, args.IfName)
	if old, err := netlink.LinkByName(name); err == nil {
		_ = netlink.LinkDel(old) // of an ADD that was interrupted
	}
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: args.IfName, PeerNamespace: netlink.NsFd(int(target)),
		PeerHardwareAddr: hardwareAddr(addr)}
	veth.Name, veth.MTU, veth.MasterIndex = name, n.MTU, bridge.Attrs().Index
	if err := netlink.LinkAdd(veth); err != nil {
		return nil, "", fmt.Errorf("making the pair %s: %w", name, err)
	}
	if host, err = netlink.LinkByName(name); err != nil {
		return nil, "", err
	}
	// A pod may reach itself through its service: the bridge must send a frame back to where it came from.
	if err := netlink.LinkSetHairpin(host, true); err != nil {
		return nil, "", err
	}
	if err := netlink.LinkSetUp(host); err != nil {
		return nil, "", err
	}
	h, err := netlink.NewHandleAt(target)
	if err != nil {
		return nil, "", err
	}
	defer h.Close()
	peer, err := h.LinkByName(args.IfName)
	if err != nil {
		return nil, "", err
	}
	return host, peer.Attrs().HardwareAddr.String(), nil
}

// configure gives the pod's end its address and routes.
func configure(target netns.NsHandle, ifName string, addr netip.Prefix, gateway netip.Addr) error {
	h, err := netlink.NewHandleAt(target)
	if err != nil {
		return err
	}
	defer h.Close()
	if lo, err := h.LinkByName("lo"); err == nil {
		_ = h.LinkSetUp(lo)
	}
	link, err := h.LinkByName(ifName)
	if err != nil {
		return err
	}
	ip := &net.IPNet{IP: addr.Addr().AsSlice(), Mask: net.CIDRMask(addr.Bits(), addr.Addr().BitLen())}
	if err := h.AddrAdd(link, &netlink.Addr{IPNet: ip}); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("giving %s the address %s: %w", ifName, addr, err)
	}
	if err := h.LinkSetUp(link); err != nil {
		return err
	}
	err = h.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gateway.AsSlice()})
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("the default route by %s: %w", gateway, err)
	}
	return nil
}

func del(args *skel.CmdArgs) error {
	_, p, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	if host, err := netlink.LinkByName(hostName(args.ContainerID, args.IfName)); err == nil {
		if err := netlink.LinkDel(host); err != nil && !errors.Is(err, unix.ENODEV) {
			return err
		}
	}
	return p.release(args.ContainerID, args.IfName)
}

func check(args *skel.CmdArgs) error {
	_, p, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	if _, err := netlink.LinkByName(hostName(args.ContainerID, args.IfName)); err != nil {
		return fmt.Errorf("the pod's link is gone: %w", err)
	}
	if _, ok := p.owned(args.ContainerID, args.IfName); !ok {
		return errors.New("the pod's address is no longer reserved")
	}
	return nil
}

func status(args *skel.CmdArgs) error {
	n, _, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	if _, err := netlink.LinkByName(n.Bridge); err != nil {
		return types.NewError(types.ErrPluginNotAvailable, "the bridge "+n.Bridge+" is not there", err.Error())
	}
	return nil
}

// gc gives back what belongs to none of the attachments that are still valid.
func gc(args *skel.CmdArgs) error {
	n, p, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	valid := map[string]bool{}
	for _, a := range n.ValidAttachments {
		valid[owner(a.ContainerID, a.IfName)] = true
	}
	return p.keepOnly(valid)
}
