package proxy

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/internal/nft"
)

// Proxy keeps the rules of one node. Make one with New.
type Proxy struct {
	cfg      Config
	services *client.Cache[*corev1.Service]
	slices   *client.Cache[*discoveryv1.EndpointSlice]
	nodes    *client.Cache[*corev1.Node]

	table  table
	rules  *ruleSet
	health *healthServers
	intact bool // the kernel's table is what rules say

	mu    sync.Mutex
	dirty map[key]bool // services to compile again
	wake  chan struct{}
}

// byService is the index of slices by the service that they belong to.
const byService = "service"

// New checks the configuration and asks for the caches that a Proxy reads.
func New(cfg Config) (*Proxy, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	p := &Proxy{cfg: cfg, table: table{cfg.Table, cfg.ClusterCIDR.Masked()}, rules: newRuleSet(), health: newHealthServers(cfg.Log),
		dirty: map[key]bool{}, wake: make(chan struct{}, 1), services: client.CacheOf[*corev1.Service](cfg.Caches),
		slices: client.CacheOf[*discoveryv1.EndpointSlice](cfg.Caches),
		nodes:  client.CacheOf[*corev1.Node](cfg.Caches, client.Fields("metadata.name="+cfg.NodeName))}
	p.slices.AddIndex(byService, func(s *discoveryv1.EndpointSlice) []string { return []string{serviceOf(s).String()} })
	return p, nil
}

// key names a service.
type key struct{ namespace, name string }

func (k key) String() string { return k.namespace + "/" + k.name }

func serviceOf(s *discoveryv1.EndpointSlice) key {
	return key{s.Namespace, s.Labels[discoveryv1.LabelServiceName]}
}

func (p *Proxy) changed(keys ...key) {
	p.mu.Lock()
	for _, k := range keys {
		p.dirty[k] = true
	}
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *Proxy) take() map[key]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.dirty
	p.dirty = map[key]bool{}
	return out
}

const (
	join  = 10 * time.Millisecond // how long changes are gathered, so that a burst costs few transactions
	check = time.Minute           // how often the table is looked for, in case somebody removed it
)

// Run keeps the rules until ctx ends. They stay then: connections go on.
func (p *Proxy) Run(ctx context.Context) error {
	defer p.health.close()
	defer p.subscribe()()
	if err := p.cfg.Caches.Sync(ctx); err != nil {
		return nil
	}
	p.changed()
	timer := time.NewTimer(check)
	defer timer.Stop()
	delay := 100 * time.Millisecond
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(join):
			}
		case <-timer.C:
			there, err := nft.HasTable(p.cfg.Table)
			p.intact = p.intact && there && err == nil
		}
		timer.Reset(check)
		if err := p.sync(ctx, p.take()); err != nil {
			p.cfg.Log.Error("the service rules cannot be written; they are tried again", "error", err, "after", delay)
			timer.Reset(delay)
			delay = min(2*delay, 30*time.Second)
			continue
		}
		delay = 100 * time.Millisecond
	}
}

func (p *Proxy) subscribe() (cancel func()) {
	a := p.services.Subscribe(func(e client.Event[*corev1.Service]) {
		for _, s := range []*corev1.Service{e.Old, e.New} {
			if s != nil {
				p.changed(key{s.Namespace, s.Name})
			}
		}
	})
	b := p.slices.Subscribe(func(e client.Event[*discoveryv1.EndpointSlice]) {
		for _, s := range []*discoveryv1.EndpointSlice{e.Old, e.New} {
			if s != nil {
				p.changed(serviceOf(s))
			}
		}
	})
	c := p.nodes.Subscribe(func(e client.Event[*corev1.Node]) {
		if zone(e.Old) == zone(e.New) {
			return
		}
		for _, s := range p.services.List("") {
			p.changed(key{s.Namespace, s.Name})
		}
	})
	return func() { a(); b(); c() }
}

func zone(n *corev1.Node) string {
	if n == nil {
		return ""
	}
	return n.Labels[corev1.LabelTopologyZone]
}

// sync compiles the services anew and applies what that changes.
func (p *Proxy) sync(ctx context.Context, services map[key]bool) error {
	c := newChange()
	for k := range services {
		old := p.rules.services[k.String()]
		now := p.compile(k)
		p.rules.set(k.String(), now, c)
		p.health.set(ctx, old.health, now.health)
	}
	switch {
	case !p.intact:
		if err := p.table.renew(p.rules.state); err != nil {
			return err
		}
		c = p.rules.state.whole()
	case c.empty():
		return nil
	default:
		if err := p.table.apply(c); err != nil {
			p.intact = false // what was meant to change is known no more: next time all is written
			return err
		}
	}
	p.intact = true
	if flows, ok := stale(c, p.rules.state, p.cfg.NodeIPs); ok {
		if err := flows.forget(); err != nil {
			p.cfg.Log.Warn("old UDP flows could not be removed", "error", err)
		}
	}
	return nil
}

func (p *Proxy) compile(k key) rules {
	svc, ok := p.services.Get(k.namespace, k.name)
	if !ok {
		return rules{}
	}
	node, _ := p.nodes.Get("", p.cfg.NodeName)
	return compile(svc, p.slices.By(byService, k.String()), nodeFacts{p.cfg.NodeName, zone(node)})
}

// Purge removes the table.
func Purge(_ context.Context, cfg Config) error {
	cfg.defaults()
	return nft.DropTable(cfg.Table)
}
