// Package controllers lists every controller of the cluster. Each has a folder of its own: a pure planning function
// (what is wanted and what is there go in, actions come out as data) and a thin edge that observes and applies.
//
// Invariant: controllers never import one another's edges and meet only in the API; package plan and package pods are
// what they share. Only daemon may import controllers.
package controllers

import (
	"github.com/skiff-sh/skiff/controllers/admissionpolicy"
	"github.com/skiff-sh/skiff/controllers/attachdetach"
	"github.com/skiff-sh/skiff/controllers/bootstraptoken"
	"github.com/skiff-sh/skiff/controllers/certificates"
	"github.com/skiff-sh/skiff/controllers/clusterrole"
	"github.com/skiff-sh/skiff/controllers/cronjob"
	"github.com/skiff-sh/skiff/controllers/customkinds"
	"github.com/skiff-sh/skiff/controllers/daemonset"
	"github.com/skiff-sh/skiff/controllers/deployment"
	"github.com/skiff-sh/skiff/controllers/devicetaint"
	"github.com/skiff-sh/skiff/controllers/disruption"
	"github.com/skiff-sh/skiff/controllers/endpoints"
	"github.com/skiff-sh/skiff/controllers/endpointslice"
	"github.com/skiff-sh/skiff/controllers/ephemeral"
	"github.com/skiff-sh/skiff/controllers/expand"
	"github.com/skiff-sh/skiff/controllers/garbage"
	"github.com/skiff-sh/skiff/controllers/job"
	"github.com/skiff-sh/skiff/controllers/mirroring"
	"github.com/skiff-sh/skiff/controllers/namespace"
	"github.com/skiff-sh/skiff/controllers/nodeipam"
	"github.com/skiff-sh/skiff/controllers/nodelifecycle"
	"github.com/skiff-sh/skiff/controllers/nodettl"
	"github.com/skiff-sh/skiff/controllers/podautoscaler"
	"github.com/skiff-sh/skiff/controllers/podgc"
	"github.com/skiff-sh/skiff/controllers/protection"
	"github.com/skiff-sh/skiff/controllers/quota"
	"github.com/skiff-sh/skiff/controllers/replicaset"
	"github.com/skiff-sh/skiff/controllers/replication"
	"github.com/skiff-sh/skiff/controllers/resourceclaim"
	"github.com/skiff-sh/skiff/controllers/rootca"
	"github.com/skiff-sh/skiff/controllers/served"
	"github.com/skiff-sh/skiff/controllers/serviceaccount"
	"github.com/skiff-sh/skiff/controllers/serviceaccounttoken"
	"github.com/skiff-sh/skiff/controllers/servicecidr"
	"github.com/skiff-sh/skiff/controllers/statefulset"
	"github.com/skiff-sh/skiff/controllers/tainteviction"
	"github.com/skiff-sh/skiff/controllers/ttl"
	"github.com/skiff-sh/skiff/controllers/volumebinder"
	"github.com/skiff-sh/skiff/reconcile"
)

// Manager is the account of controllers that act as the controller manager itself and not as a service account.
const Manager = "kube-controller-manager"

type (
	deps = reconcile.Deps
	ctrl = reconcile.Controller
)

// entry is one controller of the list.
type entry struct {
	name    string // upstream's
	account string // its service account in kube-system, which is what its bootstrap role is bound to; or Manager
	off     bool   // it runs only if asked for by name
	make    func(deps, Config) ctrl
	// lacks, if set, says that the configuration does not have what the controller needs.
	lacks func(Config) bool
}

func plainly(f func(deps) ctrl) func(deps, Config) ctrl {
	return func(d deps, _ Config) ctrl { return f(d) }
}

