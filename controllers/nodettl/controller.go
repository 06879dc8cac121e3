// Package nodettl tells every node how long its kubelet may keep Secrets and ConfigMaps before it asks for them again
// (the annotation node.alpha.kubernetes.io/ttl, in seconds): the more nodes there are, the longer.
//
// Invariant: the step changes only when the number of nodes leaves the step's range, and neighbouring ranges overlap,
// so that a cluster at a boundary does not rewrite all its nodes with each that comes and goes. Only controllers/ may
// import nodettl.
package nodettl

import (
	"context"
	"encoding/json"
	"math"
	"strconv"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/reconcile"
)

// step is how many nodes a cluster has and the seconds that go with it.
type step struct{ least, most, seconds int }

var steps = []step{{0, 100, 0}, {90, 500, 15}, {450, 1000, 30}, {900, 2000, 60}, {1800, math.MaxInt, 300}}

// Step is the step for a number of nodes, for a cluster that was at another one.
func Step(at, nodes int) int {
	for nodes > steps[at].most {
		at++
	}
	for nodes < steps[at].least {
		at--
	}
	return at
}

// New is the TTL controller.
func New(d reconcile.Deps) reconcile.Controller {
	nodes := client.CacheOf[*corev1.Node](d.Caches)
	var mu sync.Mutex
	at := 0
	return reconcile.Controller{
		Name: "ttl-controller",
		Inputs: []reconcile.Input{reconcile.Map(d.Caches, func(old, new *corev1.Node) (keys []reconcile.Key) {
			if old != nil && new != nil {
				if old.Annotations[corev1.ObjectTTLAnnotationKey] == new.Annotations[corev1.ObjectTTLAnnotationKey] {
					return nil
				}
				return []reconcile.Key{plan.KeyOf(new)}
			}
			all := nodes.List("")
			mu.Lock()
			defer mu.Unlock()
			if next := Step(at, len(all)); next != at {
				at = next
				for _, n := range all {
					keys = append(keys, plan.KeyOf(n))
				}
				return keys
			}
			if new == nil {
				return nil
			}
			return []reconcile.Key{plan.KeyOf(new)}
		})},
		Writes: []string{"nodes"},
		Reconcile: func(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
			n, ok := nodes.Get("", key.Name)
			if !ok {
				return reconcile.Result{}, nil
			}
			mu.Lock()
			seconds := steps[at].seconds
			mu.Unlock()
			return reconcile.Result{}, plan.Apply(ctx, d, Plan(n, seconds)...)
		},
	}
}

// Plan writes the annotation where it is missing or says something else.
func Plan(n *corev1.Node, seconds int) []plan.Action {
	want := strconv.Itoa(seconds)
	if have, ok := n.Annotations[corev1.ObjectTTLAnnotationKey]; ok && have == want {
		return nil
	}
	data, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{corev1.ObjectTTLAnnotationKey: want}}})
	if err != nil {
		panic(err) // two strings go into JSON
	}
	return []plan.Action{plan.Patch{Obj: n, Type: types.StrategicMergePatchType, Data: data}}
}
