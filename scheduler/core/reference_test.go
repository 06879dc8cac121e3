package core

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	podresource "k8s.io/component-helpers/resource"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/utils/ptr"
)

// world is the reference: the same rules, told plainly over lists of objects, without anything remembered. It shares no
// code with the core but that which reads label selectors.
type world struct {
	nodes      map[string]*corev1.Node
	pods       map[types.UID]*corev1.Pod // bound ones
	namespaces map[string]map[string]string
}

func (w *world) on(node string) (out []*corev1.Pod) {
	for _, p := range w.pods {
		if p.Spec.NodeName == node {
			out = append(out, p)
		}
	}
	return out
}

func (w *world) about(owner *corev1.Pod, t *corev1.PodAffinityTerm, p *corev1.Pod) bool {
	sel, err := metav1.LabelSelectorAsSelector(t.LabelSelector)
	if err != nil || !sel.Matches(labels.Set(p.Labels)) {
		return false
	}
	if len(t.Namespaces) == 0 && t.NamespaceSelector == nil {
		return p.Namespace == owner.Namespace
	}
	if slices.Contains(t.Namespaces, p.Namespace) {
		return true
	}
	if t.NamespaceSelector == nil {
		return false
	}
	ns, err := metav1.LabelSelectorAsSelector(t.NamespaceSelector)
	return err == nil && ns.Matches(labels.Set(w.namespaces[p.Namespace]))
}

// together reports whether two nodes are in one domain.
func (w *world) together(a, b, key string) bool {
	x, ok1 := w.nodes[a]
	y, ok2 := w.nodes[b]
	if !ok1 || !ok2 {
		return false
	}
	v1, ok1 := x.Labels[key]
	v2, ok2 := y.Labels[key]
	return ok1 && ok2 && v1 == v2
}

func affinityOf(p *corev1.Pod) (req, anti []corev1.PodAffinityTerm, pref, prefAnti []corev1.WeightedPodAffinityTerm) {
	if a := p.Spec.Affinity; a != nil {
		if a.PodAffinity != nil {
			req, pref = a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution
		}
		if a.PodAntiAffinity != nil {
			anti, prefAnti = a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution
		}
	}
	return
}

func (w *world) affinityAllows(p *corev1.Pod, node *corev1.Node) bool {
	req, anti, _, _ := affinityOf(p)
	friend := func(o *corev1.Pod) bool {
		for i := range req {
			if !w.about(p, &req[i], o) {
				return false
			}
		}
		return true
	}
	anywhere := false
	for i := range req {
		if _, ok := node.Labels[req[i].TopologyKey]; !ok {
			return false
		}
		for _, o := range w.pods {
			if n := w.nodes[o.Spec.NodeName]; n != nil && friend(o) {
				if _, ok := n.Labels[req[i].TopologyKey]; ok {
					anywhere = true
				}
			}
		}
	}
	if len(req) > 0 && (anywhere || !friend(p)) {
		for i := range req {
			near := false
			for _, o := range w.pods {
				near = near || friend(o) && w.together(node.Name, o.Spec.NodeName, req[i].TopologyKey)
			}
			if !near {
				return false
			}
		}
	}
	for _, o := range w.pods {
		for i := range anti {
			if w.about(p, &anti[i], o) && w.together(node.Name, o.Spec.NodeName, anti[i].TopologyKey) {
				return false
			}
		}
		_, theirs, _, _ := affinityOf(o)
		for i := range theirs {
			if w.about(o, &theirs[i], p) && w.together(node.Name, o.Spec.NodeName, theirs[i].TopologyKey) {
				return false
			}
		}
	}
	return true
}

func (w *world) taintsAllow(p *corev1.Pod, n *corev1.Node) bool {
	for _, t := range n.Spec.Taints {
		if t.Effect != corev1.TaintEffectPreferNoSchedule && !slices.ContainsFunc(p.Spec.Tolerations, func(o corev1.Toleration) bool { return plainlyTolerates(o, t) }) {
			return false
		}
	}
	return true
}

