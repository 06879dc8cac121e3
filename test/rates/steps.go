package main

import (
	"context"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-sh/skiff/client"
)

// measure runs f, which does n things, and prints what that took.
func (b *bench) measure(ctx context.Context, what string, n int, f func(context.Context) error) error {
	start, cpu := time.Now(), b.cpu()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	if err := f(ctx); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	took := time.Since(start)
	fmt.Fprintf(b.out, "%-44s %6d in %7.2f s  %8.0f/s  %7.0f us cpu each  %5d MB resident\n", what, n, took.Seconds(), float64(n)/took.Seconds(),
		float64((b.cpu()-cpu).Microseconds())/float64(n), b.resident()>>20)
	return nil
}

// cpu is the processor time that the control plane has used; clock ticks are 10 ms on Linux.
func (b *bench) cpu() (sum time.Duration) {
	for _, pid := range b.pids {
		raw, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			continue
		}
		fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+2:]))
		for _, f := range fields[11:13] {
			ticks, _ := strconv.Atoi(f)
			sum += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	return sum
}

func (b *bench) resident() (sum int64) {
	for _, pid := range b.pids {
		raw, err := os.ReadFile("/proc/" + pid + "/statm")
		if err != nil {
			continue
		}
		pages, _ := strconv.ParseInt(strings.Fields(string(raw))[1], 10, 64)
		sum += pages * int64(os.Getpagesize())
	}
	return sum
}

func web(name string, replicas int) *appsv1.Deployment {
	n := int32(replicas)
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: appsv1.DeploymentSpec{Replicas: &n,
		Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "nginx:1",
			Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("64Mi")}}}}}}}}
}

// deployment creates a large deployment until all of its pods are bound, and available, and deletes it until all are gone.
func deployment(ctx context.Context, b *bench) error {
	n := b.replicas
	bound := b.kubelet.bound.Load()
	b.kubelet.rests.Lock()
	err := b.measure(ctx, "deployment: created to all bound", n, func(ctx context.Context) error {
		if _, err := client.Create(ctx, b, web("large", n)); err != nil {
			return err
		}
		return b.until(ctx, func() bool { return b.kubelet.bound.Load()-bound >= int64(n) })
	})
	b.kubelet.rests.Unlock()
	if err != nil {
		return err
	}
	if err := b.measure(ctx, "deployment: and then to all available", n, func(ctx context.Context) error { return b.available(ctx, "large", n) }); err != nil {
		return err
	}
	gone := b.kubelet.gone.Load()
	return b.measure(ctx, "deployment: deleted to all pods gone", n, func(ctx context.Context) error {
		background := metav1.DeletePropagationBackground
		if err := b.Delete(ctx, client.KindOf[*appsv1.Deployment](), namespace, "large", metav1.DeleteOptions{PropagationPolicy: &background}); err != nil {
			return err
		}
		return b.until(ctx, func() bool { return b.kubelet.gone.Load()-gone >= int64(n) })
	})
}

func (b *bench) available(ctx context.Context, name string, n int) error {
	for {
		d, err := client.Get[*appsv1.Deployment](ctx, b, namespace, name)
		if err != nil {
			return err
		}
		if s := d.Status; s.ObservedGeneration >= d.Generation && int(s.AvailableReplicas) == n && int(s.UpdatedReplicas) == n && int(s.Replicas) == n {
			return nil
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// rollout replaces all pods of a deployment with the usual surge.
func rollout(ctx context.Context, b *bench) error {
	n := b.replicas / 2
	if _, err := client.Create(ctx, b, web("rolling", n)); err != nil {
		return err
	}
	if err := b.available(ctx, "rolling", n); err != nil {
		return err
	}
	if err := pause(ctx, 2*time.Second); err != nil {
		return err
	}
	err := b.measure(ctx, "rolling update, to all available", n, func(ctx context.Context) error {
		patch := []byte(`{"spec":{"template":{"spec":{"containers":[{"name":"web","image":"nginx:2"}]}}}}`)
		if _, err := client.Patch[*appsv1.Deployment](ctx, b, namespace, "rolling", "", types.StrategicMergePatchType, patch); err != nil {
			return err
		}
		return b.available(ctx, "rolling", n)
	})
	if err != nil {
		return err
	}
	return b.remove(ctx, "rolling")
}

// remove deletes a deployment and waits for its pods' end.
func (b *bench) remove(ctx context.Context, name string) error {
	foreground := metav1.DeletePropagationForeground
	if err := b.Delete(ctx, client.KindOf[*appsv1.Deployment](), namespace, name, metav1.DeleteOptions{PropagationPolicy: &foreground}); err != nil {
		return err
	}
	return b.until(ctx, func() bool { return len(b.kubelet.pods.List(namespace)) == 0 })
}

// garbage deletes an owner of many.
func garbage(ctx context.Context, b *bench) error {
	owner, err := client.Create(ctx, b, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "owner"}})
	if err != nil {
		return err
	}
	err = each(b.garbage, func(i int) error {
		_, err := client.Create(ctx, b, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("owned-%05d", i),
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: owner.Name, UID: owner.UID}}}})
		return err
	})
	if err != nil {
		return err
	}
	left := client.CacheOf[*corev1.Secret](b.caches)
	if err := b.until(ctx, func() bool { return len(left.List(namespace)) == b.garbage }); err != nil {
		return err
	}
	return b.measure(ctx, "garbage: owner deleted to all dependants gone", b.garbage, func(ctx context.Context) error {
		if err := client.Delete[*corev1.ConfigMap](ctx, b, namespace, owner.Name, owner.UID); err != nil {
			return err
		}
		return b.until(ctx, func() bool { return len(left.List(namespace)) == 0 })
	})
}

