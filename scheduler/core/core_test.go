package core

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/skiff-sh/skiff/api"
)

func makeCluster(objects ...api.Object) *Cluster {
	c := New()
	for _, o := range objects {
		c.Set(o)
	}
	return c
}

func (c *Cluster) put(node string, p *corev1.Pod) { c.settle(c.boundPod(p), node) }

func (c *Cluster) decide(p *corev1.Pod) Decision { return c.Decide(c.Pod(p, DefaultProfile())) }

func inZone(zone string) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Labels[corev1.LabelTopologyZone] = zone }
}

func TestEveryRefusalSaysWhy(t *testing.T) {
	completed := map[string]string{bindCompleted: "yes"}
	claim := func(edit func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
		o := waitingClaim("data", "1Gi")
		edit(o)
		return o
	}
	bound := claim(func(o *corev1.PersistentVolumeClaim) { o.Spec.VolumeName, o.Annotations = "v", completed })
	csi := func(o *corev1.PersistentVolume) *corev1.PersistentVolume {
		o.Spec.NodeAffinity = nil
		o.Spec.PersistentVolumeSource = corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "d", VolumeHandle: o.Name}}
		return o
	}
	for _, test := range []struct {
		why     string // as the message has it
		node    func(*corev1.Node)
		there   []*corev1.Pod
		objects []api.Object
		pod     func(*corev1.Pod)
		plugin  string
		lasting bool
	}{
		{why: "1 node(s) were unschedulable.", node: func(n *corev1.Node) { n.Spec.Unschedulable = true }, lasting: true, plugin: NodeUnschedulable},
		{why: "1 node(s) had untolerated taint(s).", node: func(n *corev1.Node) {
			n.Spec.Taints = []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectNoExecute}}
		}, lasting: true, plugin: TaintToleration},
		{why: "1 node(s) didn't match Pod's node affinity/selector.", pod: func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"a": "b"} }, lasting: true, plugin: NodeAffinity},
		{why: "1 node(s) didn't satisfy plugin(s) [NodeAffinity].", pod: func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
				{MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{"other"}}}}}}}}
		}, lasting: true, plugin: NodeAffinity},
		{why: "1 node(s) didn't have free ports for the requested pod ports.", there: []*corev1.Pod{makePod("x", onPort(80))}, pod: onPort(80), plugin: NodePorts},
		{why: "1 Insufficient cpu.", pod: asks("cpu", "5"), lasting: true, plugin: NodeResourcesFit},
		{why: "1 Insufficient cpu.", there: []*corev1.Pod{makePod("x", asks("cpu", "3"))}, pod: asks("cpu", "2"), plugin: NodeResourcesFit},
		{why: "1 Insufficient memory.", there: []*corev1.Pod{makePod("x", asks("memory", "5Gi"))}, pod: asks("memory", "5Gi"), plugin: NodeResourcesFit},
		{why: "1 Insufficient example.com/dongle.", pod: asks("example.com/dongle", "1"), lasting: true, plugin: NodeResourcesFit},
		{why: "1 Too many pods.", node: func(n *corev1.Node) { n.Status.Allocatable[corev1.ResourcePods] = resource.MustParse("1") }, there: []*corev1.Pod{makePod("x")}, plugin: NodeResourcesFit},
		{why: "1 Insufficient cpu, 1 Insufficient memory.", pod: asks("cpu", "5", "memory", "9Gi"), lasting: true, plugin: NodeResourcesFit},
		{why: "1 node(s) didn't match pod anti-affinity rules.", there: []*corev1.Pod{makePod("x", labelled("app", "a"))}, pod: away("a"), plugin: InterPodAffinity},
		{why: "1 node(s) didn't satisfy existing pods anti-affinity rules.", there: []*corev1.Pod{makePod("x", away("a"))}, pod: labelled("app", "a"), plugin: InterPodAffinity},
		{why: "1 node(s) didn't match pod affinity rules.", pod: func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
				{TopologyKey: corev1.LabelHostname, LabelSelector: selector("app", "nobody")}}}}
		}, lasting: true, plugin: InterPodAffinity},
		{why: "1 node(s) didn't match pod topology spread constraints (missing required label).", pod: spread(1, "zone", "a", corev1.DoNotSchedule), lasting: true, plugin: PodTopologySpread},
		{why: "1 node(s) didn't match Pod's required features.", pod: func(p *corev1.Pod) {
			p.Spec.Containers[0].RestartPolicyRules = []corev1.ContainerRestartRule{{Action: corev1.ContainerRestartRuleActionRestartAllContainers}}
		}, lasting: true, plugin: NodeDeclaredFeatures},
		{why: ` persistentvolumeclaim "data" not found.`, pod: claims("data"), plugin: VolumeBinding},
		{why: ` persistentvolumeclaim "data" is being deleted.`, pod: claims("data"), plugin: VolumeBinding,
			objects: []api.Object{claim(func(o *corev1.PersistentVolumeClaim) { o.DeletionTimestamp = &metav1.Time{} })}},
		{why: " pod has unbound immediate PersistentVolumeClaims.", pod: claims("data"), plugin: VolumeBinding, objects: []api.Object{waitingClaim("data", "1Gi")}},
		{why: "1 node(s) didn't match PersistentVolume's node affinity.", pod: claims("data"), lasting: true, plugin: VolumeBinding,
			objects: []api.Object{localVolume("v", "elsewhere", "1Gi", "wait"), bound}},
		{why: ` persistentvolume "v" not found.`, pod: claims("data"), plugin: VolumeZone, objects: []api.Object{bound}},
		{why: "1 node(s) didn't find available persistent volumes to bind.", pod: claims("data"), lasting: true, plugin: VolumeBinding,
			objects: []api.Object{waitingClass("kubernetes.io/no-provisioner"), localVolume("v", "elsewhere", "1Gi", "wait"), waitingClaim("data", "1Gi")}},
		{why: "1 node(s) did not have enough free storage.", pod: claims("data"), lasting: true, plugin: VolumeBinding,
			objects: []api.Object{waitingClass("d"), waitingClaim("data", "5Gi"), &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "d"}, Spec: storagev1.CSIDriverSpec{StorageCapacity: ptr.To(true)}},
				&storagev1.CSIStorageCapacity{ObjectMeta: metav1.ObjectMeta{Name: "c"}, StorageClassName: "wait", Capacity: ptr.To(resource.MustParse("4Gi")), NodeTopology: &metav1.LabelSelector{}}}},
		{why: "1 node(s) exceed max volume count.", pod: claims("data"), plugin: NodeVolumeLimits, there: []*corev1.Pod{makePod("x", claims("other"))},
			objects: []api.Object{csi(localVolume("v", "", "1Gi", "wait")), csi(localVolume("w", "", "1Gi", "wait")), bound,
				func() api.Object {
					o := bound.DeepCopy()
					o.Name, o.Spec.VolumeName = "other", "w"
					return o
				}(), &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{{Name: "d", Allocatable: &storagev1.VolumeNodeResources{Count: ptr.To(int32(1))}}}}}}},
		{why: "1 node(s) had no available volume zone.", pod: claims("data"), lasting: true, plugin: VolumeZone, node: inZone("a"), objects: []api.Object{bound, func() api.Object {
			v := csi(localVolume("v", "", "1Gi", "wait"))
			v.Labels = map[string]string{corev1.LabelFailureDomainBetaZone: "b__c"}
			return v
		}()}},
		{why: "1 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod.", pod: claims("data"), plugin: VolumeRestrictions,
			there: []*corev1.Pod{makePod("x", claims("data"))}, objects: []api.Object{csi(localVolume("v", "", "1Gi", "wait")), func() api.Object {
				o := bound.DeepCopy()
				o.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}
				return o
			}()}},
		{why: "1 cannot allocate all claims.", pod: claimsDevice("gpu"), lasting: true, plugin: DynamicResources,
			objects: []api.Object{&resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}}, deviceClaim("gpu"), deviceSlice("elsewhere", 1)}},
		{why: " request gpu: device class gpu does not exist.", pod: claimsDevice("gpu"), plugin: DynamicResources, objects: []api.Object{deviceClaim("gpu")}},
		{why: ` resourceclaim.resource.k8s.io "gpu" not found.`, pod: claimsDevice("gpu"), plugin: DynamicResources},
	} {
		t.Run(strings.Trim(test.why, " ."), func(t *testing.T) {
			node, pod := makeNode("n"), makePod("p")
			if test.node != nil {
				test.node(node)
			}
			if test.pod != nil {
				test.pod(pod)
			}
			c := makeCluster(append([]api.Object{node}, test.objects...)...)
			for _, there := range test.there {
				c.put("n", there)
			}
			d := c.decide(pod)
			want := "0/1 nodes are available: " + strings.TrimPrefix(test.why, " ")
			if d.Node != "" || d.Message("") != want || !d.RefusedBy()[test.plugin] {
				t.Fatalf("on %q: %s by %v, want %s by %s", d.Node, d.Message(""), d.RefusedBy(), want, test.plugin)
			}
			if d.Reason == "" && d.refusalOf(c.byName["n"]).Lasting != test.lasting {
				t.Errorf("lasting is %v", !test.lasting)
			}
		})
	}
}

