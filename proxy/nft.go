package proxy

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/skiff-sh/skiff/internal/nft"
)

// masqueradeMark marks packets whose source must become this node's address. The bit is the one that upstream uses.
const masqueradeMark = 0x4000

// The fixed sets and maps. Those with "node-" are for the node's own ports, and have no address in their keys.
const (
	fronts     = "fronts"           // address . protocol . port : goto a service's chain
	nodeFronts = "node-fronts"      // protocol . port : goto a service's chain
	refuse     = "no-backends"      // address . protocol . port
	nodeRefuse = "node-no-backends" // protocol . port
	hairpins   = "hairpins"         // backend . backend: those of this node, which may reach themselves by a service
	virtual    = "cluster-ips"      // address: at other ports than the services' nobody answers
)

// table writes to one nftables table.
type table struct {
	name    string
	cluster netip.Prefix
}

// transaction is a change of the table that is being put together.
type transaction struct {
	*table
	conn *nftables.Conn
	nft  *nftables.Table
	sets nft.NumberSets
}

func (t *table) begin() (*transaction, error) {
	conn, err := nft.Conn()
	return &transaction{table: t, conn: conn, nft: &nftables.Table{Family: nftables.TableFamilyIPv4, Name: t.name}}, err
}

// renew replaces whatever is there by the state, in one transaction: there is no moment without rules.
func (t *table) renew(s *state) error {
	tx, err := t.begin()
	if err != nil {
		return err
	}
	tx.conn.AddTable(tx.nft) // so that there is one to delete
	tx.conn.DelTable(tx.nft)
	tx.conn.AddTable(tx.nft)
	if err := tx.frame(); err != nil {
		return err
	}
	return tx.commit(s.whole())
}

// apply makes a change, in one transaction.
func (t *table) apply(c *change) error {
	tx, err := t.begin()
	if err != nil {
		return err
	}
	return tx.commit(c)
}

// frame adds the part of the table that never changes.
func (tx *transaction) frame() error {
	for name := range frameSets {
		if err := tx.sets.Add(tx.conn, tx.set(name)); err != nil {
			return err
		}
	}
	byAddr := nft.Rule{nft.Daddr(nft.W0), nft.Proto(nft.W1), nft.Dport(nft.W2)}
	// The loopback network would need route_localnet on every link: node ports are not served there.
	byPort := nft.Join(nft.ToOutside(netip.MustParsePrefix("127.0.0.0/8")), nft.ToHere(), nft.Rule{nft.Proto(nft.W0), nft.Dport(nft.W1)})
	dispatch := []nft.Rule{nft.Join(byAddr, nft.Rule{nft.Vmap(fronts, nft.W0)}), nft.Join(byPort, nft.Rule{nft.Vmap(nodeFronts, nft.W0)})}
	tx.base("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest, dispatch)
	tx.base("output", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest, dispatch)

	unreachable := &expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: 3} // port unreachable (RFC 792)
	refusals := []nft.Rule{
		nft.Join(nft.NewConnections(), byAddr, nft.Rule{nft.In(refuse, nft.W0), unreachable}),
		nft.Join(nft.NewConnections(), byPort, nft.Rule{nft.In(nodeRefuse, nft.W0), unreachable}),
		nft.Join(nft.NewConnections(), nft.Rule{nft.Daddr(nft.W0), nft.In(virtual, nft.W0), unreachable})}
	tx.base("filter-input", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter, refusals)
	tx.base("filter-forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter, refusals)
	tx.base("filter-output", nftables.ChainTypeFilter, nftables.ChainHookOutput, nftables.ChainPriorityFilter, refusals)

	tx.base("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, []nft.Rule{
		nft.Join(nft.Marked(masqueradeMark), nft.ClearMark(masqueradeMark), nft.Rule{nft.Masquerade()}),
		// This node reaches itself by lo, and needs no other address for that.
		nft.Join(nft.OutNotBy("lo"), nft.Rule{nft.Saddr(nft.W0), nft.Daddr(nft.W1), nft.In(hairpins, nft.W0), nft.Masquerade()})})
	return nil
}

