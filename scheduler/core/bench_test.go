package core

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// The shapes are those of upstream's scheduler_perf, at 5,000 nodes, decisions alone: a pod is prepared, decided upon and
// settled. Each benchmark reports pods for a second of processor time.

const benchNodes = 5000

func benchCluster(nodes int, edit ...func(i int, n *corev1.Node)) *Cluster {
	c := New()
	for i := range nodes {
		n := makeNode(fmt.Sprint("n", i))
		n.Labels["zone"] = fmt.Sprint("z", i%10)
		n.Labels[corev1.LabelTopologyZone] = fmt.Sprint("z", i%10)
		n.Status.Allocatable = list("cpu", "4", "memory", "32Gi", "pods", "110")
		for _, f := range edit {
			f(i, n)
		}
		c.Set(n)
	}
	return c
}

type benchShape struct {
	name  string
	goal  int // pods/s
	setup func() *Cluster
	// pod is the i-th pod, with what has to exist before it.
	pod func(c *Cluster, i int) *corev1.Pod
	// fails says that no node is expected.
	fails bool
}

func small(name string, edit ...func(*corev1.Pod)) *corev1.Pod {
	return makePod(name, append([]func(*corev1.Pod){asks("cpu", "100m", "memory", "500Mi")}, edit...)...)
}

func inGroup(color string, anti bool, preferred bool, key string, ns *metav1.LabelSelector) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Labels = map[string]string{"color": color, "name": "test"}
		term := corev1.PodAffinityTerm{TopologyKey: key, LabelSelector: selector("color", color), NamespaceSelector: ns}
		a := &corev1.Affinity{}
		switch {
		case anti && preferred:
			a.PodAntiAffinity = &corev1.PodAntiAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{Weight: 1, PodAffinityTerm: term}}}
		case anti:
			a.PodAntiAffinity = &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term}}
		case preferred:
			a.PodAffinity = &corev1.PodAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{Weight: 1, PodAffinityTerm: term}}}
		default:
			a.PodAffinity = &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{term}}
		}
		p.Spec.Affinity = a
	}
}

func fill(c *Cluster, n int, pod func(i int) *corev1.Pod) *Cluster {
	profile := DefaultProfile()
	for i := range n {
		p := c.Pod(pod(i), profile)
		d := c.Decide(p)
		if d.Node == "" {
			panic(d.Message(""))
		}
		c.Assume(p, d.Node)
	}
	return c
}

