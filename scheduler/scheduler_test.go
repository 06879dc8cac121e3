package scheduler

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

func makeNode(name string, edit ...func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}},
		Status: corev1.NodeStatus{Allocatable: list("cpu", "4", "memory", "8Gi", "pods", "10")}}
	for _, f := range edit {
		f(n)
	}
	return n
}

func list(pairs ...string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		l[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return l
}

func makePod(name string, edit ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns", UID: types.UID(name)},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	for _, f := range edit {
		f(p)
	}
	return p
}

func asks(pairs ...string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Requests = list(pairs...) }
}

func labelled(key, value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Labels = map[string]string{key: value} }
}

func important(n int32) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.Priority = &n } }

func onPort(n int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: n}} }
}

func selector(key, value string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
}

func away(from string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
			{TopologyKey: corev1.LabelHostname, LabelSelector: selector("app", from)}}}}
	}
}

func spread(skew int32, key, app string, when corev1.UnsatisfiableConstraintAction) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{MaxSkew: skew, TopologyKey: key, WhenUnsatisfiable: when, LabelSelector: selector("app", app)}}
	}
}

func makeState(nodes ...*corev1.Node) *state {
	s := newState()
	s.volumes = volumeLookup{
		claim:      func(_, _ string) (*corev1.PersistentVolumeClaim, bool) { return nil, false },
		volume:     func(string) (*corev1.PersistentVolume, bool) { return nil, false },
		class:      func(string) (*storagev1.StorageClass, bool) { return nil, false },
		candidates: func(string) []*corev1.PersistentVolume { return nil },
		siblings:   func(*corev1.Pod) labels.Selector { return nil },
	}
	for _, n := range nodes {
		s.setNode(n)
	}
	return s
}

func (s *state) put(node string, p *corev1.Pod) { s.setPod(newPodState(p), node) }

func TestEveryRefusalSaysWhy(t *testing.T) {
	for _, test := range []struct {
		why     string
		node    func(*corev1.Node)
		there   *corev1.Pod
		pod     func(*corev1.Pod)
		lasting bool
	}{
		{why: "node(s) were unschedulable", node: func(n *corev1.Node) { n.Spec.Unschedulable = true }, lasting: true},
		{why: "node(s) had untolerated taint(s)", node: func(n *corev1.Node) {
			n.Spec.Taints = []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectNoExecute}}
		}, lasting: true},
		{why: "node(s) didn't match Pod's node affinity/selector", pod: func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"a": "b"} }, lasting: true},
		{why: "node(s) didn't have free ports for the requested pod ports", there: makePod("x", onPort(80)), pod: onPort(80)},
		{why: "Insufficient cpu", pod: asks("cpu", "5"), lasting: true},
		{why: "Insufficient cpu", there: makePod("x", asks("cpu", "3")), pod: asks("cpu", "2")},
		{why: "Insufficient memory", there: makePod("x", asks("memory", "5Gi")), pod: asks("memory", "5Gi")},
		{why: "Insufficient example.com/dongle", pod: asks("example.com/dongle", "1"), lasting: true},
		{why: "Too many pods", node: func(n *corev1.Node) { n.Status.Allocatable[corev1.ResourcePods] = resource.MustParse("1") }, there: makePod("x")},
		{why: "Insufficient cpu\nInsufficient memory", pod: asks("cpu", "5", "memory", "9Gi"), lasting: true},
		{why: antiAffinityReason, there: makePod("x", labelled("app", "a")), pod: away("a")},
		{why: existingAntiReason, there: makePod("x", away("a")), pod: labelled("app", "a")},
		{why: affinityReason, pod: func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
				{TopologyKey: corev1.LabelHostname, LabelSelector: selector("app", "nobody")}}}}
		}, lasting: true},
		{why: "node(s) didn't match pod topology spread constraints (missing required label)", pod: spread(1, "zone", "a", corev1.DoNotSchedule), lasting: true},
		{why: `persistentvolumeclaim "data" not found`, pod: func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}
		}, lasting: true},
	} {
		node, pod := makeNode("n"), makePod("p")
		if test.node != nil {
			test.node(node)
		}
		if test.pod != nil {
			test.pod(pod)
		}
		s := makeState(node)
		if test.there != nil {
			s.put("n", test.there)
		}
		d := s.decide(newPodState(pod))
		if want := (refusal{test.why, test.lasting}); d.node != nil || d.refusals["n"] != want {
			t.Errorf("refused with %q, want %q", d.refusals["n"].reason, test.why)
		}
	}
}

func TestSpreadEvens(t *testing.T) {
	s := makeState(makeNode("a"), makeNode("b"))
	s.put("a", makePod("1", labelled("app", "a")))
	ending := makePod("2", labelled("app", "a"))
	ending.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	s.put("b", ending) // counts no more
	d := s.decide(newPodState(makePod("3", labelled("app", "a"), spread(1, corev1.LabelHostname, "a", corev1.DoNotSchedule))))
	if d.node == nil || d.node.name != "b" {
		t.Errorf("chose %v, want b", d.node)
	}
}

