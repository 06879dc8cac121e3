package plugins

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission/plugin/resourcequota/apis/resourcequota"
	quotav1 "k8s.io/apiserver/pkg/quota/v1"

	"github.com/skiff-sh/skiff/api"
	"github.com/skiff-sh/skiff/internal/quota"
	"github.com/skiff-sh/skiff/server/admission"
	"github.com/skiff-sh/skiff/server/internal/read"
	"github.com/skiff-sh/skiff/store"
)

// resourceQuota refuses what a quota of the namespace has no room for, and books in the quota's status what it lets in.
// A booking whose object is then not stored stays until the quota controller counts again, as upstream's does.
type resourceQuota struct {
	st  store.Store
	now func() time.Time
	// limited is what may be used only where a quota counts it.
	limited []resourcequota.LimitedResource
	// mu makes bookings of one server follow each other: they would only make each other's writes fail.
	mu sync.Mutex
}

// quotaTries is how often a booking is tried again after another server was faster.
const quotaTries = 10

func newResourceQuota(d Deps, b []byte) (admission.Plugin, error) {
	l, err := limited(b)
	return &resourceQuota{st: d.Store, now: d.Now, limited: l}, err
}

func (*resourceQuota) Name() string { return "ResourceQuota" }
func (*resourceQuota) Handles(op admission.Operation, k *api.Kind, sub string) bool {
	if !k.Namespaced || k.Storage().StoragePath == "" || is(k, "", "events") || is(k, "events.k8s.io", "events") {
		return false
	}
	return in(op, admission.Create, admission.Update) && quota.Charged(k.Storage().GroupResource(), sub, op == admission.Create)
}

