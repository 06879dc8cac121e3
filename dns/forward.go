package dns

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	mdns "github.com/miekg/dns"
)

// forwarder asks the node's own name servers, and remembers their answers.
type forwarder struct {
	servers []string // "10.0.0.1:53"
	timeout time.Duration

	mu    sync.Mutex
	cache map[mdns.Question]remembered
}

type remembered struct {
	msg   *mdns.Msg
	until time.Time
}

const (
	maxRemembered  = 4096
	maxRememberFor = 30 * time.Second
)

var errNoServers = errors.New("the node's resolv.conf names no usable name server")

// nameServers reads the servers of a resolv.conf. Own addresses are left out: asking them would come back here.
func nameServers(file string, own ...string) []string {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	var out []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		skip := false
		for _, o := range own {
			skip = skip || fields[1] == o
		}
		if !skip {
			out = append(out, net.JoinHostPort(fields[1], "53"))
		}
	}
	return out
}

// resolve asks the servers in turn. The answer is the caller's own, and has no EDNS record: that is between neighbours
// (RFC 6891).
func (f *forwarder) resolve(ctx context.Context, req *mdns.Msg, now time.Time) (*mdns.Msg, error) {
	if len(f.servers) == 0 {
		return nil, errNoServers
	}
	q := req.Question[0]
	q.Name = strings.ToLower(q.Name)
	// What is remembered has no signatures.
	plain := req.IsEdns0() == nil || !req.IsEdns0().Do()
	f.mu.Lock()
	hit, ok := f.cache[q]
	f.mu.Unlock()
	if ok && plain && now.Before(hit.until) {
		m := hit.msg.Copy()
		m.Id = req.Id
		m.Question = req.Question
		return m, nil
	}
	var last error
	for _, server := range f.servers {
		m, err := f.ask(ctx, server, req)
		if err != nil {
			last = err
			continue
		}
		m.Extra = slices.DeleteFunc(m.Extra, func(rr mdns.RR) bool { return rr.Header().Rrtype == mdns.TypeOPT })
		if plain {
			f.remember(q, m, now)
		}
		return m, nil
	}
	return nil, last
}

func (f *forwarder) ask(ctx context.Context, server string, req *mdns.Msg) (*mdns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	out := req.Copy()
	out.Id = mdns.Id()
	m, _, err := (&mdns.Client{Net: "udp", UDPSize: 4096}).ExchangeContext(ctx, out, server)
	if err == nil && m.Truncated {
		m, _, err = (&mdns.Client{Net: "tcp"}).ExchangeContext(ctx, out, server)
	}
	if err != nil {
		return nil, err
	}
	m.Id = req.Id
	return m, nil
}

func (f *forwarder) remember(q mdns.Question, m *mdns.Msg, now time.Time) {
	if m.Rcode != mdns.RcodeSuccess && m.Rcode != mdns.RcodeNameError {
		return
	}
	life := maxRememberFor
	for _, rr := range append(append([]mdns.RR{}, m.Answer...), m.Ns...) {
		life = min(life, time.Duration(rr.Header().Ttl)*time.Second)
	}
	if len(m.Answer)+len(m.Ns) == 0 || life == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.cache) >= maxRemembered {
		clear(f.cache) // rare, and cheaper than keeping an order
	}
	f.cache[q] = remembered{m.Copy(), now.Add(life)}
}