// base adds a base chain. Services come before what others do at the same hook.
func (tx *transaction) base(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority, rules []nft.Rule) {
	tx.conn.AddChain(&nftables.Chain{Table: tx.nft, Name: name, Type: kind, Hooknum: hook, Priority: nftables.ChainPriorityRef(*priority - 5)})
	for _, r := range rules {
		tx.rule(name, r)
	}
}

func (tx *transaction) rule(chain string, r nft.Rule) {
	tx.conn.AddRule(&nftables.Rule{Table: tx.nft, Chain: &nftables.Chain{Table: tx.nft, Name: chain}, Exprs: r})
}

// frameSets are the fixed sets by name; their table is filled in on use.
var frameSets = map[string]nftables.Set{
	fronts:     {IsMap: true, KeyType: nft.AddrProtoPort, DataType: nftables.TypeVerdict, Concatenation: true},
	nodeFronts: {IsMap: true, KeyType: nft.ProtoPort, DataType: nftables.TypeVerdict, Concatenation: true},
	refuse:     {KeyType: nft.AddrProtoPort, Concatenation: true},
	nodeRefuse: {KeyType: nft.ProtoPort, Concatenation: true},
	hairpins:   {KeyType: nft.AddrAddr, Concatenation: true},
	virtual:    {KeyType: nftables.TypeIPAddr},
}

func (tx *transaction) set(name string) *nftables.Set {
	s := frameSets[name]
	s.Table, s.Name = tx.nft, name
	return &s
}

// mostClients is how many clients of one backend are remembered.
const mostClients = 1 << 18

// A chain's own map, from numbers to backends, and with affinity to their chains. What belongs to one backend of a chain with
// affinity has the chain's name and the backend's: a set of the clients that stay with it, and a chain that leads there. The
// tool nft could not list rules that carry a remembered address from one lookup to the next.

func (tx *transaction) numbers(name string, c *chain) *nftables.Set {
	s := &nftables.Set{Table: tx.nft, Name: "of-" + name, IsMap: true, KeyType: nftables.TypeMark, DataType: nft.AddrPort, KeyByteOrder: binaryutil.NativeEndian}
	if c.affinity > 0 {
		s.DataType = nftables.TypeVerdict
	}
	return s
}

func (tx *transaction) clients(name string, c *chain, b backend) *nftables.Set {
	return &nftables.Set{Table: tx.nft, Name: "by-" + stay(name, b), KeyType: nftables.TypeIPAddr, Dynamic: true, HasTimeout: true, Timeout: c.affinity, Size: mostClients}
}

// stay is the name of the chain that leads to one backend and remembers the client.
func stay(name string, b backend) string { return name + "@" + b.String() }

// commit sends the change. New chains come before the elements that lead to them, old ones after.
func (tx *transaction) commit(c *change) error {
	for name, ch := range c.chains {
		if ch[0] == nil {
			tx.conn.AddChain(&nftables.Chain{Table: tx.nft, Name: name})
		}
	}
	for name, ch := range c.chains {
		if ch[1] != nil {
			if err := tx.fill(name, ch[0], ch[1]); err != nil {
				return err
			}
		}
	}
	if err := tx.lead(c); err != nil {
		return err
	}
	for name, ch := range c.chains {
		if ch[1] == nil {
			tx.conn.FlushChain(&nftables.Chain{Table: tx.nft, Name: name})
		}
	}
	for name, ch := range c.chains {
		if ch[1] == nil {
			tx.conn.DelChain(&nftables.Chain{Table: tx.nft, Name: name})
			tx.strip(name, ch[0])
		}
	}
	if err := tx.conn.Flush(); err != nil {
		return fmt.Errorf("the nftables table %s: %w", tx.name, err)
	}
	return nil
}