// list is every controller of upstream's v1.36 that does anything with the default feature gates and without a cloud. Those
// that are not here: three that need a cloud (cloud-node-lifecycle, node-route and service-lb); six whose APIs are not served
// unless an alpha or beta gate is set (kube-apiserver-serving-clustertrustbundle-publisher, podcertificaterequest-cleaner,
// podgroup-protection, resourcepoolstatusrequest, storage-version-migrator and storageversion-garbage-collector); and
// selinux-warning, which is off.
var list = []entry{
	{name: "deployment-controller", account: "deployment-controller", make: plainly(deployment.New)},
	{name: "replicaset-controller", account: "replicaset-controller", make: plainly(replicaset.New)},
	{name: "replicationcontroller-controller", account: "replication-controller", make: plainly(replication.New)},
	{name: "daemonset-controller", account: "daemon-set-controller", make: plainly(daemonset.New)},
	{name: "statefulset-controller", account: "statefulset-controller", make: plainly(statefulset.New)},
	{name: "job-controller", account: "job-controller", make: plainly(job.New)},
	{name: "cronjob-controller", account: "cronjob-controller", make: plainly(cronjob.New)},
	{name: "ttl-after-finished-controller", account: "ttl-after-finished-controller", make: plainly(ttl.New)},
	{name: "pod-garbage-collector-controller", account: "pod-garbage-collector", make: plainly(podgc.New)},
	{name: "disruption-controller", account: "disruption-controller", make: plainly(disruption.New)},
	{name: "horizontal-pod-autoscaler-controller", account: "horizontal-pod-autoscaler",
		make: func(d deps, c Config) ctrl { return podautoscaler.New(d, c.Kinds) }},

	{name: "endpointslice-controller", account: "endpointslice-controller", make: plainly(endpointslice.New)},
	{name: "endpoints-controller", account: "endpoint-controller", make: plainly(endpoints.New)},
	{name: "endpointslice-mirroring-controller", account: "endpointslicemirroring-controller", make: plainly(mirroring.New)},
	{name: "service-cidr-controller", account: "service-cidrs-controller", make: plainly(servicecidr.New)},

	{name: "node-lifecycle-controller", account: "node-controller", make: func(d deps, c Config) ctrl { return nodelifecycle.New(d, c.Nodes) }},
	{name: "taint-eviction-controller", account: "node-controller", make: plainly(tainteviction.New)},
	{name: "device-taint-eviction-controller", account: "device-taint-eviction-controller", make: plainly(devicetaint.New)},
	{name: "node-ipam-controller", account: "node-controller", make: func(d deps, c Config) ctrl { return nodeipam.New(d, c.ClusterCIDR, c.NodeCIDRBits) }},
	{name: "ttl-controller", account: "ttl-controller", make: plainly(nodettl.New)},

	{name: "namespace-controller", account: "namespace-controller", make: func(d deps, c Config) ctrl { return namespace.New(d, c.served) }},
	{name: "garbage-collector-controller", account: "generic-garbage-collector", make: func(d deps, c Config) ctrl { return garbage.New(d, c.served) }},
	{name: "resourcequota-controller", account: "resourcequota-controller", make: func(d deps, c Config) ctrl { return quota.New(d, c.served) }},
	{name: "clusterrole-aggregation-controller", account: "clusterrole-aggregation-controller", make: plainly(clusterrole.New)},
	{name: "validatingadmissionpolicy-status-controller", account: "validatingadmissionpolicy-status-controller",
		make: func(d deps, c Config) ctrl { return admissionpolicy.New(d, c.Kinds) }},

	{name: "serviceaccount-controller", account: "service-account-controller", make: plainly(serviceaccount.New)},
	{name: "serviceaccount-token-controller", account: Manager, make: newTokens, lacks: func(c Config) bool { return c.ServiceAccountKey == nil }},
	{name: "legacy-serviceaccount-token-cleaner-controller", account: "legacy-service-account-token-cleaner",
		make: func(d deps, c Config) ctrl { return serviceaccounttoken.Cleaner(d, c.LegacyTokenPeriod) }},
	{name: "root-ca-certificate-publisher-controller", account: "root-ca-cert-publisher",
		make: func(d deps, c Config) ctrl { return rootca.New(d, c.RootCA) }, lacks: func(c Config) bool { return len(c.RootCA) == 0 }},
	{name: "certificatesigningrequest-approving-controller", account: "certificate-controller", make: plainly(certificates.Approving)},
	{name: "certificatesigningrequest-signing-controller", account: "certificate-controller",
		make: func(d deps, c Config) ctrl { return certificates.Signing(d, c.Signing) }, lacks: func(c Config) bool { return c.Signing.Authorities == nil }},
	{name: "certificatesigningrequest-cleaner-controller", account: "certificate-controller", make: plainly(certificates.Cleaning)},
	{name: "bootstrap-signer-controller", account: "bootstrap-signer", off: true, make: plainly(bootstraptoken.Signer)},
	{name: "token-cleaner-controller", account: "token-cleaner", off: true, make: plainly(bootstraptoken.Cleaner)},

	{name: "persistentvolume-binder-controller", account: "persistent-volume-binder", make: plainly(volumebinder.New)},
	{name: "persistentvolume-attach-detach-controller", account: "attachdetach-controller", make: plainly(attachdetach.New)},
	{name: "persistentvolume-expander-controller", account: "expand-controller", make: plainly(expand.New)},
	{name: "persistentvolumeclaim-protection-controller", account: "pvc-protection-controller", make: plainly(protection.Claims)},
	{name: "persistentvolume-protection-controller", account: "pv-protection-controller", make: plainly(protection.Volumes)},
	{name: "volumeattributesclass-protection-controller", account: "volumeattributesclass-protection-controller", make: plainly(protection.Classes)},
	{name: "ephemeral-volume-controller", account: "ephemeral-volume-controller", make: plainly(ephemeral.New)},
	{name: "resourceclaim-controller", account: "resource-claim-controller", make: plainly(resourceclaim.New)},
}

