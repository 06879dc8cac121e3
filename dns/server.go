package dns

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	mdns "github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-sh/skiff/client"
)

// Config is what a Server needs. Fields without a default are required.
type Config struct {
	Client    client.Interface
	Caches    *client.Caches
	NodeName  string
	Domain    string     // default "cluster.local"
	ServiceIP netip.Addr // the cluster address that pods ask

	ResolvConf string        // of the servers that everything else is forwarded to; default /etc/resolv.conf
	Timeout    time.Duration // of one forwarded question; default 2 s
	Log        *slog.Logger
}

func (c *Config) validate() error {
	if c.Client == nil || c.Caches == nil || c.NodeName == "" || !c.ServiceIP.IsValid() {
		return errors.New("dns: Config needs Client, Caches, NodeName and ServiceIP")
	}
	if c.Domain == "" {
		c.Domain = "cluster.local"
	}
	if c.ResolvConf == "" {
		c.ResolvConf = "/etc/resolv.conf"
	}
	if c.Timeout == 0 {
		c.Timeout = 2 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Server answers the names of the cluster on one node. Make one with New.
type Server struct {
	cfg     Config
	zone    *zone
	forward *forwarder
	touched chan struct{} // what is published was changed by somebody
	nodes   *client.Cache[*corev1.Node]
	svcs    *client.Cache[*corev1.Service]
	slices  *client.Cache[*discoveryv1.EndpointSlice]
}

// New checks the configuration and asks for the caches that a Server reads.
func New(cfg Config) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, zone: newZone(cfg.Domain), touched: make(chan struct{}, 1),
		forward: &forwarder{servers: nameServers(cfg.ResolvConf, cfg.ServiceIP.String()), timeout: cfg.Timeout, cache: map[mdns.Question]remembered{}},
		nodes:   client.CacheOf[*corev1.Node](cfg.Caches, client.Fields("metadata.name="+cfg.NodeName)),
		svcs:    client.CacheOf[*corev1.Service](cfg.Caches), slices: client.CacheOf[*discoveryv1.EndpointSlice](cfg.Caches)}, nil
}

