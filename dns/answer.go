package dns

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	mdns "github.com/miekg/dns"
)

// ttl of all records of the zone, in seconds.
const ttl = 5

// specification is the version of the DNS schema that the zone follows.
const specification = "1.1.0"

// answer is the zone's answer to one question, or ours=false for a name that is not the cluster's. An ExternalName
// service's answer is a CNAME whose target the caller may resolve further.
func (z *zone) answer(q mdns.Question) (rcode int, records, extra []mdns.RR, ours bool) {
	name := strings.ToLower(q.Name)
	if addr, ok := reverseAddr(name); ok {
		target, ok := z.nameOf(addr)
		if !ok {
			return 0, nil, nil, false
		}
		if q.Qtype != mdns.TypePTR && q.Qtype != mdns.TypeANY {
			return mdns.RcodeSuccess, nil, nil, true
		}
		return mdns.RcodeSuccess, []mdns.RR{&mdns.PTR{Hdr: header(q.Name, mdns.TypePTR), Ptr: target}}, nil, true
	}
	if name == z.domain {
		return mdns.RcodeSuccess, z.apex(q), nil, true
	}
	rest, ok := strings.CutSuffix(name, "."+z.domain)
	if !ok {
		return 0, nil, nil, false
	}
	labels := strings.Split(rest, ".")
	switch last := len(labels) - 1; {
	case rest == "dns-version":
		return z.version(q)
	case labels[last] == "svc":
		rcode, records, extra = z.serviceNames(q, labels[:last])
	case labels[last] == "pod":
		rcode, records = z.pod(q, labels[:last])
	default:
		rcode = mdns.RcodeNameError
	}
	return rcode, records, extra, true
}

func header(name string, rrtype uint16) mdns.RR_Header {
	return mdns.RR_Header{Name: name, Rrtype: rrtype, Class: mdns.ClassINET, Ttl: ttl}
}

// address makes the A or AAAA record of an address if that is what was asked for.
func address(q mdns.Question, owner string, a netip.Addr) (mdns.RR, bool) {
	switch {
	case a.Is4() && (q.Qtype == mdns.TypeA || q.Qtype == mdns.TypeANY || q.Qtype == mdns.TypeSRV):
		return &mdns.A{Hdr: header(owner, mdns.TypeA), A: net.IP(a.AsSlice())}, true
	case a.Is6() && (q.Qtype == mdns.TypeAAAA || q.Qtype == mdns.TypeANY || q.Qtype == mdns.TypeSRV):
		return &mdns.AAAA{Hdr: header(owner, mdns.TypeAAAA), AAAA: net.IP(a.AsSlice())}, true
	}
	return nil, false
}

func (z *zone) version(q mdns.Question) (int, []mdns.RR, []mdns.RR, bool) {
	if q.Qtype != mdns.TypeTXT && q.Qtype != mdns.TypeANY {
		return mdns.RcodeSuccess, nil, nil, true
	}
	return mdns.RcodeSuccess, []mdns.RR{&mdns.TXT{Hdr: header(q.Name, mdns.TypeTXT), Txt: []string{specification}}}, nil, true
}

func (z *zone) apex(q mdns.Question) []mdns.RR {
	switch q.Qtype {
	case mdns.TypeSOA:
		return []mdns.RR{z.soa()}
	case mdns.TypeNS:
		return []mdns.RR{&mdns.NS{Hdr: header(z.domain, mdns.TypeNS), Ns: "ns.dns." + z.domain}}
	}
	return nil
}

// soa goes with every answer that has no records, so that resolvers may remember it for a while.
func (z *zone) soa() mdns.RR {
	return &mdns.SOA{Hdr: header(z.domain, mdns.TypeSOA), Ns: "ns.dns." + z.domain, Mbox: "hostmaster." + z.domain,
		Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: ttl}
}