func plainlyTolerates(o corev1.Toleration, t corev1.Taint) bool {
	return (o.Effect == "" || o.Effect == t.Effect) && (o.Key == "" || o.Key == t.Key) && (o.Operator == corev1.TolerationOpExists || o.Value == t.Value)
}

// counted are the domains of a constraint and how many matching pods each has.
func (w *world) counted(p *corev1.Pod, all []corev1.TopologySpreadConstraint, con *corev1.TopologySpreadConstraint) map[string]int {
	sel, _ := metav1.LabelSelectorAsSelector(con.LabelSelector)
	out := map[string]int{}
	for _, n := range w.nodes {
		counts := true
		for _, c := range all {
			if _, ok := n.Labels[c.TopologyKey]; c.WhenUnsatisfiable == con.WhenUnsatisfiable && !ok {
				counts = false
			}
		}
		if con.NodeAffinityPolicy == nil || *con.NodeAffinityPolicy == corev1.NodeInclusionPolicyHonor {
			ok, _ := nodeaffinity.GetRequiredNodeAffinity(p).Match(n)
			counts = counts && ok
		}
		if con.NodeTaintsPolicy != nil && *con.NodeTaintsPolicy == corev1.NodeInclusionPolicyHonor {
			counts = counts && w.taintsAllow(p, n)
		}
		if !counts {
			continue
		}
		out[n.Labels[con.TopologyKey]] += 0
		for _, o := range w.on(n.Name) {
			if o.DeletionTimestamp == nil && o.Namespace == p.Namespace && sel.Matches(labels.Set(o.Labels)) {
				out[n.Labels[con.TopologyKey]]++
			}
		}
	}
	return out
}

func (w *world) spreadAllows(p *corev1.Pod, n *corev1.Node) bool {
	for i := range p.Spec.TopologySpreadConstraints {
		con := &p.Spec.TopologySpreadConstraints[i]
		if con.WhenUnsatisfiable != corev1.DoNotSchedule {
			continue
		}
		value, ok := n.Labels[con.TopologyKey]
		if !ok {
			return false
		}
		counts := w.counted(p, p.Spec.TopologySpreadConstraints, con)
		lowest := math.MaxInt
		for _, c := range counts {
			lowest = min(lowest, c)
		}
		if len(counts) == 0 || con.MinDomains != nil && len(counts) < int(*con.MinDomains) {
			lowest = 0
		}
		sel, _ := metav1.LabelSelectorAsSelector(con.LabelSelector)
		self := 0
		if sel.Matches(labels.Set(p.Labels)) {
			self = 1
		}
		if counts[value]+self-lowest > int(con.MaxSkew) {
			return false
		}
	}
	return true
}

func (w *world) used(node string, missing bool) (cpu, memory float64) {
	for _, p := range w.on(node) {
		c, m := demand(p, missing)
		cpu, memory = cpu+c, memory+m
	}
	return
}

func demand(p *corev1.Pod, missing bool) (cpu, memory float64) {
	opts := podresource.PodResourcesOptions{}
	if missing {
		opts.NonMissingContainerRequests = list("cpu", "100m", "memory", "200Mi")
	}
	l := podresource.PodRequests(p, opts)
	return float64(l.Cpu().MilliValue()), float64(l.Memory().Value())
}

func (w *world) feasible(p *corev1.Pod, n *corev1.Node) bool {
	if n.Spec.Unschedulable && !slices.ContainsFunc(p.Spec.Tolerations, func(o corev1.Toleration) bool {
		return plainlyTolerates(o, corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule})
	}) {
		return false
	}
	if !w.taintsAllow(p, n) {
		return false
	}
	if ok, _ := nodeaffinity.GetRequiredNodeAffinity(p).Match(n); !ok {
		return false
	}
	for _, o := range w.on(n.Name) {
		for _, mine := range p.Spec.Containers[0].Ports {
			for _, theirs := range o.Spec.Containers[0].Ports {
				if mine.HostPort == theirs.HostPort {
					return false
				}
			}
		}
	}
	cpu, memory := demand(p, false)
	usedCPU, usedMemory := w.used(n.Name, false)
	if len(w.on(n.Name))+1 > int(n.Status.Allocatable.Pods().Value()) || cpu > 0 && usedCPU+cpu > float64(n.Status.Allocatable.Cpu().MilliValue()) ||
		memory > 0 && usedMemory+memory > float64(n.Status.Allocatable.Memory().Value()) {
		return false
	}
	return w.spreadAllows(p, n) && w.affinityAllows(p, n)
}

