package dns

import (
	"net"
	"sync/atomic"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
)

// fakeUpstream is a name server that answers by UDP and TCP as handle says, and counts what it is asked.
func fakeUpstream(t *testing.T, handle func(r, m *mdns.Msg, tcp bool)) (addr string, asked *atomic.Int32) {
	t.Helper()
	asked = &atomic.Int32{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*mdns.Server{{Listener: l}, {PacketConn: p}} {
		s.Handler = mdns.HandlerFunc(func(w mdns.ResponseWriter, r *mdns.Msg) {
			asked.Add(1)
			m := new(mdns.Msg)
			m.SetReply(r)
			if o := r.IsEdns0(); o != nil {
				m.SetEdns0(1232, o.Do())
			}
			handle(r, m, s.Listener != nil)
			_ = w.WriteMsg(m)
		})
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { _ = s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return l.Addr().String(), asked
}

func TestForwarder(t *testing.T) {
	ttl := uint32(20)
	addr, asked := fakeUpstream(t, func(r, m *mdns.Msg, tcp bool) {
		switch r.Question[0].Name {
		case "big.example.":
			if !tcp {
				m.Truncated = true
				return
			}
		case "gone.example.":
			m.Rcode = mdns.RcodeNameError
			return
		}
		m.Answer = append(m.Answer, &mdns.A{Hdr: mdns.RR_Header{Name: r.Question[0].Name, Rrtype: mdns.TypeA, Class: mdns.ClassINET, Ttl: ttl}, A: []byte{198, 51, 100, 7}})
	})
	dead, err := net.ListenPacket("udp", "127.0.0.1:0") // takes questions and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer dead.Close()
	s := &Server{zone: newZone("cluster.local"), forward: &forwarder{servers: []string{dead.LocalAddr().String(), addr},
		timeout: 50 * time.Millisecond, cache: map[mdns.Question]remembered{}}}
	now := time.Now()
	for _, step := range []struct {
		what, name string
		edns, do   bool
		after      time.Duration
		want       string
		asked      int32
	}{
		{"the second server, when the first is silent", "a.example.", true, false, 0, "NOERROR, A 198.51.100.7", 1},
		{"from memory, also for one without EDNS", "A.example.", false, false, 10 * time.Second, "NOERROR, A 198.51.100.7", 0},
		{"with signatures nothing is remembered", "a.example.", true, true, 0, "NOERROR, A 198.51.100.7", 1},
		{"asked again when it is too old", "a.example.", false, false, 21 * time.Second, "NOERROR, A 198.51.100.7", 1},
		{"by TCP when UDP has no room", "big.example.", false, false, 0, "NOERROR, A 198.51.100.7", 2},
		{"a name that does not exist", "gone.example.", false, false, 0, "NXDOMAIN", 1},
	} {
		asked.Store(0)
		req := new(mdns.Msg)
		req.SetQuestion(step.name, mdns.TypeA)
		if step.edns {
			req.SetEdns0(4096, step.do)
		}
		r, err := s.forward.resolve(t.Context(), req, now.Add(step.after))
		if err != nil {
			t.Errorf("%s: %v", step.what, err)
			continue
		}
		if got := render(r.Rcode, r.Answer, r.Extra); got != step.want || r.Id != req.Id || r.Question[0] != req.Question[0] {
			t.Errorf("%s: got %s to %v, want %s", step.what, got, r.Question, step.want)
		}
		if n := asked.Load(); n != step.asked {
			t.Errorf("%s: the server was asked %d times, not %d", step.what, n, step.asked)
		}
		if whole := s.Answer(t.Context(), req); (whole.IsEdns0() != nil) != step.edns {
			t.Errorf("%s: EDNS must be in the answer if it is in the question: %v", step.what, whole)
		}
	}
	s.forward.servers = s.forward.servers[:1]
	for name, want := range map[string]int{"b.example.": mdns.RcodeServerFailure, "9.2.0.192.in-addr.arpa.": mdns.RcodeNameError} {
		req := new(mdns.Msg)
		req.SetQuestion(name, mdns.TypeA)
		if r := s.Answer(t.Context(), req); r.Rcode != want {
			t.Errorf("%s with no server that answers: %s", name, mdns.RcodeToString[r.Rcode])
		}
	}
}