func TestProfileLeavesRulesOut(t *testing.T) {
	lost := waitingClaim("data", "1Gi")
	lost.Spec.VolumeName, lost.Annotations = "gone", map[string]string{bindCompleted: "yes"}
	c := makeCluster(makeNode("a", func(n *corev1.Node) { n.Spec.Unschedulable = true }), lost)
	profile := DefaultProfile()
	profile.Filters[VolumeZone] = false
	want := "0/1 nodes are available: 1 node(s) were unschedulable."
	d := c.Decide(c.Pod(makePod("p", claims("data")), profile))
	if d.Message("") != want {
		t.Error(d.Message(""))
	}
	profile = DefaultProfile()
	profile.SchedulerName, profile.Filters = "lax", map[string]bool{}
	if d = c.Decide(c.Pod(makePod("p", claims("data"), asks("cpu", "99")), profile)); d.Node != "a" {
		t.Error("without rules, refused by", d.RefusedBy())
	}
}

func TestMessage(t *testing.T) {
	c := makeCluster(makeNode("a"), makeNode("b"), makeNode("c", func(n *corev1.Node) { n.Spec.Unschedulable = true }))
	c.put("a", makePod("x", asks("cpu", "3", "memory", "6Gi"), important(5)))
	c.put("b", makePod("y", asks("cpu", "3"), important(5)))
	p := c.Pod(makePod("p", asks("cpu", "2", "memory", "3Gi")), DefaultProfile())
	d := c.Decide(p)
	_, ok, counts := c.Preempt(p, &d, nil)
	want := "0/3 nodes are available: 1 Insufficient memory, 1 node(s) were unschedulable, 2 Insufficient cpu. " +
		"no new claims to deallocate, preemption: 0/3 nodes are available: 1 Preemption is not helpful for scheduling, 2 No preemption victims found for incoming pod."
	if got := d.Message(d.Hint(p, d.PreemptionMessage(counts))); ok || got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if d := New().decide(makePod("p")); d.Message("") != "no nodes available to schedule pods" {
		t.Error(d.Message(""))
	}
}

