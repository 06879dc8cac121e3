// Package nft has the words of nftables that podnet and proxy share: loads, matches and lookups for IPv4 rules over
// netlink, and the encoding of set elements.
//
// Invariant: everything here is a value or a pure function; the two components own their tables and connections. A
// register is one 32-bit word (W0 to W7), and a concatenation lies in words that follow each other.
package nft

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// The registers.
const (
	W0 uint32 = unix.NFT_REG32_00 + iota
	W1
	W2
	W3
	W4
	W5
)

// Types of set keys and map values.
var (
	ProtoPort     = nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService)
	AddrPort      = nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	AddrAddr      = nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeIPAddr)
	AddrProtoPort = nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService)
)

// Rule is what a packet must pass, in order.
type Rule = []expr.Any

// Join puts parts of a rule together.
func Join(parts ...Rule) Rule { return slices.Concat(parts...) }

// Saddr loads the packet's source address.
func Saddr(reg uint32) expr.Any { return payload(reg, expr.PayloadBaseNetworkHeader, 12, 4) }

// Daddr loads the packet's destination address.
func Daddr(reg uint32) expr.Any { return payload(reg, expr.PayloadBaseNetworkHeader, 16, 4) }

// Dport loads the destination port of TCP, UDP or SCTP.
func Dport(reg uint32) expr.Any { return payload(reg, expr.PayloadBaseTransportHeader, 2, 2) }

func payload(reg uint32, base expr.PayloadBase, offset, length uint32) expr.Any {
	return &expr.Payload{OperationType: expr.PayloadLoad, DestRegister: reg, Base: base, Offset: offset, Len: length}
}

// Proto loads the number of the transport protocol.
func Proto(reg uint32) expr.Any { return &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg} }

// From matches packets whose source is in the prefix; FromOutside those whose source is not.
func From(p netip.Prefix) Rule        { return within(Saddr(W0), p, expr.CmpOpEq) }
func FromOutside(p netip.Prefix) Rule { return within(Saddr(W0), p, expr.CmpOpNeq) }

// To and ToOutside match the destination in the same way.
func To(p netip.Prefix) Rule        { return within(Daddr(W0), p, expr.CmpOpEq) }
func ToOutside(p netip.Prefix) Rule { return within(Daddr(W0), p, expr.CmpOpNeq) }

func within(load expr.Any, p netip.Prefix, op expr.CmpOp) Rule {
	mask := make([]byte, 4)
	binary.BigEndian.PutUint32(mask, ^uint32(0)<<(32-p.Bits()))
	return Rule{load,
		&expr.Bitwise{SourceRegister: W0, DestRegister: W0, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: W0, Data: p.Masked().Addr().AsSlice()}}
}

// ToHere matches packets to an address of this machine; FromHere those from one.
func ToHere() Rule   { return local(&expr.Fib{Register: W0, ResultADDRTYPE: true, FlagDADDR: true}) }
func FromHere() Rule { return local(&expr.Fib{Register: W0, ResultADDRTYPE: true, FlagSADDR: true}) }

func local(fib *expr.Fib) Rule {
	return Rule{fib, &expr.Cmp{Op: expr.CmpOpEq, Register: W0, Data: Word(unix.RTN_LOCAL)}}
}

// In matches when the words from reg on are in the set.
func In(set string, reg uint32) expr.Any { return &expr.Lookup{SetName: set, SourceRegister: reg} }

// Map puts what the map has for the words from reg on into dest; a packet without an entry does not match.
func Map(name string, reg, dest uint32) expr.Any {
	return &expr.Lookup{SetName: name, SourceRegister: reg, DestRegister: dest, IsDestRegSet: true}
}

// Vmap does what the map of verdicts says for the words from reg on.
func Vmap(name string, reg uint32) expr.Any { return Map(name, reg, unix.NFT_REG_VERDICT) }

// NewConnections matches the first packet of a connection.
func NewConnections() Rule {
	return Rule{&expr.Ct{Key: expr.CtKeySTATE, Register: W0},
		&expr.Bitwise{SourceRegister: W0, DestRegister: W0, Len: 4, Mask: Word(expr.CtStateBitNEW), Xor: Word(0)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: W0, Data: Word(0)}}
}