// queues is upstream's names of the queues that dashboards ask for.
var queues = map[string]string{
	"deployment-controller": "deployment", "replicaset-controller": "replicaset", "replicationcontroller-controller": "replicationmanager",
	"daemonset-controller": "daemonset", "statefulset-controller": "statefulset", "job-controller": "job", "cronjob-controller": "cronjob",
	"ttl-after-finished-controller": "ttl_jobs_to_delete", "disruption-controller": "disruption", "horizontal-pod-autoscaler-controller": "horizontalpodautoscaler",
	"endpointslice-controller": "endpoint_slice", "endpoints-controller": "endpoint", "endpointslice-mirroring-controller": "endpoint_slice_mirroring",
	"namespace-controller": "namespace", "garbage-collector-controller": "garbage_collector_attempt_to_delete", "resourcequota-controller": "resourcequota_primary",
	"serviceaccount-controller": "serviceaccount", "root-ca-certificate-publisher-controller": "root_ca_cert_publisher",
	"node-lifecycle-controller": "node_lifecycle_controller", "persistentvolumeclaim-protection-controller": "pvcprotection",
	"persistentvolume-protection-controller": "pvprotection", "clusterrole-aggregation-controller": "ClusterRoleAggregator",
	"certificatesigningrequest-approving-controller": "certificate",
}

func newTokens(d deps, c Config) ctrl {
	sign, err := serviceaccounttoken.NewSigner(c.ServiceAccountKey)
	if err != nil {
		panic(err) // Validate has refused such a key
	}
	return serviceaccounttoken.New(d, serviceaccounttoken.Config{Sign: sign, RootCA: c.RootCA})
}

// All returns the controllers that the configuration selects. Deps makes the dependencies of a controller by its
// account. Cfg must be valid.
func All(deps func(account string) reconcile.Deps, cfg Config) []reconcile.Controller {
	apart := cfg.Kinds == nil // nobody else looks after the table
	cfg = cfg.withDefaults()
	var all []reconcile.Controller
	if apart {
		all = append(all, customkinds.New(deps(Manager), cfg.Kinds))
	}
	cfg.served = served.Of(deps(Manager), cfg.Kinds)
	all = append(all, cfg.served.Controller())
	for _, e := range list {
		wanted := !e.off
		if cfg.Only != nil {
			wanted = cfg.Only(e.name)
		}
		if wanted && (e.lacks == nil || !e.lacks(cfg)) {
			c := e.make(deps(e.account), cfg)
			c.Queue = queues[e.name]
			all = append(all, c)
		}
	}
	return all
}