func TestSpreadEvens(t *testing.T) {
	c := makeCluster(makeNode("a"), makeNode("b"))
	c.put("a", makePod("1", labelled("app", "a")))
	ending := makePod("2", labelled("app", "a"))
	ending.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	c.put("b", ending) // counts no more
	if d := c.decide(makePod("3", labelled("app", "a"), spread(1, corev1.LabelHostname, "a", corev1.DoNotSchedule))); d.Node != "b" {
		t.Errorf("chose %q, want b", d.Node)
	}
}

// Pods of a replica set spread over zones without asking for it.
func TestSpreadByDefault(t *testing.T) {
	c := makeCluster(makeNode("a", inZone("1")), makeNode("b", inZone("1")), makeNode("c", inZone("2")),
		&appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: "rs", Namespace: "ns"}, Spec: appsv1.ReplicaSetSpec{Selector: selector("app", "a")}})
	own := func(p *corev1.Pod) {
		p.Labels = map[string]string{"app": "a"}
		p.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "rs", Controller: ptr.To(true)}}
	}
	count := map[string]int{}
	for i := range 4 {
		p := c.Pod(makePod(fmt.Sprint(i), own), DefaultProfile())
		d := c.Decide(p)
		c.Assume(p, d.Node)
		count[d.Node]++
	}
	if count["c"] != 2 || count["a"] != 1 || count["b"] != 1 {
		t.Errorf("spread as %v", count)
	}
}

