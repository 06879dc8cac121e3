package proxy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// protocol is an IP protocol number.
type protocol = uint8

const (
	tcp  protocol = 6
	udp  protocol = 17
	sctp protocol = 132
)

// front is where a service is reached: an address and port, or for addr the zero value a port of the node itself.
type front struct {
	addr     netip.Addr
	protocol protocol
	port     uint16
}

// backend is an endpoint's address and port.
type backend = netip.AddrPort

// source says whose address the backend sees.
type source string

const (
	keep    source = ""                   // the client's
	outside source = "masquerade outside" // this node's, if the client is no pod
	always  source = "masquerade"         // this node's
)

// chain spreads connections over backends. Without backends it drops them.
type chain struct {
	source   source
	allow    []netip.Prefix // if any: clients from elsewhere are dropped
	insiders string         // the chain that clients in the cluster take instead; "" for this one
	backends []backend      // in the order of their numbers
	affinity time.Duration  // a client stays with its backend for this long after its last connection; 0: it does not
}

// reject is the chain name of fronts where nobody answers.
const reject = "reject"

// rules are what one service adds to the table.
type rules struct {
	fronts map[front]string // the chain, or reject
	chains map[string]chain
	addrs  map[addrIn]bool
	health map[uint16]health // by port
}

// addrIn is an address in one of the table's sets of addresses, hairpins or virtual.
type addrIn struct {
	set  string
	addr netip.Addr
}

// health is the answer to a load balancer that asks whether this node has backends of a service.
type health struct {
	namespace, name string
	local           int
}

// state is all that the table holds, by its parts. Fronts that several services claim go to the first by name.
type state struct {
	fronts map[front]string
	chains map[string]chain
	addrs  map[addrIn]int // how many services have it
}

func newState() *state {
	return &state{map[front]string{}, map[string]chain{}, map[addrIn]int{}}
}

// ruleSet is the rules of all services, and the state that they add up to.
type ruleSet struct {
	services map[string]rules // by "namespace/name"
	claims   map[front][]string
	state    *state
}

func newRuleSet() *ruleSet {
	return &ruleSet{map[string]rules{}, map[front][]string{}, newState()}
}

// change is what must be done to one state to get another. A chain without a before is new; without an after it goes.
type change struct {
	fronts map[front][2]string // from, to; "" for none
	chains map[string][2]*chain
	addrs  map[addrIn]bool // to be there or not
}

// set replaces the rules of one service (the zero value: none) and adds what that changes to c.
func (s *ruleSet) set(service string, new rules, c *change) {
	old := s.services[service]
	if s.services[service] = new; len(new.fronts) == 0 && len(new.chains) == 0 {
		delete(s.services, service)
	}
	for name, ch := range new.chains {
		if before, ok := s.state.chains[name]; ok {
			ch.backends = arrange(before.backends, ch.backends)
		}
		s.setChain(name, &ch, c)
	}
	for name := range old.chains {
		if _, ok := new.chains[name]; !ok {
			s.setChain(name, nil, c)
		}
	}
	for f := range old.fronts {
		if _, ok := new.fronts[f]; !ok {
			s.claims[f] = slices.DeleteFunc(slices.Clone(s.claims[f]), func(who string) bool { return who == service })
			s.setFront(f, c)
		}
	}
	for f := range new.fronts {
		if !slices.Contains(s.claims[f], service) {
			s.claims[f] = append(slices.Clone(s.claims[f]), service)
			slices.Sort(s.claims[f])
		}
		s.setFront(f, c)
	}
	for a := range old.addrs {
		if s.state.addrs[a]--; s.state.addrs[a] == 0 {
			delete(s.state.addrs, a)
			c.setAddr(a, false)
		}
	}
	for a := range new.addrs {
		if s.state.addrs[a]++; s.state.addrs[a] == 1 {
			c.setAddr(a, true)
		}
	}
}

// setAddr notes that an address comes or goes; both together are no change.
func (c *change) setAddr(a addrIn, there bool) {
	if before, ok := c.addrs[a]; ok && before != there {
		delete(c.addrs, a)
		return
	}
	c.addrs[a] = there
}

func newChange() *change {
	return &change{map[front][2]string{}, map[string][2]*chain{}, map[addrIn]bool{}}
}

