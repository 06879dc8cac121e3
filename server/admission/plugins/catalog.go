package plugins

import (
	"fmt"
	"slices"
	"time"

	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/admission/policy"
	"github.com/skiff-sh/skiff/server/admission/webhook"
	"github.com/skiff-sh/skiff/server/internal/callout"
)

// entry is one plugin that upstream knows by name.
type entry struct {
	name string
	on   bool // unless it is disabled
	make func(Deps) admission.Plugin
	// configure makes a plugin that can be told something; b is nil when nothing is.
	configure func(d Deps, b []byte) (admission.Plugin, error)
}

// idle plugins are about kinds that are served by no GA version: there is nothing for them to do.
func idle(Deps) admission.Plugin { return nil }

// catalog is all plugins in upstream's order. NodeRestriction is on as in every cluster that kubeadm makes.
func catalog() []entry {
	policies := func(d Deps) policy.Config {
		return policy.Config{Store: d.Store, Kinds: d.Kinds, Authorizer: d.Authorizer, Types: d.Types, Metrics: d.Metrics}
	}
	return []entry{
		{"AlwaysAdmit", false, idle, nil},
		{"NamespaceAutoProvision", false, func(d Deps) admission.Plugin { return &namespaceProvision{d.Store, d.CreateNamespace} }, nil},
		{"NamespaceLifecycle", true, func(d Deps) admission.Plugin { return &namespaceLifecycle{d.Store} }, nil},
		{"NamespaceExists", false, func(d Deps) admission.Plugin { return &namespaceExists{d.Store} }, nil},
		{"LimitPodHardAntiAffinityTopology", false, func(Deps) admission.Plugin { return hardAntiAffinity{} }, nil},
		{"LimitRanger", true, func(d Deps) admission.Plugin { return &limitRanger{d.Store} }, nil},
		{"ServiceAccount", true, func(d Deps) admission.Plugin { return &serviceAccount{d.Store} }, nil},
		{"NodeRestriction", true, func(d Deps) admission.Plugin { return &nodeRestriction{d.Store, d.Authorizer} }, nil},
		{"TaintNodesByCondition", true, func(Deps) admission.Plugin { return taintNodesByCondition{} }, nil},
		{"AlwaysPullImages", false, func(Deps) admission.Plugin { return alwaysPullImages{} }, nil},
		{"ImagePolicyWebhook", false, nil, newImagePolicy},
		{"PodSecurity", true, nil, newPodSecurity},
		{"PodNodeSelector", false, nil, newPodNodeSelector},
		{"Priority", true, func(d Deps) admission.Plugin { return &priority{d.Store} }, nil},
		{"DefaultTolerationSeconds", true, func(d Deps) admission.Plugin { return defaultTolerationSeconds{d.TolerationSeconds} }, nil},
		{"PodTolerationRestriction", false, nil, newPodTolerations},
		{"EventRateLimit", false, nil, newEventRateLimit},
		{"ExtendedResourceToleration", false, func(Deps) admission.Plugin { return extendedResourceToleration{} }, nil},
		{"DefaultStorageClass", true, func(d Deps) admission.Plugin { return &defaultStorageClass{d.Store} }, nil},
		{"StorageObjectInUseProtection", true, func(Deps) admission.Plugin { return storageProtection{} }, nil},
		{"PodGroupProtection", true, idle, nil},
		{"OwnerReferencesPermissionEnforcement", false, func(d Deps) admission.Plugin { return &ownerReferences{d.Kinds, d.Authorizer} }, nil},
		{"PersistentVolumeClaimResize", true, func(d Deps) admission.Plugin { return &claimResize{d.Store} }, nil},
		{"RuntimeClass", true, func(d Deps) admission.Plugin { return &runtimeClass{d.Store} }, nil},
		{"CertificateApproval", true, func(d Deps) admission.Plugin { return &certificateApproval{d.Authorizer} }, nil},
		{"CertificateSigning", true, func(d Deps) admission.Plugin { return &certificateSigning{d.Authorizer} }, nil},
		{"ClusterTrustBundleAttest", true, func(d Deps) admission.Plugin { return &trustBundleAttest{d.Authorizer} }, nil},
		{"CertificateSubjectRestriction", true, func(Deps) admission.Plugin { return certificateSubject{} }, nil},
		{"DefaultIngressClass", true, func(d Deps) admission.Plugin { return &defaultIngressClass{d.Store} }, nil},
		{"DenyServiceExternalIPs", false, func(Deps) admission.Plugin { return denyExternalIPs{} }, nil},
		{"PodTopologyLabels", true, func(d Deps) admission.Plugin { return &podTopologyLabels{d.Store} }, nil},
		{"PodGroupWorkloadExists", true, idle, nil},
		{"NodeDeclaredFeatureValidator", true, func(d Deps) admission.Plugin { return &nodeFeatures{d.Store} }, nil},
		{"JobValidation", true, idle, nil},
		{"PodResizeValidator", true, func(d Deps) admission.Plugin { return &podResize{d.Store} }, nil},
		{"MutatingAdmissionPolicy", true, func(d Deps) admission.Plugin { return policy.NewMutating(policies(d)) }, nil},
		{"MutatingAdmissionWebhook", true, nil, newMutatingWebhooks},
		{"ValidatingAdmissionPolicy", true, func(d Deps) admission.Plugin { return policy.NewValidating(policies(d)) }, nil},
		{"ValidatingAdmissionWebhook", true, nil, newValidatingWebhooks},
		{"ResourceQuota", true, nil, newResourceQuota},
		{"AlwaysDeny", false, func(Deps) admission.Plugin { return alwaysDeny{} }, nil},
	}
}