func TestTalliesFollowNamespaceLabels(t *testing.T) {
	c := makeCluster(makeNode("a"))
	c.setNamespace("ns", map[string]string{})
	c.put("a", makePod("1", labelled("app", "a")))
	p := makePod("2", away("a"))
	p.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0].NamespaceSelector = selector("team", "x")
	if d := c.decide(p); d.Node == "" {
		t.Fatal("refused by a pod of another team:", d.Message(""))
	}
	c.setNamespace("ns", map[string]string{"team": "x"})
	if d := c.decide(p); d.Node != "" {
		t.Fatal("the namespace is the team's now, so its pod must be kept away from")
	}
}

func TestWaitingClaims(t *testing.T) {
	c := makeCluster(makeNode("a"), makeNode("b"), waitingClass("kubernetes.io/no-provisioner"), localVolume("big", "b", "9Gi", "wait"),
		localVolume("fitting", "b", "2Gi", "wait"), waitingClaim("x", "1Gi"), waitingClaim("y", "1Gi"), waitingClaim("z", "1Gi"))
	got := []string{}
	for _, name := range []string{"x", "y", "z"} {
		p := c.Pod(makePod("p"+name, claims(name)), DefaultProfile())
		d := c.Decide(p)
		for _, v := range d.Volumes() {
			got = append(got, d.Node+":"+v.Claim.Name+"="+v.Volume.Name)
		}
		if d.Node != "" {
			c.Promise(&d)
			c.Assume(p, d.Node)
		}
		if name == "y" {
			c.Release(&d) // it could not be bound: the next may have the volume
		}
	}
	if want := "b:x=fitting b:y=big b:z=big"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestDevicesAreGivenOnce(t *testing.T) {
	c := makeCluster(makeNode("a"), makeNode("b"), &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}}, deviceSlice("b", 2))
	var last Decision
	for i, want := range []string{"b", "b", ""} {
		name := fmt.Sprint("claim", i)
		c.Set(deviceClaim(name))
		p := c.Pod(makePod(fmt.Sprint("p", i), claimsDevice(name)), DefaultProfile())
		d := c.Decide(p)
		if d.Node != want {
			t.Fatalf("pod %d is on %q, want %q: %s", i, d.Node, want, d.Message(""))
		}
		if d.Node == "" {
			break
		}
		if r := d.Devices()[0].Allocation.Devices.Results; r[0].Device != fmt.Sprint("gpu-", i) {
			t.Errorf("pod %d got %v", i, r)
		}
		c.Promise(&d)
		c.Assume(p, d.Node)
		last = d
	}
	c.Release(&last)
	if d := c.decide(makePod("again", claimsDevice("claim2"))); d.Node != "b" {
		t.Error("a device that was given back is not free:", d.Message(""))
	}
	// A claim that has its devices keeps its pods where they are.
	shared := deviceClaim("shared")
	shared.Status.Allocation = &resourcev1.AllocationResult{NodeSelector: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
		MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{"a"}}}}}}}
	c.Set(shared)
	if d := c.decide(makePod("friend", claimsDevice("shared"))); d.Node != "a" || len(d.Devices()) != 1 || d.Devices()[0].Allocation != nil {
		t.Error("on", d.Node, d.Message(""), d.Devices())
	}
}

func TestStrategies(t *testing.T) {
	half := func(n *corev1.Node) { n.Status.Allocatable = list("cpu", "2", "memory", "4Gi", "pods", "10") }
	for _, test := range []struct {
		s    Strategy
		want string
	}{
		{Strategy{Type: LeastAllocated, Resources: cpuAndMemory()}, "big"},
		{Strategy{Type: MostAllocated, Resources: cpuAndMemory()}, "small"},
		{Strategy{Type: RequestedToCapacityRatio, Resources: cpuAndMemory(), Shape: []ShapePoint{{0, 0}, {100, 100}}}, "small"},
		{Strategy{Type: RequestedToCapacityRatio, Resources: cpuAndMemory(), Shape: []ShapePoint{{0, 100}, {100, 0}}}, "big"},
	} {
		profile := DefaultProfile()
		profile.Fit = test.s
		c := makeCluster(makeNode("small", half), makeNode("big"))
		if d := c.Decide(c.Pod(makePod("p", asks("cpu", "1", "memory", "2Gi")), profile)); d.Node != test.want {
			t.Errorf("%s %v chose %s", test.s.Type, test.s.Shape, d.Node)
		}
	}
}