func TestCountersFollowNamespaceLabels(t *testing.T) {
	s := makeState(makeNode("a"))
	s.setNamespace("ns", map[string]string{})
	s.put("a", makePod("1", labelled("app", "a")))
	p := makePod("2", away("a"))
	p.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution[0].NamespaceSelector = selector("team", "x")
	if d := s.decide(newPodState(p)); d.node == nil {
		t.Fatal("refused by a pod of another team:", d.refusals)
	}
	s.setNamespace("ns", map[string]string{"team": "x"})
	if d := s.decide(newPodState(p)); d.node != nil {
		t.Fatal("the namespace is the team's now, so its pod must be kept away from")
	}
}

func TestMessage(t *testing.T) {
	d := decision{nodes: 3, refusals: map[string]refusal{"a": {"Insufficient cpu\nInsufficient memory", false}, "b": {"Insufficient cpu", true}, "c": {"node(s) were unschedulable", true}}}
	want := "0/3 nodes are available: 1 Insufficient memory, 1 node(s) were unschedulable, 2 Insufficient cpu. " +
		"preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling."
	if got := d.message(d.noVictims()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, want := (&decision{}).message(""), "no nodes available to schedule pods"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// full decides without the classes' heap and without what they remember, and returns each feasible node's score.
func full(s *state, p *podState) map[string]int64 {
	var fs []filter
	for _, r := range filters {
		if f := r.make(p, s); f != nil {
			fs = append(fs, f)
		}
	}
	var fine []*nodeState
	for _, n := range s.nodes {
		if n != nil && n.node != nil && n.fits(p) && passes(n, fs) {
			fine = append(fine, n)
		}
	}
	totals := make([]int64, len(fine))
	for i, n := range fine {
		totals[i] = leastAllocated(n, p) + balancedAllocation(n, p)
	}
	for _, r := range scores {
		rate := r.make(p, s)
		if rate == nil || len(fine) == 0 {
			continue
		}
		raw := make([]int64, len(fine))
		for i, n := range fine {
			raw[i] = rate(n)
		}
		if r.normalize != nil {
			r.normalize(raw)
		}
		for i := range raw {
			totals[i] += r.weight * raw[i]
		}
	}
	out := map[string]int64{}
	for i, n := range fine {
		out[n.name] = totals[i]
	}
	return out
}

// randomPod draws from few shapes, so that classes and counters are shared.
func randomPod(r *rand.Rand, i int) *corev1.Pod {
	app := fmt.Sprint("app", r.IntN(3))
	p := makePod(fmt.Sprint("p", i), labelled("app", app), asks("cpu", fmt.Sprintf("%dm", 100*(1+r.IntN(4))), "memory", fmt.Sprintf("%dMi", 100*(1+r.IntN(3)))))
	switch r.IntN(8) {
	case 0:
		away(app)(p)
	case 1:
		spread(1, "zone", app, corev1.DoNotSchedule)(p)
	case 2:
		spread(2, "zone", app, corev1.ScheduleAnyway)(p)
	case 3:
		onPort(int32(8000 + r.IntN(3)))(p)
	case 4:
		p.Spec.Tolerations = []corev1.Toleration{{Key: "soft", Operator: corev1.TolerationOpExists}}
	case 5:
		p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{
			{Weight: 5, Preference: corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "zone", Operator: corev1.NodeSelectorOpIn, Values: []string{"z1"}}}}}}}}
	case 6:
		p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{
			{Weight: 10, PodAffinityTerm: corev1.PodAffinityTerm{TopologyKey: "zone", LabelSelector: selector("app", "app0")}}}}}
	}
	return p
}

func randomNode(r *rand.Rand, i int) *corev1.Node {
	return makeNode(fmt.Sprint("n", i), func(n *corev1.Node) {
		n.Labels["zone"] = fmt.Sprint("z", r.IntN(3))
		n.Status.Allocatable = list("cpu", fmt.Sprint(1+r.IntN(4)), "memory", fmt.Sprintf("%dGi", 1+r.IntN(4)), "pods", "20")
		switch r.IntN(10) {
		case 0:
			n.Spec.Unschedulable = true
		case 1:
			n.Spec.Taints = []corev1.Taint{{Key: "soft", Effect: corev1.TaintEffectPreferNoSchedule}}
		}
	})
}