// slices measures how long after a pod's readiness has been written an endpoint slice says so to a watcher.
func slices(ctx context.Context, b *bench) error {
	const n = 50
	if _, err := client.Create(ctx, b, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "service"},
		Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "behind"}, Ports: []corev1.ServicePort{{Port: 80}}}}); err != nil {
		return err
	}
	seen := make(chan *discoveryv1.EndpointSlice, 1024)
	all := client.CacheOf[*discoveryv1.EndpointSlice](b.caches)
	defer all.Subscribe(func(e client.Event[*discoveryv1.EndpointSlice]) {
		if e.New != nil && e.New.Namespace == namespace {
			seen <- e.New
		}
	})()
	if _, err := client.Create(ctx, b, web("behind", n)); err != nil {
		return err
	}
	if err := b.available(ctx, "behind", n); err != nil {
		return err
	}
	if err := pause(ctx, 3*time.Second); err != nil {
		return err
	}
	measured := func(what string, samples int) error {
		var took []time.Duration
		for i := range samples {
			pods := b.kubelet.pods.List(namespace)
			sort.Slice(pods, func(i, j int) bool { return pods[i].Name < pods[j].Name })
			pods = behind(pods)
			p := pods[i%len(pods)]
			for len(seen) > 0 {
				<-seen
			}
			want := !ready(p)
			if err := b.kubelet.status(ctx, p, want); err != nil {
				return err
			}
			start := time.Now()
			if err := follows(ctx, seen, p.Name, want); err != nil {
				return err
			}
			took = append(took, time.Since(start))
			if err := pause(ctx, 20*time.Millisecond); err != nil {
				return err
			}
		}
		sort.Slice(took, func(i, j int) bool { return took[i] < took[j] })
		at := func(share float64) float64 {
			return float64(took[int(share*float64(len(took)-1))].Microseconds()) / 1000
		}
		fmt.Fprintf(b.out, "%-44s p50 %.1f ms  p90 %.1f ms  p99 %.1f ms\n", what, at(0.5), at(0.9), at(0.99))
		return nil
	}
	if err := measured("endpoint slice after readiness, at rest", b.samples); err != nil {
		return err
	}
	busy, err := client.Create(ctx, b, web("busy", b.replicas))
	if err != nil {
		return err
	}
	if err := measured("endpoint slice after readiness, under load", b.samples/4); err != nil {
		return err
	}
	if err := b.available(ctx, busy.Name, b.replicas); err != nil {
		return err
	}
	background := metav1.DeletePropagationBackground
	if err := b.Delete(ctx, client.KindOf[*appsv1.Deployment](), namespace, busy.Name, metav1.DeleteOptions{PropagationPolicy: &background}); err != nil {
		return err
	}
	return b.remove(ctx, "behind")
}

func behind(pods []*corev1.Pod) (out []*corev1.Pod) {
	for _, p := range pods {
		if p.Labels["app"] == "behind" {
			out = append(out, p)
		}
	}
	return out
}

func follows(ctx context.Context, seen <-chan *discoveryv1.EndpointSlice, pod string, want bool) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("no endpoint slice shows %s ready=%v", pod, want)
		case s := <-seen:
			for _, e := range s.Endpoints {
				if e.TargetRef != nil && e.TargetRef.Name == pod && e.Conditions.Ready != nil && *e.Conditions.Ready == want {
					return nil
				}
			}
		}
	}
}
