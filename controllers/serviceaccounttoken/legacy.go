package serviceaccounttoken

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-sh/skiff/client"
	"github.com/skiff-sh/skiff/controllers/plan"
	"github.com/skiff-sh/skiff/reconcile"
)

const (
	// LegacyPeriod is how long a token must lie idle before it is called invalid, and as long again before it goes.
	LegacyPeriod = 365 * 24 * time.Hour

	lastUsedLabel     = "kubernetes.io/legacy-token-last-used"
	invalidSinceLabel = "kubernetes.io/legacy-token-invalid-since"
	trackingConfig    = "kube-apiserver-legacy-service-account-token-tracking"
	trackingKey       = "since"

	dates    = "2006-01-02"
	revisits = 24 * time.Hour
)

// Cleaner is the controller that retires tokens that an earlier version of Kubernetes made for every account and that
// nobody has used for period, as far as the API server has kept track.
func Cleaner(d reconcile.Deps, period time.Duration) reconcile.Controller {
	cs := d.Caches
	all, accounts, pods := secrets(cs), client.CacheOf[*corev1.ServiceAccount](cs), client.CacheOf[*corev1.Pod](cs)
	return reconcile.Controller{
		Name: "legacy-serviceaccount-token-cleaner-controller", Workers: 1,
		Inputs: []reconcile.Input{reconcile.Own[*corev1.Secret](cs, ofTokens)},
		Writes: []string{"secrets"},
		Reconcile: func(ctx context.Context, key reconcile.Key) (reconcile.Result, error) {
			s, ok := all.Get(key.Namespace, key.Name)
			if !ok || s.DeletionTimestamp != nil {
				return reconcile.Result{}, nil
			}
			a, _ := accounts.Get(s.Namespace, s.Annotations[corev1.ServiceAccountNameKey])
			if a == nil || !names(s, a) || !slices.ContainsFunc(a.Secrets, func(r corev1.ObjectReference) bool { return r.Name == s.Name }) {
				return reconcile.Result{}, nil // nobody made it but a user
			}
			again := reconcile.Result{After: revisits}
			tracked, err := trackedSince(ctx, d)
			if err != nil || tracked.IsZero() {
				return again, err
			}
			used := slices.ContainsFunc(pods.List(s.Namespace), func(p *corev1.Pod) bool { return mounts(p, s.Name) })
			return again, plan.Apply(ctx, d, Retire(s, used, tracked, period, d.Clock.Now())...)
		},
	}
}

// trackedSince is from when on the API server notes the use of tokens; zero if it does not.
func trackedSince(ctx context.Context, d reconcile.Deps) (time.Time, error) {
	cm, err := client.Get[*corev1.ConfigMap](ctx, d.Client, metav1.NamespaceSystem, trackingConfig)
	if apierrors.IsNotFound(err) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	t, err := time.Parse(dates, cm.Data[trackingKey])
	if err != nil {
		return time.Time{}, nil
	}
	return t.AddDate(0, 0, 1), nil // some time within that day
}

// mounts reports whether a pod has the Secret as a volume or in its environment, or pulls with it.
func mounts(p *corev1.Pod, secret string) bool {
	for _, r := range p.Spec.ImagePullSecrets {
		if r.Name == secret {
			return true
		}
	}
	for _, v := range p.Spec.Volumes {
		if v.Secret != nil && v.Secret.SecretName == secret {
			return true
		}
		if v.Projected == nil {
			continue
		}
		for _, src := range v.Projected.Sources {
			if src.Secret != nil && src.Secret.Name == secret {
				return true
			}
		}
	}
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for _, c := range list {
			for _, e := range c.EnvFrom {
				if e.SecretRef != nil && e.SecretRef.Name == secret {
					return true
				}
			}
			for _, e := range c.Env {
				if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil && e.ValueFrom.SecretKeyRef.Name == secret {
					return true
				}
			}
		}
	}
	return false
}

// Retire marks an idle token invalid, and deletes one that has been so for as long.
func Retire(s *corev1.Secret, used bool, tracked time.Time, period time.Duration, now time.Time) []plan.Action {
	limit := now.UTC().Add(-period)
	if used || tracked.After(limit) || !s.CreationTimestamp.Time.Before(limit) {
		return nil
	}
	if last, ok := s.Labels[lastUsedLabel]; ok {
		if t, err := time.Parse(dates, last); err != nil || !t.Before(limit.Truncate(24*time.Hour)) {
			return nil
		}
	}
	since, err := time.Parse(dates, s.Labels[invalidSinceLabel])
	if err != nil {
		data, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": s.UID, "labels": map[string]string{invalidSinceLabel: now.UTC().Format(dates)}}})
		if err != nil {
			panic(err) // strings go into JSON
		}
		return []plan.Action{plan.Patch{Obj: s, Type: types.MergePatchType, Data: data}}
	}
	if !since.Before(limit.Truncate(24 * time.Hour)) {
		return nil
	}
	return []plan.Action{plan.Delete{Obj: s, Exact: true}}
}
