// Package controllers lists every controller of the cluster. Each has a folder of its own: a pure planning function
// (what is wanted and what is there go in, actions come out as data) and a thin edge that observes and applies.
//
// Invariant: controllers never import one another's edges and meet only in the API; package plan and package pods are
// what they share. Only daemon may import controllers.
package controllers

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/api/builtin"
	"github.com/skiff-sh/skiff/controllers/clusterrole"
	"github.com/skiff-sh/skiff/controllers/cronjob"
	"github.com/skiff-sh/skiff/controllers/daemonset"
	"github.com/skiff-sh/skiff/controllers/deployment"
	"github.com/skiff-sh/skiff/controllers/disruption"
	"github.com/skiff-sh/skiff/controllers/endpoints"
	"github.com/skiff-sh/skiff/controllers/endpointslice"
	"github.com/skiff-sh/skiff/controllers/ephemeral"
	"github.com/skiff-sh/skiff/controllers/garbage"
	"github.com/skiff-sh/skiff/controllers/job"
	"github.com/skiff-sh/skiff/controllers/mirroring"
	"github.com/skiff-sh/skiff/controllers/namespace"
	"github.com/skiff-sh/skiff/controllers/nodeipam"
	"github.com/skiff-sh/skiff/controllers/nodelifecycle"
	"github.com/skiff-sh/skiff/controllers/podgc"
	"github.com/skiff-sh/skiff/controllers/protection"
	"github.com/skiff-sh/skiff/controllers/quota"
	"github.com/skiff-sh/skiff/controllers/replicaset"
	"github.com/skiff-sh/skiff/controllers/replication"
	"github.com/skiff-sh/skiff/controllers/rootca"
	"github.com/skiff-sh/skiff/controllers/serviceaccount"
	"github.com/skiff-sh/skiff/controllers/statefulset"
	"github.com/skiff-sh/skiff/controllers/tainteviction"
	"github.com/skiff-sh/skiff/controllers/ttl"
	"github.com/skiff-sh/skiff/controllers/volumebinder"
	"github.com/skiff-sh/skiff/reconcile"
)

// Config is what the controllers need to know of the cluster.
type Config struct {
	// ClusterCIDR is the range that nodes' pod ranges are cut from. Default 10.244.0.0/16.
	ClusterCIDR netip.Prefix
	// NodeCIDRBits is the length of a node's prefix. Default 24.
	NodeCIDRBits int
	// RootCA is published in every namespace, in PEM. Without one nothing is published.
	RootCA []byte
	// Kinds is the table that the server serves, custom resources included. Default: the built-in kinds.
	Kinds *api.Table
	// NodeGracePeriod is how long a node may be silent before it counts as not ready. Default 50 s.
	NodeGracePeriod time.Duration
}

func (c Config) withDefaults() Config {
	if !c.ClusterCIDR.IsValid() {
		c.ClusterCIDR = netip.MustParsePrefix("10.244.0.0/16")
	}
	if c.NodeCIDRBits == 0 {
		c.NodeCIDRBits = 24
	}
	if c.Kinds == nil {
		c.Kinds = builtin.Table()
	}
	if c.NodeGracePeriod == 0 {
		c.NodeGracePeriod = 50 * time.Second
	}
	return c
}

// Validate reports what is wrong with a configuration; the zero value is right.
func (c Config) Validate() error {
	c = c.withDefaults()
	if c.NodeCIDRBits < c.ClusterCIDR.Bits() || c.NodeCIDRBits > c.ClusterCIDR.Addr().BitLen() {
		return fmt.Errorf("nodes' pod ranges of /%d do not fit into the cluster's %s", c.NodeCIDRBits, c.ClusterCIDR)
	}
	if c.NodeGracePeriod < 0 {
		return fmt.Errorf("a node grace period of %v is negative", c.NodeGracePeriod)
	}
	return nil
}

// All returns every controller. Deps makes the dependencies for a controller by the name of its service account in
// kube-system, which is what its bootstrap role is bound to. Cfg must be valid.
func All(deps func(name string) reconcile.Deps, cfg Config) []reconcile.Controller {
	cfg = cfg.withDefaults()
	all := []reconcile.Controller{
		deployment.New(deps("deployment-controller")),
		replicaset.New(deps("replicaset-controller")),
		replication.New(deps("replication-controller")),
		daemonset.New(deps("daemon-set-controller")),
		statefulset.New(deps("statefulset-controller")),
		job.New(deps("job-controller")),
		cronjob.New(deps("cronjob-controller")),
		ttl.New(deps("ttl-after-finished-controller")),
		podgc.New(deps("pod-garbage-collector")),
		disruption.New(deps("disruption-controller")),
		quota.New(deps("resourcequota-controller"), cfg.Kinds.Kinds),
		clusterrole.New(deps("clusterrole-aggregation-controller")),
		volumebinder.New(deps("persistent-volume-binder")),
		protection.Claims(deps("pvc-protection-controller")),
		protection.Volumes(deps("pv-protection-controller")),
		ephemeral.New(deps("ephemeral-volume-controller")),
		serviceaccount.New(deps("service-account-controller")),
		namespace.New(deps("namespace-controller"), cfg.Kinds.Kinds),
		garbage.New(deps("generic-garbage-collector"), cfg.Kinds),
		endpointslice.New(deps("endpointslice-controller")),
		endpoints.New(deps("endpoint-controller")),
		mirroring.New(deps("endpointslicemirroring-controller")),
		nodelifecycle.New(deps("node-controller"), cfg.NodeGracePeriod),
		tainteviction.New(deps("node-controller")),
		nodeipam.New(deps("node-controller"), cfg.ClusterCIDR, cfg.NodeCIDRBits),
	}
	if len(cfg.RootCA) > 0 {
		all = append(all, rootca.New(deps("root-ca-cert-publisher"), cfg.RootCA))
	}
	return all
}