func TestImagesAttract(t *testing.T) {
	has := func(n *corev1.Node) {
		n.Status.Images = []corev1.ContainerImage{{Names: []string{"registry.example.com:5000/app:latest"}, SizeBytes: 900 << 20}}
	}
	c := makeCluster(makeNode("a"), makeNode("b"))
	p := makePod("p", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "registry.example.com:5000/app" })
	if d := c.decide(p); d.Node != "a" {
		t.Fatal("first is", d.Node)
	}
	c.Set(makeNode("b", has)) // what is remembered about a pod like this must go
	if d := c.decide(p); d.Node != "b" {
		t.Error("the node that has the image was not chosen")
	}
}

func TestPreemption(t *testing.T) {
	started := func(at int64) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Status.StartTime = &metav1.Time{Time: time.Unix(at, 0)} }
	}
	guard := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "guard", Namespace: "ns"}, Spec: policyv1.PodDisruptionBudgetSpec{Selector: selector("app", "a")}}
	cpu := func(n string) func(*corev1.Pod) { return asks("cpu", n) }
	type placed struct {
		node string
		pod  *corev1.Pod
	}
	for _, test := range []struct {
		name    string
		there   []placed
		pod     *corev1.Pod
		budgets []api.Object
		node    string
		victims string
	}{
		{"equals stay", []placed{{"a", makePod("x", cpu("4"), important(5))}, {"b", makePod("y", cpu("4"), important(5))}}, makePod("p", cpu("2"), important(5)), nil, "", ""},
		{"the least important goes", []placed{{"a", makePod("x", cpu("4"), important(5))}, {"b", makePod("y", cpu("4"), important(1))}}, makePod("p", cpu("2"), important(9)), nil, "b", "y"},
		{"who can stay stays", []placed{{"a", makePod("x", cpu("2"), important(2))}, {"a", makePod("y", cpu("2"), important(1))}, {"b", makePod("z", cpu("4"), important(9))}}, makePod("p", cpu("2"), important(9)), nil, "a", "y"},
		{"a budget counts more", []placed{{"a", makePod("x", cpu("4"), important(1), labelled("app", "a"))}, {"b", makePod("y", cpu("4"), important(3))}}, makePod("p", cpu("2"), important(9)), []api.Object{guard}, "b", "y"},
		{"fewer victims", []placed{{"a", makePod("x", cpu("2"))}, {"a", makePod("y", cpu("2"))}, {"b", makePod("z", cpu("4"))}}, makePod("p", cpu("4"), important(9)), nil, "b", "z"},
		{"who came last", []placed{{"a", makePod("x", cpu("4"), started(1))}, {"b", makePod("y", cpu("4"), started(2))}}, makePod("p", cpu("4"), important(9)), nil, "b", "y"},
		{"ports", []placed{{"a", makePod("x", onPort(80))}, {"b", makePod("y", onPort(80), important(1))}}, makePod("p", onPort(80), important(9)), nil, "a", "x"},
		{"anti-affinity", []placed{{"a", makePod("x", labelled("app", "a"), important(2))}, {"b", makePod("y", labelled("app", "a"), important(1))}}, makePod("p", away("a"), important(9)), nil, "b", "y"},
		{"spread", []placed{{"a", makePod("x", labelled("app", "a"), cpu("1"))}, {"b", makePod("y", cpu("4"), important(9))}},
			makePod("p", cpu("1"), labelled("app", "a"), spread(1, corev1.LabelHostname, "a", corev1.DoNotSchedule), important(9)), nil, "a", "x"},
		{"too big for any node", []placed{{"a", makePod("x", cpu("1"))}}, makePod("p", cpu("5"), important(9)), nil, "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := makeCluster(append([]api.Object{makeNode("a"), makeNode("b")}, test.budgets...)...)
			for _, there := range test.there {
				c.put(there.node, there.pod)
			}
			p := c.Pod(test.pod, DefaultProfile())
			d := c.Decide(p)
			if d.Node != "" {
				t.Fatal("there is room on", d.Node)
			}
			picture := func() string {
				return fmt.Sprint(c.byName["a"].used, c.byName["b"].used, len(c.pods), len(c.log), len(c.kins), c.wiring, c.priorities)
			}
			c.Preempt(p, &d, nil) // makes what it remembers
			before := picture()
			got, ok, _ := c.Preempt(p, &d, nil)
			if after := picture(); after != before {
				t.Fatalf("the trial changed the cluster from %s to %s", before, after)
			}
			if !ok {
				if test.node != "" {
					t.Fatal("found nobody")
				}
				return
			}
			var names []string
			for _, v := range got.Victims {
				names = append(names, v.obj.Name)
			}
			if got.Node != test.node || strings.Join(names, ",") != test.victims {
				t.Errorf("cleared %s of %v, want %s of %s", got.Node, names, test.node, test.victims)
			}
		})
	}
}