// strip removes what a chain without rules has beside it.
func (tx *transaction) strip(name string, c *chain) {
	tx.conn.DelSet(tx.numbers(name, c))
	if c.affinity > 0 {
		tx.forget(name, c, c.backends)
	}
}

// forget removes the chains and the clients of backends that nothing leads to any more.
func (tx *transaction) forget(name string, c *chain, gone []backend) {
	for _, b := range gone {
		ch := &nftables.Chain{Table: tx.nft, Name: stay(name, b)}
		tx.conn.FlushChain(ch)
		tx.conn.DelChain(ch)
		tx.conn.DelSet(tx.clients(name, c, b))
	}
}

// remember adds the chains and the sets of backends that a chain with affinity gets.
func (tx *transaction) remember(name string, c *chain, fresh []backend) error {
	for _, b := range fresh {
		set := tx.clients(name, c, b)
		if err := tx.sets.Add(tx.conn, set); err != nil {
			return err
		}
		tx.conn.AddChain(&nftables.Chain{Table: tx.nft, Name: stay(name, b)})
		// When the memory is full, the first rule does nothing.
		tx.rule(stay(name, b), nft.Rule{nft.Saddr(nft.W0), &expr.Dynset{SrcRegKey: nft.W0, SetName: set.Name,
			Operation: uint32(unix.NFT_DYNSET_OP_UPDATE), Timeout: c.affinity}})
		to := nft.Key(b.Addr(), b.Port())
		tx.rule(stay(name, b), nft.Rule{&expr.Immediate{Register: nft.W0, Data: to[:4]}, &expr.Immediate{Register: nft.W1, Data: to[4:6]}, nft.Dnat(nft.W0)})
	}
	return nil
}

// fill makes a chain's map and rules what they must be. Its rules depend on the number of backends, and only with affinity
// on which.
func (tx *transaction) fill(name string, from, to *chain) error {
	if from == nil || from.affinity != to.affinity {
		if from != nil {
			tx.conn.FlushChain(&nftables.Chain{Table: tx.nft, Name: name})
			tx.strip(name, from)
		}
		if err := tx.sets.Add(tx.conn, tx.numbers(name, to)); err != nil {
			return err
		}
		from = &chain{affinity: to.affinity}
	}
	ruled := from.source == to.source && from.insiders == to.insiders && slices.Equal(from.allow, to.allow) &&
		len(from.backends) == len(to.backends) && len(from.backends) > 0 && (to.affinity == 0 || slices.Equal(from.backends, to.backends))
	if !ruled {
		tx.conn.FlushChain(&nftables.Chain{Table: tx.nft, Name: name})
	}
	if to.affinity > 0 {
		if err := tx.remember(name, to, without(to.backends, from.backends)); err != nil {
			return err
		}
	}
	if err := tx.number(name, from, to); err != nil {
		return err
	}
	if to.affinity > 0 {
		tx.forget(name, to, without(from.backends, to.backends))
	}
	if !ruled {
		for _, r := range tx.chainRules(name, to) {
			tx.rule(name, r)
		}
	}
	return nil
}

// without are those of all that are not among others.
func without(all, others []backend) []backend {
	there := make(map[backend]bool, len(others))
	for _, b := range others {
		there[b] = true
	}
	return slices.DeleteFunc(slices.Clone(all), func(b backend) bool { return there[b] })
}

// number changes the map from numbers to backends where they differ.
func (tx *transaction) number(name string, from, to *chain) error {
	element := func(i int, b backend) nftables.SetElement {
		e := nftables.SetElement{Key: nft.Word(uint32(i))}
		if to.affinity > 0 {
			e.VerdictData = nft.Goto(stay(name, b))
		} else {
			e.Val = nft.Key(b.Addr(), b.Port())
		}
		return e
	}
	before, after := from.backends, to.backends
	var add, del []nftables.SetElement
	for i, b := range before {
		if i >= len(after) || after[i] != b {
			del = append(del, element(i, b))
		}
	}
	for i, b := range after {
		if i >= len(before) || before[i] != b {
			add = append(add, element(i, b))
		}
	}
	return tx.elements(tx.numbers(name, to), del, add)
}