var benchShapes = []benchShape{
	{name: "Basic", goal: 20000, setup: func() *Cluster {
		return fill(benchCluster(benchNodes), 1000, func(i int) *corev1.Pod { return small(fmt.Sprint("init", i)) })
	}, pod: func(_ *Cluster, i int) *corev1.Pod { return small(fmt.Sprint("p", i)) }},
	{name: "AntiAffinity", goal: 1800, setup: func() *Cluster {
		return fill(benchCluster(benchNodes), 1000, func(i int) *corev1.Pod {
			return small(fmt.Sprint("init", i), inGroup("green", true, false, corev1.LabelHostname, nil))
		})
	}, pod: func(_ *Cluster, i int) *corev1.Pod {
		return small(fmt.Sprint("p", i), inGroup(fmt.Sprint("green", i/2000), true, false, corev1.LabelHostname, nil))
	}},
	{name: "AntiAffinityNamespaces", goal: 720, setup: func() *Cluster {
		c := benchCluster(benchNodes)
		for i := range 100 {
			c.setNamespace(fmt.Sprint("ns", i), map[string]string{"team": "devops"})
		}
		return fill(c, 4000, func(i int) *corev1.Pod {
			p := small(fmt.Sprint("init", i), inGroup("green", true, false, corev1.LabelHostname, selector("team", "devops")))
			p.Namespace = fmt.Sprint("ns", i%100)
			return p
		})
	}, pod: func(_ *Cluster, i int) *corev1.Pod {
		p := small(fmt.Sprint("p", i), inGroup(fmt.Sprint("g", i/500), true, false, corev1.LabelHostname, selector("team", "devops")))
		p.Namespace = fmt.Sprint("ns", i%100)
		return p
	}},
	{name: "Affinity", goal: 1050, setup: func() *Cluster {
		return fill(benchCluster(benchNodes), 5000, func(i int) *corev1.Pod {
			return small(fmt.Sprint("init", i), inGroup("blue", false, false, "zone", nil))
		})
	}, pod: func(_ *Cluster, i int) *corev1.Pod {
		return small(fmt.Sprint("p", i), inGroup("blue", false, false, "zone", nil))
	}},
	{name: "PreferredAffinity", goal: 2700, setup: func() *Cluster {
		return fill(benchCluster(benchNodes), 5000, func(i int) *corev1.Pod {
			return small(fmt.Sprint("init", i), inGroup("red", false, true, corev1.LabelHostname, nil))
		})
	}, pod: func(_ *Cluster, i int) *corev1.Pod {
		return small(fmt.Sprint("p", i), inGroup("red", false, true, corev1.LabelHostname, nil))
	}},
	{name: "PreferredAntiAffinity", goal: 2700, setup: func() *Cluster {
		return fill(benchCluster(benchNodes), 5000, func(i int) *corev1.Pod {
			return small(fmt.Sprint("init", i), inGroup("yellow", true, true, corev1.LabelHostname, nil))
		})
	}, pod: func(_ *Cluster, i int) *corev1.Pod {
		return small(fmt.Sprint("p", i), inGroup("yellow", true, true, corev1.LabelHostname, nil))
	}},
	{name: "NodeAffinity", goal: 6600, setup: func() *Cluster { return benchCluster(benchNodes) }, pod: func(_ *Cluster, i int) *corev1.Pod {
		return small(fmt.Sprint("p", i), func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{
					{Key: "zone", Operator: corev1.NodeSelectorOpIn, Values: []string{"z1", "z2"}}}}}}}}
		})
	}},
	{name: "TopologySpreading", goal: 13800, setup: func() *Cluster { return benchCluster(benchNodes) }, pod: func(_ *Cluster, i int) *corev1.Pod {
		return small(fmt.Sprint("p", i), labelled("app", "a"), spread(5, "zone", "a", corev1.DoNotSchedule))
	}},
	{name: "PreferredTopologySpreading", goal: 13800, setup: func() *Cluster { return benchCluster(benchNodes) }, pod: func(_ *Cluster, i int) *corev1.Pod {
		return small(fmt.Sprint("p", i), labelled("app", "a"), spread(5, "zone", "a", corev1.ScheduleAnyway))
	}},
	{name: "Unschedulable", goal: 17700, setup: func() *Cluster { return benchCluster(benchNodes) }, fails: true, pod: func(_ *Cluster, i int) *corev1.Pod {
		return makePod(fmt.Sprint("p", i), asks("cpu", "9", "memory", "500Mi"))
	}},
	{name: "VolumesBound", goal: 8700, setup: func() *Cluster {
		c := benchCluster(benchNodes)
		for i := range benchNodes {
			c.Set(&storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("n", i)}, Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{
				{Name: "csi.example.com", NodeID: "x", Allocatable: &storagev1.VolumeNodeResources{Count: ptr.To(int32(39))}}}}})
		}
		return c
	}, pod: func(c *Cluster, i int) *corev1.Pod {
		name := fmt.Sprint("v", i)
		c.Set(&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "csi.example.com", VolumeHandle: name}}}})
		c.Set(&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns", Annotations: map[string]string{bindCompleted: "true"}},
			Spec: corev1.PersistentVolumeClaimSpec{VolumeName: name}})
		return small(fmt.Sprint("p", i), claims(name))
	}},
	{name: "VolumesOnNodes", goal: 8700, setup: func() *Cluster { return benchCluster(benchNodes) }, pod: func(c *Cluster, i int) *corev1.Pod {
		name := fmt.Sprint("v", i)
		c.Set(localVolume(name, fmt.Sprint("n", i*7919%benchNodes), "1Gi", ""))
		c.Set(&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns", Annotations: map[string]string{bindCompleted: "true"}},
			Spec: corev1.PersistentVolumeClaimSpec{VolumeName: name}})
		return small(fmt.Sprint("p", i), claims(name))
	}},
	{name: "VolumesWaitForFirstConsumer", goal: 2900, setup: func() *Cluster {
		c := benchCluster(benchNodes)
		c.Set(waitingClass("csi.example.com"))
		return c
	}, pod: func(c *Cluster, i int) *corev1.Pod {
		name := fmt.Sprint("v", i)
		c.Set(waitingClaim(name, "1Gi"))
		return small(fmt.Sprint("p", i), claims(name))
	}},
	{name: "MixedDeployments", goal: 4200, setup: func() *Cluster { // not upstream's: 400 deployments that spread by default, in 20 sizes
		c := benchCluster(benchNodes)
		for i := range 400 {
			c.Set(&appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("rs", i), Namespace: "ns"}, Spec: appsv1.ReplicaSetSpec{Selector: selector("app", fmt.Sprint("app", i))}})
		}
		return c
	}, pod: func(_ *Cluster, i int) *corev1.Pod {
		return makePod(fmt.Sprint("p", i), labelled("app", fmt.Sprint("app", i%400)), asks("cpu", fmt.Sprintf("%dm", 10+i%20), "memory", "100Mi"), func(p *corev1.Pod) {
			p.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: fmt.Sprint("rs", i%400), Controller: ptr.To(true)}}
		})
	}},
	{name: "DRA", goal: 1920, setup: func() *Cluster {
		c := benchCluster(benchNodes)
		c.Set(&resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}})
		for i := range benchNodes {
			c.Set(deviceSlice(fmt.Sprint("n", i), 10))
		}
		fill(c, 1, func(int) *corev1.Pod { // the first of a shape looks at every node
			c.Set(deviceClaim("first"))
			return small("first", claimsDevice("first"))
		})
		return c
	}, pod: func(c *Cluster, i int) *corev1.Pod {
		name := fmt.Sprint("c", i)
		c.Set(deviceClaim(name))
		return small(fmt.Sprint("p", i), claimsDevice(name))
	}},
}