// scores rates feasible nodes.
func (w *world) scores(p *corev1.Pod) map[string]int64 {
	var fine []*corev1.Node
	for _, n := range w.nodes {
		if w.feasible(p, n) {
			fine = append(fine, n)
		}
	}
	total := map[string]int64{}
	add := func(weight int64, rate func(n *corev1.Node) int64, normalize func(raw map[string]int64)) {
		raw := map[string]int64{}
		for _, n := range fine {
			raw[n.Name] = rate(n)
		}
		if normalize != nil && len(fine) > 0 {
			normalize(raw)
		}
		for name, r := range raw {
			total[name] += weight * r
		}
	}
	top := func(raw map[string]int64) int64 { return slices.Max(slices.Collect(maps.Values(raw))) }
	add(1, func(n *corev1.Node) int64 {
		cpu, memory := w.used(n.Name, true)
		c, m := demand(p, true)
		free := func(used, has float64) int64 {
			if used > has {
				return 0
			}
			return int64((has - used) * 100 / has)
		}
		return (free(cpu+c, float64(n.Status.Allocatable.Cpu().MilliValue())) + free(memory+m, float64(n.Status.Allocatable.Memory().Value()))) / 2
	}, nil)
	add(1, func(n *corev1.Node) int64 {
		c, m := demand(p, false)
		if c == 0 && m == 0 {
			return 0
		}
		cpu, memory := w.used(n.Name, false)
		even := func(c, m float64) int64 {
			x, y := min(1, c/float64(n.Status.Allocatable.Cpu().MilliValue())), min(1, m/float64(n.Status.Allocatable.Memory().Value()))
			return int64((1 - math.Abs(x-y)/2) * 100)
		}
		return 50 + (50+even(cpu+c, memory+m)-even(cpu, memory))/2
	}, nil)
	add(3, func(n *corev1.Node) (count int64) {
		for _, t := range n.Spec.Taints {
			if t.Effect == corev1.TaintEffectPreferNoSchedule && !slices.ContainsFunc(p.Spec.Tolerations, func(o corev1.Toleration) bool { return plainlyTolerates(o, t) }) {
				count++
			}
		}
		return count
	}, func(raw map[string]int64) {
		most := top(raw)
		for name := range raw {
			if most == 0 {
				raw[name] = 100
			} else {
				raw[name] = 100 - 100*raw[name]/most
			}
		}
	})
	if a := p.Spec.Affinity; a != nil && a.NodeAffinity != nil {
		terms, err := nodeaffinity.NewPreferredSchedulingTerms(a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
		if err == nil {
			add(2, terms.Score, func(raw map[string]int64) {
				if most := top(raw); most > 0 {
					for name := range raw {
						raw[name] = 100 * raw[name] / most
					}
				}
			})
		}
	}
	w.addSpread(p, fine, total)
	w.addAffinity(p, fine, total)
	return total
}

func (w *world) addSpread(p *corev1.Pod, fine []*corev1.Node, total map[string]int64) {
	var soft []corev1.TopologySpreadConstraint
	for _, con := range p.Spec.TopologySpreadConstraints {
		if con.WhenUnsatisfiable == corev1.ScheduleAnyway {
			soft = append(soft, con)
		}
	}
	if len(soft) == 0 {
		return
	}
	raw, ignored := map[string]int64{}, map[string]bool{}
	for _, n := range fine {
		for _, con := range soft {
			if _, ok := n.Labels[con.TopologyKey]; !ok {
				ignored[n.Name] = true
			}
		}
	}
	low, top := int64(math.MaxInt64), int64(0)
	for _, n := range fine {
		if ignored[n.Name] {
			continue
		}
		sum := 0.0
		for i := range soft {
			values := map[string]bool{}
			for _, o := range fine {
				if !ignored[o.Name] {
					values[o.Labels[soft[i].TopologyKey]] = true
				}
			}
			size := len(values)
			if soft[i].TopologyKey == corev1.LabelHostname {
				size = len(fine) - len(ignored)
			}
			counts := w.counted(p, soft, &soft[i])
			sum += float64(counts[n.Labels[soft[i].TopologyKey]])*math.Log(float64(size+2)) + float64(soft[i].MaxSkew-1)
		}
		raw[n.Name] = int64(math.Round(sum))
		low, top = min(low, raw[n.Name]), max(top, raw[n.Name])
	}
	for name, r := range raw {
		if top == 0 {
			total[name] += 2 * 100
		} else {
			total[name] += 2 * (100 * (top + low - r) / top)
		}
	}
}

func (w *world) addAffinity(p *corev1.Pod, fine []*corev1.Node, total map[string]int64) {
	raw := map[string]int64{}
	_, _, pref, prefAnti := affinityOf(p)
	any := false
	for _, n := range fine {
		for _, o := range w.pods {
			theirReq, _, theirPref, theirPrefAnti := affinityOf(o)
			like := func(owner, other *corev1.Pod, t *corev1.PodAffinityTerm, weight int64) {
				if w.about(owner, t, other) && w.together(n.Name, o.Spec.NodeName, t.TopologyKey) {
					raw[n.Name] += weight
				}
			}
			for i := range pref {
				like(p, o, &pref[i].PodAffinityTerm, int64(pref[i].Weight))
			}
			for i := range prefAnti {
				like(p, o, &prefAnti[i].PodAffinityTerm, -int64(prefAnti[i].Weight))
			}
			for i := range theirReq {
				like(o, p, &theirReq[i], 1)
			}
			for i := range theirPref {
				like(o, p, &theirPref[i].PodAffinityTerm, int64(theirPref[i].Weight))
			}
			for i := range theirPrefAnti {
				like(o, p, &theirPrefAnti[i].PodAffinityTerm, -int64(theirPrefAnti[i].Weight))
			}
		}
		any = any || raw[n.Name] != 0
	}
	if !any {
		return
	}
	low, top := int64(math.MaxInt64), int64(math.MinInt64)
	for _, n := range fine {
		low, top = min(low, raw[n.Name]), max(top, raw[n.Name])
	}
	for _, n := range fine {
		if top > low {
			total[n.Name] += 2 * int64(100*(float64(raw[n.Name]-low)/float64(top-low)))
		}
	}
}

// randomPod draws from few shapes, so that shapes, kins and tallies are shared.
func randomPod(r *rand.Rand, i int) *corev1.Pod {
	app := fmt.Sprint("app", r.IntN(3))
	p := makePod(fmt.Sprint("p", i), labelled("app", app), important(r.Int32N(3)))
	p.Namespace = fmt.Sprint("ns", r.IntN(2))
	if r.IntN(5) > 0 {
		asks("cpu", fmt.Sprintf("%dm", 100*(1+r.IntN(4))), "memory", fmt.Sprintf("%dMi", 100*(1+r.IntN(3))))(p)
	}
	key := []string{corev1.LabelHostname, "zone", "rack"}[r.IntN(3)]
	for range r.IntN(3) {
		switch r.IntN(9) {
		case 0:
			away(app)(p)
		case 1:
			spread(1+r.Int32N(2), key, app, corev1.DoNotSchedule)(p)
			con := &p.Spec.TopologySpreadConstraints[0]
			if r.IntN(3) == 0 {
				con.MinDomains = ptr.To(1 + r.Int32N(4))
			}
			if r.IntN(3) == 0 {
				con.NodeTaintsPolicy = ptr.To(corev1.NodeInclusionPolicyHonor)
			}
			if r.IntN(3) == 0 {
				con.NodeAffinityPolicy = ptr.To(corev1.NodeInclusionPolicyIgnore)
			}
		case 2:
			spread(1+r.Int32N(3), key, app, corev1.ScheduleAnyway)(p)
			if r.IntN(2) == 0 {
				p.Spec.TopologySpreadConstraints = append(p.Spec.TopologySpreadConstraints, corev1.TopologySpreadConstraint{MaxSkew: 2, TopologyKey: "rack",
					WhenUnsatisfiable: corev1.ScheduleAnyway, LabelSelector: selector("app", "app0")})
			}
		case 3:
			onPort(int32(8000 + r.IntN(3)))(p)
		case 4:
			p.Spec.Tolerations = []corev1.Toleration{{Key: []string{"soft", "hard"}[r.IntN(2)], Operator: corev1.TolerationOpExists}}
		case 5:
			p.Spec.NodeSelector = map[string]string{"zone": fmt.Sprint("z", r.IntN(3))}
		case 6:
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{
				{Weight: 5, Preference: corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "zone", Operator: corev1.NodeSelectorOpIn, Values: []string{"z1"}}}}},
				{Weight: 3, Preference: corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "rack", Operator: corev1.NodeSelectorOpDoesNotExist}}}}}}}
			if r.IntN(2) == 0 {
				p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
					{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "size", Operator: corev1.NodeSelectorOpGt, Values: []string{"2"}}}},
					{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "zone", Operator: corev1.NodeSelectorOpNotIn, Values: []string{"z0"}}, {Key: "rack", Operator: corev1.NodeSelectorOpExists}}}}}
			}
		case 7:
			weighted := []corev1.WeightedPodAffinityTerm{{Weight: 10, PodAffinityTerm: corev1.PodAffinityTerm{TopologyKey: key, LabelSelector: selector("app", "app0")}}}
			if r.IntN(2) == 0 {
				p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{PreferredDuringSchedulingIgnoredDuringExecution: weighted}}
			} else {
				p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{PreferredDuringSchedulingIgnoredDuringExecution: weighted}}
			}
		case 8:
			terms := []corev1.PodAffinityTerm{{TopologyKey: key, LabelSelector: selector("app", fmt.Sprint("app", r.IntN(3)))}}
			switch r.IntN(3) {
			case 0:
				terms[0].Namespaces = []string{"ns0"}
			case 1:
				terms[0].NamespaceSelector = selector("team", "x")
			}
			if r.IntN(3) == 0 {
				terms = append(terms, corev1.PodAffinityTerm{TopologyKey: "zone", LabelSelector: selector("app", app)})
			}
			p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: terms}}
		}
	}
	return p
}