// Run answers until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	defer s.svcs.Subscribe(func(e client.Event[*corev1.Service]) {
		s.zone.setService(e.Old, e.New)
		if e.Old != nil && e.Old.Name == ServiceName && e.Old.Namespace == metav1.NamespaceSystem {
			poke(s.touched)
		}
	})()
	defer s.slices.Subscribe(func(e client.Event[*discoveryv1.EndpointSlice]) {
		s.zone.setSlice(e.Old, e.New)
		if e.Old != nil && e.Old.Name == s.sliceName() && e.Old.Namespace == metav1.NamespaceSystem {
			poke(s.touched)
		}
	})()
	changed := make(chan struct{}, 1)
	defer s.nodes.Subscribe(func(client.Event[*corev1.Node]) { poke(changed) })()
	if err := s.cfg.Caches.Sync(ctx); err != nil {
		return nil
	}
	var group sync.WaitGroup
	defer group.Wait()
	var at netip.Addr
	stop := func() {}
	defer func() { stop() }()
	for {
		if addr, ok := s.address(); ok && addr != at {
			stop()
			at = addr
			serving, cancel := context.WithCancel(ctx)
			stop = cancel
			group.Go(func() { s.serve(serving, addr) })
			group.Go(func() { s.publish(serving, addr) })
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// address is the first of the node's range of pod addresses, which its bridge has.
func (s *Server) address() (netip.Addr, bool) {
	node, ok := s.nodes.Get("", s.cfg.NodeName)
	if !ok {
		return netip.Addr{}, false
	}
	prefix, err := netip.ParsePrefix(node.Spec.PodCIDR)
	return prefix.Masked().Addr().Next(), err == nil
}

// serve listens until ctx ends; as long as the bridge has no address yet, it tries again.
func (s *Server) serve(ctx context.Context, addr netip.Addr) {
	delay := 20 * time.Millisecond
	for ctx.Err() == nil {
		err := s.listen(ctx, netip.AddrPortFrom(addr, 53).String())
		if ctx.Err() != nil {
			return
		}
		if delay > time.Second {
			s.cfg.Log.Warn("the name server cannot listen; it is tried again", "address", addr, "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(delay):
		}
		delay = min(2*delay, 10*time.Second)
	}
}

func (s *Server) listen(ctx context.Context, addr string) error {
	packets, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	defer packets.Close()
	streams, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	defer streams.Close()
	handler := mdns.HandlerFunc(func(w mdns.ResponseWriter, req *mdns.Msg) { s.handle(ctx, w, req) })
	udp := &mdns.Server{PacketConn: packets, Handler: handler}
	tcp := &mdns.Server{Listener: streams, Handler: handler, IdleTimeout: func() time.Duration { return 10 * time.Second }}
	ended := make(chan error, 2)
	go func() { ended <- udp.ActivateAndServe() }()
	go func() { ended <- tcp.ActivateAndServe() }()
	select {
	case <-ctx.Done():
		err = nil
	case err = <-ended:
	}
	_ = udp.Shutdown()
	_ = tcp.Shutdown()
	return err
}

func (s *Server) handle(ctx context.Context, w mdns.ResponseWriter, req *mdns.Msg) {
	if req.Response {
		return // answering an answer may go round and round
	}
	m := s.Answer(ctx, req)
	if _, packets := w.RemoteAddr().(*net.UDPAddr); packets {
		size := mdns.MinMsgSize
		if o := req.IsEdns0(); o != nil {
			size = max(size, int(o.UDPSize()))
		}
		m.Truncate(size)
	}
	_ = w.WriteMsg(m) // the asker asks again
}

// Answer makes the answer to a request of any kind, also a malformed one.
func (s *Server) Answer(ctx context.Context, req *mdns.Msg) *mdns.Msg {
	m := new(mdns.Msg)
	m.SetReply(req)
	m.RecursionAvailable = true
	switch {
	case req.Opcode != mdns.OpcodeQuery:
		m.Rcode = mdns.RcodeNotImplemented
		return m
	case len(req.Question) != 1:
		m.Rcode = mdns.RcodeFormatError
		return m
	case req.Question[0].Qclass != mdns.ClassINET:
		m.Rcode = mdns.RcodeRefused
		return m
	}
	rcode, records, extra, ours := s.zone.answer(req.Question[0])
	if !ours {
		return s.forwarded(ctx, req, m)
	}
	m.Authoritative, m.Rcode, m.Answer, m.Extra = true, rcode, records, extra
	if len(records) == 0 {
		m.Ns = []mdns.RR{s.zone.soa()}
	}
	// Many programs take the first address that they get: every answer begins with another.
	if len(m.Answer) > 1 {
		rand.Shuffle(len(m.Answer), func(i, j int) { m.Answer[i], m.Answer[j] = m.Answer[j], m.Answer[i] })
	}
	s.follow(ctx, req, m)
	if o := req.IsEdns0(); o != nil {
		m.SetEdns0(4096, o.Do())
	}
	return m
}

// maxAliases is how many ExternalName services may stand for each other in a row.
const maxAliases = 8

// follow resolves the name that an ExternalName service stands for.
func (s *Server) follow(ctx context.Context, req, m *mdns.Msg) {
	if len(m.Answer) != 1 || req.Question[0].Qtype == mdns.TypeCNAME {
		return
	}
	q := mdns.Question{Qtype: req.Question[0].Qtype, Qclass: mdns.ClassINET}
	for n := 0; ; n++ {
		alias, ok := m.Answer[len(m.Answer)-1].(*mdns.CNAME)
		if !ok {
			return
		}
		q.Name = alias.Target
		_, records, _, ours := s.zone.answer(q)
		if !ours {
			break
		}
		if len(records) == 0 || n == maxAliases {
			return
		}
		m.Answer = append(m.Answer, records...)
	}
	ask := new(mdns.Msg)
	ask.SetQuestion(q.Name, q.Qtype)
	if r, err := s.forward.resolve(ctx, ask, time.Now()); err == nil {
		m.Answer = append(m.Answer, r.Answer...)
	}
}

func (s *Server) forwarded(ctx context.Context, req, m *mdns.Msg) *mdns.Msg {
	r, err := s.forward.resolve(ctx, req, time.Now())
	if err != nil {
		m.Rcode = mdns.RcodeServerFailure
		if strings.HasSuffix(strings.ToLower(req.Question[0].Name), ".arpa.") {
			m.Rcode = mdns.RcodeNameError // so that programs that log peers' names do not wait
		}
		return m
	}
	if o := req.IsEdns0(); o != nil {
		r.SetEdns0(4096, o.Do())
	}
	return r
}