// OutBy and InBy match the name of the interface; the Not forms every other.
func OutBy(name string) Rule    { return device(expr.MetaKeyOIFNAME, name, expr.CmpOpEq) }
func OutNotBy(name string) Rule { return device(expr.MetaKeyOIFNAME, name, expr.CmpOpNeq) }
func InBy(name string) Rule     { return device(expr.MetaKeyIIFNAME, name, expr.CmpOpEq) }

func device(key expr.MetaKey, name string, op expr.CmpOp) Rule {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return Rule{&expr.Meta{Key: key, Register: unix.NFT_REG_1}, &expr.Cmp{Op: op, Register: unix.NFT_REG_1, Data: padded}}
}

// Dnat sends the connection to the address in reg and the port in the word after it.
func Dnat(reg uint32) expr.Any {
	return &expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg, RegProtoMin: reg + 1}
}

// Masquerade gives the connection the address of the interface that it leaves by.
func Masquerade() expr.Any { return &expr.Masq{FullyRandom: true} }

// SetMark sets the given bits of the packet's mark; ClearMark clears them; Marked matches packets that have any.
func SetMark(bits uint32) Rule   { return mark(^bits, bits) }
func ClearMark(bits uint32) Rule { return mark(^bits, 0) }

func mark(mask, xor uint32) Rule {
	return Rule{&expr.Meta{Key: expr.MetaKeyMARK, Register: W0},
		&expr.Bitwise{SourceRegister: W0, DestRegister: W0, Len: 4, Mask: Word(mask), Xor: Word(xor)},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: W0, SourceRegister: true}}
}

func Marked(bits uint32) Rule {
	return Rule{&expr.Meta{Key: expr.MetaKeyMARK, Register: W0},
		&expr.Bitwise{SourceRegister: W0, DestRegister: W0, Len: 4, Mask: Word(bits), Xor: Word(0)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: W0, Data: Word(0)}}
}

// Goto and Drop are verdicts.
func Goto(chain string) *expr.Verdict { return &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain} }
func Drop() *expr.Verdict             { return &expr.Verdict{Kind: expr.VerdictDrop} }

// Word is a number as registers hold it.
func Word(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

// Key puts the parts of a concatenation together: netip.Addr, uint8 (a protocol) and uint16 (a port), each padded to a
// word.
func Key(parts ...any) []byte {
	out := make([]byte, 0, 4*len(parts))
	for _, p := range parts {
		switch v := p.(type) {
		case netip.Addr:
			out = append(out, v.AsSlice()...)
		case uint8:
			out = append(out, v, 0, 0, 0)
		case uint16:
			out = append(out, byte(v>>8), byte(v), 0, 0)
		default:
			panic("nft: no such part of a key")
		}
	}
	return out
}

// Conn opens a connection for one transaction, with buffers for a big one.
func Conn() (*nftables.Conn, error) {
	return nftables.New(nftables.WithSockOptions(func(c *netlink.Conn) error {
		const buffer = 32 << 20 // bytes; the kernel takes what it needs
		return errors.Join(c.SetWriteBuffer(buffer), c.SetReadBuffer(buffer))
	}))
}

// NumberSets gives sets their numbers within a transaction. The library would take them from a variable of the whole
// process, unguarded, and two components may be at work at once.
type NumberSets struct{ last uint32 }

// Add adds a set, without elements.
func (n *NumberSets) Add(c *nftables.Conn, s *nftables.Set) error {
	n.last++
	s.ID = n.last
	return c.AddSet(s, nil)
}

// HasTable reports whether the IPv4 table is there.
func HasTable(name string) (bool, error) {
	c, err := Conn()
	if err != nil {
		return false, err
	}
	t, err := c.ListTableOfFamily(name, nftables.TableFamilyIPv4)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return t != nil, err
}

// DropTable removes the IPv4 table and everything in it; one that is not there is no error.
func DropTable(name string) error {
	c, err := Conn()
	if err != nil {
		return err
	}
	t := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: name}
	c.AddTable(t) // so that there is one to delete, in the same transaction
	c.DelTable(t)
	return c.Flush()
}

// ChunkElements calls f with at most as many elements as fit one netlink attribute.
func ChunkElements(all []nftables.SetElement, f func([]nftables.SetElement) error) error {
	for chunk := range slices.Chunk(all, 256) {
		if err := f(chunk); err != nil {
			return err
		}
	}
	return nil
}