// serviceNames answers for names below svc: [host.]service.namespace and _port._protocol.service.namespace.
func (z *zone) serviceNames(q mdns.Question, labels []string) (rcode int, records, extra []mdns.RR) {
	n := len(labels)
	switch {
	case n == 0:
		return mdns.RcodeSuccess, nil, nil
	case n == 1:
		if z.namespaceExists(labels[0]) {
			return mdns.RcodeSuccess, nil, nil
		}
		return mdns.RcodeNameError, nil, nil
	case n > 4:
		return mdns.RcodeNameError, nil, nil
	}
	e, ok := z.service(labels[n-2], labels[n-1])
	if !ok {
		return mdns.RcodeNameError, nil, nil
	}
	if e.external != "" {
		if n != 2 {
			return mdns.RcodeNameError, nil, nil
		}
		return mdns.RcodeSuccess, []mdns.RR{&mdns.CNAME{Hdr: header(q.Name, mdns.TypeCNAME), Target: e.external}}, nil
	}
	switch {
	case n == 4 || n == 3 && strings.HasPrefix(labels[0], "_"):
		if n != 4 {
			return mdns.RcodeNameError, nil, nil
		}
		return srv(q, e, strings.TrimPrefix(labels[0], "_"), strings.TrimPrefix(labels[1], "_"))
	case n == 3:
		return endpointNames(q, e, labels[0])
	}
	if q.Qtype == mdns.TypeSRV {
		return srv(q, e, "", "")
	}
	if e.headless && len(e.addrs) == 0 {
		return mdns.RcodeNameError, nil, nil
	}
	for _, a := range e.addrs {
		if rr, ok := address(q, q.Name, a); ok {
			records = append(records, rr)
		}
	}
	return mdns.RcodeSuccess, records, nil
}

// endpointNames answers for the name of one endpoint of a headless service.
func endpointNames(q mdns.Question, e *entry, host string) (int, []mdns.RR, []mdns.RR) {
	var records []mdns.RR
	found := false
	for _, ep := range e.endpoints {
		if ep.hostname == host {
			found = true
			if rr, ok := address(q, q.Name, ep.addr); ok && q.Qtype != mdns.TypeSRV {
				records = append(records, rr)
			}
		}
	}
	if !found {
		return mdns.RcodeNameError, nil, nil
	}
	return mdns.RcodeSuccess, records, nil
}

// srv answers for the ports of a service that have the name and protocol (both empty: all ports).
func srv(q mdns.Question, e *entry, name, protocol string) (rcode int, records, extra []mdns.RR) {
	rcode = mdns.RcodeNameError
	for _, p := range e.ports {
		if all := name == "" && protocol == ""; !all && (p.name != name || p.protocol != protocol || name == "") {
			continue
		}
		rcode = mdns.RcodeSuccess
		if q.Qtype != mdns.TypeSRV && q.Qtype != mdns.TypeANY {
			continue
		}
		rr := &mdns.SRV{Hdr: header(q.Name, mdns.TypeSRV), Port: p.number, Target: p.target}
		// Endpoints may share a name; they stand beside each other, and only their addresses differ.
		if last := len(records) - 1; last < 0 || !mdns.IsDuplicate(records[last], rr) {
			records = append(records, rr)
		}
		if rr, ok := address(q, p.target, p.addr); ok {
			extra = append(extra, rr)
		}
	}
	for _, rr := range records {
		rr.(*mdns.SRV).Weight = uint16(max(1, 100/len(records)))
	}
	return rcode, records, extra
}

// pod answers for 1-2-3-4.namespace.pod with that address: it says nothing about whether there is such a pod.
func (z *zone) pod(q mdns.Question, labels []string) (int, []mdns.RR) {
	switch {
	case len(labels) == 0 || len(labels) == 1 && z.namespaceExists(labels[0]):
		return mdns.RcodeSuccess, nil
	case len(labels) != 2:
		return mdns.RcodeNameError, nil
	}
	text := strings.ReplaceAll(labels[0], "-", ".")
	a, err := netip.ParseAddr(text)
	if err != nil {
		if a, err = netip.ParseAddr(strings.ReplaceAll(labels[0], "-", ":")); err != nil {
			return mdns.RcodeNameError, nil
		}
	}
	if q.Qtype == mdns.TypeSRV {
		return mdns.RcodeSuccess, nil
	}
	if rr, ok := address(q, q.Name, a); ok {
		return mdns.RcodeSuccess, []mdns.RR{rr}
	}
	return mdns.RcodeSuccess, nil
}

// reverseAddr reads the address of a name under in-addr.arpa or ip6.arpa.
func reverseAddr(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa."); ok {
		labels := strings.Split(rest, ".")
		slices.Reverse(labels)
		a, err := netip.ParseAddr(strings.Join(labels, "."))
		return a, err == nil && a.Is4()
	}
	if rest, ok := strings.CutSuffix(name, ".ip6.arpa."); ok {
		labels := strings.Split(rest, ".")
		slices.Reverse(labels)
		if len(labels) != 32 {
			return netip.Addr{}, false
		}
		var b strings.Builder
		for i, l := range labels {
			if i > 0 && i%4 == 0 {
				b.WriteByte(':')
			}
			b.WriteString(l)
		}
		a, err := netip.ParseAddr(b.String())
		return a, err == nil
	}
	return netip.Addr{}, false
}
