package daemon

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netns"

	"github.com/skiff-sh/skiff/internal/nft"
)

// A neighbour asks a port of the instance's node that leads back to a pod of the neighbour, as a node port may: the
// packets leave the bridge by the port that they came by.
func TestNeighbourReachesItselfByAnotherNode(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	runtime.LockOSThread() // never unlocked: the thread, which is in another namespace, ends with the test
	machine, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer machine.Close()
	for _, path := range []string{"net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables"} {
		if err := os.WriteFile("/proc/sys/"+path, []byte("1"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cfg := &Config{Name: fmt.Sprint("nbr", os.Getpid()%10000), Nodes: 2, PodCIDR: netip.MustParsePrefix("10.1.0.0/16")}
	defer func() {
		if err := cfg.Disconnect(); err != nil {
			t.Error(err)
		}
	}()
	if err := cfg.Connect(); err != nil {
		t.Fatal(err)
	}
	here, neighbour := cfg.nodeAddr(1), cfg.Neighbours()[0]
	leadBack(t, 30080, netip.AddrPortFrom(neighbour.NodeIP, 8080))

	var got []byte
	err = neighbour.InNamespace(func() error {
		l, err := net.Listen("tcp4", ":8080")
		if err != nil {
			return err
		}
		defer l.Close()
		go func() {
			if c, err := l.Accept(); err == nil {
				fmt.Fprint(c, c.RemoteAddr())
				c.Close()
			}
		}()
		c, err := net.DialTimeout("tcp4", netip.AddrPortFrom(here, 30080).String(), 5*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		got, err = io.ReadAll(c)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if peer, err := netip.ParseAddrPort(string(got)); err != nil || peer.Addr() != here {
		t.Errorf("the neighbour was asked by %q, want %s", got, here)
	}
}

// leadBack gives connections to a port of this thread's namespace another destination, and this namespace's address.
func leadBack(t *testing.T, port uint16, to netip.AddrPort) {
	t.Helper()
	conn, err := nft.Conn()
	if err != nil {
		t.Fatal(err)
	}
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "lab"})
	ports := &nftables.Set{Table: table, Name: "ports", IsMap: true, KeyType: nft.ProtoPort, DataType: nft.AddrPort, Concatenation: true}
	var sets nft.NumberSets
	if err := sets.Add(conn, ports); err != nil {
		t.Fatal(err)
	}
	e := nftables.SetElement{Key: nft.Key(uint8(6), port), Val: nft.Key(to.Addr(), to.Port())}
	if err := conn.SetAddElements(ports, []nftables.SetElement{e}); err != nil {
		t.Fatal(err)
	}
	add := func(name string, hook *nftables.ChainHook, priority *nftables.ChainPriority, r nft.Rule) {
		chain := conn.AddChain(&nftables.Chain{Table: table, Name: name, Type: nftables.ChainTypeNAT, Hooknum: hook, Priority: priority})
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: r})
	}
	add("prerouting", nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest, nft.Join(nft.ToHere(),
		nft.Rule{nft.Proto(nft.W0), nft.Dport(nft.W1), nft.Map(ports.Name, nft.W0, nft.W0), nft.Dnat(nft.W0)}))
	add("postrouting", nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, nft.Rule{nft.Masquerade()})
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
}
