package podnet

import (
	"net/netip"

	"github.com/google/nftables"

	"github.com/skiff-sh/skiff/internal/nft"
)

// The table's sets and maps.
const (
	anyPorts  = "host-ports"           // protocol . port : pod . port
	addrPorts = "host-ports-by-addr"   // address . protocol . port : pod . port
	hairpin   = "host-ports-to-itself" // pod . pod
)

var loopback = netip.MustParsePrefix("127.0.0.0/8")

// writeRules replaces the table as a whole, in one transaction: host ports change seldom, and connections that exist
// keep their translation.
func (c *Config) writeRules(s state) error {
	conn, err := nft.Conn()
	if err != nil {
		return err
	}
	t := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: c.Table}
	conn.AddTable(t)
	conn.DelTable(t)
	conn.AddTable(t)

	var anywhere, at, itself []nftables.SetElement
	seen := map[netip.Addr]bool{}
	for _, p := range s.HostPorts {
		to := nft.Key(p.Pod.Addr(), p.Pod.Port())
		if p.HostIP.IsUnspecified() {
			anywhere = append(anywhere, nftables.SetElement{Key: nft.Key(p.Proto, p.Port), Val: to})
		} else {
			at = append(at, nftables.SetElement{Key: nft.Key(p.HostIP, p.Proto, p.Port), Val: to})
		}
		if ip := p.Pod.Addr(); !seen[ip] {
			seen[ip] = true
			itself = append(itself, nftables.SetElement{Key: nft.Key(ip, ip)})
		}
	}
	var sets nft.NumberSets
	for _, set := range []struct {
		nftables.Set
		elements []nftables.SetElement
	}{
		{nftables.Set{Name: anyPorts, IsMap: true, KeyType: nft.ProtoPort, DataType: nft.AddrPort, Concatenation: true}, anywhere},
		{nftables.Set{Name: addrPorts, IsMap: true, KeyType: nft.AddrProtoPort, DataType: nft.AddrPort, Concatenation: true}, at},
		{nftables.Set{Name: hairpin, KeyType: nft.AddrAddr, Concatenation: true}, itself},
	} {
		set.Table = t
		if err := sets.Add(conn, &set.Set); err != nil {
			return err
		}
		err := nft.ChunkElements(set.elements, func(e []nftables.SetElement) error { return conn.SetAddElements(&set.Set, e) })
		if err != nil {
			return err
		}
	}

	add := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority, rules ...nft.Rule) {
		chain := conn.AddChain(&nftables.Chain{Table: t, Name: name, Type: kind, Hooknum: hook, Priority: priority})
		for _, r := range rules {
			conn.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: r})
		}
	}
	translate := []nft.Rule{
		nft.Join(nft.ToHere(), nft.Rule{nft.Daddr(nft.W0), nft.Proto(nft.W1), nft.Dport(nft.W2), nft.Map(addrPorts, nft.W0, nft.W0), nft.Dnat(nft.W0)}),
		nft.Join(nft.ToHere(), nft.Rule{nft.Proto(nft.W0), nft.Dport(nft.W1), nft.Map(anyPorts, nft.W0, nft.W0), nft.Dnat(nft.W0)}),
	}
	add("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest, translate...)
	add("output", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest, translate...)
	add("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource,
		// A pod that reached itself by a host port, and this machine that did by 127.0.0.1, must hear from somebody else.
		nft.Rule{nft.Saddr(nft.W0), nft.Daddr(nft.W1), nft.In(hairpin, nft.W0), nft.Masquerade()},
		nft.Join(nft.OutBy(c.Bridge), nft.From(loopback), nft.Rule{nft.Masquerade()}),
		// Beyond the cluster nobody knows the pods' addresses.
		nft.Join(nft.From(s.Range), nft.ToOutside(s.Cluster), nft.OutNotBy(c.Bridge), nft.Rule{nft.Masquerade()}))
	// route_localnet would let a pod reach what listens on this machine's loopback.
	add("guard", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw,
		nft.Join(nft.InBy(c.Bridge), nft.To(loopback), nft.Rule{nft.Drop()}))
	return conn.Flush()
}