func (e *entry) plugin(d Deps) (admission.Plugin, error) {
	if e.configure != nil {
		return e.configure(d, d.Settings[e.name])
	}
	return e.make(d), nil
}

func newMutatingWebhooks(d Deps, b []byte) (admission.Plugin, error) {
	c, err := d.webhooks(b)
	if err != nil {
		return nil, err
	}
	return webhook.NewMutating(c), nil
}

func newValidatingWebhooks(d Deps, b []byte) (admission.Plugin, error) {
	c, err := d.webhooks(b)
	if err != nil {
		return nil, err
	}
	return webhook.NewValidating(c), nil
}

func (d Deps) webhooks(b []byte) (webhook.Config, error) {
	c := webhook.Config{Store: d.Store, Kinds: d.Kinds, Authorizer: d.Authorizer, Metrics: d.Metrics, Log: d.Log}
	file, err := credentials(b)
	if err == nil && file != "" {
		c.Credentials, err = callout.ReadCredentials(file)
	}
	return c, err
}

// firstWebhook is the plugin that the rules stand before which upstream has in its registries: they are no plugins
// there and cannot be disabled.
const firstWebhook = "MutatingAdmissionPolicy"

// Chain is the plugins that are on by default, and those of Deps.Enable, without those of Deps.Disable, in upstream's
// order.
func Chain(d Deps) (admission.Chain, error) {
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Rules == nil {
		d.Rules, _ = d.Authorizer.(RuleLister)
	}
	all := catalog()
	if err := d.check(all); err != nil {
		return admission.Chain{}, err
	}
	var c []admission.Plugin
	for _, e := range all {
		if e.name == firstWebhook {
			if d.Rules != nil {
				c = append(c, &escalation{d.Rules, d.Authorizer})
			}
			c = append(c, webhook.Expressions{}, policy.Expressions{})
		}
		if !slices.Contains(d.Enable, e.name) && (!e.on || slices.Contains(d.Disable, e.name)) {
			continue
		}
		p, err := e.plugin(d)
		if err != nil {
			return admission.Chain{}, fmt.Errorf("couldn't init admission plugin %q: %w", e.name, err)
		}
		if p != nil {
			c = append(c, p)
		}
	}
	return admission.NewChain(d.Metrics, c...), nil
}

func (d *Deps) check(all []entry) error {
	for flag, names := range map[string][]string{"enable": d.Enable, "disable": d.Disable} {
		for _, name := range names {
			i := slices.IndexFunc(all, func(e entry) bool { return e.name == name })
			if i < 0 {
				return fmt.Errorf("%s-admission-plugins plugin %q is unknown", flag, name)
			}
		}
	}
	for _, name := range d.Enable {
		if slices.Contains(d.Disable, name) {
			return fmt.Errorf("%s in enable-admission-plugins and disable-admission-plugins overlapped", []string{name})
		}
	}
	return nil
}