func (c *change) empty() bool { return len(c.fronts)+len(c.chains)+len(c.addrs) == 0 }

func (s *ruleSet) setChain(name string, to *chain, c *change) {
	var from *chain
	if before, ok := s.state.chains[name]; ok {
		from = &before
	}
	if to == nil {
		delete(s.state.chains, name)
	} else {
		s.state.chains[name] = *to
	}
	if known, ok := c.chains[name]; ok {
		from = known[0]
	}
	if c.chains[name] = [2]*chain{from, to}; same(from, to) {
		delete(c.chains, name)
	}
}

func same(a, b *chain) bool {
	return a == b || a != nil && b != nil && a.source == b.source && a.insiders == b.insiders && a.affinity == b.affinity &&
		slices.Equal(a.allow, b.allow) && slices.Equal(a.backends, b.backends)
}

// setFront gives a front to the first of the services that claim it.
func (s *ruleSet) setFront(f front, c *change) {
	from, to := s.state.fronts[f], ""
	if who := s.claims[f]; len(who) > 0 {
		to = s.services[who[0]].fronts[f]
		s.state.fronts[f] = to
	} else {
		delete(s.claims, f)
		delete(s.state.fronts, f)
	}
	if known, ok := c.fronts[f]; ok {
		from = known[0]
	}
	if c.fronts[f] = [2]string{from, to}; from == to {
		delete(c.fronts, f)
	}
}

// arrange orders the wanted backends so that as many as possible keep their number: those that are gone are replaced by
// new ones, or else by the last.
func arrange(before, want []backend) []backend {
	wanted := make(map[backend]bool, len(want))
	for _, b := range want {
		wanted[b] = true
	}
	out := slices.Clone(before)
	for _, b := range out {
		delete(wanted, b) // what is left is new
	}
	var fresh []backend
	for _, b := range want { // in want's order, which is fixed
		if wanted[b] {
			fresh = append(fresh, b)
		}
	}
	stays := make(map[backend]bool, len(want))
	for _, b := range want {
		stays[b] = true
	}
	for i := 0; i < len(out); {
		switch last := len(out) - 1; {
		case stays[out[i]]:
			i++
		case len(fresh) > 0:
			out[i], fresh = fresh[0], fresh[1:]
		default:
			out[i] = out[last]
			out = out[:last]
		}
	}
	return append(out, fresh...)
}

// whole is the change from nothing to the state.
func (s *state) whole() *change {
	c := newChange()
	for f, name := range s.fronts {
		c.fronts[f] = [2]string{"", name}
	}
	for name, ch := range s.chains {
		c.chains[name] = [2]*chain{nil, &ch}
	}
	for a := range s.addrs {
		c.addrs[a] = true
	}
	return c
}

func (f front) String() string {
	name := map[protocol]string{tcp: "tcp", udp: "udp", sctp: "sctp"}[f.protocol]
	if !f.addr.IsValid() {
		return fmt.Sprintf("node:%d/%s", f.port, name)
	}
	return fmt.Sprintf("%s:%d/%s", f.addr, f.port, name)
}

// String renders the state for people and tests, one thing a line, in a fixed order; backends are sorted.
func (s *state) String() string {
	var lines []string
	for f, c := range s.fronts {
		lines = append(lines, fmt.Sprintf("%s -> %s", f, c))
	}
	for name, c := range s.chains {
		lines = append(lines, "chain "+name+c.String())
	}
	for a := range s.addrs {
		lines = append(lines, a.set+" "+a.addr.String())
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

func (c *chain) String() string {
	var b strings.Builder
	if len(c.allow) > 0 {
		fmt.Fprintf(&b, ", allow %v", c.allow)
	}
	if c.insiders != "" {
		fmt.Fprintf(&b, ", insiders %s", c.insiders)
	}
	if c.source != keep {
		fmt.Fprintf(&b, ", %s", c.source)
	}
	if c.affinity > 0 {
		fmt.Fprintf(&b, ", affinity %v", c.affinity)
	}
	sorted := slices.SortedFunc(slices.Values(c.backends), backend.Compare)
	fmt.Fprintf(&b, ": %v", sorted)
	return b.String()
}