// cpuTime is the processor time of the process so far: rates by it hold on a busy machine too, and count the garbage
// collector's work.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// report gives pods for each second of processor time, and how many times the goal that is.
func report(b *testing.B, pods, goal int, start time.Duration) {
	rate := float64(pods) / (cpuTime() - start).Seconds()
	b.ReportMetric(rate, "pods/cpu-s")
	b.ReportMetric(rate/float64(goal), "x-goal")
}

func BenchmarkDecide(b *testing.B) {
	for _, shape := range benchShapes {
		b.Run(shape.name, func(b *testing.B) {
			c, profile := shape.setup(), DefaultProfile()
			b.ReportAllocs()
			i, placed, start := 0, []types.UID{}, cpuTime()
			for b.Loop() {
				obj := shape.pod(c, i)
				p := c.Pod(obj, profile)
				d := c.Decide(p)
				if (d.Node == "") != shape.fails {
					b.Fatal(d.Message(""))
				}
				if shape.fails {
					_, _, counts := c.Preempt(p, &d, nil)
					_ = d.Message(d.Hint(p, d.PreemptionMessage(counts)))
				} else {
					c.Promise(&d)
					c.Assume(p, d.Node)
					placed = append(placed, obj.UID)
				}
				if i++; len(placed) >= 20000 { // rooms get full; those that came go again
					b.StopTimer()
					before := cpuTime()
					for _, uid := range placed {
						c.lift(uid)
					}
					placed = placed[:0]
					start += cpuTime() - before
					b.StartTimer()
				}
			}
			report(b, i, shape.goal, start)
		})
	}
}

// BenchmarkPreempt: nodes full of unimportant pods, then important ones that fit nowhere.
func BenchmarkPreempt(b *testing.B) {
	c := benchCluster(benchNodes)
	profile := DefaultProfile()
	refill := func() {
		for i := range benchNodes {
			for k := range 4 {
				if uid := types.UID(fmt.Sprint("low", i, "-", k)); c.pods[uid] == nil {
					p := makePod(string(uid), asks("cpu", "900m", "memory", "500Mi"))
					c.settle(c.boundPod(p), fmt.Sprint("n", i))
				}
			}
		}
	}
	refill()
	b.ReportAllocs()
	i, placed, start := 0, []types.UID{}, cpuTime()
	for b.Loop() {
		p := c.Pod(makePod(fmt.Sprint("high", i), asks("cpu", "3000m", "memory", "500Mi"), important(10)), profile)
		d := c.Decide(p)
		if d.Node != "" {
			b.Fatal("there is room")
		}
		s, ok, counts := c.Preempt(p, &d, nil)
		if !ok {
			b.Fatal(d.PreemptionMessage(counts))
		}
		c.Nominate(p, s.Node)
		for _, v := range s.Victims {
			c.Depart(v.obj.UID)
			c.Delete(v.obj)
		}
		if d = c.Decide(p); d.Node != s.Node {
			b.Fatal("not on the cleared node:", d.Message(""))
		}
		c.Assume(p, d.Node)
		placed = append(placed, p.obj.UID)
		if i++; len(placed) >= 4000 {
			b.StopTimer()
			before := cpuTime()
			for _, uid := range placed {
				c.lift(uid)
			}
			placed = placed[:0]
			refill()
			start += cpuTime() - before
			b.StartTimer()
		}
	}
	report(b, i, 17100, start)
}

// BenchmarkChurn: basic pods, while nodes, services and unschedulable pods come and go, one of each for every ten pods.
func BenchmarkChurn(b *testing.B) {
	c := benchCluster(benchNodes)
	profile := DefaultProfile()
	b.ReportAllocs()
	i, placed, start := 0, []types.UID{}, cpuTime()
	for b.Loop() {
		switch i % 20 {
		case 0:
			c.Set(makeNode("churn", func(n *corev1.Node) { n.Status.Allocatable[corev1.ResourceCPU] = resource.MustParse("2") }))
		case 5:
			c.Set(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "churn", Namespace: "ns"}, Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "foo"}}})
		case 10:
			c.Delete(makeNode("churn"))
			c.Delete(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "churn", Namespace: "ns"}})
		case 15:
			p := c.Pod(makePod("big", asks("cpu", "9"), important(10)), profile)
			d := c.Decide(p)
			c.Preempt(p, &d, nil)
		}
		p := c.Pod(small(fmt.Sprint("p", i)), profile)
		d := c.Decide(p)
		c.Assume(p, d.Node)
		placed = append(placed, p.obj.UID)
		if i++; len(placed) >= 20000 {
			b.StopTimer()
			before := cpuTime()
			for _, uid := range placed {
				c.lift(uid)
			}
			placed = placed[:0]
			start += cpuTime() - before
			b.StartTimer()
		}
	}
	report(b, i, 21300, start)
}
