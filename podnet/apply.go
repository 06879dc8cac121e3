package podnet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/skiff-sh/skiff/internal/nft"
)

// routeProtocol marks the routes that are podnet's (rtnetlink(7): numbers above 4 are the administrator's to choose).
const routeProtocol netlink.RouteProtocol = 91

// apply makes the machine as s wants it.
func (c *Config) apply(s state) error {
	mtu := uplinkMTU(c.NodeIP)
	if err := c.ensureBridge(s.Range, mtu); err != nil {
		return fmt.Errorf("the bridge %s: %w", c.Bridge, err)
	}
	if err := c.setSysctls(); err != nil {
		return err
	}
	if err := ensureRoutes(s.Cluster, s.Routes); err != nil {
		// The pods of this node do not wait for another's route.
		c.Log.Warn("not every node's pods can be reached", "error", err)
	}
	if err := c.writeRules(s); err != nil {
		return fmt.Errorf("the nftables table %s: %w", c.Table, err)
	}
	return c.writeCNIConfig(s.Range, mtu)
}

// gateway is the bridge's own address: the first of the node's range.
func gateway(r netip.Prefix) netip.Prefix { return netip.PrefixFrom(r.Addr().Next(), r.Bits()) }

func (c *Config) ensureBridge(r netip.Prefix, mtu int) error {
	link, err := netlink.LinkByName(c.Bridge)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		b := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
		b.Name, b.MTU = c.Bridge, mtu
		// A fixed address; a bridge without one changes it with every pod, and the pods' ARP entries would be wrong.
		ip := gateway(r).Addr().As4()
		b.HardwareAddr = net.HardwareAddr(append([]byte{0x0a, 0x58}, ip[:]...))
		if err := netlink.LinkAdd(b); err != nil {
			return err
		}
		link, err = netlink.LinkByName(c.Bridge)
	}
	if err != nil {
		return err
	}
	want := gateway(r)
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	there := false
	for _, a := range addrs {
		if a.IPNet.String() == want.String() {
			there = true
		} else if err := netlink.AddrDel(link, &a); err != nil {
			return err
		}
	}
	if !there {
		ip := &net.IPNet{IP: want.Addr().AsSlice(), Mask: net.CIDRMask(want.Bits(), 32)}
		if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: ip}); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(link)
}

// uplinkMTU is the MTU, in bytes, of the link that has the node's address; 1500 where there is none.
func uplinkMTU(ip netip.Addr) int {
	const usual, most = 1500, 9000 // a loopback device has 65536
	links, err := netlink.LinkList()
	if err != nil || !ip.IsValid() {
		return usual
	}
	for _, l := range links {
		addrs, err := netlink.AddrList(l, netlink.FAMILY_V4)
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if a.IP.Equal(ip.AsSlice()) && l.Attrs().MTU <= most {
				return l.Attrs().MTU
			}
		}
	}
	return usual
}

// ensureRoutes adds the routes that are missing and removes those of nodes that are gone.
func ensureRoutes(cluster netip.Prefix, want []route) error {
	old, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: routeProtocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range old {
		to, ok := prefixOf(r.Dst)
		if !ok || !cluster.Overlaps(to) || slices.ContainsFunc(want, func(w route) bool { return w.To == to }) {
			continue
		}
		errs = append(errs, netlink.RouteDel(&r))
	}
	for _, w := range want {
		dst := &net.IPNet{IP: w.To.Addr().AsSlice(), Mask: net.CIDRMask(w.To.Bits(), 32)}
		err := netlink.RouteReplace(&netlink.Route{Dst: dst, Gw: w.Via.AsSlice(), Protocol: routeProtocol})
		if err != nil {
			errs = append(errs, fmt.Errorf("the route to %s by %s: %w", w.To, w.Via, err))
		}
	}
	return errors.Join(errs...)
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	ip, ok := netip.AddrFromSlice(n.IP.To4())
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(ip, ones), ok
}