// TestBestNodeInAnyHistory: whatever happened before, the chosen node has the best score that judging everything anew
// gives, and nothing is refused that would fit somewhere.
func TestBestNodeInAnyHistory(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := makeState()
		for i := range 12 {
			s.setNode(randomNode(r, i))
		}
		var live []*podState
		for i := range 200 {
			switch r.IntN(10) {
			case 0:
				s.setNode(randomNode(r, r.IntN(14)))
			case 1:
				s.dropNode(fmt.Sprint("n", r.IntN(14)))
			case 2, 3:
				if len(live) > 0 {
					k := r.IntN(len(live))
					s.dropPod(live[k].pod.UID)
					live[k] = live[len(live)-1]
					live = live[:len(live)-1]
				}
			default:
				p := newPodState(randomPod(r, i))
				want := full(s, p)
				d := s.decide(p)
				if d.node == nil {
					if len(want) > 0 || len(d.refusals) != d.nodes {
						t.Fatalf("seed %d step %d: refused with %v, but %v are feasible", seed, i, d.refusals, want)
					}
					continue
				}
				got, ok := want[d.node.name]
				for name, score := range want {
					if !ok || score > got {
						t.Fatalf("seed %d step %d: chose %s of %v, but %s is better", seed, i, d.node.name, want, name)
					}
				}
				s.setPod(p, d.node.name)
				live = append(live, p)
			}
		}
	}
}

func TestQueue(t *testing.T) {
	q, now := newQueue(), time.Unix(1000, 0)
	take := func() string {
		it, _ := q.next(now)
		if it == nil {
			return ""
		}
		return it.pod.Name
	}
	q.put(makePod("low"))
	q.put(makePod("late"))
	q.put(makePod("high", important(10)))
	if got := take(); got != "high" {
		t.Fatal("first is", got)
	}
	q.drop("high")
	if got := take(); got != "low" {
		t.Fatal("second is", got)
	}
	q.failed("low", now, false)
	if got := take(); got != "late" {
		t.Fatal("third is", got)
	}
	q.drop("late")

	if it, wake := q.next(now); it != nil || !wake.Equal(now.Add(retryUnschedulable)) {
		t.Fatalf("a parked pod: %v, wake %v", it, wake)
	}
	q.change(now, func(*corev1.Pod) bool { return false })
	if got := take(); got != "" {
		t.Fatal("a change that does not help woke", got)
	}
	q.change(now, nil)
	if it, wake := q.next(now); it != nil || !wake.Equal(now.Add(firstBackoff)) {
		t.Fatalf("a change cut the back-off short: %v, wake %v", it, wake)
	}
	now = now.Add(firstBackoff)
	if got := take(); got != "low" {
		t.Fatal("after its back-off came", got)
	}
	for range 10 {
		q.failed("low", now, true)
		_, wake := q.next(now)
		if wake.Sub(now) > lastBackoff {
			t.Fatal("back-off", wake.Sub(now))
		}
		if now = wake; take() != "low" {
			t.Fatal("not ready when its back-off was over")
		}
	}
	// A binding that failed comes back to the queue by put and failed, without having been taken.
	q.drop("low")
	q.put(makePod("unbound"))
	q.failed("unbound", now, true)
	if it, wake := q.next(now); it != nil || !wake.Equal(now.Add(firstBackoff)) {
		t.Fatalf("after a failed binding: %v, wake %v", it, wake)
	}
	q.drop("unbound")
	if it, wake := q.next(now); it != nil || !wake.IsZero() {
		t.Fatalf("an empty queue gives %v, %v", it, wake)
	}
}