func (tx *transaction) chainRules(name string, c *chain) []nft.Rule {
	var out []nft.Rule
	if len(c.allow) > 0 {
		// Each range jumps over the final drop: what the jump's target does not decide (nothing) comes back.
		rest := *c
		rest.allow = nil
		for _, p := range c.allow {
			for _, r := range tx.chainRules(name, &rest) {
				out = append(out, nft.Join(nft.From(p), r))
			}
		}
		return append(out, nft.Rule{nft.Drop()})
	}
	if c.insiders != "" {
		out = append(out, nft.Join(nft.From(tx.cluster), nft.Rule{nft.Goto(c.insiders)}),
			nft.Join(nft.FromHere(), nft.SetMark(masqueradeMark), nft.Rule{nft.Goto(c.insiders)}))
	}
	if len(c.backends) == 0 {
		return append(out, nft.Rule{nft.Drop()})
	}
	switch c.source {
	case always:
		out = append(out, nft.SetMark(masqueradeMark))
	case outside:
		out = append(out, nft.Join(nft.FromOutside(tx.cluster), nft.SetMark(masqueradeMark)))
	}
	choose := nft.Rule{&expr.Numgen{Register: nft.W0, Modulus: uint32(len(c.backends)), Type: unix.NFT_NG_RANDOM}}
	if c.affinity == 0 {
		return append(out, nft.Join(choose, nft.Rule{nft.Map("of-"+name, nft.W0, nft.W0), nft.Dnat(nft.W0)}))
	}
	for _, b := range c.backends {
		out = append(out, nft.Rule{nft.Saddr(nft.W0), nft.In("by-"+stay(name, b), nft.W0), nft.Goto(stay(name, b))})
	}
	return append(out, nft.Join(choose, nft.Rule{nft.Vmap("of-"+name, nft.W0)}))
}

// lead changes which front leads where, and the sets of addresses.
func (tx *transaction) lead(c *change) error {
	add, del := map[string][]nftables.SetElement{}, map[string][]nftables.SetElement{}
	for f, to := range c.fronts {
		for i, list := range []map[string][]nftables.SetElement{del, add} {
			if to[i] == "" {
				continue
			}
			set, e := place(f, to[i])
			list[set] = append(list[set], e)
		}
	}
	for a, there := range c.addrs {
		list, key := del, nft.Key(a.addr)
		if there {
			list = add
		}
		if a.set == hairpins {
			key = nft.Key(a.addr, a.addr)
		}
		list[a.set] = append(list[a.set], nftables.SetElement{Key: key})
	}
	for name := range frameSets {
		if err := tx.elements(tx.set(name), del[name], add[name]); err != nil {
			return err
		}
	}
	return nil
}

// place is the set and the element by which a front leads to a chain, or is refused.
func place(f front, to string) (set string, e nftables.SetElement) {
	names := [2]string{nodeFronts, nodeRefuse}
	e.Key = nft.Key(f.protocol, f.port)
	if f.addr.IsValid() {
		names, e.Key = [2]string{fronts, refuse}, nft.Key(f.addr, f.protocol, f.port)
	}
	if to == reject {
		return names[1], e
	}
	e.VerdictData = nft.Goto(to)
	return names[0], e
}

func (tx *transaction) elements(s *nftables.Set, del, add []nftables.SetElement) error {
	err := nft.ChunkElements(del, func(part []nftables.SetElement) error { return tx.conn.SetDeleteElements(s, part) })
	if err != nil {
		return err
	}
	return nft.ChunkElements(add, func(part []nftables.SetElement) error { return tx.conn.SetAddElements(s, part) })
}