func (p *resourceQuota) Validate(ctx context.Context, r *admission.Request) error {
	gr := r.Kind.Storage().GroupResource()
	if r.Object == nil || len(p.limited) == 0 && !p.any(r.Namespace) {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	booked := map[string]bool{}
	for range quotaTries {
		var quotas []*corev1.ResourceQuota
		for q := range read.All[*corev1.ResourceQuota](p.st, r.Namespace) {
			if !booked[q.Name] {
				quotas = append(quotas, q)
			}
		}
		changed, err := p.charge(r, gr, quotas)
		if err != nil || len(changed) == 0 || r.DryRun {
			return err
		}
		again := false
		for _, q := range changed {
			err := p.book(ctx, q)
			var conflict *store.Conflict
			switch {
			case errors.As(err, &conflict):
				again = true
			case err != nil:
				return apierrors.NewInternalError(err)
			default:
				booked[q.Name] = true
			}
		}
		if !again {
			return nil
		}
		if err := p.catchUp(ctx); err != nil {
			return apierrors.NewInternalError(err)
		}
	}
	return apierrors.NewConflict(schema.GroupResource{Resource: "resourcequotas"}, "", errors.New("the quota changed too often while it was charged"))
}

func (p *resourceQuota) any(namespace string) bool {
	for range read.All[*corev1.ResourceQuota](p.st, namespace) {
		return true
	}
	return false
}

// charge finds the quotas that the object counts against and returns copies with the new usage. It refuses what does
// not fit.
func (p *resourceQuota) charge(r *admission.Request, gr schema.GroupResource, quotas []*corev1.ResourceQuota) ([]*corev1.ResourceQuota, error) {
	var mine []*corev1.ResourceQuota
	for _, q := range quotas {
		if !quota.Matches(q, gr, r.Object) {
			continue
		}
		names := quota.Names(gr, quotav1.ResourceNames(q.Status.Hard))
		if r.Operation == admission.Create || r.Subresource == "resize" {
			if err := specified(gr, names, r.Object); err != nil {
				return nil, forbidden(r, "failed quota: %s: %w", q.Name, err)
			}
		}
		for _, n := range names {
			if _, ok := q.Status.Used[n]; !ok {
				return nil, forbidden(r, "status unknown for quota: %s, resources: %s", q.Name, joinNames(names))
			}
		}
		mine = append(mine, q)
	}
	if err := p.covered(r, gr, quotas, mine); err != nil || len(mine) == 0 {
		return nil, err
	}
	now := p.now()
	usage := quota.Usage(gr, r.Object, now)
	if negative := quotav1.IsNegative(usage); len(negative) > 0 {
		return nil, forbidden(r, "quota usage is negative for resource(s): %s", joinNames(negative))
	}
	var out []*corev1.ResourceQuota
	for _, q := range mine {
		delta := usage
		if r.Operation == admission.Update && r.Old != nil && quota.Matches(q, gr, r.Old) {
			delta = quotav1.SubtractWithNonNegativeResult(usage, quota.Usage(gr, r.Old, now))
		}
		delta = quotav1.RemoveZeros(quotav1.Mask(delta, quotav1.ResourceNames(q.Status.Hard)))
		if len(delta) == 0 {
			continue
		}
		total := quotav1.Add(q.Status.Used, delta)
		if ok, over := quotav1.LessThanOrEqual(quotav1.Mask(total, quotav1.ResourceNames(delta)), q.Status.Hard); !ok && r.Subresource != "status" {
			return nil, forbidden(r, "exceeded quota: %s, requested: %s, used: %s, limited: %s", q.Name,
				joinList(quotav1.Mask(delta, over)), joinList(quotav1.Mask(q.Status.Used, over)), joinList(quotav1.Mask(q.Status.Hard, over)))
		}
		q = q.DeepCopy()
		q.Status.Used = total
		out = append(out, q)
	}
	return out, nil
}

// covered checks that quotas count whatever the configuration lets nobody use without one.
func (p *resourceQuota) covered(r *admission.Request, gr schema.GroupResource, quotas, mine []*corev1.ResourceQuota) error {
	counted := map[corev1.ResourceName]bool{}
	for _, q := range mine {
		for _, n := range quota.Names(gr, quotav1.ResourceNames(q.Status.Hard)) {
			counted[n] = true
		}
	}
	var bare []corev1.ResourceName
	for _, l := range p.limited {
		if l.APIGroup != gr.Group || l.Resource != gr.Resource {
			continue
		}
		for n, v := range quota.Usage(gr, r.Object, p.now()) {
			hit := slices.ContainsFunc(l.MatchContains, func(part string) bool { return strings.Contains(string(n), part) })
			if hit && v.Sign() > 0 && !counted[n] && !slices.Contains(bare, n) {
				bare = append(bare, n)
			}
		}
	}
	if len(bare) > 0 {
		return forbidden(r, "insufficient quota to consume: %v", joinNames(bare))
	}
	var open []corev1.ScopedResourceSelectorRequirement
	for _, l := range p.limited {
		for _, scope := range l.MatchScopes {
			if inScope(scope, r.Object) && !slices.ContainsFunc(quotas, func(q *corev1.ResourceQuota) bool { return restricts(q, scope.ScopeName, r.Object) }) {
				open = append(open, scope)
			}
		}
	}
	if len(open) > 0 {
		return fmt.Errorf("insufficient quota to match these scopes: %v", open)
	}
	return nil
}

func inScope(scope corev1.ScopedResourceSelectorRequirement, o runtime.Object) bool {
	one := &corev1.ScopeSelector{MatchExpressions: []corev1.ScopedResourceSelectorRequirement{scope}}
	return quota.InScope(&corev1.ResourceQuota{Spec: corev1.ResourceQuotaSpec{ScopeSelector: one}}, o)
}

// restricts reports whether a quota has a scope of the name that holds for the object.
func restricts(q *corev1.ResourceQuota, name corev1.ResourceQuotaScope, o runtime.Object) bool {
	var scopes []corev1.ScopedResourceSelectorRequirement
	for _, s := range q.Spec.Scopes {
		scopes = append(scopes, corev1.ScopedResourceSelectorRequirement{ScopeName: s, Operator: corev1.ScopeSelectorOpExists})
	}
	if q.Spec.ScopeSelector != nil {
		scopes = append(scopes, q.Spec.ScopeSelector.MatchExpressions...)
	}
	return slices.ContainsFunc(scopes, func(s corev1.ScopedResourceSelectorRequirement) bool { return s.ScopeName == name && inScope(s, o) })
}

// specified checks that a pod says what it needs of everything that a quota counts in its containers.
func specified(gr schema.GroupResource, names []corev1.ResourceName, obj runtime.Object) error {
	o, ok := obj.(*corev1.Pod)
	if !ok {
		return nil
	}
	missing := map[corev1.ResourceName][]string{}
	for _, n := range names {
		get := func(c *corev1.Container) bool { return containerSays(c.Resources, n) }
		if !perContainer(n) || (o.Spec.Resources != nil && containerSays(*o.Spec.Resources, n)) {
			continue
		}
		for _, cs := range [][]corev1.Container{o.Spec.Containers, o.Spec.InitContainers} {
			for i := range cs {
				if !get(&cs[i]) {
					missing[n] = append(missing[n], cs[i].Name)
				}
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	var parts []string
	for n, containers := range missing {
		slices.Sort(containers)
		parts = append(parts, fmt.Sprintf("%s for: %s", n, strings.Join(containers, ",")))
	}
	slices.Sort(parts)
	return fmt.Errorf("must specify %s", strings.Join(parts, "; "))
}

// perContainer reports whether a quota on the name obliges every container to speak about it.
func perContainer(n corev1.ResourceName) bool {
	switch n {
	case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory,
		corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory:
		return true
	}
	return false
}

func containerSays(rs corev1.ResourceRequirements, n corev1.ResourceName) bool {
	list := rs.Requests
	if rest, ok := strings.CutPrefix(string(n), "limits."); ok {
		list, n = rs.Limits, corev1.ResourceName(rest)
	}
	_, ok := list[corev1.ResourceName(strings.TrimPrefix(string(n), "requests."))]
	return ok
}

// book writes a quota's new usage, unless the quota has changed since it was read.
func (p *resourceQuota) book(ctx context.Context, q *corev1.ResourceQuota) error {
	e, ok := read.Entry[*corev1.ResourceQuota](p.st, q.Namespace, q.Name)
	if !ok || e.Object.(*corev1.ResourceQuota).ResourceVersion != q.ResourceVersion {
		return &store.Conflict{Key: q.Name, Current: e}
	}
	_, err := p.st.Update(ctx, e.Key, e.Rev, q, 0)
	return err
}

// catchUp waits until the cache knows of the writes that came before.
func (p *resourceQuota) catchUp(ctx context.Context) error {
	rev, err := p.st.Revision(ctx)
	if err != nil {
		return err
	}
	return p.st.WaitFor(ctx, rev)
}

func joinNames(names []corev1.ResourceName) string {
	s := make([]string, len(names))
	for i, n := range names {
		s[i] = string(n)
	}
	slices.Sort(s)
	return strings.Join(s, ",")
}

func joinList(l corev1.ResourceList) string {
	var parts []string
	for n, q := range l {
		parts = append(parts, string(n)+"="+q.String())
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}