func TestPreemption(t *testing.T) {
	started := func(at int64) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Status.StartTime = &metav1.Time{Time: time.Unix(at, 0)} }
	}
	guard := []budget{{namespace: "ns", selector: labels.SelectorFromSet(labels.Set{"app": "a"}), allowed: 0}}
	cpu := func(n string) func(*corev1.Pod) { return asks("cpu", n) }
	type placed struct {
		node string
		pod  *corev1.Pod
	}
	for _, test := range []struct {
		name    string
		there   []placed
		pod     *corev1.Pod
		budgets []budget
		node    string
		victims string
	}{
		{"equals stay", []placed{{"a", makePod("x", cpu("4"), important(5))}, {"b", makePod("y", cpu("4"), important(5))}}, makePod("p", cpu("2"), important(5)), nil, "", ""},
		{"the least important goes", []placed{{"a", makePod("x", cpu("4"), important(5))}, {"b", makePod("y", cpu("4"), important(1))}}, makePod("p", cpu("2"), important(9)), nil, "b", "y"},
		{"who can stay stays", []placed{{"a", makePod("x", cpu("2"), important(2))}, {"a", makePod("y", cpu("2"), important(1))}, {"b", makePod("z", cpu("4"), important(9))}}, makePod("p", cpu("2"), important(9)), nil, "a", "y"},
		{"a budget counts more", []placed{{"a", makePod("x", cpu("4"), important(1), labelled("app", "a"))}, {"b", makePod("y", cpu("4"), important(3))}}, makePod("p", cpu("2"), important(9)), guard, "b", "y"},
		{"fewer victims", []placed{{"a", makePod("x", cpu("2"))}, {"a", makePod("y", cpu("2"))}, {"b", makePod("z", cpu("4"))}}, makePod("p", cpu("4"), important(9)), nil, "b", "z"},
		{"who came last", []placed{{"a", makePod("x", cpu("4"), started(1))}, {"b", makePod("y", cpu("4"), started(2))}}, makePod("p", cpu("4"), important(9)), nil, "b", "y"},
		{"ports", []placed{{"a", makePod("x", onPort(80))}, {"b", makePod("y", onPort(80), important(1))}}, makePod("p", onPort(80), important(9)), nil, "a", "x"},
		{"anti-affinity", []placed{{"a", makePod("x", labelled("app", "a"), important(2))}, {"b", makePod("y", labelled("app", "a"), important(1))}}, makePod("p", away("a"), important(9)), nil, "b", "y"},
		{"too big for any node", []placed{{"a", makePod("x", cpu("1"))}}, makePod("p", cpu("5"), important(9)), nil, "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := makeState(makeNode("a"), makeNode("b"))
			for _, there := range test.there {
				s.put(there.node, there.pod)
			}
			p := newPodState(test.pod)
			d := s.decide(p)
			if d.node != nil {
				t.Fatal("there is room on", d.node.name)
			}
			before := fmt.Sprint(s.byName["a"].used, s.byName["b"].used, len(s.pods), s.rev)
			got, ok := s.preempt(p, &d, test.budgets)
			if after := fmt.Sprint(s.byName["a"].used, s.byName["b"].used, len(s.pods), s.rev); after != before {
				t.Fatalf("the trial changed the state from %s to %s", before, after)
			}
			if !ok {
				if test.node != "" {
					t.Fatal("found nobody")
				}
				return
			}
			var names []string
			for _, v := range got.victims {
				names = append(names, v.pod.Name)
			}
			if got.node.name != test.node || strings.Join(names, ",") != test.victims {
				t.Errorf("cleared %s of %v, want %s of %s", got.node.name, names, test.node, test.victims)
			}
		})
	}
}

func TestNominationKeepsRoom(t *testing.T) {
	s := makeState(makeNode("a"), makeNode("b", func(n *corev1.Node) { n.Status.Allocatable = list("cpu", "1", "memory", "1Gi", "pods", "10") }))
	big := newPodState(makePod("big", asks("cpu", "4"), important(5)))
	victim := makePod("victim", asks("cpu", "4"))
	s.put("a", victim)
	s.nominate(big, "a")
	s.evicting["victim"] = true
	if s.mayNotPreempt(big) == "" {
		t.Error("preempted again while its victim is leaving")
	}
	s.dropPod("victim")
	s.forget("victim")
	if d := s.decide(newPodState(makePod("small", asks("cpu", "2"), important(5)))); d.node != nil {
		t.Error("an equal took the room on", d.node.name)
	}
	if d := s.decide(newPodState(makePod("higher", asks("cpu", "2"), important(6)))); d.node == nil {
		t.Error("a more important pod was kept out:", d.refusals)
	}
	if d := s.decide(big); d.node == nil || d.node.name != "a" {
		t.Error("the nominated pod did not get its node")
	}
	if displaced := s.nominate(newPodState(makePod("higher", important(6))), "a"); len(displaced) != 1 || displaced[0] != big {
		t.Error("displaced", displaced)
	}
	never := makePod("never")
	never.Spec.PreemptionPolicy = ptr.To(corev1.PreemptNever)
	if s.mayNotPreempt(newPodState(never)) == "" {
		t.Error("preemptionPolicy Never may preempt")
	}
}

func BenchmarkDecide(b *testing.B) {
	for _, nodes := range []int{1000, 5000} {
		for name, edit := range map[string]func(*corev1.Pod){"plain": asks("cpu", "10m"), "spread": spread(1, "zone", "a", corev1.DoNotSchedule)} {
			b.Run(fmt.Sprintf("%s/%d", name, nodes), func(b *testing.B) {
				s := makeState()
				for i := range nodes {
					s.setNode(makeNode(fmt.Sprint("n", i), func(n *corev1.Node) {
						n.Labels["zone"] = fmt.Sprint("z", i%3)
						n.Status.Allocatable[corev1.ResourcePods] = resource.MustParse("1000000")
						n.Status.Allocatable[corev1.ResourceCPU] = resource.MustParse("1000000")
					}))
				}
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					i++
					p := newPodState(makePod(fmt.Sprint("p", i), labelled("app", "a"), edit))
					d := s.decide(p)
					if d.node == nil {
						b.Fatal(d.message(""))
					}
					s.setPod(p, d.node.name)
				}
			})
		}
	}
}