func TestNominationKeepsRoom(t *testing.T) {
	c := makeCluster(makeNode("a"), makeNode("b", func(n *corev1.Node) { n.Status.Allocatable = list("cpu", "1", "memory", "1Gi", "pods", "10") }))
	pod := func(name string, edit ...func(*corev1.Pod)) *Pod {
		return c.Pod(makePod(name, edit...), DefaultProfile())
	}
	victim := makePod("victim", asks("cpu", "4"))
	c.put("a", victim)
	big := pod("big", asks("cpu", "4"), important(5))
	c.Nominate(big, "a")
	c.Depart("victim")
	if c.MayNotPreempt(big) == "" {
		t.Error("preempted again while its victim is leaving")
	}
	c.Delete(victim)
	if d := c.Decide(pod("small", asks("cpu", "2"), important(5))); d.Node != "" {
		t.Error("an equal took the room on", d.Node)
	}
	if d := c.Decide(pod("higher", asks("cpu", "2"), important(6))); d.Node == "" {
		t.Error("a more important pod was kept out:", d.Message(""))
	}
	if d := c.Decide(big); d.Node != "a" {
		t.Error("the nominated pod did not get its node")
	}
	if displaced := c.Nominate(pod("higher", important(6)), "a"); len(displaced) != 1 || displaced[0] != big {
		t.Error("displaced", displaced)
	}
	never := pod("never", func(p *corev1.Pod) { p.Spec.PreemptionPolicy = ptr.To(corev1.PreemptNever) })
	if c.MayNotPreempt(never) == "" {
		t.Error("preemptionPolicy Never may preempt")
	}
}

// TestLeavesNothing: when all objects are gone, nothing is remembered about them that could pile up.
func TestLeavesNothing(t *testing.T) {
	c := makeCluster(makeNode("a"), makeNode("b"), waitingClass("d"))
	for i := range 50 {
		name := fmt.Sprint("p", i)
		c.Set(waitingClaim(name, "1Gi"))
		obj := makePod(name, labelled("app", name), away(name), claims(name))
		p := c.Pod(obj, DefaultProfile())
		if d := c.Decide(p); d.Node != "" {
			c.Assume(p, d.Node)
		} else {
			c.Nominate(p, "a")
		}
	}
	for i := range 50 {
		c.Delete(makePod(fmt.Sprint("p", i)))
		c.Delete(waitingClaim(fmt.Sprint("p", i), "1Gi"))
	}
	c.Delete(makeNode("a"))
	c.Delete(makeNode("b"))
	left := fmt.Sprint(len(c.pods), len(c.kins), len(c.owned), len(c.nominated), len(c.waiting), len(c.byName), len(c.users), len(c.storage.used), len(c.priorities), c.ready)
	if left != "0 0 0 0 0 0 0 0 0 0" || slices.ContainsFunc(c.nodes, func(n *node) bool { return n != nil }) {
		t.Error("left:", left)
	}
}
