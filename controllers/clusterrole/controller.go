// Package clusterrole fills aggregated ClusterRoles with the rules of the roles that they select.
//
// Invariant: the rules of a role with an aggregationRule are exactly the union of the selected roles' rules, in the
// order of those roles' names. Only controllers/ may import clusterrole.
package clusterrole

import (
	"cmp"
	"context"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/reconcile"
)

// New is the aggregation controller. Any change makes all aggregated roles due: there are few.
func New(d reconcile.Deps) reconcile.Controller {
	roles := client.CacheOf[*rbacv1.ClusterRole](d.Caches)
	return reconcile.Controller{
		Name: "clusterrole-aggregation-controller", Workers: 1,
		Inputs: []reconcile.Input{reconcile.Map(d.Caches, func(old, new *rbacv1.ClusterRole) (keys []reconcile.Key) {
			for _, r := range roles.List("") {
				if r.AggregationRule != nil {
					keys = append(keys, plan.KeyOf(r))
				}
			}
			return keys
		})},
		Writes: []string{"rbac.authorization.k8s.io/clusterroles"},
		Reconcile: func(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
			r, ok := roles.Get("", key.Name)
			if !ok {
				return reconcile.Result{}, nil
			}
			return reconcile.Result{}, plan.Apply(ctx, d, Plan(r, roles.List(""))...)
		},
	}
}

// Plan updates one aggregated role.
func Plan(role *rbacv1.ClusterRole, all []*rbacv1.ClusterRole) []plan.Action {
	if role.AggregationRule == nil || role.DeletionTimestamp != nil {
		return nil
	}
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b *rbacv1.ClusterRole) int { return cmp.Compare(a.Name, b.Name) })
	var rules []rbacv1.PolicyRule
	for _, s := range role.AggregationRule.ClusterRoleSelectors {
		sel, err := metav1.LabelSelectorAsSelector(&s)
		if err != nil {
			continue
		}
		for _, r := range all {
			if r.Name == role.Name || !sel.Matches(labels.Set(r.Labels)) {
				continue
			}
			for _, rule := range r.Rules {
				if !slices.ContainsFunc(rules, func(have rbacv1.PolicyRule) bool { return equality.Semantic.DeepEqual(have, rule) }) {
					rules = append(rules, rule)
				}
			}
		}
	}
	if equality.Semantic.DeepEqual(role.Rules, rules) {
		return nil
	}
	next := role.DeepCopy()
	next.Rules = rules
	return []plan.Action{plan.Update{Obj: next}}
}
