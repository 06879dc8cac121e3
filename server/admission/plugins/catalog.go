package plugins

import (
	"fmt"
	"slices"
	"time"

	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/admission/policy"
	"github.com/skiff-sh/skiff/server/admission/webhook"
)

// entry is one plugin that upstream knows by name.
type entry struct {
	name string
	on   bool // unless it is disabled
	make func(Deps) admission.Plugin
}

// idle plugins are about kinds that are served by no GA version: there is nothing for them to do.
func idle(Deps) admission.Plugin { return nil }

// catalog is all plugins in upstream's order. NodeRestriction is on as in every cluster that kubeadm makes.
func catalog() []entry {
	hooks := func(d Deps) webhook.Config {
		return webhook.Config{Store: d.Store, Kinds: d.Kinds, Authorizer: d.Authorizer, Metrics: d.Metrics, Log: d.Log}
	}
	policies := func(d Deps) policy.Config {
		return policy.Config{Store: d.Store, Kinds: d.Kinds, Authorizer: d.Authorizer, Types: d.Types, Metrics: d.Metrics}
	}
	return []entry{
		{"AlwaysAdmit", false, idle},
		{"NamespaceAutoProvision", false, nil},
		{"NamespaceLifecycle", true, func(d Deps) admission.Plugin { return &namespaceLifecycle{d.Store} }},
		{"NamespaceExists", false, func(d Deps) admission.Plugin { return &namespaceExists{d.Store} }},
		{"LimitPodHardAntiAffinityTopology", false, func(Deps) admission.Plugin { return hardAntiAffinity{} }},
		{"LimitRanger", true, func(d Deps) admission.Plugin { return &limitRanger{d.Store} }},
		{"ServiceAccount", true, func(d Deps) admission.Plugin { return &serviceAccount{d.Store} }},
		{"NodeRestriction", true, func(d Deps) admission.Plugin { return &nodeRestriction{d.Store, d.Authorizer} }},
		{"TaintNodesByCondition", true, func(Deps) admission.Plugin { return taintNodesByCondition{} }},
		{"AlwaysPullImages", false, func(Deps) admission.Plugin { return alwaysPullImages{} }},
		{"ImagePolicyWebhook", false, nil},
		{"PodSecurity", true, func(d Deps) admission.Plugin { return newPodSecurity(d.Store) }},
		{"PodNodeSelector", false, func(d Deps) admission.Plugin { return &podNodeSelector{d.Store} }},
		{"Priority", true, func(d Deps) admission.Plugin { return &priority{d.Store} }},
		{"DefaultTolerationSeconds", true, func(Deps) admission.Plugin { return defaultTolerationSeconds{} }},
		{"PodTolerationRestriction", false, nil},
		{"EventRateLimit", false, nil},
		{"ExtendedResourceToleration", false, func(Deps) admission.Plugin { return extendedResourceToleration{} }},
		{"DefaultStorageClass", true, func(d Deps) admission.Plugin { return &defaultStorageClass{d.Store} }},
		{"StorageObjectInUseProtection", true, func(Deps) admission.Plugin { return storageProtection{} }},
		{"PodGroupProtection", true, idle},
		{"OwnerReferencesPermissionEnforcement", false, func(d Deps) admission.Plugin { return &ownerReferences{d.Kinds, d.Authorizer} }},
		{"PersistentVolumeClaimResize", true, func(d Deps) admission.Plugin { return &claimResize{d.Store} }},
		{"RuntimeClass", true, func(d Deps) admission.Plugin { return &runtimeClass{d.Store} }},
		{"CertificateApproval", true, func(d Deps) admission.Plugin { return &certificateApproval{d.Authorizer} }},
		{"CertificateSigning", true, func(d Deps) admission.Plugin { return &certificateSigning{d.Authorizer} }},
		{"ClusterTrustBundleAttest", true, func(d Deps) admission.Plugin { return &trustBundleAttest{d.Authorizer} }},
		{"CertificateSubjectRestriction", true, func(Deps) admission.Plugin { return certificateSubject{} }},
		{"DefaultIngressClass", true, func(d Deps) admission.Plugin { return &defaultIngressClass{d.Store} }},
		{"DenyServiceExternalIPs", false, func(Deps) admission.Plugin { return denyExternalIPs{} }},
		{"PodTopologyLabels", true, func(d Deps) admission.Plugin { return &podTopologyLabels{d.Store} }},
		{"PodGroupWorkloadExists", true, idle},
		{"NodeDeclaredFeatureValidator", true, func(d Deps) admission.Plugin { return &nodeFeatures{d.Store} }},
		{"JobValidation", true, idle},
		{"PodResizeValidator", true, func(d Deps) admission.Plugin { return &podResize{d.Store} }},
		{"MutatingAdmissionPolicy", true, func(d Deps) admission.Plugin { return policy.NewMutating(policies(d)) }},
		{"MutatingAdmissionWebhook", true, func(d Deps) admission.Plugin { return webhook.NewMutating(hooks(d)) }},
		{"ValidatingAdmissionPolicy", true, func(d Deps) admission.Plugin { return policy.NewValidating(policies(d)) }},
		{"ValidatingAdmissionWebhook", true, func(d Deps) admission.Plugin { return webhook.NewValidating(hooks(d)) }},
		{"ResourceQuota", true, func(d Deps) admission.Plugin { return &resourceQuota{st: d.Store, now: d.Now} }},
		{"AlwaysDeny", false, func(Deps) admission.Plugin { return alwaysDeny{} }},
	}
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
		return nil, err
	}
	var c admission.Chain
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
		if p := e.make(d); p != nil {
			c = append(c, p)
		}
	}
	return c, nil
}

func (d *Deps) check(all []entry) error {
	for flag, names := range map[string][]string{"enable": d.Enable, "disable": d.Disable} {
		for _, name := range names {
			i := slices.IndexFunc(all, func(e entry) bool { return e.name == name })
			switch {
			case i < 0:
				return fmt.Errorf("%s-admission-plugins plugin %q is unknown", flag, name)
			case flag == "enable" && all[i].make == nil:
				return fmt.Errorf("enable-admission-plugins: plugin %q is not part of this server", name)
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
