// Package podnet is the pods' network on one node: a bridge with the node's range of addresses, the CNI configuration
// that lets containerd attach pods to it (package cni does that), routes to the other nodes' ranges, masquerading, and
// host ports.
//
// Invariant: the machine's state is a function of this node, the other nodes and this node's pods (plan, which is pure);
// apply makes it so and may be repeated at any time. Everything that podnet makes, Purge removes. Only daemon imports
// podnet.
package podnet

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"reflect"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-sh/skiff/client"
)

// Config is one node's pod network. All fields but Log are required.
type Config struct {
	NodeName    string
	NodeIP      netip.Addr     // whose link's MTU the pods get
	Caches      *client.Caches // nodes, and pods by spec.nodeName
	ClusterCIDR netip.Prefix   // the range of all pods in the cluster; IPv4
	Bridge      string         // the interface's name, at most 15 characters
	Table       string         // the nftables table's name

	CNIConfDir string // where containerd looks for the network configuration
	CNIPlugin  string // the plug-in's program, in containerd's folder of plug-ins
	StateDir   string // taken addresses, and the values of kernel settings before they were changed; lasts

	Log *slog.Logger
}

func (c *Config) validate() error {
	if c.Bridge == "" || len(c.Bridge) > 15 || c.Table == "" || c.CNIConfDir == "" || c.StateDir == "" {
		return errors.New("podnet: Config needs Bridge (at most 15 characters), Table, CNIConfDir and StateDir")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Network keeps a node's pod network as it must be.
type Network struct {
	cfg   Config
	nodes *client.Cache[*corev1.Node]
	pods  *client.Cache[*corev1.Pod]
}

// New checks the configuration; nothing is changed before Run.
func New(cfg Config) (*Network, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.NodeName == "" || cfg.Caches == nil || cfg.CNIPlugin == "" || !cfg.ClusterCIDR.IsValid() || !cfg.ClusterCIDR.Addr().Is4() {
		return nil, errors.New("podnet: Config needs NodeName, Caches, CNIPlugin and an IPv4 ClusterCIDR")
	}
	return &Network{cfg: cfg,
		nodes: client.CacheOf[*corev1.Node](cfg.Caches),
		pods:  client.CacheOf[*corev1.Pod](cfg.Caches, client.Fields("spec.nodeName="+cfg.NodeName))}, nil
}

// check is how often the machine is looked at without a change, in case somebody else changed it.
const check = time.Minute

// Run keeps the network until ctx ends. It stays as it is then: pods go on.
func (n *Network) Run(ctx context.Context) error {
	due := make(chan struct{}, 1)
	poke := func() {
		select {
		case due <- struct{}{}:
		default:
		}
	}
	defer n.nodes.Subscribe(func(client.Event[*corev1.Node]) { poke() })()
	defer n.pods.Subscribe(func(client.Event[*corev1.Pod]) { poke() })()
	var done *state
	delay := 100 * time.Millisecond
	again := time.NewTimer(check)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-due:
		case <-again.C:
			done = nil
		}
		again.Reset(check)
		if !n.nodes.Synced() || !n.pods.Synced() {
			again.Reset(50 * time.Millisecond)
			continue
		}
		want, ok := plan(n.cfg.NodeName, n.cfg.ClusterCIDR, n.nodes.List(""), n.pods.List(""))
		if !ok || done != nil && reflect.DeepEqual(*done, want) {
			continue // the node has no range yet: its controller will change that
		}
		if err := n.cfg.apply(want); err != nil {
			n.cfg.Log.Error("the pod network cannot be set up; it is tried again", "error", err, "after", delay)
			done = nil
			again.Reset(delay)
			delay = min(2*delay, 30*time.Second)
			continue
		}
		if done == nil || done.Range != want.Range {
			n.cfg.Log.Debug("the pod network is set up", "bridge", n.cfg.Bridge, "range", want.Range)
		}
		done, delay = &want, 100*time.Millisecond
	}
}
