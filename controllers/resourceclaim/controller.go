package resourceclaim

import (
	"context"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/reconcile"
)

// Keys are pods ("pod:name") and claims ("claim:name").
const (
	podKey   = "pod:"
	claimKey = "claim:"
)

// Indexes: pods by the template, and by the claim ("namespace/name") that they name.
const (
	byTemplate = "claim-template"
	byClaim    = "resource-claim"
)

type controller struct {
	reconcile.Deps
	pods      *client.Cache[*corev1.Pod]
	claims    *client.Cache[*resourcev1.ResourceClaim]
	templates *client.Cache[*resourcev1.ResourceClaimTemplate]
}

// New is the resource claim controller.
func New(d reconcile.Deps) reconcile.Controller {
	cs := d.Caches
	c := &controller{Deps: d, pods: client.CacheOf[*corev1.Pod](cs), claims: plan.Dependents[*resourcev1.ResourceClaim](cs),
		templates: client.CacheOf[*resourcev1.ResourceClaimTemplate](cs)}
	c.pods.AddIndex(byTemplate, func(p *corev1.Pod) (out []string) {
		for _, pc := range p.Spec.ResourceClaims {
			if pc.ResourceClaimTemplateName != nil {
				out = append(out, p.Namespace+"/"+*pc.ResourceClaimTemplateName)
			}
		}
		return out
	})
	c.pods.AddIndex(byClaim, func(p *corev1.Pod) (out []string) {
		for _, name := range claimsOf(p) {
			out = append(out, p.Namespace+"/"+name)
		}
		return out
	})
	return reconcile.Controller{
		Name: "resourceclaim-controller", Workers: 10,
		Inputs: []reconcile.Input{
			reconcile.Map(cs, c.podChanged), reconcile.Map(cs, c.claimChanged),
			reconcile.Map(cs, func(old, new *resourcev1.ResourceClaimTemplate) (keys []reconcile.Key) {
				if old != nil || new == nil {
					return nil
				}
				for _, p := range c.pods.By(byTemplate, new.Namespace+"/"+new.Name) {
					keys = append(keys, reconcile.Key{Namespace: p.Namespace, Name: podKey + p.Name})
				}
				return keys
			}),
		},
		Writes:    []string{"resource.k8s.io/resourceclaims", "resource.k8s.io/resourceclaims/status", "pods/status"},
		Reconcile: c.reconcile,
	}
}

// claimsOf names the claims of a pod, as far as they are known.
func claimsOf(p *corev1.Pod) (out []string) {
	for i := range p.Spec.ResourceClaims {
		if name, _ := nameOf(p, &p.Spec.ResourceClaims[i]); name != "" {
			out = append(out, name)
		}
	}
	if s := p.Status.ExtendedResourceClaimStatus; s != nil {
		out = append(out, s.ResourceClaimName)
	}
	return out
}

// podChanged makes a pod due that lacks something, and the claims of one that has ended.
func (c *controller) podChanged(old, new *corev1.Pod) (keys []reconcile.Key) {
	p := new
	if p == nil {
		p = old
	}
	if len(p.Spec.ResourceClaims) == 0 && p.Status.ExtendedResourceClaimStatus == nil {
		return nil
	}
	if new != nil && !done(new) {
		return []reconcile.Key{{Namespace: p.Namespace, Name: podKey + p.Name}}
	}
	if old != nil && new != nil && done(old) {
		return nil
	}
	for _, name := range claimsOf(p) {
		keys = append(keys, reconcile.Key{Namespace: p.Namespace, Name: claimKey + name})
	}
	for _, claim := range plan.Controlled(c.claims, p) {
		keys = append(keys, reconcile.Key{Namespace: p.Namespace, Name: claimKey + claim.Name})
	}
	return keys
}

// claimChanged makes the claim due, and the pods that name it or that it was made for.
func (c *controller) claimChanged(old, new *resourcev1.ResourceClaim) (keys []reconcile.Key) {
	claim := new
	if claim == nil {
		claim = old
	} else {
		keys = append(keys, reconcile.Key{Namespace: claim.Namespace, Name: claimKey + claim.Name})
	}
	for _, ref := range claim.OwnerReferences {
		if ref.Kind == "Pod" {
			keys = append(keys, reconcile.Key{Namespace: claim.Namespace, Name: podKey + ref.Name})
		}
	}
	if old == nil || new == nil || (old.Status.Allocation == nil) != (new.Status.Allocation == nil) {
		for _, p := range c.pods.By(byClaim, claim.Namespace+"/"+claim.Name) {
			keys = append(keys, reconcile.Key{Namespace: p.Namespace, Name: podKey + p.Name})
		}
	}
	return keys
}

func (c *controller) reconcile(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
	if name, ok := strings.CutPrefix(key.Name, podKey); ok {
		return reconcile.Result{}, c.pod(ctx, key.Namespace, name)
	}
	return reconcile.Result{}, c.claim(ctx, key.Namespace, strings.TrimPrefix(key.Name, claimKey))
}

func (c *controller) pod(ctx context.Context, namespace, name string) error {
	p, ok := c.pods.Get(namespace, name)
	if !ok {
		return nil
	}
	actions, err := PlanPod(p, View{
		Claim: func(name string) (*resourcev1.ResourceClaim, bool) { return c.claims.Get(namespace, name) },
		Template: func(name string) (*resourcev1.ResourceClaimTemplate, bool) {
			return c.templates.Get(namespace, name)
		},
		Made: func(p *corev1.Pod) []*resourcev1.ResourceClaim { return plan.Controlled(c.claims, p) }})
	if err == nil {
		err = plan.Apply(ctx, c.Deps, actions...)
	}
	if err != nil && !apierrors.IsConflict(err) {
		c.Events.Eventf(p, corev1.EventTypeWarning, "FailedResourceClaimCreation", "%v", err)
	}
	return err
}

func (c *controller) claim(ctx context.Context, namespace, name string) error {
	claim, ok := c.claims.Get(namespace, name)
	if !ok {
		return nil
	}
	var failed error
	uses := func(r resourcev1.ResourceClaimConsumerReference) bool {
		p, ok := c.pods.Get(namespace, r.Name)
		if !ok { // the cache may be behind the scheduler
			live, err := client.Get[*corev1.Pod](ctx, c.Client, namespace, r.Name)
			if err != nil {
				if !apierrors.IsNotFound(err) {
					failed = err
					return true
				}
				return false
			}
			p = live
		}
		return p.UID == r.UID && !done(p)
	}
	actions := PlanClaim(claim, uses, func(name string) (*corev1.Pod, bool) { return c.pods.Get(namespace, name) })
	if failed != nil {
		return failed
	}
	return plan.Apply(ctx, c.Deps, actions...)
}