func randomNode(r *rand.Rand, i int) *corev1.Node {
	return makeNode(fmt.Sprint("n", i), func(n *corev1.Node) {
		if r.IntN(8) > 0 {
			n.Labels["zone"] = fmt.Sprint("z", r.IntN(3))
		}
		if r.IntN(3) > 0 {
			n.Labels["rack"] = fmt.Sprint("r", r.IntN(4))
		}
		n.Labels["size"] = fmt.Sprint(r.IntN(5))
		n.Status.Allocatable = list("cpu", fmt.Sprint(1+r.IntN(4)), "memory", fmt.Sprintf("%dGi", 1+r.IntN(4)), "pods", fmt.Sprint(5+r.IntN(20)))
		switch r.IntN(12) {
		case 0:
			n.Spec.Unschedulable = true
		case 1, 2:
			n.Spec.Taints = []corev1.Taint{{Key: "soft", Effect: corev1.TaintEffectPreferNoSchedule}}
		case 3:
			n.Spec.Taints = []corev1.Taint{{Key: "hard", Effect: corev1.TaintEffectNoSchedule}}
		}
	})
}

// feasibleIn is the nodes that the core finds feasible.
func feasibleIn(c *Cluster, p *Pod) map[string]bool {
	rules, _ := c.crossOf(p)
	p.shape.update(c)
	out := map[string]bool{}
	for i, no := range p.shape.codes {
		if no == 0 && pass(rules.filters, i) == 0 {
			out[c.nodes[i].name] = true
		}
	}
	return out
}