// sysctls are the kernel settings that the network needs, as paths below /proc/sys.
func (c *Config) sysctls() map[string]string {
	return map[string]string{
		"net/ipv4/ip_forward": "1",
		// A pod's answer to a pod beside it passes the bridge alone; netfilter must see it there to undo a service's address.
		"net/bridge/bridge-nf-call-iptables": "1",
		// Host ports answer at 127.0.0.1 too; rules keep the pods themselves from it.
		"net/ipv4/conf/" + c.Bridge + "/route_localnet": "1",
	}
}

// setSysctls sets them, and keeps the values from before for Purge.
func (c *Config) setSysctls() error {
	if _, err := os.Stat("/proc/sys/net/bridge"); err != nil {
		_ = exec.Command("modprobe", "br_netfilter").Run() // where it is no module it is built in, or cannot be had
	}
	file := filepath.Join(c.StateDir, "sysctls.json")
	before := map[string]string{}
	if b, err := os.ReadFile(file); err == nil {
		if err := json.Unmarshal(b, &before); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	for path, want := range c.sysctls() {
		b, err := os.ReadFile("/proc/sys/" + path)
		if errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(path, "net/bridge/") {
			continue // the kernel has no br_netfilter, or has not loaded it
		}
		if err != nil {
			return err
		}
		now := strings.TrimSpace(string(b))
		if now == want {
			continue
		}
		if _, ok := before[path]; !ok && !strings.Contains(path, "/"+c.Bridge+"/") { // those vanish with the bridge
			before[path] = now
			b, err := json.Marshal(before)
			if err != nil {
				return err
			}
			if err := os.MkdirAll(c.StateDir, 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(file, b, 0o644); err != nil {
				return err
			}
		}
		if err := os.WriteFile("/proc/sys/"+path, []byte(want), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (c *Config) cniFile() string { return filepath.Join(c.CNIConfDir, "10-"+c.Bridge+".conflist") }

// writeCNIConfig tells containerd that the network is there; this comes last.
func (c *Config) writeCNIConfig(r netip.Prefix, mtu int) error {
	b, err := json.MarshalIndent(map[string]any{
		"cniVersion": "1.0.0", "name": c.Bridge,
		"plugins": []any{map[string]any{"type": c.CNIPlugin, "bridge": c.Bridge, "range": r, "mtu": mtu,
			"stateDir": filepath.Join(c.StateDir, "addresses")}},
	}, "", "  ")
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(c.cniFile()); err == nil && bytes.Equal(old, b) {
		return nil // containerd reads the folder again with every change
	}
	if err := os.MkdirAll(c.CNIConfDir, 0o755); err != nil {
		return err
	}
	tmp := filepath.Join(c.CNIConfDir, ".new") // no name that containerd would read
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, c.cniFile())
}

// Purge removes the bridge with the pods' links on it, routes, rules and files, and gives kernel settings their former
// values. Of the configuration it needs Bridge, Table, ClusterCIDR, CNIConfDir and StateDir.
func Purge(_ context.Context, cfg Config) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	errs := []error{nft.DropTable(cfg.Table)}
	if bridge, err := netlink.LinkByName(cfg.Bridge); err == nil {
		// Without a bridge nothing of this instance ran here, and the routes to its range, perhaps the default, are another's.
		if cfg.ClusterCIDR.IsValid() {
			errs = append(errs, ensureRoutes(cfg.ClusterCIDR, nil))
		}
		links, err := netlink.LinkList()
		errs = append(errs, err)
		for _, l := range links {
			if l.Attrs().MasterIndex == bridge.Attrs().Index {
				if err := netlink.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
					errs = append(errs, err)
				}
			}
		}
		errs = append(errs, netlink.LinkDel(bridge))
	}
	before := map[string]string{}
	if b, err := os.ReadFile(filepath.Join(cfg.StateDir, "sysctls.json")); err == nil {
		errs = append(errs, json.Unmarshal(b, &before))
	}
	for path, value := range before {
		errs = append(errs, os.WriteFile("/proc/sys/"+path, []byte(value), 0o644))
	}
	if err := os.Remove(cfg.cniFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(append(errs, os.RemoveAll(cfg.StateDir))...)
}