// checkPreemption compares what Preempt remembers about sacrifices with judging each node anew.
func checkPreemption(t *testing.T, c *Cluster, p *Pod, d *Decision) int {
	t.Helper()
	got, ok, counts := c.Preempt(p, d, nil)
	best := ""
	for _, n := range c.nodes {
		if n == nil || n.obj == nil || d.refusalOf(n).Lasting {
			continue
		}
		s, no := c.sacrificeOf(n, p, true)
		if no != 0 || len(s.Victims) == 0 {
			continue
		}
		best = n.name
		if !ok {
			continue
		}
		if other, chosen := s.worth(), got.worth(); other.lesser(&chosen) {
			t.Fatalf("%s is cleared, but %s would harm less", got.Node, n.name)
		}
	}
	if ok != (best != "") {
		t.Fatalf("preemption found %v (%v), but %q can be cleared", ok, counts, best)
	}
	total := 0
	for _, n := range counts {
		total += n
	}
	if !ok {
		if total != d.Nodes {
			t.Fatalf("%v speaks of %d nodes, there are %d", counts, total, d.Nodes)
		}
		return 0
	}
	return 1
}

// TestBestNodeInAnyHistory: whatever happened before, the same nodes are feasible as in the reference, and the chosen one
// has the best score that the reference gives.
func TestBestNodeInAnyHistory(t *testing.T) {
	placed, refused, preempted := 0, 0, 0
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		c, profile := New(), DefaultProfile()
		w := &world{nodes: map[string]*corev1.Node{}, pods: map[types.UID]*corev1.Pod{}, namespaces: map[string]map[string]string{}}
		setNode := func(i int) {
			n := randomNode(r, i)
			c.Set(n)
			w.nodes[n.Name] = n
		}
		setNamespace := func(name, team string) {
			w.namespaces[name] = map[string]string{"team": team}
			c.Set(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: w.namespaces[name]}})
		}
		setNamespace("ns0", "x")
		setNamespace("ns1", "y")
		for i := range 12 {
			setNode(i)
		}
		var live []types.UID
		for i := range 120 {
			switch r.IntN(14) {
			case 0:
				setNode(r.IntN(14))
			case 1:
				name := fmt.Sprint("n", r.IntN(14))
				delete(w.nodes, name)
				c.Delete(makeNode(name))
			case 2:
				setNamespace("ns1", []string{"x", "y"}[r.IntN(2)])
			case 3, 4:
				if len(live) == 0 {
					continue
				}
				k := r.IntN(len(live))
				p := w.pods[live[k]]
				if r.IntN(3) == 0 { // it is ending, but still there
					p = p.DeepCopy()
					p.DeletionTimestamp = &metav1.Time{}
					w.pods[p.UID] = p
					c.Set(p)
					continue
				}
				c.Delete(p)
				delete(w.pods, p.UID)
				live = slices.Delete(live, k, k+1)
			default:
				obj := randomPod(r, i)
				p := c.Pod(obj, profile)
				want := w.scores(obj)
				got := feasibleIn(c, p)
				for name := range w.nodes {
					if _, ok := want[name]; ok != got[name] {
						t.Fatalf("seed %d step %d: %s is feasible: %v, the reference says %v", seed, i, name, got[name], ok)
					}
				}
				d := c.Decide(p)
				if d.Node == "" {
					refused++
					preempted += checkPreemption(t, c, p, &d)
					total := 0
					for _, n := range d.histogram() {
						total += n
					}
					if len(want) > 0 || total != len(w.nodes) || d.Nodes != total {
						t.Fatalf("seed %d step %d: refused by %d of %d nodes with %q, but %v are feasible", seed, i, total, d.Nodes, d.Message(""), want)
					}
					continue
				}
				placed++
				for name, score := range want {
					if score > want[d.Node] {
						t.Fatalf("seed %d step %d: chose %s with %d, but %s has %d", seed, i, d.Node, want[d.Node], name, score)
					}
				}
				bound := obj.DeepCopy()
				bound.Spec.NodeName = d.Node
				c.Assume(p, d.Node)
				if r.IntN(2) == 0 {
					c.Set(bound) // the cache shows it
				}
				w.pods[obj.UID] = bound
				live = append(live, obj.UID)
			}
		}
	}
	if placed < 1000 || refused < 100 || preempted < 50 {
		t.Errorf("%d pods were placed, %d refused, %d may preempt: the histories do not say much", placed, refused, preempted)
	}
}
